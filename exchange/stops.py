"""Stops: which trigger, in what order, and what follows from them (rules F4 to F6)."""

from __future__ import annotations

from exchange.book import LIMIT, MARKET, STOP, Book, BookSide, Order
from exchange.events import Event, Triggered
from exchange.floor import Floor
from exchange.matching import enter, look_at_all_or_none


def reached(book: Book, order: Order) -> bool:
    """Tell whether the last price is at a stop's trigger or beyond."""
    sign = book.side(order.side).sign
    return bool(book.last_price) and order.trigger * sign <= book.last_price * sign


def trigger_all(floor: Floor, events: list[Event], book: Book) -> None:
    """Let stops trigger, one after the other, each looked for with the last price the one before left."""
    while book.trading and book.last_price:
        order = _next(book.bids, book.last_price)
        if order is None:
            order = _next(book.asks, book.last_price)
        if order is None:
            return
        if floor.spent():
            floor.put_off(book)
            return
        floor.leave(order)
        book.symbol_seq += 1
        events.append(Triggered(order.order_id, book.symbol, book.symbol_seq))
        order.kind = MARKET if order.kind == STOP else LIMIT
        enter(floor, events, order)


def _next(side: BookSide, last_price: int) -> Order | None:
    if not side.stops:
        return None
    key, _, order = side.stops[-1]
    return order if -key <= last_price * side.sign else None


def begin(floor: Floor, events: list[Event], book: Book) -> None:
    """Look at all that waited for continuous trading: unseen orders, buys first, then stops (A8)."""
    if not book.trading:
        return
    look_at_all_or_none(floor, events, book.bids)
    look_at_all_or_none(floor, events, book.asks)
    trigger_all(floor, events, book)
