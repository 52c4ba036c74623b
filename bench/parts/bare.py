"""The books of the exchange with nothing around them: no events, no accounts, no checks. What the data structure costs.

Compiled for the bench as the engine is (`scripts/compiled.py`), so it holds plain classes only.
"""

from __future__ import annotations

from typing import Final

from exchange.book import LIMIT, Amount, Book, Order
from exchange.types import (
    AccountId,
    ClientId,
    Instrument,
    OrderId,
    SelfTrade,
    SessionId,
    Side,
    Symbol,
    Ticks,
    TimeInForce,
)

NOBODY: Final = AccountId("")
NOTHING: Final = ClientId("")
NONE: Final = SessionId("")
DAY: Final = TimeInForce.DAY
ALLOWED: Final = SelfTrade.NONE
BUY: Final = Side.BUY
SELL: Final = Side.SELL


class Bare:
    """One book; what it traded."""

    def __init__(self) -> None:
        self.book = Book(Instrument(Symbol("AAA"), Ticks(1), Ticks(0)))
        self.orders: dict[int, Order] = {}
        self.nothing = Amount()
        self.lots = 0
        self.turnover = 0

    def add(self, order_id: int, sign: int, price: int, quantity: int) -> None:
        book = self.book
        other = book.asks if sign > 0 else book.bids
        keys, levels = other.keys, other.levels
        limit = -price * sign
        while quantity and keys and keys[-1] >= limit:
            level = levels[keys[-1]]
            maker = level.head
            assert maker is not None
            lots = min(quantity, maker.quantity)
            quantity -= lots
            self.lots += lots
            self.turnover += lots * maker.price
            if lots < maker.quantity:
                maker.quantity -= lots
                level.total -= lots
            else:
                other.remove(maker)
                del self.orders[maker.order_id]
        if quantity:
            side = BUY if sign > 0 else SELL
            nothing = self.nothing
            order = Order(OrderId(order_id), NOBODY, NOTHING, book, side, LIMIT, quantity, DAY, ALLOWED, NONE,
                          nothing, nothing, 0, price, False, 0)  # fmt: skip # noqa: FBT003 - without keywords, as the engine
            own = book.bids if sign > 0 else book.asks
            own.rest(order)
            self.orders[order_id] = order

    def cancel(self, order_id: int) -> None:
        order = self.orders.pop(order_id)
        own = self.book.bids if order.side is BUY else self.book.asks
        own.remove(order)
