"""The words of the exchange: identifiers, quantities, and the closed sets everything else is built from.

Every number is a whole number. A price counts ticks, a quantity counts lots; what one of them is worth in money is a
fact of the instrument and is applied at the edges only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NewType

import msgspec

Symbol = NewType("Symbol", str)
AccountId = NewType("AccountId", str)
ClientId = NewType("ClientId", str)
"""The participant's own id of a request, unique per account and session: the idempotency key (FIX ClOrdID)."""
OrderId = NewType("OrderId", int)
TradeId = NewType("TradeId", int)
Seq = NewType("Seq", int)
"""The place of a command in the journal, from 1, without gaps."""
Ticks = NewType("Ticks", int)
"""A price, as a whole number of the instrument's tick size."""
Lots = NewType("Lots", int)
"""A quantity, as a whole number of the instrument's lot size. Always positive in a request."""
Money = NewType("Money", int)
"""Millionths of the currency."""
SessionId = NewType("SessionId", str)
"""The connection that sent an order, as the gateway names it; empty: none."""

MAX_QUANTITY_LOTS: Final = 1_000_000
"""The largest order, unless the instrument says otherwise."""
MOST_LOTS: Final = 10**12
"""The largest order that an instrument may allow."""
MAX_PRICE_TICKS: Final = 1_000_000_000
MAX_ID_LENGTH: Final = 64


class Side(StrEnum):
    """Which side of the book an order stands on."""

    BUY = "buy"
    SELL = "sell"


class TimeInForce(StrEnum):
    """How long an order stands."""

    DAY = "day"
    IOC = "ioc"
    """Immediate or cancel: what does not trade at once is cancelled."""
    FOK = "fok"
    """Fill or kill: the whole at once, or nothing."""
    GTC = "gtc"
    """Good till cancelled."""
    GTT = "gtt"
    """Good till the order's `expires_at`."""


class SelfTrade(StrEnum):
    """What happens when an order would trade with one of the same account."""

    NONE = "none"
    """They trade."""
    CANCEL_NEWEST = "cancel_newest"
    CANCEL_OLDEST = "cancel_oldest"
    CANCEL_BOTH = "cancel_both"
    DECREMENT = "decrement"
    """Both lose the smaller quantity, without a trade."""


class TradingPhase(StrEnum):
    """What the market, or one symbol, does with orders."""

    PRE_OPEN = "pre_open"
    OPENING_AUCTION = "opening_auction"
    CONTINUOUS = "continuous"
    INTRADAY_AUCTION = "intraday_auction"
    CLOSING_AUCTION = "closing_auction"
    POST_CLOSE = "post_close"
    CLOSED = "closed"


GATHERING: Final = frozenset(
    {
        TradingPhase.PRE_OPEN,
        TradingPhase.OPENING_AUCTION,
        TradingPhase.INTRADAY_AUCTION,
        TradingPhase.CLOSING_AUCTION,
    }
)
"""The phases in which orders come in and wait for a cross: the book may be crossed."""


class RejectReason(StrEnum):
    """Why a command was refused by a rule: value, log field, metric label and report word at once."""

    UNKNOWN_SYMBOL = "unknown_symbol"
    BAD_QUANTITY = "bad_quantity"
    BAD_PRICE = "bad_price"
    PRICE_OUT_OF_BAND = "price_out_of_band"
    BAD_CLIENT_ID = "bad_client_id"
    DUPLICATE_CLIENT_ID = "duplicate_client_id"
    UNKNOWN_ORDER = "unknown_order"
    TOO_LATE = "too_late"
    NOT_YOUR_ORDER = "not_your_order"
    HALTED = "halted"
    SESSION_CLOSED = "session_closed"
    NO_LIQUIDITY = "no_liquidity"
    ACCOUNT_DISABLED = "account_disabled"
    RATE_LIMITED = "rate_limited"
    WRONG_PHASE = "wrong_phase"
    BAD_COMBINATION = "bad_combination"
    BAD_DISPLAY = "bad_display"
    BAD_NOTIONAL = "bad_notional"
    BAD_EXPIRY = "bad_expiry"
    BAD_ASSET = "bad_asset"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    INSUFFICIENT_POSITION = "insufficient_position"
    POST_ONLY_WOULD_TRADE = "post_only_would_trade"
    STOP_REACHED = "stop_reached"


