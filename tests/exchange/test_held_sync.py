"""While a sync is held, nobody hears of what it covers: no answer, no event, no higher number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from exchange.adapters.file_log import FileLog, LogFailedError
from exchange.adapters.sequencer import Absent, Declined, Done, Sequencer
from exchange.engine import Engine
from exchange.journal import Kind
from exchange.ports import Refusal
from exchange.recording import RecordingEngine, RecordingLog
from exchange.types import Lots
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError
from tests.exchange.held_disk import HeldDisk
from tests.exchange.plant import INSTRUMENTS, eventually, order


class Heard:
    """What left a sequencer."""

    def __init__(self) -> None:
        self.answers: dict[str, Done | Declined] = {}
        """The first answer to each: a later one takes nothing back."""
        self.published: list[int] = []


@asynccontextmanager
async def running(root: Path, disk: HeldDisk) -> AsyncIterator[tuple[Sequencer, Heard]]:
    heard = Heard()
    with FileLog(root / "journal", disk=disk) as journal, FileLog(root / "events", Kind.EVENTS) as events:
        sequencer = Sequencer(Engine(INSTRUMENTS), journal, events, clock=SystemClock(), telemetry=RecordingEngine(),
                              log=RecordingLog())  # fmt: skip
        sequencer.published = lambda _payloads, seq: heard.published.append(seq)
        task = asyncio.create_task(sequencer.run())
        try:
            yield sequencer, heard
        finally:
            disk.let_go()
            sequencer.stop()
            await task


def send(sequencer: Sequencer, heard: Heard, *names: str) -> None:
    def keep(name: str, outcome: Done | Declined) -> None:
        heard.answers.setdefault(name, outcome)

    for name in names:
        sequencer.submit(order(name), partial(keep, name))


async def turns(count: int = 50) -> None:
    """Let the loop do whatever it would do."""
    for _ in range(count):
        await asyncio.sleep(0.001)


async def test_nothing_leaves_before_its_own_sync_came_back(tmp_path: Path) -> None:
    disk = HeldDisk()
    async with running(tmp_path, disk) as (sequencer, heard):
        disk.hold()
        send(sequencer, heard, "a", "b")
        await eventually(lambda: disk.begun == 1)
        send(sequencer, heard, "c", "d")  # they come while the sync of the first two is under way
        await turns()
        assert (heard.answers, heard.published, sequencer.seq, disk.ended) == ({}, [], 0, 0)
        assert sequencer.engine.sequence >= 2  # matched, and nobody knows
        assert sequencer.look_up(order("a").account, order("a").client_id) == Declined(Refusal.IN_FLIGHT)
        disk.let_one_through()
        await eventually(lambda: disk.begun == 2)
        await eventually(lambda: len(heard.answers) == 2)
        await turns()
        # The first sync says nothing of what was written after it began.
        assert (list(heard.answers), heard.published, sequencer.seq, disk.ended) == (["a", "b"], [2], 2, 1)
        disk.let_one_through()
        await eventually(lambda: len(heard.answers) == 4)
        assert all(isinstance(answer, Done) for answer in heard.answers.values())
        assert (list(heard.answers), heard.published, sequencer.seq) == (["a", "b", "c", "d"], [2, 4], 4)


@pytest.mark.parametrize("later", [(), ("c", "d")])
async def test_when_the_held_sync_fails_nobody_is_acknowledged_and_none_is_tried_again(
    tmp_path: Path, later: tuple[str, ...]
) -> None:
    disk = HeldDisk()
    async with running(tmp_path, disk) as (sequencer, heard):
        disk.hold()
        send(sequencer, heard, "a", "b")
        await eventually(lambda: disk.begun == 1)
        send(sequencer, heard, *later)
        await turns()
        disk.fails = True
        disk.let_one_through()
        await eventually(lambda: len(heard.answers) == 2 + len(later))
        disk.fails = False  # the next would succeed, and prove nothing
        disk.let_go()
        await turns()
        reasons = {name: answer.reason for name, answer in heard.answers.items() if isinstance(answer, Declined)}
        assert set(reasons) == {"a", "b", *later}
        assert reasons["a"] is reasons["b"] is Refusal.UNDECIDED
        assert {reasons[name] for name in later} <= {Refusal.UNDECIDED, Refusal.JOURNAL_FAILED}
        assert (heard.published, sequencer.seq, disk.begun, disk.ended) == ([], 0, 1, 0)
        assert sequencer.look_up(order("a").account, order("a").client_id) == Declined(Refusal.UNDECIDED)


async def test_what_a_failed_sync_covers_is_in_no_snapshot_and_no_books(tmp_path: Path) -> None:
    """Whoever asked while the sync was under way, too: the engine has carried out what its journal may not have."""
    disk = HeldDisk()
    async with running(tmp_path, disk) as (sequencer, heard):
        disk.hold()
        send(sequencer, heard, "a")
        await eventually(lambda: disk.begun == 1)
        asked = asyncio.create_task(sequencer.at_rest(lambda: sequencer.engine.sequence))
        await turns()
        disk.fails = True
        disk.let_one_through()
        with pytest.raises(PermanentError, match=r"ahead of its journal, which failed: .*Input/output error"):
            await asked
        with pytest.raises(PermanentError, match="ahead of its journal"):
            await sequencer.at_rest(lambda: sequencer.engine.sequence)


async def test_when_the_event_log_refuses_what_is_queued_is_declined_and_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_payloads: object) -> None:
        raise LogFailedError("no space left")

    disk = HeldDisk()
    async with running(tmp_path, disk) as (sequencer, heard):
        disk.hold()
        send(sequencer, heard, "a")
        await eventually(lambda: disk.begun == 1)
        send(sequencer, heard, "b")  # it is queued while the sync of the first is under way
        monkeypatch.setattr(sequencer._events, "append", refuse)
        disk.let_one_through()
        await eventually(lambda: len(heard.answers) == 2)
        assert isinstance(heard.answers["a"], Done), "it is durable, whatever its consumers hear of it"
        assert heard.answers["b"] == Declined(Refusal.JOURNAL_FAILED, "no space left")
        assert sequencer.look_up(order("b").account, order("b").client_id) == Absent()


async def test_an_id_under_way_is_told_apart_from_the_same_id_with_other_contents(tmp_path: Path) -> None:
    disk = HeldDisk()
    async with running(tmp_path, disk) as (sequencer, heard):
        disk.hold()
        send(sequencer, heard, "a")
        await eventually(lambda: disk.begun == 1)
        answers: list[Done | Declined] = []
        sequencer.submit(order("a"), answers.append)
        sequencer.submit(msgspec.structs.replace(order("a"), quantity=Lots(9)), answers.append)
        assert answers == [Declined(Refusal.IN_FLIGHT), Declined(Refusal.MISMATCH)]
        assert heard.answers == {}
