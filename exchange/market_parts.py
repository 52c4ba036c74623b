"""The public feed of several engines as one: each has the books of its own symbols, and all together are the market.

Numbers of symbols are the engine's own and stay as they are. How the whole market stands is told in one message, whose
number is the sum of the parts' own, so that it rises with each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from exchange.book import Depth, Top
from exchange.events import Happened
from exchange.feed_messages import Delta, FeedMessage, Heartbeat, Indication, IndicativePrice, MarketStatus, Snapshot
from exchange.market_data import MarketData
from exchange.protocol import Books
from exchange.shards import whole_id
from exchange.types import Symbol, TradeId, TradingPhase
from kernel.time import Instant


class MarketParts:
    """The market data of every engine, in the order of their partitions, behind the face of one."""

    def __init__(self, parts: Sequence[Iterable[Symbol]]) -> None:
        """Begin with no books; `parts` are the symbols of each engine."""
        assert parts, "a market without an engine"
        self._parts: Final = tuple(MarketData(symbols) for symbols in map(tuple, parts))
        self._place: Final = {symbol: place for place, symbols in enumerate(parts) for symbol in symbols}

    def __len__(self) -> int:
        """Return how many engines there are."""
        return len(self._parts)

    def place_of(self, symbol: Symbol) -> int:
        """Return which engine has a symbol.

        Raises:
            KeyError: the symbol is unknown.
        """
        return self._place[symbol]

    def reached(self, place: int) -> int:
        """Return the last command of an engine that was folded in."""
        return self._parts[place].journal_seq

    @property
    def journal_seq(self) -> int:
        """The last command folded in, of the engine that has carried out most."""
        return max(part.journal_seq for part in self._parts)

    @property
    def market_seq(self) -> int:
        """The number of how the market stands."""
        return sum(part.market_seq for part in self._parts)

    @property
    def market_halted(self) -> bool:
        """Whether every engine's symbols stand still."""
        return all(part.market_halted for part in self._parts)

    @property
    def market_phase(self) -> TradingPhase:
        """The phase of the first engine; symbols of another in another phase are told by name."""
        return self._parts[0].market_phase

    @property
    def market_paused_until(self) -> int:
        """When the last pause of an engine ends; 0: none."""
        return max(part.market_paused_until for part in self._parts)

    def stands_with_part(self, symbol: Symbol) -> bool:
        """Tell whether a symbol stands still because its engine's market does, and others' do not."""
        return self._parts[self._place[symbol]].market_halted and not self.market_halted

    def snapshot(self, symbol: Symbol) -> Snapshot:
        """See `MarketData.snapshot`."""
        return self._of(symbol).snapshot(symbol)

    def top(self, symbol: Symbol) -> Top:
        """See `MarketData.top`."""
        return self._of(symbol).top(symbol)

    def depth(self, symbol: Symbol, levels: int) -> Depth:
        """See `MarketData.depth`."""
        return self._of(symbol).depth(symbol, levels)

    def heartbeat(self, at: Instant) -> Heartbeat:
        """See `MarketData.heartbeat`."""
        seqs: dict[Symbol, int] = {}
        for part in self._parts:
            seqs |= part.heartbeat(at).seqs
        return Heartbeat(self.journal_seq, at, seqs, self.market_seq)

    def status(self, at: Instant) -> MarketStatus:
        """See `MarketData.status`: that of all engines."""
        told = [part.status(at) for part in self._parts]
        if len(told) == 1:
            return told[0]
        phase = self.market_phase
        phases = {symbol: one.phase for symbol, one in self._standing() if one.phase is not phase}
        return MarketStatus(
            self.market_halted,
            at,
            tuple(sorted(symbol for one in told for symbol in one.gathering)),
            self.market_seq,
            phase,
            phases,
            Instant(self.market_paused_until),
            max(one.breaker_level for one in told),
            tuple(sorted(symbol for symbol in self._place if self.stands_with_part(symbol))),
        )

    def restore(self, place: int, told: Books) -> None:
        """See `MarketData.restore`, of one engine."""
        self._parts[place].restore(
            told.seq,
            told.books,
            market_halted=told.market_halted,
            market_paused_until=told.market_paused_until,
            market_phase=told.market_phase,
            breaker_level=told.breaker_level,
        )

    def fold(self, place: int, happened: Happened) -> tuple[FeedMessage, ...]:
        """See `MarketData.fold`, of one engine; ids of trades are made whole."""
        told = self._parts[place].fold(happened)
        return told if len(self._parts) == 1 else tuple(self._together(place, one) for one in told)

    def indicate(
        self, place: int, found: Iterable[tuple[Symbol, int, Indication]], at: Instant
    ) -> tuple[IndicativePrice, ...]:
        """See `MarketData.indicate`, of one engine."""
        return self._parts[place].indicate(found, at)

    def _together(self, place: int, message: FeedMessage) -> FeedMessage:
        """Return what one engine's market says as the whole market says it."""
        if isinstance(message, MarketStatus):
            return self.status(message.at)
        if place and isinstance(message, Delta) and message.trades:
            replace = msgspec.structs.replace
            trades = tuple(replace(one, trade_id=TradeId(whole_id(place, one.trade_id))) for one in message.trades)
            return replace(message, trades=trades)
        return message

    def _of(self, symbol: Symbol) -> MarketData:
        return self._parts[self._place[symbol]]

    def _standing(self) -> Iterable[tuple[Symbol, Snapshot]]:
        return ((symbol, self.snapshot(symbol)) for symbol in self._place)
