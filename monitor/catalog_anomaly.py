"""The metrics of what judges series: scores, expected ranges, alerts of detectors, and its own health."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, counter, gauge, histogram

EACH: Final = ("series", "service", "item")
"""Labels of every watched series: its id in the list, the service it speaks of, and the one part that it splits by
(empty where it does not split). The list bounds all three together."""
WATCHED_MAX: Final = 1_000
"""Series of a whole list: a step must stay a matter of milliseconds."""

ANOMALY: Final[tuple[Metric, ...]] = (
    # --- what is judged -----------------------------------------------------------------------------------------------
    gauge(Role.ANOMALY, "anomaly_score", "How unusual a watched series is, 0 to 1; 0.5 is unusual.", *EACH),
    gauge(Role.ANOMALY, "anomaly_value", "The reading that was judged, in the series' own unit.", *EACH),
    gauge(Role.ANOMALY, "anomaly_expected_low", "Lower end of the expected range, in the series' own unit.", *EACH),
    gauge(Role.ANOMALY, "anomaly_expected_high", "Upper end of the expected range, in the series' own unit.", *EACH),
    gauge(
        Role.ANOMALY,
        "anomaly_alert",
        "1 from the reading that pages until the series is calm again; rules decide what becomes of it.",
        *EACH,
    ),
    # --- how it is doing ----------------------------------------------------------------------------------------------
    gauge(Role.ANOMALY, "anomaly_fresh_seconds", "Age of the newest readings that were judged."),
    gauge(Role.ANOMALY, "anomaly_lag_seconds", "From the instant of the last readings to their scores."),
    histogram(Role.ANOMALY, "anomaly_step_seconds", "One step: reading, judging and telling."),
    histogram(Role.ANOMALY, "anomaly_read_seconds", "One question to Prometheus for every watched series."),
    counter(Role.ANOMALY, "anomaly_read_failures_total", "Readings that failed, by reason.", "reason"),
    counter(
        Role.ANOMALY,
        "anomaly_steps_total",
        "Instants judged: live, after a gap, from history, or skipped because the gap was too long.",
        "kind",
    ),
    gauge(
        Role.ANOMALY,
        "anomaly_series",
        "Watched series by state: scored, warming, missing (known, without a reading now), left_out (above the bound).",
        "state",
    ),
    gauge(Role.ANOMALY, "anomaly_warming_ratio", "Share of the series with a reading that are still warming up."),
    counter(Role.ANOMALY, "anomaly_series_dropped_total", "Series forgotten because they were gone for long."),
    counter(
        Role.ANOMALY,
        "anomaly_restarts_total",
        "Series begun anew, by reason: build (another version runs), process (memory and processor time begin anew).",
        "reason",
    ),
    counter(Role.ANOMALY, "anomaly_pages_total", "Times that a series asked for attention, by service.", "service"),
    gauge(
        Role.ANOMALY,
        "anomaly_pages_day",
        "Pages of the last 24 hours that nobody confirmed as right; kept over a restart.",
    ),
    gauge(
        Role.ANOMALY, "anomaly_pages_promised", "False pages a day that the budget allows for the series watched now."
    ),
    counter(Role.ANOMALY, "anomaly_feedback_total", "What people said of pages: false, true, unknown.", "answer"),
)
