"""The score: how strange a row is, so that strange rows of a series rank above its usual ones, whatever their time.

Formula: with u the surprises of the ten channels (`anomaly.tail`), v how many of the voting channels lie beyond their
record, z how far the value lies from the mean of two weeks in their standard deviations, and g the length of a run of
the very same value over the longest before,

    f = sum u^2 (1 + min(z, 8))
    r = f min(v / 3, 1) / 2 + slow + 60 min(g, 10),     slow <- slow + (min(f, 200) - slow) / 36

so that what is plain shows in its own row, what is faint shows when it goes on, and one wild row leaves no long tail.
The squares let one channel that is sure outweigh ten that are not; z remembers a long anomaly for longer than the
channels do, which soon know it. Where a season is confirmed z is at most half the same clock's u: a night is
far from the mean, and no news. r is 100 in about one row of a hundred, which is a score of 1/2.

Paper: the fast part after W. A. Shewhart's chart, the slow one after S. W. Roberts, Control chart tests based on
geometric moving averages, Technometrics 1 (1959); both together: J. M. Lucas, Combined Shewhart-CUSUM quality control
schemes, Journal of Quality Technology 14 (1982).
Cost: some 20 ns a row.

>>> import numpy as np
>>> state, usual = np.zeros(1, STRANGENESS)[0], np.full(10, 0.5)
>>> for x in np.random.default_rng(7).normal(10.0, 1.0, 500): calm = step(state, x, usual, 0, 0.0, 4032.0)
>>> odd = step(state, 20.0, np.full(10, 4.0), 3, 0.0, 4032.0)
>>> round(calm, 1), round(odd, 1)
(3.1, 248.5)
>>> round(score(calm, 0), 3), round(score(odd, 1), 3), round(score(odd, 0), 3)
(0.015, 0.799, 0.497)
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from anomaly.compiled import part

STRANGENESS: Final = np.dtype([("rows", "i8"), ("mean", "f8"), ("variance", "f8"), ("slow", "f8")], align=True)

HALF: Final = 100.0
"""The strangeness whose score is 1/2."""
_CHANNELS: Final = 10
_CLOCK: Final = 6
"""The place of the same clock's surprise, which is 0 where no season is confirmed."""
_FAST: Final = 0.5
_AGREED: Final = 3
_SLOW: Final = 36
_MOST: Final = 200.0
_FLAT: Final = 60.0
_YOUNG: Final = 20
_OUTSIDE: Final = 0.9
"""The share of `HALF` up to which a score is the same outside an episode; above it is pressed together below 1/2."""


@part
def step(state: Any, value: float, surprise: Any, beyond: int, stood: float, memory: float) -> float:
    """Take a row; returns how strange it is, 0 or more.

    The first ten numbers of `surprise` are the channels'; `beyond` counts the voting channels beyond their record,
    `stood` is a run's length over the longest before, `memory` the rows over which mean and variance forget.
    """
    away = value - state.mean
    far = 0.0
    if state.rows > _YOUNG and state.variance > 0:
        far = min(abs(away) / math.sqrt(state.variance), 8.0)
    if surprise[_CLOCK] > 0:
        far = min(far, surprise[_CLOCK] / 2)
    state.rows += 1
    share = max(1.0 / state.rows, 1.0 / memory)
    state.mean += share * away
    state.variance = (1 - share) * (state.variance + share * away * away)
    now = 0.0
    for j in range(_CHANNELS):
        now += surprise[j] * surprise[j]
    now *= 1 + far
    state.slow += (min(now, _MOST) - state.slow) / _SLOW
    return float(_FAST * min(beyond / _AGREED, 1.0) * now + state.slow + _FLAT * min(stood, 10.0))


@part
def score(strangeness: float, episode: int) -> float:
    """Return the score, 0 to 1: rising with strangeness, and at or above 1/2 only where `episode` is 1."""
    times = strangeness / HALF
    if episode == 1:
        return 1 - 0.5 / times if times >= 1 else 0.5 * times
    if times > _OUTSIDE:
        over, room = times - _OUTSIDE, 1 - _OUTSIDE
        times = _OUTSIDE + room * over / (over + room)
    return 0.5 * times
