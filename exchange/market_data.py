"""The public feed: books by price level, folded from events, and the check a subscriber makes.

Per symbol the feed is a snapshot and then deltas. `seq` is the number of the symbol's last event that is contained,
`previous` the one before the delta: a subscriber whose own number is not `previous` has lost something. A heartbeat
names the last number of every symbol, so that the loss of a last message shows too.

While a symbol gathers orders for a cross its book may be crossed; the feed says so (`gathering`). What the engine does
not show (hidden parts, all-or-none orders, stops) stands in no message: only its trades are told.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from exchange.book import Depth, Top
from exchange.events import (
    Accepted,
    Canceled,
    Crossed,
    Event,
    Expired,
    Halted,
    Happened,
    Paused,
    PhaseChanged,
    Replaced,
    Replenished,
    Rested,
    Resumed,
    SessionClosed,
    SessionOpened,
    Traded,
    Triggered,
)
from exchange.types import GATHERING, Lots, Side, Symbol, Ticks, TradeId, TradingPhase
from kernel.time import Instant


class LevelChange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The new total quantity at a price; 0 means the level is gone."""

    side: Side
    price: Ticks
    quantity: Lots


class Print(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A trade as the public sees it."""

    trade_id: TradeId
    price: Ticks
    quantity: Lots
    taker_side: Side
    quoted: bool = True
    """Whether it had to respect the quotes published before its update.

    Not so in a cross, of or against an all-or-none order, and after another order of the same command.
    """


class Snapshot(msgspec.Struct, frozen=True, gc=False, tag="snapshot"):
    """A whole book: where a subscriber begins, or begins again."""

    symbol: Symbol
    seq: int
    bids: tuple[tuple[Ticks, Lots], ...]
    """Best first."""
    asks: tuple[tuple[Ticks, Lots], ...]
    halted: bool
    """Whether the symbol stands still on its own."""
    gathering: bool = False
    """Whether its orders wait for a cross: the book may be crossed."""
    phase: TradingPhase = TradingPhase.CONTINUOUS
    paused_until: Instant = Instant(0)
    """When the symbol's own pause ends; 0: none."""


class Delta(msgspec.Struct, frozen=True, gc=False, tag="delta"):
    """What one command changed in one symbol."""

    symbol: Symbol
    seq: int
    previous: int
    at: Instant
    changes: tuple[LevelChange, ...] = ()
    trades: tuple[Print, ...] = ()
    halted: bool = False
    """Whether the symbol stands still on its own, afterwards."""
    gathering: bool = False
    """Whether its orders wait for a cross, afterwards."""


class MarketStatus(msgspec.Struct, frozen=True, gc=False, tag="market"):
    """The whole market halted or resumed, or other symbols than before gather orders."""

    halted: bool
    at: Instant
    gathering: tuple[Symbol, ...] = ()
    """The symbols whose orders wait for a cross, sorted."""


class Heartbeat(msgspec.Struct, frozen=True, gc=False, tag="heartbeat"):
    """The feed lives: how far the journal is published, and the last number of every symbol."""

    journal_seq: int
    at: Instant
    seqs: dict[Symbol, int]


FeedMessage = Snapshot | Delta | MarketStatus | Heartbeat


class Levels:
    """One side of a book by price, with the best at hand."""

    __slots__ = ("_keys", "_quantities", "_sign")

    def __init__(self, side: Side) -> None:
        self._sign: Final = 1 if side is Side.BUY else -1
        self._quantities: dict[Ticks, Lots] = {}
        self._keys: list[int] = []

    def set(self, price: Ticks, quantity: int) -> None:
        """Let `quantity` stand at `price`; 0 or less takes the level away."""
        known = price in self._quantities
        key = price * self._sign
        if quantity > 0:
            self._quantities[price] = Lots(quantity)
            if not known:
                insort(self._keys, key)
        elif known:
            del self._quantities[price]
            del self._keys[bisect_left(self._keys, key)]

    def get(self, price: Ticks) -> int:
        """Return the quantity at a price."""
        return self._quantities.get(price, 0)

    def best(self) -> Ticks | None:
        """Return the best price, or None when the side is empty."""
        return Ticks(self._keys[-1] * self._sign) if self._keys else None

    def depth(self, levels: int | None = None) -> tuple[tuple[Ticks, Lots], ...]:
        """Return the best `levels` levels (None: all), best first."""
        count = len(self._keys) if levels is None else levels
        best = self._keys[-count:] if count > 0 else []
        return tuple((price, self._quantities[price]) for price in (Ticks(key * self._sign) for key in reversed(best)))


class LevelBook:
    """One symbol's book by price level."""

    __slots__ = ("asks", "bids", "gathering", "halted", "paused_until", "phase", "seq")

    def __init__(self) -> None:
        self.bids = Levels(Side.BUY)
        self.asks = Levels(Side.SELL)
        self.seq = 0
        self.halted = False
        self.gathering = False
        self.phase = TradingPhase.CONTINUOUS
        self.paused_until = 0

    def side(self, side: Side) -> Levels:
        """Return the bids or the offers."""
        return self.bids if side is Side.BUY else self.asks

    def top(self) -> Top:
        """Return the best bid and offer."""
        bid, ask = self.bids.best(), self.asks.best()
        return Top(
            bid,
            Lots(0 if bid is None else self.bids.get(bid)),
            ask,
            Lots(0 if ask is None else self.asks.get(ask)),
        )

    def crossed(self) -> bool:
        """Tell whether the best bid reaches the best offer."""
        bid, ask = self.bids.best(), self.asks.best()
        return bid is not None and ask is not None and bid >= ask


class MarketData:
    """Folds the event stream into books and into what the feed says of each step."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self._books: Final = {symbol: LevelBook() for symbol in symbols}
        self.journal_seq = 0
        """The last command folded in."""
        self.market_halted = False
        self.market_paused_until = 0
        self.market_phase = TradingPhase.CONTINUOUS
        self._gathering: tuple[Symbol, ...] = ()

    def snapshot(self, symbol: Symbol) -> Snapshot:
        """Return the whole book of a symbol.

        Raises:
            KeyError: the symbol is unknown.
        """
        book = self._books[symbol]
        return Snapshot(
            symbol,
            book.seq,
            book.bids.depth(),
            book.asks.depth(),
            book.halted,
            book.gathering,
            book.phase,
            Instant(book.paused_until),
        )

    def top(self, symbol: Symbol) -> Top:
        """Return a symbol's best bid and offer."""
        return self._books[symbol].top()

    def depth(self, symbol: Symbol, levels: int) -> Depth:
        """Return the best levels of a symbol."""
        book = self._books[symbol]
        return Depth(book.bids.depth(levels), book.asks.depth(levels))

    def heartbeat(self, at: Instant) -> Heartbeat:
        """Return the sign of life that stands for the present state."""
        return Heartbeat(self.journal_seq, at, {symbol: book.seq for symbol, book in self._books.items()})

    def status(self, at: Instant) -> MarketStatus:
        """Return how the whole market stands."""
        return MarketStatus(self.market_halted, at, self._gathering)

    def restore(
        self,
        journal_seq: int,
        books: Iterable[Snapshot],
        *,
        market_halted: bool = False,
        market_paused_until: int = 0,
        market_phase: TradingPhase = TradingPhase.CONTINUOUS,
    ) -> None:
        """Begin from whole books as of `journal_seq` instead of from the first event."""
        for snapshot in books:
            book = self._books[snapshot.symbol] = LevelBook()
            _fill(book, snapshot)
        self.journal_seq = journal_seq
        self.market_halted = market_halted
        self.market_paused_until = market_paused_until
        self.market_phase = market_phase
        self._gathering = self._gathering_now()

    def fold(self, happened: Happened) -> tuple[FeedMessage, ...]:
        """Take in what one command caused and return what the feed says of it: at most one delta a symbol.

        What was taken in before is left alone. A hole in the stream is a fault of whoever feeds it.
        """
        if happened.seq <= self.journal_seq:
            return ()
        assert happened.seq == self.journal_seq + 1, f"events of {happened.seq} follow those of {self.journal_seq}"
        self.journal_seq = happened.seq
        steps: dict[Symbol, _Step] = {}
        told = turned = False
        for event in happened.events:
            symbol = getattr(event, "symbol", None)
            if symbol is None:
                turned = self._market(event, happened.at) or turned
                told = told or isinstance(event, Halted | Resumed)
                continue
            symbol_seq: int = getattr(event, "symbol_seq", 0)
            if not symbol_seq:
                continue
            book = self._books[symbol]
            step = steps.get(symbol)
            if step is None:
                step = steps[symbol] = _Step(book.seq)
            assert symbol_seq == book.seq + 1, f"{symbol}: event {symbol_seq} follows {book.seq}"
            book.seq = symbol_seq
            if isinstance(event, Resumed) and book.halted:
                book.phase = self.market_phase
            step.take(book, event)
        changed = False
        for symbol in self._books if turned else steps:
            book = self._books[symbol]
            gathering = self._gathers(book, happened.at)
            changed = changed or gathering is not book.gathering
            book.gathering = gathering
        if changed:
            self._gathering = self._gathering_now()
        messages: list[FeedMessage] = []
        if told or (turned and changed):
            messages.append(self.status(happened.at))
        messages.extend(step.delta(symbol, self._books[symbol], happened.at) for symbol, step in steps.items())
        return tuple(messages)

    def _market(self, event: Event, at: Instant) -> bool:
        """Take in an event of the whole market; tell whether it can change what symbols gather."""
        phase: TradingPhase | None = None
        match event:
            case Halted() | Resumed():
                self.market_halted = isinstance(event, Halted)
            case Paused():
                self.market_paused_until = event.until
            case PhaseChanged() if 0 < self.market_paused_until <= at:
                self.market_paused_until = 0  # told that the pause is over: symbols keep their own phases
            case PhaseChanged():
                phase = event.phase
            case SessionClosed():
                phase = TradingPhase.CLOSED
            case SessionOpened():
                phase = event.phase
            case _:
                return False
        if phase is not None:
            self.market_phase = phase
            for book in self._books.values():
                book.phase = phase
        return True

    def _gathers(self, book: LevelBook, at: Instant) -> bool:
        paused = book.paused_until > at or self.market_paused_until > at
        if book.phase in GATHERING or (paused and book.phase is TradingPhase.CONTINUOUS):
            return True
        stands = book.halted or self.market_halted or self.market_phase is TradingPhase.CLOSED
        trades = book.phase is TradingPhase.CONTINUOUS and not stands
        # What was gathered before a halt or a close is crossed when trading begins again, not before.
        return book.gathering and not trades

    def _gathering_now(self) -> tuple[Symbol, ...]:
        return tuple(sorted(symbol for symbol, book in self._books.items() if book.gathering))


class _Step:
    """What one command changes in one book, gathered for one delta."""

    def __init__(self, previous: int) -> None:
        self._previous = previous
        self._changed: dict[tuple[Side, Ticks], None] = {}
        self._trades: list[Print] = []
        self._cross_left = 0
        """What is still to come of the trades of a cross."""
        self._moved = False
        """Whether the book before this command is the yardstick of its trades no longer."""

    def take(self, book: LevelBook, event: Event) -> None:
        match event:
            case Rested():
                self._add(book, event.side, event.price, event.quantity)
                self._moved = True
            case Traded():
                self._traded(book, event)
            case Canceled():
                if event.resting and event.price is not None:
                    self._add(book, event.side, event.price, event.hidden - event.quantity)
                    self._moved = True
            case Expired():
                self._add(book, event.side, event.price, event.hidden - event.quantity)
                self._moved = True
            case Replaced():
                # One that lost its place leaves here and comes back with a later `Rested`, if anything is left.
                stays = event.quantity - event.hidden if event.kept_priority else 0
                self._add(book, event.side, event.old_price, stays - (event.old_quantity - event.old_hidden))
            case Replenished():
                self._add(book, event.side, event.price, event.quantity)
            case Triggered():
                self._moved = True
            case Crossed():
                self._crossed(book, event)
            case _:
                _turn(book, event)

    def _traded(self, book: LevelBook, event: Traded) -> None:
        quoted = not (self._moved or event.hidden or event.whole)
        self._trades.append(Print(event.trade_id, event.price, event.quantity, event.taker_side, quoted))
        if self._cross_left:
            self._cross_left -= event.quantity
            return
        maker_side = Side.SELL if event.taker_side is Side.BUY else Side.BUY
        self._add(book, maker_side, event.price, event.hidden - event.quantity)

    def _crossed(self, book: LevelBook, event: Crossed) -> None:
        self._cross_left, self._moved = event.quantity, True
        for side, levels in ((Side.BUY, event.bids), (Side.SELL, event.asks)):
            for price, quantity in levels:
                book.side(side).set(price, quantity)
                self._changed[side, price] = None

    def _add(self, book: LevelBook, side: Side, price: Ticks, quantity: int) -> None:
        if not quantity and not book.side(side).get(price):
            return  # of an order that is not shown
        levels = book.side(side)
        total = levels.get(price) + quantity
        assert total >= 0, f"{total} lots would stand at {price}"
        levels.set(price, total)
        self._changed[side, price] = None

    def delta(self, symbol: Symbol, book: LevelBook, at: Instant) -> Delta:
        changes = tuple(LevelChange(side, price, Lots(book.side(side).get(price))) for side, price in self._changed)
        return Delta(symbol, book.seq, self._previous, at, changes, tuple(self._trades), book.halted, book.gathering)


def _turn(book: LevelBook, event: Event) -> None:
    """Take in an event that changes no level."""
    match event:
        case Halted():
            book.halted = True
            book.paused_until = 0
        case Resumed():
            book.halted = False
        case PhaseChanged():
            book.phase = event.phase
        case Paused():
            book.paused_until = event.until
        case Accepted() | _:
            pass


class Trouble(StrEnum):
    """What a subscriber can find wrong with a feed."""

    GAP = "gap"
    CROSSED = "crossed"


class Finding(msgspec.Struct, frozen=True, gc=False):
    """Something is wrong with a symbol's feed."""

    symbol: Symbol
    trouble: Trouble
    expected: int
    """The number that should have come next (of a crossed book: the number at which it was seen)."""
    got: int


def trade_throughs(before: Top, trades: Iterable[Print]) -> int:
    """Return how many of a command's trades went past a better quote that stood in the book `before` it.

    The first trade of a command happens at the best price of the other side, and none is better than it.
    """
    prints = [one for one in trades if one.quoted]
    if not prints:
        return 0
    best = before.ask if prints[0].taker_side is Side.BUY else before.bid
    sign = 1 if prints[0].taker_side is Side.BUY else -1
    if best is None:
        return len(prints)
    wrong = int(prints[0].price != best)
    return wrong + sum(sign * one.price < sign * best for one in prints[1:])


class Follower:
    """A subscriber's copy of the books, which trusts nothing.

    After a gap a symbol's book is unknown: `missing` names it, its deltas are left alone until a snapshot comes.
    """

    def __init__(self, symbols: Iterable[Symbol] = ()) -> None:
        self._books: dict[Symbol, LevelBook] = {}
        self._missing: set[Symbol] = set(symbols)
        self._gapped: set[Symbol] = set()
        self._crossed: set[Symbol] = set()

    @property
    def missing(self) -> frozenset[Symbol]:
        """The symbols that need a snapshot: never seen, or with a gap."""
        return frozenset(self._missing)

    @property
    def gapped(self) -> frozenset[Symbol]:
        """The symbols of which messages were lost and no snapshot came since."""
        return frozenset(self._gapped)

    @property
    def crossed(self) -> frozenset[Symbol]:
        """The symbols whose best bid reaches their best offer."""
        return frozenset(self._crossed)

    def book(self, symbol: Symbol) -> LevelBook | None:
        """Return a symbol's book; None while it is missing."""
        return None if symbol in self._missing else self._books.get(symbol)

    def take(self, message: FeedMessage) -> tuple[Finding, ...]:
        """Take in a message and return what is newly found wrong."""
        match message:
            case Snapshot():
                return self._snapshot(message)
            case Delta():
                return self._delta(message)
            case Heartbeat():
                return tuple(finding for symbol, seq in message.seqs.items() for finding in self._reached(symbol, seq))
            case MarketStatus():
                for symbol, book in self._books.items():
                    book.gathering = symbol in message.gathering
                return ()

    def _snapshot(self, message: Snapshot) -> tuple[Finding, ...]:
        symbol = message.symbol
        known = self._books.get(symbol)
        if known is not None and symbol not in self._missing and message.seq < known.seq:
            return ()  # older than what is already known
        book = self._books[symbol] = LevelBook()
        _fill(book, message)
        self._missing.discard(symbol)
        self._gapped.discard(symbol)
        return self._look(symbol, book)

    def _delta(self, message: Delta) -> tuple[Finding, ...]:
        symbol = message.symbol
        book = self._books.get(symbol)
        if symbol in self._missing or book is None:
            self._missing.add(symbol)
            return ()
        if message.seq <= book.seq:
            return ()  # contained in the snapshot already
        if message.previous != book.seq:
            return self._gap(symbol, book.seq + 1, message.previous + 1)
        for change in message.changes:
            book.side(change.side).set(change.price, change.quantity)
        book.seq = message.seq
        book.halted = message.halted
        book.gathering = message.gathering
        return self._look(symbol, book)

    def _reached(self, symbol: Symbol, seq: int) -> tuple[Finding, ...]:
        book = self._books.get(symbol)
        if symbol in self._missing or book is None:
            self._missing.add(symbol)
            return ()
        return self._gap(symbol, book.seq + 1, seq + 1) if seq > book.seq else ()

    def _gap(self, symbol: Symbol, expected: int, got: int) -> tuple[Finding, ...]:
        self._missing.add(symbol)
        self._gapped.add(symbol)
        return (Finding(symbol, Trouble.GAP, expected, got),)

    def _look(self, symbol: Symbol, book: LevelBook) -> tuple[Finding, ...]:
        if book.gathering or not book.crossed():
            self._crossed.discard(symbol)
            return ()
        if symbol in self._crossed:
            return ()
        self._crossed.add(symbol)
        return (Finding(symbol, Trouble.CROSSED, book.seq, book.seq),)


def _fill(book: LevelBook, snapshot: Snapshot) -> None:
    book.seq = snapshot.seq
    book.halted = snapshot.halted
    book.gathering = snapshot.gathering
    book.phase = snapshot.phase
    book.paused_until = snapshot.paused_until
    for price, quantity in snapshot.bids:
        book.bids.set(price, quantity)
    for price, quantity in snapshot.asks:
        book.asks.set(price, quantity)
