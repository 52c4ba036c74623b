"""The moving band around recent prices, and the limit state at its ends (rules B2 to B5)."""

from __future__ import annotations

from typing import Final

from exchange.book import Book, Order
from exchange.events import Event, LimitState
from exchange.floor import LIMIT_STATE_END, MILLION, Floor
from exchange.types import OrderId, Side, Ticks
from kernel.time import SECOND

WINDOW: Final = 300 * SECOND
"""Trades older than this are not looked at (LULD: five minutes)."""
MOVES_AT_PERCENT: Final = 1
"""How far a new mean must be from the reference to replace it."""


def edges(book: Book) -> tuple[int, int]:
    """Return the lowest and the highest price of the moving band, whole steps inside it.

    Where the mean lies between two steps and the band holds neither, these are its ends: else nothing could trade.
    """
    reference, step = book.band_reference, book.instrument.tick_step
    width = reference * book.luld_ppm // MILLION
    lower = max(-(-(reference - width) // step) * step, step)
    upper = (reference + width) // step * step
    return (lower, upper) if lower <= upper else (max(upper, step), lower)


def limit_price(book: Book, order: Order) -> int:
    """Return how far an order may trade: its own price or the end of the moving band, whichever comes first (B3)."""
    lower, upper = edges(book)
    if order.side is Side.BUY:
        return min(order.price, upper) if order.price else upper
    return max(order.price, lower)


def look(floor: Floor, events: list[Event], book: Book) -> None:
    """Enter or leave the limit state; to be called after each command, when nothing else is to come."""
    lower, upper = edges(book)
    bids, asks = book.bids.keys, book.asks.keys
    limited = book.trading and bool((bids and bids[-1] >= upper) or (asks and -asks[-1] <= lower))
    if limited == book.limited:
        return
    book.limited = limited
    book.limit_until = floor.clock + floor.venue.limit_state_seconds * SECOND if limited else 0
    if limited:
        floor.schedule(book.limit_until, LIMIT_STATE_END, OrderId(0), book.symbol)
    book.symbol_seq += 1
    events.append(LimitState(book.symbol, book.symbol_seq, limited, Ticks(lower), Ticks(upper)))


def move_all(floor: Floor) -> None:
    """Move the band of every symbol that traded (B2)."""
    for book in floor.moving:
        if book.unlooked:
            _move(floor, book)


def look_at_all(floor: Floor, events: list[Event]) -> None:
    """Look at every symbol with a moving band (B4)."""
    for book in floor.moving:
        look(floor, events, book)


def _move(floor: Floor, book: Book) -> None:
    """Take the mean of the recent trades as the reference when it is far enough from the one that holds."""
    book.unlooked = False
    oldest = floor.clock - WINDOW
    recent = [one for one in book.recent if one[0] > oldest]
    book.recent = recent
    total = count = 0
    for _, prices, trades in recent:
        total += prices
        count += trades
    mean = total // count
    if abs(mean - book.band_reference) * 100 >= MOVES_AT_PERCENT * book.band_reference:
        book.band_reference = mean
