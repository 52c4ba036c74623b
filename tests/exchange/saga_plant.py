"""Settlement by sagas with its real stores and parts, over the broker in memory, in one loop; parts die as told."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

from exchange.adapters.http import Faults
from exchange.adapters.memory_broker import MemoryBroker
from exchange.adapters.saga_coordinator_server import SagaCoordinator, SagaReader
from exchange.adapters.saga_journal import SagaJournal
from exchange.adapters.saga_part import SAGA_FAULTS, Around, Inbox, SagaPart
from exchange.adapters.saga_service import AskedService, ReactingService
from exchange.adapters.saga_store import SagaBook
from exchange.adapters.trade_source import Stretch
from exchange.events import Happened, Traded
from exchange.ledger import Balances, money_per_tick, postings
from exchange.messaging import Outgoing, Publisher
from exchange.recording import RecordingLog, RecordingSaga
from exchange.saga import Rules, Service
from exchange.saga_coordinator import Times
from exchange.saga_messages import COORDINATOR, READER, Style, queue
from exchange.tracing import Tracer
from exchange.types import Side
from kernel.adapters.clock import SystemClock
from kernel.time import MILLISECOND, SECOND, Duration, Instant
from tests.exchange.plant import INSTRUMENTS

ANYTHING = Rules()
QUICK = Times(Duration(60 * MILLISECOND), Duration(200 * MILLISECOND), Duration(20 * SECOND), Duration(10 * SECOND))
TIDY_S = 0.05
MONEY = money_per_tick(INSTRUMENTS[0])
PARTS = ("coordinator", *(service.value for service in Service))


def files(root: Path, laid: Path) -> Callable[[str], Path]:
    """Copy a database whose tables are laid for each part; return where each has its own."""
    root.mkdir(exist_ok=True)
    for name in PARTS:
        shutil.copy(laid, root / f"{name}.sqlite")
    return lambda name: root / f"{name}.sqlite"


class Crash(Exception):  # noqa: N818 - nothing is wrong, the test wants it so
    """A part dies here; what it had not written is gone."""


def trade(number: int, quantity: int = 3, buyer: str = "p", seller: str = "q", price: int = 105) -> Traded:
    return Traded(number, "AAA", number, price, quantity, 1, 2, Side.BUY, buyer, seller, 0, buyer_fee=7, seller_fee=-2)  # type: ignore[arg-type]


def happened_of(trades: Sequence[Traded]) -> list[Happened]:
    return [Happened(seq, Instant(seq), (one,)) for seq, one in enumerate(trades, 1)]


def some_trades(count: int, seed: int = 1) -> list[Traded]:
    rng = random.Random(seed)
    accounts = "pqrs"
    return [
        trade(number, rng.randint(1, 9), rng.choice(accounts), rng.choice(accounts), rng.randint(1, 200))
        for number in range(1, count + 1)
    ]


class ListedTrades:
    """A source whose event stream is a list."""

    keeps_place = False

    def ready(self) -> tuple[bool, str]:
        return True, "a list is always there"

    def __init__(self, happened: Sequence[Happened], together: int = 64) -> None:
        self._happened, self._together = happened, together

    async def follow(
        self, after: Callable[[int], int], connected: Callable[[bool], None]
    ) -> AsyncGenerator[Stretch, None]:
        connected(True)
        todo = [item for item in self._happened if item.seq > after(0)]
        for start in range(0, len(todo), self._together):
            yield Stretch(0, todo[start : start + self._together])
        await asyncio.Event().wait()


class Points:
    """Where a part may die: counted, and one or several of them deadly."""

    def __init__(self, deadly: frozenset[int] = frozenset()) -> None:
        self.deadly, self.met = deadly, list[str]()

    def at(self, where: str) -> None:
        self.met.append(where)
        if len(self.met) - 1 in self.deadly:
            raise Crash(where)


class DyingPublisher:
    def __init__(self, publisher: Publisher, points: Points, who: str) -> None:
        self._publisher, self._points, self._who = publisher, points, who

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._points.at(f"{self._who}: before it says {messages[0].routing_key}")
        await self._publisher.publish(messages)
        self._points.at(f"{self._who}: after it said {messages[0].routing_key}")


class StormyPublisher:
    """Says a share of everything twice, in disorder, and some of it later than what comes after it."""

    def __init__(self, publisher: Publisher, rng: random.Random, share: float) -> None:
        self._publisher, self._rng, self._share = publisher, rng, share
        self._held: list[Outgoing] = []

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        now = [*messages, *self._held, *(one for one in messages if self._rng.random() < self._share)]
        self._held = [one for one in messages if self._rng.random() < self._share]
        self._rng.shuffle(now)
        await self._publisher.publish(now)


def watch_database(store: Any, points: Points, who: str) -> None:
    """Let a part die before and after each transaction that writes."""
    run = store._database.run

    def watched(what: str, work: Callable[[Any], Any]) -> Any:
        if "written" not in what:
            return run(what, work)
        points.at(f"{who}: before its transaction")
        told = run(what, work)
        points.at(f"{who}: after its transaction")
        return told

    store._database.run = watched


class Plant:
    """All parts of one style; a part that dies by `Crash` starts anew from what is durable."""

    def __init__(
        self,
        place: Callable[[str], Path | str],
        style: Style,
        trades: Sequence[Traded],
        *,
        rules: Rules = ANYTHING,
        times: Times = QUICK,
        points: Points | None = None,
        storm: float = 0.0,
        broker: MemoryBroker | None = None,
        tracer: Tracer | None = None,
        keep: Duration | None = None,
    ) -> None:
        self.tracer, self.keep = tracer, keep
        self.place, self.style, self.trades, self.rules, self.times = place, style, list(trades), rules, times
        self.points = points or Points()
        self.storm, self.rng = storm, random.Random(7)
        self.broker = broker or MemoryBroker()
        self.telemetry = {name: RecordingSaga() for name in PARTS}
        self.log = RecordingLog()
        self.faults = {name: Faults(SAGA_FAULTS, allowed=True) for name in PARTS}
        self.parts: dict[str, SagaPart] = {}
        self.deaths = 0

    def inbox(self, name: str) -> Inbox:
        return self.broker.consumer(name, pauses_s=(0.01, 0.05))

    def publisher(self) -> Publisher:
        return self.broker.publisher()

    def around(self, name: str, queue_name: str) -> Around:
        publisher: Publisher = DyingPublisher(self.publisher(), self.points, name)
        if self.storm:
            publisher = StormyPublisher(publisher, self.rng, self.storm)
        return Around(
            self.inbox(queue_name),
            publisher,
            self.telemetry[name],
            self.log,
            SystemClock(),
            self.faults[name],
            self.times,
            self.tracer,
            keep=self.keep,
            tidy_s=TIDY_S,
        )

    def make(self, name: str) -> tuple[SagaPart, Callable[[], None]]:
        if name == "coordinator":
            journal = SagaJournal(self.place(name))
            watch_database(journal, self.points, name)
            led = self.style is Style.ORCHESTRATED
            around = self.around(name, COORDINATOR if led else READER)
            kind: Any = SagaCoordinator if led else SagaReader
            return kind(journal, ListedTrades(happened_of(self.trades)), INSTRUMENTS, around), journal.close
        service = Service(name)
        book = SagaBook(service, self.place(name), self.rules)
        watch_database(book, self.points, name)
        around = self.around(name, queue(service, self.style))
        made: Any = AskedService if self.style is Style.ORCHESTRATED else ReactingService
        return made(book, around), book.close

    async def keep_running(self, name: str) -> None:
        while True:
            part, close = self.make(name)
            self.parts[name] = part
            try:
                await part.run()
            except* Crash:
                self.deaths += 1
            finally:
                close()

    async def run(self, within_s: float = 90.0) -> dict[str, int]:
        """Settle everything; return how many sagas ended in which way."""
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self.keep_running(name)) for name in PARTS]
            async with asyncio.timeout(within_s):
                while not self.over():  # noqa: ASYNC110 - many things change it
                    await asyncio.sleep(0.01)
            for task in running:
                task.cancel()
        return self.states()

    def over(self) -> bool:
        # A restart that has not read its journal yet stands at nothing: what is durable is asked.
        if self.telemetry["coordinator"].ends.total() < len(self.trades) - self.deaths:
            return False
        if set(self.parts) != set(PARTS) or any(self.broker.depth(name) for name in self.queues()):
            return False
        states = self.states()
        return states.get("open", 0) == 0 and sum(states.values()) == len(self.trades) and not self.said()

    def queues(self) -> list[str]:
        last = COORDINATOR if self.style is Style.ORCHESTRATED else READER
        return [*(queue(service, self.style) for service in Service), last]

    def said(self) -> int:
        if self.style is Style.ORCHESTRATED:
            return 0
        return sum(part._sayings.kept_count for part in self.parts.values() if hasattr(part, "_sayings"))

    def states(self) -> dict[str, int]:
        from exchange.adapters.saga_tables import HORIZON, SAGAS
        from tests.exchange.saga_rows import rows

        told: dict[str, int] = {}
        for row in rows(self.place("coordinator"), HORIZON):
            for end in ("settled", "cancelled"):
                if row[end]:
                    told[end] = told.get(end, 0) + row[end]
        for row in rows(self.place("coordinator"), SAGAS):
            told[row["state"]] = told.get(row["state"], 0) + 1
        return told

    def judge(self) -> None:
        """Hold the books to what was promised: sums, the settled trades' balances, nothing left in escrow."""
        from exchange.adapters.saga_tables import SAGAS
        from tests.exchange.saga_rows import rows

        settled = {row["trade_id"] for row in rows(self.place("coordinator"), SAGAS) if row["state"] == "settled"}
        expected = Balances()
        for one in self.trades:
            if one.trade_id in settled:
                expected.post(postings(one, MONEY))
        found: dict[Any, int] = {}
        for service in Service:
            book = SagaBook(service, self.place(service.value), self.rules)
            assert book.drift() == 0
            for key, amount in book.balances().items():
                found[key] = found.get(key, 0) + amount
            book.close()
        found = {key: amount for key, amount in found.items() if amount and key[0] != "$outside"}
        assert found == expected.amounts()
        assert not [dead for name in self.queues() for dead in self.broker.dead(name)]
