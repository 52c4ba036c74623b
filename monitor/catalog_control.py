"""The control plane's metrics: incidents and runs, the estate's processes, pages to people."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import INCIDENT_BUCKETS, PAGE_BUCKETS, Metric, Role, counter, gauge, histogram

CONTROL: Final[tuple[Metric, ...]] = (
    # --- control plane ------------------------------------------------------------------------------------------------
    counter(Role.CONTROL, "tapewatch_webhooks_total", "Webhook deliveries, by status code.", "code"),
    histogram(Role.CONTROL, "tapewatch_webhook_seconds", "From a whole webhook read to its durable answer."),
    counter(Role.CONTROL, "tapewatch_signals_total", "Alerts taken in, by status.", "status"),
    gauge(Role.CONTROL, "tapewatch_incidents", "Incidents, by state.", "state"),
    counter(Role.CONTROL, "tapewatch_incidents_opened_total", "Incidents opened, by level.", "level"),
    counter(Role.CONTROL, "tapewatch_runs_total", "Runs ended, by runbook and outcome.", "runbook", "outcome"),
    counter(
        Role.CONTROL, "tapewatch_actions_total", "Actions asked of the plant, by kind and result.", "action", "result"
    ),
    counter(Role.CONTROL, "tapewatch_refusals_total", "Runs refused, by the guard that refused.", "reason"),
    counter(Role.CONTROL, "tapewatch_handovers_total", "Incidents handed to a person."),
    counter(Role.CONTROL, "tapewatch_evidence_unknown_total", "Readings that were no answer, by reason.", "reason"),
    counter(Role.CONTROL, "tapewatch_errors_total", "Operating errors of the loop, by kind.", "kind"),
    gauge(Role.CONTROL, "tapewatch_kill_switch_on", "1 while automatic actions are forbidden."),
    gauge(Role.CONTROL, "tapewatch_active_runs", "Runs now under way."),
    gauge(Role.CONTROL, "tapewatch_backlog_signals", "Signals taken in and not yet decided on."),
    gauge(Role.CONTROL, "tapewatch_loop_timestamp_seconds", "When the control loop last turned."),
    gauge(Role.CONTROL, "tapewatch_deadman_timestamp_seconds", "When the Watchdog alert last arrived."),
    histogram(
        Role.CONTROL, "tapewatch_signal_to_action_seconds", "From a webhook's arrival to the first action asked for."
    ),
    counter(Role.CONTROL, "tapewatch_alerts_acted_total", "Actions carried out for an alert.", "alert"),
    gauge(Role.CONTROL, "tapewatch_market_phase", "1 for the phase the calendar says, 0 for the others.", "phase"),
    histogram(
        Role.CONTROL,
        "tapewatch_incident_acknowledge_seconds",
        "From an incident's opening to the first person who took it.",
        INCIDENT_BUCKETS,
    ),
    histogram(
        Role.CONTROL,
        "tapewatch_incident_mitigate_seconds",
        "From an incident's opening to the reading that proved its remedy.",
        INCIDENT_BUCKETS,
    ),
    histogram(
        Role.CONTROL,
        "tapewatch_incident_resolve_seconds",
        "From an incident's opening to its end.",
        INCIDENT_BUCKETS,
    ),
    # --- estate: the supervisor of local processes --------------------------------------------------------------------
    gauge(Role.ESTATE, "tapewatch_replicas_desired", "Replicas a workload should have.", "workload"),
    gauge(
        Role.ESTATE, "tapewatch_replicas_ready", "Replicas of a workload that answer their readiness probe.", "workload"
    ),
    gauge(
        Role.ESTATE, "tapewatch_replicas_canary", "Replicas of a workload that run a revision of their own.", "workload"
    ),
    gauge(Role.ESTATE, "tapewatch_replica_away", "1 while a replica is being replaced on purpose.", "member"),
    counter(Role.ESTATE, "tapewatch_replica_starts_total", "Processes started for a workload.", "workload"),
    counter(
        Role.ESTATE, "tapewatch_replica_exits_total", "Processes of a workload that ended on their own.", "workload"
    ),
    counter(
        Role.ESTATE, "tapewatch_replica_mends_total", "Platform processes the estate itself started again.", "workload"
    ),
    # --- bridge: pages to people --------------------------------------------------------------------------------------
    counter(
        Role.BRIDGE,
        "tapewatch_pages_total",
        "Pages that are over, by how they ended: delivered (a receipt says so), accepted (the provider gives none), "
        "failed, unconfirmed (its receipt never came). Test pages are not counted.",
        "channel",
        "result",
    ),
    counter(
        Role.BRIDGE,
        "tapewatch_page_attempts_total",
        "Requests that sent a page, by what they came to.",
        "channel",
        "outcome",
    ),
    counter(
        Role.BRIDGE, "tapewatch_page_escalations_total", "Pages handed on from a channel to the next one.", "channel"
    ),
    gauge(Role.BRIDGE, "tapewatch_pages_waiting", "Pages that no provider has accepted yet."),
    gauge(Role.BRIDGE, "tapewatch_page_oldest_waiting_seconds", "Age of the oldest of them, 0 when none waits."),
    gauge(
        Role.BRIDGE,
        "tapewatch_page_receipts_overdue",
        "Accepted pages whose receipt should have come by now.",
        "channel",
    ),
    histogram(
        Role.BRIDGE,
        "tapewatch_page_seconds",
        "From a webhook taken in to the page delivered or accepted.",
        PAGE_BUCKETS,
    ),
)
