"""Every trade is settled exactly once, whatever dies in between, and money is conserved."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence

import pytest

from exchange.adapters.http import Faults
from exchange.adapters.settlement_server import SETTLEMENT_FAULTS, SettlementServer
from exchange.adapters.settlement_source import EngineSource
from exchange.adapters.settlement_store import SettlementStore
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Happened, Traded
from exchange.flow import OrderFlow
from exchange.ledger import Balances, money_per_tick, postings
from exchange.protocol import Answer
from exchange.recording import RecordingLog, RecordingSettlement
from exchange.types import AccountId, Side
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant
from tests.exchange.plant import INSTRUMENTS, client_of, engine, eventually, order


def happenings(count: int, accounts: Sequence[str] = ("ann", "bob")) -> list[Happened]:
    plant, flow = Engine(INSTRUMENTS), OrderFlow(1, INSTRUMENTS, [AccountId(name) for name in accounts])
    told = []
    for seq in range(1, count + 1):
        events = plant.apply(Sequenced(seq, Instant(seq), next(flow)))
        flow.observe(events)
        told.append(Happened(seq, Instant(seq), events))
    return told


def trades_of(happened: list[Happened]) -> list[Traded]:
    return [event for item in happened for event in item.events if isinstance(event, Traded)]


def test_the_ledger_agrees_with_the_fold_and_sums_to_zero(tmp_path):
    happened = happenings(400)
    store, balances = SettlementStore(tmp_path / "ledger.sqlite", INSTRUMENTS), Balances()
    for start in range(0, 400, 37):
        store.settle(happened[start : start + 37])
    for trade in trades_of(happened):
        balances.post(postings(trade, money_per_tick(INSTRUMENTS[0])))
    assert store.balances() == balances.amounts()
    assert store.imbalance() == 0
    assert store.trade_ids() == [trade.trade_id for trade in trades_of(happened)]
    assert store.seq == 400
    store.close()


def test_what_comes_again_is_left_alone(tmp_path):
    happened = happenings(200)
    store = SettlementStore(tmp_path / "ledger.sqlite", INSTRUMENTS)
    first = store.settle(happened)
    before = store.balances()
    again = store.settle(happened[50:])
    assert (again.trades, again.duplicates) == (0, len(trades_of(happened[50:])))
    assert store.balances() == before
    assert first.trades == len(trades_of(happened)) > 0
    store.close()


def test_a_failure_in_the_middle_leaves_nothing_of_the_batch(tmp_path):
    happened = happenings(1500)
    store = SettlementStore(tmp_path / "ledger.sqlite", INSTRUMENTS)
    with store._connection.begin():
        pages = store._connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        store._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(TemporaryError, match="nothing was settled: the disk is full"):
        store.settle(happened)
    assert (store.trades(), store.seq, store.balances()) == (0, 0, {})
    with store._connection.begin():
        store._connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    assert store.settle(happened).trades == len(trades_of(happened))
    store.close()


def test_a_ledger_of_another_version_or_with_wrong_balances_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    store = SettlementStore(path, INSTRUMENTS)
    store.settle(happenings(200))
    store.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE balances SET amount = amount + 1")
    database.close()
    with pytest.raises(PermanentError, match="do not follow from their postings"):
        SettlementStore(path, INSTRUMENTS)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE ledger_revision SET version_num = 'r0099'")
    database.close()
    with pytest.raises(PermanentError, match="revision r0099, which this program does not know"):
        SettlementStore(path, INSTRUMENTS)


KILLED = """
import sys; from pathlib import Path
from exchange.adapters.settlement_store import SettlementStore
from tests.exchange.test_settlement import happenings
from tests.exchange.plant import INSTRUMENTS
store = SettlementStore(Path(sys.argv[1]), INSTRUMENTS)
todo = [item for item in happenings(400) if item.seq > store.seq]
print("begin", flush=True)
for item in todo:
    store.settle([item])
    print(item.seq, flush=True)
"""


def test_killed_at_any_point_every_trade_is_settled_exactly_once(tmp_path):
    path, happened = tmp_path / "ledger.sqlite", happenings(400)
    for settled_before in (3, 40, 90):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begin\n"
            for _ in range(settled_before):
                assert process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    store = SettlementStore(path, INSTRUMENTS)
    store.settle(happened)
    assert store.trade_ids() == [trade.trade_id for trade in trades_of(happened)]
    assert store.imbalance() == 0
    store.close()


async def test_the_consumer_settles_what_the_engine_trades_and_lags_when_it_is_slow(tmp_path):
    faults, telemetry = Faults(SETTLEMENT_FAULTS, allowed=True), RecordingSettlement()
    store = SettlementStore(tmp_path / "ledger.sqlite", INSTRUMENTS)
    async with engine(tmp_path) as running, client_of(running.port) as client:
        server = SettlementServer(
            store, EngineSource(running.port), telemetry=telemetry, log=RecordingLog(), faults=faults
        )
        task = asyncio.create_task(server.run())
        for number in range(10):
            await client.submit(order(f"s{number}", Side.SELL), 60)
            await client.submit(order(f"b{number}", Side.BUY, who="bob"), 60)
        await eventually(lambda: telemetry.trades >= 10)
        faults._active["settlement-slow"] = 30.0
        await client.submit(order("s", Side.SELL), 60)
        last = await client.submit(order("b", Side.BUY, who="bob"), 60)
        await asyncio.sleep(0.2)
        assert isinstance(last, Answer)
        assert telemetry.trades == 10
        assert telemetry.seq < last.seq
        faults._active.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = SettlementServer(
            store, EngineSource(running.port), telemetry=telemetry, log=RecordingLog(), faults=faults
        )
        task = asyncio.create_task(again.run())
        await eventually(lambda: telemetry.trades >= 11)
        status = await again.status()
        assert (status.trades, status.imbalance, status.seq) == (11, 0, 22)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    store.close()
