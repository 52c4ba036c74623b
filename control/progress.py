"""How far something long is, said on standard error every few seconds: never on what a script reads."""

from __future__ import annotations

import time
from typing import Final

from control.terminal import err, escape

SAY_EVERY_S: Final = 2.0


class Progress:
    """Says how far it is, at most every `SAY_EVERY_S`; something quick says nothing."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what: Final = what
        self._total: Final = total
        self._next = time.monotonic() + SAY_EVERY_S

    def __call__(self, done: int) -> None:
        """Tell that `done` of it is behind us."""
        if time.monotonic() < self._next:
            return
        of = f" of {self._total:,}" if self._total else ""
        err.print(f"{escape(self._what)}: {done:,}{of}")
        self._next = time.monotonic() + SAY_EVERY_S
