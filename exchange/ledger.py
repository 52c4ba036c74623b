"""Double-entry postings of trades, in whole numbers.

A trade moves a position from the seller to the buyer, money the other way, and fees to the exchange. Each movement is
two postings, so the postings of one trade, and therefore all postings ever made, sum to zero in every asset.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Final, NewType

import msgspec

from exchange.events import Traded
from exchange.types import AccountId, Instrument, TradeId
from kernel.errors import InputError

Asset = NewType("Asset", str)
"""`CASH`, or the symbol of a position."""

CASH: Final = Asset("$cash")
"""Money in millionths; no symbol can be called like this by accident."""
FEES: Final = AccountId("$fees")
"""The account all fees are paid to (rule M2)."""
MONEY_SCALE: Final = 1_000_000


class Posting(msgspec.Struct, frozen=True, gc=False):
    """One side of a movement: `amount` is added to what `account` has of `asset`."""

    trade_id: TradeId
    account: AccountId
    asset: Asset
    amount: int
    """Millionths of the currency for cash, lots for a position."""


def money_per_tick(instrument: Instrument) -> int:
    """Return what one lot costs per tick, in millionths of the currency.

    Raises:
        InputError: the sizes are no positive decimals, or their product is no whole number of millionths.
    """
    where = f"instrument {instrument.symbol}"
    try:
        value = Decimal(instrument.tick_size) * Decimal(instrument.lot_size) * MONEY_SCALE
    except InvalidOperation as error:
        sizes = f"{instrument.tick_size!r} and {instrument.lot_size!r}"
        raise InputError(
            where, f"tick and lot size {sizes} are no decimals", right="write for example 0.01 and 1"
        ) from error
    if not value.is_finite() or value <= 0 or value != value.to_integral_value():
        raise InputError(where, "tick size times lot size is no positive whole number of millionths")
    return int(value)


def postings(trade: Traded, money: int) -> tuple[Posting, ...]:
    """Return the postings of a trade, two a movement: cash, position, and each fee that is not zero.

    `money` is `money_per_tick` of its instrument.
    """
    cost = trade.price * trade.quantity * money
    position = Asset(trade.symbol)
    fees = tuple(
        posting
        for account, fee in ((trade.buyer, trade.buyer_fee), (trade.seller, trade.seller_fee))
        if fee
        for posting in (Posting(trade.trade_id, account, CASH, -fee), Posting(trade.trade_id, FEES, CASH, fee))
    )
    return (
        Posting(trade.trade_id, trade.buyer, CASH, -cost),
        Posting(trade.trade_id, trade.seller, CASH, cost),
        Posting(trade.trade_id, trade.buyer, position, trade.quantity),
        Posting(trade.trade_id, trade.seller, position, -trade.quantity),
        *fees,
    )


class Balances:
    """What every account has: a fold over postings, each trade once."""

    def __init__(self) -> None:
        self._amounts: defaultdict[tuple[AccountId, Asset], int] = defaultdict(int)
        self._settled: set[TradeId] = set()

    def post(self, entries: Iterable[Posting]) -> bool:
        """Add the postings of one trade; return False, and change nothing, when it was posted before."""
        together = tuple(entries)
        trades = {entry.trade_id for entry in together}
        assert len(trades) == 1, f"the postings of one trade at a time, not of {len(trades)}"
        if trades <= self._settled:
            return False
        self._settled |= trades
        for entry in together:
            self._amounts[entry.account, entry.asset] += entry.amount
        return True

    def amount(self, account: AccountId, asset: Asset) -> int:
        """Return what an account has of an asset."""
        return self._amounts.get((account, asset), 0)

    def amounts(self) -> dict[tuple[AccountId, Asset], int]:
        """Return every balance that is not zero."""
        return {key: amount for key, amount in self._amounts.items() if amount}

    def imbalance(self) -> int:
        """Return by how much the assets fail to sum to zero, absolute and added up; must be 0."""
        sums: defaultdict[Asset, int] = defaultdict(int)
        for (_, asset), amount in self._amounts.items():
            sums[asset] += amount
        return sum(abs(total) for total in sums.values())
