"""Boards of the control plane and of the estate whose processes it mends."""

from __future__ import annotations

from typing import Final

from monitor.adapters.boards.model import (
    BAD,
    CALM,
    GOOD,
    ZERO,
    Ask,
    Board,
    Row,
    above,
    ask,
    graph,
    of_kind,
    quantile,
    risen,
    stat,
)


def _median(metric: str) -> str:
    return f"histogram_quantile(0.5, sum by (le) (increase({metric}_bucket{{$}}[24h])))"


def _lately(metric: str) -> tuple[Ask, ...]:
    """Return the questions for what happens seldom: quantiles over the last hour."""
    inner = f"sum by (le) (increase({metric}_bucket{{$}}[1h]))"
    return tuple(ask(f"histogram_quantile({q}, {inner})", name) for q, name in ((0.5, "p50"), (0.95, "p95")))


CONTROL: Final = Board(
    name="control",
    title="Control plane",
    about="Incidents and how long they last, runbook runs, refusals, and what each alert was worth.",
    jobs=("control",),
    rows=(
        Row("Incidents", (
            stat("Open", "Incidents nobody has mitigated. Red: `tapewatch incident list`.", "short",
                 'sum(tapewatch_incidents{$,state=~"open|acknowledged"})', ZERO),
            stat("Mitigated", "Remedied and watched until they are over. Lasting: their alert still fires.", "short",
                 'sum(tapewatch_incidents{$,state="mitigated"})', above(3, 10)),
            stat("Acknowledge, median", "From opening to the first person who took it. Empty: automation was faster.",
                 "s", _median("tapewatch_incident_acknowledge_seconds"), above(120, 600)),
            stat("Mitigate, median", "From opening to the reading that proved the remedy. Red: the runbook is slow or "
                 "wrong.", "s", _median("tapewatch_incident_mitigate_seconds"), above(60, 300)),
            stat("Resolve, median", "From opening to the end. Red: alerts are slow to end; see keep_firing_for.", "s",
                 _median("tapewatch_incident_resolve_seconds"), above(120, 600)),
            stat("Kill switch", "While it is on, nothing is mended by itself. Red: who threw it, and why?", "short",
                 "max(tapewatch_kill_switch_on{$})", ZERO, words=(("0", "off", GOOD), ("1", "ON", BAD))),
            graph("Incidents by state", "A plateau of open ones: automation hands over and nobody takes them.",
                  "short", ask("sum by (state) (tapewatch_incidents{$})", "{{state}}"), width=12, stacked=True),
            graph("Opened by level", "Within five minutes. Level 1 wakes people.", "short",
                  ask(risen("tapewatch_incidents_opened_total", "5m", "level"), "level {{level}}"),
                  width=12),
        )),
        Row("Runs and refusals", (
            of_kind("table", "Runs, 24 hours", "By runbook and outcome. One that fails again and again is wrong: "
                    "rehearse it.", "short",
                    ask(risen("tapewatch_runs_total", "24h", "runbook, outcome")), width=10, height=8),
            of_kind("table", "Actions, 24 hours", "What was asked of the plant, by result.", "short",
                    ask(risen("tapewatch_actions_total", "24h", "action, result")), width=7, height=8),
            of_kind("table", "Refusals, 24 hours", "Runs refused, by the guard that refused. Many: a loop wants what "
                    "it may not.", "short", ask(risen("tapewatch_refusals_total", "24h", "reason")),
                    width=7, height=8, steps=above(1, 10)),
            graph("Signal to action", "From a webhook's arrival to the first action, last hour. Above ten seconds the "
                  "remedy comes late.", "s", *_lately("tapewatch_signal_to_action_seconds"), steps=above(2, 10)),
            graph("Runs under way and signals waiting", "A backlog that stays: the loop is stuck.", "short",
                  ask("sum(tapewatch_active_runs{$})", "runs"), ask("sum(tapewatch_backlog_signals{$})", "waiting"),
                  steps=above(20, 200)),
            graph("Since the loop turned", "Red: the loop hangs; the standby takes over, or restart control.", "s",
                  ask("time() - max(tapewatch_loop_timestamp_seconds{$})", "age"), steps=above(3, 10)),
        )),
        Row("Noise", (
            of_kind("bargauge", "Actions by alert, 24 hours", "Alerts for which something was done. What fires and is "
                    "not here is noise: `tapewatch alerts report`.", "short",
                    ask(risen("tapewatch_alerts_acted_total", "24h", "alert"), "{{alert}}"), width=12,
                    height=8, low=0.0),
            of_kind("bargauge", "Alerts firing now", "By rule. One that always fires tells nothing.", "short",
                    ask('sum by (alertname) (ALERTS{alertstate="firing"})', "{{alertname}}"), width=12, height=8,
                    low=0.0),
            graph("Signals taken in", "Alerts by status, a second. Far more firing than resolved: a storm.", "ops",
                  ask("sum by (status) (rate(tapewatch_signals_total{$}[$r]))", "{{status}}")),
            graph("Webhooks by code", "Deliveries a second. Not 202: alerts may be lost; read control's log.", "reqps",
                  ask("sum by (code) (rate(tapewatch_webhooks_total{$}[$r]))", "{{code}}")),
            graph("Readings that were no answer", "By reason. Stale or missing: a runbook decides nothing without "
                  "proof.", "ops", ask("sum by (reason) (rate(tapewatch_evidence_unknown_total{$}[$r]))",
                                       "{{reason}}"), steps=above(0.1, 1)),
            graph("Errors of the loop", "By kind. Any: read control's log.", "ops",
                  ask("sum by (kind) (rate(tapewatch_errors_total{$}[$r]))", "{{kind}}"), steps=above(0.01, 1)),
            graph("Webhook answer", "99th percentile. Red: the incident store's disk.", "s",
                  ask(quantile(0.99, "tapewatch_webhook_seconds"), "p99"), steps=above(0.25, 1)),
            stat("Handed to people, 24 hours", "Incidents that automation could not end. Red: read their timelines.",
                 "short", "sum(increase(tapewatch_handovers_total{$}[24h]))", above(1, 3), width=8, height=7,
                 decimals=0),
        )),
    ),
)  # fmt: skip

