"""Phases, halts, pauses, breakers, and what becomes due (tables T and P, rules B5, B6, R7).

In every change the cross of the phase that ends comes first, then the orders that expire, then the event that tells the
change, then what the new phase lets happen: unseen orders and stops.
"""

from __future__ import annotations

from heapq import heappop
from typing import Final

from exchange.auction import cross
from exchange.bands import look_at_all, move_all
from exchange.book import STOP, Book, Order
from exchange.events import (
    Breaker,
    Event,
    Expired,
    Halted,
    Paused,
    PhaseChanged,
    Resumed,
    SessionClosed,
    SessionOpened,
)
from exchange.floor import (
    AUCTIONS,
    CONTINUATION,
    EXPIRY,
    LIMIT_STATE_END,
    MARKET_PAUSE_END,
    NEVER,
    PAUSE_END,
    Floor,
)
from exchange.stops import begin
from exchange.types import GATHERING, HaltReason, Lots, OrderId, Symbol, Ticks, TimeInForce, TradingPhase
from kernel.time import SECOND, Instant

BREAKER_PERCENTS: Final = (7, 13, 20)
"""By how much the index falls to reach level 1, 2 and 3 (MWCB)."""
_NO_ORDER: Final = OrderId(0)
_NO_SYMBOL: Final = Symbol("")
_TAKE_NO_ORDERS: Final = frozenset({TradingPhase.POST_CLOSE, TradingPhase.CLOSED})
_NONE_LEAVES: Final[list[Book]] = []
_CLOSED: Final = TradingPhase.CLOSED
_CONTINUOUS: Final = TradingPhase.CONTINUOUS


# --- turns -----------------------------------------------------------------------------------------------------------


def _leave(floor: Floor, books: list[Book], phase: TradingPhase) -> list[Book]:
    """Turn books to a phase; return those that make a cross because they leave their old one, in the given order."""
    leaving: list[Book] = []
    stands = _stands(floor)
    for book in books:
        old = book.phase
        crosses = old is not phase and (old in AUCTIONS or (old is TradingPhase.PRE_OPEN and phase not in GATHERING))
        if crosses and not stands and book.halt is None and not book.paused_until:
            leaving.append(book)
        book.reopening_until = 0
        book.phase = phase
    return leaving


def _stands(floor: Floor) -> bool:
    return floor.halt is not None or floor.paused_until > 0 or floor.phase is _CLOSED


def _open_up(floor: Floor, events: list[Event], books: list[Book], leaving: list[Book]) -> None:
    """Find out what trades now, and make the crosses in the order of `books` (P6).

    They are made by the books that are `leaving` (some of `books`, in their order) and by those that begin to trade
    with what they gathered.
    """
    floor.refresh()
    place = 0
    for book in books:
        leaves = place < len(leaving) and leaving[place] is book
        place += leaves
        if leaves or (book.trading and book.gathered):
            cross(floor, events, book)


def _begin(floor: Floor, events: list[Event], books: list[Book]) -> None:
    for book in books:
        begin(floor, events, book)


def turn(floor: Floor, events: list[Event], book: Book | None, phase: TradingPhase) -> None:
    """Turn one symbol, or the whole market, to another phase (table P)."""
    books = floor.sorted_books if book is None else [book]
    stood = [one for one in books if not one.trading]
    leaving = _leave(floor, books, phase)
    if book is None:
        if floor.phase is _CLOSED and phase is not _CLOSED:
            floor.breaker_level = 0
        floor.phase = phase
    _open_up(floor, events, books, leaving)
    if phase is _CLOSED:
        _expire_day(floor, events, books)
    if book is None:
        events.append(PhaseChanged(None, 0, phase))
    else:
        book.symbol_seq += 1
        events.append(PhaseChanged(book.symbol, book.symbol_seq, phase))
    _begin(floor, events, stood)


def close_session(floor: Floor, events: list[Event]) -> None:
    """Turn the whole market to closed, told as the end of the day."""
    place = len(events)
    turn(floor, events, None, _CLOSED)
    _tell_instead(events, place, SessionClosed())


def open_session(floor: Floor, events: list[Event], phase: TradingPhase) -> None:
    """Turn the whole market to a phase, told as the beginning of a day."""
    place = len(events)
    turn(floor, events, None, phase)
    _tell_instead(events, place, SessionOpened(phase))


