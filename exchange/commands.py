"""What may be asked of the exchange: a closed union of frozen values.

A new order type is a new case of `Terms`; a new request is a new case of `Command`. mypy then points at every `match`
that must know it.

Prices and triggers are whole ticks, quantities whole lots, instants nanoseconds since 1970, money millionths. In the
examples `engine` is a new `Engine([Instrument("AAA", 100, 50)])`, reference 100 ticks, and `kinds(events)` gives the
names of the events' types. Every command may be refused for a bad or a used client id (bad_client_id,
duplicate_client_id); what else may be `Rejected` for stands with each. `docs/exchange-rules.md` has the rules.
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
    """Trade at `price` or better; what is left rests in the book, if the time in force lets it.

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.SELL, 5, Limit(101))))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(PlaceOrder("bob", "2", "AAA", Side.BUY, 8, Limit(101))))
    ['Accepted', 'Traded', 'Rested']

    An iceberg shows a part at a time, a post-only order never takes, an all-or-none order waits unseen:

    >>> kinds(engine.apply(PlaceOrder("bob", "3", "AAA", Side.BUY, 90, Limit(99, display=10))))
    ['Accepted', 'Rested']
    >>> engine.apply(PlaceOrder("ann", "4", "AAA", Side.SELL, 1, Limit(99, post_only=True)))[0].reason.value
    'post_only_would_trade'
    >>> kinds(engine.apply(PlaceOrder("ann", "5", "AAA", Side.SELL, 7, Limit(105, all_or_none=True))))
    ['Accepted']
    """

    price: Ticks
    post_only: bool = False
    """Refused when it would trade at once."""
    display: Lots = Lots(0)
    """How much of it the book shows at a time; 0: all of it."""
    all_or_none: bool = False
    """Trades as a whole or waits, unseen."""


class Market(msgspec.Struct, frozen=True, gc=False, tag="market"):
    """Trade at whatever the other side asks; the rest is cancelled (or rests, where the venue says so: F3).

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.SELL, 5, Limit(101))))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(PlaceOrder("bob", "2", "AAA", Side.BUY, 8, Market())))
    ['Accepted', 'Traded', 'Canceled']
    >>> engine.apply(PlaceOrder("bob", "3", "AAA", Side.BUY, 8, Market()))[0].reason.value
    'no_liquidity'
    """


class Stop(msgspec.Struct, frozen=True, gc=False, tag="stop"):
    """Wait until the last trade is at `trigger` or beyond, then trade like `Market`.

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.SELL, 9, Limit(103))))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(PlaceOrder("bob", "2", "AAA", Side.BUY, 2, Stop(103))))
    ['Accepted']
    >>> kinds(engine.apply(PlaceOrder("cid", "3", "AAA", Side.BUY, 1, Limit(103))))
    ['Accepted', 'Traded', 'Triggered', 'Traded']
    """

    trigger: Ticks


class StopLimit(msgspec.Struct, frozen=True, gc=False, tag="stop_limit"):
    """Wait until the last trade is at `trigger` or beyond, then trade like `Limit`.

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.SELL, 1, Limit(103))))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(PlaceOrder("bob", "2", "AAA", Side.BUY, 2, StopLimit(103, 104))))
    ['Accepted']
    >>> kinds(engine.apply(PlaceOrder("cid", "3", "AAA", Side.BUY, 1, Limit(103))))
    ['Accepted', 'Traded', 'Triggered', 'Rested']
    """

    trigger: Ticks
    price: Ticks
    display: Lots = Lots(0)


Terms = Limit | Market | Stop | StopLimit


class PlaceOrder(msgspec.Struct, frozen=True, gc=False, tag="place", omit_defaults=True):
    """A new order.

    Events: `Accepted`, then what it does at once: `Traded` (with `Replenished` of an iceberg, `Triggered` of a stop
    that a trade set off), `Canceled` for what may not rest or would trade with itself, `Rested` for what does.
    Rejected: any reason of table C, the first that holds; the order then has no id and leaves no trace.

    >>> rested = engine.apply(PlaceOrder("ann", "1", "AAA", Side.BUY, 5, Limit(99)))
    >>> rested[0].order_id, rested[1].price, rested[1].quantity
    (1, 99, 5)
    >>> kinds(engine.apply(PlaceOrder("bob", "2", "AAA", Side.SELL, 9, Limit(98), TimeInForce.IOC)))
    ['Accepted', 'Traded', 'Canceled']
    >>> kinds(engine.apply(PlaceOrder("bob", "3", "AAA", Side.SELL, 9, Limit(98), TimeInForce.FOK)))
    ['Accepted', 'Canceled']
    >>> engine.apply(PlaceOrder("bob", "4", "AAA", Side.SELL, 9, Limit(151)))[0].reason.value
    'price_out_of_band'
    """

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
    """Take the rest of an order off the book. It passes in every phase and under a halt.

    Events: `Canceled`. Rejected: unknown_order, too_late (it has ended), not_your_order.

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.BUY, 5, Limit(99))))
    ['Accepted', 'Rested']
    >>> [told] = engine.apply(CancelOrder("ann", "2", 1))
    >>> told.quantity, told.reason.value
    (5, 'requested')
    >>> engine.apply(CancelOrder("ann", "3", 1))[0].reason.value
    'too_late'
    """

    account: AccountId
    client_id: ClientId
    order_id: OrderId


class ReplaceOrder(msgspec.Struct, frozen=True, gc=False, tag="replace"):
    """Change an order's open quantity or price.

    A smaller quantity at the same price keeps the place in the queue; anything else loses it and may match.

    Events: `Replaced`, and as of a new order what it does at once if it lost its place.
    Rejected: unknown_order, too_late, not_your_order, and the reasons of a new order that can hold.

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.BUY, 5, Limit(99))))
    ['Accepted', 'Rested']
    >>> [told] = engine.apply(ReplaceOrder("ann", "2", 1, 3, 99))
    >>> told.quantity, told.kept_priority
    (3, True)
    >>> kinds(engine.apply(ReplaceOrder("ann", "3", 1, 4, 100)))
    ['Replaced', 'Rested']
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
    """Cancel all live orders of an account, or those of one symbol, side or session.

    Events: one `Canceled` an order, then `MassCanceled` with how many. Rejected: bad_combination for a side or session
    that is none; a symbol nobody knows cancels nothing.

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.BUY, 5, Limit(99))))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(PlaceOrder("ann", "2", "AAA", Side.SELL, 5, Limit(101))))
    ['Accepted', 'Rested']
    >>> engine.apply(MassCancel("ann", "3", side=Side.BUY))[-1].count
    1
    >>> kinds(engine.apply(MassCancel("ann", "4")))
    ['Canceled', 'MassCanceled']
    """

    account: AccountId
    client_id: ClientId
    symbol: Symbol | None = None
    side: Side | None = None
    session: SessionId | None = None


