"""Metrics of settlement by sagas: each part exports all of them, and what it knows nothing of stays 0."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, counter, gauge, histogram

SAGA_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""From one step on an idle machine to a service that had to be started again by hand."""
SAGA: Final[tuple[Metric, ...]] = (
    counter(Role.SAGA, "exchange_saga_begun_total", "Sagas begun, one a trade."),
    counter(Role.SAGA, "exchange_saga_ended_total", "Sagas that ended, by how.", "end"),
    gauge(Role.SAGA, "exchange_saga_open", "Sagas that did not end, as far as this part has to do with their end."),
    gauge(Role.SAGA, "exchange_saga_oldest_seconds", "Age of the oldest open saga; 0 when there is none."),
    gauge(
        Role.SAGA,
        "exchange_saga_stuck",
        "Sagas that stand too long, by the service they wait for and why.",
        "party",
        "reason",
    ),
    gauge(
        Role.SAGA,
        "exchange_saga_sequence",
        "Journal sequence number up to which trades were read, the highest of all partitions.",
    ),
    gauge(Role.SAGA, "exchange_saga_source_connected", "1 while the stream that trades are read from stands."),
    gauge(
        Role.SAGA,
        "exchange_saga_source_lag_records",
        "Records of a partition of events that are there and whose trades are not begun.",
        "partition",
    ),
    gauge(
        Role.SAGA,
        "exchange_saga_source_stopped",
        "1 while a partition stands still at a record that is missing or cannot be read.",
        "partition",
    ),
    histogram(Role.SAGA, "exchange_saga_step_seconds", "From a step's turn to its answer.", SAGA_BUCKETS),
    histogram(Role.SAGA, "exchange_saga_end_seconds", "From the beginning of a saga to its end.", SAGA_BUCKETS),
    histogram(
        Role.SAGA,
        "exchange_order_to_settled_seconds",
        "From the command that traded to the end of its saga, settled ones only.",
        SAGA_BUCKETS,
    ),
    counter(Role.SAGA, "exchange_saga_steps_total", "Steps that a service answered the first time.", "verdict"),
    counter(Role.SAGA, "exchange_saga_repeats_total", "Steps that a service answered from memory."),
    histogram(Role.SAGA, "exchange_saga_commit_seconds", "One batch of steps from its arrival to its commit."),
    counter(
        Role.SAGA,
        "exchange_saga_forgotten_total",
        "Sagas that ended long ago and of which this part keeps nothing more.",
    ),
    gauge(Role.SAGA, "exchange_saga_amounts_drift", "Sum of a service's book over all assets, absolute; must be 0."),
)
