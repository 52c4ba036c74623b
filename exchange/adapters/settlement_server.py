"""Settlement: trades from the event stream into the ledger, as fast as it goes and never twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exchange.adapters.connection import LOOPBACK
from exchange.adapters.engine_client import follow_events
from exchange.adapters.http import Faults, common_routes, json_response, problem
from exchange.adapters.settlement_store import Settled, SettlementStore
from exchange.adapters.wear import LEAK, Leak
from exchange.events import Happened, Traded
from exchange.ports import Exposition, Log, SettlementTelemetry
from exchange.protocol import Stream, Subscribe
from exchange.tracing import Handled, Tracer
from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Instant, to_seconds

SLOW: Final = "settlement-slow"
"""A fault: seconds that each trade takes longer."""
SETTLEMENT_FAULTS: Final = frozenset({SLOW, LEAK})
MAX_WAITING: Final = 32
"""Messages of the stream kept unsettled; beyond that the engine keeps them."""
MAX_TOGETHER: Final = 2048
"""Commands whose trades are settled in one transaction."""
_RETRY_S: Final = 0.25
_IMBALANCE_S: Final = 1.0
_Result = TypeVar("_Result")


class LedgerStatus(msgspec.Struct, frozen=True):
    """What `/v1/ledger` answers."""

    seq: int
    trades: int
    imbalance: int


class Unposted:
    """The trades that were read and are not posted, as far as their age and number go."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Instant, int]] = deque()
        """Of each command that traded: its number, its time, its trades."""
        self._difference = 0

    def read(self, happened: Sequence[Happened]) -> None:
        """Note what was read."""
        for item in happened:
            trades = sum(isinstance(event, Traded) for event in item.events)
            if trades:
                self._waiting.append((item.seq, item.at, trades))

    def posted(self, seq: int, trades: int) -> int:
        """Note that everything up to `seq` is posted, `trades` of them; return how many are missing so far."""
        expected = 0
        while self._waiting and self._waiting[0][0] <= seq:
            expected += self._waiting.popleft()[2]
        self._difference += expected - trades
        return self._difference

    def lag_s(self, now: Instant) -> float:
        """Return the age of the oldest trade that waits, in seconds; 0 when none does."""
        return max(0.0, to_seconds(now - self._waiting[0][1])) if self._waiting else 0.0


class SettlementServer:
    """The ledger's one writer."""

    def __init__(
        self,
        store: SettlementStore,
        engine_port: int,
        *,
        engine_host: str = LOOPBACK,
        telemetry: SettlementTelemetry,
        log: Log,
        faults: Faults,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer: Final = tracer
        self._store: Final = store
        self._engine_port: Final = engine_port
        self._engine_host: Final = engine_host
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._faults: Final = faults
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._waiting: Final[asyncio.Queue[Stream]] = asyncio.Queue(MAX_WAITING)
        self._read_seq = store.seq
        self._unposted: Final = Unposted()
        self._connected = False

    def ready(self) -> tuple[bool, str]:
        """Tell whether trades can be settled."""
        return self._connected, "the event stream stands" if self._connected else "no event stream from the engine"

    async def run(self) -> None:
        """Settle until cancelled.

        Raises:
            PermanentError: the ledger refuses for good, or went back: a restart begins where it is then.
        """
        refused: BaseException | None = None
        self._telemetry.engine_connected(connected=False)
        self._telemetry.caught_up(self._read_seq)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._settle_all())
                tasks.create_task(self._watch_balance())
                tasks.create_task(Leak(self._faults).run())
                stream = follow_events(self._engine_port, self._request, self._told, host=self._engine_host)
                async with contextlib.aclosing(stream):
                    async for message in stream:
                        if isinstance(message, Stream):
                            self._read_seq = message.happened[-1].seq
                            self._unposted.read(message.happened)
                            await self._waiting.put(message)
        except* PermanentError as group:
            refused = _first(group)
        finally:
            self._thread.shutdown(wait=True)
        if refused is not None:
            raise refused

    async def status(self) -> LedgerStatus:
        """Return how the ledger stands."""
        return await self._call(lambda: LedgerStatus(self._store.seq, self._store.trades(), self._store.imbalance()))

    def _request(self) -> Subscribe:
        return Subscribe(from_seq=self._read_seq + 1)

    def _told(self, connected: bool) -> None:  # noqa: FBT001 - a callback's one argument
        if connected != self._connected:
            self._log.event("engine-connected" if connected else "engine-lost", seq=self._read_seq)
        self._connected = connected
        self._telemetry.engine_connected(connected=connected)

    async def _settle_all(self) -> None:
        while True:
            message = await self._waiting.get()
            happened: list[Happened] = []
            while True:
                happened.extend(message.happened)
                if self._waiting.empty() or len(happened) >= MAX_TOGETHER:
                    break
                message = self._waiting.get_nowait()
            await self._settle(happened)

    async def _settle(self, happened: Sequence[Happened]) -> None:
        trades = sum(isinstance(event, Traded) for item in happened for event in item.events)
        if not trades:
            # Nothing to make durable: a restart reads these again and finds as little in them.
            self._telemetry.caught_up(happened[-1].seq)
            return
        await self._dawdle(trades)
        while True:
            started = time.perf_counter()
            try:
                settled: Settled = await self._call(lambda: self._store.settle(happened))
            except TemporaryError as error:
                self._log.event("settlement-failed", severity="error", why=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            seconds = time.perf_counter() - started
            if self._tracer is not None:
                ended_at = Instant(time.time_ns())
                self._tracer.settled(Handled(happened, Instant(ended_at - round(seconds * SECOND)), ended_at))
            self._telemetry.committed(
                settled.seq, trades=settled.trades, duplicates=settled.duplicates, seconds=seconds
            )
            difference = self._unposted.posted(settled.seq, settled.trades + settled.duplicates)
            self._telemetry.reconciled(difference)
            self._telemetry.lag(self._unposted.lag_s(Instant(time.time_ns())))
            return

    async def _dawdle(self, trades: int) -> None:
        for _ in range(trades):
            delay_s = self._faults.number(SLOW)
            if delay_s <= 0:
                return
            await asyncio.sleep(delay_s)

    async def _watch_balance(self) -> None:
        while True:
            try:
                self._telemetry.imbalance(await self._call(self._store.imbalance))
            except TemporaryError as error:  # settling tries again by itself; the gauge keeps what was known last
                self._log.event("settlement-failed", severity="error", why=str(error))
            self._telemetry.lag(self._unposted.lag_s(Instant(time.time_ns())))
            await asyncio.sleep(_IMBALANCE_S)

    async def _call(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group that is none itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def settlement_app(server: SettlementServer, exposition: Exposition, faults: Faults, admin_secret: str) -> ASGIApp:
    """Return settlement's HTTP application."""

    async def ledger(_: Request) -> Response:
        try:
            return json_response(await server.status())
        except TemporaryError as error:
            return problem(503, str(error))

    return Starlette(
        routes=[
            *common_routes(exposition, server.ready),
            Route("/v1/ledger", ledger, methods=["GET"]),
            *faults.routes(admin_secret),
        ]
    )
