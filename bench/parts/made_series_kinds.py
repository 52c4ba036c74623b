"""Made series of one column: server metrics at one and five minutes, request logs, the sessions of an exchange.

Each kind first makes days that are normal, with the habits that other detectors alarm about (jobs, deploys, restarts,
holidays, opening rush), then plants anomalies of sizes from hard to plain.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.parts import made_shapes as shapes
from bench.parts.made_shapes import DAY_MINUTES, Event, Floats, Made

START = "2025-01-06 00:00:00"
"""A Monday."""


def deploys(rng: np.random.Generator, column: Floats, step: int) -> None:
    """Shift the level a little for good, now and then, after a short dip: a deploy, and no anomaly."""
    usual = float(np.median(column))
    for _ in range(int(rng.integers(0, 4))):
        row = int(rng.integers(len(column) // 10, len(column)))
        column[row:] += usual * rng.uniform(-0.12, 0.15)
        column[row : row + max(1, 3 // step)] *= rng.uniform(0.5, 0.9)


def cpu(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return a processor's use in per cent: a day's shape, jobs, saturation."""
    at = shapes.minutes(rows, step)
    load = rng.uniform(5, 25) + rng.uniform(5, 50) * shapes.day_shape(rng, at)
    load += rng.uniform(0.5, 5) * shapes.noise(rng, rows)
    for _ in range(int(rng.integers(0, 3))):
        load += rng.uniform(8, 40) * shapes.jobs(rng, at, step, skip=0.02)[0]
    deploys(rng, load, step)
    return load


