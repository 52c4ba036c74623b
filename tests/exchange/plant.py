"""Parts of an exchange for tests: an engine's server on free ports, and a disk that fails when told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from exchange.adapters.compaction import AS_USUAL, Retention
from exchange.adapters.disk import Disk, OsDisk
from exchange.adapters.engine_client import EngineClient
from exchange.adapters.engine_server import ENGINE_FAULTS, SNAPSHOT_EVERY, EngineParts, EngineServer
from exchange.adapters.http import Faults, listen
from exchange.adapters.recovery import EnginePaths, OpenJournal
from exchange.calendar import Calendar
from exchange.commands import Limit, PlaceOrder
from exchange.ports import EventTopic
from exchange.recording import RecordingEngine, RecordingLog
from exchange.tracing import Tracer
from exchange.types import AccountId, ClientId, Instrument, Lots, Side, Symbol, Ticks, Venue
from kernel.adapters.clock import SystemClock

AAA, BBB = Symbol("AAA"), Symbol("BBB")
INSTRUMENTS = tuple(Instrument(symbol, Ticks(1000), Ticks(500)) for symbol in (AAA, BBB))


def order(client_id: str, side: Side = Side.BUY, price: int = 1000, quantity: int = 5, who: str = "ann") -> PlaceOrder:
    return PlaceOrder(AccountId(who), ClientId(client_id), AAA, side, Lots(quantity), Limit(Ticks(price)))


class FailingDisk(OsDisk):
    """The real disk until `broken`; then every fsync fails."""

    def __init__(self) -> None:
        self.broken = False

    def fsync(self, fd: int) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")
        super().fsync(fd)


class Running:
    """An engine's server that was started, and what it told."""

    def __init__(self, server: EngineServer, telemetry: RecordingEngine, log: RecordingLog, faults: Faults, port: int):
        self.server, self.telemetry, self.log, self.faults, self.port = server, telemetry, log, faults, port
        self.exit_code: int | None = None

    async def stop(self) -> int:
        if self.exit_code is None:
            self.exit_code = await self.server.stop()
        return self.exit_code


def paths(root: Path) -> EnginePaths:
    return EnginePaths(root / "journal", root / "events", root / "snapshots")


@asynccontextmanager
async def engine(
    root: Path,
    disk: Disk | None = None,
    port: int = 0,
    tracer: Tracer | None = None,
    venue: Venue | None = None,
    calendar: Calendar | None = None,
    *,
    open_journal: OpenJournal | None = None,
    topic: EventTopic | None = None,
    retention: Retention | None = None,
    snapshot_every: int = SNAPSHOT_EVERY,
    instruments: Sequence[Instrument] = INSTRUMENTS,
) -> AsyncIterator[Running]:
    telemetry, log = RecordingEngine(), RecordingLog()
    faults = Faults(ENGINE_FAULTS, allowed=True)
    parts = EngineParts(
        paths(root), tuple(instruments), SystemClock(), telemetry, log, faults, disk, tracer=tracer, venue=venue,
        calendar=calendar, open_journal=open_journal, topic=topic,
        retention=retention or AS_USUAL, snapshot_every=snapshot_every,
    )  # fmt: skip
    server, listener = EngineServer(parts), listen(port)
    running = Running(server, telemetry, log, faults, listener.getsockname()[1])
    try:
        await server.start(listener)
        yield running
    finally:
        await running.stop()
        listener.close()


async def eventually(holds: Callable[[], object], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[EngineClient]:
    there = asyncio.Event()
    client = EngineClient(port, lambda connected: there.set() if connected else there.clear())
    task = asyncio.create_task(client.run())
    try:
        async with asyncio.timeout(60):
            await there.wait()
        yield client
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
