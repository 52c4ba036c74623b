"""The page of the role `kube-state`: what a cluster's watches have told, as metrics.

Facts that nobody has confirmed for a while are not shown at all: a page that repeats the last picture of an API server
that is gone would make old facts look young. Then only the time when it was last heard from remains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from kernel.time import SECOND, Clock, Duration, Instant, to_seconds
from monitor.adapters.exporter import Exporter
from monitor.catalog import Kind, Metric, Role, of
from monitor.kube_objects import KubeObject
from monitor.kube_state import Sample, samples

SILENCE_MAX: Final = Duration(10 * SECOND)
"""For so long after the API server was last heard from its facts are shown."""
OBJECTS_MAX: Final = 5000
"""How many objects of one kind are shown; how many are left out is a metric of its own."""


class KubeExporter(Exporter):
    """Holds the objects that watches report, and shows them. Used from one event loop."""

    def __init__(self, clock: Clock, *, process: bool = True) -> None:
        """Show nothing yet; `clock` tells how old the facts are."""
        super().__init__(Role.KUBE_STATE, process=process)
        self._clock = clock
        self._heard_at: Instant | None = None
        self._objects: dict[str, dict[str, tuple[Sample, ...]]] = {}
        self._shown: list[Family] | None = None
        self._registry.register(_Facts(self))

    def follow(self, kind: str) -> Callable[[str, KubeObject | None], None]:
        """Return what a watch of `kind` calls with the key and the new object, None when it is gone."""
        here = self._objects.setdefault(kind, {})

        def on_change(key: str, new: KubeObject | None) -> None:
            self._shown = None
            if new is None:
                here.pop(key, None)
            else:
                here[key] = tuple(samples(new))

        return on_change

    def heard(self, at: Instant) -> None:
        """Note that the API server answered, or told something, at `at`."""
        self._heard_at = Instant(max(at, self._heard_at or at))
        self.level("tapewatch_kube_heard_timestamp_seconds").set(to_seconds(self._heard_at))

    def certificate(self, name: str, expires_at: Instant) -> None:
        """Note when a certificate ends: `server`, `client` or `authority`."""
        self.level("tapewatch_kube_certificate_expiry_timestamp_seconds", name).set(to_seconds(expires_at))

    @property
    def silent(self) -> bool:
        """Whether the API server has not been heard from for too long, or never."""
        return self._heard_at is None or self._clock.now() - self._heard_at > SILENCE_MAX

    def written(self) -> Sequence[Metric]:
        """Return the exporter's own metrics; those made of objects are collected."""
        return _OWN

    def collect(self) -> Iterable[Family]:
        """Yield the families made of objects; empty ones while the API server is silent."""
        if self.silent:
            return _families(())
        if self._shown is None:
            self._shown = list(_families(self._chosen()))
        return self._shown

    def render(self) -> bytes:
        """Return every metric in Prometheus's text format."""
        self._count()
        return super().render()

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return every metric and the media type, as `Exporter.page`."""
        self._count()
        return super().page(accept)

    def _count(self) -> None:
        for kind, found in self._objects.items():
            self.level("tapewatch_kube_objects", kind).set(len(found))
            self.level("tapewatch_kube_objects_left_out", kind).set(max(len(found) - OBJECTS_MAX, 0))

    def _chosen(self) -> Iterator[Sample]:
        for found in self._objects.values():
            for key in sorted(found)[:OBJECTS_MAX]:
                yield from found[key]


_FACTS: Final[tuple[Metric, ...]] = tuple(
    metric for metric in of(Role.KUBE_STATE) if metric.name.startswith("kube_") or metric.name.endswith("_colour")
)
"""The metrics made of objects; the others are the exporter's own."""


_OWN: Final[tuple[Metric, ...]] = tuple(metric for metric in of(Role.KUBE_STATE) if metric not in _FACTS)


class _Facts(Collector):
    """The registry's view of the objects."""

    def __init__(self, page: KubeExporter) -> None:
        self._page = page

    def collect(self) -> Iterable[Family]:
        return self._page.collect()


def _families(chosen: Iterable[Sample]) -> Iterator[Family]:
    by_name: dict[str, list[Sample]] = {}
    for sample in chosen:
        by_name.setdefault(sample.name, []).append(sample)
    for metric in _FACTS:
        kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
        family = kind(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
        for sample in by_name.get(metric.name, ()):
            family.add_metric(sample.labels, float(sample.value))
        yield family
