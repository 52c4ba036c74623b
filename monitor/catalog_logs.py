"""The metrics of what ships logs and of what evaluates rules over them."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, counter, gauge, histogram

LOGS: Final[tuple[Metric, ...]] = (
    # --- shipper: log files to Elasticsearch --------------------------------------------------------------------------
    gauge(Role.SHIPPER, "tapewatch_shipper_up", "1 while Elasticsearch takes what is sent."),
    counter(
        Role.SHIPPER,
        "tapewatch_shipper_events_total",
        "Lines dealt with: shipped, duplicate, dead_letter, lost.",
        "result",
    ),
    gauge(Role.SHIPPER, "tapewatch_shipper_backlog_bytes", "Bytes of log files not yet acknowledged."),
    gauge(
        Role.SHIPPER, "tapewatch_shipper_lag_seconds", "Age of the oldest line not yet acknowledged, 0 when none is."
    ),
    # --- log-watch: rules over logs -----------------------------------------------------------------------------------
    counter(
        Role.LOG_WATCH,
        "tapewatch_log_rules_evaluations_total",
        "Evaluations of log rules, by result.",
        "rule",
        "result",
    ),
    counter(Role.LOG_WATCH, "tapewatch_log_rules_matches_total", "Matches of log rules.", "rule"),
    histogram(Role.LOG_WATCH, "tapewatch_log_rules_evaluation_seconds", "One turn over all log rules."),
    gauge(Role.LOG_WATCH, "tapewatch_log_rules_timestamp_seconds", "When every log rule was last evaluated."),
    # --- log-watch: kinds of lines ------------------------------------------------------------------------------------
    gauge(Role.LOG_WATCH, "tapewatch_log_templates", "Kinds of log lines that are told apart now."),
    counter(Role.LOG_WATCH, "tapewatch_log_templates_lines_total", "Log lines sorted by their kind."),
    counter(Role.LOG_WATCH, "tapewatch_log_templates_new_total", "Kinds of log lines never seen before."),
    counter(Role.LOG_WATCH, "tapewatch_log_templates_evicted_total", "Kinds let go of because there were too many."),
    gauge(
        Role.LOG_WATCH,
        "tapewatch_log_templates_score",
        "How unusual the most unusual kind of line was in the last minute, 0 to 1; 0.5 is unusual.",
    ),
    gauge(
        Role.LOG_WATCH,
        "tapewatch_log_rate_alert",
        "1 after a minute in which a kind of line, or the whole log, came unusually often or seldom.",
    ),
    gauge(
        Role.LOG_WATCH, "tapewatch_log_templates_timestamp_seconds", "End of the last minute whose lines were judged."
    ),
)
