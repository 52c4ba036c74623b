"""Made machines: 8 to 38 correlated metrics of one machine at one minute, with anomalies whose causes are known.

A few hidden loads (the day's work, a batch job, memory, the disk) drive groups of metrics through different curves;
each metric adds noise of its own kind and is cut, rounded or counted as real ones are. Some columns never move. Jobs,
busy hours, deploys, restarts and lone one-row blips are normal here, as they are on machines.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bench.parts import made_shapes as shapes
from bench.parts.made_series_kinds import START
from bench.parts.made_shapes import DAY_MINUTES, Event, Floats, Made

DAYS = 14
GROUPS = ("cpu", "memory", "disk", "network", "sockets")


@dataclasses.dataclass(slots=True)
class Loads:
    """The hidden loads of a machine, each about 0 to 1."""

    work: Floats
    batch: Floats
    fill: Floats
    disk: Floats


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """How one column comes from the loads; `curve` bends it, `noisy` is its own noise, `finish` rounds or counts."""

    group: str
    weights: tuple[float, float, float, float]
    curve: str
    noisy: float
    finish: str
    size: float
    grain: float


def loads(rng: np.random.Generator, rows: int) -> Loads:
    """Return the hidden loads; busy hours lift the work beyond the day's shape and are normal."""
    at = shapes.minutes(rows, 1)
    strength = float(rng.choice([0.15, 0.5, 1.0]))
    work = 0.25 + strength * shapes.day_shape(rng, at) + 0.06 * shapes.slow(rng, rows, 0.97)
    for _ in range(int(rng.integers(3, 25))):
        first, lasting = int(rng.integers(0, rows)), int(rng.uniform(5, 120))
        work[first : first + lasting] *= rng.uniform(1.1, 1.9)
    batch = np.zeros(rows)
    for _ in range(int(rng.integers(1, 4))):
        batch += rng.uniform(0.3, 1.0) * shapes.jobs(rng, at, 1, skip=0.03)[0]
    period = int(rng.uniform(200, 3000))
    fill = 0.5 + 0.2 * ((np.arange(rows) % period) / period) + shapes.wander(rng, rows, 0.2)
    disk = 0.1 + (rng.random(rows) < rng.uniform(0.02, 0.2)) * rng.exponential(0.3, rows) + 0.5 * batch
    return Loads(np.maximum(work, 0.02), batch, fill, disk)


def metric(rng: np.random.Generator) -> Metric:
    """Draw what kind of metric a column is."""
    group = str(rng.choice(GROUPS))
    own = float(rng.uniform(0.3, 1.0))
    weights = {
        "cpu": (own, rng.uniform(0, 0.8), 0.0, 0.0),
        "memory": (0.05 * own, 0.0, own, 0.0),
        "disk": (0.1 * own, 0.2, 0.0, own),
        "network": (own, rng.uniform(0, 0.2), 0.0, 0.0),
        "sockets": (own, 0.0, 0.0, 0.0),
    }[group]
    return Metric(
        group, tuple(float(w) for w in weights),  # type: ignore[arg-type]  # always four
        curve=str(rng.choice(["straight", "straight", "root", "square", "full"])),
        noisy=float(np.exp(rng.uniform(np.log(0.005), np.log(0.15)))),
        finish=str(rng.choice(["as_is", "as_is", "rounded", "counted", "rare"], p=[0.35, 0.2, 0.2, 0.15, 0.1])),
        size=float(rng.choice([1.0, 100.0, 1e4, 1e8])),
        grain=float(rng.choice([5.0, 30.0, 200.0])),
    )  # fmt: skip


def column(rng: np.random.Generator, made: Metric, from_loads: Loads) -> Floats:
    """Return a metric's values before rounding."""
    work, batch, fill, disk = made.weights
    raw = work * from_loads.work + batch * from_loads.batch + fill * from_loads.fill + disk * from_loads.disk
    if made.curve == "root":
        raw = np.sqrt(np.maximum(raw, 0))
    elif made.curve == "square":
        raw = raw * raw
    elif made.curve == "full":
        raw = np.minimum(raw, float(np.percentile(raw, 97)))
    own = shapes.noise(rng, len(raw))
    out = raw + made.noisy * (raw if rng.random() < 0.5 else 1.0) * own
    for row in rng.integers(0, len(raw), int(rng.integers(0, 6))):
        out[row] += rng.uniform(0.2, 1.0)  # a lone blip of one row: machines are full of them
    return np.asarray(out, dtype=np.float64)


def finished(made: Metric, values: Floats, clean: Floats) -> Floats:
    """Return the values as such a metric is written: cut at zero, rounded, counted, or nearly always zero."""
    values = np.maximum(values, 0)
    if made.finish == "rounded":
        values = np.round(values * 2 * made.grain) / (2 * made.grain)
    elif made.finish == "counted":
        return np.round(values * made.grain)
    elif made.finish == "rare":
        values = np.where(values > np.percentile(clean, 99.3), values, 0.0)
    return values * made.size


def seen(values: Floats, clean: Floats, where: list[int], span: tuple[int, int]) -> tuple[int, ...]:
    """Return the columns of `where` in which the stretch truly differs from what it would have been."""
    rows, found = slice(span[0], span[1] + 1), []
    for index in where:
        off = np.abs(values[rows, index] - clean[rows, index])
        if float(np.mean(off)) > 2 * shapes.scale_of(clean[:, index]):
            found.append(index)
    return tuple(found)