class Halt(msgspec.Struct, frozen=True, gc=False, tag="halt"):
    """Stop trading in one symbol, or in the whole market when `symbol` is None. Cancels still pass.

    Events: `Halted`, also when it was halted. Rejected: unknown_symbol, bad_combination (no reason of the set).

    >>> kinds(engine.apply(Halt("1", "AAA", HaltReason.OPERATOR)))
    ['Halted']
    >>> engine.apply(PlaceOrder("ann", "2", "AAA", Side.BUY, 5, Limit(99)))[0].reason.value
    'halted'
    """

    key: ClientId
    symbol: Symbol | None
    reason: HaltReason


class Resume(msgspec.Struct, frozen=True, gc=False, tag="resume"):
    """Let trading go on in one symbol, or lift the market-wide halt when `symbol` is None.

    Events: what the end of the halt lets happen (`Crossed`, `Traded`, `Triggered`), `Resumed`, and `PhaseChanged` when
    orders are gathered first. Rejected: unknown_symbol, bad_combination (`auction` is no flag).

    >>> kinds(engine.apply(Halt("1", None, HaltReason.OPERATOR)))
    ['Halted']
    >>> kinds(engine.apply(Resume("2", None)))
    ['Resumed']
    >>> kinds(engine.apply(Halt("3", "AAA", HaltReason.OPERATOR)))
    ['Halted']
    >>> kinds(engine.apply(Resume("4", "AAA", auction=True)))
    ['Resumed', 'PhaseChanged']
    """

    key: ClientId
    symbol: Symbol | None
    auction: bool = False
    """Whether the symbol gathers orders for one price first."""


class SetPhase(msgspec.Struct, frozen=True, gc=False, tag="set_phase"):
    """Turn one symbol, or the whole market when `symbol` is None, to another phase.

    Events: the cross of an auction that ends (`Crossed`, `Traded`, `Canceled` for what is left of market orders),
    `Expired` when it closes, `PhaseChanged`, then stops that trade now. Rejected: unknown_symbol, bad_combination.

    >>> kinds(engine.apply(SetPhase("1", TradingPhase.OPENING_AUCTION)))
    ['PhaseChanged']
    >>> kinds(engine.apply(PlaceOrder("ann", "2", "AAA", Side.BUY, 5, Limit(102))))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(PlaceOrder("bob", "3", "AAA", Side.SELL, 5, Limit(102))))
    ['Accepted', 'Rested']
    >>> told = engine.apply(SetPhase("4", TradingPhase.CONTINUOUS))
    >>> kinds(told), told[0].price, told[0].quantity
    (['Crossed', 'Traded', 'PhaseChanged'], 102, 5)
    """

    key: ClientId
    phase: TradingPhase
    symbol: Symbol | None = None


