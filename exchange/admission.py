"""How many requests a gateway lets in: a token bucket that is given the time.

Cancels and replaces take from the same bucket but may overdraw it by one burst: whoever wants to reduce risk is not
turned away because others add to it.
"""

from __future__ import annotations

from typing import Final

BURST_S: Final = 0.5
"""How many seconds' worth of requests may come at once: an arrival process that keeps its rate is never shed."""


class TokenBucket:
    """Admits `per_second` requests a second in the long run. Times are seconds of one monotonic clock."""

    def __init__(self, per_second: float, now_s: float, burst_s: float = BURST_S) -> None:
        self.per_second: Final = per_second
        self._burst: Final = max(1.0, per_second * burst_s)
        self._tokens = self._burst
        self._at_s = now_s

    def take(self, now_s: float, *, reserve: bool = False) -> bool:
        """Take one token; False when there is none (`reserve`: when the overdraft is used up too)."""
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(self._at_s, now_s)
        self._tokens = min(self._burst, self._tokens + elapsed_s * self.per_second)
        if self._tokens < (1.0 - self._burst if reserve else 1.0):
            return False
        self._tokens -= 1.0
        return True

    def take_many(self, count: int, now_s: float) -> bool:
        """Take `count` tokens; False, and none is taken, when there are fewer."""
        if not self.take(now_s):
            return False
        if self._tokens < count - 1.0:
            self._tokens += 1.0
            return False
        self._tokens -= count - 1.0
        return True

    def wait_s(self) -> float:
        """Return after how long a token is there again, in seconds."""
        return max(0.0, (1.0 - self._tokens) / self.per_second)
