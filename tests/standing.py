"""Processes that stand still: stopped is what the kernel says of every thread, not that the signal was sent."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_WITHIN_S = 10.0


def stop(pid: int) -> None:
    """Send SIGSTOP and return once no thread of the process runs any more.

    A stop is carried out by whichever thread takes the signal, once the kernel gives that thread a processor: on a
    busy machine the others go on for milliseconds, and a broker answers one request more.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _WITHIN_S
    while running := _running(pid):
        assert time.monotonic() < deadline, f"threads {running} of process {pid} run {_WITHIN_S:.0f} s after SIGSTOP"
        time.sleep(0.001)


def _running(pid: int) -> list[int]:
    """Return the threads that are not stopped; one that ended meanwhile is none."""
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            continue
        if state not in "TtZX":
            found.append(int(thread.name))
    return found
