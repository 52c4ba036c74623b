"""Which alarms stand, and when each is to be posted: a small machine that is given the time.

An alarm once raised stands at least `HOLD`, so that the slower way (scrape, rule, Alertmanager) sees it too and both
ways tell the same story. While it stands it is posted every `REPOST` with an end `LEASE` ahead: should the watchdog
die, the alarm ends by itself. When it is over, one last post says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exchange.ports import Alarm, Raised
from exchange.types import Symbol
from kernel.time import SECOND, Instant

HOLD: Final = 10 * SECOND
REPOST: Final = 5 * SECOND
LEASE: Final = 30 * SECOND
RETRY: Final = SECOND // 4
"""After how long a post that was not accepted is tried again."""


@dataclass
class _Standing:
    since: Instant
    holds: bool
    next_post: int


class AlarmBoard:
    """The alarms of one watchdog."""

    def __init__(self) -> None:
        self._standing: Final[dict[tuple[Alarm, Symbol | None], _Standing]] = {}

    def raise_alarm(self, alarm: Alarm, symbol: Symbol | None, now: Instant) -> bool:
        """Let an alarm stand; True when it did not before."""
        known = self._standing.get((alarm, symbol))
        if known is not None:
            known.holds = True
            return False
        self._standing[alarm, symbol] = _Standing(now, holds=True, next_post=now)
        return True

    def clear(self, alarm: Alarm, symbol: Symbol | None) -> None:
        """The condition holds no longer; the alarm stands until it has stood long enough."""
        known = self._standing.get((alarm, symbol))
        if known is not None:
            known.holds = False

    def stands(self, alarm: Alarm, symbol: Symbol | None, now: Instant) -> bool:
        """Tell whether an alarm stands."""
        known = self._standing.get((alarm, symbol))
        return known is not None and (known.holds or now - known.since < HOLD)

    def due(self, now: Instant) -> tuple[Raised, ...]:
        """Return what is to be posted now; tell `posted` what became of it."""
        due: list[Raised] = []
        for (alarm, symbol), known in self._standing.items():
            if not self.stands(alarm, symbol, now):
                if now >= known.next_post or known.next_post - now > RETRY:
                    due.append(Raised(alarm, symbol, known.since, now))
            elif now >= known.next_post:
                due.append(Raised(alarm, symbol, known.since, Instant(now + LEASE)))
        return tuple(due)

    def posted(self, raised: tuple[Raised, ...], now: Instant, *, accepted: bool) -> None:
        """Learn what became of a post: whatever was not accepted is due again soon."""
        for one in raised:
            key = one.alarm, one.symbol
            known = self._standing.get(key)
            if known is None:
                continue
            if not accepted:
                known.next_post = now + RETRY
            elif one.ends_at > now:
                known.next_post = now + REPOST
            elif known.holds:
                known.next_post = now  # it came back while its end was being posted
            else:
                del self._standing[key]
