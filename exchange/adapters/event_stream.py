"""The event stream of the engine: the latest in memory, the rest from the event log, nobody waited for.

Each subscriber keeps its own place and takes what it can. Whoever falls so far behind that memory no longer holds the
next record is cut off and comes back through the file; whoever does not read at all is cut off after `STALL_S`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from exchange import journal as codec
from exchange.adapters.file_log import read_records
from exchange.protocol import Books, Cut, Heartbeat, StreamRaw, frame
from kernel.time import Clock

RING_RECORDS: Final = 16_384
"""Some seconds of full load, in a few megabytes."""
CHUNK_RECORDS: Final = 256
HEARTBEAT_S: Final = 0.2
STALL_S: Final = 10.0


class EventRing:
    """The encoded `Happened` records of the last commits, and whoever waits for the next."""

    def __init__(self, last_seq: int, capacity: int = RING_RECORDS) -> None:
        """Begin empty after record `last_seq`."""
        self._records: Final[deque[bytes]] = deque(maxlen=capacity)
        self.last_seq = last_seq
        self._news: asyncio.Event = asyncio.Event()
        self.indications: tuple[int, int, bytes] = (0, 0, b"")
        """The last `Indications`: their own number, the record they stand after, and the frame."""

    @property
    def first_seq(self) -> int:
        """The oldest record still here; one after the last when none is."""
        return self.last_seq - len(self._records) + 1

    def publish(self, payloads: Sequence[bytes], last_seq: int) -> None:
        """Add the records up to `last_seq` and wake everybody."""
        self._records.extend(payloads)
        self.last_seq = last_seq
        self._wake()

    def indicate(self, seq: int, data: bytes) -> None:
        """Let `Indications` that stand after record `seq` go out in the place of the last ones, and wake everybody."""
        self.indications = self.indications[0] + 1, seq, data
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def slice(self, from_seq: int, count: int) -> list[bytes]:
        """Return up to `count` records from `from_seq` on, which must not be older than `first_seq`."""
        start = from_seq - self.first_seq
        return list(itertools.islice(self._records, start, start + count))

    async def wait(self) -> None:
        """Return after the next `publish`."""
        await self._news.wait()


class Subscription:
    """One subscriber's way through the stream."""

    def __init__(self, ring: EventRing, directory: Path, clock: Clock, writer: asyncio.StreamWriter) -> None:
        self._ring: Final = ring
        self._directory: Final = directory
        self._clock: Final = clock
        self._writer: Final = writer
        self._indicated: int | None = None
        """The last `Indications` that were sent; None: none are wanted."""

    async def run(self, from_seq: int, books: Books | None, *, indications: bool = False) -> str:
        """Send until the subscriber leaves, stalls or falls behind; return why it ended."""
        self._indicated = 0 if indications else None
        if books is not None:
            from_seq = books.seq + 1
            await self._send(frame(books))
        elif not 1 <= from_seq <= self._ring.last_seq + 1:
            await self._send(frame(Cut(f"from_seq is {from_seq}; the stream stands at {self._ring.last_seq}")))
            return "asked for what is not there"
        try:
            place = await self._catch_up(from_seq)
            return await self._follow(place)
        except TimeoutError:
            return "it did not read"
        except ConnectionError:
            return "it left"

    async def _catch_up(self, from_seq: int) -> int:
        """Send from the file until memory holds the next record; return its number."""
        place = from_seq
        if place >= self._ring.first_seq:
            return place
        records = read_records(self._directory, place, kind=codec.Kind.EVENTS)
        loop = asyncio.get_running_loop()
        while place < self._ring.first_seq:
            chunk = await loop.run_in_executor(None, _take, records, CHUNK_RECORDS)
            if not chunk:
                break
            await self._send(_stream(chunk))
            place += len(chunk)
        return place

    async def _follow(self, place: int) -> str:
        ring = self._ring
        while True:
            if place < ring.first_seq:
                await self._send(frame(Cut(f"too slow: the stream stands at {ring.last_seq}, you at {place - 1}")))
                return "it was too slow"
            chunk = ring.slice(place, CHUNK_RECORDS)
            if chunk:
                place += len(chunk)
                await self._send(_stream(chunk))
                continue
            number, seq, data = ring.indications
            if self._indicated is not None and self._indicated != number and seq < place:
                self._indicated = number
                await self._send(data)
                continue
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await ring.wait()
            except TimeoutError:
                await self._send(frame(Heartbeat(ring.last_seq, self._clock.now())))

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(STALL_S):
            await self._writer.drain()


def _stream(chunk: Sequence[bytes]) -> bytes:
    return frame(StreamRaw(tuple(msgspec.Raw(payload) for payload in chunk)))


def _take(records: Iterator[codec.Record], count: int) -> list[bytes]:
    return [record.payload for record in itertools.islice(records, count)]
