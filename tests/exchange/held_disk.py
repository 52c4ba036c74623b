"""A disk whose syncs come back when a test says so: what is under way is so for as long as the test needs it."""

from __future__ import annotations

import threading

from exchange.adapters.disk import OsDisk


class HeldDisk(OsDisk):
    """The real disk; once `hold` was called, each fsync waits until it is let through."""

    def __init__(self) -> None:
        self._through, self._held = threading.Semaphore(0), False
        self.begun = self.ended = 0
        self.fails = False

    def hold(self) -> None:
        self._held, self.begun, self.ended = True, 0, 0

    def let_one_through(self) -> None:
        self._through.release()

    def let_go(self) -> None:
        self._held = False
        self._through.release()

    def fsync(self, fd: int) -> None:
        self.begun += 1
        if self._held:
            assert self._through.acquire(timeout=60), "nobody let the sync through"
        if self.fails:
            raise OSError(5, "Input/output error")
        super().fsync(fd)
        self.ended += 1
