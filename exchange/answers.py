"""What a participant is told about a request: a pure reading of the events it caused.

The gateway answers with it, the account of a load compares with it; both read the same events, so they cannot differ.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from exchange.events import Accepted, Canceled, Event, Expired, Rejected, Replaced, Rested, Traded
from exchange.types import CancelReason, ClientId, RejectReason


class Status(StrEnum):
    """How a request ended."""

    ACCEPTED = "accepted"
    CANCELED = "canceled"
    REPLACED = "replaced"
    REJECTED = "rejected"


class Fill(msgspec.Struct, frozen=True):
    """One trade of the order that was sent; price in ticks, quantity in lots."""

    trade_id: int
    price: int
    quantity: int


class OrderAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an answer to an order, a cancel or a replace. Prices in ticks, quantities in lots."""

    status: Status
    seq: int
    """The request's place in the journal."""
    client_id: ClientId
    order_id: int | None = None
    filled: int = 0
    """Traded at once."""
    resting: int = 0
    """Now open in the book."""
    canceled: int = 0
    """Left without trading, by this request."""
    fills: tuple[Fill, ...] = ()
    reason: RejectReason | None = None


def answer_of(seq: int, client_id: ClientId, events: tuple[Event, ...]) -> OrderAnswer:
    """Read the events one participant's command caused as its answer.

    Raises:
        ValueError: the events are not those of a participant's command.
    """
    status: Status | None = None
    reason: RejectReason | None = None
    order_id: int | None = None
    resting = canceled = 0
    fills: list[Fill] = []
    for event in events:
        match event:
            case Rejected():
                status, reason = Status.REJECTED, event.reason
            case Accepted():
                status, order_id = Status.ACCEPTED, event.order_id
            case Replaced():
                status, order_id = Status.REPLACED, event.order_id
                resting = event.quantity if event.kept_priority else 0
            case Traded():
                fills.append(Fill(event.trade_id, event.price, event.quantity))
            case Rested():
                resting = event.quantity
            case Canceled():
                canceled += event.quantity
                if event.reason is CancelReason.REQUESTED:
                    status, order_id = Status.CANCELED, event.order_id
            case Expired() | _:
                pass
    if status is None:
        raise ValueError(f"journal number {seq} is no participant's command: nothing answers it")
    return OrderAnswer(
        status=status,
        seq=seq,
        client_id=client_id,
        order_id=order_id,
        filled=sum(fill.quantity for fill in fills),
        resting=resting,
        canceled=canceled,
        fills=tuple(fills),
        reason=reason,
    )
