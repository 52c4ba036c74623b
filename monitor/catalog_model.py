"""What a metric is: its name, type, unit, labels, meaning, owner, and what it costs at most."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


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
    SHIPPER = "shipper"
    LOG_WATCH = "log-watch"
    ANOMALY = "anomaly"
    SAGA = "saga"
    MIRROR = "mirror"
    KAFKA = "kafka"
    POSTGRES = "postgres"
    RABBITMQ = "rabbitmq"
    ZIPKIN = "zipkin"
    EDGE = "edge"


LATENCY_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""From half a millisecond (a match without a sync) to ten seconds (longer than any client waits)."""
APPLY_BUCKETS: Final = (0.000002, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025)
QUEUE_BUCKETS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
"""A command waits for the sync before it, so from the time of nothing to that of a stuck disk."""
PAUSE_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
PAGE_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""From one quick request to the hour after which a page is given up."""
INCIDENT_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0)
"""From what a runbook needs to half a day's work of people."""
SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

OWNERS: Final = MappingProxyType(
    {
        Role.ENGINE: "exchange-platform",
        Role.GATEWAY: "exchange-platform",
        Role.LOAD: "exchange-platform",
        Role.MARKET_DATA: "market-operations",
        Role.WATCHDOG: "market-operations",
        Role.SETTLEMENT: "settlement-operations",
    }
)
"""The team that answers for a role's metrics; of the others it is `PLATFORM`."""
PLATFORM: Final = "platform-operations"
_UNITS: Final = ("timestamp_seconds", "seconds", "bytes", "ratio", "notional_ticks", "ticks", "lots")
_MORE: Final = MappingProxyType({"timestamp_seconds": "seconds since the epoch", "notional_ticks": "ticks times lots"})


@dataclass(frozen=True)
class Metric:
    """One metric: what it is called, what it means, and what may stand in its labels."""

    name: str
    kind: Kind
    role: Role | None
    """None: every process of ours exports it."""
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def silent_until_set(self) -> bool:
        """Whether the metric is left out until it has a value.

        A timestamp of 0 would say 1970, a sequence of 0 that nothing was ever done: both would be lies. What every
        process exports is said by those that measure it.
        """
        if self.role is None and self.kind is Kind.GAUGE:
            return True
        return self.kind is Kind.GAUGE and not self.labels and self.name.endswith(("_timestamp_seconds", "_sequence"))

    @property
    def unit(self) -> str:
        """The unit of its values, read from its name as Prometheus's conventions ask; `count` where there is none."""
        base = self.name.removesuffix("_total")
        unit = next((unit for unit in _UNITS if base.endswith(f"_{unit}") or f"_{unit}_" in base), "count")
        return _MORE.get(unit, unit)

    @property
    def owner(self) -> str:
        """The team that answers for it."""
        return PLATFORM if self.role is None else OWNERS.get(self.role, PLATFORM)

    @property
    def series_each(self) -> int:
        """Series for each combination of label values."""
        return len(self.buckets) + 3 if self.kind is Kind.HISTOGRAM else 1


def counter(role: Role | None, name: str, help_: str, *labels: str) -> Metric:
    """Return a counter."""
    return Metric(name, Kind.COUNTER, role, help_, labels)


def gauge(role: Role | None, name: str, help_: str, *labels: str) -> Metric:
    """Return a gauge."""
    return Metric(name, Kind.GAUGE, role, help_, labels)


def histogram(role: Role | None, name: str, help_: str, buckets: tuple[float, ...] = LATENCY_BUCKETS) -> Metric:
    """Return a histogram."""
    return Metric(name, Kind.HISTOGRAM, role, help_, (), buckets)
