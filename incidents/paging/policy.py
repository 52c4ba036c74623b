"""How patient a channel is: waits between tries, when to give up, when a receipt is overdue, when to escalate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from kernel.time import Duration, seconds

TOP_LEVEL: Final = 1


@dataclass(frozen=True)
class Policy:
    """Patience, in seconds."""

    first_wait_s: float = 1.0
    wait_s_max: float = 60.0
    """Waits double from the first up to this."""
    give_up_s: float = 3600.0
    """A page that nobody has taken for so long has failed."""
    unconfirmed_s: float = 3600.0
    """An accepted page whose receipt is missing for so long stays unconfirmed for good."""
    escalate_s: float = 60.0
    """A level-1 page that is not delivered for so long goes to the next channel as well."""

    poll_first_s: float = 1.0
    poll_s_max: float = 30.0
    """Where a receipt must be asked for: waits double from the first up to this."""

    def wait(self, delivery: str, tries: int, named_s: float | None) -> Duration:
        """Return the wait after the n-th try (from 1): what the provider named, else doubling, spread by up to a fifth.

        The spread comes from the delivery's own name: many pages that failed together do not come back together.
        """
        if named_s is not None:
            return seconds(named_s)
        plain_s = min(self.first_wait_s * 2.0 ** min(tries - 1, 32), self.wait_s_max)
        byte = hashlib.sha256(f"{delivery} {tries}".encode()).digest()[0]
        return seconds(plain_s * (1 + 0.2 * byte / 255))

    def polled_until(self, polls: int) -> Duration:
        """Return how long after the acceptance the next poll is due, when there were `polls` already."""
        return seconds(sum(min(self.poll_first_s * 2.0 ** min(n, 16), self.poll_s_max) for n in range(polls + 1)))
