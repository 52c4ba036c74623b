"""Continuous trading: an order that comes in meets those that stand (rules F1 to F14, S1 to S5)."""

from __future__ import annotations

from collections import deque
from typing import Final

from exchange.bands import limit_price
from exchange.book import ALL_OR_NONE, LIMIT, MARKET, BookSide, Order
from exchange.events import Canceled, Event
from exchange.floor import Floor
from exchange.types import MAX_PRICE_TICKS, CancelReason, Lots, SelfTrade, Side, Ticks, TimeInForce

_BUY: Final = Side.BUY
_NONE: Final = SelfTrade.NONE
_IOC: Final = TimeInForce.IOC
_FOK: Final = TimeInForce.FOK
_WORST_KEY: Final = -(MAX_PRICE_TICKS + 1)
"""Below the key of every level: how far an order without a limit goes."""


class Fill:
    """A part of a plan: so many lots of that order."""

    __slots__ = ("lots", "maker")

    def __init__(self, maker: Order, lots: int) -> None:
        self.maker = maker
        self.lots = lots


class _Part:
    """An order as a plan sees it: what it shows at its turn, and what comes later."""

    __slots__ = ("hidden", "order", "shown")

    def __init__(self, order: Order, shown: int, hidden: int) -> None:
        self.order = order
        self.shown = shown
        self.hidden = hidden


def enter(floor: Floor, events: list[Event], order: Order) -> None:
    """Let a limit, market or all-or-none order come into a book that matches: trade, and rest or cancel the rest."""
    book = order.book
    buys = order.side is _BUY
    other = book.asks if buys else book.bids
    price = limit_price(book, order) if book.luld_ppm else order.price
    limit = (-price if buys else price) if price else _WORST_KEY
    if order.kind == ALL_OR_NONE:
        order.price = price
        fills = plan(other, order, limit, floor.most_met, shown_only=False)
        if fills is None:
            floor.wait(order)
        else:
            carry_out(floor, events, order, fills)
        return
    if order.time_in_force is _FOK and plan(other, order, limit, floor.most_met, shown_only=False) is None:
        floor.cancel(events, order, order.client_id, CancelReason.FOK_UNFILLED, live=False)
        return
    keys = other.keys
    if other.all_or_none or (keys and keys[-1] >= limit):
        _match(floor, events, other, order, limit)
    if not order.quantity:
        return
    if order.kind == MARKET:
        if not floor.market_rests or order.time_in_force is _IOC or not order.filled:
            floor.cancel(events, order, order.client_id, CancelReason.MARKET_REMAINDER, live=False)
            return
        order.kind = LIMIT
        price = book.last_price  # its own last trade was the last one
    elif order.time_in_force is _IOC:
        floor.cancel(events, order, order.client_id, CancelReason.IOC_REMAINDER, live=False)
        return
    order.price = price
    floor.show(events, order)
    if other.all_or_none:
        look_at_all_or_none(floor, events, other)


def _match(floor: Floor, events: list[Event], other: BookSide, taker: Order, limit: int) -> None:
    """Trade with who stands there, the best first; unseen orders may stand in between (F13, S1)."""
    prevents = taker.self_trade is not _NONE
    keys, levels, unseen, account = other.keys, other.levels, other.all_or_none, taker.account
    left = floor.most_met
    while taker.quantity:
        if unseen:
            maker = _next(other, limit, taker.quantity)
        elif keys and keys[-1] >= limit:
            maker = levels[keys[-1]].head
        else:
            return
        if maker is None:
            return
        if not left:
            floor.cancel(events, taker, taker.client_id, CancelReason.TRADE_LIMIT, live=False)
            return
        left -= 1
        if prevents and maker.account == account:
            _prevent(floor, events, maker, taker)
        else:
            shown = maker.quantity
            # No `min`: a call for each trade.
            floor.trade(events, maker, taker, shown if shown < taker.quantity else taker.quantity)  # noqa: FURB136


def _next(other: BookSide, limit: int, quantity: int) -> Order | None:
    """Return whom a taker with so much left meets next; an unseen order larger than that is passed over."""
    best: Order | None = None
    best_key = limit
    if other.keys and other.keys[-1] >= limit:
        best_key = other.keys[-1]
        best = other.levels[best_key].head
    for order in other.all_or_none:
        key = order.price * other.sign
        if key < best_key or (best is not None and key == best_key and order.age > best.age):
            break
        if order.quantity <= quantity:
            return order
    return best


def _prevent(floor: Floor, events: list[Event], maker: Order, taker: Order) -> None:
    """Keep two orders of one account from trading, as the taker's mode says (S2, S3)."""
    mode = taker.self_trade
    floor.prevented += 1
    if mode is SelfTrade.DECREMENT:
        _decrement(floor, events, maker, taker)
        return
    if mode is not SelfTrade.CANCEL_NEWEST:
        floor.cancel(events, maker, taker.client_id, CancelReason.SELF_TRADE, live=True)
    if mode is not SelfTrade.CANCEL_OLDEST:
        floor.cancel(events, taker, taker.client_id, CancelReason.SELF_TRADE, live=False)


