"""Made incidents with a known culprit: noise of many kinds, a fault, what follows from it by the graph, distractors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anomaly.causes import Change, ChangeKind
from anomaly.movement import Track, Window
from kernel.graph import upstream
from kernel.time import SECOND, Instant

GRAPH = {
    "engine": (),
    "gateway": ("engine",),
    "market-data": ("engine",),
    "settlement": ("engine",),
    "watchdog": ("market-data",),
    "client": ("gateway",),
    "web": ("gateway", "market-data"),
    "mail": (),
}
KINDS = ("shift", "ramp", "stall", "gone", "spread")
METRICS = ("rate", "latency", "memory", "queue", "errors")
BEGAN = 1_700_000_000 * SECOND


@dataclass(frozen=True)
class Made:
    tracks: list[Track]
    window: Window
    about: str
    culprit: str
    kind: str
    changes: list[Change]


def noise(rng, n, metric):
    if metric == "rate":
        return rng.poisson(rng.uniform(50, 900), n).astype(float)
    if metric == "latency":
        return rng.gamma(8.0, rng.uniform(0.0002, 0.002), n)
    if metric == "memory":
        return rng.uniform(4e7, 2e8) + np.cumsum(rng.normal(2e3, 3e4, n))
    if metric == "queue":
        smooth = np.zeros(n)
        for i in range(1, n):
            smooth[i] = 0.8 * smooth[i - 1] + rng.normal(0, 1)
        return np.abs(smooth) * rng.uniform(0.5, 5)
    return np.where(rng.random(n) < 0.02, rng.poisson(1.0, n), 0).astype(float)


def strike(rng, values, start, kind, strength):
    """Change values from an index on; returns them, shortened by NaN for a series that ends."""
    changed, n = values.copy(), len(values)
    usual, spread = float(np.median(values[:start])), float(np.std(values[:start])) or 1.0
    size = max(spread * strength, 0.1 * abs(usual))
    if kind == "shift":
        changed[start:] += size * rng.choice((1.0, 1.0, -1.0) if usual > size else (1.0,))
    elif kind == "ramp":
        changed[start:] += size * np.linspace(0.1, 2.5, n - start)
    elif kind == "stall":
        changed[start:] = changed[start:] * rng.uniform(0.0, 0.3) if usual > 3 * spread else changed[start:] + size
    elif kind == "gone":
        changed[start:] = np.nan
    else:
        changed[start:] = usual + (changed[start:] - usual) * 4 + rng.normal(0, size, n - start)
    return changed


def make(seed):
    """Make an incident; `culprit` is empty for one in which nothing but noise happens."""
    rng = np.random.default_rng(seed)
    step, before = int(rng.choice((1, 2, 5))), int(rng.integers(60, 240))
    delay, after = int(rng.integers(4, 25)), int(rng.integers(3, 40))
    n, start = before + delay + after, before
    culprit = str(rng.choice([one for one in GRAPH if one not in {"client", "web"}]))
    kind = str(rng.choice(KINDS))
    values = {(service, metric): noise(rng, n, metric) for service in GRAPH for metric in METRICS}
    hit = rng.choice(METRICS[:4], size=int(rng.integers(1, 4)), replace=False)
    for metric in hit:
        late = start + int(rng.integers(0, 2))
        values[culprit, metric] = strike(rng, values[culprit, metric], late, kind, rng.uniform(5, 15))
    follows = [service for service in GRAPH if culprit in upstream(service, GRAPH) and rng.random() < 0.75]
    for service in follows:
        for metric in rng.choice(METRICS[:4], size=int(rng.integers(1, 3)), replace=False):
            late = min(n - 4, start + int(rng.integers(0, delay + 1)))
            echo = "gone" if kind == "gone" and rng.random() < 0.3 else str(rng.choice(("shift", "ramp", "stall")))
            values[service, metric] = strike(rng, values[service, metric], late, echo, rng.uniform(3, 15))
    calm = [service for service in GRAPH if service not in {culprit, *follows}]
    for service in rng.choice(calm, size=min(len(calm), int(rng.integers(0, 3))), replace=False):
        when = int(rng.integers(max(before // 2 + 5, start - 40), n - 3))
        metric = str(rng.choice(METRICS[:4]))
        values[service, metric] = strike(rng, values[service, metric], when, "shift", rng.uniform(3, 12))
    for series in values.values():  # a missed scrape here and there
        series[rng.random(n) < 0.01] = np.nan
    alert = Instant(BEGAN + (start + delay) * step * SECOND)
    about = str(rng.choice([culprit, *follows])) if rng.random() < 0.8 else ""
    changes = []
    if rng.random() < 0.3:
        who = culprit if rng.random() < 0.5 else str(rng.choice(list(GRAPH)))
        changes = [Change(Instant(alert - 20 * SECOND), who, ChangeKind.RESTART, f"{who} was started")]
    return _made(values, step, alert, about, culprit=culprit, kind=kind, changes=changes)


def quiet(seed):
    """Make an incident whose alert says nothing that any series shows: noise, and at times a lone wobble."""
    rng = np.random.default_rng(seed)
    n = 200
    values = {(service, metric): noise(rng, n, metric) for service in GRAPH for metric in METRICS}
    alert = Instant(BEGAN + 180 * SECOND)
    return _made(values, 1, alert, str(rng.choice(list(GRAPH))), culprit="", kind="", changes=[])


def _made(values, step, alert, about, *, culprit, kind, changes):
    n = len(next(iter(values.values())))
    at = np.int64(BEGAN) + np.arange(n, dtype=np.int64) * step * SECOND
    tracks = [Track(service, metric, "", at, series) for (service, metric), series in values.items()]
    window = Window(Instant(int(at[0])), alert, Instant(int(at[-1])))
    return Made(tracks, window, about, culprit, kind, changes)
