"""One symbol's book: price-time priority in constant time at the best price.

Each side keeps a dict of levels and a sorted list of keys. A key is the price of a bid and the negative price of an
offer, so the best level is always the last key and both sides share one code. A level is a linked list of orders,
oldest first. An order that leaves is unlinked completely: no reference cycle stays behind for the garbage collector.

What the book does not show stands beside the levels: all-or-none orders, market orders that wait for a cross, stops.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from exchange.ledger import money_per_tick
from exchange.types import (
    AccountId,
    ClientId,
    HaltReason,
    Instrument,
    Lots,
    OrderId,
    SelfTrade,
    SessionId,
    Side,
    Ticks,
    TimeInForce,
    TradingPhase,
)

LIMIT: Final = 0
"""Kinds of live orders. A limit order stands in a level."""
ALL_OR_NONE: Final = 1
MARKET: Final = 2
STOP: Final = 3
STOP_LIMIT: Final = 4


_MAX_NATIVE: Final = (1 << 63) - 1 - 1_000_000
"""What a machine word holds, with room for a rounding: compiled code reckons with such words where it may."""


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


class Amount:
    """What an account has of one asset (cash in millionths, a position in lots), and how much of it its orders hold."""

    __slots__ = ("has", "held")

    def __init__(self, has: int = 0) -> None:
        self.has = has
        self.held = 0


class Account:
    """What is known of one account but its positions, found once for each of its requests."""

    __slots__ = ("cash", "known", "name", "sent")

    def __init__(self, name: AccountId, cash: Amount) -> None:
        self.name = name
        self.cash = cash
        self.known: dict[str, Any] = {}
        """What is remembered of its requests, by client id (C2)."""
        self.sent: deque[int] = deque()
        """When its last new and replaced orders came in (C4)."""


class Order:
    """A live order. `quantity` is what the book shows of it (all that is still to trade, but of an iceberg)."""

    __slots__ = (
        "account",
        "after",
        "age",
        "before",
        "book",
        "cash",
        "client_id",
        "display",
        "expires_at",
        "filled",
        "held",
        "hidden",
        "kind",
        "level",
        "order_id",
        "post_only",
        "price",
        "quantity",
        "self_trade",
        "session",
        "side",
        "stock",
        "time_in_force",
        "trigger",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what every order has; made once an order, so without keywords
        self,
        order_id: OrderId,
        account: AccountId,
        client_id: ClientId,
        book: Book,
        side: Side,
        kind: int,
        quantity: int,
        time_in_force: TimeInForce,
        self_trade: SelfTrade,
        session: SessionId,
        cash: Amount,
        stock: Amount,
        expires_at: int,
        price: int,
        post_only: bool,  # noqa: FBT001 - as above
        display: int,
    ) -> None:
        self.order_id = order_id
        self.account = account
        self.client_id = client_id
        """Of the last request that made or changed it."""
        self.book = book
        self.side = side
        self.kind = kind
        self.quantity = quantity
        self.time_in_force = time_in_force
        self.self_trade = self_trade
        self.session = session
        self.cash = cash
        """The account's own, not a copy: a trade finds them without a search."""
        self.stock = stock
        self.price = price
        """0: none (market, stop)."""
        self.trigger = 0
        self.hidden = 0
        self.display = display
        self.filled = 0
        self.held = 0
        """What is held for it: millionths of cash of a buy, lots of a sell."""
        self.age = 0
        """Its place among all orders of the exchange; lower is older."""
        self.expires_at = expires_at
        self.post_only = post_only
        self.level: Level | None = None
        self.before: Order | None = None
        self.after: Order | None = None

    @property
    def open(self) -> int:
        """What is still to trade, shown or not."""
        return self.quantity + self.hidden


class Level:
    """All orders of one side at one price, oldest first. `total` is what they show, `hidden` what they do not."""

    __slots__ = ("head", "hidden", "key", "tail", "total")

    def __init__(self, key: int) -> None:
        self.key = key
        self.total = 0
        self.hidden = 0
        self.head: Order | None = None
        self.tail: Order | None = None


