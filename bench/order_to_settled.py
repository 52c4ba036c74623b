"""How long an order takes on the distributed estate, from outside: to its answer, into the ledger, to its saga's end.

    python bench/order_to_settled.py [TRADES] [ORDERS_A_SECOND ...]

One estate with every service, its own load silent. A client of this program sends orders through the edge, at instants
of chance that do not wait for answers; times run from those instants, so an exchange that falls behind shows it. Each
second order trades with the one before it. Trades are looked for in the ledger's and the sagas' tables, every POLL_S,
and an instant is this client's own clock at the first look that saw them. At each rate until TRADES have ended.

The reference is in the same run, on the same servers, before each rate with nothing else under way: a record through
Kafka (written to two of three brokers, read by a consumer), then a row committed in PostgreSQL (with its stand-by).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import sqlalchemy as sa
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from bench.parts.figures import percentile
from bench.parts.plant import skip
from control import server_plan
from control.calls import fetch
from control.config import RoleConfig, load_config
from control.databases import password_of
from control.doctor import examine
from control.drill import DISTRIBUTED, SETTINGS, UP_WITHIN_S, spawn_estate, stop_estate
from control.fault import Plant
from control.faults import connect
from control.layout import Layout
from control.settings import load_settings
from exchange.adapters.kafka_topics import KafkaPlace, prepare
from exchange.adapters.ledger_tables import TRADES as LEDGER
from exchange.adapters.saga_tables import SAGAS
from exchange.types import Instrument
from kernel.adapters.database import make_engine, parse
from kernel.errors import TapewatchError
from monitor.adapters.exporter import samples

TRADES = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
RATES = tuple(float(one) for one in sys.argv[2:]) or (10.0, 25.0, 50.0)
WARM_UP = 20
"""Trades of each rate that are not counted."""
POLL_S = 0.005
ROUNDS = 200
"""Of the reference, before each rate."""
RECORD = b"x" * 200
"""As long as a command in the journal."""
WITHIN_S = 300.0
"""How long the last trades of a rate may take to end."""
ACCOUNTS = 8
THOUSAND = 1_000
CREATED, FOUND = 201, 200
LOOK_UP_S = 10.0


class Bench:
    """What a bench knows of its estate."""

    def __init__(self, plant: Plant) -> None:
        layout = plant.layout
        self.plant = plant
        self.load: RoleConfig = load_config(layout.config("load-1"))
        self.ledger: RoleConfig = load_config(layout.config("settlement-1"))
        self.sagas: RoleConfig = load_config(layout.config("saga-coordinator-1"))
        self.secret = layout.secret("trade").read_text().strip()
        self.instruments: Sequence[Instrument] = self.load.instruments

    @staticmethod
    def database(config: RoleConfig) -> sa.Engine:
        assert config.ledger is not None, "a distributed estate keeps it in PostgreSQL"
        url = parse(config.ledger.url, "bench", password=password_of(config.ledger))
        return make_engine(url, "bench", isolation="AUTOCOMMIT")

    def told(self) -> tuple[float, float]:
        """Return the coordinator's own sum and count of the seconds from order to settled."""
        page = fetch("GET", f"{self.plant.addresses.workloads['saga'][0].url}/metrics")
        found = {name: value for name, _, value in samples(page)}
        name = "exchange_order_to_settled_seconds"
        return found[f"{name}_sum"], found[f"{name}_count"]


class Watcher:
    """Looks in a table for trades, in a thread, and notes when it first saw each."""

    def __init__(self, engine: sa.Engine, ask: Callable[[int], sa.Select[Any]]) -> None:
        self._engine, self._ask = engine, ask
        self.seen: dict[int, int] = {}
        """Trade to nanoseconds since 1970."""
        self.states: dict[str, int] = {}
        self.gaps: list[float] = []
        self._floor = 0
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._failed is not None:
            raise self._failed

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._engine.dispose()

    def _run(self) -> None:
        try:
            with self._engine.connect() as connection:
                before = time.perf_counter()
                while not self._stop.wait(POLL_S):
                    rows = connection.execute(self._ask(self._floor)).all()
                    now, at = time.perf_counter(), time.time_ns()
                    self.gaps.append(now - before)
                    before = now
                    self._note(rows, at)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self._failed = error

    def _note(self, rows: Sequence[Any], at: int) -> None:
        for trade_id, state in rows:
            if trade_id not in self.seen:
                self.states[state] = self.states.get(state, 0) + 1
                self.seen[trade_id] = at
        while self._floor + 1 in self.seen:  # trades are numbered from 1 without a gap; sagas end in any order
            self._floor += 1


def posted(after: int) -> sa.Select[Any]:
    return sa.select(LEDGER.c.trade_id, sa.literal("posted")).where(LEDGER.c.trade_id > after)


