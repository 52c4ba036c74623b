"""Messages between services: what is handed to a broker, what comes from it, and the port to both.

A message is delivered at least once. `Outgoing.message_id` is the same however often it is published, and whoever
consumes keeps its effect and the id in one transaction (or has an effect that is the same when it comes twice).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from kernel.errors import PermanentError


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message to publish."""

    routing_key: str
    """Words parted by dots, such as `settlement.ask.cash`: queues are bound by patterns of them."""
    body: bytes
    message_id: str
    trace: str = ""
    """`traceparent` of what caused it; empty: none."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it came out of a queue."""

    routing_key: str
    body: bytes
    message_id: str
    trace: str = ""
    attempt: int = 1
    """How often it was delivered, this time included, as far as the broker tells."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that nobody could use, as it lies with the dead letters of its queue."""

    delivery: Delivery
    why: str


class PoisonError(PermanentError):
    """A delivery that no repetition will make good: it goes to the dead letters, with the reason."""

    def __init__(self, delivery: Delivery, why: str) -> None:
        super().__init__(f"message {delivery.message_id} ({delivery.routing_key}): {why}")
        self.delivery = delivery
        self.why = why


Handle: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Carries out a batch, in order.

When it returns, all are acknowledged. `PoisonError` sends that one to the dead letters, what stands before it in the
batch is acknowledged and what stands behind it comes again. `TemporaryError` lets the whole batch come again, a bounded
number of times.
"""


class Publisher(Protocol):
    """Where messages are handed over."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Return when the broker has confirmed every message.

        Raises:
            TemporaryError: it has not; whether some were taken is not known, so all are to be published again.
            PermanentError: the broker refuses for good, or no queue is bound for a routing key.
        """
        ...


class Consumer(Protocol):
    """One queue, read by one or several."""

    async def run(self, handle: Handle) -> None:
        """Hand deliveries to `handle` until cancelled; a broker that is away is waited for.

        Raises:
            PermanentError: the queue is not there or not as it was declared, or the broker refuses for good.
        """
        ...
