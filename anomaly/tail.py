"""How unusual a value is among those the same channel had before: quantiles, records, and how often such peaks recur.

Three answers about a value of a channel, all from its own past and free of its unit:

* the **quantiles** of its past, by a merging t-digest whose weights fade;
* its **margin**: how far beyond the record it lies, in units of the range between the 1 % and the 99 % quantile, where
  a record moves back to the usual range little by little, so that what was long ago may be news again;
* its **recurrence**: the faded count of earlier peaks at least as high. A daily job's peak is high, but never new.

The last two give a rate of false alarms that needs no distribution: where values are exchangeable, one as high as
anything within a memory of n rows comes once in n rows, whatever the series.

References:
    T. Dunning, O. Ertl: Computing extremely accurate quantiles using t-digests, arXiv:1902.04023.
    J. Pickands: Statistical inference using extreme order statistics, Annals of Statistics 3 (1975).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from anomaly.compiled import part

CENTROIDS: Final = 32
FRESH: Final = 16
"""Values that wait to be merged into the digest."""
PEAKS: Final = 16
"""Earlier peaks that are remembered on each side."""
APART: Final = 30
"""Rows after which a value is another peak, not the same one going on."""
LEVELS: Final = 7
"""Quantiles kept at hand."""
Q01, Q03, Q10, Q50, Q90, Q97, Q99 = range(LEVELS)
_AT: Final = (0.01, 0.03, 0.10, 0.50, 0.90, 0.97, 0.99)
NEVER: Final = -(10**12)

TAIL: Final = np.dtype(
    [
        ("count", "i8"),
        ("centre", "f8", (CENTROIDS,)),
        ("weight", "f8", (CENTROIDS,)),
        ("centres", "i8"),
        ("fresh", "f8", (FRESH,)),
        ("waiting", "i8"),
        ("quantile", "f8", (LEVELS,)),
        ("high", "f8"),
        ("low", "f8"),
        ("peak", "f8", (2, PEAKS)),
        ("row", "i8", (2, PEAKS)),
        ("peaks", "i8", (2,)),
    ],
    align=True,
)
"""The past of one channel of one series."""


@part
def _room(q: float) -> float:
    """Return the scale function of the digest: centroids are small at the ends, where accuracy is wanted."""
    return CENTROIDS / (2 * math.pi) * math.asin(min(max(2 * q - 1, -1.0), 1.0))


@part
def merge(tail: Any, fade: float) -> None:
    """Merge the waiting values into the digest and read the quantiles anew; `fade` weighs down what was there."""
    held, waiting = tail.centres, tail.waiting
    many = held + waiting
    centre, weight = np.empty(many), np.empty(many)
    for i in range(held):
        centre[i], weight[i] = tail.centre[i], tail.weight[i] * fade
    for i in range(waiting):
        centre[held + i], weight[held + i] = tail.fresh[i], 1.0
    order = np.argsort(centre, kind="mergesort")
    total = weight.sum()
    n, done = 0, 0.0
    now, load = centre[order[0]], weight[order[0]]
    start = _room(0.0)
    for k in range(1, many):
        i = order[k]
        if _room((done + load + weight[i]) / total) - start <= 1.0 or n == CENTROIDS - 1:
            now += (centre[i] - now) * weight[i] / (load + weight[i])
            load += weight[i]
        else:
            tail.centre[n], tail.weight[n] = now, load
            n += 1
            done += load
            start = _room(done / total)
            now, load = centre[i], weight[i]
    tail.centre[n], tail.weight[n] = now, load
    tail.centres = n + 1
    tail.waiting = 0
    _read(tail, total)


@part
def _read(tail: Any, total: float) -> None:
    """Read the quantiles: between the middles of neighbouring centroids the distribution is a straight line."""
    n = tail.centres
    k, done = 0, 0.0
    for level in range(LEVELS):
        want = _AT[level] * total
        while k < n - 1 and done + tail.weight[k] + tail.weight[k + 1] / 2 < want:
            done += tail.weight[k]
            k += 1
        at = done + tail.weight[k] / 2
        if want <= at or k == n - 1:
            tail.quantile[level] = tail.centre[k]
        else:
            width = (tail.weight[k] + tail.weight[k + 1]) / 2
            tail.quantile[level] = tail.centre[k] + (tail.centre[k + 1] - tail.centre[k]) * (want - at) / width


@part
def margin(tail: Any, value: float, two_sided: bool, floor: float) -> tuple[float, int]:
    """Return how far beyond the record `value` lies, in units of the usual range, and on which side: 0 high, 1 low.

    `floor` is the least range, in the channel's unit: below it a difference is rounding.
    """
    over, side = value - tail.high, 0
    if two_sided and tail.low - value > over:
        over, side = tail.low - value, 1
    quantile = tail.quantile
    return (over - floor) / (quantile[Q99] - quantile[Q01] + floor), side


@part
def recurrence(tail: Any, value: float, side: int, row: int, memory: float, alike: float) -> float:
    """Return the faded count of earlier peaks as far out as `value`; the present one is not counted.

    A peak counts as as far out when it lies lower by no more than the share `alike` of the distance to the median.
    """
    count = 0.0
    value -= alike * (value - tail.quantile[Q50])
    for i in range(PEAKS):
        age = row - tail.row[side, i]
        if tail.row[side, i] != NEVER and age > APART:
            peak = tail.peak[side, i]
            if (side == 0 and peak >= value) or (side == 1 and peak <= value):
                count += math.exp(-age / memory)
    return count


@part
def surprise(tail: Any, value: float, two_sided: bool) -> float:
    """Return about -log10 of the share of the past that was as far out: 2 at the 99 % quantile, then a Pareto tail.

    The shape of the tail is Pickands' idea on three quantiles: how much wider its outer part is than its inner one,
    kept between 0 and 1/2.
    """
    quantile = tail.quantile
    far = _surprise(value, quantile[Q50], quantile[Q90], quantile[Q97], quantile[Q99])
    if two_sided:
        far = max(far, _surprise(-value, -quantile[Q50], -quantile[Q10], -quantile[Q03], -quantile[Q01]))
    return far


@part
def _surprise(value: float, q50: float, q90: float, q97: float, q99: float) -> float:
    if value <= q50:
        return 0.0
    if value < q90:
        return 0.3 + 0.7 * (value - q50) / (q90 - q50)
    if value < q97:
        return 1.0 + 0.523 * (value - q90) / (q97 - q90)
    if value < q99:
        return 1.523 + 0.477 * (value - q97) / (q99 - q97)
    outer, inner = q99 - q97, q97 - q90
    shape = min(max((outer / inner - 0.912) * 0.5, 0.0), 0.5) if inner > 0 else 0.0
    scale = max(q99 - q90, 0.0) / 2.303 + 1e-6 * abs(q99) + 1e-12
    beyond = (value - q99) / scale
    deep = beyond if shape < 1e-3 else math.log1p(shape * beyond) / shape
    return min(2.0 + deep / 2.303, 12.0)


@part
def learn(tail: Any, value: float, row: int, forget: float, fade: float) -> None:
    """Take `value` into the past of the channel; the caller keeps out what is missing or infinite."""
    if tail.count == 0:
        tail.high, tail.low = value, value
        tail.row[:, :] = NEVER
    quantile = tail.quantile
    if tail.count >= 2 * FRESH:
        _note_peak(tail, value, row)
        if tail.high > quantile[Q99]:
            tail.high += (quantile[Q99] - tail.high) * forget
        if tail.low < quantile[Q01]:
            tail.low += (quantile[Q01] - tail.low) * forget
    tail.high, tail.low = max(tail.high, value), min(tail.low, value)
    tail.fresh[tail.waiting] = value
    tail.waiting += 1
    tail.count += 1
    if tail.waiting == FRESH:
        merge(tail, fade)


@part
def _note_peak(tail: Any, value: float, row: int) -> None:
    """Remember a value beyond the 3 or 97 % quantile as a peak, or raise the one that is going on."""
    if value > tail.quantile[Q97]:
        side = 0
    elif value < tail.quantile[Q03]:
        side = 1
    else:
        return
    last = (tail.peaks[side] - 1) % PEAKS
    if tail.peaks[side] > 0 and row - tail.row[side, last] <= APART:
        tail.row[side, last] = row
        tail.peak[side, last] = max(tail.peak[side, last], value) if side == 0 else min(tail.peak[side, last], value)
        return
    last = tail.peaks[side] % PEAKS
    tail.row[side, last], tail.peak[side, last] = row, value
    tail.peaks[side] += 1
