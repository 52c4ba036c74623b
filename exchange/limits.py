"""How much of the gateway one key and one account may use: budgets that are given the time.

Each name has a bucket, kept as one number (GCRA: when the bucket would be full again). A name whose bucket is full is
forgotten, so that memory follows those who are busy now; when even those are too many, newcomers share one bucket.

Orders, cancels and look-ups have budgets of their own: whoever used up one may still take orders off the book.
"""

from __future__ import annotations

from enum import StrEnum
from math import ceil
from typing import Final, NamedTuple

WINDOW_S: Final = 1.0
"""How many seconds' worth may come at once."""
MAX_NAMES: Final = 10_000
_SHARED: Final = ""
"""Whose bucket newcomers share when there are too many names; no key and no account is empty."""


class Budget(StrEnum):
    """What is counted apart."""

    ORDERS = "orders"
    CANCELS = "cancels"
    LOOK_UPS = "look_ups"


class Rates(NamedTuple):
    """Requests a second that one key and one account may make; 0: as many as they like."""

    key_per_s: float = 0.0
    account_per_s: float = 0.0
    cancel_factor: float = 2.0
    """The budget of cancels is so many times that of orders."""

    def of(self, budget: Budget) -> tuple[float, float]:
        """Return the rates of a key and of an account in one budget; look-ups are not counted by account."""
        factor = self.cancel_factor if budget is Budget.CANCELS else 1.0
        return self.key_per_s * factor, 0.0 if budget is Budget.LOOK_UPS else self.account_per_s * factor


NO_RATES: Final = Rates()
_HAIR: Final = 1e-9
"""What sums of floating point may be off by, in seconds and in requests."""


class Standing(NamedTuple):
    """How one name stands with its budget after a request."""

    policy: str
    """Which bucket: such as `orders-key`."""
    allowed: bool
    remaining: int
    wait_s: float
    """Until a request is allowed again (refused), or until the bucket is full again (allowed)."""


class Buckets:
    """One bucket a name. Times are seconds of one monotonic clock."""

    def __init__(self, policy: str, per_s: float, max_names: int = MAX_NAMES) -> None:
        """Admit `per_s` requests a second of each name; at once as many as in `WINDOW_S`."""
        self.policy: Final = policy
        self.size: Final = max(1, round(per_s * WINDOW_S))
        self._step_s: Final = 1.0 / per_s
        self._depth_s: Final = self.size / per_s
        self._max_names: Final = max_names
        self._full_at: dict[str, float] = {}
        self._swept_s = -WINDOW_S

    def __len__(self) -> int:
        return len(self._full_at)

    def look(self, name: str, now_s: float) -> Standing:
        """Tell how one more request of a name would stand, and take nothing."""
        full_at = max(now_s, self._full_at.get(self._own(name, now_s), 0.0)) + self._step_s
        short_s = full_at - now_s - self._depth_s
        if short_s > _HAIR:
            return Standing(self.policy, allowed=False, remaining=0, wait_s=short_s)
        remaining = int((now_s + self._depth_s - full_at) / self._step_s + _HAIR)
        return Standing(self.policy, allowed=True, remaining=remaining, wait_s=full_at - now_s)

    def take(self, name: str, now_s: float) -> None:
        """Count a request that was allowed."""
        own = self._own(name, now_s)
        self._full_at[own] = max(now_s, self._full_at.get(own, 0.0)) + self._step_s

    def _own(self, name: str, now_s: float) -> str:
        """Return the bucket of a name: its own, or that of newcomers when there are too many."""
        if name in self._full_at or len(self._full_at) < self._max_names:
            return name
        if now_s - self._swept_s >= WINDOW_S:  # not at every request: a crowd must not make each one dear
            self._swept_s = now_s
            self._full_at = {other: at for other, at in self._full_at.items() if at > now_s}
        return name if len(self._full_at) < self._max_names else _SHARED


class RateLimits:
    """The budgets of keys and accounts of one gateway."""

    def __init__(self, rates: Rates, max_names: int = MAX_NAMES) -> None:
        """Hold every key and account to `rates`."""
        self._buckets: Final[dict[Budget, tuple[Buckets | None, Buckets | None]]] = {}
        for budget in Budget:
            by_key, by_account = rates.of(budget)
            self._buckets[budget] = (
                Buckets(f"{budget}-key", by_key, max_names) if by_key > 0 else None,
                Buckets(f"{budget}-account", by_account, max_names) if by_account > 0 else None,
            )
        self.any: Final = any(one is not None for pair in self._buckets.values() for one in pair)

    def take(self, budget: Budget, key: str, account: str, now_s: float) -> Standing | None:
        """Count a request, if both its key and its account may make it; return the tighter of the two.

        None: nothing limits it. A refused request takes from neither.
        """
        by_key, by_account = self._buckets[budget]
        asked = [(one, name) for one, name in ((by_key, key), (by_account, account)) if one is not None]
        if not asked:
            return None
        standings = [one.look(name, now_s) for one, name in asked]
        if all(standing.allowed for standing in standings):
            for one, name in asked:
                one.take(name, now_s)
            return min(standings, key=lambda standing: standing.remaining)
        return max((one for one in standings if not one.allowed), key=lambda standing: standing.wait_s)

    def policies(self, budget: Budget) -> str:
        """Return the field `RateLimit-Policy`: each bucket's size and the seconds in which it fills."""
        return ", ".join(
            f'"{one.policy}";q={one.size};w={ceil(WINDOW_S)}' for one in self._buckets[budget] if one is not None
        )
