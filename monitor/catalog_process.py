"""What every process of ours tells of itself, beside what its libraries do (`process_*`, `python_*`)."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import PAUSE_BUCKETS, Metric, counter, gauge, histogram

PROCESS: Final[tuple[Metric, ...]] = (
    gauge(None, "tapewatch_build_info", "1; the version of the program that runs.", "version"),
    gauge(
        None, "tapewatch_event_loop_lag_seconds", "How late the event loop was at worst, over the last five seconds."
    ),
    histogram(None, "tapewatch_gc_pause_seconds", "One run of the garbage collector.", PAUSE_BUCKETS),
    counter(None, "tapewatch_log_records_total", "Log records written, by severity.", "severity"),
    counter(None, "tapewatch_log_lost_total", "Log records lost: the queue was full, or the file failed.", "reason"),
    counter(
        None,
        "tapewatch_spans_total",
        "Spans of orders: exported, dropped for want of room, failed, or late: asked for when they were forgotten.",
        "result",
    ),
)
