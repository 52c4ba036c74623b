"""What the feed asks of a running engine: whole books, and what the crosses that are waited for would do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from exchange.engine import Engine
from exchange.feed_messages import Indication, Snapshot
from exchange.protocol import Books, Indications
from exchange.types import MAX_QUANTITY_LOTS, Lots, Symbol, Ticks
from kernel.time import Clock

INDICATIVE_S: Final = 0.1
"""Between two looks: ten a second are as many as anybody can read."""
BUDGET_S: Final = 0.005
"""How long a look may keep the next commit waiting; where more symbols gather, each is looked at less often."""


def books_of(engine: Engine) -> Books:
    """Return every symbol's book, and how the whole market stands."""
    halted = set(engine.halted_symbols())
    images = []
    for symbol in sorted(engine.instruments):
        depth = engine.depth(symbol, MAX_QUANTITY_LOTS)
        limits = engine.limit_state(symbol)
        lower, upper = limits or (Ticks(0), Ticks(0))
        images.append(
            Snapshot(
                symbol,
                engine.symbol_seq(symbol),
                depth.bids,
                depth.asks,
                symbol in halted,
                engine.gathers(symbol),
                engine.phase(symbol),
                engine.paused_until(symbol),
                limits is not None,
                lower,
                upper,
            )
        )
    return Books(
        engine.sequence,
        engine.market_halted,
        tuple(images),
        engine.market_paused_until,
        engine.market_phase,
        engine.breaker_level,
    )


class CrossLook:
    """Finds what crosses would do, anew only for the books that changed, within a budget of time a look."""

    def __init__(self, engine: Engine, clock: Clock, timer: Callable[[], float] = time.perf_counter) -> None:
        self._engine: Final = engine
        self._clock: Final = clock
        self._timer: Final = timer
        self._symbols: Final = sorted(engine.instruments)
        self._found: dict[Symbol, tuple[int, Indication]] = {}
        self._told: tuple[tuple[Symbol, Indication], ...] = ()
        self._place = 0

    def changed(self) -> Indications | None:
        """Return what the crosses of all symbols that gather orders would do; None when that is what it was.

        To be called between two commits only.
        """
        engine, count = self._engine, len(self._symbols)
        stop_at = self._timer() + BUDGET_S
        for step in range(count):
            symbol = self._symbols[(self._place + step) % count]
            if not engine.gathers(symbol):
                self._found.pop(symbol, None)
                continue
            seq = engine.symbol_seq(symbol)
            if symbol in self._found and self._found[symbol][0] == seq:
                continue
            if self._timer() > stop_at:
                self._place = (self._place + step) % count
                break
            now = engine.indicative(symbol)
            lots = Indication(Ticks(0), Lots(0), 0) if now is None else Indication(now.price, now.volume, now.surplus)
            self._found[symbol] = seq, lots
        told = tuple((symbol, found) for symbol, (_, found) in sorted(self._found.items()))
        if told == self._told:
            return None
        self._told = told
        found = tuple((symbol, seq, one) for symbol, (seq, one) in sorted(self._found.items()))
        return Indications(engine.sequence, self._clock.now(), found)
