"""An engine's single writer, killed (SIGKILL) again and again under load, and an account of what it had promised.

    python -m tests.exchange.kill_rounds DIRECTORY ROUNDS SEED [PLANTED]

Each round forks a writer: recovery, sequencer, a flow of orders, everything that the round before left unanswered sent
again under the same client ids, snapshots and compactions now and then. Each acknowledgement goes through a pipe to the
parent, which kills the writer at an instant by chance - before, within or after a commit, a snapshot, a compaction or a
recovery. In the end the journal is held against the acknowledgements. Prints the account as JSON. With a bug PLANTED
on purpose (`answer-early`, `forget`) the account must not be clean.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from exchange import snapshot
from exchange.adapters.compaction import Compacting, compact
from exchange.adapters.file_log import FileLog
from exchange.adapters.log_check import check_log
from exchange.adapters.recovery import CleanStop, Recovered, mark_clean_stop, oldest_whole, recover, write_snapshot
from exchange.adapters.sequencer import Declined, Done, Sequencer
from exchange.commands import ParticipantCommand, Sequenced
from exchange.engine import Engine
from exchange.events import Event, Rejected
from exchange.flow import OrderFlow
from exchange.journal import decode_command, decode_events, encode_command
from exchange.manifest import NOTHING
from exchange.recording import RecordingEngine, RecordingLog
from exchange.types import AccountId, Instrument, RejectReason, Symbol, Ticks
from kernel.adapters.clock import SystemClock
from kernel.chance import stream
from tests.exchange.plant import paths

INSTRUMENTS = (Instrument(Symbol("AAA"), Ticks(1_000), Ticks(200)), Instrument(Symbol("BBB"), Ticks(500), Ticks(100)))
ACCOUNTS = (AccountId("p"), AccountId("q"), AccountId("r"))
ACK = struct.Struct(">QI")
"""Place in the journal, and which of the round's commands it is."""
IN_FLIGHT = 64
SEGMENT_BYTES = 4_000
ROUNDS_A_JOURNAL = 50
COMMANDS = 1_000
"""What a writer is given: more than most live to answer."""
FIRST_S = 0.005
PATIENCE_S = 30.0
LIFE_S = 0.06
"""On average after the first instant: some are killed while they recover, some amid hundreds of commits."""


@dataclass(frozen=True)
class Rounds:
    """How a run is made."""

    seed: int
    planted: str = ""


def plant(bug: str, back: Recovered) -> None:
    """Put a bug into a writer."""
    append, held = back.journal.append, [list[bytes]()]

    def append_late(payloads: Sequence[bytes]) -> int:
        late, held[0] = held[0], list(payloads)
        return append(late) if late else back.journal.last_seq

    if bug == "answer-early":  # each batch is written with the next one
        back.journal.append = append_late  # type: ignore[method-assign]
    elif bug == "forget":  # client ids are not remembered over a start
        back.engine._forget_requests()


def write(root: Path, acknowledge: int, commands: list[ParticipantCommand], rounds: Rounds, round_number: int) -> None:
    """Be the writer: never returns in good order unless everything is answered."""
    if round_number % 3 == 2 and paths(root).journal.exists():
        compact(paths(root), INSTRUMENTS)
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    for log in (back.journal, back.events):
        log._segment_bytes = SEGMENT_BYTES  # type: ignore[attr-defined] # many small segments, so that kills fall between
    plant(rounds.planted, back)
    asyncio.run(
        _send(root, back, acknowledge, commands, stream(rounds.seed, f"writer-{round_number}").randrange(40, 120))
    )


async def _send(root: Path, back: Recovered, acknowledge: int, commands: list[ParticipantCommand], every: int) -> None:
    sequencer = Sequencer(
        back.engine, back.journal, back.events,
        clock=SystemClock(), telemetry=RecordingEngine(), log=RecordingLog(),
    )  # fmt: skip
    assert isinstance(back.journal, FileLog), "the journal is in files"
    compacting = Compacting(
        back.journal, back.events, NOTHING, clock=SystemClock(), telemetry=RecordingEngine(), log=RecordingLog()
    )
    running = asyncio.create_task(sequencer.run())
    seen = back.engine.sequence  # whatever came since is only removed when the account has looked at it
    room = asyncio.Semaphore(IN_FLIGHT)
    done = 0

    def answer(index: int, outcome: Done | Declined) -> None:
        nonlocal done
        assert isinstance(outcome, Done), outcome
        os.write(acknowledge, ACK.pack(outcome.seq, index))
        done += 1
        room.release()

    for index, command in enumerate(commands):
        await room.acquire()
        sequencer.submit(command, lambda outcome, index=index: answer(index, outcome))  # type: ignore[misc]
        if index % every == every - 1:
            data = await sequencer.at_rest(lambda: (back.engine.sequence, snapshot.dump(back.engine)))
            write_snapshot(paths(root).snapshots, *data)
            await compacting.run(min(seen, oldest_whole(paths(root).snapshots, (INSTRUMENTS, None), 0) or 0))
    for _ in range(IN_FLIGHT):
        await room.acquire()
    assert done == len(commands), "answered all, and not all are done"
    sequencer.stop()
    await running
    mark_clean_stop(paths(root).snapshots, CleanStop(back.engine.sequence, back.engine.state_hash()))


