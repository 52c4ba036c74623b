"""Faults that grow by the second instead of striking at once: a leak of memory, a disk that grows slower.

Both are bounded, so that a drill that is forgotten harms nobody, and both end at once when they are cleared. A restart
of the process ends them too.
"""

from __future__ import annotations

import asyncio
import mmap
import time
from collections.abc import Callable
from typing import Final

from exchange.adapters.http import Faults

LEAK: Final = "memory-leak"
"""A fault: MiB a minute that the process keeps and never uses again."""
LEAK_BYTES_MAX: Final = 256 * 2**20
TICK_S: Final = 0.25
CREEP: Final = "engine-sync-creep"
"""A fault: milliseconds that a sync takes longer with every second since it began."""
CREEP_S_MAX: Final = 0.5


class Leak:
    """Memory that is kept for as long as the fault stands."""

    def __init__(self, faults: Faults) -> None:
        self._faults: Final = faults
        self._kept: Final[list[mmap.mmap]] = []
        self._due = 0.0

    @property
    def bytes(self) -> int:
        """How much is kept now."""
        return sum(len(block) for block in self._kept)

    async def run(self) -> None:
        """Leak while the fault stands; returns only when cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.grow(TICK_S)

    def grow(self, passed_s: float) -> None:
        """Keep what leaks in `passed_s` seconds, or give everything back."""
        mib_per_minute = self._faults.number(LEAK)
        if mib_per_minute <= 0:
            self._give_back()
            return
        self._due += mib_per_minute * 2**20 / 60 * passed_s
        whole = min(int(self._due), LEAK_BYTES_MAX - self.bytes) // mmap.PAGESIZE * mmap.PAGESIZE
        self._due -= int(self._due) // mmap.PAGESIZE * mmap.PAGESIZE
        if whole <= 0:
            return
        block = mmap.mmap(-1, whole)  # of its own, so that it is given back to the last page when it is closed
        block.write(b"\xa5" * whole)  # a page that nobody wrote to takes no memory
        self._kept.append(block)

    def _give_back(self) -> None:
        for block in self._kept:
            block.close()
        self._kept.clear()
        self._due = 0.0


class Creep:
    """A delay that grows for as long as the fault stands."""

    def __init__(self, faults: Faults, clock_s: Callable[[], float] = time.monotonic) -> None:
        """Look at `faults`; `clock_s` tells seconds that only go forward."""
        self._faults: Final = faults
        self._clock_s: Final = clock_s
        self._since_s: float | None = None

    def __call__(self) -> float:
        """Return the delay in seconds now; the growth begins at the first call that finds the fault."""
        ms_per_s = self._faults.number(CREEP)
        if ms_per_s <= 0:
            self._since_s = None
            return 0.0
        now_s = self._clock_s()
        if self._since_s is None:
            self._since_s = now_s
        return min(ms_per_s / 1000 * (now_s - self._since_s), CREEP_S_MAX)
