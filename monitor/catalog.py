"""Every metric once: the one list that exporters, rules, boards, runbooks and tests are held to.

Names follow Prometheus's conventions: base units, `_total` on counters, a bounded set of values for every label.
A histogram's buckets stand here too, because a rule that asks for a quantile depends on them. The entries stand by area
in `catalog_*.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, get_args

from exchange import ports, types
from exchange.bearer import TokenFault
from exchange.calendar import PhaseName
from exchange.commands import Command
from exchange.notices import NoticeKind
from exchange.saga import End, Service, Verdict
from exchange.saga_coordinator import StuckReason
from exchange.shards import MAX_PARTITIONS
from monitor.catalog_anomaly import ANOMALY, EACH, WATCHED_MAX
from monitor.catalog_control import CONTROL
from monitor.catalog_edge import EDGE
from monitor.catalog_exchange import EXCHANGE
from monitor.catalog_kafka import KAFKA
from monitor.catalog_kubernetes import KUBERNETES
from monitor.catalog_logs import LOGS
from monitor.catalog_model import Kind, Metric, Role
from monitor.catalog_notices import NOTICE_METRICS
from monitor.catalog_postgres import POSTGRES
from monitor.catalog_process import PROCESS
from monitor.catalog_rabbit import RABBIT, RABBIT_OWN
from monitor.catalog_saga import SAGA

__all__ = [
    "BY_NAME", "CATALOG", "FOREIGN", "LABEL_VALUES", "MAX_LABEL_VALUES", "OTHER", "Kind", "Metric", "Role",
    "is_foreign", "of", "series_max",
]  # fmt: skip

CATALOG: Final[tuple[Metric, ...]] = (
    *EXCHANGE, *EDGE, *SAGA, *CONTROL, *LOGS, *ANOMALY, *KUBERNETES, *POSTGRES, *KAFKA, *RABBIT, *NOTICE_METRICS,
    *PROCESS,
)  # fmt: skip

BY_NAME: Final = {metric.name: metric for metric in CATALOG}


def of(role: Role) -> Iterator[Metric]:
    """Yield the metrics that processes of `role` export."""
    return (metric for metric in CATALOG if metric.role is role or metric.role is None)


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
        ("exchange_gateway_token_refusals_total", "fault"): _values(*TokenFault),
        ("exchange_gateway_order_sockets_ended_total", "end"): _values(*ports.SocketEnd),
        ("exchange_gateway_disconnect_cancels_total", "result"): _values(*ports.DisconnectCancel),
        ("exchange_gateway_reference_requests_total", "result"): _values(*ports.ReferenceAnswer),
        ("exchange_client_orders_total", "outcome"): _values(*ports.ClientOutcome),
        ("exchange_watchdog_alerts_posted_total", "result"): _values(*ports.PostResult),
        ("exchange_dead_letters_total", "reason"): _values(*ports.DeadReason),
        ("exchange_book_depth_lots", "side"): _values(*types.Side),
        ("exchange_mirror_broken", "reason"): _values(*ports.CopyEnd),
        ("exchange_saga_ended_total", "end"): _values(*End),
        ("exchange_saga_stuck", "party"): (*_values(*Service), "unknown"),
        ("exchange_saga_stuck", "reason"): (*_values(*StuckReason), "no_end"),
        ("exchange_saga_steps_total", "verdict"): _values(*Verdict),
        ("exchange_notices_published_total", "kind"): _values(*NoticeKind),
        ("tapewatch_market_phase", "phase"): _values(*PhaseName),
        ("tapewatch_log_records_total", "severity"): ("debug", "info", "warning", "error", "critical"),
        ("tapewatch_log_lost_total", "reason"): ("queue_full", "file_failed"),
        ("tapewatch_edge_certificates_total", "result"): ("shown", "refused"),
        ("tapewatch_spans_total", "result"): ("exported", "dropped", "failed", "late"),
        ("tapewatch_shipper_events_total", "result"): ("shipped", "duplicate", "dead_letter", "lost"),
        ("anomaly_read_failures_total", "reason"): ("unreachable", "slow", "refused", "empty"),
        ("anomaly_steps_total", "kind"): ("live", "gap", "history", "skipped"),
        ("anomaly_series", "state"): ("scored", "warming", "missing", "left_out"),
        ("anomaly_restarts_total", "reason"): ("build", "process"),
        ("anomaly_feedback_total", "answer"): ("false", "true", "unknown"),
    }
)
"""The closed sets, by metric and label. Exported as 0 from the start, so that a first event is seen as a rise."""


def series_max(metric: Metric) -> int:
    """Return how many series one process exports of a metric at most, `other` included."""
    if metric.labels == EACH:
        return WATCHED_MAX
    combinations = 1
    for label in metric.labels:
        if label == "engine":  # a symbol has one, and what is `other` among the symbols may be of each
            combinations = MAX_PARTITIONS + (MAX_LABEL_VALUES if "symbol" in metric.labels else 0)
            continue
        closed = LABEL_VALUES.get((metric.name, label))
        combinations *= MAX_LABEL_VALUES + 1 if closed is None else len(closed) + 1
    return combinations * metric.series_each


def is_foreign(name: str) -> bool:
    """Tell whether a metric is another's that rules and boards may ask for."""
    return any(name == known or (known.endswith("_") and name.startswith(known)) for known in FOREIGN)


FOREIGN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "up": "prometheus",
        "ALERTS": "prometheus",
        "scrape_duration_seconds": "prometheus",
        "scrape_samples_scraped": "prometheus",
        "prometheus_": "prometheus",
        "alertmanager_": "alertmanager",
        "process_": "client library",
        "python_": "client library",
        "node_": "node_exporter",
        "probe_": "blackbox_exporter",
        "jvm_": "JMX exporter",
        "haproxy_": "HAProxy",
        **dict.fromkeys(RABBIT_OWN, "RabbitMQ's own plugin"),
        "certmanager_certificate_expiration_timestamp_seconds": "cert-manager",
    }
)
"""Metrics of others that rules and boards may ask for: a whole name, or a prefix that ends in `_`, and whose it is."""
