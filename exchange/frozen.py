"""A floor's whole state as a value, and back; and what is remembered of requests.

The values stand apart from the machine that fills them: msgspec reads and writes them, the machine may be compiled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from heapq import heapify
from typing import Final

import msgspec

from exchange.blotter import Carried
from exchange.book import LIMIT, Amount, Book, Order
from exchange.commands import Command
from exchange.events import Event
from exchange.floor import CONTINUATION, EXPIRY, LIMIT_STATE_END, MARKET_PAUSE_END, NEVER, PAUSE_END, Floor
from exchange.types import (
    AccountId,
    ClientId,
    HaltReason,
    Instrument,
    OrderId,
    SelfTrade,
    SessionId,
    Side,
    Symbol,
    TimeInForce,
    TradingPhase,
    Venue,
)
from kernel.errors import InputError

_encode: Final = msgspec.msgpack.Encoder().encode


def fingerprint(command: Command) -> bytes:
    """Return 16 bytes that are equal for equal commands and, for all practical purposes, for no others."""
    try:
        body = _encode(command)
    except (TypeError, ValueError, OverflowError):
        # No journal holds such a command: a field is of a type, or of a size, that none can have.
        body = _words(command).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(body, digest_size=16).digest()


def _words(value: object) -> str:
    """Return words for whatever a field of a command may hold."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - Python writes no number of more than 4,300 digits; others may raise anything
        fields = value.__struct_fields__ if isinstance(value, msgspec.Struct) else ()
        within = ", ".join(_words(getattr(value, name)) for name in fields)
        return hex(value) if isinstance(value, int) else f"{type(value).__name__}({within})"


class Known(msgspec.Struct, gc=False):
    """What is remembered of a request under its client id."""

    seq: int
    request: Command | bytes
    """The request itself, or its fingerprint once it was frozen."""
    events: tuple[Event, ...]
    """The first answer, to be given again."""

    @property
    def fingerprint(self) -> bytes:
        """What tells the request from others."""
        return self.request if isinstance(self.request, bytes) else fingerprint(self.request)

    def kept(self) -> KnownFrame:
        """Return this as a frozen state holds it."""
        return KnownFrame(self.seq, self.fingerprint, self.events)