class Fund(msgspec.Struct, frozen=True, gc=False, tag="fund"):
    """Give an account cash (millionths) or a position (lots), or take it when `amount` is negative.

    Events: `Funded`. Rejected: bad_client_id (the account), bad_asset, bad_quantity (0, or beyond 10^18),
    insufficient_funds or insufficient_position (more than is free is taken).

    >>> kinds(engine.apply(Fund("1", "ann", "$cash", 5_000_000)))
    ['Funded']
    >>> engine.balance("ann", "$cash")
    5000000
    >>> engine.apply(Fund("2", "ann", "AAA", -1))[0].reason.value
    'insufficient_position'
    """

    key: ClientId
    account: AccountId
    asset: str
    """`$cash`, or a symbol."""
    amount: int


class DisableAccount(msgspec.Struct, frozen=True, gc=False, tag="disable_account"):
    """The kill switch of one account: cancel all its orders and refuse new ones.

    Events: one `Canceled` an order, `MassCanceled`, `AccountDisabled`. Rejected: bad_client_id (the account).

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.BUY, 5, Limit(99))))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(DisableAccount("2", "ann")))
    ['Canceled', 'MassCanceled', 'AccountDisabled']
    >>> engine.apply(PlaceOrder("ann", "3", "AAA", Side.BUY, 5, Limit(99)))[0].reason.value
    'account_disabled'
    """

    key: ClientId
    account: AccountId


class EnableAccount(msgspec.Struct, frozen=True, gc=False, tag="enable_account"):
    """Let an account send orders again.

    Events: `AccountEnabled`, also when it was. Rejected: bad_client_id (the account).

    >>> kinds(engine.apply(EnableAccount("1", "ann")))
    ['AccountEnabled']
    """

    key: ClientId
    account: AccountId


class Tick(msgspec.Struct, frozen=True, gc=False, tag="tick"):
    """Let everything happen that is due: nothing else came in.

    Events: what was due by its instant (`Expired`, `Paused`, `PhaseChanged`, crosses), then `Ticked`. Every other
    command lets it happen, too. Never rejected for more than its key.

    >>> order = PlaceOrder("ann", "1", "AAA", Side.BUY, 5, Limit(99), TimeInForce.GTT, expires_at=2_000_000_000)
    >>> kinds(engine.apply(Sequenced(1, 1_000_000_000, order)))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(Sequenced(2, 2_000_000_000, Tick("2"))))
    ['Expired', 'Ticked']
    """

    key: ClientId


class CloseSession(msgspec.Struct, frozen=True, gc=False, tag="close_session"):
    """End the day: every day order expires, new orders are refused until the session opens.

    Events: as of a turn to closed, with `SessionClosed` in the place of `PhaseChanged`. Never rejected for more than
    its key.

    >>> kinds(engine.apply(PlaceOrder("ann", "1", "AAA", Side.BUY, 5, Limit(99))))
    ['Accepted', 'Rested']
    >>> kinds(engine.apply(CloseSession("2")))
    ['Expired', 'SessionClosed']
    >>> engine.apply(PlaceOrder("ann", "3", "AAA", Side.BUY, 5, Limit(99)))[0].reason.value
    'session_closed'
    """

    key: ClientId


class OpenSession(msgspec.Struct, frozen=True, gc=False, tag="open_session", omit_defaults=True):
    """Begin a day: the market turns to `phase`, and the client ids of the day before are forgotten.

    Events: as of a turn, with `SessionOpened` in the place of `PhaseChanged`. Rejected: bad_combination (`phase` is
    closed, or none). Where the market was open it is a turn and nothing is forgotten.

    >>> kinds(engine.apply(CloseSession("1")))
    ['SessionClosed']
    >>> kinds(engine.apply(OpenSession("1", TradingPhase.PRE_OPEN)))
    ['Rejected']
    >>> kinds(engine.apply(OpenSession("2", TradingPhase.PRE_OPEN)))
    ['SessionOpened']
    >>> kinds(engine.apply(SetPhase("1", TradingPhase.CONTINUOUS)))
    ['PhaseChanged']
    """

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
