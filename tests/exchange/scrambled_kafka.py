"""A Kafka of one process, as far as `KafkaConsumer` uses it, whose messages arrive swapped with their neighbours."""

from __future__ import annotations

import random
from collections.abc import Sequence

from confluent_kafka import TopicPartition


class Arrived:
    """A message."""

    def __init__(self, partition: int, offset: int, value: bytes | None) -> None:
        self._partition, self._offset, self._value = partition, offset, value

    def error(self) -> None:
        """None of these ever is one."""

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> None:
        """They bear none."""

    def value(self) -> bytes | None:
        return self._value


class ScrambledKafka:
    """The log of each partition, what its one group has committed, and how likely two neighbours are swapped."""

    def __init__(self, logs: dict[int, Sequence[bytes | None]], *, swapped: float, seed: int) -> None:
        self.logs, self.swapped, self.dice = logs, swapped, random.Random(seed)
        self.committed: dict[int, int] = {}
        self.seeks = 0
        self.together = range(1, 30)
        """How many messages of a partition come at once."""

    def member(self, _: object) -> ScrambledMember:
        return ScrambledMember(self)


class ScrambledMember:
    """The library's consumer; it has all partitions at once."""

    def __init__(self, broker: ScrambledKafka) -> None:
        self._broker = broker
        self._at: dict[int, int] = {}
        self._paused: set[int] = set()

    def subscribe(self, topics: Sequence[str], *, on_assign, on_revoke, on_lost) -> None:
        self._topic, self._given, self._taken = topics[0], on_assign, on_revoke

    def poll(self, _: float) -> Arrived | None:
        if not self._at:
            self._at = {one: self._broker.committed.get(one, 0) for one in self._broker.logs}
            self._given(self, [TopicPartition(self._topic, one) for one in self._at])
        return next(iter(self.consume(1, 0.0)), None)

    def consume(self, count: int, _: float) -> list[Arrived]:
        dice, found = self._broker.dice, []
        for partition, at in self._at.items():
            log = self._broker.logs[partition]
            if partition in self._paused:
                continue
            upto = min(len(log), at + min(count, dice.choice(self._broker.together)))
            arriving = [Arrived(partition, offset, log[offset]) for offset in range(at, upto)]
            for first in range(len(arriving) - 1):
                if dice.random() < self._broker.swapped:
                    arriving[first : first + 2] = reversed(arriving[first : first + 2])
            found += arriving
            self._at[partition] = upto
            if count == 1 and found:
                return found
        return found

    def seek(self, where: TopicPartition) -> None:
        self._broker.seeks += 1
        self._at[where.partition] = where.offset

    def pause(self, where: Sequence[TopicPartition]) -> None:
        self._paused |= {one.partition for one in where}

    def resume(self, where: Sequence[TopicPartition]) -> None:
        self._paused -= {one.partition for one in where}

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        assert isinstance(asynchronous, bool)
        self._broker.committed |= {one.partition: one.offset for one in offsets}

    def committed(self, where: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        told = self._broker.committed
        return [TopicPartition(one.topic, one.partition, told.get(one.partition, -1001)) for one in where]

    def get_watermark_offsets(self, where: TopicPartition, timeout: float, *, cached: bool) -> tuple[int, int]:
        assert timeout > 0
        assert isinstance(cached, bool)
        return 0, len(self._broker.logs[where.partition])

    def list_topics(self, topic: str, timeout: float) -> None:
        assert topic == self._topic
        assert timeout > 0

    def close(self) -> None:
        self._taken(self, [TopicPartition(self._topic, one) for one in self._at])
