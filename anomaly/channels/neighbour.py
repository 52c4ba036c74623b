"""Neighbour: the last eight values look like nothing seen before, wherever their level and order came from.

Formula: the L1 distance from the last 8 values to the nearest of 96 remembered stretches (every seventh or eighth row
is remembered, the oldest forgotten), over its usual value.

Paper: E. Burnaev, V. Ishimtsev: Conformalized density- and distance-based anomaly detection in time-series data,
arXiv:1608.04585 (KNN-CAD).
Cost: about 0.7 us a row.

>>> import numpy as np
>>> state = np.zeros(1, NEIGHBOUR)[0]
>>> wave = np.sin(np.arange(800) / 2.5)
>>> usual = [step(state, x, 0.1) for x in wave]
>>> odd = [step(state, x, 0.1) for x in (1.0, -1.0, 1.0, -1.0, 1.0, -1.0)]
>>> bool(max(odd) > 3 * max(usual[400:]))
True
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from anomaly.compiled import part

LENGTH: Final = 8
REMEMBERED: Final = 96
PACE: Final = 0.1318
"""Share of rows whose stretch is remembered: no simple fraction, so that every phase of a period has its turn."""

NEIGHBOUR: Final = np.dtype(
    [
        ("rows", "i8"),
        ("last", "f8", (LENGTH,)),
        ("memory", "f8", (REMEMBERED, LENGTH)),
        ("held", "i8"),
        ("usual", "f8"),
    ],
    align=True,
)


@part
def step(state: Any, value: float, floor: float) -> float:
    """Take a value; returns the distance to the nearest remembered stretch over the usual one (0 while it learns)."""
    last = state.last
    for i in range(LENGTH - 1):
        last[i] = last[i + 1]
    last[LENGTH - 1] = value
    state.rows += 1
    if state.rows < LENGTH:
        return 0.0
    held = min(state.held, REMEMBERED)
    nearest = 1e300
    memory = state.memory
    for j in range(held):
        distance = 0.0
        for i in range(LENGTH - 1, -1, -1):  # the newest first: it tells most of them apart
            distance += abs(last[i] - memory[j, i])
            if distance >= nearest:
                break
        nearest = min(nearest, distance)
    ratio = 0.0
    if held > 20:
        ratio = nearest / (state.usual + floor)
    if held > 0:
        most = nearest if held < 60 else min(nearest, 6 * state.usual + floor)
        state.usual += max(1 / 400, 1.0 / (held + 1)) * (most - state.usual)
    if int((state.rows + 1) * PACE) != int(state.rows * PACE):
        slot = state.held % REMEMBERED
        for i in range(LENGTH):
            memory[slot, i] = last[i]
        state.held += 1
    return ratio
