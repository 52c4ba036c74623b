"""What the exchange says: a closed union of frozen values, the only source of market data, ledger and telemetry.

`symbol_seq` numbers the events of one symbol from 1 without gaps, so that whoever follows one symbol can tell a loss.

The values hold no references to each other (`gc=False`): millions of them may be kept without slowing the collector.
"""

from __future__ import annotations

import msgspec

from exchange.types import (
    AccountId,
    CancelReason,
    ClientId,
    HaltReason,
    Lots,
    OrderId,
    RejectReason,
    Side,
    Symbol,
    Ticks,
    TradeId,
)
from kernel.time import Instant


class Accepted(msgspec.Struct, frozen=True, gc=False, tag="accepted"):
    """An order passed every check. Its trades follow, then `Rested` or `Canceled` for what is left, if anything is."""

    order_id: OrderId
    account: AccountId
    client_id: ClientId
    symbol: Symbol
    symbol_seq: int
    side: Side
    quantity: Lots
    price: Ticks | None
    """None for a market order."""


class Rested(msgspec.Struct, frozen=True, gc=False, tag="rested"):
    """What was left after matching entered the book, behind all others at its price."""

    order_id: OrderId
    symbol: Symbol
    symbol_seq: int
    side: Side
    price: Ticks
    quantity: Lots


class Rejected(msgspec.Struct, frozen=True, gc=False, tag="rejected"):
    """A rule refused a command; nothing changed. No `symbol_seq`: the market never sees it."""

    account: AccountId
    client_id: ClientId
    reason: RejectReason
    symbol: Symbol | None = None


class Traded(msgspec.Struct, frozen=True, gc=False, tag="traded"):
    """One maker met one taker, at the maker's price."""

    trade_id: TradeId
    symbol: Symbol
    symbol_seq: int
    price: Ticks
    quantity: Lots
    maker_order_id: OrderId
    taker_order_id: OrderId
    taker_side: Side
    buyer: AccountId
    seller: AccountId
    maker_left: Lots
    """What the maker still shows in the book; 0 means it left."""


class Canceled(msgspec.Struct, frozen=True, gc=False, tag="canceled"):
    """The rest of an order left without trading. `resting` tells whether it stood in the book before."""

    order_id: OrderId
    account: AccountId
    client_id: ClientId
    """The id of the request that caused it."""
    symbol: Symbol
    symbol_seq: int
    side: Side
    price: Ticks | None
    quantity: Lots
    """How much left."""
    reason: CancelReason
    resting: bool


class Replaced(msgspec.Struct, frozen=True, gc=False, tag="replaced"):
    """A resting order changed. When `kept_priority` is False it left the book and was matched anew, as told next."""

    order_id: OrderId
    account: AccountId
    client_id: ClientId
    symbol: Symbol
    symbol_seq: int
    side: Side
    old_price: Ticks
    old_quantity: Lots
    price: Ticks
    quantity: Lots
    kept_priority: bool


class Expired(msgspec.Struct, frozen=True, gc=False, tag="expired"):
    """A day order left the book because the session ended."""

    order_id: OrderId
    account: AccountId
    symbol: Symbol
    symbol_seq: int
    side: Side
    price: Ticks
    quantity: Lots


class Halted(msgspec.Struct, frozen=True, gc=False, tag="halted"):
    """Trading stands still in `symbol`, or everywhere when it is None."""

    symbol: Symbol | None
    symbol_seq: int
    """0 when the whole market halted."""
    reason: HaltReason


class Resumed(msgspec.Struct, frozen=True, gc=False, tag="resumed"):
    """Trading goes on in `symbol`, or everywhere (save symbols halted on their own) when it is None."""

    symbol: Symbol | None
    symbol_seq: int


class SessionClosed(msgspec.Struct, frozen=True, gc=False, tag="session_closed"):
    """The day ended."""


class SessionOpened(msgspec.Struct, frozen=True, gc=False, tag="session_opened"):
    """A day began."""


Event = (
    Accepted
    | Rested
    | Rejected
    | Traded
    | Canceled
    | Replaced
    | Expired
    | Halted
    | Resumed
    | SessionClosed
    | SessionOpened
)


class Happened(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """All that one command caused: the unit of the event log and of every subscriber's progress."""

    seq: int
    at: Instant
    events: tuple[Event, ...]
    trace: str = ""
    """As `Sequenced.trace`."""
