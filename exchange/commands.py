"""What may be asked of the exchange: a closed union of frozen values.

A new order type is a new case of `Terms`; a new request is a new case of `Command`. mypy then points at every `match`
that must know it.
"""

from __future__ import annotations

import msgspec

from exchange.types import AccountId, ClientId, HaltReason, Lots, OrderId, Side, Symbol, Ticks, TimeInForce
from kernel.time import Instant


class Limit(msgspec.Struct, frozen=True, gc=False, tag="limit"):
    """Trade at `price` or better."""

    price: Ticks


class Market(msgspec.Struct, frozen=True, gc=False, tag="market"):
    """Trade at whatever the other side asks; the rest is cancelled, never rests."""


Terms = Limit | Market


class PlaceOrder(msgspec.Struct, frozen=True, gc=False, tag="place"):
    """A new order."""

    account: AccountId
    client_id: ClientId
    symbol: Symbol
    side: Side
    quantity: Lots
    terms: Terms
    time_in_force: TimeInForce = TimeInForce.DAY


class CancelOrder(msgspec.Struct, frozen=True, gc=False, tag="cancel"):
    """Take the rest of an order off the book."""

    account: AccountId
    client_id: ClientId
    order_id: OrderId


class ReplaceOrder(msgspec.Struct, frozen=True, gc=False, tag="replace"):
    """Change an order's open quantity or price.

    A smaller quantity at the same price keeps the place in the queue; anything else loses it and may match.
    """

    account: AccountId
    client_id: ClientId
    order_id: OrderId
    quantity: Lots
    """The new open quantity (what is still to trade)."""
    price: Ticks


class Halt(msgspec.Struct, frozen=True, gc=False, tag="halt"):
    """Stop trading in one symbol, or in the whole market when `symbol` is None. Cancels still pass."""

    key: ClientId
    symbol: Symbol | None
    reason: HaltReason


class Resume(msgspec.Struct, frozen=True, gc=False, tag="resume"):
    """Let trading go on in one symbol, or lift the market-wide halt when `symbol` is None."""

    key: ClientId
    symbol: Symbol | None


class CloseSession(msgspec.Struct, frozen=True, gc=False, tag="close_session"):
    """End the day: every day order expires, new orders are refused until the session opens."""

    key: ClientId


class OpenSession(msgspec.Struct, frozen=True, gc=False, tag="open_session"):
    """Begin a day."""

    key: ClientId


Command = PlaceOrder | CancelOrder | ReplaceOrder | Halt | Resume | CloseSession | OpenSession
ParticipantCommand = PlaceOrder | CancelOrder | ReplaceOrder
AdminCommand = Halt | Resume | CloseSession | OpenSession


class Sequenced(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A command with its place and its time: what the journal keeps and the engine folds over."""

    seq: int
    at: Instant
    command: Command
    trace: str = ""
    """The client's `traceparent`, when it sent one. It travels with the order and decides nothing."""
