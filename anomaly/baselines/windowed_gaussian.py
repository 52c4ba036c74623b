"""Windowed Gaussian: how far a value lies out in a normal distribution fitted to the window before it.

    z = |x - mean_W| / std_W,   score = -log10(erfc(z / sqrt 2)) / 10

so that 0.5 is a tail of 1e-5 on both sides (z = 4.42). The reference detector of the Numenta Anomaly Benchmark (Lavin
and Ahmad, "Evaluating real-time anomaly detection algorithms", ICMLA 2015). O(1) a value by running sums.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from anomaly.baselines.baseline import Baseline

WINDOW: Final = 6400
_LIMIT: Final = 4.417
"""Standard deviations at a tail of 1e-5."""


class WindowedGaussian(Baseline):
    """A normal distribution over the last `WINDOW` values.

    >>> import numpy as np
    >>> from anomaly.baselines.windowed_gaussian import WindowedGaussian
    >>> values = np.random.default_rng(7).normal(100.0, 5.0, 500)
    >>> values[400] = 160.0
    >>> scores = WindowedGaussian().run(np.arange(500, dtype=np.int64), values)
    >>> np.flatnonzero(scores.alert).tolist()
    [400]
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: deque[float] = deque()
        self._origin = 0.0
        self._sum = 0.0
        self._squares = 0.0

    def look(self, value: float) -> tuple[float, float, float]:
        """See `Baseline.look`."""
        if not self._held:
            self._origin = value  # sums of small numbers: a large level would eat the digits of the spread
        count = len(self._held)
        mean = self._sum / count if count else 0.0
        spread = math.sqrt(max(0.0, self._squares / count - mean * mean)) if count else 0.0
        away = value - self._origin
        middle = self._origin + mean
        score = _surprise(abs(away - mean), spread)
        self._held.append(away)
        self._sum += away
        self._squares += away * away
        if len(self._held) > WINDOW:
            old = self._held.popleft()
            self._sum -= old
            self._squares -= old * old
        return score, middle - _LIMIT * spread, middle + _LIMIT * spread


def _surprise(distance: float, spread: float) -> float:
    if spread <= 0.0:
        return 1.0 if distance > 0.0 else 0.0
    tail = math.erfc(distance / spread / math.sqrt(2.0))
    return 1.0 if tail <= 0.0 else -math.log10(tail) / 10.0
