"""Publishing what happened for others, behind the commits and never in their way.

The same way as a subscriber's: from memory while it holds the next record, else from the event log. What was published
is not remembered here: the topic itself says what its last record is, after a start and after every failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from exchange.adapters.event_stream import EventRing
from exchange.adapters.file_log import read_records
from exchange.journal import Kind, Record
from exchange.ports import EngineTelemetry, EventTopic, Log
from exchange.tracing import Sent, Tracer
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant

TOGETHER: Final = 2048
"""Records that are published in one go: a few hundred kilobytes."""
RETRY_S: Final = 1.0
_STEP_S: Final = 0.01
_Result = TypeVar("_Result")


class Publishing:
    """One engine's events on their way to a topic."""

    def __init__(
        self,
        topic: EventTopic,
        ring: EventRing,
        directory: Path,
        telemetry: EngineTelemetry,
        log: Log,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer: Final = tracer
        self._topic: Final = topic
        self._ring: Final = ring
        self._directory: Final = directory
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._thread: Final = ThreadPoolExecutor(1, thread_name_prefix="publish-events")
        self._trouble = False
        self._idle: Final = asyncio.Event()
        self.seq: int | None = None
        """The last command whose events are durable in the topic; None while that is not known."""

    @property
    def behind(self) -> int:
        """Durable commands whose events are not known to be in the topic."""
        return self._ring.last_seq - (self.seq or 0)

    def tell(self) -> None:
        """Tell how far it is, whether or not it moves."""
        self._telemetry.publishing(seq=self.seq or 0, behind=max(0, self.behind))

    async def run(self) -> None:
        """Publish until cancelled; whatever fails is tried again. Returns when it can never go on, and says so."""
        try:
            while True:
                try:
                    await self._follow()
                except TemporaryError as error:
                    self._telemetry.publish_failed()
                    if not self._trouble:
                        self._log.event("events-not-published", severity="warning", why=str(error), seq=self.seq or 0)
                    self._trouble = True
                await asyncio.sleep(RETRY_S)
        except PermanentError as error:
            self._telemetry.publish_failed()
            self._log.event("events-not-published", severity="critical", why=str(error), seq=self.seq or 0)

    async def finish(self, within_s: float) -> None:
        """Return when everything is published, or the time is over."""
        if self.behind > 0:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._idle.wait()

    def close(self) -> None:
        """Give the topic back, whatever a thread still does with it."""
        self._topic.close()
        self._thread.shutdown(wait=False)

    async def _follow(self) -> None:
        """Publish from where the topic ends.

        Raises:
            TemporaryError: the topic does not answer.
            PermanentError: it is ahead of the journal, or the event log begins too late.
        """
        self.seq = await self._aside(self._topic.begin)
        if self.seq > self._ring.last_seq:
            raise PermanentError(
                f"the topic of events ends with command {self.seq}, the journal with {self._ring.last_seq}: "
                "it is another journal's"
            )
        place = self.seq + 1
        while True:
            place = await self._catch_up(place)
            chunk = self._ring.slice(place, TOGETHER)
            if chunk:
                place = await self._publish(place, chunk)
            else:
                self._idle.set()
                await self._ring.wait()

    async def _catch_up(self, place: int) -> int:
        """Publish from the event log until memory holds the next record; return its number."""
        while place < self._ring.first_seq:
            records = read_records(self._directory, place, kind=Kind.EVENTS)
            while place < self._ring.first_seq:
                chunk = await self._aside(partial(_take, records))
                if not chunk:  # the rest is just being written
                    await asyncio.sleep(_STEP_S)
                    break
                place = await self._publish(place, chunk)
        return place

    async def _publish(self, place: int, chunk: Sequence[bytes]) -> int:
        began_at = Instant(time.time_ns())
        await self._aside(partial(self._topic.publish, place, chunk))
        if self._tracer is not None:
            self._tracer.sent(Sent(place, chunk, began_at, Instant(time.time_ns())))
        self.seq = place + len(chunk) - 1
        if self._trouble:
            self._trouble = False
            self._log.event("events-published-again", seq=self.seq)
        return self.seq + 1

    async def _aside(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _take(records: Iterator[Record]) -> list[bytes]:
    return [record.payload for record in islice(records, TOGETHER)]
