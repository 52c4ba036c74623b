"""Flatline: a series that always moved stands still. A frozen exporter repeats its last value and looks healthy.

Formula: rows in a row with the very same value, over the longest such run before (at least 4); a run of ten rows is
needed. Rest at the lowest value, as of a counter of events at night, is not standing still. The longest run fades by
a hundredth with each run that is longer than half of it, so one long night is not for ever.

Paper: the run rule of W. A. Shewhart's control charts; Western Electric, Statistical Quality Control Handbook (1956).
Cost: a few ns a row.

>>> import numpy as np
>>> state = np.zeros(1, FLATLINE)[0]
>>> for x in np.random.default_rng(7).normal(0.0, 1.0, 400): _ = step(state, x)
>>> [round(float(step(state, 1.5)), 2) for _ in range(20)][-1]
4.75
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from anomaly.compiled import part

LEAST_RUN: Final = 10
LEARNS: Final = 300
"""Rows in which a run that goes on already counts as seen before."""

FLATLINE: Final = np.dtype([("last", "f8"), ("run", "i8"), ("longest", "f8"), ("rows", "i8")], align=True)


@part
def step(state: Any, value: float) -> float:
    """Take a value; returns the length of the present run over the longest before, 0 below ten rows."""
    state.rows += 1
    if state.rows > 1 and value == state.last:
        state.run += 1
        if state.rows < LEARNS:
            state.longest = max(state.longest, float(state.run))
    else:
        if state.run > state.longest:
            state.longest = state.run
        elif 2 * state.run > state.longest:
            state.longest *= 0.99
        state.run = 0
    state.last = value
    return state.run / max(state.longest, 4.0) if state.run >= LEAST_RUN else 0.0