ESTATE: Final = Board(
    name="estate",
    title="Estate",
    about="The processes: wanted, ready, started, ended on their own, mended.",
    jobs=("estate", "engine", "gateway", "market-data", "settlement", "watchdog", "control", "log-watch", "load",
          "prometheus", "alertmanager", "node"),
    rows=(
        Row("Processes", (
            stat("Replicas missing", "Wanted and not ready. Red: `tapewatch status` names them.", "short",
                 "sum(tapewatch_replicas_desired{$}) - sum(tapewatch_replicas_ready{$})", ZERO, width=8),
            stat("Ended on their own, 1 hour", "Red: read the log of the workload that ended.", "short",
                 "sum(increase(tapewatch_replica_exits_total{$}[1h]))", above(1, 5), width=8, decimals=0),
            stat("Mended, 1 hour", "Platform processes the estate started again. Red: one flaps.", "short",
                 "sum(increase(tapewatch_replica_mends_total{$}[1h]))", above(1, 5), width=8, decimals=0),
            of_kind("state-timeline", "Up", "Whether each process answers its scrape. Red: it is down or hangs.",
                    "short", ask("min by (job, replica) (up{$})", "{{replica}}"), width=24, height=10,
                    steps=((None, BAD), (1, GOOD)), words=(("1", "up", GOOD), ("0", "down", BAD))),
            graph("Ready and wanted", "By workload. Apart: a process starts, hangs or is held.", "short",
                  ask("sum by (workload) (tapewatch_replicas_ready{$})", "{{workload}}"), width=12, height=8),
            graph("Starts", "Processes started within five minutes, by workload. A saw: it flaps.", "short",
                  ask("sum by (workload) (increase(tapewatch_replica_starts_total{$}[5m]))", "{{workload}}"),
                  width=12, height=8),
            of_kind("table", "Versions", "The version each process runs. Two of one service: a rollout is under way.",
                    "short", ask("max by (job, replica, version) (tapewatch_build_info{$})"), width=12, height=9,
                    steps=((None, CALM),)),
            of_kind("bargauge", "Running since", "Age of each process. A young one among old ones was restarted.",
                    "s", ask("time() - max by (job, replica) (process_start_time_seconds{$})", "{{replica}}"),
                    width=12, height=9, low=0.0, steps=((None, CALM),)),
        )),
    ),
)  # fmt: skip