def one_round(
    root: Path, commands: list[ParticipantCommand], life_s: float, rounds: Rounds, number: int
) -> tuple[dict[int, int], bool]:
    """Let a writer live for so long; return the place of each command it acknowledged, and whether it was killed."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(ours)
            write(root, theirs, commands, rounds, number)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, nothing of the parent's may run in the child
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(theirs)
    heard = b""
    if number % 2:  # every other writer is sure to have promised something, however slow the machine is
        select.select([ours], [], [], PATIENCE_S)
    deadline = time.monotonic() + life_s
    open_end = True
    while open_end and (left := deadline - time.monotonic()) > 0:
        if select.select([ours], [], [], left)[0]:
            data = os.read(ours, 65536)
            heard += data
            open_end = bool(data)
    os.kill(child, signal.SIGKILL)
    while data := os.read(ours, 65536):
        heard += data
    os.close(ours)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status)
    assert killed or os.waitstatus_to_exitcode(status) == 0, f"the writer of round {number} failed by itself"
    whole = len(heard) // ACK.size * ACK.size
    return {index: seq for seq, index in ACK.iter_unpack(heard[:whole])}, killed


class Promises:
    """What one journal's writers acknowledged."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, str], int] = {}
        self.sent: dict[tuple[str, str], ParticipantCommand] = {}
        self.changed = 0
        """Acknowledged a second time with another place: never."""

    def add(self, command: ParticipantCommand, seq: int) -> None:
        key = (str(command.account), str(command.client_id))
        if self.places.setdefault(key, seq) != seq:
            self.changed += 1
        self.sent[key] = command


def account(root: Path, whole: list[Sequenced], promises: Promises) -> Counter[str]:
    """Hold a journal (all its records, also those compacted since) against what was acknowledged."""
    engine, count = Engine(INSTRUMENTS), Counter[str]()
    places: dict[tuple[str, str], list[int]] = {}
    for item in whole:
        events = engine.apply(item)
        command = item.command
        key = (str(command.account), str(command.client_id))  # type: ignore[union-attr] # the flow sends no others
        if not _is_duplicate(events):
            places.setdefault(key, []).append(item.seq)
        count["in_journal"] += 1
    for key, seq in promises.places.items():
        count["acknowledged"] += 1
        count["lost"] += places.get(key, []) != [seq] or whole[seq - 1].command != promises.sent[key]
    count["twice"] = sum(len(found) > 1 for found in places.values()) + promises.changed
    back = recover(paths(root), INSTRUMENTS, RecordingLog())
    with closing(back.journal), back.events:
        count["other_state"] = int(back.engine.state_hash() != engine.state_hash())
        count["compacted"] = int(back.journal.first_seq > 1)
        told = [decode_events(record.payload) for record in back.events.replay(back.events.first_seq)]
        again = Engine(INSTRUMENTS)
        derived = [again.apply(item) for item in whole][back.events.first_seq - 1 :]
        count["events_differ"] = sum(one.events != other for one, other in zip(told, derived, strict=True))
    count["damaged"] = sum(check_log(each).bad is not None for each in (paths(root).journal, paths(root).events))
    return count


def _is_duplicate(events: tuple[Event, ...]) -> bool:
    return any(isinstance(one, Rejected) and one.reason is RejectReason.DUPLICATE_CLIENT_ID for one in events)


class Kept:
    """All records that were ever seen in a journal: what a compaction removes is remembered here."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.items: list[Sequenced] = []
        self.changed = 0

    def look(self) -> None:
        """Take in what is new, and see that nothing that was there changed."""
        directory = paths(self._root).journal
        with FileLog(directory) as log:
            for record in log.replay(log.first_seq):
                item = decode_command(record.payload)
                if record.seq > len(self.items):
                    self.items.append(item)
                elif encode_command(self.items[record.seq - 1]) != record.payload:
                    self.changed += 1


def run(directory: Path, kills: int, rounds: Rounds) -> dict[str, int]:
    """Kill so many writers; return the account over all journals."""
    total, chance = Counter[str](), stream(rounds.seed, "kills")
    while total["killed"] < kills:
        first = total["rounds"]
        root = directory / f"{first:06}"
        flow = OrderFlow(rounds.seed + first, INSTRUMENTS, ACCOUNTS)
        promises, kept = Promises(), Kept(root)
        unanswered: list[ParticipantCommand] = []
        for number in range(first, first + ROUNDS_A_JOURNAL):
            if total["killed"] >= kills:
                break
            total["rounds"] += 1
            commands = [*unanswered, *(next(flow) for _ in range(COMMANDS - len(unanswered)))]
            places, killed = one_round(root, commands, FIRST_S + chance.expovariate(1 / LIFE_S), rounds, number)
            total["killed"] += killed
            total["resent"] += len(unanswered)
            for index, seq in places.items():
                promises.add(commands[index], seq)
            kept.look()
            unanswered = [one for index, one in enumerate(commands) if index not in places]
            _observe(flow, kept.items, places)
        total.update(account(root, kept.items, promises))
        total["lost"] += kept.changed
    return dict(total)


def _observe(flow: OrderFlow, items: list[Sequenced], places: dict[int, int]) -> None:
    """Tell the flow what became of its orders, so that it cancels and replaces some."""
    engine, mine = Engine(INSTRUMENTS), set(places.values())
    for item in items:
        events = engine.apply(item)
        if item.seq in mine:
            flow.observe(events)


if __name__ == "__main__":
    told = run(Path(sys.argv[1]), int(sys.argv[2]), Rounds(int(sys.argv[3]), *sys.argv[4:]))
    sys.stdout.write(json.dumps(told) + "\n")
