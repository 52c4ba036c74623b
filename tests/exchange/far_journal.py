"""A journal and a topic that are elsewhere, without brokers: they fence, lose their majority and come back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from exchange.adapters.file_log import FencedError, LogFailedError
from exchange.journal import Record, in_batches
from kernel.errors import TemporaryError


@dataclass
class Brokers:
    """What lies there; several engines may reach it, the one that came last writes."""

    records: list[bytes] = field(default_factory=list)
    events: list[tuple[int, bytes]] = field(default_factory=list)
    answer: bool = True
    hold_events: bool = False
    repeat: int = 0
    """So many records are published twice at the next failure: taken, and not told."""
    epoch: int = 0


class FarJournal:
    """`Journal` over brokers that are elsewhere."""

    def __init__(self, brokers: Brokers) -> None:
        if not brokers.answer:
            raise TemporaryError("no broker answers")
        brokers.epoch += 1
        self._brokers, self._epoch = brokers, brokers.epoch
        self._unsynced: list[bytes] = []
        self._failure = ""
        self.name, self.first_seq = "exchange.commands, partition 0", 1
        self.synced_seq = len(brokers.records)

    @property
    def failed(self) -> bool:
        return bool(self._failure)

    @property
    def last_seq(self) -> int:
        return self.synced_seq + len(self._unsynced)

    def append(self, payloads: Sequence[bytes]) -> int:
        self._check()
        self._unsynced += payloads
        return self.last_seq

    def sync(self) -> int:
        self._check()
        if self._brokers.epoch != self._epoch:
            self._failure = "another engine has opened this partition"
            raise FencedError(f"{self.name}: {self._failure}")
        if not self._brokers.answer:
            self._failure = "the brokers did not take the records"
            raise LogFailedError(f"{self.name}: {self._failure}")
        self._brokers.records += self._unsynced
        self.synced_seq, self._unsynced = len(self._brokers.records), []
        return self.synced_seq

    def replay(self, from_seq: int = 1) -> Iterator[Record]:
        for seq, payload in enumerate(list(self._brokers.records), 1):
            if seq >= from_seq:
                yield Record(seq, payload, seq)

    def payloads(self, from_seq: int = 1) -> Iterator[list[bytes]]:
        return in_batches(self.replay(from_seq))

    def close(self) -> None:
        self._failure = self._failure or "it was closed"

    def _check(self) -> None:
        if self._failure:
            raise LogFailedError(f"{self.name}: the log takes nothing more: {self._failure}")


class FarTopic:
    """`EventTopic` over brokers that are elsewhere."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers, self.closed = brokers, False

    def begin(self) -> int:
        if not self._brokers.answer:
            raise TemporaryError("no broker answers")
        return max((seq for seq, _ in self._brokers.events), default=0)

    def publish(self, first_seq: int, payloads: Sequence[bytes]) -> None:
        while self._brokers.hold_events and not self.closed:
            time.sleep(0.01)
        if not self._brokers.answer:
            raise TemporaryError("not published")
        numbered = list(enumerate(payloads, first_seq))
        if self._brokers.repeat:
            self._brokers.events += numbered[: self._brokers.repeat]
            self._brokers.repeat = 0
            raise TemporaryError("some have no answer")
        self._brokers.events += numbered

    def close(self) -> None:
        self.closed = True
