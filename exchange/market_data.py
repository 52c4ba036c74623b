"""The public feed: books by price level, folded from events, and the check a subscriber makes.

Per symbol the feed is a snapshot and then deltas. `seq` is the number of the symbol's last event that is contained,
`previous` the one before the delta: a subscriber whose own number is not `previous` has lost something. A heartbeat
names the last number of every symbol, so that the loss of a last message shows too.

While a symbol gathers orders for a cross its book may be crossed; the feed says so (`gathering`). What the engine does
not show (hidden parts, all-or-none orders, stops) stands in no message: only its trades are told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from exchange.book import Depth, Top
from exchange.events import (
    Accepted,
    Breaker,
    Canceled,
    Crossed,
    Event,
    Expired,
    Halted,
    Happened,
    LimitState,
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
from exchange.feed_messages import (
    MARKET,
    Delta,
    FeedMessage,
    Heartbeat,
    Indication,
    IndicativePrice,
    LevelChange,
    MarketStatus,
    Print,
    Snapshot,
    Standing,
)
from exchange.level_book import LevelBook, Levels, fill
from exchange.types import GATHERING, Lots, Side, Symbol, Ticks, TradingPhase
from kernel.time import Instant

__all__ = [
    "Delta", "FeedMessage", "Finding", "Follower", "Heartbeat", "IndicativePrice", "LevelBook", "LevelChange", "Levels",
    "MarketData", "MarketStatus", "Print", "Snapshot", "Trouble", "trade_throughs",
]  # fmt: skip


_NOTHING: Final = Indication(Ticks(0), Lots(0), 0)


class MarketData:
    """Folds the event stream into books and into what the feed says of each step."""

    def __init__(self, symbols: Iterable[Symbol]) -> None:
        self._books: Final = {symbol: LevelBook() for symbol in symbols}
        self.journal_seq = 0
        """The last command folded in."""
        self.market_halted = False
        self.market_paused_until = 0
        self.market_phase = TradingPhase.CONTINUOUS
        self.breaker_level = 0
        self.market_seq = 0
        """The command after which the market's standing was told last."""
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
            book.limited,
            book.lower,
            book.upper,
            book.indicative,
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
        seqs = {symbol: book.seq for symbol, book in self._books.items()}
        return Heartbeat(self.journal_seq, at, seqs, self.market_seq)

    def status(self, at: Instant) -> MarketStatus:
        """Return how the whole market stands."""
        own = {symbol: book.phase for symbol, book in self._books.items() if book.phase is not self.market_phase}
        return MarketStatus(
            self.market_halted,
            at,
            self._gathering,
            self.market_seq,
            self.market_phase,
            own,
            Instant(self.market_paused_until),
            self.breaker_level,
        )

    def restore(
        self,
        journal_seq: int,
        books: Iterable[Snapshot],
        *,
        market_halted: bool = False,
        market_paused_until: int = 0,
        market_phase: TradingPhase = TradingPhase.CONTINUOUS,
        breaker_level: int = 0,
    ) -> None:
        """Begin from whole books as of `journal_seq` instead of from the first event."""
        for snapshot in books:
            book = self._books[snapshot.symbol] = LevelBook()
            fill(book, snapshot)
        self.journal_seq = journal_seq
        self.market_halted = market_halted
        self.market_paused_until = market_paused_until
        self.market_phase = market_phase
        self.breaker_level = breaker_level
        self.market_seq = journal_seq
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
        turned = False
        for event in happened.events:
            symbol = getattr(event, "symbol", None)
            if symbol is None:
                turned = self._market(event, happened.at) or turned
                continue
            symbol_seq: int = getattr(event, "symbol_seq", 0)
            if not symbol_seq:
                continue
            book = self._books[symbol]
            step = steps.get(symbol)
            if step is None:
                step = steps[symbol] = _Step(book.seq, book.standing())
            assert symbol_seq == book.seq + 1, f"{symbol}: event {symbol_seq} follows {book.seq}"
            book.seq = symbol_seq
            if isinstance(event, Resumed) and book.halted:
                book.phase = self.market_phase
            step.take(book, event, happened.at)
        changed, ended = self._regather(self._books if turned else steps, steps, happened.at)
        if changed:
            self._gathering = self._gathering_now()
        messages: list[FeedMessage] = []
        if turned:
            self.market_seq = happened.seq
            messages.append(self.status(happened.at))
        messages.extend(step.delta(symbol, self._books[symbol], happened.at) for symbol, step in steps.items())
        return (*messages, *ended)

    def _regather(
        self, symbols: Iterable[Symbol], steps: Mapping[Symbol, _Step], at: Instant
    ) -> tuple[bool, list[IndicativePrice]]:
        """Note anew which symbols gather orders; tell whether others do than before, and what their crosses did."""
        changed = False
        ended: list[IndicativePrice] = []
        for symbol in symbols:
            book = self._books[symbol]
            gathering = self._gathers(book, at)
            changed = changed or gathering is not book.gathering
            crossed = steps[symbol].crossed if symbol in steps else None
            if crossed is not None or (book.indicative is not None and not gathering):
                did = crossed or _NOTHING
                ended.append(IndicativePrice(symbol, book.seq, at, did.price, did.quantity, did.surplus, final=True))
                book.indicative = None
            book.gather(gathering=gathering)
        return changed, ended

    def indicate(self, found: Iterable[tuple[Symbol, int, Indication]], at: Instant) -> tuple[IndicativePrice, ...]:
        """Take in what crosses would do, as the engine found it (with the symbol's number); return what is new.

        `found` names every symbol whose cross is waited for now.
        """
        told: list[IndicativePrice] = []
        every = {symbol: (seq, now) for symbol, seq, now in found}
        for symbol, book in self._books.items():
            if book.indicative is not None and symbol not in every:  # its cross waits for the end of a halt
                every[symbol] = book.seq, _NOTHING
        for symbol, (seq, now) in every.items():
            book = self._books[symbol]
            indicative = now if now.quantity else None
            if not book.gathering or seq > book.seq or indicative == book.indicative:
                continue
            book.indicative = indicative
            told.append(IndicativePrice(symbol, seq, at, now.price, now.quantity, now.surplus))
        return tuple(told)

    def _market(self, event: Event, at: Instant) -> bool:
        """Take in an event of the whole market; tell whether it changes how it stands."""
        phase: TradingPhase | None = None
        match event:
            case Halted() | Resumed():
                self.market_halted = isinstance(event, Halted)
            case Paused():
                self.market_paused_until = event.until
            case PhaseChanged() if 0 < self.market_paused_until <= at:
                self.market_paused_until = 0  # told that the pause is over: symbols keep their own phases
            case Breaker():
                self.breaker_level = event.level
            case PhaseChanged():
                phase = event.phase
            case SessionClosed():
                phase = TradingPhase.CLOSED
            case SessionOpened():
                phase = event.phase
            case _:
                return False
        if phase is not None:
            self._turn(phase)
        return True

    def _turn(self, phase: TradingPhase) -> None:
        if self.market_phase is TradingPhase.CLOSED and phase is not TradingPhase.CLOSED:
            self.breaker_level = 0
        self.market_phase = phase
        for book in self._books.values():
            book.phase = phase

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

    def __init__(self, previous: int, stood: Standing) -> None:
        self._previous = previous
        self._stood = stood
        self.crossed: Indication | None = None
        """What a cross of this command did."""
        self._changed: dict[tuple[Side, Ticks], None] = {}
        self._trades: list[Print] = []
        self._cross_left = 0
        """What is still to come of the trades of a cross."""
        self._moved = False
        """Whether the book before this command is the yardstick of its trades no longer."""

    def take(self, book: LevelBook, event: Event, at: Instant) -> None:
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
                _turn(book, event, at)

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
        self.crossed = Indication(event.price, event.quantity, event.surplus)
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
        stands = book.standing()
        told = None if stands == self._stood else stands
        trades = tuple(self._trades)
        return Delta(symbol, book.seq, self._previous, at, changes, trades, book.halted, book.gathering, told)


