"""What a participant is told about a request: a pure reading of the events it caused.

The gateway answers with it, the account of a load compares with it; both read the same events, so they cannot differ.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from exchange.commands import ParticipantCommand
from exchange.contradictions import explained
from exchange.events import Accepted, Canceled, Event, Expired, MassCanceled, Rejected, Replaced, Rested, Traded
from exchange.types import CancelReason, ClientId, Lots, OrderId, RejectReason


class Status(StrEnum):
    """How a request ended."""

    ACCEPTED = "accepted"
    CANCELED = "canceled"
    REPLACED = "replaced"
    REJECTED = "rejected"


class OrderState(StrEnum):
    """How an order stood when its request was carried out."""

    RESTING = "resting"
    """It stands in the book, and nothing of it traded by this request."""
    PARTLY_FILLED = "partly_filled"
    """Some of it traded by this request, the rest is open."""
    WAITING = "waiting"
    """It is open, and the book does not show it: a stop before its trigger, a market order before a cross, an
    all-or-none order before it can trade as a whole."""
    FILLED = "filled"
    CANCELED = "canceled"
    """Nothing of it is open; `cancel_reason` tells why the rest left, `filled` what traded before."""
    EXPIRED = "expired"
    """The market closed within the request."""


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
    state: OrderState | None = None
    """Of the order; not told of a refusal (a living order stays as it was) nor of a mass cancel."""
    cancel_reason: CancelReason | None = None
    """Why `canceled` left; of several reasons the last."""
    orders: int | None = None
    """How many orders a mass cancel cancelled."""
    members: tuple[str, ...] = ()
    """The members of the request that the refusal is about."""
    right: str = ""
    """What would be right instead."""


def answer_of(
    seq: int, client_id: ClientId, events: tuple[Event, ...], command: ParticipantCommand | None = None
) -> OrderAnswer:
    """Read the events one participant's command caused as its answer; what was due before it is not its own.

    With the command itself a refusal names the members it is about; a look-up by client id has none.

    Raises:
        ValueError: the events are not those of a participant's command.
    """
    plain = all_rests(events)
    if plain is not None:
        return resting(seq, client_id, plain.order_id, plain.quantity)
    return _read(seq, client_id, events, command)


def all_rests(events: tuple[Event, ...]) -> Accepted | None:
    """Return how the order was accepted, if nothing else happened than that all of it rests; None otherwise.

    So it is with most orders, and gateways and engines see every one: it is read at once.
    """
    if len(events) == _PLAIN:
        first, second = events
        if type(first) is Accepted and type(second) is Rested and first.order_id == second.order_id:
            return first
    return None


def resting(seq: int, client_id: ClientId, order_id: OrderId, quantity: Lots) -> OrderAnswer:
    """Return the answer to an order that rests as a whole."""
    return OrderAnswer(_ACCEPTED, seq, client_id, order_id, 0, quantity, 0, (), None, _RESTING)


_PLAIN: Final = 2
_ACCEPTED: Final = Status.ACCEPTED
_RESTING: Final = OrderState.RESTING
"""Looked up once: a member of an enumeration costs a search in its class."""


def _read(
    seq: int, client_id: ClientId, events: tuple[Event, ...], command: ParticipantCommand | None = None
) -> OrderAnswer:
    reading = _Reading()
    for event in events:
        reading.take(event)
    if reading.status is None:
        raise ValueError(f"journal number {seq} is no participant's command: nothing answers it")
    about = None if reading.reason is None or command is None else explained(command, reading.reason)
    return OrderAnswer(
        status=reading.status,
        seq=seq,
        client_id=client_id,
        order_id=reading.order_id,
        filled=sum(fill.quantity for fill in reading.fills),
        resting=reading.left,
        canceled=reading.canceled,
        fills=tuple(reading.fills),
        reason=reading.reason,
        state=reading.state(),
        cancel_reason=reading.cancel_reason,
        orders=reading.orders,
        members=() if about is None else about.members,
        right="" if about is None else about.right,
    )


class _Reading:
    """What the events so far say of the request."""

    __slots__ = ("cancel_reason", "canceled", "expired", "fills", "left", "order_id", "orders", "reason", "shown",
                 "status")  # fmt: skip

    def __init__(self) -> None:
        self.status: Status | None = None
        self.reason: RejectReason | None = None
        self.order_id: int | None = None
        self.left = self.canceled = 0
        self.fills: list[Fill] = []
        self.shown = self.expired = False
        self.cancel_reason: CancelReason | None = None
        self.orders: int | None = None

    def take(self, event: Event) -> None:
        match event:
            case Rejected():
                self.status, self.reason = Status.REJECTED, event.reason
            case Accepted():
                self.status, self.order_id, self.left = Status.ACCEPTED, event.order_id, event.quantity
            case Replaced():
                self.status, self.order_id, self.left = Status.REPLACED, event.order_id, event.quantity
                self.shown = event.kept_priority and event.hidden < event.quantity
            case Rested() if event.order_id == self.order_id:
                self.shown = True
            case Traded() if self.order_id is not None and self.order_id in {
                event.taker_order_id,
                event.maker_order_id,
            }:
                self.fills.append(Fill(event.trade_id, event.price, event.quantity))
                self.left -= event.quantity
            case Canceled() if event.reason is CancelReason.REQUESTED:
                self.status, self.order_id, self.canceled = Status.CANCELED, event.order_id, event.quantity
                self.cancel_reason = event.reason
            case Canceled() if event.reason is CancelReason.MASS_CANCEL or event.order_id == self.order_id:
                self.canceled += event.quantity
                self.left -= event.quantity
                self.cancel_reason = event.reason
            case Expired() if event.order_id == self.order_id:
                self.canceled += event.quantity
                self.left -= event.quantity
                self.expired = True
            case MassCanceled():
                self.status, self.order_id, self.left = Status.CANCELED, None, 0
                self.orders = event.count
            case _:
                pass

    def state(self) -> OrderState | None:
        if self.order_id is None or self.status is Status.REJECTED:
            return None
        if self.left > 0:
            if not self.shown:
                return OrderState.WAITING
            return OrderState.PARTLY_FILLED if self.fills else OrderState.RESTING
        if self.expired:
            return OrderState.EXPIRED
        return OrderState.CANCELED if self.canceled and self.cancel_reason is not None else OrderState.FILLED
