"""What made series are built from: rhythms, kinds of noise, habits that are no anomaly, and the anomalies themselves.

Everything is drawn from one seeded generator per series. `rows` counts rows, `step` is the time between them in
minutes. Nothing here knows a detector.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DAY_MINUTES = 1440


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """A labelled stretch, both rows included; `causes` are column numbers, none for a series of one column."""

    first: int
    last: int
    kind: str
    causes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A made series or machine: `values` is (rows, columns), NaN where a scrape was missed."""

    name: str
    group: str
    category: str
    start: str
    step: int
    scored_from: int
    values: Floats
    events: tuple[Event, ...]


def chance(seed: int, name: str) -> np.random.Generator:
    """Return a generator of its own for `name`: drawing more from one never shifts another."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def minutes(rows: int, step: int, first: int = 0) -> NDArray[np.int64]:
    """Return the minute since a Monday's midnight of every row."""
    return first + step * np.arange(rows, dtype=np.int64)


# ------------------------------------------------------------------ rhythms
def day_shape(rng: np.random.Generator, at: NDArray[np.int64]) -> Floats:
    """Return a day's curve between about 0 and 1: one to three humps, a quieter weekend, days of unequal size."""
    clock = (at % DAY_MINUTES) / 60.0
    curve = np.zeros(len(at))
    for _ in range(int(rng.integers(1, 4))):
        middle, width, height = rng.uniform(0, 24), rng.uniform(1.5, 5.0), rng.uniform(0.4, 1.0)
        off = (clock - middle + 12) % 24 - 12
        curve += height * np.exp(-0.5 * (off / width) ** 2)
    curve /= curve.max()
    weekend = (at // DAY_MINUTES) % 7 >= 5
    curve[weekend] *= rng.uniform(0.35, 1.0)
    days = at // DAY_MINUTES
    size = np.clip(1 + rng.normal(0, rng.uniform(0.01, 0.08), int(days.max()) + 2), 0.5, 1.5)
    inside = (at % DAY_MINUTES) / DAY_MINUTES
    return curve * (size[days] * (1 - inside) + size[days + 1] * inside)


def jobs(rng: np.random.Generator, at: NDArray[np.int64], step: int, *, skip: float = 0.0) -> tuple[Floats, list[int]]:
    """Return the load of a regular job, 0 to 1, and the rows where its runs begin; a run is left out by `skip`."""
    every = int(rng.choice([60, 120, 180, 360, 720, 1440]))
    if every <= 2 * step:
        every = 360
    lasting, offset = max(1, int(rng.uniform(2, 25) / step)), int(rng.integers(0, every))
    load = np.zeros(len(at))
    starts = np.flatnonzero((at - offset) % every < step)
    kept = [int(row) for row in starts if rng.random() >= skip]
    for row in kept:
        late = row + int(rng.integers(0, 3))
        size = max(1, int(lasting * rng.uniform(0.7, 1.4)))
        load[late : late + size] = rng.uniform(0.8, 1.1)
    return load, kept


# ------------------------------------------------------------------ noise
def slow(rng: np.random.Generator, rows: int, phi: float) -> Floats:
    """Return autocorrelated noise of unit spread."""
    drawn = rng.normal(0, math.sqrt(1 - phi * phi), rows).tolist()
    last, out = float(rng.normal()), np.empty(rows)
    for row, fresh in enumerate(drawn):
        last = phi * last + fresh
        out[row] = last
    return out


def wander(rng: np.random.Generator, rows: int, size: float) -> Floats:
    """Return a drift that ends within about `size` of where it began, without jumps."""
    walk = np.cumsum(rng.normal(0, 1, rows))
    return np.asarray(size * walk / math.sqrt(rows), dtype=np.float64)


def noise(rng: np.random.Generator, rows: int) -> Floats:
    """Return noise of about unit spread: of light tails, heavy tails, slow, in bursts or one-sided."""
    kind = rng.choice(["normal", "heavy", "slow", "bursts", "one_sided"])
    if kind == "normal":
        return rng.normal(0, 1, rows)
    if kind == "heavy":
        return np.asarray(rng.standard_t(3, rows) / 1.7, dtype=np.float64)
    if kind == "slow":
        return 0.8 * slow(rng, rows, float(rng.uniform(0.8, 0.97))) + 0.6 * rng.normal(0, 1, rows)
    if kind == "bursts":
        return rng.normal(0, 1, rows) * np.exp(0.5 * slow(rng, rows, 0.98))
    return np.asarray((rng.gamma(1.5, 1.0, rows) - 1.5) / 1.2, dtype=np.float64)


# ------------------------------------------------------------------ where events lie
def places(rng: np.random.Generator, rows: int, scored_from: int, lengths: list[int]) -> list[tuple[int, int] | None]:
    """Return a stretch after `scored_from` for each length, in the order given, far from each other; None: no room."""
    found: list[tuple[int, int] | None] = []
    gap = max(30, (rows - scored_from) // 80)
    for size in lengths:
        place = None
        for _ in range(20):
            if size + 2 * gap >= rows - scored_from:
                break
            first = int(rng.integers(scored_from + gap, rows - size - gap))
            taken = [other for other in found if other is not None]
            if all(first > last + gap or first + size < begun - gap for begun, last in taken):
                place = (first, first + size - 1)
                break
        found.append(place)
    return found


# ------------------------------------------------------------------ anomalies on one column
def spike(rng: np.random.Generator, column: Floats, first: int, last: int, size: float) -> None:
    """Lift (or now and then sink) a stretch by about `size`, unevenly."""
    sign = 1.0 if rng.random() < 0.8 else -1.0
    column[first : last + 1] += sign * size * rng.uniform(0.7, 1.2, last - first + 1)


def shift(rng: np.random.Generator, column: Floats, first: int, last: int, size: float) -> None:
    """Move a stretch to another level, both ways alike."""
    column[first : last + 1] += (1 if rng.random() < 0.65 else -1) * size


def leak(rng: np.random.Generator, column: Floats, first: int, last: int, size: float) -> None:
    """Grow over a stretch and fall back at its end, as a leak until the restart does."""
    column[first : last + 1] += size * np.linspace(0, 1, last - first + 1) ** float(rng.uniform(0.8, 1.5))


def stuck(rng: np.random.Generator, column: Floats, first: int, last: int, size: float) -> None:
    """Say the same value all through a stretch."""
    del rng, size
    column[first : last + 1] = column[first]


def lost_rhythm(rng: np.random.Generator, column: Floats, first: int, last: int, size: float) -> None:
    """Play another stretch's values, half a day away or turned about, in place of its own."""
    del size
    length = last - first + 1
    source = max(0, first - length - int(rng.integers(0, 3)) * 7)
    column[first : last + 1] = column[source : source + length][::-1]


def unrest(rng: np.random.Generator, column: Floats, first: int, last: int, size: float) -> None:
    """Swing about the usual level."""
    column[first : last + 1] += size * 0.7 * rng.normal(0, 1, last - first + 1)


def outage(rng: np.random.Generator, column: Floats, first: int, last: int, size: float) -> None:
    """Fall to (nearly) nothing: a zero that is a value, not a missed scrape."""
    del size
    column[first : last + 1] *= float(rng.choice([0.0, 0.0, 0.1, 0.3]))


ANOMALIES: dict[str, Callable[[np.random.Generator, Floats, int, int, float], None]] = {
    "spike": spike,
    "shift": shift,
    "leak": leak,
    "stuck": stuck,
    "lost_rhythm": lost_rhythm,
    "unrest": unrest,
    "outage": outage,
}

LENGTHS_MINUTES: dict[str, tuple[float, float]] = {
    "spike": (2, 30),
    "shift": (40, 600),
    "leak": (180, 1200),
    "stuck": (45, 300),
    "lost_rhythm": (240, 900),
    "unrest": (30, 300),
    "outage": (5, 120),
}
"""The shortest and the longest an anomaly of a kind lasts; drawn evenly on a logarithmic scale."""


def length(rng: np.random.Generator, kind: str, step: int) -> int:
    """Return how many rows an anomaly of `kind` lasts."""
    short, long = np.log(LENGTHS_MINUTES[kind])
    return max(1 if kind == "spike" else 3, round(float(np.exp(rng.uniform(short, long))) / step))


def scale_of(column: Floats) -> float:
    """Return the usual size of a column's changes about its rhythm: what an anomaly is measured by."""
    rough = np.abs(np.diff(column))
    near = float(np.percentile(np.abs(column - np.median(column)), 75)) * 0.3
    return max(float(np.percentile(rough, 75)), near, 1e-3 * max(1.0, float(np.abs(column).max())))


def missed(rng: np.random.Generator, values: Floats) -> None:
    """Lose some scrapes: single ones, and a short outage of the scraper, all columns of a row alike."""
    rows = len(values)
    values[rng.random(rows) < rng.choice([0.0, 0.0005, 0.003])] = np.nan
    for _ in range(int(rng.integers(0, 3))):
        first = int(rng.integers(0, rows - 40))
        values[first : first + int(rng.integers(3, 40))] = np.nan
