"""Virtual time: an event loop whose clock jumps to whatever is due next, so that waiting takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from kernel.time import SECOND, Instant

T = TypeVar("T")

EPOCH: Final = Instant(1_772_443_800 * SECOND)
"""2026-03-02T09:30:00Z: where virtual time begins."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting for input, time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits and nothing is due: the simulation hangs"
            self.now_s += max(timeout, 0.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        # Double precision holds a microsecond over years; the real clock's nanosecond would make timers wait for ever.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._jump.now_s


class VirtualClock:
    """The port `Clock` on the running loop's time."""

    def __init__(self) -> None:
        self.skipped_ns = 0

    def now(self) -> Instant:
        try:
            elapsed = asyncio.get_running_loop().time()
        except RuntimeError:
            elapsed = 0.0
        return Instant(EPOCH + self.skipped_ns + round(elapsed * 1_000_000) * 1_000)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on virtual time to its end; what it leaves behind is cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
