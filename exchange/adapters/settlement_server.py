"""Settlement: trades from the event stream into the ledger, as fast as it goes and never twice."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from exchange.adapters.http import Faults, common_routes, json_response, problem
from exchange.adapters.settlement_source import EventSource
from exchange.adapters.settlement_store import Settled, SettlementStore
from exchange.adapters.wear import LEAK, Leak
from exchange.events import Happened, Traded
from exchange.ports import Exposition, Log, SettlementTelemetry
from exchange.tracing import Handled, Tracer
from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Instant, to_seconds

SLOW: Final = "settlement-slow"
"""A fault: seconds that each trade takes longer."""
SETTLEMENT_FAULTS: Final = frozenset({SLOW, LEAK})
_IMBALANCE_S: Final = 1.0
_Result = TypeVar("_Result")


class LedgerStatus(msgspec.Struct, frozen=True):
    """What `/v1/ledger` answers."""

    seq: int
    """The highest of `partitions`."""
    trades: int
    imbalance: int
    partitions: dict[str, int] = {}
    """Up to which number each partition is settled."""


class Unposted:
    """The trades that were read and are not posted, as far as their age and number go."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Instant, int]] = deque()
        """Of each command that traded: its number, its time, its trades."""
        self.difference = 0
        """Trades read up to the number posted last, less those posted or met again."""

    def read(self, happened: Sequence[Happened]) -> None:
        """Note what was read."""
        for item in happened:
            trades = sum(isinstance(event, Traded) for event in item.events)
            if trades:
                self._waiting.append((item.seq, item.at, trades))

    def posted(self, seq: int, trades: int) -> None:
        """Note that everything up to `seq` is posted, `trades` of them."""
        expected = 0
        while self._waiting and self._waiting[0][0] <= seq:
            expected += self._waiting.popleft()[2]
        self.difference += expected - trades

    def lag_s(self, now: Instant) -> float:
        """Return the age of the oldest trade that waits, in seconds; 0 when none does."""
        return max(0.0, to_seconds(now - self._waiting[0][1])) if self._waiting else 0.0


class SettlementServer:
    """The ledger's one writer, and the effect of the events it is given (`exchange.consuming.Effect`)."""

    def __init__(
        self,
        store: SettlementStore,
        source: EventSource,
        *,
        telemetry: SettlementTelemetry,
        log: Log,
        faults: Faults,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer: Final = tracer
        self._store: Final = store
        self._source: Final = source
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._faults: Final = faults
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._reached = max(store.seqs().values(), default=0)
        self._unposted: Final[dict[int, Unposted]] = {}
        self._stands = False
        """Whether events come."""

    def ready(self) -> tuple[bool, str]:
        """Tell whether trades can be settled."""
        return self._source.ready()

    async def run(self) -> None:
        """Settle until cancelled.

        Raises:
            PermanentError: the ledger refuses for good, or went back: a restart begins where it is then.
        """
        refused: BaseException | None = None
        self._telemetry.engine_connected(connected=False)
        self._telemetry.caught_up(self._reached)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch_balance())
                tasks.create_task(Leak(self._faults).run())
                await self._source.run(self, self._told)
        except* PermanentError as group:
            refused = _first(group)
        finally:
            self._thread.shutdown(wait=True)
        if refused is not None:
            raise refused

    async def status(self) -> LedgerStatus:
        """Return how the ledger stands."""
        return await self._call(self._status)

    async def settled(self, partition: int) -> int:
        """Return up to which number a partition's trades are in the ledger.

        Raises:
            TemporaryError: the ledger does not answer.
        """
        return await self._call(lambda: self._store.seq_of(partition))

    # --- the effect ------------------------------------------------------------------------------------------------

    async def reached(self, partition: int) -> int:
        """Return up to which number a partition is settled.

        Raises:
            TemporaryError: the ledger does not answer.
        """
        try:
            seq = await self._call(lambda: self._store.seq_of(partition))
        except TemporaryError as error:
            self._log.event("settlement-failed", severity="error", why=str(error))
            raise
        self._unposted[partition] = Unposted()  # read before and not posted comes again
        return seq

    def read(self, partition: int, happened: Sequence[Happened]) -> None:
        """Hear of what was read."""
        if self._tracer is not None and self._source.keeps_place:
            now = Instant(time.time_ns())
            self._tracer.received(Handled(happened, now, now))
        self._unposted[partition].read(happened)

    async def apply(self, partition: int, happened: Sequence[Happened]) -> None:
        """Post a stretch.

        Raises:
            TemporaryError: as `SettlementStore.settle`.
        """
        trades = sum(isinstance(event, Traded) for item in happened for event in item.events)
        if not trades and not self._source.keeps_place:
            # Nothing to make durable: a restart reads these again and finds as little in them.
            self._reach(happened[-1].seq)
            self._telemetry.caught_up(self._reached)
            return
        await self._dawdle(trades)
        started = time.perf_counter()
        try:
            settled: Settled = await self._call(lambda: self._store.settle(happened, partition))
        except TemporaryError as error:
            self._log.event("settlement-failed", severity="error", why=str(error))
            raise
        seconds = time.perf_counter() - started
        if self._tracer is not None and trades:
            ended_at = Instant(time.time_ns())
            self._tracer.settled(Handled(happened, Instant(ended_at - round(seconds * SECOND)), ended_at))
        self._reach(settled.seq)
        self._telemetry.committed(self._reached, trades=settled.trades, duplicates=settled.duplicates, seconds=seconds)
        self._unposted[partition].posted(settled.seq, settled.trades + settled.duplicates)
        self._telemetry.reconciled(sum(one.difference for one in self._unposted.values()))
        self._tell_lag()

    # --- within ----------------------------------------------------------------------------------------------------

    def _status(self) -> LedgerStatus:
        seqs = self._store.seqs()
        return LedgerStatus(
            max(seqs.values(), default=0), self._store.trades(), self._store.imbalance(),
            {str(partition): seq for partition, seq in seqs.items()},
        )  # fmt: skip

    def _told(self, connected: bool) -> None:  # noqa: FBT001 - a callback's one argument
        if connected != self._stands:
            self._log.event("engine-connected" if connected else "engine-lost", seq=self._reached)
        self._stands = connected
        self._telemetry.engine_connected(connected=connected)

    def _reach(self, seq: int) -> None:
        self._reached = max(self._reached, seq)

    def _tell_lag(self) -> None:
        now = Instant(time.time_ns())
        self._telemetry.lag(max((one.lag_s(now) for one in self._unposted.values()), default=0.0))

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
            self._tell_lag()
            await asyncio.sleep(_IMBALANCE_S)

    async def _call(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group that is none itself."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def settlement_app(
    server: SettlementServer, exposition: Exposition, faults: Faults, admin_secret: str, more: Sequence[BaseRoute] = ()
) -> ASGIApp:
    """Return settlement's HTTP application; `more` is what else the process answers."""

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
            *more,
        ]
    )
