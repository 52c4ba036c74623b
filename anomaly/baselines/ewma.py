"""EWMA with a band of three sigma: the band of most monitoring systems that have one.

    m' = m + L (x - m),   v' = (1 - L) (v + L (x - m)^2),   score = |x - m| / (6 sqrt v)

so that 0.5 is three sigma. Roberts, "Control chart tests based on geometric moving averages", Technometrics 1959, with
the variance of Finch's "Incremental calculation of weighted mean and variance" (2009). O(1) a value.
"""

from __future__ import annotations

import math
from typing import Final

from anomaly.baselines.baseline import Baseline

WEIGHT: Final = 0.02
"""L: a memory of some fifty values."""
_LIMIT: Final = 3.0


class Ewma(Baseline):
    """A moving mean and variance.

    >>> import numpy as np
    >>> from anomaly.baselines.ewma import Ewma
    >>> values = np.random.default_rng(7).normal(100.0, 5.0, 300)
    >>> values[200] = 160.0
    >>> int(np.argmax(Ewma().run(np.arange(300, dtype=np.int64), values).score))
    200
    """

    def __init__(self) -> None:
        super().__init__()
        self._mean: float | None = None
        self._variance = 0.0

    def look(self, value: float) -> tuple[float, float, float]:
        """See `Baseline.look`."""
        if self._mean is None:
            self._mean = value
        mean, sigma = self._mean, math.sqrt(self._variance)
        away = value - mean
        score = abs(away) / (2.0 * _LIMIT * sigma) if sigma > 0.0 else float(away != 0.0)
        self._mean += WEIGHT * away
        self._variance = (1.0 - WEIGHT) * (self._variance + WEIGHT * away * away)
        return score, mean - _LIMIT * sigma, mean + _LIMIT * sigma