def _tell_instead(events: list[Event], place: int, told: Event) -> None:
    """Put an event where the change of phase was told."""
    for index in range(place, len(events)):
        event = events[index]
        if type(event) is PhaseChanged and event.symbol is None:
            events[index] = told
            return
    raise AssertionError("a turn tells its phase")


def _expire_day(floor: Floor, events: list[Event], books: list[Book]) -> None:
    """Expire every day order: by symbol, then the stops of all of them by id, those that are ioc or fok, too (P2)."""
    stops: list[Order] = []
    for book in books:
        for order in (*book.bids.all_orders(), *book.asks.all_orders()):
            if order.time_in_force is TimeInForce.DAY:
                _expire(floor, events, order)
        stops.extend(order for _, _, order in (*book.bids.stops, *book.asks.stops))
    stops.sort(key=_by_id)
    for order in stops:
        if order.time_in_force is not TimeInForce.GTC and order.time_in_force is not TimeInForce.GTT:
            _expire(floor, events, order)


def _by_id(order: Order) -> int:
    return order.order_id


def _expire(floor: Floor, events: list[Event], order: Order) -> None:
    book = order.book
    unseen = order.level is None
    floor.leave(order)
    book.symbol_seq += 1
    price = order.trigger if order.kind == STOP else order.price
    quantity = order.quantity + order.hidden
    events.append(
        Expired(
            order.order_id,
            order.account,
            book.symbol,
            book.symbol_seq,
            order.side,
            Ticks(price),
            Lots(quantity),
            Lots(quantity if unseen else order.hidden),
        )
    )


# --- halts -----------------------------------------------------------------------------------------------------------


def halt(floor: Floor, events: list[Event], book: Book | None, reason: HaltReason) -> None:
    """Let a symbol, or the whole market, stand still. A pause of the symbol is over with it."""
    if book is None:
        floor.halt = reason
        events.append(Halted(None, 0, reason))
    else:
        if book.paused_until or book.reopening_until:
            book.gathered = True
        book.halt = reason
        book.paused_until = book.reopening_until = 0
        book.symbol_seq += 1
        events.append(Halted(book.symbol, book.symbol_seq, reason))
    floor.refresh()


def resume(floor: Floor, events: list[Event], book: Book | None, *, auction: bool) -> None:
    """Let a symbol, or the whole market, go on; what goes on already is answered like the first time (P3)."""
    if book is None:
        stood = floor.halt is not None
        floor.halt = None
        books = [one for one in floor.sorted_books if one.halt is None] if stood else []
        told: Event = Resumed(None, 0)
    else:
        stood = book.halt is not None
        book.halt = None
        books = [book] if stood else []
    gathers = auction and floor.phase is _CONTINUOUS
    if not gathers:
        if book is not None and stood:
            book.phase = floor.phase  # it stood: whatever it gathered waits for continuous trading (P7)
        _open_up(floor, events, books, _NONE_LEAVES)
        if book is not None and stood and floor.phase is _CLOSED:
            _expire_day(floor, events, books)
    if book is not None:
        book.symbol_seq += 1
        told = Resumed(book.symbol, book.symbol_seq)
    events.append(told)
    if gathers:
        for one in books:
            _reopen(floor, events, one)
    floor.refresh()
    _begin(floor, events, books)


def _reopen(floor: Floor, events: list[Event], book: Book) -> None:
    """Let a symbol gather orders for one price first."""
    book.phase = TradingPhase.INTRADAY_AUCTION
    book.gathered = True
    book.reopening_until = floor.clock + floor.venue.reopening_seconds * SECOND
    floor.schedule(book.reopening_until, PAUSE_END, _NO_ORDER, book.symbol)
    book.symbol_seq += 1
    events.append(PhaseChanged(book.symbol, book.symbol_seq, TradingPhase.INTRADAY_AUCTION))


# --- what becomes due -------------------------------------------------------------------------------------------------


