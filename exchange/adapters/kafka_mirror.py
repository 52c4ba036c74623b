"""A journal followed from another region: what is durable there becomes durable here, under the same numbers.

The journal alone is the truth (`exchange/adapters/recovery.py`), so it alone is carried over: books, events and ledger
follow from it when an engine starts on the copy. The copy is written through a `KafkaLog`, so the engine that takes
over fences the mirror by opening it: no record of the old region can come in behind its first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Sent

from exchange.adapters.file_log import FencedError, LogFailedError
from exchange.adapters.kafka_listing import last
from exchange.adapters.kafka_log import KafkaLog, TopicCorruptError
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_topics import prepare
from exchange.journal import Kind, Record
from exchange.messages import MessageError, unseal
from exchange.ports import Log
from kernel.errors import PermanentError, TemporaryError

TOGETHER: Final = 2_000
"""Records that are made durable at once."""
_POLL_S: Final = 0.05
_LOOK_S: Final = 0.5
_ASK_S: Final = 2.0
_AGAIN_S: Final = 0.5
_LISTING_S: Final = 5.0


class MirrorTelemetry(Protocol):
    """What a mirror tells. Called from its own thread."""

    def mirrored(self, seq: int, records: int) -> None:
        """Everything up to `seq` is durable here, `records` of it since the last call."""
        ...

    def looked(self, *, connected: bool, lag: int | None, behind_s: float | None) -> None:
        """The source answers or not; `lag` records there are not here yet, None while that cannot be known.

        `behind_s`: for how long at most one of these has waited, in seconds; None while that cannot be known.
        """
        ...


class SourceAwayError(TemporaryError):
    """The other region's brokers do not answer; not said of the brokers here."""


