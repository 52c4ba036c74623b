"""Handing messages to the client of Kafka in their order, some of them with headers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from exchange.order_trace import Headers


def hand_over(
    producer: Producer,
    topic: str,
    partition: int,
    messages: Iterable[tuple[dict[str, Any], Headers | None]],
    delivered: Callable[[KafkaError | None, Message], None],
) -> None:
    """Give messages (value, key) to the client. It takes no headers in a batch, so those that have some go one by one.

    Raises:
        KafkaException: the client refuses.
        BufferError: it has no room. Some may have been taken.
    """
    batch: list[dict[str, Any]] = []
    for message, headers in messages:
        if headers is None:
            batch.append(message)
            continue
        _hand_over_batch(producer, topic, partition, batch, delivered)
        batch = []
        producer.produce(topic, **message, headers=headers, partition=partition, on_delivery=delivered)
    _hand_over_batch(producer, topic, partition, batch, delivered)


def _hand_over_batch(
    producer: Producer,
    topic: str,
    partition: int,
    batch: list[dict[str, Any]],
    delivered: Callable[[KafkaError | None, Message], None],
) -> None:
    if batch and producer.produce_batch(topic, batch, partition=partition, on_delivery=delivered) < len(batch):
        raise BufferError(str(next(one["_error"] for one in batch if "_error" in one)))
