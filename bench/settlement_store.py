"""Trades settled a second: one in a transaction and 2,048, on PostgreSQL and SQLite, beside COPY by itself.

    python bench/settlement_store.py [TRADES]

A trade is six rows here: itself, four postings, and what it changes in balances. The reference is in the same run: the
trades and postings as they are, COPYed into two tables without key, index or check, at once and committed once (the
ceiling of the batches), and one INSERT of one row with its commit (the floor of a single trade: a server's round trip
and its disk). Everything is durable when it is counted. Medians of ROUNDS rounds in turn.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.parts.figures import verdict
from control.databases import opened, revisions
from control.failover import made_up
from control.servers.postgres import Server, find
from control.settings import load_settings
from exchange.adapters.settlement_source import MAX_TOGETHER
from exchange.adapters.settlement_store import SettlementStore
from exchange.events import Happened, Traded
from exchange.ledger import money_per_tick, postings
from exchange.types import Instrument, Symbol, Ticks

TRADES = int(sys.argv[1]) if len(sys.argv) > 1 else 20_480
SINGLE = max(1, TRADES // 20)
ROUNDS = 3
DRILL = Instrument(symbol=Symbol("DRILL"), reference=Ticks(100), band=Ticks(50))
GOALS = {"PostgreSQL, one a transaction": 2_000, f"PostgreSQL, {MAX_TOGETHER} a transaction": 10_000}


@contextlib.contextmanager
def ledger(place: str | Path) -> Iterator[SettlementStore]:
    if isinstance(place, str):
        with opened(place, "ledger") as (connection, _):
            revisions("ledger").upgrade(connection)
    with contextlib.closing(SettlementStore(place, [DRILL])) as store:
        yield store


def settled_a_second(store: SettlementStore, happened: list[Happened], together: int) -> float:
    began = time.perf_counter()
    for start in range(0, len(happened), together):
        store.settle(happened[start : start + together])
    seconds = time.perf_counter() - began
    assert store.trades() >= len(happened)
    assert store.imbalance() == 0
    return len(happened) / seconds


def copied_a_second(server: Server, happened: list[Happened]) -> float:
    money = money_per_tick(DRILL)
    trades = [event for item in happened for event in item.events if isinstance(event, Traded)]
    rows = [(one.trade_id, 1, 1, one.symbol, one.price, one.quantity, one.buyer, one.seller) for one in trades]
    moves = [(one.trade_id, one.account, one.asset, one.amount) for trade in trades for one in postings(trade, money)]
    with server.connect("bare") as connection:
        connection.execute("DROP TABLE IF EXISTS t, p")
        connection.execute("CREATE TABLE t (a bigint, b bigint, c bigint, d text, e bigint, f bigint, g text, h text)")
        connection.execute("CREATE TABLE p (a bigint, b text, c text, d bigint)")
        began = time.perf_counter()
        with connection.transaction(), connection.cursor() as cursor:
            for statement, given in (("COPY t FROM STDIN", rows), ("COPY p FROM STDIN", moves)):
                with cursor.copy(statement.encode()) as copy:
                    for row in given:
                        copy.write_row(row)
        return len(trades) / (time.perf_counter() - began)


def inserted_a_second(server: Server, count: int) -> float:
    with server.connect("bare") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS one (a bigint)")
        began = time.perf_counter()
        for number in range(count):
            connection.execute("INSERT INTO one VALUES (%s)", (number,))
        return count / (time.perf_counter() - began)


def measures(server: Server, directory: Path, turn: int) -> dict[str, Callable[[], float]]:
    many, few = [made_up(n) for n in range(1, TRADES + 1)], [made_up(n) for n in range(1, SINGLE + 1)]

    def on(place: Callable[[], str | Path], happened: list[Happened], together: int) -> Callable[[], float]:
        def measure() -> float:
            with ledger(place()) as store:
                return settled_a_second(store, happened, together)

        return measure

    return {
        "bare COPY": lambda: copied_a_second(server, many),
        f"PostgreSQL, {MAX_TOGETHER} a transaction":
            on(lambda: server.create_database(f"many{turn}"), many, MAX_TOGETHER),
        f"SQLite, {MAX_TOGETHER} a transaction": on(lambda: directory / f"many{turn}.sqlite", many, MAX_TOGETHER),
        "bare INSERT of one row": lambda: inserted_a_second(server, SINGLE),
        "PostgreSQL, one a transaction": on(lambda: server.create_database(f"few{turn}"), few, 1),
        "SQLite, one a transaction": on(lambda: directory / f"few{turn}.sqlite", few, 1),
    }  # fmt: skip


def main() -> int:
    programs = find(load_settings().postgres)
    if programs is None:
        print("bench: PostgreSQL is not there (apt-get install --no-install-recommends postgresql): left out")
        return 0
    found: dict[str, list[float]] = {}
    with Server(programs) as server, tempfile.TemporaryDirectory(prefix="tapewatch-bench-") as directory:
        server.create_database("bare")
        for turn in range(ROUNDS):
            for name, measure in measures(server, Path(directory), turn).items():
                found.setdefault(name, []).append(measure())
    rates = {name: statistics.median(each) for name, each in found.items()}
    for name, rate in rates.items():
        bare = rates["bare COPY" if str(MAX_TOGETHER) in name or name == "bare COPY" else "bare INSERT of one row"]
        value = f"{rate:,.0f} trades/s, {rate / bare:.2f} of the bare one"
        if name in GOALS:
            verdict(name, value, f">= {GOALS[name]:,}/s", reached=rate >= GOALS[name])
        else:
            print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