class BookSide:
    """The bids (sign 1) or the offers (sign -1) of a book."""

    __slots__ = ("all_or_none", "keys", "levels", "markets", "sign", "stops")

    def __init__(self, sign: int) -> None:
        self.sign: Final = sign
        self.levels: dict[int, Level] = {}
        self.keys: list[int] = []
        self.all_or_none: list[Order] = []
        """Best price first, oldest first."""
        self.markets: list[Order] = []
        """Market orders that wait for a cross, oldest first."""
        self.stops: list[tuple[int, OrderId, Order]] = []
        """Sorted by (minus the trigger times sign, minus the id): the next to trigger is the last."""

    def rest(self, order: Order) -> None:
        """Put an order behind all others at its price."""
        key = order.price if self.sign > 0 else -order.price
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
        level.hidden += order.hidden
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
        level.hidden -= order.hidden
        if level.head is None:
            self._drop(level.key)

    def _drop(self, key: int) -> None:
        keys = self.keys
        del self.levels[key]
        if keys[-1] == key:
            keys.pop()
        else:
            del keys[bisect_left(keys, key)]

    def wait(self, order: Order) -> None:
        """Put an order that the book does not show where it waits."""
        kind = order.kind
        if kind == ALL_OR_NONE:
            waiting = self.all_or_none
            place, key = len(waiting), order.price * self.sign
            while place and (waiting[place - 1].price * self.sign, -waiting[place - 1].age) < (key, -order.age):
                place -= 1
            waiting.insert(place, order)
        elif kind == MARKET:
            waiting = self.markets
            place = len(waiting)
            while place and waiting[place - 1].age > order.age:
                place -= 1
            waiting.insert(place, order)
        else:
            insort(self.stops, (-order.trigger * self.sign, OrderId(-order.order_id), order))

    def forget(self, order: Order) -> None:
        """Take an order from where it waits."""
        kind = order.kind
        if kind == ALL_OR_NONE:
            self.all_or_none.remove(order)
        elif kind == MARKET:
            self.markets.remove(order)
        else:
            place = bisect_left(self.stops, (-order.trigger * self.sign, OrderId(-order.order_id)))
            assert self.stops[place][2] is order, f"stop {order.order_id} does not wait"
            del self.stops[place]

    def orders(self) -> Iterator[Order]:
        """Yield every order that stands in a level, best price first, oldest first within a price."""
        for key in reversed(self.keys):
            order = self.levels[key].head
            while order is not None:
                following = order.after
                yield order
                order = following

    def all_orders(self) -> list[Order]:
        """Return every order but the stops: market orders, then by price and age, the unseen among them."""
        priced = [*self.orders(), *self.all_or_none]
        if self.all_or_none:
            priced.sort(key=lambda order: (-order.price * self.sign, order.age))
        return [*self.markets, *priced]

    def notional(self) -> int:
        """Return price times quantity of all that stands in levels, in ticks times lots; looks at every level."""
        return sum(abs(level.key) * (level.total + level.hidden) for level in self.levels.values())

    def depth(self, levels: int) -> tuple[tuple[Ticks, Lots], ...]:
        """Return price and shown quantity of the best `levels` levels, best first."""
        best = self.keys[-levels:] if levels > 0 else []
        return tuple((Ticks(key * self.sign), Lots(self.levels[key].total)) for key in reversed(best))


class Book:
    """Both sides of one symbol, its phase, its moving band, and the counter of its events."""

    __slots__ = (
        "asks",
        "band_reference",
        "bids",
        "continue_at",
        "fees",
        "gathered",
        "halt",
        "high",
        "highest_ppm",
        "instrument",
        "last_price",
        "least",
        "limit_until",
        "limited",
        "lot_step",
        "low",
        "luld_ppm",
        "maker_ppm",
        "money",
        "most",
        "notional_limits",
        "paused_until",
        "phase",
        "positions",
        "recent",
        "reopening_until",
        "symbol",
        "symbol_seq",
        "taker_ppm",
        "tick_step",
        "trading",
        "unlooked",
        "wide",
    )

    def __init__(self, instrument: Instrument) -> None:
        self.instrument: Final = instrument
        self.symbol: Final = instrument.symbol
        self.money: Final = money_per_tick(instrument)
        """Millionths that one lot costs per tick."""
        self.low: Final = instrument.reference - instrument.band
        self.high: Final = instrument.reference + instrument.band
        self.tick_step: Final[int] = instrument.tick_step
        self.lot_step: Final[int] = instrument.lot_step
        self.least: Final[int] = max(1, instrument.min_quantity)
        self.most: Final[int] = instrument.max_quantity
        self.notional_limits: Final = bool(instrument.min_notional or instrument.max_notional)
        self.luld_ppm: Final = instrument.luld_ppm
        self.maker_ppm: Final[int] = instrument.maker_fee_ppm
        self.taker_ppm: Final[int] = instrument.taker_fee_ppm
        self.highest_ppm: Final[int] = max(
            instrument.maker_fee_ppm, instrument.taker_fee_ppm, instrument.auction_fee_ppm, 0
        )
        dearest = max(map(abs, (instrument.maker_fee_ppm, instrument.taker_fee_ppm, instrument.auction_fee_ppm, 1)))
        self.wide: Final = self.high * self.most * self.money * dearest > _MAX_NATIVE
        """Whether cost times fee of an order may be more than a machine word holds."""
        self.fees: Final = bool(instrument.maker_fee_ppm or instrument.taker_fee_ppm or instrument.auction_fee_ppm)
        self.symbol_seq = 0
        self.bids: Final = BookSide(1)
        self.asks: Final = BookSide(-1)
        self.positions: dict[AccountId, Amount] = {}
        self.last_price = 0
        """0: no trade yet."""
        self.phase = TradingPhase.CONTINUOUS
        self.halt: HaltReason | None = None
        self.paused_until = 0
        self.reopening_until = 0
        """When the auction of a `Resume` ends."""
        self.trading = True
        """Whether orders match now: kept by `Floor.refresh`."""
        self.gathered = False
        """Whether orders came in without being matched since the last cross."""
        self.limited = False
        self.limit_until = 0
        """When the limit state becomes a pause."""
        self.continue_at = 0
        """When what the limit of trades put off goes on (L3); 0: nothing was."""
        self.band_reference: int = instrument.reference
        self.recent: list[tuple[int, int, int]] = []
        """Instant, sum of prices and number of the trades that the moving band looks at."""
        self.unlooked = False
        """Whether there are trades that the moving band has not looked at."""

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
