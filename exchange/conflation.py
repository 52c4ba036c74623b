"""Conflation of a feed: several updates of a symbol go out as one, so that fewer messages tell the same books.

Venues sell such feeds to readers who cannot keep up; a full feed that is conflated by mistake loses half of its updates
and nothing looks wrong: every symbol's numbers follow each other, heartbeats come, every book is right a moment later.
Trades are never held back, so that each is seen against the book it met; turns, pauses and limit states neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from exchange.market_data import Delta, FeedMessage, Heartbeat, Snapshot
from exchange.types import Symbol

HELD_BEATS: Final = 5
"""Heartbeats that an update is held back at most: a second."""
DEBT_MAX: Final = 2.0
"""Trades go out above the share; so many messages of it are made up for later."""


class Conflation:
    """Holds updates back and tells them together with the next one of their symbol."""

    def __init__(self) -> None:
        self._held: Final[dict[Symbol, Delta]] = {}
        self._since: Final[dict[Symbol, int]] = {}
        self._beats = 0
        self._credit = 0.0

    @property
    def holds(self) -> bool:
        """Whether anything is held back."""
        return bool(self._held)

    def take(self, messages: Sequence[FeedMessage], share: float) -> list[FeedMessage]:
        """Return what goes out of `messages` and of what was held: about `share` (above 0, up to 1) of all updates."""
        out: list[FeedMessage] = []
        for message in messages:
            match message:
                case Delta():
                    out.extend(self._one(message, share))
                case Heartbeat():
                    self._beats += 1
                    out += self._overdue()
                    out.append(self._reached(message))
                case Snapshot():
                    self._drop(message.symbol)  # the whole book contains what is held
                    out.append(message)
                case _:
                    out.append(message)
        return out

    def flush(self) -> list[FeedMessage]:
        """Return everything that is held back."""
        held = list[FeedMessage](self._held.values())
        self._held.clear()
        self._since.clear()
        return held

    def _one(self, delta: Delta, share: float) -> list[FeedMessage]:
        since = self._since.get(delta.symbol, self._beats)
        held = self._drop(delta.symbol)
        self._credit = min(self._credit + share, 2.0)
        if delta.trades or delta.standing is not None:
            out: list[FeedMessage] = [delta] if held is None else [held, delta]
            self._credit = max(self._credit - len(out), -DEBT_MAX)
            return out
        joined = delta if held is None else merged(held, delta)
        if self._credit < 1.0:
            self._held[delta.symbol], self._since[delta.symbol] = joined, since
            return []
        self._credit -= 1.0
        return [joined]

    def _drop(self, symbol: Symbol) -> Delta | None:
        self._since.pop(symbol, None)
        return self._held.pop(symbol, None)

    def _overdue(self) -> list[FeedMessage]:
        late = [symbol for symbol, since in self._since.items() if self._beats - since >= HELD_BEATS]
        return [delta for symbol in late if (delta := self._drop(symbol)) is not None]

    def _reached(self, beat: Heartbeat) -> Heartbeat:
        """Return a sign of life that claims no more than what went out."""
        if not self._held:
            return beat
        reached = {**beat.seqs, **{symbol: delta.previous for symbol, delta in self._held.items()}}
        return msgspec.structs.replace(beat, seqs=reached)


def merged(first: Delta, second: Delta) -> Delta:
    """Return two updates of a symbol that follow each other as one: of each price only the last quantity."""
    assert second.previous == first.seq, f"{second.symbol}: {second.previous} does not follow {first.seq}"
    changes = {(change.side, change.price): change for change in (*first.changes, *second.changes)}
    return Delta(
        symbol=second.symbol,
        seq=second.seq,
        previous=first.previous,
        at=second.at,
        changes=tuple(changes.values()),
        trades=(*first.trades, *second.trades),
        halted=second.halted,
        gathering=second.gathering,
        standing=second.standing or first.standing,
    )