def deploys(rng: np.random.Generator, raw: Floats) -> None:
    """Shift some columns a little for good: a deploy, and no anomaly."""
    rows, columns = raw.shape
    for _ in range(int(rng.integers(0, 3))):
        row = int(rng.integers(rows // 20, rows))
        for index in rng.choice(columns, max(1, columns // 6), replace=False):
            raw[row:, index] += 0.1 * rng.uniform(-1, 1) * float(np.median(raw[:, index]))


MOVED_BY_WORK = 0.2
"""From this weight on a metric counts as one that follows the work."""

KINDS = {
    # kind: shortest and longest in minutes, share of draws
    "spike": (2, 25, 0.2),
    "surge": (5, 90, 0.25),
    "group_shift": (30, 500, 0.15),
    "break": (60, 400, 0.12),
    "leak": (240, 1200, 0.08),
    "dropout": (5, 120, 0.12),
    "flatline": (45, 240, 0.08),
}


def chosen(rng: np.random.Generator, kind: str, metrics: list[Metric]) -> list[int]:
    """Return the columns an anomaly takes hold of: one, a few, a group, or all that follow the work."""
    busy = [i for i, made in enumerate(metrics) if made.weights[0] > MOVED_BY_WORK]
    if kind == "surge":
        return busy
    if kind in {"group_shift", "dropout", "flatline"}:
        group = str(rng.choice(sorted({made.group for made in metrics})))
        return [i for i, made in enumerate(metrics) if made.group == group and made.finish != "rare"]
    able, most = list(range(len(metrics))), 4
    if kind == "break":
        able, most = [i for i in busy if metrics[i].finish != "rare"], 3
    elif kind == "leak":
        able = [i for i, made in enumerate(metrics) if made.group in {"memory", "sockets"} and made.finish != "rare"]
    return sorted(int(i) for i in rng.choice(able, min(len(able), int(rng.integers(1, most))), replace=False))


def strike(rng: np.random.Generator, kind: str, raw: Floats, where: list[int], span: tuple[int, int]) -> None:
    """Carry out an anomaly on the raw columns."""
    first, last = span
    common = 0.6 + 0.4 * shapes.slow(rng, last - first + 1, 0.8)
    lift = float(np.exp(rng.uniform(np.log(0.4), np.log(2.0))))
    other = (first - int(rng.integers(8, 16)) * 60) % max(1, first - (last - first))
    for index in where:
        line = raw[:, index]
        size = shapes.scale_of(line) * float(np.exp(rng.uniform(np.log(4), np.log(25))))
        if kind == "surge":
            line[first : last + 1] += lift * float(np.percentile(line, 95)) * np.abs(common)
        elif kind == "break":
            line[first : last + 1] = line[other : other + last - first + 1]
        else:
            name = {"spike": "spike", "group_shift": "shift", "leak": "leak", "dropout": "outage", "flatline": "stuck"}
            shapes.ANOMALIES[name[kind]](rng, line, first, last, size)


def make(seed: int, number: int, columns: int) -> Made:
    """Return a machine of `columns` metrics; about one in six of them never moves."""
    name = f"machine__{seed}__{number:03d}_{columns}"
    rng = shapes.chance(seed, name)
    rows = DAYS * DAY_MINUTES
    scored_from = rows // 5
    hidden = loads(rng, rows)
    metrics = [metric(rng) for _ in range(columns)]
    raw = np.stack([column(rng, each, hidden) for each in metrics], axis=1)
    deploys(rng, raw)
    still = {int(i) for i in rng.choice(columns, columns // 6, replace=False)}
    names = list(KINDS)
    share = np.array([KINDS[kind][2] for kind in names])
    planned = [str(rng.choice(names, p=share / share.sum())) for _ in range(int(rng.integers(4, 11)))]
    lengths = [round(float(np.exp(rng.uniform(*np.log(KINDS[kind][:2]))))) for kind in planned]
    clean, struck = raw.copy(), []
    for span, kind in zip(shapes.places(rng, rows, scored_from, lengths), planned, strict=True):
        where = [] if span is None else [i for i in chosen(rng, kind, metrics) if i not in still]
        if span is not None and where:
            strike(rng, kind, raw, where, span)
            struck.append((span, kind, where))
    values = np.stack([finished(each, raw[:, i], clean[:, i]) for i, each in enumerate(metrics)], axis=1)
    usual = np.stack([finished(each, clean[:, i], clean[:, i]) for i, each in enumerate(metrics)], axis=1)
    events = []
    for span, kind, where in struck:
        causes = seen(values, usual, where, span)
        if causes:
            events.append(Event(*span, kind, causes))
        else:  # nobody could see it: it is undone
            values[span[0] : span[1] + 1] = usual[span[0] : span[1] + 1]
    for index in still:
        values[:, index] = float(rng.choice([0.0, 0.0, 1.0, 42.0]))
    shapes.missed(rng, values)
    late = int(rng.integers(0, columns)) if rng.random() < 0.3 else None
    if late is not None:
        values[: rows // 30, late] = np.nan
    order = sorted(events, key=lambda event: event.first)
    return Made(name, "machine", "machine", START, 1, scored_from, values, tuple(order))


EVERYTHING = tuple(enumerate((38, 38, 25, 19, 8, 12)))
"""Number and columns of each machine of a seed."""
