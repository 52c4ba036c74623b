"""What a source of trades promises, held against an engine's own stream, a Kafka of one process, and a real one."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exchange.adapters.http import Faults
from exchange.adapters.kafka_consumer import _POLL_MS, With
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_topics import prepare
from exchange.adapters.kafka_trades import KafkaTrades
from exchange.adapters.memory_broker import MemoryBroker
from exchange.adapters.saga_coordinator_server import SagaCoordinator, SagaReader
from exchange.adapters.saga_journal import SagaJournal
from exchange.adapters.saga_part import SAGA_FAULTS, Around
from exchange.adapters.saga_tables import JOURNAL, PROGRESS, SAGAS, SAID
from exchange.adapters.trade_source import EngineTrades, Stretch, TradeSource, trades_of
from exchange.events import Happened, Traded
from exchange.journal import Kind, encode_events
from exchange.ledger import money_per_tick
from exchange.messages import seal
from exchange.recording import RecordingConsumer, RecordingLog, RecordingSaga
from exchange.saga_messages import COORDINATOR, READER, Style
from exchange.shards import partition_of_id, whole_id
from exchange.types import Side
from kernel.adapters.clock import SystemClock
from tests.exchange.ledger_from_kafka import publish
from tests.exchange.plant import INSTRUMENTS, client_of, engine, order
from tests.exchange.saga_rows import rows
from tests.exchange.scrambled_kafka import ScrambledKafka
from tests.exchange.test_settlement import happenings
from tests.kafka_brokers import new_place

KINDS = ["engine", "scrambled", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.long])]
MONEY = {one.symbol: money_per_tick(one) for one in INSTRUMENTS}


class Held(NamedTuple):
    """One side of the port: how a reader of it is made anew, and what there is to read."""

    new: Callable[[], TradeSource]
    seqs: dict[int, int]
    """The last record of each part."""
    trades: list[int]
    """The ids of all trades, made whole."""


def ids_of(parts: dict[int, list[Happened]]) -> list[int]:
    return sorted(
        whole_id(part, one.trade_id)
        for part, happened in parts.items()
        for item in happened
        for one in item.events
        if isinstance(one, Traded)
    )


def with_repeats(happened: list[Happened]) -> list[bytes]:
    dice, told = random.Random(3), []
    for place, item in enumerate(happened):
        told.append(item)
        if dice.random() < 0.3:
            told.append(happened[max(0, place - dice.randrange(30))])
    return [seal(Kind.EVENTS, one.seq, encode_events(one)) for one in told]


def fakes(messages: Mapping[int, Sequence[bytes | None]]) -> With:
    broker = ScrambledKafka(dict(messages), swapped=0.0, seed=1)
    letters: Any = lambda *_: None  # noqa: E731 - nothing of theirs is unreadable
    return With(broker.member, letters, lambda _: None)


@contextlib.asynccontextmanager
async def side_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Held]:
    if kind == "engine":
        async with engine(tmp_path / "engine") as running, client_of(running.port) as client:
            for number in range(12):
                await client.submit(order(f"s{number}", Side.SELL), 60)
                await client.submit(order(f"b{number}", Side.BUY, who="bob"), 60)
            yield Held(lambda: EngineTrades(running.port), {0: 24}, list(range(1, 13)))
        return
    parts = {0: happenings(160), 1: happenings(240), 2: happenings(90)}
    messages = {part: with_repeats(told) for part, told in parts.items()}
    if kind == "scrambled":
        place, with_ = KafkaPlace(bootstrap="nowhere:1"), fakes(messages)
    else:
        place, with_ = new_place(request.getfixturevalue("kafka"), partitions=3), With()
        prepare(place)
        for part, values in messages.items():
            publish(place, part, values)

    def new() -> TradeSource:
        return KafkaTrades(place, telemetry=RecordingConsumer(), log=RecordingLog(), with_=with_)

    yield Held(new, {part: told[-1].seq for part, told in parts.items()}, ids_of(parts))


class Read:
    """What was read, and up to where it is noted."""

    def __init__(self) -> None:
        self.noted: dict[int, int] = {}
        self.trades: list[int] = []
        self.connected: list[bool] = []

    async def follow(self, source: TradeSource, until: Callable[[], bool], note: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            stream = source.follow(lambda part: self.noted.get(part, 0), self.connected.append)
            async with contextlib.aclosing(stream):
                async for stretch in stream:
                    self.take(stretch, note=note())
                    if until():
                        return

    def take(self, stretch: Stretch, *, note: bool) -> None:
        seqs = [one.seq for one in stretch.happened]
        assert seqs == list(range(seqs[0], seqs[-1] + 1)), "in order and without a gap"
        noted = self.noted.get(stretch.part, 0)
        assert seqs[0] <= noted + 1, "nothing is left out"
        if note and seqs[-1] > noted:
            new = Stretch(stretch.part, [one for one in stretch.happened if one.seq > noted])
            self.trades += [one.instruction.trade_id for one in trades_of(new, MONEY)]
            self.noted[stretch.part] = seqs[-1]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_record_of_every_part_comes_and_what_was_not_noted_comes_again(kind, request, tmp_path):
    async with side_of(kind, request, tmp_path) as side:
        read, dice = Read(), random.Random(5)
        source = side.new()
        assert source.ready()[0] is False
        await read.follow(source, lambda: True, lambda: False)  # read, and not noted
        assert (read.noted, read.trades) == ({}, [])
        for _ in range(4):  # ended in the middle, with what came last noted or not
            stop, noting = dice.randrange(1, 4), iter([True] * 2 + [False] * 9)
            met = iter(range(1, 99))
            await read.follow(
                side.new(), lambda: next(met) >= stop or read.noted == side.seqs, lambda: next(noting)  # noqa: B023
            )  # fmt: skip
            if read.noted == side.seqs:
                break
        if read.noted != side.seqs:
            source = side.new()
            await read.follow(source, lambda: read.noted == side.seqs, lambda: True)
        assert sorted(read.trades) == side.trades
        assert True in read.connected


class Begins:
    """A coordinator, or a reader of trades, that begins sagas and hears no answer."""

    def __init__(self, path: Path, side: Held, style: Style = Style.ORCHESTRATED, open_max: int = 10_000) -> None:
        self.telemetry, self.log, self.source = RecordingSaga(), RecordingLog(), side.new()
        broker = MemoryBroker()
        led = style is Style.ORCHESTRATED
        around = Around(
            broker.consumer(COORDINATOR if led else READER), broker.publisher(), self.telemetry, self.log,
            SystemClock(), Faults(SAGA_FAULTS, allowed=False),
        )  # fmt: skip
        self.journal = SagaJournal(path)
        kind = SagaCoordinator if led else SagaReader
        self.part = kind(self.journal, self.source, INSTRUMENTS, around, open_max=open_max)
        self.task = asyncio.create_task(self.part.run())

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.journal.close()


def noted(path: Path) -> dict[int, int]:
    return {row["part"]: row["seq"] for row in rows(path, PROGRESS)}


@pytest.mark.parametrize("style", list(Style))
@pytest.mark.parametrize("kind", KINDS)
async def test_each_trade_of_each_part_is_one_saga_however_often_its_reader_is_begun_anew(
    kind, style, request, tmp_path
):
    path, dice = tmp_path / "saga.sqlite", random.Random(2)
    SagaJournal(path).close()
    async with side_of(kind, request, tmp_path) as side:
        for _ in range(3):
            part = Begins(path, side, style)
            some = dice.randrange(1, len(side.trades))
            await part.until(lambda: part.telemetry.begun_sagas >= some or noted(path) == side.seqs)  # noqa: B023
            await part.stop()
        last = Begins(path, side, style)
        await last.until(lambda: noted(path) == side.seqs and last.part.ready()[0])
        await last.stop()
        ids = sorted(row["trade_id"] for row in rows(path, SAGAS))
        assert ids == side.trades
        assert {partition_of_id(one) for one in ids} == set(side.seqs)
        told = rows(path, JOURNAL if style is Style.ORCHESTRATED else SAID.sayings)
        assert sorted(row["trade_id"] for row in told) == ids, "each begins once"


def test_a_member_that_waits_for_every_engine_in_turn_still_keeps_its_partitions():
    place = KafkaPlace(bootstrap="nowhere:1", partitions=16)
    trades = KafkaTrades(place, telemetry=RecordingConsumer(), log=RecordingLog())
    assert 16 * trades._patience_s < _POLL_MS / 1000


async def test_where_too_many_are_open_the_consumer_looks_after_its_group_and_hands_nothing_over_twice(tmp_path):
    parts = {0: happenings(200)}
    log, with_ = RecordingLog(), fakes({0: with_repeats(parts[0])})

    def new() -> TradeSource:
        return KafkaTrades(
            KafkaPlace(bootstrap="nowhere:1"), telemetry=RecordingConsumer(), log=log,
            with_=with_, patience_s=0.02,
        )  # fmt: skip

    path = tmp_path / "saga.sqlite"
    part = Begins(path, Held(new, {0: 200}, []), open_max=1)
    await part.until(lambda: log.names().count("effect-failed") >= 3)
    begun = part.telemetry.begun_sagas
    assert noted(path).get(0, 0) < 200
    part.part._open_max = 10_000
    await part.until(lambda: part.telemetry.seq == 200)  # told after the sagas are counted; the row stands before that
    assert noted(path) == {0: 200}
    assert [row["trade_id"] for row in rows(path, SAGAS)] == ids_of(parts)
    assert part.telemetry.begun_sagas == len(ids_of(parts)) > begun
    await part.stop()