class Mirror:
    """One partition's copy. `run` blocks; it is for a thread of its own."""

    def __init__(
        self,
        source: KafkaPlace,
        target: KafkaPlace,
        telemetry: MirrorTelemetry,
        log: Log,
        records_per_s: Callable[[], float] = lambda: 0.0,
        listing: Callable[[bytes], bool] | None = None,
    ) -> None:
        """Copy `source` into `target`, at most `records_per_s` (asked each time; 0: as fast as it goes).

        `listing` is given what is traded there until it has kept it, and whenever that is another one.
        """
        self._listing: Final = listing
        self._listed = b""
        self._listed_s = -_LISTING_S
        self._records_per_s: Final = records_per_s
        self._source: Final = source
        self._target: Final = target
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._connected: bool | None = None
        self._sent_at_s: float | None = None  # when the last record that is here was sent there
        self._level_at_s: float | None = None  # by the steady clock: when nothing was missing last
        self._end = -1  # the offset up to which there is nothing to read, markers of transactions included

    def run(self, stopped: threading.Event) -> None:
        """Copy until told to stop; a source or brokers that are away are waited for.

        Raises:
            PermanentError: a record of the source is damaged or missing, the copy is not one of the source, or another
                process writes to the copy.
        """
        while not stopped.is_set():
            try:
                prepare(self._target)
                with KafkaLog(self._target) as copy:
                    self._copy(copy, stopped)
            except FencedError:
                raise
            except SourceAwayError as error:
                self._look(connected=False, lag=None, why=str(error))
                stopped.wait(_AGAIN_S)
            except (TemporaryError, LogFailedError) as error:
                # What the brokers here did not take is read again from where the copy then ends. Who answers for the
                # other region is that region alone: a person who reads that it is gone takes over from it.
                self._log.event("mirror-copy-waits", severity="warning", why=str(error))
                self.look_over()
                stopped.wait(_AGAIN_S)

    def watch(self, stopped: threading.Event) -> None:
        """Tell whether the source answers until told to stop, and copy nothing: for a copy that cannot go on."""
        while not stopped.wait(_LOOK_S):
            self.look_over()

    def look_over(self) -> None:
        """Tell whether the source answers, without knowing how much of it is not here."""
        consumer = Consumer(self._source.client(_READER))
        try:
            where = TopicPartition(self._source.commands, self._source.partition)
            consumer.get_watermark_offsets(where, timeout=_ASK_S, cached=False)
        except KafkaException as error:
            self._look(connected=False, lag=None, why=error.args[0].str())
        else:
            self._look(connected=True, lag=None)
        finally:
            consumer.close()

    def _copy(self, copy: KafkaLog, stopped: threading.Event) -> None:
        self._telemetry.mirrored(copy.last_seq, 0)
        for records in self._follow(copy.last_seq + 1, stopped):
            copy.append([record.payload for record in records])
            self._telemetry.mirrored(copy.sync(), len(records))

    def _follow(self, from_seq: int, stopped: threading.Event) -> Iterator[list[Record]]:
        """Yield what is durable in the source from a record on, for ever."""
        where = TopicPartition(self._source.commands, self._source.partition)
        consumer = Consumer(self._source.client(_READER))
        try:
            start = self._start(consumer, where, from_seq)
            self._sent_at_s, self._level_at_s, self._end = None, None, -1
            consumer.assign([TopicPartition(where.topic, where.partition, start)])
            expected, looked = from_seq, 0.0
            while not stopped.is_set():
                rate = self._records_per_s()
                together = max(1, round(rate * _LOOK_S)) if rate else TOGETHER
                records = list(self._records(consumer.consume(together, timeout=_POLL_S), expected))
                if records:
                    expected = records[-1].seq + 1
                    yield records
                    if rate:
                        stopped.wait(len(records) / rate)
                if time.monotonic() - looked > _LOOK_S:
                    looked = time.monotonic()
                    self._measure(consumer, where)
        except KafkaException as error:
            raise SourceAwayError(f"the source {self._source.bootstrap}: {error.args[0].str()}") from error
        finally:
            consumer.close()

    def _start(self, consumer: Consumer, where: TopicPartition, from_seq: int) -> int:
        """Return an offset of the source at or before a record.

        Each record takes one offset and each end of a transaction one more, so that a record never stands before the
        offset that its number tells.

        Raises:
            PermanentError: the source begins after that record, or ends before it: this is no copy of it. Or it has
                other partitions than the one that is copied.
        """
        parts = len(consumer.list_topics(where.topic, timeout=_ASK_S).topics[where.topic].partitions)
        if parts > 1:
            raise PermanentError(
                f"{where.topic} has {parts} partitions, one for each engine there, of which one would be copied: a "
                "region of several engines cannot be followed"
            )
        low, high = consumer.get_watermark_offsets(where, timeout=_ASK_S, cached=False)
        consumer.assign([TopicPartition(where.topic, where.partition, low)])
        until = time.monotonic() + _ASK_S
        first: int | None = None
        while low < high and first is None and time.monotonic() < until:
            first = next((one.seq for one in self._records(consumer.consume(1, timeout=_POLL_S), None)), None)
        if first is None:
            if low < high:
                raise SourceAwayError(f"the source {self._source.bootstrap} sends nothing")
            if from_seq > 1:
                raise PermanentError(f"{where.topic} is empty, and {from_seq - 1} records are here: another journal")
            return low
        if from_seq < first:
            raise PermanentError(f"{where.topic} begins with record {first}; record {from_seq} is not there")
        return low + from_seq - first

    def _records(self, messages: Sequence[Sent], expected: int | None) -> Iterator[Record]:
        """Yield the records of messages, from `expected` on without a gap; any, when that is None."""
        for message in messages:
            error, offset = message.error(), message.offset()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's public name
                    self._end = max(self._end, offset if offset is not None else -1)
                    continue
                raise KafkaException(error)
            assert offset is not None, "a message that was received has its place"
            place = (self._source.commands, self._source.partition, offset)
            try:
                _, _, seq, payload = unseal(message.value(), Kind.COMMANDS)
            except MessageError as wrong:
                raise TopicCorruptError(*place, wrong.what) from wrong
            if expected is not None:
                if seq > expected:
                    raise TopicCorruptError(*place, f"record {seq} stands where {expected} should")
                if seq < expected:
                    continue
                expected += 1
            self._sent_at_s = message.timestamp()[1] / 1_000
            yield Record(seq, payload, offset + 1)

    def _measure(self, consumer: Consumer, where: TopicPartition) -> None:
        try:
            _, high = consumer.get_watermark_offsets(where, timeout=_ASK_S, cached=False)
        except KafkaException as error:
            self._look(connected=False, lag=None, why=error.args[0].str())
            return
        position = max(consumer.position([where])[0].offset, self._end)
        lag = max(0, high - position) if position >= 0 else None
        self._bring_listing()
        self._look(connected=True, lag=lag, behind_s=self._behind_s(lag))

    def _bring_listing(self) -> None:
        """Look from time to time what is traded there, and hand it over when it is another one than before."""
        now_s = time.monotonic()
        if self._listing is None or now_s - self._listed_s < _LISTING_S:
            return
        self._listed_s = now_s
        try:
            there = last(self._source, _ASK_S)
        except TemporaryError as error:
            self._log.event("mirror-listing-waits", severity="warning", why=str(error))
            return
        if there is not None and there != self._listed and self._listing(there):
            self._listed = there

    def _behind_s(self, lag: int | None) -> float | None:
        """Return for how long at most a record has waited; None while that cannot be known.

        It is younger than the last record here, by the other region's clock, and than the last look at which none was
        missing.
        """
        now_s = time.monotonic()
        if lag == 0:
            self._level_at_s = now_s
        bounds = []
        if self._level_at_s is not None:
            bounds.append(now_s - self._level_at_s)
        if self._sent_at_s is not None:
            bounds.append(max(0.0, time.time() - self._sent_at_s))
        return min(bounds) if lag is not None and bounds else None

    def _look(self, *, connected: bool, lag: int | None, behind_s: float | None = None, why: str = "") -> None:
        if connected != self._connected:
            self._connected = connected
            name = "mirror-source-connected" if connected else "mirror-source-lost"
            self._log.event(name, severity="info" if connected else "warning", why=why)
        self._telemetry.looked(connected=connected, lag=lag, behind_s=behind_s)


_READER: Final[dict[str, Any]] = {
    "group.id": "none",  # the library wants one; nothing is committed
    "enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "error",
    "isolation.level": "read_uncommitted", "check.crcs": True, "fetch.wait.max.ms": 20, "enable.partition.eof": True,
}  # fmt: skip
