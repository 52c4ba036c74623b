"""One price for all: finding it, and trading at it (rules A1 to A8)."""

from __future__ import annotations

from typing import Final

from exchange.book import MARKET, Book, BookSide, Order
from exchange.events import Crossed, Event, Traded
from exchange.floor import Floor, fee
from exchange.types import CancelReason, CrossPrices, Lots, Money, Side, Ticks, TradeId

_WITH_REFERENCE: Final = CrossPrices.LIMITS_AND_REFERENCE


class Equilibrium:
    """The price of a cross, what trades at it, and what is left there (positive: more to buy)."""

    __slots__ = ("price", "surplus", "volume")

    def __init__(self, price: int, volume: int, surplus: int) -> None:
        self.price = price
        self.volume = volume
        self.surplus = surplus


def equilibrium(book: Book, cross_prices: CrossPrices) -> Equilibrium | None:
    """Return the price at which most trades (A1, A2); None when nothing would (A3)."""
    reference = book.last_price or book.instrument.reference
    reference = max(reference - reference % book.tick_step, book.tick_step)
    limits = {*book.bids.keys, *[-key for key in book.asks.keys]}
    prices = sorted({reference, *limits} if cross_prices is _WITH_REFERENCE or not limits else limits)
    buys = _at_or_better(book.bids, prices)
    sells = _at_or_better(book.asks, prices)
    most = max(min(buys[price], sells[price]) for price in prices)
    if not most:
        return None
    left = [price for price in prices if min(buys[price], sells[price]) == most]
    least = min(abs(buys[price] - sells[price]) for price in left)
    left = [price for price in left if abs(buys[price] - sells[price]) == least]
    between = [price for price in left if price in limits]
    if between:  # the reference decides between limit prices; it is none beyond them
        left = [price for price in left if between[0] <= price <= between[-1]]
    if all(buys[price] > sells[price] for price in left):
        best = left[-1]
    elif all(buys[price] < sells[price] for price in left):
        best = left[0]
    else:
        distance = min(abs(price - reference) for price in left)
        best = max(price for price in left if abs(price - reference) == distance)
    return Equilibrium(best, most, buys[best] - sells[best])


def _at_or_better(side: BookSide, prices: list[int]) -> dict[int, int]:
    """Return for each price (given sorted) how much would trade at it on one side."""
    found: dict[int, int] = {}
    total = sum(order.quantity for order in side.markets)
    keys = side.keys
    place = len(keys) - 1
    for price in prices if side.sign < 0 else reversed(prices):
        key = price * side.sign
        while place >= 0 and keys[place] >= key:
            level = side.levels[keys[place]]
            total += level.total + level.hidden
            place -= 1
        found[price] = total
    return found


def cross(floor: Floor, events: list[Event], book: Book) -> int:
    """Trade what was gathered at one price and cancel what is left of market orders; return the price, 0 for none."""
    book.gathered = False
    found = equilibrium(book, floor.venue.cross_prices)
    emptied: list[Order] = []
    if found is not None:
        _trade_at(floor, events, book, found, emptied)
    for order in (*book.bids.markets, *book.asks.markets):
        floor.cancel(events, order, order.client_id, CancelReason.MARKET_REMAINDER, live=True)
    for order in emptied:
        floor.replenish(events, order, keeps_place=True)
        if floor.holds:
            floor.hold(order)
    return 0 if found is None else found.price


def _trade_at(floor: Floor, events: list[Event], book: Book, found: Equilibrium, emptied: list[Order]) -> None:
    place = len(events)
    book.symbol_seq += 1
    first_seq = book.symbol_seq
    bids = _queue(book.bids, found.volume)
    asks = _queue(book.asks, found.volume)
    bid_prices = _prices(bids)
    ask_prices = _prices(asks)
    left = found.volume
    bid_place = ask_place = 0
    while left:
        bid, ask = bids[bid_place], asks[ask_place]
        lots = min(left, bid.quantity + bid.hidden, ask.quantity + ask.hidden)
        left -= lots
        bid_left, ask_left = _take(floor, bid, lots, emptied), _take(floor, ask, lots, emptied)
        _tell(floor, events, bid, ask, lots, found.price, bid_left if bid.order_id < ask.order_id else ask_left)
        bid_place += not bid.quantity + bid.hidden
        ask_place += not ask.quantity + ask.hidden
    book.last_price = found.price
    emptied.sort(key=lambda order: (order.side is not Side.BUY, -order.price * book.side(order.side).sign, order.age))
    events.insert(
        place,
        Crossed(
            book.symbol,
            first_seq,
            Ticks(found.price),
            Lots(found.volume),
            found.surplus,
            _levels(book.bids, bid_prices),
            _levels(book.asks, ask_prices),
        ),
    )


def _queue(side: BookSide, volume: int) -> list[Order]:
    """Return the orders that trade `volume`: market orders first, then by price, then by age (A5)."""
    chosen: list[Order] = []
    left = volume
    for order in side.markets:
        if left > 0:
            chosen.append(order)
            left -= order.quantity
    if left > 0:
        for order in side.orders():
            chosen.append(order)
            left -= order.quantity + order.hidden
            if left <= 0:
                break
    return chosen


def _prices(orders: list[Order]) -> list[int]:
    return list(dict.fromkeys(order.price for order in orders if order.kind != MARKET))


def _levels(side: BookSide, prices: list[int]) -> tuple[tuple[Ticks, Lots], ...]:
    """Return what is shown now at each of some prices."""
    told: list[tuple[Ticks, Lots]] = []
    for price in prices:
        level = side.levels.get(price * side.sign)
        told.append((Ticks(price), Lots(0 if level is None else level.total)))
    return tuple(told)


def _take(floor: Floor, order: Order, lots: int, emptied: list[Order]) -> int:
    """Take traded lots from an order, from its shown part first; return what that still holds."""
    order.filled += lots
    open_before = order.quantity + order.hidden
    if lots == open_before:
        if order in emptied:
            emptied.remove(order)
        floor.leave(order)
        order.quantity = order.hidden = 0
        return 0
    shown = min(lots, order.quantity)
    order.quantity -= shown
    order.hidden -= lots - shown
    if order.level is not None:
        order.level.total -= shown
        order.level.hidden -= lots - shown
        if not order.quantity and order not in emptied:
            emptied.append(order)
    if floor.holds:
        floor.hold(order)
    return 0 if order.kind == MARKET else order.quantity


def _tell(floor: Floor, events: list[Event], bid: Order, ask: Order, lots: int, price: int, maker_left: int) -> None:
    """Move the money of one trade of a cross and tell it; the older order is the maker."""
    book = bid.book
    buys_later = bid.order_id > ask.order_id
    maker, taker = (ask, bid) if buys_later else (bid, ask)
    cost = price * lots * book.money
    paid = fee(cost, book.instrument.auction_fee_ppm)
    floor.settle(bid, ask, lots, cost, paid, paid)
    if book.luld_ppm:
        floor.note_trade(book, price)
    floor.trades_made += 1
    book.symbol_seq += 1
    events.append(
        Traded(
            TradeId(floor.trades_made),
            book.symbol,
            book.symbol_seq,
            Ticks(price),
            Lots(lots),
            maker.order_id,
            taker.order_id,
            taker.side,
            bid.account,
            ask.account,
            Lots(maker_left),
            Money(paid),
            Money(paid),
        )
    )
