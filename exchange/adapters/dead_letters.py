"""Messages that cannot be read, put aside in a topic of their own with the reason and the place they came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from exchange.adapters.kafka_topics import KafkaPlace
from exchange.consuming import Poison
from kernel.errors import TemporaryError

WITHIN_S: Final = 10.0


class DeadLetters:
    """Where they are put. Calls block, and may come from one thread at a time.

    A letter is written anew each time its message is read again: its headers `topic`, `partition` and `offset` tell
    which it is.
    """

    def __init__(self, place: KafkaPlace, group: str, *, client: Callable[[dict[str, Any]], Any] = Producer) -> None:
        self._place: Final = place
        self._group: Final = group
        # No transaction: it would be one for each letter, and nobody but a person reads them.
        settings = {"acks": "all", "enable.idempotence": True, "delivery.timeout.ms": round(WITHIN_S * 1_000)}
        self._producer: Final = client(place.client(settings))

    def put(self, partition: int, poison: Poison) -> None:
        """Write a message as it came; returns when the brokers have it.

        Raises:
            TemporaryError: they did not take it.
        """
        failed: list[str] = []

        def told(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error.str())

        headers = {
            "reason": poison.reason.value, "why": poison.why, "topic": self._place.events, "partition": str(partition),
            "offset": str(poison.offset), "group": self._group,
        }  # fmt: skip
        try:
            self._producer.produce(
                self._place.dead, poison.value, poison.key, partition,
                headers=[(name, text.encode()) for name, text in headers.items()], on_delivery=told,
            )  # fmt: skip
            left = self._producer.flush(WITHIN_S + 1.0)
        except (KafkaException, BufferError) as error:
            raise TemporaryError(f"{self._place.dead}: a dead letter cannot be written: {error}") from error
        if left or failed:
            self._producer.purge()
            raise TemporaryError(f"{self._place.dead}: a dead letter was not taken: {'; '.join(failed) or 'no answer'}")
