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

MAX_QUANTITY_LOTS: Final = 1_000_000
MAX_PRICE_TICKS: Final = 1_000_000_000
MAX_ID_LENGTH: Final = 64


class Side(StrEnum):
    """Which side of the book an order stands on."""

    BUY = "buy"
    SELL = "sell"


class TimeInForce(StrEnum):
    """How long an order stands. GTC and FOK are later cases of the same set."""

    DAY = "day"
    IOC = "ioc"


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


class CancelReason(StrEnum):
    """Why an order, or what was left of it, left the book without trading."""

    REQUESTED = "requested"
    IOC_REMAINDER = "ioc_remainder"
    MARKET_REMAINDER = "market_remainder"


class HaltReason(StrEnum):
    """Why trading stands still."""

    OPERATOR = "operator"
    RUNBOOK = "runbook"
    RECOVERY = "recovery"
    SEQUENCE_GAP = "sequence_gap"
    CROSSED_BOOK = "crossed_book"


class Instrument(msgspec.Struct, frozen=True):
    """What is traded, and the limits a price must keep.

    `tick_size` and `lot_size` are decimal strings for people and ledgers; the engine never reads them.
    """

    symbol: Symbol
    reference: Ticks
    """The last close. Prices further than `band` from it are refused."""
    band: Ticks
    tick_size: str = "0.01"
    lot_size: str = "1"
