"""Notices on their way: from the events to the broker, and from the broker to where they are looked up.

The events are what nothing is lost from: a stretch counts as told when the broker has confirmed every notice of it, and
only then the place is noted. Whatever dies in between, the stretch is told again under the same ids, and who keeps
notices has each once. Neither the ledger nor the market waits for any of it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from exchange.adapters.http import guarded, json_response, problem
from exchange.adapters.notice_store import NoticeStore
from exchange.adapters.saga_part import Inbox, readable
from exchange.adapters.settlement_source import EventSource
from exchange.events import Happened
from exchange.messaging import Delivery, Publisher
from exchange.notices import (
    SHOWN_MAX,
    NoticesStatus,
    NoticeTelemetry,
    last_trade,
    notices_of,
    read_notice,
    telling,
)
from exchange.order_trace import caused
from exchange.ports import Log
from kernel.errors import TapewatchError, TemporaryError
from kernel.time import Clock, Instant, to_seconds

AGAIN_S: Final = 5.0
"""Before it is tried again with what refuses for good: a queue or a right that a person puts right."""
TOGETHER_S: Final = 0.2
"""So long are events gathered: a notice is for people, and each round costs a transaction."""
PATIENCE_S: Final = 10.0
"""So long a stretch is tried by itself. Then its source hears of it, which would say so each time."""
RETRY_S: Final = 0.25
LEDGER_S: Final = 2.0
"""So long is the ledger waited for without a word: it reads the same events at the same time."""
_LOOK_S: Final = 0.05
_WATCH_S: Final = 1.0
_T = TypeVar("_T")
Call: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Carries out what blocks on the store."""
MakeSource: TypeAlias = Callable[[Callable[[Collection[int]], None]], EventSource]
"""Makes a reader of the events; it tells the function it is given which parts it reads, where that changes."""


class NoticeParts(NamedTuple):
    """What notices are made of."""

    store: NoticeStore
    source: MakeSource
    """A reader for notices alone: it waits for the broker, and the ledger's must not."""
    settled: Callable[[int], Awaitable[int]]
    """Tells up to which number a part is in the ledger."""
    publisher: Publisher
    inbox: Callable[[], Inbox]
    """Makes a reader of the queue `notices`."""
    telemetry: NoticeTelemetry
    log: Log
    clock: Clock
    traced: float = 0.0
    """Share of the orders whose traces are kept."""
    engines: int = 1
    """How many share the symbols."""