def let_due_happen(floor: Floor, events: list[Event], now: int) -> None:
    """Let everything happen that is due by an instant, each at its own (T2)."""
    floor.begin_counting()
    floor.horizon = now
    while floor.timers and floor.timers[0][0] <= now:
        timer = heappop(floor.timers)
        if not floor.stands(timer):
            continue
        at, kind, order_id, symbol = timer
        floor.clock = max(floor.clock, at)
        traded = floor.trades_made
        if kind == EXPIRY:
            order = floor.orders[order_id]
            _expire(floor, events, order)
        elif kind == LIMIT_STATE_END:
            _pause(floor, events, floor.books[symbol])
        elif kind == PAUSE_END:
            _end_pause(floor, events, floor.books[symbol])
        elif kind == CONTINUATION:
            floor.books[symbol].continue_at = 0
            begin(floor, events, floor.books[symbol])
        else:
            _end_market_pause(floor, events)
        look_after(floor, events, traded)
    floor.next_due = floor.timers[0][0] if floor.timers else NEVER


def next_due(floor: Floor) -> int | None:
    """Return when something is due next; None when nothing is."""
    while floor.timers and not floor.stands(floor.timers[0]):
        heappop(floor.timers)
    floor.next_due = floor.timers[0][0] if floor.timers else NEVER
    return floor.timers[0][0] if floor.timers else None


def _pause(floor: Floor, events: list[Event], book: Book) -> None:
    """Turn a limit state that lasted into a pause (B5)."""
    book.limited = False
    book.limit_until = 0
    book.paused_until = floor.clock + floor.venue.pause_seconds * SECOND
    book.gathered = True
    floor.schedule(book.paused_until, PAUSE_END, _NO_ORDER, book.symbol)
    floor.refresh()
    book.symbol_seq += 1
    events.append(Paused(book.symbol, book.symbol_seq, Instant(book.paused_until)))


def _end_pause(floor: Floor, events: list[Event], book: Book) -> None:
    """End a symbol's pause or reopening auction with a cross; after a pause its price is the band's reference."""
    paused = book.paused_until > 0
    book.paused_until = book.reopening_until = 0
    recent, traded = book.recent, floor.trades_made
    book.recent = []
    gathered = paused and book.phase not in _TAKE_NO_ORDERS
    leaving = _leave(floor, [book], floor.phase)
    if gathered and not leaving and floor.phase not in GATHERING and not _stands(floor):
        leaving = [book]  # also where the market does not trade (P8)
    _open_up(floor, events, [book], leaving)
    if paused and floor.trades_made > traded:
        book.band_reference = book.last_price
    else:
        book.recent = [*recent, *book.recent]
    book.symbol_seq += 1
    events.append(PhaseChanged(book.symbol, book.symbol_seq, floor.phase))
    begin(floor, events, book)


def _end_market_pause(floor: Floor, events: list[Event]) -> None:
    floor.paused_until = 0
    _open_up(floor, events, floor.sorted_books, _NONE_LEAVES)
    events.append(PhaseChanged(None, 0, floor.phase))
    _begin(floor, events, floor.sorted_books)


def look_after(floor: Floor, events: list[Event], traded: int) -> None:
    """Look at bands and breakers once something was carried out; `traded` is how many trades there were before."""
    move_all(floor)
    if floor.venue.breakers and floor.trades_made > traded:
        _look_at_index(floor, events)
        move_all(floor)  # a breaker that closes the market may have crossed what an auction had gathered
    look_at_all(floor, events)


def _look_at_index(floor: Floor, events: list[Event]) -> None:
    """Stop the whole market when the sum of its prices has fallen far enough (B6)."""
    if floor.phase is not _CONTINUOUS or floor.paused_until:
        return
    index = sum(book.last_price or book.instrument.reference for book in floor.sorted_books)
    fallen = (floor.index_reference - index) * 100
    level = sum(fallen >= percent * floor.index_reference for percent in BREAKER_PERCENTS)
    if level <= floor.breaker_level:
        return
    floor.breaker_level = level
    events.append(Breaker(level))
    if level == len(BREAKER_PERCENTS):
        close_session(floor, events)
    else:
        floor.paused_until = floor.clock + floor.venue.breaker_seconds * SECOND
        floor.schedule(floor.paused_until, MARKET_PAUSE_END, _NO_ORDER, _NO_SYMBOL)
        floor.refresh()
        events.append(Paused(None, 0, Instant(floor.paused_until)))
