"""What every process of settlement by sagas has: a thread for its database, patience with it, and its HTTP."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exchange.adapters.http import Faults, common_routes, json_response, problem
from exchange.adapters.saga_desk import SagaView, Wish, desk_routes
from exchange.messaging import Consumer, Delivery, Outgoing, PoisonError, Publisher
from exchange.ports import Exposition, Log
from exchange.saga import Deed
from exchange.saga_coordinator import Times
from exchange.saga_ports import SagaTelemetry
from exchange.tracing import Tracer
from exchange.types import TradeId
from kernel.errors import PermanentError, TapewatchError, TemporaryError
from kernel.time import SECOND, Clock, Duration

SLOW: Final = "saga-slow"
"""A fault: seconds that each batch takes longer."""
SAGA_FAULTS: Final = frozenset({SLOW})
TIMES: Final = Times(Duration(5 * SECOND), Duration(10 * SECOND), Duration(60 * SECOND), Duration(10 * SECOND))
"""A broker that confirmed a message delivers it: asking again is for a service that ended in between."""
RETRY_S: Final = 0.25
PUBLISH_ATTEMPTS: Final = 20
TIDY_S: Final = 30.0
_BREATH_S: Final = 0.05
"""Between two transactions that forget, so that steps come first."""
_WATCH_S: Final = 1.0
STUCK_SHOWN: Final = 100
_T = TypeVar("_T")
_Message = TypeVar("_Message")


class Inbox(Consumer, Protocol):
    """A queue whose connection can be asked for."""

    @property
    def connected(self) -> bool:
        """Whether messages can come."""
        ...


class Around(NamedTuple):
    """What a part is given of the world."""

    inbox: Inbox
    publisher: Publisher
    telemetry: SagaTelemetry
    log: Log
    clock: Clock
    faults: Faults
    times: Times = TIMES
    tracer: Tracer | None = None
    traced: float = 0.0
    """Share of the orders whose traces are kept."""
    keep: Duration | None = None
    """How long a saga that ended is kept, of who begins them; None: for ever."""
    tidy_s: float = TIDY_S
    """How often it is looked what can be forgotten."""


class StuckSaga(msgspec.Struct, frozen=True):
    """A saga that stands too long, as `/v1/sagas` tells it."""

    trade_id: int
    step: str
    service: str
    reason: str
    for_s: float
    refusal: str = ""


class SagasStatus(msgspec.Struct, frozen=True):
    """What `/v1/sagas` answers."""

    part: str
    style: str
    open: int
    """Sagas that did not end, as far as this part has to do with their end."""
    steps: dict[str, int]
    """The open ones by the step they stand at, or by what was said of them last."""
    stuck_total: int
    stuck: list[StuckSaga]
    """The first hundred of them."""
    states: dict[str, int] = {}
    """Of the coordinator: all sagas, open or by their end."""
    drift: int | None = None
    """Of a service: the sum of its book, absolute; must be 0."""


class SagaPart(ABC):
    """The common half of every part. A database call blocks, so one thread of its own makes them."""

    part: str = ""
    style: str = ""

    def __init__(self, around: Around, name: str) -> None:
        self._inbox: Final = around.inbox
        self._publisher: Final = around.publisher
        self._telemetry: Final = around.telemetry
        self._log: Final = around.log
        self._clock: Final = around.clock
        self._faults: Final = around.faults
        self._times: Final = around.times
        self._tracer: Final = around.tracer
        self._traced: Final = around.traced
        self._tidy_s: Final = around.tidy_s
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix=name)

    def ready(self) -> tuple[bool, str]:
        """Tell whether messages can be carried out."""
        return self._inbox.connected, "messages come" if self._inbox.connected else "no connection to the broker"

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            PermanentError: database or broker refuses for good; a restart begins from what is durable.
        """
        refused: BaseException | None = None
        try:
            await self._begin()
            async with asyncio.TaskGroup() as tasks:
                for work in self._works():
                    tasks.create_task(work)
                tasks.create_task(self._watch_forever())
        except* PermanentError as group:
            refused = _first(group)
        finally:
            self._thread.shutdown(wait=True)
        if refused is not None:
            raise refused

    @abstractmethod
    async def status(self) -> SagasStatus:
        """Return how it stands."""

    @abstractmethod
    async def view(self, trade_id: TradeId) -> SagaView:
        """See `exchange.adapters.saga_desk.Desk`."""

    @abstractmethod
    async def do(self, trade_id: TradeId, deed: Deed, wish: Wish) -> SagaView:
        """See `exchange.adapters.saga_desk.Desk`."""

    async def _begin(self) -> None:  # noqa: B027 - a service that only answers has nothing to read
        """Read what is durable."""

    @abstractmethod
    def _works(self) -> Sequence[Coroutine[object, object, None]]:
        """Return what runs as long as the part does."""

    @abstractmethod
    async def _watch(self) -> None:
        """Tell the telemetry how it stands, once a second."""

    async def _watch_forever(self) -> None:
        while True:
            try:
                await self._watch()
            except TemporaryError as error:  # whoever writes tries again by itself; gauges keep what was known last
                self._log.event("saga-database-away", severity="error", why=str(error))
            await asyncio.sleep(_WATCH_S)

    async def _tidy_forever(self) -> None:
        while True:
            await asyncio.sleep(self._tidy_s)
            try:
                await self._tidy()
            except TemporaryError as error:
                self._log.event("saga-database-away", severity="error", why=str(error))

    @abstractmethod
    async def _tidy(self) -> None:
        """Forget what can be forgotten by now."""

    async def _forget_all(self, some: Callable[[], int]) -> None:
        """Forget a few at a time, until there are none."""
        while forgotten := await self._call(some):
            self._telemetry.forgot(forgotten)
            await asyncio.sleep(_BREATH_S)

    async def _call(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _until_done(self, work: Callable[[], _T], again: Callable[[], None] = lambda: None) -> _T:
        """Carry out a transaction; a database that is away is waited for, and `again` is told of each failure."""
        failures = 0
        while True:
            try:
                return await self._call(work)
            except TemporaryError as error:
                again()
                if not failures:
                    self._log.event("saga-database-away", severity="error", why=str(error))
                failures += 1
                await asyncio.sleep(RETRY_S)

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        """Publish; a broker that is away is waited for a few seconds.

        Raises:
            TemporaryError: it stays away. What is to be said is durable and is said again.
        """
        for attempt in range(PUBLISH_ATTEMPTS):
            try:
                if messages:
                    await self._publisher.publish(messages)
                return
            except TemporaryError as error:
                if attempt == 0:
                    self._log.event("saga-broker-away", severity="warning", why=str(error))
                if attempt == PUBLISH_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(RETRY_S)

    async def _dawdle(self) -> None:
        if (delay_s := self._faults.number(SLOW)) > 0:
            await asyncio.sleep(delay_s)


def readable(
    deliveries: Sequence[Delivery], read: Callable[[Delivery], _Message]
) -> tuple[list[_Message], PoisonError | None]:
    """Return what a batch says up to the first delivery that says nothing, and that one's error."""
    messages = []
    for delivery in deliveries:
        try:
            messages.append(read(delivery))
        except PoisonError as poison:
            return messages, poison
    return messages, None


def saga_app(part: SagaPart, exposition: Exposition, faults: Faults, admin_secret: str) -> ASGIApp:
    """Return the HTTP application of a part."""

    async def sagas(_: Request) -> Response:
        try:
            return json_response(await part.status())
        except TapewatchError as error:
            return problem(503, str(error))

    return Starlette(
        routes=[
            *common_routes(exposition, part.ready),
            Route("/v1/sagas", sagas, methods=["GET"]),
            *desk_routes(part, admin_secret),
            *faults.routes(admin_secret),
        ]
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