def _turn(book: LevelBook, event: Event, at: Instant) -> None:
    """Take in an event that changes no level."""
    match event:
        case Halted():
            book.halted = True
            book.paused_until = 0
        case Resumed():
            book.halted = False
        case PhaseChanged():
            book.phase = event.phase
            if book.paused_until <= at:
                book.paused_until = 0
        case Paused():
            book.paused_until = event.until
            book.limit(Ticks(0), Ticks(0))
        case LimitState():
            book.limit(*((event.lower, event.upper) if event.entered else (Ticks(0), Ticks(0))))
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
        self.market: MarketStatus | None = None
        """How the whole market stands; None: not told yet, or what was told last is lost."""

    @property
    def missing(self) -> frozenset[Symbol]:
        """The symbols that need a snapshot: never seen, or with a gap."""
        return frozenset(self._missing)

    @property
    def gapped(self) -> frozenset[Symbol]:
        """The symbols of which messages were lost and no snapshot came since; `MARKET` if a `market` was."""
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
                if message.market_seq > (0 if self.market is None else self.market.seq):
                    self._gapped.add(MARKET)
                    self.market = None
                return tuple(finding for symbol, seq in message.seqs.items() for finding in self._reached(symbol, seq))
            case MarketStatus():
                self._market(message)
            case IndicativePrice():
                self._indicative(message)
        return ()

    def _market(self, message: MarketStatus) -> None:
        if self.market is not None and message.seq < self.market.seq:
            return  # older than what is already known
        self.market = message
        self._gapped.discard(MARKET)
        for symbol, book in self._books.items():
            book.gather(gathering=symbol in message.gathering)
            book.phase = message.phases.get(symbol, message.phase)

    def _indicative(self, message: IndicativePrice) -> None:
        book = self.book(message.symbol)
        if book is None or not book.indicated_seq <= message.seq <= book.seq:
            return  # older than what is known, or a delta before it was lost
        book.indicated_seq = message.seq
        shown = message.quantity and not message.final and book.gathering
        book.indicative = Indication(message.price, message.quantity, message.surplus) if shown else None

    def _snapshot(self, message: Snapshot) -> tuple[Finding, ...]:
        symbol = message.symbol
        known = self._books.get(symbol)
        if known is not None and symbol not in self._missing and message.seq < known.seq:
            return ()  # older than what is already known
        book = self._books[symbol] = LevelBook()
        fill(book, message)
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
        book.gather(gathering=message.gathering)
        if message.standing is not None:
            book.stand(message.standing)
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
