"""What may be asked of the exchange: a closed union of frozen values.

A new order type is a new case of `Terms`; a new request is a new case of `Command`. mypy then points at every `match`
that must know it.
"""

from __future__ import annotations

import msgspec

from exchange.types import (
    AccountId,
    ClientId,
    HaltReason,
    Lots,
    OrderId,
    SelfTrade,
    SessionId,
    Side,
    Symbol,
    Ticks,
    TimeInForce,
    TradingPhase,
)
from kernel.time import Instant


class Limit(msgspec.Struct, frozen=True, gc=False, tag="limit"):
    """Trade at `price` or better."""

    price: Ticks
    post_only: bool = False
    """Refused when it would trade at once."""
    display: Lots = Lots(0)
    """How much of it the book shows at a time; 0: all of it."""
    all_or_none: bool = False
    """Trades as a whole or waits, unseen."""


class Market(msgspec.Struct, frozen=True, gc=False, tag="market"):
    """Trade at whatever the other side asks; the rest is cancelled, never rests."""


class Stop(msgspec.Struct, frozen=True, gc=False, tag="stop"):
    """Wait until the last trade is at `trigger` or beyond, then trade like `Market`."""

    trigger: Ticks


class StopLimit(msgspec.Struct, frozen=True, gc=False, tag="stop_limit"):
    """Wait until the last trade is at `trigger` or beyond, then trade like `Limit`."""

    trigger: Ticks
    price: Ticks
    display: Lots = Lots(0)


Terms = Limit | Market | Stop | StopLimit


class PlaceOrder(msgspec.Struct, frozen=True, gc=False, tag="place", omit_defaults=True):
    """A new order."""

    account: AccountId
    client_id: ClientId
    symbol: Symbol
    side: Side
    quantity: Lots
    terms: Terms
    time_in_force: TimeInForce = TimeInForce.DAY
    expires_at: Instant = Instant(0)
    """When a good-till-time order expires; 0 for every other."""
    self_trade: SelfTrade = SelfTrade.NONE
    session: SessionId = SessionId("")
    """What `MassCancel` can cancel by."""


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
    """The new open quantity (what is still to trade); the new total where the venue counts so."""
    price: Ticks
    """The new limit price; not looked at for an order without one."""
    trigger: Ticks | None = None
    """The new trigger of a waiting stop; None keeps it."""


class MassCancel(msgspec.Struct, frozen=True, gc=False, tag="mass_cancel"):
    """Cancel all live orders of an account, or those of one symbol, side or session."""

    account: AccountId
    client_id: ClientId
    symbol: Symbol | None = None
    side: Side | None = None
    session: SessionId | None = None


class Halt(msgspec.Struct, frozen=True, gc=False, tag="halt"):
    """Stop trading in one symbol, or in the whole market when `symbol` is None. Cancels still pass."""

    key: ClientId
    symbol: Symbol | None
    reason: HaltReason


class Resume(msgspec.Struct, frozen=True, gc=False, tag="resume"):
    """Let trading go on in one symbol, or lift the market-wide halt when `symbol` is None."""

    key: ClientId
    symbol: Symbol | None
    auction: bool = False
    """Whether the symbol gathers orders for one price first."""


class SetPhase(msgspec.Struct, frozen=True, gc=False, tag="set_phase"):
    """Turn one symbol, or the whole market when `symbol` is None, to another phase."""

    key: ClientId
    phase: TradingPhase
    symbol: Symbol | None = None


class Fund(msgspec.Struct, frozen=True, gc=False, tag="fund"):
    """Give an account cash (millionths) or a position (lots), or take it when `amount` is negative."""

    key: ClientId
    account: AccountId
    asset: str
    """`$cash`, or a symbol."""
    amount: int


class DisableAccount(msgspec.Struct, frozen=True, gc=False, tag="disable_account"):
    """The kill switch of one account: cancel all its orders and refuse new ones."""

    key: ClientId
    account: AccountId


class EnableAccount(msgspec.Struct, frozen=True, gc=False, tag="enable_account"):
    """Let an account send orders again."""

    key: ClientId
    account: AccountId


class Tick(msgspec.Struct, frozen=True, gc=False, tag="tick"):
    """Let everything happen that is due: nothing else came in."""

    key: ClientId


class CloseSession(msgspec.Struct, frozen=True, gc=False, tag="close_session"):
    """End the day: every day order expires, new orders are refused until the session opens."""

    key: ClientId


class OpenSession(msgspec.Struct, frozen=True, gc=False, tag="open_session", omit_defaults=True):
    """Begin a day: the market turns to `phase`, and the client ids of the day before are forgotten."""

    key: ClientId
    phase: TradingPhase = TradingPhase.CONTINUOUS
    """Any but closed."""


ParticipantCommand = PlaceOrder | CancelOrder | ReplaceOrder | MassCancel
AdminCommand = Halt | Resume | SetPhase | CloseSession | OpenSession | Fund | DisableAccount | EnableAccount | Tick
Command = (
    PlaceOrder
    | CancelOrder
    | ReplaceOrder
    | MassCancel
    | Halt
    | Resume
    | SetPhase
    | CloseSession
    | OpenSession
    | Fund
    | DisableAccount
    | EnableAccount
    | Tick
)


class Sequenced(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A command with its place and its time: what the journal keeps and the engine folds over."""

    seq: int
    at: Instant
    command: Command
    trace: str = ""
    """The client's `traceparent`, when it sent one. It travels with the order and decides nothing."""
