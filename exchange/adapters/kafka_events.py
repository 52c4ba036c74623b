"""An engine's events in a Kafka partition: `EventTopic` with a client of its own.

They go without transactions: they are derived, equal for every engine that replays the journal, and a reader that takes
committed records only must see them at once. So two engines may both publish, and what comes twice has the same number
and the same bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Sent

from exchange.adapters.kafka_log import reader, values
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_produce import hand_over
from exchange.adapters.kafka_topics import TIMEOUT_S
from exchange.journal import Kind
from exchange.messages import MessageError, seal, unseal
from exchange.order_trace import event_headers
from kernel.errors import TemporaryError

_STEP_S: Final = 0.1
_BACK: Final = 64


class KafkaEvents:
    """The events of one partition."""

    def __init__(self, place: KafkaPlace, *, traced: float = 0.0) -> None:
        """Connect to nothing yet; `traced` is the share of the orders whose messages have a `traceparent`."""
        self._place: Final = place
        self._traced: Final = traced
        self._producer: Producer | None = None
        self._undelivered: str | None = None
        self._closing: Final = threading.Event()

    def begin(self) -> int:
        """See `EventTopic`."""
        self._drop()
        self._undelivered = None
        # Raises nothing: the client connects when it is used.
        self._producer = Producer(
            self._place.client({
                "acks": "all", "enable.idempotence": True, "linger.ms": 0, "batch.num.messages": 10_000,
                "delivery.timeout.ms": round(self._place.delivery_s * 1_000),
                "queue.buffering.max.messages": 200_000, "queue.buffering.max.kbytes": 1_048_576,
                "delivery.report.only.error": True,
            })
        )  # fmt: skip
        return last_event(self._place)

    def publish(self, first_seq: int, payloads: Sequence[bytes]) -> None:
        """See `EventTopic`."""
        producer = self._producer
        assert producer is not None, "publish before begin"
        try:
            hand_over(
                producer, self._place.events, self._place.partition,
                ((self._message(seq, payload), event_headers(seq, payload, self._traced))
                 for seq, payload in enumerate(payloads, first_seq)),
                self._delivered,
            )  # fmt: skip
            # A second more than a record has: the client tells what became of it by itself.
            until = time.monotonic() + self._place.delivery_s + 1.0
            while left := producer.flush(_STEP_S):
                if self._undelivered is not None or self._closing.is_set() or time.monotonic() > until:
                    raise self._failed(self._undelivered or f"{left} records have no answer")
        except (KafkaException, BufferError, SystemError) as error:
            # The library raises a fatal error while it calls back, so that the call back is what seems to fail.
            raise self._failed(str(error.__cause__ or error)) from error
        if self._undelivered is not None:
            raise self._failed(self._undelivered)

    def close(self) -> None:
        """See `EventTopic`."""
        self._closing.set()
        self._drop()

    @staticmethod
    def _message(seq: int, payload: bytes) -> dict[str, Any]:
        """Return what is sent of one command: its events, keyed by its number."""
        return {"value": seal(Kind.EVENTS, seq, payload), "key": str(seq).encode()}

    def _delivered(self, error: KafkaError | None, _: Sent) -> None:
        if error is not None:
            self._undelivered = self._undelivered or error.str()

    def _failed(self, why: str) -> TemporaryError:
        return TemporaryError(f"{self._place.events}, partition {self._place.partition}: not published: {why}")

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # The library's own close would wait for brokers that may be gone; what is left is published anew.
            with suppress(KafkaException):
                producer.purge()


def last_event(place: KafkaPlace) -> int:
    """Return the number of the last command whose events are in the topic; 0 for none.

    What is no message of ours is passed over: readers set it aside, and it must not hold up those behind it.

    Raises:
        TemporaryError: the brokers do not answer.
    """
    consumer = reader(place)
    where = TopicPartition(place.events, place.partition)
    try:
        low, high = consumer.get_watermark_offsets(where, timeout=TIMEOUT_S, cached=False)
        back = _BACK
        while True:
            start = max(low, high - back)
            last = 0
            for _, value in values(consumer, TopicPartition(place.events, place.partition, start), high):
                with suppress(MessageError):
                    last = max(last, unseal(value, Kind.EVENTS).seq)
            if last or start == low:
                return last
            back *= _BACK
    except KafkaException as error:
        raise TemporaryError(f"{place.events}: cannot be read: {error.args[0].str()}") from error
    finally:
        consumer.close()
