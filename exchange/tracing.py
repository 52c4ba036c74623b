"""What an exchange's processes tell of single orders, for traces.

Nothing is told inside the matching loop: each port is called once for a batch, after it became durable, published or
settled. Whoever listens picks a share of the orders; implementations must neither block nor raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from exchange.commands import ParticipantCommand, Sequenced
from exchange.events import Happened
from exchange.ports import RequestOutcome, Resting, RestingOrder
from exchange.saga import End, Step
from exchange.saga import Verdict as SagaVerdict
from kernel.time import SECOND, Instant


class Answered(msgspec.Struct, frozen=True, gc=False):
    """One order request as a gateway saw it. Thousands of the last ones are remembered."""

    seq: int
    """Its place in the journal; 0: it has none, or nobody knows it."""
    command: ParticipantCommand
    trace: str
    """The `traceparent` that travels with the order; empty when the client sent none."""
    request_id: str
    outcome: RequestOutcome
    http_status: int
    took_s: float
    answered_at: int
    """Nanoseconds since 1970, as `Instant`."""

    @property
    def received_at(self) -> Instant:
        """When the request had come."""
        return Instant(self.answered_at - round(self.took_s * SECOND))


class RestedTogether(NamedTuple):
    """New orders that rest as a whole and were answered together, as a gateway saw them: each as an `Answered`.

    Nothing is made for an order: what is here was made for its answer.
    """

    orders: Resting
    """In the journal's order."""
    request_id: str
    """Of their connection; each order's own has its correlation id behind it."""
    took_s: float
    answered_at: int
    traced: bool = True
    """Whether one of them may have a `traceparent`."""

    def each(self, order: RestingOrder) -> Answered:
        """Return what is told of one of the orders."""
        command, seq, trace, named = order
        return Answered(
            seq, command, trace, f"{self.request_id}/{named}", RequestOutcome.ACCEPTED, CREATED, self.took_s,
            self.answered_at,
        )  # fmt: skip


CREATED: Final = 201
"""The status of an order that was accepted, as HTTP says it."""


class Committed(NamedTuple):
    """One group commit of the engine. The sequences are of one length, in the journal's order."""

    batch: Sequence[Sequenced]
    happened: Sequence[Happened]
    waited_s: Sequence[float]
    """Seconds each command waited in the queue before the batch was taken."""
    apply_s: Sequence[float]
    """Seconds of matching each command."""
    sync_s: float
    durable_at: Instant
    records: Sequence[bytes]
    """The batch as the journal has it."""
    told: Sequence[bytes]
    """What happened, as the event log has it."""


class Handled(NamedTuple):
    """What a consumer of the event log did with a stretch of it."""

    happened: Sequence[Happened]
    began_at: Instant
    ended_at: Instant


class Sent(NamedTuple):
    """A stretch of the event log that was published in Kafka, as the log has it."""

    first_seq: int
    records: Sequence[bytes]
    began_at: Instant
    ended_at: Instant


class Stepped(msgspec.Struct, frozen=True, gc=False):
    """One step of one trade's settlement by a saga."""

    trade_id: int
    step: Step
    verdict: SagaVerdict
    trace: str
    """The `traceparent` of the order that took; empty when it is not known."""
    began_at: Instant
    ended_at: Instant


class Concluded(msgspec.Struct, frozen=True, gc=False):
    """The end of one trade's settlement by a saga, as whoever began it saw it."""

    trade_id: int
    end: End
    trace: str
    """The `traceparent` of the order that took; empty when it is not known."""
    began_at: Instant
    ended_at: Instant


class Tracer(Protocol):
    """Who is told."""

    def answered(self, one: Answered) -> None:
        """Hear of an order request that a gateway answered."""
        ...

    def rested(self, one: RestedTogether) -> None:
        """Hear of orders that a gateway answered together."""
        ...

    def committed(self, one: Committed) -> None:
        """Hear of a batch that the engine made durable."""
        ...

    def published(self, one: Handled) -> None:
        """Hear of what market data published."""
        ...

    def sent(self, one: Sent) -> None:
        """Hear of what was published in Kafka."""
        ...

    def received(self, one: Handled) -> None:
        """Hear of what was read from Kafka."""
        ...

    def stepped(self, some: Sequence[Stepped]) -> None:
        """Hear of steps of sagas that are durable."""
        ...

    def concluded(self, one: Concluded) -> None:
        """Hear of a saga that ended."""
        ...

    def settled(self, one: Handled) -> None:
        """Hear of what settlement posted to the ledger."""
        ...


class NoTracer:
    """Nobody listens."""

    def answered(self, one: Answered) -> None:
        """Forget it."""

    def rested(self, one: RestedTogether) -> None:
        """Forget it."""

    def committed(self, one: Committed) -> None:
        """Forget it."""

    def published(self, one: Handled) -> None:
        """Forget it."""

    def sent(self, one: Sent) -> None:
        """Forget it."""

    def received(self, one: Handled) -> None:
        """Forget it."""

    def stepped(self, some: Sequence[Stepped]) -> None:
        """Forget it."""

    def concluded(self, one: Concluded) -> None:
        """Forget it."""

    def settled(self, one: Handled) -> None:
        """Forget it."""
