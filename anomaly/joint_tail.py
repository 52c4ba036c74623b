"""From a statistic of any scale to how rarely it comes so high: a tail fitted to the statistic's own history.

The history is the highest value of each block of rows, so that one long episode counts once. Above a high quantile u
of it a generalised Pareto distribution is fitted by probability-weighted moments (Hosking and Wallis 1987, "Parameter
and Quantile Estimation for the Generalized Pareto Distribution"), as peaks over threshold do (Siffer et al. 2017,
"Anomaly Detection in Streams with Extreme Value Theory"). The rate of blocks a day that reach v > u is then

    rate(v) = blocks a day * part of blocks above u * (1 + xi * (v - u) / sigma) ** (-1 / xi)

and its negative decimal logarithm is the common currency of all statistics: 1 means once in ten days. Cost: a few
operations a row; a sort of the history at the end of each block.

>>> import numpy as np
>>> blocks = np.random.default_rng(5).exponential(1.0, 300)
>>> tail = fitted(blocks, 300, 24.0)
>>> round(float(rarity(tail, 10.0)), 1)
2.9
>>> float(rarity(tail, 10.0)) > float(rarity(tail, 5.0)) > float(rarity(tail, 1.0))
True
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anomaly.compiled import entry, part

Floats = NDArray[np.float64]

SIZE: Final = 6
"""Fields of a tail: u, sigma, xi, -log10 of the rate a day at u, median of the history, 1 when there is a fit."""
PART_ABOVE: Final = 5
"""One block in so many lies above u."""
LEAST_ABOVE: Final = 8
RAREST: Final = 6.0
"""Decades beyond the rate at u that a tail is believed for at most."""
STRAIGHT: Final = 1e-6
"""A shape so small that the tail is exponential."""
ENDED: Final = 1e-12
"""Past the end of a tail that has one."""
BELOW_MEDIAN: Final = 1.5
"""Decades between u and the median; a straight line between, for there the order matters and not the size."""


@entry
def fitted(blocks: Floats, count: int, blocks_per_day: float) -> Floats:
    """Return the tail of the first `count` block maxima, in any order; at least three."""
    ordered = np.sort(blocks[:count])
    above = min(max(LEAST_ABOVE, count // PART_ABOVE), count - 1)
    u = ordered[count - above - 1]
    mean, weighted = 0.0, 0.0
    for place in range(above):
        excess = ordered[count - above + place] - u
        mean += excess
        if above > 1:
            weighted += excess * (above - 1 - place) / (above - 1)
    mean, weighted = mean / above, weighted / above
    xi = 0.0
    if mean - 2.0 * weighted > 0.0:
        xi = min(0.5, max(-0.3, 2.0 - mean / (mean - 2.0 * weighted)))
    sigma = max(mean * (1.0 - xi), 1e-9)
    return np.array([u, sigma, xi, -math.log10(above / count * blocks_per_day), ordered[count // 2], 1.0])


@entry
def rarity(tail: Floats, value: float) -> float:
    """Return -log10 of how many blocks a day reach `value`; below u only its order means something."""
    u, sigma, xi, at_u, middle = tail[0], tail[1], tail[2], tail[3], tail[4]
    if value <= u:
        return float(at_u - BELOW_MEDIAN * min(1.0, (u - value) / max(u - middle, 1e-9)))
    over = (value - u) / sigma
    if abs(xi) < STRAIGHT:
        decades = over / math.log(10.0)
    else:
        inside = 1.0 + xi * over
        decades = RAREST if inside <= ENDED else math.log10(inside) / xi
    return float(at_u + min(decades, RAREST))


@part
def height(tail: Floats, rare: float) -> float:
    """Return the value that is as rare as `rare` says (see `rarity`): its inverse above u, and u itself below."""
    u, sigma, xi, decades = tail[0], tail[1], tail[2], rare - tail[3]
    if decades <= 0.0:
        return float(u)
    if abs(xi) < STRAIGHT:
        return float(u + sigma * decades * math.log(10.0))
    return float(u + sigma / xi * (10.0 ** (xi * decades) - 1.0))