class NoticePublisher:
    """The effect of events that are told (`exchange.consuming.Effect`)."""

    def __init__(self, parts: NoticeParts, call: Call) -> None:
        """Nothing was read yet."""
        self._parts: Final = parts
        self._call: Final = call
        self._waiting: Final[dict[int, deque[tuple[int, Instant, int]]]] = {}
        """Of each part the commands that were read and are not told: number, time, notices."""
        self._confirmed: Final[dict[int, int]] = {}
        """Of each part the last number whose notices the broker has: they are not told again for a place not noted."""
        self._stands = True
        """Whether the last try came through."""
        self.keeps_place = False
        """As that of the source that is read."""

    async def reached(self, partition: int) -> int:
        """See `Effect`."""
        seq = await self._call(lambda: self._parts.store.place(partition))
        self._waiting[partition] = deque()  # read before and not told comes again
        self._confirmed[partition] = seq
        return int(seq)

    def read(self, partition: int, happened: Sequence[Happened]) -> None:
        """See `Effect`."""
        for item in happened:
            if count := len(notices_of(partition, item, self._parts.engines)):
                self._waiting[partition].append((item.seq, item.at, count))

    def only(self, partitions: Collection[int]) -> None:
        """Hear which parts are read here: of the others somebody else tells."""
        for gone in self._waiting.keys() - set(partitions):
            del self._waiting[gone]

    async def apply(self, partition: int, happened: Sequence[Happened]) -> None:
        """See `Effect`."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                await self._tell(partition, happened)
                break
            except TemporaryError as error:
                if self._stands:
                    self._parts.log.event("notices-wait", severity="warning", why=str(error))
                self._stands = False
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(RETRY_S)
        if not self._stands:
            self._parts.log.event("notices-go-on", seq=happened[-1].seq)
        self._stands = True
        waiting = self._waiting.get(partition)
        while waiting and waiting[0][0] <= happened[-1].seq:
            waiting.popleft()
        await asyncio.sleep(TOGETHER_S)

    def standing(self, now: Instant) -> tuple[int, float]:
        """Return how many notices wait, and how old the oldest is."""
        count = sum(one[2] for waiting in self._waiting.values() for one in waiting)
        oldest = min((waiting[0][1] for waiting in self._waiting.values() if waiting), default=now)
        return count, max(0.0, to_seconds(now - oldest))

    async def _tell(self, partition: int, happened: Sequence[Happened]) -> None:
        told = [(notice, item) for item in happened for notice in notices_of(partition, item, self._parts.engines)]
        await self._until_settled(partition, last_trade(happened))
        confirmed = self._confirmed.get(partition, 0)
        new = [(notice, item) for notice, item in told if item.seq > confirmed]
        traced = self._parts.traced
        await self._parts.publisher.publish([telling(notice, caused(item, traced)) for notice, item in new])
        self._parts.telemetry.published(notice.kind for notice, _ in new)
        self._confirmed[partition] = max(confirmed, happened[-1].seq)
        if told or self.keeps_place:
            await self._call(lambda: self._parts.store.reach(partition, happened[-1].seq))

    async def _until_settled(self, partition: int, traded: int) -> None:
        until = time.monotonic() + LEDGER_S
        while traded and (settled := await self._parts.settled(partition)) < traded:
            if time.monotonic() > until:
                raise TemporaryError(f"the ledger is at {settled} of part {partition}, and {traded} traded")
            await asyncio.sleep(_LOOK_S)


class NoticeServer:
    """Publishes, keeps and shows notices as long as it runs."""

    def __init__(self, parts: NoticeParts) -> None:
        """Nothing is opened yet."""
        self._parts: Final = parts
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="notices")
        self._effect: Final = NoticePublisher(parts, self._call)
        self._source: EventSource | None = None
        self._inbox: Inbox | None = None

    def ready(self) -> tuple[bool, str]:
        """Tell whether notices are published and kept."""
        comes, why = (False, "no events yet") if self._source is None else self._source.ready()
        if not comes:
            return False, why
        if not self._keeps():
            return False, "no connection to the queue of notices"
        count, oldest_s = self._effect.standing(self._parts.clock.now())
        return True, f"{count} notices wait, the oldest for {oldest_s:.0f} s"

    async def run(self) -> None:
        """Work until cancelled. What refuses for good is said, and tried again: a ledger must not end with it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forever("published", self._publish))
                tasks.create_task(self._forever("kept", self._keep))
                tasks.create_task(self._watch())
        finally:
            self._thread.shutdown(wait=True)

    async def look(self, most: int, *, account: str = "", after: int | None = None) -> NoticesStatus:
        """Return what was kept, and how it stands.

        Raises:
            TemporaryError: the database does not answer.
        """
        found = await self._call(lambda: self._parts.store.look(most, account=account, after=after))
        count, oldest_s = self._effect.standing(self._parts.clock.now())
        return NoticesStatus(found, count, oldest_s, self._reads(), self._keeps())

    async def _publish(self) -> None:
        self._source = source = self._parts.source(self._effect.only)
        self._effect.keeps_place = source.keeps_place
        await source.run(self._effect, lambda _: None)

    async def _keep(self) -> None:
        self._inbox = self._parts.inbox()
        await self._inbox.run(self._handle)

    async def _handle(self, deliveries: Sequence[Delivery]) -> None:
        notices, poison = readable(deliveries, read_notice)
        # Given back they would come again a bounded number of times: a database that is away is waited for instead.
        away = False
        while notices:
            try:
                new = await self._call(lambda: self._parts.store.keep(notices))
            except TemporaryError as error:
                if not away:
                    self._parts.log.event("notices-not-kept", severity="error", why=str(error))
                away = True
                await asyncio.sleep(RETRY_S)
            else:
                self._parts.telemetry.kept(new, len(notices) - new)
                break
        if poison is not None:
            raise poison

    async def _forever(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except* TapewatchError as group:
                self._parts.log.event("notices-refused", severity="error", what=what, why=_first(group))
            await asyncio.sleep(AGAIN_S)

    async def _watch(self) -> None:
        while True:
            count, oldest_s = self._effect.standing(self._parts.clock.now())
            self._parts.telemetry.waiting(count, oldest_s=oldest_s)
            self._parts.telemetry.connected(source=self._reads(), keeper=self._keeps())
            await asyncio.sleep(_WATCH_S)

    def _reads(self) -> bool:
        return self._source is not None and self._source.ready()[0]

    def _keeps(self) -> bool:
        return self._inbox is not None and self._inbox.connected

    async def _call(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def notice_routes(server: NoticeServer, admin_secret: str) -> list[BaseRoute]:
    """Return `/v1/notices?account=&after=&most=`, for those who bring the admin secret."""

    async def notices(request: Request) -> Response:
        asked = request.query_params
        try:
            after = None if (text := asked.get("after", "")) == "" else _number(text)
            most = min(_number(asked.get("most", "100")), SHOWN_MAX)
        except ValueError:
            return problem(400, "after, most: whole numbers from 0 on, of at most 18 digits")
        try:
            return json_response(await server.look(most, account=asked.get("account", ""), after=after))
        except TapewatchError as error:
            return problem(503, str(error))

    async def readiness(_: Request) -> Response:
        is_ready, detail = server.ready()
        return json_response({"ready": is_ready, "detail": detail}, 200 if is_ready else 503)

    return [
        Route("/v1/notices", guarded(admin_secret, notices), methods=["GET"]),
        Route("/health/notices", readiness, methods=["GET"]),
    ]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 - of 64 bits
        raise ValueError(text)
    return int(text)


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
