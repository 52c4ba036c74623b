"""The board for managers: is the market served, what did it cost, and what is being done about it."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import (
    FRACTION,
    GOOD,
    GREY,
    ZERO,
    Board,
    Row,
    above,
    ask,
    below,
    gauge,
    graph,
    of_kind,
    quantile,
    risen,
    spread,
    stat,
)

_BAD: Final = 'outcome=~"shed|halted|unavailable|unknown"'
_FAILED: Final = f"sum(rate(exchange_gateway_requests_total{{$,{_BAD}}}[$r]))"
_ALL: Final = "sum(rate(exchange_gateway_requests_total{$}[$r]))"

OVERVIEW: Final = Board(
    name="overview",
    title="Market overview",
    about="Golden signals of the market, error budgets, incidents, and what downtime cost in orders and notional.",
    jobs=("engine", "gateway", "market-data", "settlement", "watchdog", "load", "control", "estate"),
    rows=(
        Row("Is the market served?", (
            of_kind("state-timeline", "Market phase",
                    "The phase of the session calendar. Alerts that belong to trading are muted outside it.",
                    "short", ask("max by (phase) (tapewatch_market_phase{$}) == 1", "{{phase}}"),
                    width=16, height=4, steps=((None, GOOD),), words=(("1", "on", GOOD), ("0", "off", GREY))),
            stat("Market halted", "1 while the whole market stands still. Red: open the engine's board; "
                 "`tapewatch incident list` says who works on it.", "short", "max(exchange_market_halted{$})", ZERO,
                 words=(("0", "trading", GOOD),)),
            stat("Symbols halted", "Symbols that stand still on their own. Red: see the board Exchange.", "short",
                 "sum(exchange_symbol_halted{$})", ZERO),
            gauge("Orders answered", "Share of order requests that got an answer of the market. Red: open the board "
                  "Gateway; shed and unavailable say which side is at fault.", "percentunit",
                  f"1 - ({_FAILED}) / ({_ALL} > 0)", below(0.99, 0.999), low=0.9, high=1.0, decimals=2),
            graph("Orders", "Orders accepted and commands refused by a rule, a second. A fall of the first during "
                  "trading is the first sign of trouble: open the board Exchange.", "ops",
                  ask("sum(rate(exchange_orders_accepted_total{$}[$r]))", "accepted"),
                  ask("sum(rate(exchange_rejects_total{$}[$r]))", "rejected"),
                  ask("sum(rate(exchange_trades_total{$}[$r]))", "trades"), width=10, height=6),
            graph("Answer time", "From a whole request to its durable answer. Above 250 ms clients complain: open the "
                  "board Gateway.", "s", *spread("exchange_order_ack_seconds"), width=10, height=6,
                  steps=above(0.1, 0.25)),
        )),
        Row("Promises kept", (
            of_kind("bargauge", "Error budget left", "Share of each objective's budget of thirty days that is left. "
                    "Red: the error-budget policy stops releases; see the board SLOs.", "percentunit",
                    ask("slo:error_budget_remaining:ratio", "{{slo}}"), width=8, height=7, low=0.0, high=1.0,
                    steps=below(0.0, 0.25)),
            graph("Failed order requests", "Requests shed, halted, unavailable or of unknown fate. Anything lasting "
                  "is an outage for somebody: open the board Gateway.", "percentunit",
                  ask(f"({_FAILED}) / ({_ALL} > 0)", "failed"), steps=FRACTION, low=0.0),
            graph("How full the services are", "Requests against what the gateways admit, and commands that wait for "
                  "the journal. Near 100 % orders are shed: add a gateway.", "percentunit",
                  ask("sum(rate(exchange_gateway_requests_total{$}[$r])) / "
                      "sum(exchange_gateway_capacity_per_second{$})", "gateways"), steps=above(0.7, 0.9), low=0.0),
        )),
        Row("Incidents", (
            stat("Open incidents", "Incidents that are not over. Red: `tapewatch incident list`.", "short",
                 'sum(tapewatch_incidents{$,state=~"open|acknowledged"})', ZERO, width=3),
            stat("Opened, 24 hours", "Incidents opened within a day. A rising count is a reason for a review.",
                 "short", risen("tapewatch_incidents_opened_total", "24h", "job"), above(3, 10), width=3, decimals=0),
            stat("Handed to people, 24 hours", "Incidents that automation could not end. Red: read their "
                 "timelines, then the runbook.", "short", "sum(increase(tapewatch_handovers_total{$}[24h]))",
                 above(1, 3), width=3, decimals=0),
            stat("Time to mitigate, median", "From an incident's opening to the proof of its remedy. Red: see the "
                 "board Control plane.", "s",
                 "histogram_quantile(0.5, sum by (le) (increase(tapewatch_incident_mitigate_seconds_bucket{$}[24h])))",
                 above(60, 300), width=5),
            stat("Time to resolve, median", "From an incident's opening to its end. Red: see the board Control plane.",
                 "s",
                 "histogram_quantile(0.5, sum by (le) (increase(tapewatch_incident_resolve_seconds_bucket{$}[24h])))",
                 above(120, 600), width=5),
            stat("Kill switch", "While it is on, nothing is mended by itself. Red: `tapewatch kill-switch off` when "
                 "its reason is gone.", "short", "max(tapewatch_kill_switch_on{$})", ZERO,
                 words=(("0", "off", GOOD),), width=5),
        )),
        Row("What downtime cost", (
            stat("Orders not served, 1 hour", "Order requests that got no answer of the market within the last hour. "
                 "Red: name the incident in the weekly report.", "short",
                 f"sum(increase(exchange_gateway_requests_total{{$,{_BAD}}}[1h]))", above(1, 100), width=6,
                 height=6, decimals=0),
            stat("Notional not served, 1 hour", "Those orders times the mean notional of an order, in ticks times "
                 "lots. Red: tell the market's management.", "suffix: ticks·lots",
                 f"sum(increase(exchange_gateway_requests_total{{$,{_BAD}}}[1h])) * "
                 "(sum(increase(exchange_client_notional_ticks_total{$}[1h])) / "
                 "sum(increase(exchange_client_orders_total{$}[1h])))", above(1, 1_000_000),
                 width=6, height=6, decimals=1),
            graph("Orders lost to each cause", "Requests without an answer of the market, a second, by cause. The "
                  "cause names the board: shed is Gateway, halted is Exchange, unavailable is Engine.", "ops",
                  ask(f"sum by (outcome) (rate(exchange_gateway_requests_total{{$,{_BAD}}}[$r]))", "{{outcome}}"),
                  width=12, height=6, stacked=True),
            graph("What clients see", "Answers as the load generator counts them, from outside. It may not differ "
                  "from what the gateways say.", "ops",
                  ask("sum by (outcome) (rate(exchange_client_orders_total{$}[$r]))", "{{outcome}}"), width=12,
                  height=6),
            graph("What clients wait", "From the intended send time to the answer, so a stall counts for every order "
                  "it delays. Above the gateway's own figure: the network or the client.", "s",
                  ask(quantile(0.5, "exchange_client_latency_seconds"), "p50"),
                  ask(quantile(0.99, "exchange_client_latency_seconds"), "p99"), width=12, height=6,
                  steps=above(0.1, 0.25)),
        )),
    ),
)  # fmt: skip
