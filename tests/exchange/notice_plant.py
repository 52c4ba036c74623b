"""Notices on their way in one loop: a list of events, a broker, a store; each part dies or fails as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exchange.adapters.notice_server import NoticeParts, NoticeServer
from exchange.adapters.notice_store import NoticeStore
from exchange.adapters.saga_part import Inbox
from exchange.consuming import Effect
from exchange.events import Happened
from exchange.messaging import Outgoing, Publisher
from exchange.notices import Notice, NoticeKind, notices_of
from exchange.recording import RecordingLog
from kernel.adapters.clock import SystemClock
from kernel.errors import TemporaryError
from tests.exchange.saga_plant import Crash, Points


@dataclass
class RecordingNotices:
    """A `NoticeTelemetry` that keeps counts."""

    kinds: Counter[NoticeKind] = field(default_factory=Counter)
    count: int = 0
    oldest_s: float = 0.0
    new: int = 0
    repeats: int = 0
    standing: tuple[bool, bool] = (False, False)

    def published(self, kinds: Iterable[NoticeKind]) -> None:
        self.kinds.update(kinds)

    def waiting(self, count: int, *, oldest_s: float) -> None:
        self.count, self.oldest_s = count, oldest_s

    def connected(self, *, source: bool, keeper: bool) -> None:
        self.standing = source, keeper

    def kept(self, new: int, repeats: int) -> None:
        self.new += new
        self.repeats += repeats


class ListedEvents:
    """A source whose events are a list, handed over so many together; it reads on from where the effect is."""

    keeps_place = True

    def __init__(self, happened: Sequence[Happened], together: int = 20) -> None:
        self.happened, self.together = list(happened), together
        self.reads = False

    def ready(self) -> tuple[bool, str]:
        return self.reads, "events come" if self.reads else "not yet"

    async def run(self, effect: Effect, told: Callable[[bool], None]) -> None:
        reached = await effect.reached(0)
        self.reads = True
        todo = [item for item in self.happened if item.seq > reached]
        for start in range(0, len(todo), self.together):
            stretch = todo[start : start + self.together]
            effect.read(0, stretch)
            while True:
                try:
                    await effect.apply(0, stretch)
                    break
                except TemporaryError:
                    await asyncio.sleep(0.01)
        await asyncio.Event().wait()


class DyingStore(NoticeStore):
    """A store whose process dies before or after a transaction."""

    def __init__(self, place: Path | str, points: Points) -> None:
        super().__init__(place)
        self._points = points

    def reach(self, part: int, seq: int) -> None:
        self._points.at("before the place is noted")
        super().reach(part, seq)
        self._points.at("after the place is noted")

    def keep(self, notices: Sequence[Notice]) -> int:
        self._points.at("before they are kept")
        new = super().keep(notices)
        self._points.at("after they are kept")
        return new


class DyingPublisher:
    def __init__(self, publisher: Publisher, points: Points) -> None:
        self._publisher, self._points = publisher, points

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        self._points.at("before they are published")
        half = len(messages) // 2
        await self._publisher.publish(messages[:half])
        self._points.at("in the middle of publishing")
        await self._publisher.publish(messages[half:])
        self._points.at("after they are published")


class NoticePlant:
    """Everything that outlives a process, and processes begun on it."""

    def __init__(
        self, place: Path | str, happened: Sequence[Happened], publisher: Any, inbox: Callable[[], Inbox]
    ) -> None:
        self.place, self.happened, self.publisher, self.inbox = place, happened, publisher, inbox
        self.settled_to = happened[-1].seq if happened else 0
        self.telemetry, self.log = RecordingNotices(), RecordingLog()
        self.server: NoticeServer | None = None
        self.store: NoticeStore | None = None

    @property
    def owed(self) -> list[str]:
        """The ids of all notices that have to come, in their order."""
        return [one.id for item in self.happened for one in notices_of(0, item)]

    @contextlib.asynccontextmanager
    async def process(self, points: Points | None = None) -> AsyncIterator[asyncio.Task[None]]:
        """Run a process as long as the block lasts; one that dies is done with its error."""
        deadly = points or Points()
        self.store = DyingStore(self.place, deadly)

        async def settled(_: int) -> int:
            return self.settled_to

        def source(_: Callable[[Collection[int]], None]) -> Any:
            return ListedEvents(self.happened)

        self.server = NoticeServer(
            NoticeParts(
                self.store, source, settled, DyingPublisher(self.publisher, deadly), self.inbox, self.telemetry,
                self.log, SystemClock(),
            )
        )  # fmt: skip
        task = asyncio.create_task(self.server.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.store.close()

    def kept(self) -> list[str]:
        """Return the ids of all that are kept, in their order."""
        store = NoticeStore(self.place)
        try:
            return [one.notice.id for one in store.look(100_000)]
        finally:
            store.close()


def died(task: asyncio.Task[None]) -> bool:
    """Tell whether a process died where it was told to."""
    if not task.done():
        return False
    error: BaseException | None = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Crash), error
    return True
