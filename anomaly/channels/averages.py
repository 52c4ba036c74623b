"""Running averages: what the value was over a few minutes, an hour and a day, and how far it strays from them.

Formula: m <- m + a (x - m) with a = 1/k at the k-th row until it reaches 1/span (spans of 6, 12, 24 and 288 rows).
The day's average learns from a deviation clipped at four times the usual one, so that an outage is not taken for the
new normal.

Channels made of it: **novelty** (x and the average of 6 beyond their records), **level** (the average of 24),
**drift** (the average of 6 less that of 288), **spike** (x less the average of 12).

Paper: S. W. Roberts, Control chart tests based on geometric moving averages, Technometrics 1 (1959).
Cost: about 10 ns a row.

>>> import numpy as np
>>> state = np.zeros(1, AVERAGES)[0]
>>> for x in np.random.default_rng(7).normal(10.0, 1.0, 500): step(state, x)
>>> round(float(state["hour"]), 3), round(float(state["strays"]), 3)
(9.672, 0.788)
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from anomaly.compiled import part

AVERAGES: Final = np.dtype(
    [
        ("rows", "i8"),
        ("short", "f8"),
        ("quarter", "f8"),
        ("hour", "f8"),
        ("day", "f8"),
        ("strays", "f8"),
        ("strays_day", "f8"),
    ],
    align=True,
)
"""Averages over 6, 12, 24 and 288 rows, and the usual distances of a value from those of 12 and 288."""


@part
def step(state: Any, value: float) -> None:
    """Take a value into the averages."""
    if state.rows == 0:
        state.short = state.quarter = state.hour = state.day = value
    state.rows += 1
    least = 1.0 / state.rows
    stray, stray_day = value - state.quarter, value - state.day
    young = state.rows < 50
    state.short += max(1 / 6, least) * (value - state.short)
    state.quarter += max(1 / 12, least) * stray
    state.hour += max(1 / 24, least) * (value - state.hour)
    most = 1e300 if young else 4 * max(state.strays_day, state.strays)
    state.day += max(1 / 288, least) * min(max(stray_day, -most), most)
    most = 1e300 if young else 6 * state.strays
    state.strays += max(1 / 200, least) * (min(abs(stray), most + 1e-300) - state.strays)
    most = 1e300 if young else 6 * state.strays_day
    state.strays_day += max(1 / 200, least) * (min(abs(stray_day), most + 1e-300) - state.strays_day)
