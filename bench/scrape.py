"""What a scrape of the engine's page costs: 12 symbols and 1,000, plain text and OpenMetrics.

    python bench/scrape.py [TIMES]

The reference is `prometheus_client` as it is used everywhere: its own metrics, its own registry, its own writer, the
same families with the same number of series. Ours and the reference take turns; each figure is a median.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from bench.parts.figures import percentile, verdict
from exchange.types import Symbol
from monitor.adapters.exporter import OPENMETRICS, Exporter, LevelCell, SpreadCell
from monitor.catalog import BY_NAME, MAX_LABEL_VALUES, Kind, Role
from monitor.engine_instruments import EngineInstruments

GOALS_MS = {12: 20.0, 1_000: 150.0}
SIZES = [0.00001, 0.00002, 0.0004, 0.003]


def engine_page(symbols: int) -> Exporter:
    """Return an engine's exporter after some work; more than `MAX_LABEL_VALUES` symbols are told as `other`."""
    exporter = Exporter(Role.ENGINE)
    EngineInstruments(exporter, [Symbol(f"S{number:04}") for number in range(symbols)]).recovered(1, 0.1)
    for cell in exporter._cells.values():  # noqa: SLF001 - as a live engine would have set them
        if isinstance(cell, LevelCell):
            cell.set(1_234.5)
        elif isinstance(cell, SpreadCell):
            cell.observe_many(SIZES)
        else:
            cell.add(99_321)
    return exporter


def family(name: str, registry: CollectorRegistry) -> Any:
    """Return the client's own metric for one of the catalogue."""
    metric = BY_NAME[name]
    if metric.kind is Kind.COUNTER:
        return prometheus_client.Counter(name, metric.help, metric.labels, registry=registry)
    if metric.kind is Kind.GAUGE:
        return prometheus_client.Gauge(name, metric.help, metric.labels, registry=registry)
    return prometheus_client.Histogram(name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)


def reference(exporter: Exporter, symbols: int) -> CollectorRegistry:
    """Return the client's own registry with the same families and series; of symbols all, by name."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    made: dict[str, Any] = {}
    for name, *labels in exporter._cells:  # noqa: SLF001 - which series there are
        named = BY_NAME[name].labels
        made.setdefault(name, None)
        made[name] = made[name] or family(name, registry)
        every = [(f"S{number:04}",) for number in range(symbols)] if named == ("symbol",) else [tuple(labels)]
        for values in every:
            fill(made[name].labels(*values) if named else made[name])
    return registry


def fill(child: Any) -> None:
    """Give a series a value, as `engine_page` does."""
    if isinstance(child, prometheus_client.Histogram):
        for size in SIZES:
            child.observe(size)
    elif isinstance(child, prometheus_client.Gauge):
        child.set(1_234.5)
    else:
        child.inc(99_321)


def timed(write: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds of one writing."""
    began, busy = time.perf_counter(), time.thread_time()
    write()
    return time.perf_counter() - began, time.thread_time() - busy


def measure(symbols: int, goal_ms: float, times: int) -> None:
    """Print both forms of a page of so many symbols."""
    exporter = engine_page(symbols)
    registry = reference(exporter, symbols)
    told = min(symbols, MAX_LABEL_VALUES + 1)
    for form, accept, theirs in (
        ("text", "text/plain", generate_latest),
        ("OpenMetrics", OPENMETRICS, openmetrics.generate_latest),
    ):
        writers = {"ours": partial(exporter.page, accept), "prometheus_client": partial(theirs, registry)}
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
        gc.collect()
        for _ in range(times):
            for name, write in writers.items():
                took[name].append(timed(write))
        page, _ = exporter.page(accept)
        lines = {
            name: sum(not line.startswith(b"#") for line in text.splitlines())
            for name, text in (("ours", page), ("prometheus_client", theirs(registry)))
        }
        print(f"{symbols} symbols ({told} by name), {form}: {len(page) / 1000:.0f} kB")
        for name, each in took.items():
            wall, busy = ([one[place] * 1000 for one in each] for place in (0, 1))
            print(f"  {name:<18} {lines[name]:5} samples   processor {percentile(busy, 0.5):7.2f} ms   "
                  f"wall p50 {percentile(wall, 0.5):7.2f}   p90 {percentile(wall, 0.9):7.2f} ms")  # fmt: skip
        pairs = zip(took["ours"], took["prometheus_client"], strict=True)
        ratio = percentile([us[1] / them[1] for us, them in pairs], 0.5) * lines["prometheus_client"] / lines["ours"]
        p50 = percentile([one[0] * 1000 for one in took["ours"]], 0.5)
        verdict(f"a page of {symbols} symbols, {form}", f"{p50:.1f} ms, {ratio:.2f}x the client's time a sample",
                f"{goal_ms:.0f} ms", reached=p50 <= goal_ms)  # fmt: skip


def main() -> None:
    """Measure and print."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # ours tells no times of creation, either
    for symbols, goal_ms in GOALS_MS.items():
        measure(symbols, goal_ms, times)


if __name__ == "__main__":
    main()
