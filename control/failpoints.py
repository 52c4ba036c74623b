"""Points at which the control process kills itself when told to: how the drill proves that no effect is repeated.

A failpoint is consumed durably before it fires, so each one fires once.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from pathlib import Path

import msgspec

from control.addresses import write_atomically


class Failpoint(StrEnum):
    """Where the control process may die."""

    BEFORE_EFFECT = "before-effect"
    """The action is decided and journalled, nothing has been done yet."""
    AFTER_EFFECT = "after-effect"
    """The action was carried out, its answer is not journalled yet."""


class Failpoints:
    """The failpoints armed in one file; without permission for faults there are none."""

    def __init__(self, path: Path, *, allowed: bool) -> None:
        """Read armed points from `path` when faults are `allowed`."""
        self._path = path
        self._allowed = allowed

    def reach(self, point: Failpoint) -> None:
        """Die here with SIGKILL when the point is armed."""
        if not self._allowed or not self._path.exists():
            return
        try:
            armed = msgspec.json.decode(self._path.read_bytes(), type=list[str])
        except msgspec.DecodeError:
            return
        if point not in armed:
            return
        armed.remove(point)
        write_atomically(self._path, msgspec.json.encode(armed))
        os.kill(os.getpid(), signal.SIGKILL)