class CancelReason(StrEnum):
    """Why an order, or what was left of it, left the book without trading."""

    REQUESTED = "requested"
    IOC_REMAINDER = "ioc_remainder"
    MARKET_REMAINDER = "market_remainder"
    FOK_UNFILLED = "fok_unfilled"
    SELF_TRADE = "self_trade"
    MASS_CANCEL = "mass_cancel"
    KILL_SWITCH = "kill_switch"
    TRADE_LIMIT = "trade_limit"


class HaltReason(StrEnum):
    """Why trading stands still."""

    OPERATOR = "operator"
    RUNBOOK = "runbook"
    RECOVERY = "recovery"
    SEQUENCE_GAP = "sequence_gap"
    CROSSED_BOOK = "crossed_book"


class StopReached(StrEnum):
    """What becomes of a stop whose trigger is reached when it comes in."""

    TRIGGER = "trigger"
    REJECT = "reject"


class CrossPrices(StrEnum):
    """At which prices a cross may be made."""

    LIMITS_AND_REFERENCE = "limits_and_reference"
    """Limit prices in the book, and the reference price where it does not lie beyond those that are as good."""
    LIMITS = "limits"
    """Limit prices in the book only; without any, the reference price."""


class MarketRemainder(StrEnum):
    """What becomes of a market order that traded in continuous trading and has something left."""

    CANCEL = "cancel"
    REST = "rest"
    """A day order's rest stands as a limit order at the price of its last trade."""


class ReplaceQuantity(StrEnum):
    """What the quantity of a replacement counts."""

    OPEN = "open"
    """What is still to trade."""
    TOTAL = "total"
    """The whole order, with what has traded."""


class Instrument(msgspec.Struct, frozen=True):
    """What is traded, its steps, limits and fees. `docs/exchange-rules.md` tells what each does.

    `tick_size` and `lot_size` are decimal strings for people and ledgers; the engine reads them for money only.
    """

    symbol: Symbol
    reference: Ticks
    """The last close. Prices further than `band` from it are refused."""
    band: Ticks
    tick_size: str = "0.01"
    lot_size: str = "1"
    tick_step: int = 1
    """Prices are multiples of it."""
    lot_step: int = 1
    min_quantity: Lots = Lots(1)
    max_quantity: Lots = Lots(MAX_QUANTITY_LOTS)
    min_notional: Money = Money(0)
    max_notional: Money = Money(0)
    """0: no limit."""
    min_display: Lots = Lots(0)
    """The least an iceberg may show at a time; its last part may be less. 0: no limit."""
    luld_ppm: int = 0
    """Half the width of the moving band in millionths of its reference; 0: none."""
    maker_fee_ppm: int = 0
    taker_fee_ppm: int = 0
    auction_fee_ppm: int = 0


class Venue(msgspec.Struct, frozen=True):
    """Conventions and limits of the whole market."""

    holds: bool = False
    """Whether orders need free cash or position."""
    orders_per_second: int = 0
    max_trades_per_command: int = 0
    """How many resting orders one order may meet at once (table L); 0: no limit."""
    stop_reached: StopReached = StopReached.TRIGGER
    replace_quantity: ReplaceQuantity = ReplaceQuantity.OPEN
    cross_prices: CrossPrices = CrossPrices.LIMITS_AND_REFERENCE
    market_remainder: MarketRemainder = MarketRemainder.CANCEL
    breakers: bool = False
    limit_state_seconds: int = 15
    pause_seconds: int = 300
    reopening_seconds: int = 300
    breaker_seconds: int = 900
