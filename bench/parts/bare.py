"""The books of the exchange with nothing around them: no events, no accounts, no checks. What the data structure costs.

Compiled for the bench as the engine is (`scripts/compiled.py`), so it holds plain classes only.
"""

from __future__ import annotations

from exchange.book import Book, Order
from exchange.types import AccountId, Lots, OrderId, Side, Symbol, Ticks, TimeInForce

NOBODY = AccountId("")
DAY = TimeInForce.DAY
BUY = Side.BUY
SELL = Side.SELL


class Bare:
    """One book; what it traded."""

    def __init__(self) -> None:
        self.book = Book(Symbol("AAA"))
        self.orders: dict[int, Order] = {}
        self.lots = 0
        self.turnover = 0

    def add(self, order_id: int, sign: int, price: int, quantity: int) -> None:
        book = self.book
        other = book.asks if sign > 0 else book.bids
        keys, levels = other.keys, other.levels
        limit = -price * sign
        while quantity and keys and keys[-1] >= limit:
            maker = levels[keys[-1]].head
            assert maker is not None
            lots = min(quantity, maker.quantity)
            quantity -= lots
            self.lots += lots
            self.turnover += lots * maker.price
            if lots < maker.quantity:
                maker.quantity = Lots(maker.quantity - lots)
                levels[keys[-1]].total -= lots
            else:
                other.remove(maker)
                del self.orders[maker.order_id]
        if quantity:
            side = BUY if sign > 0 else SELL
            order = Order(OrderId(order_id), NOBODY, book, side, Ticks(price), Lots(quantity), DAY)
            own = book.bids if sign > 0 else book.asks
            own.rest(order)
            self.orders[order_id] = order

    def cancel(self, order_id: int) -> None:
        order = self.orders.pop(order_id)
        own = self.book.bids if order.side is BUY else self.book.asks
        own.remove(order)
