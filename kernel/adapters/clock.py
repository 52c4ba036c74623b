"""The system's clock, made monotonic."""

from __future__ import annotations

import time

from kernel.time import Instant


class SystemClock:
    """Wall time read once at the start, carried on by the monotonic clock.

    A jump of the wall clock (NTP, an operator, a leap) therefore never makes a deadline pass early or late within a
    process.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now(self) -> Instant:
        """Return the present instant; never earlier than the one returned before."""
        return Instant(self._offset_ns + time.monotonic_ns())
