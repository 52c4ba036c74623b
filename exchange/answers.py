"""What a participant is told about a request: a pure reading of the events it caused.

The gateway answers with it, the account of a load compares with it; both read the same events, so they cannot differ.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from exchange.events import Accepted, Canceled, Event, MassCanceled, Rejected, Replaced, Traded
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
    """The body of an answer to an order, a replace, a cancel or a mass cancel. Prices in ticks, quantities in lots."""

    status: Status
    seq: int
    """The request's place in the journal."""
    client_id: ClientId
    order_id: int | None = None
    filled: int = 0
    """Traded at once."""
    resting: int = 0
    """Now open: in the book, shown or not, or waiting for its trigger or a cross."""
    canceled: int = 0
    """Left without trading, by this request."""
    fills: tuple[Fill, ...] = ()
    reason: RejectReason | None = None


def answer_of(seq: int, client_id: ClientId, events: tuple[Event, ...]) -> OrderAnswer:
    """Read the events one participant's command caused as its answer; what was due before it is not its own.

    Raises:
        ValueError: the events are not those of a participant's command.
    """
    status: Status | None = None
    reason: RejectReason | None = None
    order_id: int | None = None
    left = canceled = 0
    fills: list[Fill] = []
    for event in events:
        match event:
            case Rejected():
                status, reason = Status.REJECTED, event.reason
            case Accepted():
                status, order_id, left = Status.ACCEPTED, event.order_id, event.quantity
            case Replaced():
                status, order_id, left = Status.REPLACED, event.order_id, event.quantity
            case Traded() if order_id is not None and order_id in {event.taker_order_id, event.maker_order_id}:
                fills.append(Fill(event.trade_id, event.price, event.quantity))
                left -= event.quantity
            case Canceled() if event.reason is CancelReason.REQUESTED:
                status, order_id, canceled = Status.CANCELED, event.order_id, event.quantity
            case Canceled() if event.reason is CancelReason.MASS_CANCEL or event.order_id == order_id:
                canceled += event.quantity
                left -= event.quantity
            case MassCanceled():
                status, order_id, left = Status.CANCELED, None, 0
            case _:
                pass
    if status is None:
        raise ValueError(f"journal number {seq} is no participant's command: nothing answers it")
    return OrderAnswer(
        status=status,
        seq=seq,
        client_id=client_id,
        order_id=order_id,
        filled=sum(fill.quantity for fill in fills),
        resting=left,
        canceled=canceled,
        fills=tuple(fills),
        reason=reason,
    )
