"""A journal in one Kafka partition: appended in groups, durable when enough copies have it, read again in order.

One producer with a transactional id of its partition writes it. Its transaction is a fence, not a batch: opening the
log anew ends the one before and marks the partition, and from then on the brokers refuse whatever the old producer
still sends. A record counts when the brokers said that `needed` copies have it, not when its transaction ends: readers
therefore read uncommitted records too, which the brokers show only once they are durable. A transaction for every group
would say the same ten times slower (`docs/decisions/0026`).

The client repeats what was not answered by itself, and the brokers drop what they have already (idempotence); beyond
that nothing is sent again. After a failure the log takes nothing more, as one in files.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka import Message as Sent

from exchange.adapters.file_log import FencedError, LogFailedError
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_produce import hand_over
from exchange.adapters.kafka_topics import TIMEOUT_S
from exchange.journal import Kind, Record, in_batches
from exchange.messages import MessageError, seal, unseal
from exchange.order_trace import command_headers
from exchange.shards import key_of
from kernel.errors import PermanentError, TemporaryError

HELD_S: Final = 10.0
"""How long a transaction stays open at most: its end costs 30 ms, and nobody waits for it."""
OPEN_WITHIN_S: Final = 15.0
"""Brokers that have just come back take a few seconds; an engine asks again and again, and says meanwhile why it waits.
"""
_EXPIRY_S: Final = 60.0
"""When the brokers end a transaction whose producer is gone. Longer than it is held."""
_MAX_QUEUED: Final = 200_000
_READ_TOGETHER: Final = 10_000
_BACK: Final = 64
_IDLE_READ_S: Final = 20.0
_ASK_S: Final = 5.0
_STEP_S: Final = 0.2


class TopicCorruptError(PermanentError):
    """A message that was not written like this; names its place. Only a person may decide what to do."""

    def __init__(self, topic: str, partition: int, offset: int, what: str) -> None:
        super().__init__(f"{topic}, partition {partition}, offset {offset}: {what}; nothing was changed")
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.what = what


class KafkaLog:
    """One writer's journal of consecutive records in a partition. Whoever opens it last has it."""

    def __init__(self, place: KafkaPlace, *, held_s: float = HELD_S, traced: float = 0.0) -> None:
        """Open the log, and fence off whoever had it. `traced`: the share of orders with a `traceparent` in a header.

        Raises:
            TemporaryError: the brokers do not answer, or cannot hold a transaction now.
            TopicCorruptError: the last message is not one of a journal.
        """
        self.place: Final = place
        self._held_s: Final = held_s
        self._traced: Final = traced
        self._failure: str | None = None
        self._fenced = False
        self._undelivered: str | None = None
        # Held while a transaction begins or ends, or records are handed over: none may fall between two of them.
        self._transaction: Final = threading.Lock()
        self._began_at: float | None = None
        self._closing: Final = threading.Event()
        self._producer: Final = Producer(self._settings())
        try:
            self._producer.init_transactions(OPEN_WITHIN_S)
            self._first_seq, self._next_seq = _bounds(place)
        except KafkaException as error:
            raise TemporaryError(f"{self.name}: cannot be opened: {error.args[0].str()}") from error
        self._synced_seq = self._next_seq - 1
        self._keeper: Final = threading.Thread(target=self._keep, name="kafka-fence", daemon=True)
        self._keeper.start()

    def _settings(self) -> dict[str, Any]:
        delivery_ms = round(self.place.delivery_s * 1_000)
        return self.place.client({
            "transactional.id": f"{self.place.commands}-{self.place.partition}",
            "transaction.timeout.ms": max(round(_EXPIRY_S * 1_000), 2 * delivery_ms),
            "acks": "all", "enable.idempotence": True,
            "delivery.timeout.ms": delivery_ms,
            "linger.ms": 0,  # the sequencer has gathered them
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": _MAX_QUEUED, "queue.buffering.max.kbytes": 1_048_576,
            "delivery.report.only.error": True,
        })  # fmt: skip

    # --- writing ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return f"{self.place.commands}, partition {self.place.partition}"

    @property
    def first_seq(self) -> int:
        """The oldest record that is still here, or the first there will be."""
        return self._first_seq

    @property
    def last_seq(self) -> int:
        """The last record appended, durable or not; one less than the first when there is none."""
        return self._next_seq - 1

    @property
    def synced_seq(self) -> int:
        """The last record known to be durable."""
        return self._synced_seq

    @property
    def failed(self) -> bool:
        """Whether the log takes nothing more."""
        return self._failure is not None

    def append(self, payloads: Sequence[bytes]) -> int:
        """Hand records to the client without waiting for the brokers; return the sequence number of the last.

        Raises:
            FencedError: another engine has the partition.
            LogFailedError: a record could not be handed over, now or before.
        """
        self._check()
        for start in range(0, len(payloads), _READ_TOGETHER):
            self._hand_over(payloads[start : start + _READ_TOGETHER])
        return self.last_seq

    def sync(self) -> int:
        """Wait until the brokers have everything appended before this call; return the last such sequence number.

        Raises:
            FencedError: another engine has the partition.
            LogFailedError: the brokers did not take a record in time; whether it is there is not known.
        """
        self._check()
        upto = self.last_seq
        # The client gives up by itself when a record's time is over; a second more is for its telling us.
        left = self._flush(self.place.delivery_s + 1.0)
        if self._undelivered is not None or left or self._fenced:
            self._ask_whether_fenced()
            raise self._failed(self._undelivered or f"{left} records have no answer")
        self._synced_seq = max(self._synced_seq, upto)
        return upto

    def close(self) -> None:
        """End the transaction, if the brokers answer soon, and give the client back. Does not sync."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._keeper.join()
        with self._transaction:
            if self._began_at is not None and self._failure is None:
                # It ends by itself otherwise, or by whoever opens the log next; its records count all the same.
                with contextlib.suppress(KafkaException):
                    self._producer.commit_transaction(2.0)
            self._failure = self._failure or "it was closed"
        # The library's own close would wait for brokers that may be gone; what is left goes with the object.
        self._producer.purge()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading ---------------------------------------------------------------------------------------------------

    def replay(self, from_seq: int = 1) -> Iterator[Record]:
        """Yield the records from `from_seq` on that were durable when it was called; see `read_journal`."""
        return read_journal(self.place, from_seq)

    def payloads(self, from_seq: int = 1) -> Iterator[list[bytes]]:
        """Yield what these records hold, many at a time."""
        return in_batches(self.replay(from_seq))

    # --- within ----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failure is not None:
            raise (FencedError if self._fenced else LogFailedError)(
                f"{self.name}: the log takes nothing more: {self._failure}"
            )

    def _failed(self, why: str) -> LogFailedError:
        if self._fenced:
            self._failure = "another engine has opened this partition"
            return FencedError(f"{self.name}: {self._failure}; the log takes nothing more")
        self._failure = f"the brokers did not take the records: {why}"
        return LogFailedError(f"{self.name}: {self._failure}; the log takes nothing more")

    def _flush(self, within_s: float) -> int:
        """Wait for the brokers' answers; return how many records have none."""
        until = time.monotonic() + within_s
        try:
            # In steps: the library tells of a fatal error when a wait is over, however long that is.
            left = self._producer.flush(min(_STEP_S, within_s))
            while left and self._undelivered is None and time.monotonic() < until:
                left = self._producer.flush(_STEP_S)
            return left
        except (KafkaException, SystemError) as error:
            # The library raises a fatal error while it calls back, so that the call back is what seems to fail.
            fatal = error if isinstance(error, KafkaException) else error.__cause__
            if not isinstance(fatal, KafkaException):
                raise
            self._undelivered = self._undelivered or self._reason(fatal)
            return len(self._producer)

    def _ask_whether_fenced(self) -> None:
        """Find out whether records were not taken because another engine has the partition.

        The answer to a record does not tell: the client takes it as a reason to begin anew. The transaction's end does.
        """
        if self._fenced:
            return
        with self._transaction, contextlib.suppress(KafkaException):
            try:
                self._producer.abort_transaction(_ASK_S)
            except KafkaException as error:
                self._reason(error)

    def _hand_over(self, payloads: Sequence[bytes]) -> None:
        if len(self._producer) + len(payloads) > _MAX_QUEUED:
            self.sync()
        messages = [
            ({"value": seal(Kind.COMMANDS, seq, payload), "key": key_of(payload)},
             command_headers(seq, payload, self._traced))
            for seq, payload in enumerate(payloads, self._next_seq)
        ]  # fmt: skip
        with self._transaction:
            try:
                if self._began_at is None:
                    self._producer.begin_transaction()
                    self._began_at = time.monotonic()
                hand_over(self._producer, self.place.commands, self.place.partition, messages, self._delivered)
            except (KafkaException, BufferError) as error:
                raise self._failed(self._reason(error)) from error
            self._next_seq += len(messages)

    def _reason(self, error: KafkaException | BufferError) -> str:
        told = error.args[0]
        if not isinstance(told, KafkaError):
            return str(error)
        self._told(told)
        return told.str()

    def _told(self, error: KafkaError) -> None:
        """Note what the client says of itself, on whichever thread it says so."""
        if error.code() in {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}:  # noqa: SLF001 - the library's public name
            self._fenced = True

    def _delivered(self, error: KafkaError | None, _: Sent) -> None:
        if error is not None:
            self._told(error)
            self._undelivered = self._undelivered or error.str()

    def _keep(self) -> None:
        """End a transaction before the brokers do, whether or not records come."""
        while not self._closing.wait(min(1.0, self._held_s / 2)):
            began = self._began_at
            if began is None or time.monotonic() - began < self._held_s or self._failure is not None:
                continue
            with self._transaction:
                try:
                    self._producer.commit_transaction(self.place.delivery_s)
                    self._began_at = None
                except KafkaException as error:
                    if error.args[0].retriable():
                        continue
                    # Whoever appends or syncs next is told.
                    self._undelivered = self._undelivered or self._reason(error)
                    self._failed(self._undelivered)


