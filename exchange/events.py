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
    Money,
    OrderId,
    RejectReason,
    Side,
    Symbol,
    Ticks,
    TradeId,
    TradingPhase,
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
    """None for an order without a limit price."""


class Rested(msgspec.Struct, frozen=True, gc=False, tag="rested"):
    """What was left after matching entered the book, behind all others at its price: `quantity` is what it shows.

    Not told of what the book does not show: all-or-none orders, stops, market orders that wait for a cross.
    """

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
    """What the maker still shows in the book; 0 means it left, or shows a new part, as told next.

    A market order in a cross shows nothing.
    """
    buyer_fee: Money = Money(0)
    """Negative: a rebate."""
    seller_fee: Money = Money(0)
    hidden: Lots = Lots(0)
    """How much of `quantity` the book did not show: all of it when the maker was all-or-none."""
    whole: bool = False
    """The taker was all-or-none: it may have passed over orders of its own account."""


class Canceled(msgspec.Struct, frozen=True, gc=False, tag="canceled"):
    """The rest of an order left without trading. `resting` tells whether the book showed it before."""

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
    left: Lots = Lots(0)
    """What is still to trade of it; more than 0 only where self-trade prevention took a part."""
    hidden: Lots = Lots(0)
    """How much of `quantity` the book did not show."""


class Replaced(msgspec.Struct, frozen=True, gc=False, tag="replaced"):
    """A live order changed. When `kept_priority` is False it left the book and was matched anew, as told next."""

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
    old_hidden: Lots = Lots(0)
    """How much of `old_quantity` the book did not show."""
    hidden: Lots = Lots(0)
    """How much of `quantity` it does not show now, where the order kept its place."""


class Expired(msgspec.Struct, frozen=True, gc=False, tag="expired"):
    """An order's time was over: of a day order with the session, of a good-till-time order at its instant."""

    order_id: OrderId
    account: AccountId
    symbol: Symbol
    symbol_seq: int
    side: Side
    price: Ticks
    """Of an order without a limit its trigger; 0 for a market order."""
    quantity: Lots
    hidden: Lots = Lots(0)
    """How much of `quantity` the book did not show."""


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


class Replenished(msgspec.Struct, frozen=True, gc=False, tag="replenished"):
    """The shown part of an iceberg was used up; a new one stands behind all others at its price.

    After a cross it stands where the old one stood.
    """

    order_id: OrderId
    symbol: Symbol
    symbol_seq: int
    side: Side
    price: Ticks
    quantity: Lots
    """What it shows now."""


class Triggered(msgspec.Struct, frozen=True, gc=False, tag="triggered"):
    """A stop's trigger was reached; its trades follow."""

    order_id: OrderId
    symbol: Symbol
    symbol_seq: int


class Crossed(msgspec.Struct, frozen=True, gc=False, tag="crossed"):
    """An auction found its price; its trades follow."""

    symbol: Symbol
    symbol_seq: int
    price: Ticks
    quantity: Lots
    surplus: int
    """What is left at the price; positive: more to buy."""
    bids: tuple[tuple[Ticks, Lots], ...] = ()
    """Each bid price of which something traded, best first, and what it shows after the trades (0: nothing)."""
    asks: tuple[tuple[Ticks, Lots], ...] = ()


class PhaseChanged(msgspec.Struct, frozen=True, gc=False, tag="phase_changed"):
    """The market, or one symbol, is in another phase."""

    symbol: Symbol | None
    symbol_seq: int
    phase: TradingPhase


class LimitState(msgspec.Struct, frozen=True, gc=False, tag="limit_state"):
    """The best price stands at the end of the moving band (`entered`), or no longer does."""

    symbol: Symbol
    symbol_seq: int
    entered: bool
    lower: Ticks
    upper: Ticks


class Paused(msgspec.Struct, frozen=True, gc=False, tag="paused"):
    """A symbol, or the whole market when it is None, gathers orders until a reopening cross."""

    symbol: Symbol | None
    symbol_seq: int
    until: Instant


class Breaker(msgspec.Struct, frozen=True, gc=False, tag="breaker"):
    """The market as a whole fell by the share of a level."""

    level: int
    """1, 2 or 3."""


class MassCanceled(msgspec.Struct, frozen=True, gc=False, tag="mass_canceled"):
    """All that a mass cancel or a kill switch cancelled has been told."""

    account: AccountId
    client_id: ClientId
    count: int


class Funded(msgspec.Struct, frozen=True, gc=False, tag="funded"):
    """An account was given an asset, or it was taken."""

    account: AccountId
    asset: str
    amount: int


class AccountDisabled(msgspec.Struct, frozen=True, gc=False, tag="account_disabled"):
    """The kill switch of an account was thrown; its cancels come before."""

    account: AccountId


class AccountEnabled(msgspec.Struct, frozen=True, gc=False, tag="account_enabled"):
    """An account may send orders again."""

    account: AccountId


class Ticked(msgspec.Struct, frozen=True, gc=False, tag="ticked"):
    """Time went on; what was due came before."""


class SessionClosed(msgspec.Struct, frozen=True, gc=False, tag="session_closed"):
    """The day ended."""


class SessionOpened(msgspec.Struct, frozen=True, gc=False, tag="session_opened", omit_defaults=True):
    """A day began."""

    phase: TradingPhase = TradingPhase.CONTINUOUS


Event = (
    Accepted
    | Rested
    | Rejected
    | Traded
    | Canceled
    | Replaced
    | Expired
    | Replenished
    | Triggered
    | Crossed
    | PhaseChanged
    | LimitState
    | Paused
    | Breaker
    | MassCanceled
    | Funded
    | AccountDisabled
    | AccountEnabled
    | Ticked
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
