# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Every trade of every partition is settled once, by whatever way its events come."""

import asyncio
import contextlib
import random
import sqlite3

import pytest

from exchange.adapters.http import Faults
from exchange.adapters.kafka_consumer import KafkaConsumer, With
from exchange.adapters.kafka_topics import KafkaPlace, prepare
from exchange.adapters.settlement_server import SETTLEMENT_FAULTS, SettlementServer
from exchange.adapters.settlement_store import SettlementStore
from exchange.events import Happened
from exchange.journal import Kind, encode_events
from exchange.ledger import money_per_tick, postings
from exchange.messages import seal
from exchange.recording import RecordingConsumer, RecordingLog, RecordingSettlement
from exchange.shards import whole_id
from kernel.errors import TemporaryError
from tests.exchange.ledger_from_kafka import publish
from tests.exchange.plant import INSTRUMENTS
from tests.exchange.scrambled_kafka import ScrambledKafka
from tests.exchange.test_settlement import happenings, trades_of
from tests.kafka_brokers import new_place

SOMEWHERE = KafkaPlace(bootstrap="nowhere:1")


def sealed(item: Happened) -> bytes:
    return seal(Kind.EVENTS, item.seq, encode_events(item))


def with_repeats(happened: list[Happened], dice: random.Random) -> list[bytes]:
    """Return them as messages, 30 % of which come again, soon or late."""
    told = []
    for place, item in enumerate(happened):
        told.append(item)
        if dice.random() < 0.3:
            told.append(happened[max(0, place - dice.randrange(30))])
    return [sealed(one) for one in told]


class Settling:
    """Settlement that runs, with what it told."""

    def __init__(self, store, place, **more):
        self.telemetry, self.log, self.consumed = RecordingSettlement(), RecordingLog(), RecordingConsumer()
        self.source = KafkaConsumer(place, "settlement", telemetry=self.consumed, log=self.log, **more)
        self.server = SettlementServer(
            store, self.source, telemetry=self.telemetry, log=self.log, faults=Faults(SETTLEMENT_FAULTS, allowed=True)
        )
        self.task = asyncio.create_task(self.server.run())

    async def until(self, holds, within_s=90.0):
        async with asyncio.timeout(within_s):
            while not holds():
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.01)

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def seqs_in(path):
    """Look from beside: the store belongs to the thread that settles."""
    with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as database:
        return dict(database.execute("SELECT part, seq FROM progress ORDER BY part"))


def expected(parts):
    balances = {}
    for happened in parts.values():
        for trade in trades_of(happened):
            for one in postings(trade, money_per_tick(INSTRUMENTS[0])):
                balances[one.account, one.asset] = balances.get((one.account, one.asset), 0) + one.amount
    ids = sorted(whole_id(part, trade.trade_id) for part, told in parts.items() for trade in trades_of(told))
    return {key: amount for key, amount in balances.items() if amount}, ids


@pytest.mark.parametrize("seed", range(3))
async def test_repeats_and_messages_that_arrive_out_of_order_settle_each_trade_once(tmp_path, seed):
    dice, parts = random.Random(seed), {0: happenings(300), 1: happenings(450), 2: happenings(200)}
    broker = ScrambledKafka({part: with_repeats(told, dice) for part, told in parts.items()}, swapped=0.02, seed=seed)
    seqs = {part: told[-1].seq for part, told in parts.items()}
    fakes = With(broker.member, lambda *_: None, lambda _: None)
    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(SettlementStore(path, INSTRUMENTS)) as store:
        for turn in range(40):
            settling = Settling(store, SOMEWHERE, with_=fakes)
            if turn < 3:  # ended in the middle, wherever that is
                await asyncio.sleep(dice.uniform(0.0, 0.1))
            else:
                await settling.until(lambda: seqs_in(path) == seqs or settling.consumed.standing)  # noqa: B023 - now
            await settling.stop()
            if store.seqs() == seqs:
                break
        # Where it stopped because it met a gap three times, it was begun anew, as a person would.
        assert store.seqs() == seqs
        balances, ids = expected(parts)
        assert (store.balances(), store.trade_ids(), store.imbalance()) == (balances, ids, 0)
        assert broker.seeks > 0


async def test_a_ledger_that_is_away_is_waited_for_and_nothing_is_committed_meanwhile(tmp_path, monkeypatch):
    parts = {0: happenings(200)}
    broker = ScrambledKafka({0: with_repeats(parts[0], random.Random(1))}, swapped=0.0, seed=1)
    broker.together = range(100, 101)
    fakes = With(broker.member, lambda *_: None, lambda _: None)

    def away(*_):
        raise TemporaryError("the ledger is away")

    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(SettlementStore(path, INSTRUMENTS)) as store:
        monkeypatch.setattr(store, "settle", away)
        settling = Settling(store, SOMEWHERE, with_=fakes)
        await settling.until(lambda: settling.log.names().count("settlement-failed") >= 2)
        assert not any(broker.committed.values())
        assert seqs_in(path) == {0: 0}
        await settling.until(lambda: settling.telemetry.lag_s > 0)
        monkeypatch.undo()
        await settling.until(lambda: broker.committed == {0: len(broker.logs[0])})
        await settling.stop()
        assert (store.balances(), store.trade_ids()) == expected(parts)
        assert settling.telemetry.differences[-1] == 0


async def test_a_ledger_of_another_exchange_is_noticed(tmp_path):
    broker = ScrambledKafka({0: with_repeats(happenings(50), random.Random(1))}, swapped=0.0, seed=1)
    fakes = With(broker.member, lambda *_: None, lambda _: None)
    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(SettlementStore(path, INSTRUMENTS)) as store:
        store.settle(happenings(400))
        settling = Settling(store, SOMEWHERE, with_=fakes)
        await settling.until(lambda: "events-behind" in settling.log.names())
        ready, why = settling.server.ready()
        assert not ready
        assert "end before what was carried out" in why
        await settling.stop()


@pytest.mark.kafka
async def test_two_partitions_with_the_same_trade_ids_are_settled_from_real_brokers(kafka, tmp_path):
    place, dice = new_place(kafka, partitions=2), random.Random(3)
    prepare(place)
    parts = {0: happenings(500), 1: happenings(300)}
    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(SettlementStore(path, INSTRUMENTS)) as store:
        settling = Settling(store, place)
        for part, told in parts.items():
            publish(place, part, with_repeats(told, dice))
        await settling.until(lambda: seqs_in(path) == {0: 500, 1: 300})
        await settling.until(lambda: settling.consumed.lags == {0: (0, 0), 1: (0, 0)})
        status = await settling.server.status()
        assert (status.seq, status.partitions) == (500, {"0": 500, "1": 300})
        assert settling.server.ready() == (True, "2 of 2 partitions are read here")
        assert settling.telemetry.connected
        await settling.stop()
        assert (store.balances(), store.trade_ids()) == expected(parts)
