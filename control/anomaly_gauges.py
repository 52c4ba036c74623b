"""What the detectors' process exports: the scores of the present, and how it is doing itself.

A score is there only while it is young: when no readings come the gauges of the series go away, and the age of the
newest readings grows. Nobody can take an old score for a new one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from anomaly.detector import Verdict
from control.anomaly_reading import Failure
from control.anomaly_state import Page
from control.anomaly_watch import AnomalyWatch, Kind, Row
from kernel.time import Instant, to_seconds
from monitor.adapters.exporter import Exporter
from monitor.watched import Renews

EACH: Final = ("anomaly_score", "anomaly_value", "anomaly_expected_low", "anomaly_expected_high", "anomaly_alert")
_RENEWED: Final = {Renews.BUILD: "build", Renews.PROCESS: "process"}


class Gauges:
    """Tells through an exporter."""

    def __init__(self, exporter: Exporter, began: Instant) -> None:
        self._exporter, self._began = exporter, began
        self._shown: set[tuple[str, str, str]] = set()
        self._told_dropped = 0
        self._told_renewed = dict.fromkeys(Renews, 0)
        exporter.level("anomaly_fresh_seconds").unset()
        exporter.level("anomaly_lag_seconds").unset()
        exporter.level("anomaly_warming_ratio").unset()

    def show(self, watch: AnomalyWatch, now: Instant, refused: int) -> None:
        """Show the last step; `refused` entries of the list are not asked for at all."""
        rows = watch.rows()
        for row in rows:
            self._show(row)
        self._hide(self._shown - {_labels(row) for row in rows})
        self._exporter.level("anomaly_lag_seconds").set(max(0.0, to_seconds(now - watch.at)))
        self.age(watch, now)
        self._count(watch, rows, refused)

    def age(self, watch: AnomalyWatch, now: Instant) -> None:
        """Show how old the newest readings are; where there never were any, for how long they have been asked for."""
        self._exporter.level("anomaly_fresh_seconds").set(max(0.0, to_seconds(now - (watch.at or self._began))))

    def stale(self) -> None:
        """Show no series any more: what is known of them is of the past."""
        self._hide(set(self._shown))
        for state in ("scored", "warming", "missing"):
            self._exporter.level("anomaly_series", state).set(0)

    def paged(self, pages: Sequence[Page]) -> None:
        """Count pages."""
        for page in pages:
            self._exporter.count("anomaly_pages_total", page.service).add()

    def stepped(self, kind: Kind, steps: int = 1) -> None:
        """Count steps."""
        self._exporter.count("anomaly_steps_total", str(kind)).add(steps)

    def skipped(self, steps: int) -> None:
        """Count instants that were passed over."""
        self._exporter.count("anomaly_steps_total", "skipped").add(steps)

    def took(self, step_s: float, read_s: float) -> None:
        """Tell how long a live step and its reading took."""
        self._exporter.spread("anomaly_step_seconds").observe(step_s)
        self._exporter.spread("anomaly_read_seconds").observe(read_s)

    def failed(self, failure: Failure) -> None:
        """Count a reading that failed."""
        self._exporter.count("anomaly_read_failures_total", str(failure)).add()

    def answered(self, answer: str) -> None:
        """Count what a person said."""
        self._exporter.count("anomaly_feedback_total", answer).add()

    def _show(self, row: Row) -> None:
        labels = _labels(row)
        self._shown.add(labels)
        missed = row.verdict is Verdict.MISSED or not math.isfinite(row.value)
        figures = (math.nan if missed else row.score, row.value, row.low, row.high, float(row.alert))
        for name, figure in zip(EACH, figures, strict=True):
            cell = self._exporter.level(name, *labels)
            if math.isfinite(figure):
                cell.set(figure)
            else:
                cell.unset()

    def _hide(self, gone: set[tuple[str, str, str]]) -> None:
        for labels in gone:
            for name in EACH:
                self._exporter.drop(name, *labels)
        self._shown -= gone

    def _count(self, watch: AnomalyWatch, rows: Sequence[Row], refused: int) -> None:
        with_value = [row for row in rows if math.isfinite(row.value)]
        warming = sum(row.verdict is Verdict.WARMING for row in with_value)
        states = {
            "scored": len(with_value) - warming, "warming": warming, "missing": len(rows) - len(with_value),
            "left_out": watch.left_out + refused,
        }  # fmt: skip
        for state, number in states.items():
            self._exporter.level("anomaly_series", state).set(number)
        if with_value:
            self._exporter.level("anomaly_warming_ratio").set(warming / len(with_value))
        self._exporter.level("anomaly_pages_day").set(watch.pages_of_the_day())
        self._exporter.level("anomaly_pages_promised").set(watch.promised())
        self._exporter.count("anomaly_series_dropped_total").add(watch.dropped - self._told_dropped)
        self._told_dropped = watch.dropped
        for why, number in watch.renewed.items():
            self._exporter.count("anomaly_restarts_total", _RENEWED[why]).add(number - self._told_renewed[why])
            self._told_renewed[why] = number


def _labels(row: Row) -> tuple[str, str, str]:
    return row.key.series, row.service, row.key.item