class KnownFrame(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a frozen state holds of a request."""

    seq: int
    fingerprint: bytes
    events: tuple[Event, ...]


class OrderFrame(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One live order of a frozen state; the order of the list is the priority."""

    order_id: OrderId
    account: AccountId
    client_id: ClientId
    symbol: Symbol
    side: Side
    kind: int
    quantity: int
    time_in_force: TimeInForce
    self_trade: SelfTrade
    session: SessionId
    price: int
    trigger: int
    hidden: int
    display: int
    filled: int
    age: int
    expires_at: int
    post_only: bool


class BookFrame(msgspec.Struct, frozen=True, array_like=True):
    """A symbol's state without its orders."""

    symbol: Symbol
    symbol_seq: int
    last_price: int
    phase: TradingPhase
    halt: HaltReason | None
    paused_until: int
    reopening_until: int
    gathered: bool
    limited: bool
    limit_until: int
    band_reference: int
    recent: tuple[tuple[int, int, int], ...]
    positions: tuple[tuple[AccountId, str], ...]
    """Lots, as text: a sum may be larger than what MessagePack holds."""
    continue_at: int = 0


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """The state without the memory of client ids."""

    instruments: tuple[Instrument, ...]
    venue: Venue
    sequence: int
    clock: int
    orders_made: int
    trades_made: int
    ages: int
    phase: TradingPhase
    halt: HaltReason | None
    paused_until: int
    breaker_level: int
    books: tuple[BookFrame, ...]
    orders: tuple[OrderFrame, ...]
    cash: tuple[tuple[AccountId, str], ...]
    """Millionths, as text."""
    disabled: tuple[AccountId, ...]
    rates: tuple[tuple[AccountId, tuple[int, ...]], ...]


class Frozen(msgspec.Struct, frozen=True, array_like=True):
    """An engine's whole state as a value."""

    frame: Frame
    known: tuple[tuple[str, KnownFrame], ...]
    carried: tuple[Carried, ...] = ()
    """The orders that lived when the day began."""


def frame_of(floor: Floor, sequence: int) -> Frame:
    """Return a floor's state as a value."""
    return Frame(
        tuple(book.instrument for book in floor.sorted_books),
        floor.venue,
        sequence,
        floor.clock,
        floor.orders_made,
        floor.trades_made,
        floor.ages,
        floor.phase,
        floor.halt,
        floor.paused_until,
        floor.breaker_level,
        tuple(_book_frame(book) for book in floor.sorted_books),
        tuple(_order_frame(order) for book in floor.sorted_books for order in _all_of(book)),
        _amounts(floor.cash),
        tuple(sorted(floor.disabled)),
        tuple((AccountId(name), tuple(one.sent)) for name, one in sorted(floor.accounts.items()) if one.sent),
    )


def _amounts(amounts: dict[AccountId, Amount]) -> tuple[tuple[AccountId, str], ...]:
    return tuple((account, str(amounts[account].has)) for account in sorted(amounts) if amounts[account].has)


def _all_of(book: Book) -> list[Order]:
    stops = [order for side in (book.bids, book.asks) for _, _, order in side.stops]
    return [*book.bids.all_orders(), *book.asks.all_orders(), *stops]


def _book_frame(book: Book) -> BookFrame:
    return BookFrame(
        book.symbol,
        book.symbol_seq,
        book.last_price,
        book.phase,
        book.halt,
        book.paused_until,
        book.reopening_until,
        book.gathered,
        book.limited,
        book.limit_until,
        book.band_reference,
        tuple(book.recent),
        _amounts(book.positions),
        book.continue_at,
    )


def _order_frame(order: Order) -> OrderFrame:
    return OrderFrame(
        order.order_id,
        order.account,
        order.client_id,
        order.book.symbol,
        order.side,
        order.kind,
        order.quantity,
        order.time_in_force,
        order.self_trade,
        order.session,
        order.price,
        order.trigger,
        order.hidden,
        order.display,
        order.filled,
        order.age,
        order.expires_at,
        order.post_only,
    )


def floor_of(frame: Frame, instruments: Sequence[Instrument], venue: Venue) -> Floor:
    """Return a floor in the state of a frame; holds and timers follow from the rest.

    Raises:
        InputError: the state belongs to other instruments or another venue.
    """
    floor = Floor(instruments, venue)
    if frame.instruments != tuple(book.instrument for book in floor.sorted_books):
        raise InputError(
            "engine state", "it belongs to other instruments", right="give the instruments it was made with"
        )
    if frame.venue != venue:
        raise InputError("engine state", "it belongs to another venue", right="give the venue it was made with")
    floor.clock = frame.clock
    floor.orders_made = frame.orders_made
    floor.trades_made = frame.trades_made
    floor.ages = frame.ages
    floor.phase = frame.phase
    floor.halt = frame.halt
    floor.paused_until = frame.paused_until
    floor.breaker_level = frame.breaker_level
    for account, amount in frame.cash:
        floor.cash_of(account).has = int(amount)
    floor.disabled.update(frame.disabled)
    for account, sent in frame.rates:
        floor.account(account).sent.extend(sent)
    for kept in frame.books:
        _fill(floor.books[kept.symbol], kept)
    for one in frame.orders:
        _put(floor, one)
    floor.refresh()
    _set_timers(floor)
    return floor


def _fill(book: Book, kept: BookFrame) -> None:
    book.symbol_seq = kept.symbol_seq
    book.last_price = kept.last_price
    book.phase = kept.phase
    book.halt = kept.halt
    book.paused_until = kept.paused_until
    book.reopening_until = kept.reopening_until
    book.gathered = kept.gathered
    book.limited = kept.limited
    book.limit_until = kept.limit_until
    book.band_reference = kept.band_reference
    book.recent = list(kept.recent)
    book.continue_at = kept.continue_at
    book.positions.update({account: Amount(int(lots)) for account, lots in kept.positions})


def _put(floor: Floor, one: OrderFrame) -> None:
    book = floor.books[one.symbol]
    order = Order(
        one.order_id,
        one.account,
        one.client_id,
        book,
        one.side,
        one.kind,
        one.quantity,
        one.time_in_force,
        one.self_trade,
        one.session,
        floor.cash_of(one.account),
        floor.stock_of(book, one.account),
        one.expires_at,
        one.price,
        one.post_only,
        one.display,
    )
    order.trigger, order.hidden, order.filled, order.age = one.trigger, one.hidden, one.filled, one.age
    side = book.side(one.side)
    if one.kind == LIMIT:
        side.rest(order)
    else:
        side.wait(order)
    floor.orders[one.order_id] = order
    if floor.holds:
        floor.hold(order)


def _set_timers(floor: Floor) -> None:
    nobody = OrderId(0)
    timers = [
        (order.expires_at, EXPIRY, order.order_id, order.book.symbol)
        for order in floor.orders.values()
        if order.expires_at
    ]
    for book in floor.sorted_books:
        if book.limit_until:
            timers.append((book.limit_until, LIMIT_STATE_END, nobody, book.symbol))
        if book.continue_at:
            timers.append((book.continue_at, CONTINUATION, nobody, book.symbol))
        timers.extend(
            (until, PAUSE_END, nobody, book.symbol) for until in (book.paused_until, book.reopening_until) if until
        )
    if floor.paused_until:
        timers.append((floor.paused_until, MARKET_PAUSE_END, nobody, Symbol("")))
    heapify(timers)
    floor.timers = timers
    floor.next_due = timers[0][0] if timers else NEVER
