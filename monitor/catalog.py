"""Every metric once: the one list that exporters, rules, runbooks and tests are held to.

Names follow Prometheus's conventions: base units, `_total` on counters, a bounded set of values for every label.
A histogram's buckets stand here too, because a rule that asks for a quantile depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, get_args

from exchange import ports, types
from exchange.commands import Command


class Kind(StrEnum):
    """Prometheus's metric types, as far as we use them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Role(StrEnum):
    """Who exports a metric; equals the Prometheus job."""

    ENGINE = "engine"
    GATEWAY = "gateway"
    MARKET_DATA = "market-data"
    SETTLEMENT = "settlement"
    WATCHDOG = "watchdog"
    LOAD = "load"
    CONTROL = "control"
    ESTATE = "estate"
    KUBE_STATE = "kube-state"
    BRIDGE = "bridge"


LATENCY_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""From half a millisecond (a match without a sync) to ten seconds (longer than any client waits)."""
APPLY_BUCKETS: Final = (0.000002, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025)
PAGE_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""From one quick request to the hour after which a page is given up."""
SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, what it means, and what may stand in its labels."""

    name: str
    kind: Kind
    role: Role
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def silent_until_set(self) -> bool:
        """Whether the metric is left out until it has a value.

        A timestamp of 0 would say 1970, a sequence of 0 that nothing was ever done: both would be lies.
        """
        return self.kind is Kind.GAUGE and not self.labels and self.name.endswith(("_timestamp_seconds", "_sequence"))


def _counter(role: Role, name: str, help_: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, role, help_, labels)


def _gauge(role: Role, name: str, help_: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, role, help_, labels)


def _histogram(role: Role, name: str, help_: str, buckets: tuple[float, ...] = LATENCY_BUCKETS) -> Metric:
    return Metric(name, Kind.HISTOGRAM, role, help_, (), buckets)


CATALOG: Final[tuple[Metric, ...]] = (
    # --- engine: the single writer -------------------------------------------------------------------------------
    _counter(Role.ENGINE, "exchange_commands_total", "Commands sequenced, by kind.", "command"),
    _counter(Role.ENGINE, "exchange_orders_accepted_total", "Orders that passed every check."),
    _counter(Role.ENGINE, "exchange_rejects_total", "Commands refused by a rule, by reason.", "reason"),
    _counter(
        Role.ENGINE, "exchange_cancels_total", "Orders whose rest left the book without trading, by reason.", "reason"
    ),
    _counter(Role.ENGINE, "exchange_trades_total", "Trades."),
    _counter(Role.ENGINE, "exchange_traded_lots_total", "Lots traded (each trade counted once)."),
    _counter(
        Role.ENGINE, "exchange_refused_total", "Requests answered without a place in the journal, by reason.", "reason"
    ),
    _gauge(Role.ENGINE, "exchange_engine_sequence", "Sequence number of the last durable command."),
    _gauge(Role.ENGINE, "exchange_engine_ready", "1 when the journal is replayed and commands are taken."),
    _gauge(Role.ENGINE, "exchange_engine_queue_depth", "Commands that wait for the next group commit."),
    _gauge(Role.ENGINE, "exchange_engine_subscribers", "Consumers of the event stream now connected."),
    _gauge(Role.ENGINE, "exchange_engine_recovery_seconds", "How long the replay at the last start took."),
    _gauge(Role.ENGINE, "exchange_engine_recovered_commands", "Commands replayed at the last start."),
    _histogram(Role.ENGINE, "exchange_engine_apply_seconds", "Matching of one command.", APPLY_BUCKETS),
    _histogram(Role.ENGINE, "exchange_journal_sync_seconds", "One append and fsync of the journal."),
    _histogram(Role.ENGINE, "exchange_journal_batch_commands", "Commands made durable by one fsync.", SIZE_BUCKETS),
    _gauge(Role.ENGINE, "exchange_journal_failed", "1 after an append or fsync failed; the engine takes nothing more."),
    _gauge(Role.ENGINE, "exchange_market_halted", "1 while the whole market stands still."),
    _gauge(Role.ENGINE, "exchange_symbol_halted", "1 while a symbol stands still on its own.", "symbol"),
    _gauge(Role.ENGINE, "exchange_resting_orders", "Orders in all books."),
    _gauge(Role.ENGINE, "exchange_open_notional_ticks", "Price times quantity of all that rests, in ticks times lots."),
    # --- gateway --------------------------------------------------------------------------------------------------
    _counter(Role.GATEWAY, "exchange_gateway_requests_total", "Order requests answered, by outcome.", "outcome"),
    _histogram(Role.GATEWAY, "exchange_order_ack_seconds", "From a whole request read to its durable answer."),
    _gauge(Role.GATEWAY, "exchange_gateway_in_flight", "Order requests sent to the engine and not answered."),
    _gauge(Role.GATEWAY, "exchange_gateway_capacity_per_second", "Order requests a second this gateway admits."),
    _gauge(Role.GATEWAY, "exchange_gateway_engine_connected", "1 while the connection to the engine stands."),
    # --- market data ----------------------------------------------------------------------------------------------
    _gauge(Role.MARKET_DATA, "exchange_feed_sequence", "Journal sequence number last published."),
    _counter(Role.MARKET_DATA, "exchange_feed_messages_total", "Messages published, by kind.", "kind"),
    _gauge(Role.MARKET_DATA, "exchange_feed_subscribers", "Feed subscribers now connected."),
    _counter(
        Role.MARKET_DATA, "exchange_feed_slow_consumers_total", "Subscribers cut off because they did not keep up."
    ),
    _gauge(Role.MARKET_DATA, "exchange_feed_engine_connected", "1 while the event stream from the engine stands."),
    _gauge(Role.MARKET_DATA, "exchange_feed_published_timestamp_seconds", "When the feed last published anything."),
    _gauge(
        Role.MARKET_DATA,
        "exchange_feed_symbol_timestamp_seconds",
        "When a symbol's book was last confirmed as current.",
        "symbol",
    ),
    _gauge(Role.MARKET_DATA, "exchange_book_spread_ticks", "Best offer less best bid; absent without both.", "symbol"),
    # --- settlement -----------------------------------------------------------------------------------------------
    _gauge(Role.SETTLEMENT, "exchange_settlement_sequence", "Journal sequence number last settled."),
    _counter(Role.SETTLEMENT, "exchange_settlement_trades_total", "Trades posted to the ledger."),
    _counter(Role.SETTLEMENT, "exchange_settlement_duplicates_total", "Trades met again and left alone."),
    _histogram(Role.SETTLEMENT, "exchange_settlement_commit_seconds", "One commit to the ledger."),
    _gauge(Role.SETTLEMENT, "exchange_settlement_engine_connected", "1 while the event stream from the engine stands."),
    _gauge(
        Role.SETTLEMENT, "exchange_ledger_imbalance", "Sum of all ledger entries over all assets, absolute; must be 0."
    ),
    # --- watchdog: a subscriber like any participant's, which trusts nothing --------------------------------------
    _counter(Role.WATCHDOG, "exchange_watchdog_messages_total", "Feed messages checked."),
    _gauge(Role.WATCHDOG, "exchange_watchdog_feed_connected", "1 while the watchdog is subscribed to the feed."),
    _gauge(Role.WATCHDOG, "exchange_watchdog_sequence_gap", "1 while messages of a symbol are missing.", "symbol"),
    _counter(Role.WATCHDOG, "exchange_watchdog_sequence_gaps_total", "Gaps seen in a symbol's feed.", "symbol"),
    _gauge(
        Role.WATCHDOG, "exchange_watchdog_book_crossed", "1 while a symbol's best bid reaches its best offer.", "symbol"
    ),
    _counter(
        Role.WATCHDOG,
        "exchange_watchdog_alerts_posted_total",
        "Alerts posted straight to Alertmanager, by result.",
        "result",
    ),
    # --- load: the client's view ----------------------------------------------------------------------------------
    _counter(
        Role.LOAD, "exchange_client_orders_total", "Requests of the load generator, by how they ended.", "outcome"
    ),
    _counter(
        Role.LOAD, "exchange_client_notional_ticks_total", "Notional of the priced orders sent, in ticks times lots."
    ),
    _histogram(Role.LOAD, "exchange_client_latency_seconds", "From the intended send time to the answer."),
    # --- control plane --------------------------------------------------------------------------------------------
    _counter(Role.CONTROL, "tapewatch_webhooks_total", "Webhook deliveries, by status code.", "code"),
    _histogram(Role.CONTROL, "tapewatch_webhook_seconds", "From a whole webhook read to its durable answer."),
    _counter(Role.CONTROL, "tapewatch_signals_total", "Alerts taken in, by status.", "status"),
    _gauge(Role.CONTROL, "tapewatch_incidents", "Incidents, by state.", "state"),
    _counter(Role.CONTROL, "tapewatch_incidents_opened_total", "Incidents opened, by level.", "level"),
    _counter(Role.CONTROL, "tapewatch_runs_total", "Runs ended, by runbook and outcome.", "runbook", "outcome"),
    _counter(
        Role.CONTROL, "tapewatch_actions_total", "Actions asked of the plant, by kind and result.", "action", "result"
    ),
    _counter(Role.CONTROL, "tapewatch_refusals_total", "Runs refused, by the guard that refused.", "reason"),
    _counter(Role.CONTROL, "tapewatch_handovers_total", "Incidents handed to a person."),
    _counter(Role.CONTROL, "tapewatch_evidence_unknown_total", "Readings that were no answer, by reason.", "reason"),
    _counter(Role.CONTROL, "tapewatch_errors_total", "Operating errors of the loop, by kind.", "kind"),
    _gauge(Role.CONTROL, "tapewatch_kill_switch_on", "1 while automatic actions are forbidden."),
    _gauge(Role.CONTROL, "tapewatch_active_runs", "Runs now under way."),
    _gauge(Role.CONTROL, "tapewatch_backlog_signals", "Signals taken in and not yet decided on."),
    _gauge(Role.CONTROL, "tapewatch_loop_timestamp_seconds", "When the control loop last turned."),
    _gauge(Role.CONTROL, "tapewatch_deadman_timestamp_seconds", "When the Watchdog alert last arrived."),
    _histogram(
        Role.CONTROL, "tapewatch_signal_to_action_seconds", "From a webhook's arrival to the first action asked for."
    ),
    # --- estate: the supervisor of local processes ----------------------------------------------------------------
    _gauge(Role.ESTATE, "tapewatch_replicas_desired", "Replicas a workload should have.", "workload"),
    _gauge(
        Role.ESTATE, "tapewatch_replicas_ready", "Replicas of a workload that answer their readiness probe.", "workload"
    ),
    _counter(Role.ESTATE, "tapewatch_replica_starts_total", "Processes started for a workload.", "workload"),
    _counter(
        Role.ESTATE, "tapewatch_replica_exits_total", "Processes of a workload that ended on their own.", "workload"
    ),
    _counter(
        Role.ESTATE, "tapewatch_replica_mends_total", "Platform processes the estate itself started again.", "workload"
    ),
    # --- bridge: pages to people ----------------------------------------------------------------------------------
    _counter(
        Role.BRIDGE,
        "tapewatch_pages_total",
        "Pages that are over, by how they ended: delivered (a receipt says so), accepted (the provider gives none), "
        "failed, unconfirmed (its receipt never came). Test pages are not counted.",
        "channel",
        "result",
    ),
    _counter(
        Role.BRIDGE,
        "tapewatch_page_attempts_total",
        "Requests that sent a page, by what they came to.",
        "channel",
        "outcome",
    ),
    _counter(
        Role.BRIDGE, "tapewatch_page_escalations_total", "Pages handed on from a channel to the next one.", "channel"
    ),
    _gauge(Role.BRIDGE, "tapewatch_pages_waiting", "Pages that no provider has accepted yet."),
    _gauge(Role.BRIDGE, "tapewatch_page_oldest_waiting_seconds", "Age of the oldest of them, 0 when none waits."),
    _gauge(
        Role.BRIDGE,
        "tapewatch_page_receipts_overdue",
        "Accepted pages whose receipt should have come by now.",
        "channel",
    ),
    _histogram(
        Role.BRIDGE,
        "tapewatch_page_seconds",
        "From a webhook taken in to the page delivered or accepted.",
        PAGE_BUCKETS,
    ),
    # --- kube-state: facts of a Kubernetes cluster, under kube-state-metrics' own names -----------------------------
    *(
        _gauge(Role.KUBE_STATE, f"kube_deployment_{name}", help_, "namespace", "deployment")
        for name, help_ in (
            ("spec_replicas", "Pods a Deployment should have."),
            ("spec_paused", "1 while its rollout is paused."),
            ("metadata_generation", "Grows with every change of its specification."),
            ("status_observed_generation", "The generation its controller has seen."),
            ("status_replicas", "Pods it has."),
            ("status_replicas_ready", "Pods of it that are ready."),
            ("status_replicas_available", "Pods of it that have been ready long enough."),
            ("status_replicas_updated", "Pods of it that have its present template."),
            ("status_replicas_unavailable", "Pods it still lacks."),
        )
    ),
    _gauge(
        Role.KUBE_STATE,
        "kube_deployment_status_condition",
        "1 for the status a condition has, 0 for the others.",
        "namespace",
        "deployment",
        "reason",
        "condition",
        "status",
    ),
    *(
        _gauge(Role.KUBE_STATE, f"kube_statefulset_{name}", help_, "namespace", "statefulset")
        for name, help_ in (
            ("replicas", "Pods a StatefulSet should have."),
            ("metadata_generation", "Grows with every change of its specification."),
            ("status_observed_generation", "The generation its controller has seen."),
            ("status_replicas_ready", "Pods of it that are ready."),
            ("status_replicas_available", "Pods of it that have been ready long enough."),
            ("status_replicas_updated", "Pods of it that have its present template."),
        )
    ),
    *(
        _gauge(Role.KUBE_STATE, f"kube_horizontalpodautoscaler_{name}", help_, "namespace", "horizontalpodautoscaler")
        for name, help_ in (
            ("spec_min_replicas", "Lower bound of an autoscaler."),
            ("spec_max_replicas", "Upper bound of an autoscaler."),
            ("status_current_replicas", "Pods it last saw."),
            ("status_desired_replicas", "Pods it last wanted."),
        )
    ),
    _gauge(
        Role.KUBE_STATE,
        "kube_horizontalpodautoscaler_info",
        "What an autoscaler scales.",
        "namespace",
        "horizontalpodautoscaler",
        "scaletargetref_kind",
        "scaletargetref_name",
    ),
    _gauge(
        Role.KUBE_STATE,
        "kube_poddisruptionbudget_status_pod_disruptions_allowed",
        "Pods that may be ended now.",
        "namespace",
        "poddisruptionbudget",
    ),
    *(
        _gauge(Role.KUBE_STATE, f"kube_pod_{name}", help_, "namespace", "pod", "uid", *labels)
        for name, help_, labels in (
            ("info", "Where a pod runs.", ("node",)),
            (
                "labels",
                "Which workload a pod belongs to, by its labels.",
                (
                    "label_app_kubernetes_io_name",
                    "label_app_kubernetes_io_part_of",
                ),
            ),
            ("owner", "What made a pod.", ("owner_kind", "owner_name", "owner_is_controller")),
            ("deletion_timestamp", "When a pod that is being deleted must have ended, in seconds.", ()),
            ("status_phase", "1 for the phase a pod is in, 0 for the others.", ("phase",)),
            ("status_ready", "1 for the status its readiness has, 0 for the others.", ("condition",)),
            (
                "container_resource_limits",
                "What a container may use at most.",
                (
                    "container",
                    "node",
                    "resource",
                    "unit",
                ),
            ),
            ("container_status_waiting_reason", "1 for the reason why a container waits.", ("container", "reason")),
            ("container_status_last_terminated_exitcode", "How a container's last run ended.", ("container",)),
        )
    ),
    _counter(
        Role.KUBE_STATE,
        "kube_pod_container_status_restarts_total",
        "How often a container was started anew.",
        "namespace",
        "pod",
        "uid",
        "container",
    ),
    _gauge(
        Role.KUBE_STATE,
        "kube_node_status_condition",
        "1 for the status a node's condition has, 0 for the others.",
        "node",
        "condition",
        "status",
    ),
    _gauge(Role.KUBE_STATE, "kube_node_spec_unschedulable", "1 while nothing new starts on a node.", "node"),
    _gauge(
        Role.KUBE_STATE,
        "tapewatch_kube_service_colour",
        "1 for the colour a service leads to; none: the pods of its own name.",
        "namespace",
        "service",
        "colour",
    ),
    _gauge(Role.KUBE_STATE, "tapewatch_kube_heard_timestamp_seconds", "When the API server was last heard from."),
    _gauge(
        Role.KUBE_STATE,
        "tapewatch_kube_certificate_expiry_timestamp_seconds",
        "When a certificate ends.",
        "certificate",
    ),
    _gauge(Role.KUBE_STATE, "tapewatch_kube_objects", "Objects watched, by kind.", "kind"),
    _gauge(Role.KUBE_STATE, "tapewatch_kube_objects_left_out", "Objects above the bound, which are not shown.", "kind"),
)

BY_NAME: Final = {metric.name: metric for metric in CATALOG}


def of(role: Role) -> Iterator[Metric]:
    """Yield the metrics that processes of `role` export."""
    return (metric for metric in CATALOG if metric.role is role)


def _values(*words: StrEnum) -> tuple[str, ...]:
    return tuple(word.value for word in words)


OTHER: Final = "other"
"""What a label value outside the bounded set becomes."""
MAX_LABEL_VALUES: Final = 512
"""How many values an open label (symbol, workload, runbook) may take in one process before the rest is `other`."""

LABEL_VALUES: Final[Mapping[tuple[str, str], tuple[str, ...]]] = MappingProxyType(
    {
        ("exchange_commands_total", "command"): tuple(str(kind.__struct_config__.tag) for kind in get_args(Command)),
        ("exchange_rejects_total", "reason"): _values(*types.RejectReason),
        ("exchange_cancels_total", "reason"): _values(*types.CancelReason),
        ("exchange_refused_total", "reason"): _values(*ports.Refusal),
        ("exchange_gateway_requests_total", "outcome"): _values(*ports.RequestOutcome),
        ("exchange_client_orders_total", "outcome"): _values(*ports.ClientOutcome),
        ("exchange_watchdog_alerts_posted_total", "result"): _values(*ports.PostResult),
    }
)
"""The closed sets, by metric and label. Exported as 0 from the start, so that a first event is seen as a rise."""
