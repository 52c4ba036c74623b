"""The bugs: a passage of the engine's source each, and what stands there instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plant:
    """One bug. The passage `right` stands once in the module."""

    name: str
    rule: str
    module: str
    right: str
    wrong: str
    profile: str = "plain"
    quick: bool = False
    """Whether the normal run looks for it, too."""


PLANTS: tuple[Plant, ...] = (
    # Continuous matching
    Plant(
        "the newest at a price trades first",
        "F1",
        "book",
        "last = level.tail\n        if last is None:\n            level.head = order\n        else:\n"
        "            last.after = order\n            order.before = last\n        level.tail = order\n",
        "first = level.head\n        if first is None:\n            level.tail = order\n        else:\n"
        "            first.before = order\n            order.after = first\n        level.head = order\n",
        quick=True,
    ),
    Plant(
        "the cancel of the first at a price loses the others",
        "F1",
        "book",
        "level.head = after\n",
        "level.head = level.tail = None\n",
    ),
    Plant("an emptied level stays", "F1", "book", "if level.head is None:\n            self._drop(level.key)", "pass"),
    Plant(
        "a trade is at the taker's price",
        "F1",
        "floor",
        "price = maker.price\n        left",
        "price = taker.price or maker.price\n        left",
        quick=True,
    ),
    Plant(
        "a taker goes a tick beyond its price",
        "F1",
        "matching",
        "while order.quantity and keys and keys[-1] >= limit:",
        "while order.quantity and keys and keys[-1] >= limit - 1:",
    ),
    Plant("what an ioc leaves rests", "F7", "matching", "elif order.time_in_force is _IOC:", "elif False:", quick=True),
    Plant(
        "what a market order leaves waits",
        "F3",
        "matching",
        "floor.cancel(events, order, order.client_id, CancelReason.MARKET_REMAINDER, live=False)",
        "floor.wait(order)",
    ),
    Plant(
        "a maker filled in part goes behind the others",
        "F2",
        "floor",
        "maker.quantity = left\n            level.total -= lots\n",
        "maker.quantity = left\n            level.total -= lots\n            if left:\n"
        "                book.side(maker.side).remove(maker)\n                book.side(maker.side).rest(maker)\n",
        quick=True,
    ),
    Plant(
        "fok trades in part",
        "F7",
        "matching",
        "if order.time_in_force is _FOK and plan",
        "if False and plan",
        quick=True,
    ),
    Plant(
        "fok asks for one maker that is large enough",
        "F7",
        "matching",
        "if order.time_in_force is _FOK and plan(other, order, limit, shown_only=False) is None:",
        "if order.time_in_force is _FOK and len(plan(other, order, limit, shown_only=False) or ()) != 1:",
    ),
    Plant(
        "fok counts own orders",
        "F7",
        "matching",
        "if mode is not _NONE and maker.account == taker.account:",
        "if taker.kind == ALL_OR_NONE and mode is not _NONE and maker.account == taker.account:",
    ),
    Plant(
        "post-only trades when it comes in",
        "F9",
        "matching",
        "return _next(other, limit, quantity) is not None",
        "return False",
    ),
    # Stops
    Plant(
        "a cascade of stops ends after the first",
        "F5",
        "stops",
        "order.kind = MARKET if order.kind == STOP else LIMIT\n        enter(floor, events, order)\n",
        "order.kind = MARKET if order.kind == STOP else LIMIT\n        enter(floor, events, order)\n        return\n",
        quick=True,
    ),
    Plant(
        "a stop waits until its trigger is passed",
        "F4",
        "stops",
        "return order if -key <= last_price * side.sign",
        "return order if -key < last_price * side.sign",
    ),
    Plant(
        "sell stops come before buy stops",
        "F5",
        "stops",
        "order = _next(book.bids, book.last_price)\n        if order is None:\n"
        "            order = _next(book.asks, book.last_price)",
        "order = _next(book.asks, book.last_price)\n        if order is None:\n"
        "            order = _next(book.bids, book.last_price)",
    ),
    Plant(
        "a replaced stop keeps its old trigger",
        "F16",
        "orders",
        "order.quantity, order.price, order.trigger = quantity, price, trigger",
        "order.quantity, order.price = quantity, price",
    ),
    # Icebergs, all-or-none
    Plant(
        "an iceberg keeps its place",
        "F10",
        "floor",
        "self.replenish(events, maker, keeps_place=False)",
        "self.replenish(events, maker, keeps_place=True)",
        quick=True,
    ),
    Plant(
        "an iceberg shows all of it",
        "F10",
        "floor",
        "if order.display and order.quantity > order.display:",
        "if False:",
    ),
    Plant(
        "an all-or-none that is too large ends the taker's way",
        "F13",
        "matching",
        "if order.quantity <= quantity:\n            return order\n",
        "return order if order.quantity <= quantity else None\n",
    ),
    Plant(
        "takers do not see all-or-nones",
        "F13",
        "matching",
        "if other.all_or_none or order.self_trade is not _NONE:",
        "if order.self_trade is not _NONE:",
    ),
    Plant(
        "an all-or-none that comes in always waits",
        "F12",
        "matching",
        "fills = plan(other, order, limit, shown_only=False)\n        if fills is None:",
        "fills = plan(other, order, limit, shown_only=False)\n        if True:",
    ),
    Plant(
        "a waiting all-or-none is not looked at",
        "F14",
        "matching",
        "if other.all_or_none:\n            look_at_all_or_none(floor, events, other)",
        "pass",
    ),
    # Replacements
    Plant(
        "a smaller replacement loses its place",
        "F15",
        "orders",
        "elif command.price == order.price and quantity <= order.quantity + order.hidden:",
        "elif False:",
    ),
    Plant(
        "a larger replacement keeps its place",
        "F15",
        "orders",
        "elif command.price == order.price and quantity <= order.quantity + order.hidden:",
        "elif command.price == order.price:",
        quick=True,
    ),
    Plant(
        "a smaller iceberg loses its shown part first",
        "F15",
        "orders",
        "hidden = max(0, quantity - old_shown)",
        "hidden = min(old_hidden, quantity - 1)",
    ),
    Plant(
        "a replacement in total mode forgets what traded",
        "F15",
        "checks",
        "return quantity - order.filled if",
        "return quantity if",
        "steps",
    ),
    # Self-trade prevention
    Plant(
        "own orders trade",
        "S1",
        "matching",
        "if prevents and maker.account == taker.account:",
        "if False:",
        quick=True,
    ),
    Plant(
        "cancel_both spares the taker",
        "S2",
        "matching",
        "if mode is not SelfTrade.CANCEL_OLDEST:\n",
        "if mode is SelfTrade.CANCEL_NEWEST:\n",
    ),
    Plant(
        "decrement takes from the maker only",
        "S3",
        "matching",
        "taker.quantity -= lots\n    _tell_part",
        "_tell_part",
    ),
    Plant(
        "decrement does not replenish",
        "S3",
        "matching",
        "if not maker.quantity and maker.hidden:\n        floor.replenish(events, maker, keeps_place=False)",
        "pass",
    ),
    # Crosses
    Plant(
        "a cross is a tick too high",
        "A2",
        "auction",
        "return Equilibrium(best, most,",
        "return Equilibrium(best + 1, most,",
        "auctions",
        quick=True,
    ),
    Plant(
        "a cross does not look at the surplus",
        "A2",
        "auction",
        "left = [price for price in left if abs(buys[price] - sells[price]) == least]",
        "left = [price for price in left if least >= 0]",
        "auctions",
    ),
    Plant(
        "more to buy: the lowest price",
        "A2",
        "auction",
        "best = left[-1]",
        "best = left[0]",
        "auctions",
    ),
    Plant(
        "the reference of a cross is the instrument's",
        "A4",
        "auction",
        "reference = book.last_price or book.instrument.reference",
        "reference = book.instrument.reference",
        "auctions",
    ),
    Plant(
        "the younger order of a cross is the maker",
        "A5",
        "auction",
        "buys_later = bid.order_id > ask.order_id",
        "buys_later = bid.order_id < ask.order_id",
        "auctions",
    ),
    Plant(
        "the rest of market orders outlives a cross",
        "A6",
        "auction",
        "floor.cancel(events, order, order.client_id, CancelReason.MARKET_REMAINDER, live=True)",
        "pass",
        "auctions",
    ),
    Plant(
        "a cross puts icebergs behind the others",
        "A6",
        "auction",
        "floor.replenish(events, order, keeps_place=True)",
        "floor.replenish(events, order, keeps_place=False)",
        "auctions",
    ),
    Plant(
        "closing after pre_open makes no cross",
        "P5",
        "session",
        "(old is TradingPhase.PRE_OPEN and phase not in GATHERING)",
        "False",
        "auctions",
    ),
    Plant(
        "a halted symbol is crossed",
        "P7",
        "session",
        "if crosses and not stands and book.halt is None and not book.paused_until:",
        "if crosses and not stands and not book.paused_until:",
        "auctions",
    ),
    # Money
    Plant(
        "fees are rounded down",
        "M2",
        "floor",
        "whole = (2 * abs(product) + MILLION) // (2 * MILLION)",
        "whole = abs(product) // MILLION",
        "holds",
        quick=True,
    ),
    Plant(
        "half a millionth is always rounded up",
        "M2",
        "floor",
        "return whole if product >= 0 else -whole",
        "return (2 * product + MILLION) // (2 * MILLION)",
        "holds",
    ),
    Plant(
        "a cross takes the taker's fee",
        "M2",
        "auction",
        "paid = fee(cost, book.instrument.auction_fee_ppm)",
        "paid = fee(cost, book.instrument.taker_fee_ppm)",
        "auctions",
    ),
    Plant(
        "the seller's fee is lost",
        "M3",
        "floor",
        "buyer_fee + seller_fee",
        "buyer_fee",
        "holds",
    ),
    Plant(
        "a hold leaves the fee out",
        "M4",
        "floor",
        "return notional + -(-notional",
        "return notional + 0 * -(-notional",
        "holds",
    ),
    Plant(
        "a hold is rounded down",
        "M4",
        "floor",
        "return notional + -(-notional",
        "return notional + (notional",
        "holds",
    ),
    Plant(
        "an order that is gone holds on",
        "M5",
        "floor",
        "if order.held:\n            self.release(order)",
        "pass",
        "holds",
        quick=True,
    ),
    Plant(
        "a trade gives no hold back",
        "M5",
        "floor",
        "if self.holds and level is not None:",
        "if False:",
        "holds",
    ),
    # Time and phases
    Plant(
        "the close expires gtc orders",
        "P2",
        "session",
        "*book.asks.all_orders()):\n            if order.time_in_force is TimeInForce.DAY:",
        "*book.asks.all_orders()):\n            if order.time_in_force is not TimeInForce.GTT:",
    ),
    Plant(
        "what is due now is due later",
        "T2",
        "session",
        "while floor.timers and floor.timers[0][0] <= now:",
        "while floor.timers and floor.timers[0][0] < now:",
    ),
    Plant(
        "an order counts a full second long, its end included",
        "C4",
        "checks",
        "sent[0] <= floor.clock - SECOND",
        "sent[0] < floor.clock - SECOND",
        "steps",
    ),
    Plant(
        "a mass cancel begins with the youngest",
        "R6",
        "orders",
        "fitting.sort(key=_by_id)",
        "fitting.sort(key=_by_id, reverse=True)",
    ),
    Plant("client ids are never forgotten", "C2", "engine", "self._known.clear()\n", "pass\n", "auctions"),
    # The moving band, breakers
    Plant(
        "the mean looks at four minutes",
        "B2",
        "bands",
        "WINDOW: Final = 300 * SECOND",
        "WINDOW: Final = 240 * SECOND",
        "bands",
    ),
    Plant("the mean is rounded up", "B2", "bands", "mean = total // count", "mean = -(-total // count)", "bands"),
    Plant(
        "the reference follows from two in a hundred on",
        "B2",
        "bands",
        "MOVES_AT_PERCENT: Final = 1",
        "MOVES_AT_PERCENT: Final = 2",
        "bands",
    ),
    Plant(
        "buyers take above the band",
        "B3",
        "bands",
        "return min(order.price, upper) if order.price else upper",
        "return order.price or upper",
        "bands",
        quick=True,
    ),
    Plant(
        "a reopening does not move the reference",
        "B5",
        "session",
        "book.band_reference = book.last_price",
        "pass",
        "bands",
    ),
    Plant(
        "a breaker waits until its share is passed",
        "B6",
        "session",
        "level = sum(fallen >= percent",
        "level = sum(fallen > percent",
        "all",
    ),
)
