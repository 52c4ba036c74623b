"""What is usual for a machine's metrics together: scales, principal components, each metric given the others.

One model is fitted to a window of rows (columns are metrics):

- z = (x - median) / s, s the larger of (q75 - q25) / 1.349 and (q99 - q01) / 4.65, clipped; a metric that never moved
  has no scale, and takes no part but by moving.
- Whitened PCA of the correlations (Jackson and Mudholkar 1979, "Control Procedures for Residuals Associated With
  Principal Component Analysis"): T2 is the squared length in the kept components, each in units of its own spread; Q
  (SPE) the same over those left out, whose spread is not let below a floor.
- Each metric given all others, from the shrunk inverse P of the correlations: e_j = (P z)_j / sqrt(P_jj) is what is
  left of metric j when the others have told what they know (the whitened leave-one-out residual). Beyond its own
  extremes in the window it is novel, by so many times its 1-99 % range.

Cost: O(rows x columns^2) for a fit, O(columns^2) for a row.

>>> import numpy as np
>>> rng = np.random.default_rng(3)
>>> load = rng.normal(size=500)
>>> rows = np.stack([load, 2 * load + 0.1 * rng.normal(size=500), rng.normal(size=500)], axis=1)
>>> model = fit(rows)
>>> together, apart = np.array([2.0, 4.0, 0.0]), np.array([2.0, -4.0, 0.0])
>>> out = np.zeros(3)
>>> bool(residuals(model, together, out)[0] == 0.0), bool(residuals(model, apart, out)[0] > 1.0)
(True, True)
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.compiled import entry, part

Floats = NDArray[np.float64]

UNKNOWN: Final = 0
LIVE: Final = 1
CONSTANT: Final = 2
LEAST_VALUES: Final = 30
"""Values of a metric in the window before it takes part: a metric that appears late waits for the next fit."""
FIT_CLIP: Final = 6.0
ROW_CLIP: Final = 30.0
PCA_CLIP: Final = 12.0
KEPT: Final = 0.9
"""The part of the variance that the kept components carry."""
SHRINK: Final = 0.02
FLOOR: Final = 0.02
SWEEPS: Final = 30
ROTATED: Final = 1e-10
"""A correlation that counts as none."""
MOVED: Final = 8.0
"""The z of a metric that never moved and now does."""
MOST_NOVEL: Final = 10.0


MIDDLE, SCALE, LOW, HIGH, MEAN, SPREADS, LEFT, LEFT_LOW, LEFT_HIGH, LEFT_RANGE = range(10)
"""Places in the facts of each metric; of SPREADS, of each component."""
FACTS: Final = 10


class Model(NamedTuple):
    """A fitted window. `kind` is UNKNOWN, LIVE or CONSTANT by metric; matrices have a row and column a metric."""

    kind: NDArray[np.int8]
    facts: Floats
    vectors: Floats
    inverse: Floats
    kept: NDArray[np.int64]


def blank(columns: int) -> Model:
    """Return a model that knows nothing yet."""
    square = np.zeros((columns, columns))
    kind, kept = np.zeros(columns, dtype=np.int8), np.zeros(1, dtype=np.int64)
    return Model(kind, np.ones((FACTS, columns)), square, square.copy(), kept)


@entry
def _scales(rows: Floats, kind: NDArray[np.int8], facts: Floats) -> None:
    """Fill each metric's kind and, in `facts`, its median, scale, lowest and highest value."""
    for column in range(rows.shape[1]):
        line = rows[:, column]
        values = np.sort(line[np.isfinite(line)])
        count = len(values)
        if count < LEAST_VALUES:
            kind[column] = UNKNOWN
            facts[MIDDLE, column], facts[SCALE, column], facts[LOW, column], facts[HIGH, column] = 0.0, 1.0, 0.0, 0.0
            continue
        facts[0, column] = values[count // 2]
        facts[2, column], facts[3, column] = values[0], values[count - 1]
        if values[0] == values[count - 1]:
            kind[column] = CONSTANT
            facts[1, column] = max(1e-9, abs(values[0]) * 1e-3)
            continue
        kind[column] = LIVE
        quarter = (values[count * 3 // 4] - values[count // 4]) / 1.349
        wide = (values[min(count - 1, count * 99 // 100)] - values[count // 100]) / 4.65
        scale = max(quarter, wide)
        facts[1, column] = scale if scale > 0.0 else (values[count - 1] - values[0]) / 6.0


@entry
def _products(left: Floats, right: Floats) -> Floats:
    """Return the matrix product."""
    out = np.zeros((left.shape[0], right.shape[1]))
    for row in range(left.shape[0]):
        for middle in range(left.shape[1]):
            factor = left[row, middle]
            for column in range(right.shape[1]):
                out[row, column] += factor * right[middle, column]
    return out


@part
def _rotate(left: Floats, vectors: Floats, one: int, two: int) -> None:
    """Turn two directions so that they no longer correlate."""
    angle = 0.5 * math.atan2(2.0 * left[one, two], left[one, one] - left[two, two])
    c, s = math.cos(angle), math.sin(angle)
    for each in range(len(left)):
        a, b = left[one, each], left[two, each]
        left[one, each], left[two, each] = c * a + s * b, c * b - s * a
    for each in range(len(left)):
        a, b = left[each, one], left[each, two]
        left[each, one], left[each, two] = c * a + s * b, c * b - s * a
        a, b = vectors[each, one], vectors[each, two]
        vectors[each, one], vectors[each, two] = c * a + s * b, c * b - s * a


@entry
def _directions(shared: Floats) -> tuple[Floats, Floats]:
    """Return variances and directions as columns, in no order, by Jacobi's rotations."""
    size = len(shared)
    left, vectors = shared.copy(), np.eye(size)
    for _ in range(SWEEPS):
        off = 0.0
        for one in range(size):
            for two in range(one + 1, size):
                off = max(off, abs(left[one, two]))
        if off < ROTATED:
            break
        for one in range(size):
            for two in range(one + 1, size):
                if abs(left[one, two]) < ROTATED * 1e-3:
                    continue
                _rotate(left, vectors, one, two)
    return np.diag(left).copy(), vectors


@entry
def _inverse(matrix: Floats) -> Floats:
    """Return the inverse of a positive definite matrix, by Gauss and Jordan's elimination without exchanges."""
    size = len(matrix)
    left, out = matrix.copy(), np.eye(size)
    for pivot in range(size):
        factor = 1.0 / left[pivot, pivot]
        left[pivot] *= factor
        out[pivot] *= factor
        for row in range(size):
            if row != pivot:
                factor = left[row, pivot]
                if factor != 0.0:
                    left[row] -= factor * left[pivot]
                    out[row] -= factor * out[pivot]
    return out


def fit(rows: Floats, *, components: bool = True) -> Model:
    """Return the model of a window of rows, NaN where there was no value; without components T2 and Q mean nothing.

    The linear algebra is compiled here: the threads of a library cost more than such small matrices do, and the same
    rows give the same model on every machine.
    """
    count, columns = rows.shape
    kind, facts = np.zeros(columns, dtype=np.int8), np.zeros((FACTS, columns))
    _scales(rows, kind, facts)
    middle, scale = facts[MIDDLE], facts[SCALE]
    live = kind == LIVE
    z = (rows - middle) / scale
    gone = ~np.isfinite(z)
    z[gone] = 0.0
    z[:, ~live] = 0.0
    clipped = np.clip(z, -FIT_CLIP, FIT_CLIP)
    mean = clipped.mean(axis=0)
    clipped -= mean
    clipped[gone] = 0.0
    shared = _products(np.ascontiguousarray(clipped.T), clipped) / count
    values, vectors = _directions(shared) if components else (np.ones(columns), np.eye(columns))
    order = np.argsort(-values, kind="stable")
    values, vectors = np.maximum(values[order], 0.0), np.ascontiguousarray(vectors[:, order])
    share = np.cumsum(values)
    kept = min(int(np.searchsorted(share, KEPT * share[-1])) + 1, max(columns - 1, 1)) if share[-1] > 0 else 1
    floor = max(float(np.median(values[kept:])) if kept < columns else 0.0, FLOOR)
    ridge = shared + np.eye(columns) * (SHRINK * float(np.trace(shared)) / max(1, int(live.sum())) + 1e-9)
    ridge[~live, ~live] = 1.0
    inverse = _inverse(ridge)
    left = np.sqrt(np.diag(inverse))
    whole = np.clip(z, -ROW_CLIP, ROW_CLIP) - mean
    whole[gone] = 0.0
    edges = np.sort(_products(whole, inverse) / left, axis=0)
    wide = edges[min(count - 1, count * 99 // 100)] - edges[count // 100]
    facts[MEAN], facts[SPREADS], facts[LEFT] = mean, np.maximum(values, floor), left
    facts[LEFT_LOW], facts[LEFT_HIGH], facts[LEFT_RANGE] = edges[0], edges[-1], np.maximum(wide, 0.5)
    return Model(kind, facts, vectors, inverse, np.array([kept], dtype=np.int64))


@entry
def standardised(model: Model, row: Floats) -> Floats:
    """Return z less its mean by metric; 0 where there is no value, MOVED for a constant that moved."""
    out = np.zeros(len(row))
    for column in range(len(row)):
        value = row[column]
        if model.kind[column] == UNKNOWN or not np.isfinite(value):
            continue
        z = (value - model.facts[MIDDLE, column]) / model.facts[SCALE, column]
        if model.kind[column] == CONSTANT:
            out[column] = 0.0 if abs(z) <= 1.0 else (MOVED if z > 0.0 else -MOVED)
        else:
            out[column] = min(ROW_CLIP, max(-ROW_CLIP, z)) - model.facts[MEAN, column]
    return out


@entry
def components(model: Model, row: Floats) -> tuple[float, float]:
    """Return T2 in the kept components and Q in those left out."""
    z = standardised(model, row)
    columns = len(z)
    for column in range(columns):
        z[column] = min(PCA_CLIP, max(-PCA_CLIP, z[column]))
    inside, outside = 0.0, 0.0
    places = np.zeros(columns)
    for column in range(columns):
        value = z[column]
        if value != 0.0:
            for place in range(columns):
                places[place] += value * model.vectors[column, place]
    for place in range(columns):
        part = places[place] * places[place] / model.facts[SPREADS, place]
        if place < model.kept[0]:
            inside += part
        else:
            outside += part
    return inside, outside


@entry
def residuals(model: Model, row: Floats, out: Floats) -> Floats:
    """Fill and return by how much each metric, given the others, lies outside its extremes, in its 1-99 % ranges."""
    z = standardised(model, row)
    columns = len(z)
    out[:] = 0.0
    for column in range(columns):
        value = z[column]
        if value != 0.0 and model.kind[column] == LIVE:
            for place in range(columns):
                out[place] += value * model.inverse[column, place]
    for place in range(columns):
        if model.kind[place] == LIVE:
            e = out[place] / model.facts[LEFT, place]
            over = (
                max(e - model.facts[LEFT_HIGH, place], model.facts[LEFT_LOW, place] - e)
                / model.facts[LEFT_RANGE, place]
            )
            out[place] = min(MOST_NOVEL, max(0.0, over))
        else:
            out[place] = 1.0 if z[place] != 0.0 else 0.0
    return out


@entry
def novelty(model: Model, row: Floats, out: Floats) -> Floats:
    """Fill and return by how much each metric lies outside all it was, in units of its 1-99 % range."""
    for column in range(len(row)):
        out[column] = 0.0
        value = row[column]
        if model.kind[column] == UNKNOWN or not np.isfinite(value):
            continue
        over = max(value - model.facts[HIGH, column], model.facts[LOW, column] - value) / model.facts[SCALE, column]
        if model.kind[column] == CONSTANT:
            out[column] = 1.0 if over > 1.0 else 0.0
        else:
            out[column] = min(MOST_NOVEL, max(0.0, over / 4.65))
    return out


@part
def outside_parts(model: Model, row: Floats, out: Floats) -> Floats:
    """Fill and return each metric's part of Q: its whitened residual, squared."""
    z = standardised(model, row)
    columns = len(z)
    for column in range(columns):
        z[column] = min(PCA_CLIP, max(-PCA_CLIP, z[column]))
    back = np.zeros(columns)
    for place in range(model.kept[0], columns):
        along = 0.0
        for column in range(columns):
            along += z[column] * model.vectors[column, place]
        along /= math.sqrt(model.facts[SPREADS, place])
        for column in range(columns):
            back[column] += along * model.vectors[column, place]
    for column in range(columns):
        out[column] = back[column] * back[column]
    return out


def expected(model: Model, row: Floats) -> tuple[Floats, Floats]:
    """Return the range in which each metric is expected, given the others; NaN for one that is not known yet."""
    z = standardised(model, row)
    live = model.kind == LIVE
    z = np.where(live, z, 0.0)
    given = z - (z @ model.inverse) / np.diag(model.inverse) + model.facts[MEAN]
    low = model.facts[MIDDLE] + model.facts[SCALE] * (given + model.facts[LEFT_LOW] / model.facts[LEFT])
    high = model.facts[MIDDLE] + model.facts[SCALE] * (given + model.facts[LEFT_HIGH] / model.facts[LEFT])
    still = model.kind == CONSTANT
    low, high = np.where(still, model.facts[LOW], low), np.where(still, model.facts[HIGH], high)
    return np.where(model.kind == UNKNOWN, np.nan, low), np.where(model.kind == UNKNOWN, np.nan, high)
