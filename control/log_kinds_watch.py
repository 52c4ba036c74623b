"""Kinds of log lines at work in the role log-watch: read as they come, told as metrics, kept over a stop.

The machine code of the detectors is made in a process of its own before the first line is read: making it takes a
minute on a slow machine, and the log rules do not wait for it. Whatever fails here costs the kinds, never the rules.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exchange.ports import Log
from kernel.errors import PermanentError, TapewatchError
from kernel.time import MILLISECOND, MINUTE, SECOND, Clock, Duration, Instant, to_seconds
from monitor.instruments import Meter
from monitor.log_store import LogStore, Span

if TYPE_CHECKING:  # compiled code, loaded only once it is made
    from anomaly.log_rates import Bucket, LogWatcher

RATED: Final = 64
"""Kinds whose rates are judged: two megabytes of state."""
TEMPLATES: Final = 500
WARM_LINES: Final = 1_000
WARM_FOR: Final = Duration(10 * MINUTE)
BUCKET: Final = MINUTE
LATE: Final = Duration(3 * SECOND)
"""How late a record may come and still be read."""
CATCH_UP: Final = Duration(10 * MINUTE)
"""How far back a start reads on; what is longer ago counts as not read."""
SAVE_EVERY: Final = Duration(5 * MINUTE)
MAX_STATE_BYTES: Final = 64 * 1024 * 1024
_MAKE_CODE: Final = """
import os
os.nice(10)
import numpy as np
from anomaly.fleet import Fleet
Fleet(1).advance(np.ones(1, np.int64), np.ones(1))
"""


@dataclass(frozen=True)
class KindParts:
    """What the kinds are watched with."""

    store: LogStore
    meter: Meter
    log: Log
    clock: Clock
    state: Path
    """Where the kinds are kept."""
    late: Duration = LATE
    watcher: Callable[[bytes | None], LogWatcher] | None = None
    """Makes a watcher, or restores one; None: the house's own, with the compiled detectors."""


class KindWatch:
    """The kinds of lines in one store."""

    def __init__(self, parts: KindParts) -> None:
        """Read nothing yet: see `prepare`."""
        self._p = parts
        self._watcher: LogWatcher | None = None
        self._read_to = Instant(0)
        self._saved_at = Instant(0)
        self._counted = (0, 0, 0)
        self.why = ""
        """Why the last turn read nothing; empty when it did."""
        for name in ("lines", "new", "evicted"):
            parts.meter.count(f"tapewatch_log_templates_{name}_total").add(0)

    async def prepare(self) -> None:
        """Make the detectors' code, then take up what is kept. Returns when lines may be read, or never will be."""
        if self._p.watcher is None:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _MAKE_CODE,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                code = await child.wait()
            except asyncio.CancelledError:
                child.kill()
                raise
            if code:
                self._say(f"the detectors' code cannot be made (exit code {code})")
                return
        await asyncio.to_thread(self._begin)

    def turn(self, now: Instant) -> None:
        """Read what came since the last turn, and tell; for a thread beside the rules."""
        watcher, end = self._watcher, _whole(now - self._p.late)
        if watcher is None or end <= self._read_to:
            return
        start = max(self._read_to, Instant(end - CATCH_UP))
        from control.log_kinds import feed

        try:
            buckets = [*watcher.advance(start, alive=False), *feed(watcher, self._p.store, Span(start, end))]
            buckets += watcher.advance(end, alive=True)
            self.why = ""
        except TapewatchError as error:
            self._say(str(error))
            if end - self._read_to < CATCH_UP:
                return  # read with the next turn
            buckets = watcher.advance(end, alive=False)
        self._read_to = end
        self._tell(watcher, buckets)
        if now - self._saved_at >= SAVE_EVERY:
            self.save()
            self._saved_at = now

    def save(self) -> None:
        """Keep what is known; a disk that is full costs the memory of a stop, not the work."""
        if self._watcher is None:
            return
        try:
            self._p.state.parent.mkdir(parents=True, exist_ok=True)
            draft = self._p.state.with_suffix(".new")
            draft.write_bytes(str(self._read_to).encode() + b"\n" + self._watcher.save())
            draft.replace(self._p.state)
        except OSError as error:
            self._p.log.event("log-kinds-not-kept", severity="warning", message=str(error))

    def _begin(self) -> None:
        make = self._p.watcher or _house
        self._read_to = _whole(self._p.clock.now() - self._p.late)
        try:
            with self._p.state.open("rb") as file:
                first, _, rest = file.read(MAX_STATE_BYTES).partition(b"\n")
            self._watcher, self._read_to = make(rest), _whole(int(first))
        except FileNotFoundError:
            self._watcher = make(None)
        except (OSError, ValueError, PermanentError) as error:
            self._p.log.event("log-kinds-forgotten", severity="warning", message=str(error))
            self._watcher = make(None)
        templates = self._watcher.templates
        self._counted = (templates.lines, templates.fresh, templates.evicted)

    def _tell(self, watcher: LogWatcher, buckets: list[Bucket]) -> None:
        meter, templates = self._p.meter, watcher.templates
        now = (templates.lines, templates.fresh, templates.evicted)
        for name, value, before in zip(("lines", "new", "evicted"), now, self._counted, strict=True):
            meter.count(f"tapewatch_log_templates_{name}_total").add(value - before)
        self._counted = now
        meter.level("tapewatch_log_templates").set(len(templates))
        for bucket in buckets:
            meter.level("tapewatch_log_templates_score").set(bucket.score)
            rates = [one for one in bucket.findings if one.alert and str(one.why) == "rate"]
            meter.level("tapewatch_log_rate_alert").set(float(bool(rates)))
            meter.level("tapewatch_log_templates_timestamp_seconds").set(to_seconds(bucket.at))
            for one in bucket.findings:
                if one.alert or str(one.why) == "new":
                    name = "log-kind-new" if str(one.why) == "new" else "log-rate-anomalous"
                    self._p.log.event(name, severity="warning", message=one.sentence)

    def _say(self, why: str) -> None:
        if why != self.why:
            self._p.log.event("log-kinds-unread", severity="warning", message=why)
        self.why = why


def _whole(at: int) -> Instant:
    """Return an instant in whole milliseconds, as a store is asked."""
    return Instant(at // MILLISECOND * MILLISECOND)


def _house(kept: bytes | None) -> LogWatcher:
    from anomaly.fleet import Fleet
    from anomaly.log_rates import LogWatcher
    from anomaly.templates import Limits

    if kept is not None:
        return LogWatcher.restore(kept, Fleet, Fleet.restore)
    limits = Limits(templates=TEMPLATES, warm_lines=WARM_LINES, warm_for_ns=WARM_FOR)
    return LogWatcher(Fleet, limits=limits, rated=RATED, bucket=BUCKET)
