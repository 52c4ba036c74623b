"""Boards of expectations: objectives with their budgets, and what differs from the last hour."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import Board, Panel, Row, above, ask, below, graph, of_kind, stat

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
    about="What is unlike the last hour: orders, rejects and answer times against a statistical baseline.",
    jobs=_ALL,
    span="now-1h",
    rows=(
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
