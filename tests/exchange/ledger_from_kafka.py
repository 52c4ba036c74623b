"""Parts for tests of consumers: an effect that keeps its numbers, who publishes events, and members of a group."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import Producer

from exchange.adapters.kafka_consumer import KafkaConsumer
from exchange.adapters.kafka_topics import KafkaPlace
from exchange.events import Happened
from exchange.journal import Kind, encode_events
from exchange.messages import seal
from exchange.recording import RecordingConsumer, RecordingLog
from kernel.errors import TemporaryError
from kernel.time import Instant


def event(seq: int) -> bytes:
    return seal(Kind.EVENTS, seq, encode_events(Happened(seq, Instant(seq * 1_000), ())))


def producer_of(place: KafkaPlace) -> Producer:
    return Producer(place.client({"acks": "all", "enable.idempotence": True, "linger.ms": 5}))


def publish(
    place: KafkaPlace, partition: int, values: Sequence[bytes | None], producer: Producer | None = None
) -> None:
    """Hand values over, and wait until they are there unless the producer is given."""
    own = producer or producer_of(place)
    for value in values:
        own.produce(place.events, value, partition=partition)
    assert producer is not None or own.flush(30.0) == 0


class Kept:
    """An effect in SQLite: each number once by a key; the last of them is how far it is.

    `order` holds what was carried out in the order in which it was; a number that is there already is counted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as database:
            database.executescript(
                "CREATE TABLE IF NOT EXISTS done (part INTEGER, seq INTEGER, PRIMARY KEY (part, seq));"
            )
        self.failing = False
        self.order: defaultdict[int, list[int]] = defaultdict(list)
        self.met_again = 0

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=20.0)
        database.execute("PRAGMA synchronous = OFF")
        return database

    async def reached(self, partition: int) -> int:
        if self.failing:
            raise TemporaryError("told to fail")
        return self.all().get(partition, [0])[-1]

    def read(self, partition: int, happened: Sequence[Happened]) -> None:
        """Nothing to do."""

    async def apply(self, partition: int, happened: Sequence[Happened]) -> None:
        if self.failing:
            raise TemporaryError("told to fail")
        with self._open() as database:
            found = database.execute("SELECT coalesce(max(seq), 0) FROM done WHERE part = ?", (partition,)).fetchone()[
                0
            ]
            new = [one.seq for one in happened if one.seq > found]
            # The key refuses what comes twice, and a number that was left out would show in the end.
            database.executemany("INSERT INTO done VALUES (?, ?)", [(partition, seq) for seq in new])
        self.met_again += len(happened) - len(new)
        self.order[partition] += new

    def all(self) -> dict[int, list[int]]:
        found: defaultdict[int, list[int]] = defaultdict(list)
        with self._open() as database:
            for part, seq in database.execute("SELECT part, seq FROM done ORDER BY part, seq"):
                found[part].append(seq)
        return dict(found)

    def count(self) -> int:
        with self._open() as database:
            return int(database.execute("SELECT count(*) FROM done").fetchone()[0])


class Member:
    """A consumer that runs, with what it told."""

    def __init__(self, place: KafkaPlace, effect: Kept, **more: object) -> None:
        self.telemetry, self.log, self.effect = RecordingConsumer(), RecordingLog(), effect
        self.consumer = KafkaConsumer(place, "test", telemetry=self.telemetry, log=self.log, **more)  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.consumer.run(effect))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, holds: object, within_s: float = 90.0) -> None:
        assert callable(holds)
        async with asyncio.timeout(within_s):
            while not holds():
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.02)


async def _run(place: KafkaPlace, path: Path) -> None:
    member = Member(place, Kept(path))
    await member.task


if __name__ == "__main__":
    asyncio.run(
        _run(KafkaPlace(bootstrap=sys.argv[1], topic=sys.argv[2], partitions=int(sys.argv[3])), Path(sys.argv[4]))
    )