def ended(after: int) -> sa.Select[Any]:
    return sa.select(SAGAS.c.trade_id, SAGAS.c.state).where(SAGAS.c.state != "open", SAGAS.c.trade_id > after)


class Sent(NamedTuple):
    """An order that was acknowledged."""

    intended_at: int
    """Nanoseconds since 1970."""
    took_s: float
    trades: tuple[int, ...]


@dataclass
class Client:
    """Sends pairs of orders of which the second to arrive trades with the first."""

    bench: Bench
    session: aiohttp.ClientSession
    trusting: ssl.SSLContext
    unsure: Counter[str] = field(default_factory=Counter)
    """Answers that were none, by why; each such order is looked up."""
    refused: int = 0
    """Orders that were never taken."""
    number: int = 0

    async def run(self, rate: float, trades: int, rng: random.Random) -> list[Sent]:
        """Send two orders for each trade at instants of chance, `rate` a second on average; wait for every answer."""
        at = time.time_ns()
        async with asyncio.TaskGroup() as tasks:
            under_way = []
            for _ in range(2 * trades):
                at += round(rng.expovariate(rate) * 1e9)
                await asyncio.sleep(max(0.0, (at - time.time_ns()) / 1e9))
                under_way.append(tasks.create_task(self._place(at)))
        return [sent for task in under_way if (sent := task.result()) is not None]

    async def _place(self, intended_at: int) -> Sent | None:
        number, self.number = self.number, self.number + 1
        pair, side = divmod(number, 2)
        instrument = self.bench.instruments[pair % len(self.bench.instruments)]
        order = {
            "account": f"{'seller' if side == 0 else 'buyer'}-{pair % ACCOUNTS}", "client_id": f"bench-{number}",
            "symbol": instrument.symbol, "side": "sell" if side == 0 else "buy", "quantity": 1,
            "price": instrument.reference,
        }  # fmt: skip
        told: dict[str, Any] | None
        try:
            status, told = await self._ask("POST", "/v1/orders", order)
            why = str(status)
        except (aiohttp.ClientError, TimeoutError) as error:
            status, told, why = 0, {}, type(error).__name__
        if status != CREATED:
            self.unsure[why] += 1
            told = await self._looked_up(f"/v1/orders/by-client-id/{order['account']}/{order['client_id']}")
            if told is None:
                self.refused += 1
                return None
        took_s = (time.time_ns() - intended_at) / 1e9
        return Sent(intended_at, took_s, tuple(one["trade_id"] for one in told.get("fills", ())))

    async def _looked_up(self, path: str) -> dict[str, Any] | None:
        """Return what became of an order whose answer did not come, as a participant would; None: never taken."""
        until = time.monotonic() + LOOK_UP_S
        while time.monotonic() < until:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                status, told = await self._ask("GET", path)
                if status == FOUND:
                    return told
            await asyncio.sleep(0.02)
        return None

    async def _ask(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        edge = self.bench.load.edge
        assert edge is not None, "a distributed estate has an edge"
        headers = {"Authorization": f"Bearer {self.bench.secret}"}
        url = f"{edge.url}{path}"
        async with self.session.request(method, url, json=body, headers=headers, ssl=self.trusting) as answer:
            return answer.status, await answer.json()


class Reference:
    """The least that any such exchange does: a record through Kafka, and a row in PostgreSQL."""

    def __init__(self, bench: Bench) -> None:
        kafka = bench.ledger.kafka
        assert kafka is not None, "a distributed estate has brokers"
        place = KafkaPlace(bootstrap=kafka.bootstrap, topic=f"bench{time.time_ns()}")
        prepare(place)
        self._topic = place.events
        self._producer = Producer(place.client({"acks": "all", "enable.idempotence": True, "linger.ms": 0}))
        self._consumer = Consumer(place.client({"group.id": "none", "enable.auto.commit": False}))
        self._consumer.assign([TopicPartition(self._topic, 0, 0)])
        self._engine = bench.database(bench.ledger)
        with self._engine.connect() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS bench_reference (number bigint PRIMARY KEY)")

    def rounds(self, count: int) -> tuple[list[float], list[float]]:
        """Return the seconds until a record was acknowledged, and until it was read and its row committed."""
        acknowledged, whole = [], []
        with self._engine.connect() as connection:
            for number in range(count + WARM_UP):
                at: list[float] = []

                def written(error: KafkaError | None, _: Message, at: list[float] = at) -> None:
                    at.append(time.perf_counter() if error is None else 0.0)

                began = time.perf_counter()
                self._producer.produce(self._topic, RECORD, partition=0, on_delivery=written)
                while not at:
                    self._producer.poll(0.1)
                assert at[0], "the record was not written"
                message = self._consumer.consume(1, 10.0)
                assert message, "the record was not read"
                assert message[0].error() is None, message[0].error()
                connection.exec_driver_sql(f"INSERT INTO bench_reference VALUES ({time.time_ns()})")
                if number >= WARM_UP:
                    acknowledged.append(at[0] - began)
                    whole.append(time.perf_counter() - began)
        return acknowledged, whole

    def close(self) -> None:
        self._consumer.close()
        self._engine.dispose()


def line(name: str, seconds: Sequence[float], reference: Sequence[float] | None = None) -> None:
    """Print a distribution, and how many times the reference its p50 and p99 are; p99.9 only of a thousand and more."""
    p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
    rare = f"{percentile(seconds, 0.999) * 1000:9.1f}" if len(seconds) >= THOUSAND else f"{'-':>9}"
    text = (
        f"  {name:<34} p50 {p50 * 1000:8.1f}   p99 {p99 * 1000:8.1f}   p99.9 {rare}   max {max(seconds) * 1000:8.1f} ms"
    )
    if reference is not None:
        text += f"   ratio p50 {p50 / percentile(reference, 0.5):6.1f}, p99 {p99 / percentile(reference, 0.99):6.1f}"
    print(f"{text}   ({len(seconds)} times)", flush=True)


async def measured(bench: Bench, client: Client, rate: float, watchers: tuple[Watcher, Watcher]) -> None:
    """Measure one rate, and print it."""
    reference = Reference(bench)
    acknowledged, whole = await asyncio.to_thread(reference.rounds, ROUNDS)
    reference.close()
    rng = random.Random(round(rate))
    for watcher in watchers:
        watcher.gaps.clear()
    await client.run(rate, WARM_UP, rng)
    summed, counted = await asyncio.to_thread(bench.told)
    sent = await client.run(rate, TRADES, rng)
    began_at = {trade: one.intended_at for one in sent for trade in one.trades}
    until = time.monotonic() + WITHIN_S
    for watcher in watchers:
        while not watcher.seen.keys() >= began_at.keys():
            watcher.check()
            if time.monotonic() > until:
                raise SystemExit(f"bench: of {len(began_at)} trades only {len(watcher.seen)} ended in {WITHIN_S:.0f} s")
            await asyncio.sleep(0.05)
    settled, over = (
        [(watcher.seen[trade] - at) / 1e9 for trade, at in began_at.items() if trade in watcher.seen]
        for watcher in watchers
    )
    told_sum, told_count = await asyncio.to_thread(bench.told)
    print(f"{rate:g} orders/s, {rate / 2:g} trades/s; load average {os.getloadavg()[0]:.1f}", flush=True)
    line("reference: Kafka, two brokers", acknowledged)
    line("reference: read and committed too", whole)
    line("order to acknowledged", [one.took_s for one in sent], acknowledged)
    line("order to settled in the ledger", settled, whole)
    line("order to the end of its saga", over, whole)
    gap = max(percentile(watcher.gaps, 0.99) for watcher in watchers)
    own = (told_sum - summed) / max(1.0, told_count - counted)
    print(f"  looks are {gap * 1000:.0f} ms apart at most (p99); mean to the saga's end {sum(over) / len(over):.3f} s,"
          f" by the coordinator itself {own:.3f} s; orders so far {client.number}, looked up"
          f" {dict(client.unsure)}, never taken {client.refused}; ends {watchers[1].states}", flush=True)  # fmt: skip


async def up(root: Path, process: asyncio.subprocess.Process) -> Plant:
    deadline = time.monotonic() + UP_WITHIN_S["distributed"]
    while time.monotonic() < deadline and process.returncode is None:
        try:
            plant = connect(root)
            if plant.addresses.phase == "up":
                return plant
        except TapewatchError:
            pass
        await asyncio.sleep(0.5)
    raise SystemExit("bench: the estate did not come up")


async def main() -> None:
    settings = {**SETTINGS, **DISTRIBUTED, "estate": "distributed", "load_rate_per_s": 0}
    missing = [f"{one.name}: {one.get}" for one in examine(load_settings(**settings)) if not one.ok]
    if missing:
        skip(f"a distributed estate cannot be started ({'; '.join(missing)})")
    with tempfile.TemporaryDirectory(prefix="tapewatch-bench-", ignore_cleanup_errors=True) as home:
        root = Path(home) / "up"
        process = await spawn_estate(settings, root, Path(home) / "up.out")
        watchers: list[Watcher] = []
        try:
            bench = Bench(await up(root, process))
            watchers += Watcher(bench.database(bench.ledger), posted), Watcher(bench.database(bench.sagas), ended)
            edge = bench.load.edge
            trusting = ssl.create_default_context(cafile=edge.ca_file if edge is not None else None)
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
                client = Client(bench, session, trusting)
                for rate in RATES:
                    await measured(bench, client, rate, (watchers[0], watchers[1]))
        finally:
            for watcher in watchers:
                watcher.close()
            await stop_estate(process)
            shutil.rmtree(server_plan.home(Layout(root)), ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
