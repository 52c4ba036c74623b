"""Boards of expectations: objectives with their budgets, and what differs from the last hour."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import WARN, Board, Panel, Row, above, ask, below, graph, of_kind, stat

_ALL: Final = ("gateway", "engine", "market-data", "settlement", "control")


def _score(title: str, name: str, cause: str) -> Panel:
    return graph(
        title,
        f"Standard deviations from the mean of the last hour. Beyond 6 either way it is unlike that hour: {cause}",
        "short",
        ask(f"service:{name}:zscore_1h", "deviation"),
        width=12,
        height=8,
        steps=above(4, 6),
    )


ANOMALIES: Final = Board(
    name="anomalies",
    title="Anomalies",
    about="What is unlike its own past: every watched series by its detector, and a plain band over the last hour.",
    jobs=("anomaly", *_ALL),
    span="now-1h",
    rows=(
        Row("Detectors", (
            stat("Series that ask for attention", "Red: `tapewatch anomaly watch` says which and why, and takes your "
                 "word for a false alarm.", "short", "sum(anomaly_alert{$})", above(1, 3), width=6, decimals=0),
            stat("Age of the readings", "Red: Prometheus does not answer the detectors; there are no scores meanwhile.",
                 "s", "max(anomaly_fresh_seconds{$})", above(10, 30), width=6, decimals=1),
            stat("Pages of the day, of those promised", "Red: over budget; confirm or deny them with `tapewatch "
                 "anomaly feedback`.", "percentunit",
                 "max(anomaly_pages_day{$}) / (max(anomaly_pages_promised{$}) > 0)", above(1, 3), width=6),
            stat("Still warming up", "Share of the series whose past is too short. Red for long: see the restarts.",
                 "percentunit", "max(anomaly_warming_ratio{$})", above(0.5, 0.9), width=6),
            graph("Scores", "The most unusual series; 0.5 is the threshold of each. See its board for the service.",
                  "short", ask("topk(12, max by (series, item) (anomaly_score{$}))", "{{series}} {{item}}"), width=12,
                  height=9, steps=above(0.5, 0.8), low=0.0, high=1.0),
            of_kind("state-timeline", "Alerts of the detectors", "From the reading that pages until the series is calm "
                    "again. Rules decide what becomes of it.", "short",
                    ask("max by (series, item) (anomaly_alert{$}) > 0", "{{series}} {{item}}"), width=12, height=9,
                    steps=above(1, 2), words=(("1", "unusual", WARN),)),
            graph("Unusual readings and what was expected", "Only series with a score above the threshold, each in "
                  "its own unit.", "short",
                  ask("max by (series, item) (anomaly_value{$}) and max by (series, item) (anomaly_score{$}) >= 0.5",
                      "{{series}} {{item}}"),
                  ask("max by (series, item) (anomaly_expected_low{$}) and max by (series, item) (anomaly_score{$}) "
                      ">= 0.5", "{{series}} {{item}} limit below"),
                  ask("max by (series, item) (anomaly_expected_high{$}) and max by (series, item) (anomaly_score{$}) "
                      ">= 0.5", "{{series}} {{item}} limit above"), width=12, height=8),
            graph("Pages by service", "An hour. One service that stands out: mend it, or mend its entries in the list.",
                  "short", ask("sum by (service) (increase(anomaly_pages_total{$}[1h]))", "{{service}}"), width=12,
                  height=8, stacked=True),
            graph("Series by state", "Missing: known, without a reading now. Left out: above the bound of their entry.",
                  "short", ask("sum by (state) (anomaly_series{$})", "{{state}}"), stacked=True),
            graph("A step", "Reading and judging every series. Near the step's length: the list is too long.", "s",
                  ask("sum(rate(anomaly_step_seconds_sum{$}[$r])) / (sum(rate(anomaly_step_seconds_count{$}[$r])) > 0)",
                      "step, mean"),
                  ask("sum(rate(anomaly_read_seconds_sum{$}[$r])) / (sum(rate(anomaly_read_seconds_count{$}[$r])) > 0)",
                      "reading, mean"), ask("max(anomaly_lag_seconds{$})", "from instant to scores"),
                  steps=above(1, 2)),
            graph("Readings that failed, steps made good", "By reason and kind. Gap: after a stop; skipped: too long.",
                  "ops", ask("sum by (reason) (rate(anomaly_read_failures_total{$}[$r]))", "{{reason}}"),
                  ask('sum by (kind) (rate(anomaly_steps_total{$,kind!="live"}[$r]))', "{{kind}}"),
                  steps=above(0.1, 1)),
            graph("Begun anew, forgotten, answered", "Within the hour: after deploys, after ten minutes without a "
                  "reading, and what people said.", "short",
                  ask("sum by (reason) (increase(anomaly_restarts_total{$}[1h]))", "new {{reason}}"),
                  ask("sum(increase(anomaly_series_dropped_total{$}[1h]))", "forgotten"),
                  ask("sum by (answer) (increase(anomaly_feedback_total{$}[1h]))", "said {{answer}}"), width=24,
                  height=6),
        )),
        Row("Now", tuple(
            stat(title, "Standard deviations from the last hour's mean. Red: compare with the curves below, then open "
                 f"the board {board}.", "short", f"abs(service:{name}:zscore_1h)", above(4, 6), width=8, decimals=1)
            for title, name, board in (
                ("Orders, deviation", "exchange_orders", "Exchange"),
                ("Rejects, deviation", "exchange_rejects", "Exchange"),
                ("Answer time, deviation", "exchange_order_ack", "Gateway"),
            )
        )),
        Row("Deviations", (
            _score("Orders", "exchange_orders", "a feed of orders began or ended; ask the members."),
            _score("Rejects", "exchange_rejects", "see the reasons on the board Exchange."),
            _score("Answer time", "exchange_order_ack", "see the parts of it on the board RED."),
            of_kind("bargauge", "Requests of each gateway against the mean of all", "Share of the mean. One apart "
                    "from the others is left out or flooded.", "percentunit",
                    ask("sum by (job, replica) (rate(exchange_gateway_requests_total{$}[$r])) / on () group_left () "
                        "(avg(sum by (job, replica) (rate(exchange_gateway_requests_total{$}[$r]))) > 0)",
                        "{{replica}}"), width=12, height=8, steps=below(0.2, 0.6), low=0.0),
        )),
        Row("The curves behind", (
            graph("Orders and their band", "Orders a second with three standard deviations around the last hour's "
                  "mean. Outside: see above.", "ops", ask("service:exchange_orders:rate1m", "orders accepted"),
                  ask("avg_over_time(service:exchange_orders:rate1m[1h]) + "
                      "3 * stddev_over_time(service:exchange_orders:rate1m[1h])", "limit above"),
                  ask("avg_over_time(service:exchange_orders:rate1m[1h]) - "
                      "3 * stddev_over_time(service:exchange_orders:rate1m[1h])", "limit below")),
            graph("Share of rejects and its band", "With the same band. Above: a member or a rule goes wrong.",
                  "percentunit", ask("service:exchange_rejects:ratio_rate1m", "rejected"),
                  ask("avg_over_time(service:exchange_rejects:ratio_rate1m[1h]) + "
                      "3 * stddev_over_time(service:exchange_rejects:ratio_rate1m[1h])", "limit above")),
            graph("Mean answer time and its band", "With the same band. Above: see the board Gateway.", "s",
                  ask("service:exchange_order_ack:mean_rate1m", "mean"),
                  ask("avg_over_time(service:exchange_order_ack:mean_rate1m[1h]) + "
                      "3 * stddev_over_time(service:exchange_order_ack:mean_rate1m[1h])", "limit above")),
        )),
    ),
)  # fmt: skip

SLO: Final = Board(
    name="slo",
    title="SLOs and error budgets",
    about="Each objective: what was promised, what is left of its budget, and how fast it burns.",
    jobs=_ALL,
    span="now-1h",
    rows=(
        Row("Budgets", (
            of_kind("bargauge", "Error budget left", "Of thirty days. Red: it is spent; the error-budget policy stops "
                    "releases.", "percentunit", ask("slo:error_budget_remaining:ratio", "{{slo}}"), width=12,
                    height=8, low=0.0, high=1.0, steps=below(0.0, 0.25)),
            of_kind("table", "Promised", "Each objective as a share of good events. It changes by a decision only.",
                    "percentunit", ask("slo:objective:ratio"), width=12, height=8),
            graph("Budget left over time", "A step down is an incident; a slope is a chronic fault.", "percentunit",
                  ask("slo:error_budget_remaining:ratio", "{{slo}}"), width=12, height=8, steps=below(0.0, 0.25)),
            graph("Burn rate, 1 hour", "1 spends the budget in thirty days, 14.4 in two. Red pages: see the "
                  "service's board.", "short", ask("slo:burn_rate:ratio_rate1h", "{{slo}}"), width=12, height=8,
                  steps=above(3, 14.4)),
        )),
        Row("Errors", (
            graph("Share of bad events, 5 minutes", "By objective. The fastest window: it falls first when a fault "
                  "ends.", "percentunit", ask("slo:sli_error:ratio_rate5m", "{{slo}}"), low=0.0),
            graph("Share of bad events, 1 hour", "By objective. With the window beside, it pages.", "percentunit",
                  ask("slo:sli_error:ratio_rate1h", "{{slo}}"), low=0.0),
            graph("Share of bad events, 6 hours", "By objective. With thirty minutes, it pages for slow burns.",
                  "percentunit", ask("slo:sli_error:ratio_rate6h", "{{slo}}"), low=0.0),
            of_kind("table", "Share of bad events, 30 days", "By objective and service. More than one less the "
                    "promise: the budget is spent.", "percentunit", ask("slo:sli_error:ratio_rate30d"), width=12,
                    height=7),
            graph("Traffic behind it", "Order requests a second: an objective without traffic says nothing.", "reqps",
                  ask("sum(rate(exchange_gateway_requests_total{$}[$r]))", "requests"), width=12, height=7),
        )),
    ),
)  # fmt: skip
