"""Shape: the last sixteen values are no mixture of the few patterns that the series is made of (Sub-PCA on its past).

Formula: the norm of the part of the window (less its mean window) that the leading principal components do not
explain; covariance and mean fade over 2,000 rows, the components are found anew every 288 rows from the past only.

Paper: P. Boniol, Q. Liu, M. Huang, T. Palpanas, J. Paparrizos: Dive into time-series anomaly detection,
arXiv:2412.20512 (Sub-PCA).
Cost: about 0.3 us a row.

>>> import numpy as np
>>> state = np.zeros(1, SHAPE)[0]
>>> usual = [step(state, x) for x in np.sin(np.arange(600) / 3.0)]
>>> odd = [step(state, x) for x in np.sin(np.arange(600, 616) / 0.9)]
>>> bool(max(odd) > 10 * max(usual[400:]))
True
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from anomaly.compiled import part

WINDOW: Final = 16
KEPT: Final = 5
EVERY: Final = 288
FIRST: Final = 96

SHAPE: Final = np.dtype(
    [
        ("rows", "i8"),
        ("last", "f8", (WINDOW,)),
        ("mean", "f8", (WINDOW,)),
        ("covariance", "f8", (WINDOW, WINDOW)),
        ("component", "f8", (KEPT, WINDOW)),
        ("kept", "i8"),
    ],
    align=True,
)


@part
def step(state: Any, value: float) -> float:
    """Take a value; returns the unexplained part of the window, in the series' unit (0 until there are components)."""
    last, mean, covariance, component = state.last, state.mean, state.covariance, state.component
    for i in range(WINDOW - 1):
        last[i] = last[i + 1]
    last[WINDOW - 1] = value
    state.rows += 1
    windows = state.rows - WINDOW + 1
    if windows < 1:
        return 0.0
    rest = 0.0
    for i in range(WINDOW):
        rest += (last[i] - mean[i]) ** 2
    for k in range(state.kept):
        along = 0.0
        for i in range(WINDOW):
            along += (last[i] - mean[i]) * component[k, i]
        rest -= along * along
    share = max(1.0 / windows, 1 / 2000)
    for i in range(WINDOW):
        for j in range(i + 1):
            covariance[i, j] += share * ((last[i] - mean[i]) * (last[j] - mean[j]) - covariance[i, j])
    for i in range(WINDOW):
        mean[i] += share * (last[i] - mean[i])
    explained = state.kept > 0
    if windows == FIRST or (windows > FIRST and windows % EVERY == 0):
        _refit(state)
    return math.sqrt(max(rest, 0.0) / WINDOW) if explained else 0.0


@part
def _refit(state: Any) -> None:
    """Find the components that explain nine tenths of the variance, at most five."""
    whole = np.empty((WINDOW, WINDOW))
    for i in range(WINDOW):
        for j in range(i + 1):
            whole[i, j] = whole[j, i] = state.covariance[i, j]
    variance, vector = np.linalg.eigh(whole)
    total, kept = max(variance.sum(), 1e-300), 0
    explained = 0.0
    while kept < KEPT and explained < 0.9 * total:
        place = WINDOW - 1 - kept
        explained += variance[place]
        for i in range(WINDOW):
            state.component[kept, i] = vector[i, place]
        kept += 1
    state.kept = kept