def read_journal(place: KafkaPlace, from_seq: int = 1) -> Iterator[Record]:
    """Yield a partition's records from `from_seq` on that are durable now. Anybody may read, nothing is changed.

    `Record.end` is the offset that follows.

    Raises:
        TopicCorruptError: a message is damaged, not ours, or its number is not the next.
        PermanentError: the journal begins after `from_seq`.
        TemporaryError: the brokers do not answer.
    """
    where = TopicPartition(place.commands, place.partition)
    consumer = reader(place)
    try:
        low, high = consumer.get_watermark_offsets(where, timeout=TIMEOUT_S, cached=False)
        first = next(_messages(consumer, place, low, high), None)
        if first is None:
            return
        if from_seq < first[1].seq:
            raise PermanentError(
                f"{where.topic}, partition {where.partition}: begins with record {first[1].seq}; record {from_seq} is "
                "not there"
            )
        # Each record takes an offset and each end of a transaction one more: it cannot stand before this place.
        following = None
        for offset, record in _messages(consumer, place, low + from_seq - first[1].seq, high):
            if following is not None and record.seq != following:
                raise TopicCorruptError(
                    place.commands, place.partition, offset, f"record {record.seq} stands where {following} should"
                )
            following = record.seq + 1
            if record.seq >= from_seq:
                yield record
    except KafkaException as error:
        raise TemporaryError(f"{place.commands}: cannot be read: {error.args[0].str()}") from error
    finally:
        consumer.close()


