"""What is traded, beside the journal in Kafka: whoever takes over from an engine needs the listing that it had.

An engine puts it there before it opens its journal, and again only when it differs from the last one.
"""

from __future__ import annotations

import time
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.kafka_topics import prepare_listing
from kernel.errors import TemporaryError

WITHIN_S: Final = 10.0
_MOST_BYTES: Final = 100_000_000
_READER: Final[dict[str, Any]] = {
    "group.id": "none",  # the library wants one; nothing is committed
    "enable.auto.commit": False, "enable.auto.offset.store": False, "auto.offset.reset": "error",
}  # fmt: skip


def publish(place: KafkaPlace, listing: bytes) -> bool:
    """Say durably what is traded, as the bytes of a listing's file; False when that was the last word already.

    Raises:
        TemporaryError: the brokers do not take it.
        PermanentError: the topic is not safe.
    """
    prepare_listing(place)
    if last(place) == listing:
        return False
    failed: list[KafkaError] = []
    producer = Producer(place.client({
        "acks": "all", "enable.idempotence": True, "compression.type": "gzip", "message.max.bytes": _MOST_BYTES,
    }))  # fmt: skip
    producer.produce(
        place.listing, listing, partition=0, on_delivery=lambda error, _: failed.append(error) if error else None
    )
    if producer.flush(WITHIN_S) or failed:
        raise TemporaryError(f"{place.listing}: not written ({failed[0].str() if failed else 'no broker answers'})")
    return True


def last(place: KafkaPlace, within_s: float = WITHIN_S) -> bytes | None:
    """Return what is traded by the last word in Kafka; None while nobody said it.

    Raises:
        TemporaryError: the brokers do not answer.
    """
    consumer, until_s = Consumer(place.client(_READER)), time.monotonic() + within_s
    where = TopicPartition(place.listing, 0)
    try:
        _, high = consumer.get_watermark_offsets(where, timeout=within_s, cached=False)
        if high <= 0:
            return None
        consumer.assign([TopicPartition(where.topic, where.partition, high - 1)])
        while time.monotonic() < until_s:
            for message in consumer.consume(1, timeout=0.1):
                if message.error() is not None:
                    raise KafkaException(message.error())  # noqa: TRY301 - one place tells of both
                return bytes(message.value() or b"")
    except KafkaException as error:
        told = error.args[0]
        if told.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001 - the library's public names
            return None
        raise TemporaryError(f"{place.listing}: cannot be read ({told.str()})") from error
    finally:
        consumer.close()
    raise TemporaryError(f"{place.listing}: nothing came within {within_s:g} s")
