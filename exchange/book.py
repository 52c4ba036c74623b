"""One symbol's book: price-time priority in constant time at the best price.

Each side keeps a dict of levels and a sorted list of keys. A key is the price of a bid and the negative price of an
offer, so the best level is always the last key and both sides share one code. A level is a linked list of orders,
oldest first. An order that leaves is unlinked completely: no reference cycle stays behind for the garbage collector.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final, NamedTuple

from exchange.types import AccountId, Lots, OrderId, Side, Symbol, Ticks, TimeInForce


class Top(NamedTuple):
    """The best price and its quantity on both sides; None and 0 for an empty side."""

    bid: Ticks | None
    bid_quantity: Lots
    ask: Ticks | None
    ask_quantity: Lots


class Depth(NamedTuple):
    """Price and total quantity of the best levels, best first."""

    bids: tuple[tuple[Ticks, Lots], ...]
    asks: tuple[tuple[Ticks, Lots], ...]


class Order:
    """A live order. `quantity` is what is still to trade."""

    __slots__ = (
        "account",
        "after",
        "before",
        "book",
        "level",
        "order_id",
        "price",
        "quantity",
        "side",
        "time_in_force",
    )

    def __init__(
        self,
        order_id: OrderId,
        account: AccountId,
        book: Book,
        side: Side,
        price: Ticks,
        quantity: Lots,
        time_in_force: TimeInForce,
    ) -> None:
        self.order_id = order_id
        self.account = account
        self.book = book
        self.side = side
        self.price = price
        self.quantity = quantity
        self.time_in_force = time_in_force
        self.level: Level | None = None
        self.before: Order | None = None
        self.after: Order | None = None


class Level:
    """All orders of one side at one price, oldest first. `total` is the sum of their quantities."""

    __slots__ = ("head", "key", "tail", "total")

    def __init__(self, key: int) -> None:
        self.key = key
        self.total = 0
        self.head: Order | None = None
        self.tail: Order | None = None


class BookSide:
    """The bids (sign 1) or the offers (sign -1) of a book."""

    __slots__ = ("keys", "levels", "sign")

    def __init__(self, sign: int) -> None:
        self.sign: Final = sign
        self.levels: dict[int, Level] = {}
        self.keys: list[int] = []

    def rest(self, order: Order) -> None:
        """Put an order behind all others at its price."""
        key = order.price * self.sign
        level = self.levels.get(key)
        if level is None:
            level = self.levels[key] = Level(key)
            insort(self.keys, key)
        last = level.tail
        if last is None:
            level.head = order
        else:
            last.after = order
            order.before = last
        level.tail = order
        level.total += order.quantity
        order.level = level

    def remove(self, order: Order) -> None:
        """Unlink an order, wherever it stands in the queue; an emptied level goes with it."""
        level = order.level
        assert level is not None, f"order {order.order_id} does not rest"
        before, after = order.before, order.after
        if before is None:
            level.head = after
        else:
            before.after = after
        if after is None:
            level.tail = before
        else:
            after.before = before
        order.level = order.before = order.after = None
        level.total -= order.quantity
        if level.head is None:
            self._drop(level.key)

    def _drop(self, key: int) -> None:
        keys = self.keys
        del self.levels[key]
        if keys[-1] == key:
            keys.pop()
        else:
            del keys[bisect_left(keys, key)]

    def orders(self) -> Iterator[Order]:
        """Yield every order, best price first, oldest first within a price."""
        for key in reversed(self.keys):
            order = self.levels[key].head
            while order is not None:
                following = order.after
                yield order
                order = following

    def notional(self) -> int:
        """Return price times quantity of all that rests here, in ticks times lots; looks at every level."""
        return sum(abs(level.key) * level.total for level in self.levels.values())

    def depth(self, levels: int) -> tuple[tuple[Ticks, Lots], ...]:
        """Return price and total quantity of the best `levels` levels, best first."""
        best = self.keys[-levels:] if levels > 0 else []
        return tuple((Ticks(key * self.sign), Lots(self.levels[key].total)) for key in reversed(best))


class Book:
    """Both sides of one symbol, and the counter of its events."""

    __slots__ = ("asks", "bids", "symbol", "symbol_seq")

    def __init__(self, symbol: Symbol) -> None:
        self.symbol: Final = symbol
        self.symbol_seq = 0
        self.bids: Final = BookSide(1)
        self.asks: Final = BookSide(-1)

    def side(self, side: Side) -> BookSide:
        """Return the side on which orders of `side` rest."""
        return self.bids if side is Side.BUY else self.asks

    def top(self) -> Top:
        """Return the best bid and offer."""
        bids, asks = self.bids.depth(1), self.asks.depth(1)
        bid, bid_quantity = bids[0] if bids else (None, Lots(0))
        ask, ask_quantity = asks[0] if asks else (None, Lots(0))
        return Top(bid, bid_quantity, ask, ask_quantity)

    def depth(self, levels: int) -> Depth:
        """Return the best `levels` levels of both sides."""
        return Depth(self.bids.depth(levels), self.asks.depth(levels))
