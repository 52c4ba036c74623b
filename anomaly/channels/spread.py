"""Spread: the series has become restless; its deviations are larger than they were, whatever its level.

Formula: log(f / s), where f and s are averages over 12 and 400 rows of |x - average of 6 rows|; s learns from f
clipped at four times itself.

Paper: EWMA of dispersion, J. F. MacGregor, T. J. Harris, The exponentially weighted moving variance, Journal of
Quality Technology 25 (1993).
Cost: about 15 ns a row.

>>> import numpy as np
>>> state, rng = np.zeros(1, SPREAD)[0], np.random.default_rng(7)
>>> calm = [step(state, r) for r in rng.normal(0.0, 1.0, 500)]
>>> wild = [step(state, r) for r in rng.normal(0.0, 5.0, 20)]
>>> round(float(calm[-1]), 3), round(float(wild[-1]), 3)
(0.358, 1.245)
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from anomaly.compiled import part

SPREAD: Final = np.dtype([("rows", "i8"), ("fast", "f8"), ("slow", "f8")], align=True)


@part
def step(state: Any, deviation: float) -> float:
    """Take the deviation from the short average; returns the logarithm of fast over slow spread."""
    state.rows += 1
    least = 1.0 / state.rows
    state.fast += max(1 / 12, least) * (abs(deviation) - state.fast)
    floor = 1e-9 * abs(state.slow) + 1e-12
    ratio = math.log((state.fast + floor) / (state.slow + floor)) if state.rows > 24 else 0.0
    most = state.fast if state.rows < 50 else min(state.fast, 4 * state.slow + floor)
    state.slow += max(1 / 400, least) * (most - state.slow)
    return ratio
