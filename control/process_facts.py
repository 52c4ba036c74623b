"""What a process tells of itself: its version, how late its event loop is, its garbage collector's pauses, its log."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol

from monitor.adapters.exporter import CountCell, Exporter

TICK_S: Final = 0.25
WINDOW: Final = round(5.0 / TICK_S)
"""Looks at the loop that are remembered: five seconds, so that a scrape of every second misses none."""


class LogCounts(Protocol):
    """A log that counts what it wrote and what it lost."""

    written: dict[str, int]
    dropped: int
    failed: int


class ProcessFacts:
    """Keeps the metrics that every process exports (`monitor.catalog_process`)."""

    def __init__(self, exporter: Exporter, log: LogCounts | None = None) -> None:
        """Tell through `exporter`; `log` is where this process writes, if it does."""
        self._lag = exporter.level("tapewatch_event_loop_lag_seconds")
        self._pauses = exporter.spread("tapewatch_gc_pause_seconds")
        self._exporter = exporter
        self.log = log
        self._lags: deque[float] = deque(maxlen=WINDOW)
        self._began_s = 0.0
        exporter.level("tapewatch_build_info", _version()).set(1)
        gc.callbacks.append(self._collected)

    def close(self) -> None:
        """Look no more."""
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)

    async def run(self) -> None:
        """Look at the event loop and at the log until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                due = loop.time() + TICK_S
                await asyncio.sleep(TICK_S)
                self._lags.append(max(0.0, loop.time() - due))
                self._lag.set(max(self._lags))
                self._count_log()
        finally:
            self.close()

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = time.perf_counter()
        elif self._began_s:
            self._pauses.observe(time.perf_counter() - self._began_s)
            self._began_s = 0.0

    def _count_log(self) -> None:
        if self.log is None:
            return
        for severity, records in self.log.written.items():
            _reach(self._exporter.count("tapewatch_log_records_total", severity), records)
        _reach(self._exporter.count("tapewatch_log_lost_total", "queue_full"), self.log.dropped)
        _reach(self._exporter.count("tapewatch_log_lost_total", "file_failed"), self.log.failed)


def _reach(cell: CountCell, total: int) -> None:
    cell.add(max(0.0, total - cell.value))


def _version() -> str:
    try:
        return version("tapewatch")
    except PackageNotFoundError:
        return "unknown"
