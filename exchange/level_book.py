"""A book by price levels, as the feed tells it: what the publisher folds and a subscriber keeps."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

from exchange.book import Top
from exchange.feed_messages import Indication, Snapshot, Standing
from exchange.types import Lots, Side, Ticks, TradingPhase
from kernel.time import Instant


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

    __slots__ = (
        "asks", "bids", "gathering", "halted", "indicated_seq", "indicative", "limited", "lower", "paused_until",
        "phase", "seq", "upper",
    )  # fmt: skip

    def __init__(self) -> None:
        self.bids = Levels(Side.BUY)
        self.asks = Levels(Side.SELL)
        self.seq = 0
        self.halted = False
        self.gathering = False
        self.phase = TradingPhase.CONTINUOUS
        self.paused_until = 0
        self.limited = False
        self.lower = self.upper = Ticks(0)
        self.indicative: Indication | None = None
        self.indicated_seq = 0

    def standing(self) -> Standing:
        """Return how the symbol stands, its levels aside."""
        return Standing(self.phase, Instant(self.paused_until), self.limited, self.lower, self.upper)

    def stand(self, standing: Standing) -> None:
        """Take over how the symbol stands."""
        self.phase, self.paused_until, self.limited = standing.phase, standing.paused_until, standing.limited
        self.lower, self.upper = standing.lower, standing.upper

    def gather(self, *, gathering: bool) -> None:
        """Note whether orders wait for a cross; what it would do is known only while they do."""
        self.gathering = gathering
        if not gathering:
            self.indicative = None

    def limit(self, lower: Ticks, upper: Ticks) -> None:
        """Enter the limit state at the ends of a band, or leave it (both 0)."""
        self.limited, self.lower, self.upper = upper > 0, lower, upper

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


def fill(book: LevelBook, snapshot: Snapshot) -> None:
    """Let an empty book be what a snapshot says."""
    book.seq = snapshot.seq
    book.halted = snapshot.halted
    book.gathering = snapshot.gathering
    book.stand(Standing(snapshot.phase, snapshot.paused_until, snapshot.limited, snapshot.lower, snapshot.upper))
    book.indicative, book.indicated_seq = snapshot.indicative, 0
    for price, quantity in snapshot.bids:
        book.bids.set(price, quantity)
    for price, quantity in snapshot.asks:
        book.asks.set(price, quantity)