def reader(place: KafkaPlace) -> Consumer:
    """Return a consumer that belongs to no group, and sees what has no end of its transaction yet."""
    return Consumer(
        place.client({
            "group.id": "none",  # the library wants one; nothing is committed
            "enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "error",
            "isolation.level": "read_uncommitted", "enable.partition.eof": True, "check.crcs": True,
            "fetch.wait.max.ms": 50, "queued.max.messages.kbytes": 65_536,
        })
    )  # fmt: skip


def _messages(consumer: Consumer, place: KafkaPlace, start: int, end: int) -> Iterator[tuple[int, Record]]:
    """Yield the records that stand from offset `start` to before `end`, each with its offset."""
    for offset, value in values(consumer, TopicPartition(place.commands, place.partition, start), end):
        try:
            _, _, seq, payload = unseal(value, Kind.COMMANDS)
        except MessageError as wrong:
            raise TopicCorruptError(place.commands, place.partition, offset, wrong.what) from wrong
        yield offset, Record(seq, payload, offset + 1)


def values(consumer: Consumer, where: TopicPartition, end: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield what stands from `where` to before offset `end`, each with its offset; see `stretch`."""
    for message in stretch(consumer, where, end):
        offset, value = message.offset(), message.value()
        assert offset is not None
        yield offset, value


def stretch(consumer: Consumer, where: TopicPartition, end: int, *, patience_s: float = _IDLE_READ_S) -> Iterator[Sent]:
    """Yield the messages from `where` to before offset `end`.

    Raises:
        TemporaryError: the brokers send nothing for `patience_s` seconds.
        KafkaException: they refuse.
    """
    if where.offset >= end:
        return
    consumer.assign([where])
    heard = time.monotonic()
    while True:
        batch = consumer.consume(_READ_TOGETHER, timeout=0.2)
        if batch:
            heard = time.monotonic()
        elif time.monotonic() - heard > patience_s:
            raise TemporaryError(f"{where.topic}, partition {where.partition}: the brokers send nothing")
        for message in batch:
            error, offset = message.error(), message.offset()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's public name
                    return
                raise KafkaException(error)
            if offset is None or offset >= end:
                return
            yield message


def _bounds(place: KafkaPlace) -> tuple[int, int]:
    """Return the first record's number, and the one after the last."""
    consumer = reader(place)
    try:
        where = TopicPartition(place.commands, place.partition)
        low, high = consumer.get_watermark_offsets(where, timeout=TIMEOUT_S, cached=False)
        first = next(_messages(consumer, place, low, high), None)
        if first is None:
            return 1, 1
        back = _BACK
        while True:  # the ends of transactions take offsets too, and are not shown
            start = max(low, high - back)
            last = deque(_messages(consumer, place, start, high), maxlen=1)
            if last:
                return first[1].seq, last[0][1].seq + 1
            back *= _BACK
    finally:
        consumer.close()