def memory(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return bytes in use: a base, garbage that is collected in a saw-tooth, restarts that begin anew."""
    base, garbage = rng.uniform(0.5e9, 4e9), rng.uniform(0.05e9, 0.8e9)
    period = max(6, int(rng.uniform(90, 900) / step))
    teeth = ((np.arange(rows) + rng.integers(0, period)) % period) / period
    out = base + garbage * teeth + 0.02 * garbage * shapes.slow(rng, rows, 0.9) + shapes.wander(rng, rows, 0.1 * base)
    for _ in range(int(rng.integers(0, 3))):
        row = int(rng.integers(0, rows))
        out[row : row + max(1, 20 // step)] *= np.linspace(0.5, 1, len(out[row : row + max(1, 20 // step)]))
    return np.asarray(out, dtype=np.float64)


def disk(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return bytes written a second: nearly nothing most of the time, bursts, regular flushes."""
    at = shapes.minutes(rows, step)
    busy = rng.random(rows) < rng.uniform(0.02, 0.3)
    out = np.where(busy, rng.lognormal(12, rng.uniform(0.4, 1.0), rows), rng.lognormal(8, 0.3, rows))
    out += rng.uniform(2e5, 3e6) * shapes.jobs(rng, at, step)[0]
    return np.asarray(out, dtype=np.float64)


def network(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return bytes a second: multiplicative noise about the day's shape."""
    at = shapes.minutes(rows, step)
    rate = rng.uniform(1e4, 1e6) * (0.15 + shapes.day_shape(rng, at))
    return np.asarray(rate * np.exp(rng.uniform(0.05, 0.3) * shapes.noise(rng, rows)), dtype=np.float64)


def connections(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return open connections, whole numbers that follow the day with some inertia."""
    at = shapes.minutes(rows, step)
    mean = rng.uniform(5, 400) * (0.3 + shapes.day_shape(rng, at))
    out = mean * (1 + 0.1 * shapes.slow(rng, rows, 0.95))
    deploys(rng, out, step)
    return np.asarray(np.round(out), dtype=np.float64)


def latency(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return seconds at a high quantile: heavy-tailed, worse under load."""
    at = shapes.minutes(rows, step)
    level = rng.uniform(0.02, 0.4) * (1 + rng.uniform(0.1, 0.8) * shapes.day_shape(rng, at))
    out = level * np.exp(rng.uniform(0.05, 0.25) * shapes.noise(rng, rows))
    deploys(rng, out, step)
    return np.asarray(out, dtype=np.float64)


def errors(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return errors counted a row: mostly none, a few, in proportion to the load."""
    at = shapes.minutes(rows, step)
    mean = rng.uniform(0.02, 3.0) * (0.3 + shapes.day_shape(rng, at)) * np.exp(0.4 * shapes.slow(rng, rows, 0.9))
    return np.asarray(rng.poisson(mean), dtype=np.float64)


def gauge(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return a quantised reading that drifts, without any rhythm: a temperature, a file system's fill."""
    del step
    out = rng.uniform(20, 80) + shapes.wander(rng, rows, rng.uniform(1, 15)) + 0.6 * shapes.slow(rng, rows, 0.98)
    grain = float(rng.choice([0.1, 0.5, 1.0]))
    return np.asarray(np.round(out / grain) * grain, dtype=np.float64)


def requests(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return requests counted a row from a log: Poisson and more, crawlers, a holiday."""
    at = shapes.minutes(rows, step)
    mean = step * rng.uniform(1, 300) * (0.1 + shapes.day_shape(rng, at)) * np.exp(0.1 * shapes.slow(rng, rows, 0.99))
    holiday = int(rng.integers(3, max(4, rows * step // DAY_MINUTES)))
    mean[at // DAY_MINUTES == holiday] *= rng.uniform(0.5, 0.9)
    mean += mean.mean() * rng.uniform(0.2, 1.0) * shapes.jobs(rng, at, step, skip=0.05)[0]
    return np.asarray(rng.negative_binomial(20, 20 / (20 + np.maximum(mean, 1e-3))), dtype=np.float64)


def session(rng: np.random.Generator, rows: int, step: int) -> Floats:
    """Return an exchange's messages a row: closed nights and weekends, opening rush, close, a half-day, a holiday."""
    at = shapes.minutes(rows, step)
    day, clock = at // DAY_MINUTES, at % DAY_MINUTES
    half, holiday = (int(rng.integers(5, max(6, int(day.max())))) for _ in range(2))
    close = np.where(day == half, 780, 960)
    opened = (clock >= 570) & (clock < close) & (day % 7 < 5) & (day != holiday)
    since, left = clock - 570, close - clock
    shape = 0.3 + 1.8 * np.exp(-since / 12.0) + 0.9 * np.exp(-left / 15.0) + 0.3 * np.exp(-since / 90.0)
    size = np.exp(rng.normal(0, 0.12, int(day.max()) + 1))[day]
    mean = step * rng.uniform(20, 900) * shape * size * np.exp(0.12 * shapes.slow(rng, rows, 0.95))
    quiet = step * float(rng.choice([0.0, 0.0, 0.4]))
    mean = np.where(opened, mean, quiet)
    return np.asarray(rng.negative_binomial(30, 30 / (30 + np.maximum(mean, 1e-9))), dtype=np.float64)


Kind = Callable[[np.random.Generator, int, int], Floats]
SERVER: dict[str, Kind] = {
    "cpu": cpu,
    "memory": memory,
    "disk": disk,
    "network": network,
    "connections": connections,
    "latency": latency,
    "errors": errors,
    "gauge": gauge,
}
WHOLE = {"connections", "errors", "requests", "session"}
UNFIT = {
    "errors": {"stuck", "outage", "lost_rhythm"},
    "disk": {"stuck", "outage", "lost_rhythm", "leak"},
    "gauge": {"stuck", "lost_rhythm"},
    "memory": {"lost_rhythm"},
    "session": {"stuck", "leak"},
    "requests": {"stuck"},
}
"""Anomalies that nobody could tell from that kind's normal days."""


def plant(rng: np.random.Generator, column: Floats, kind: str, step: int, scored_from: int) -> list[Event]:
    """Plant up to four anomalies into a column; one series in five has none."""
    if rng.random() < 0.2:
        return []
    fit = sorted(set(shapes.ANOMALIES) - UNFIT.get(kind, set()))
    planned = [str(rng.choice(fit)) for _ in range(int(rng.integers(1, 5)))]
    scale = shapes.scale_of(column)
    found: list[Event] = []
    lengths = [shapes.length(rng, what, step) for what in planned]
    for place, what in zip(shapes.places(rng, len(column), scored_from, lengths), planned, strict=True):
        if place is None:
            continue
        first, last = place
        if kind == "session":
            first, last = trading(first, last, step)
            if last >= len(column) or column[first : last + 1].max() < scale or meets(found, first, last):
                continue
        shapes.ANOMALIES[what](rng, column, first, last, scale * float(np.exp(rng.uniform(np.log(4), np.log(25)))))
        found.append(Event(first, last, what))
    return sorted(found, key=lambda event: event.first)


def trading(first: int, last: int, step: int) -> tuple[int, int]:
    """Return the stretch moved into the middle of that day's trading, where an anomaly can be seen at all."""
    day = first * step // DAY_MINUTES
    begun = (day * DAY_MINUTES + 600 + (first * step) % 60) // step
    return begun, min(begun + last - first, begun + 120 // step)


def meets(events: list[Event], first: int, last: int) -> bool:
    """Say whether the stretch meets one that is already planted."""
    return any(first <= event.last + 5 and event.first <= last + 5 for event in events)


def make(seed: int, group: str, kind: str, number: int) -> Made:
    """Return one series of a group: server5, server1, requests or session."""
    name = f"{group}__{seed}__{number:03d}_{kind}"
    rng = shapes.chance(seed, name)
    step, days = {"server5": (5, 28), "server1": (1, 14), "requests": (1, 10), "session": (2, 28)}[group]
    rows = days * DAY_MINUTES // step
    builder = SERVER.get(kind) or {"requests": requests, "session": session}[kind]
    column = builder(rng, rows, step)
    scored_from = rows // 4 if group == "session" else rows * 15 // 100
    events = plant(rng, column, kind, step, scored_from)
    column = np.clip(column, 0, 100) if kind == "cpu" else np.maximum(column, 0)
    if kind in WHOLE:
        column = np.round(column)
    values = np.asarray(column, dtype=np.float64)[:, None]
    shapes.missed(rng, values)
    return Made(name, group, kind, START, step, scored_from, values, tuple(events))


EVERYTHING = tuple(
    (group, kind, number)
    for number, (group, kind) in enumerate(
        [("server5", kind) for kind in SERVER]
        + [("server1", kind) for kind in SERVER]
        + [("requests", "requests")] * 5
        + [("session", "session")] * 4
    )
)
"""What one seed's folder holds: group, kind and number of each series."""