def _decrement(floor: Floor, events: list[Event], maker: Order, taker: Order) -> None:
    book = maker.book
    lots = min(maker.quantity, taker.quantity)
    if lots == maker.quantity + maker.hidden:
        floor.cancel(events, maker, taker.client_id, CancelReason.SELF_TRADE, live=True)
    else:
        assert maker.level is not None, "an all-or-none order is met whole"
        maker.quantity -= lots
        maker.level.total -= lots
        if floor.holds:
            floor.hold(maker)
        _tell_part(events, maker, taker, lots, live=True)
    taker.quantity -= lots
    _tell_part(events, taker, taker, lots, live=False)
    assert book is taker.book, "orders of two symbols never meet"
    if not maker.quantity and maker.hidden:
        floor.replenish(events, maker, keeps_place=False)


def _tell_part(events: list[Event], order: Order, taker: Order, lots: int, *, live: bool) -> None:
    book = order.book
    book.symbol_seq += 1
    price = None if order.kind == MARKET else Ticks(order.price)
    events.append(
        Canceled(
            order.order_id,
            order.account,
            taker.client_id,
            book.symbol,
            book.symbol_seq,
            order.side,
            price,
            Lots(lots),
            CancelReason.SELF_TRADE,
            live,
            Lots(order.open),
        )
    )


def plan(other: BookSide, taker: Order, limit: int, most: int, *, shown_only: bool) -> list[Fill] | None:
    """Return whom a taker would trade with, and how much, so that all of it trades; None when it cannot.

    It cannot, either, when it would have to meet more than `most` for that (L2).

    It walks as matching would (F13), new parts of icebergs behind the others included. Own orders that prevention
    keeps it from are passed over by an all-or-none order and by `cancel_oldest`; the other modes end the walk (F7, S5).
    """
    left = taker.quantity
    mode = taker.self_trade
    ends_at_own = mode is not _NONE and mode is not SelfTrade.CANCEL_OLDEST and taker.kind != ALL_OR_NONE
    fills: list[Fill] = []
    canceled = 0
    for key in _keys(other, limit, shown_only=shown_only):
        queue = _queue(other, key, shown_only=shown_only)
        while queue:
            part = queue.popleft()
            maker = part.order
            if maker.kind == ALL_OR_NONE and maker.quantity > left:
                continue
            if mode is not _NONE and maker.account == taker.account:
                if ends_at_own:
                    return None
                if taker.kind != ALL_OR_NONE:
                    canceled += 1
                continue
            if len(fills) + canceled >= most:
                return None
            lots = min(left, part.shown)
            fills.append(Fill(maker, lots))
            left -= lots
            if not left:
                return fills
            if part.hidden:
                shown = min(maker.display, part.hidden)
                queue.append(_Part(maker, shown, part.hidden - shown))
    return None


def _keys(other: BookSide, limit: int, *, shown_only: bool) -> list[int]:
    """Return the keys of all prices within a limit, best first."""
    keys = [key for key in reversed(other.keys) if key >= limit]
    if other.all_or_none and not shown_only:
        unseen = {order.price * other.sign for order in other.all_or_none}
        keys = sorted({*keys, *(key for key in unseen if key >= limit)}, reverse=True)
    return keys


def _queue(other: BookSide, key: int, *, shown_only: bool) -> deque[_Part]:
    """Return the orders of one price, oldest first."""
    parts: list[_Part] = []
    level = other.levels.get(key)
    order = None if level is None else level.head
    while order is not None:
        parts.append(_Part(order, order.quantity, order.hidden))
        order = order.after
    if other.all_or_none and not shown_only:
        parts.extend(_Part(one, one.quantity, 0) for one in other.all_or_none if one.price * other.sign == key)
        parts.sort(key=lambda part: part.order.age)
    return deque(parts)


def carry_out(floor: Floor, events: list[Event], taker: Order, fills: list[Fill]) -> None:
    """Trade as planned."""
    for fill in fills:
        floor.trade(events, fill.maker, taker, fill.lots)
    assert not taker.quantity, f"the plan of order {taker.order_id} left {taker.quantity}"


def look_at_all_or_none(floor: Floor, events: list[Event], side: BookSide) -> None:
    """Fill the unseen orders of a side that the shown book can fill whole, the first first, until none can (F14)."""
    place = 0
    while place < len(side.all_or_none):
        order = side.all_or_none[place]
        other = order.book.asks if side.sign > 0 else order.book.bids
        if not other.keys or other.keys[-1] < order.price * other.sign:
            return  # nothing is offered at its price, and those after it ask for a better one
        if try_to_fill(floor, events, order):
            place = 0
        else:
            place += 1


def try_to_fill(floor: Floor, events: list[Event], order: Order) -> bool:
    """Fill a waiting all-or-none order from the shown book if that can fill it whole."""
    book = order.book
    other = book.asks if order.side is _BUY else book.bids
    price = limit_price(book, order) if book.luld_ppm else order.price
    limit = price * other.sign
    if not other.keys or other.keys[-1] < limit:
        return False
    fills = plan(other, order, limit, floor.most_met, shown_only=True)
    if fills is None:
        return False
    if floor.spent():
        floor.put_off(book)
        return False
    floor.leave(order)
    carry_out(floor, events, order, fills)
    return True


def would_trade(order_side: Side, other: BookSide, limit: int, quantity: int) -> bool:
    """Tell whether an order would trade at once; its self-trade prevention is not looked at (C16)."""
    assert order_side in {Side.BUY, Side.SELL}, "an order has a side"
    return _next(other, limit, quantity) is not None
