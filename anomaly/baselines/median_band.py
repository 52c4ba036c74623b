"""Median and MAD: a band of three robust standard deviations round the median of the window before a value.

    score = |x - median_W| / (6 * 1.4826 * MAD_W)

so that 0.5 is three. Hampel, "The influence curve and its role in robust estimation", JASA 1974; Leys and others,
"Detecting outliers: do not use standard deviation around the mean", 2013. O(W) a value.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from anomaly.baselines.baseline import Baseline

WINDOW: Final = 288
_SIGMA: Final = 1.4826
"""Of a normal distribution, the standard deviation in units of the MAD."""
_LIMIT: Final = 3.0


class MedianBand(Baseline):
    """The last `WINDOW` values, their median and the median of the distances from it.

    >>> import numpy as np
    >>> from anomaly.baselines.median_band import MedianBand
    >>> values = np.random.default_rng(7).normal(100.0, 5.0, 300)
    >>> values[200] = 160.0
    >>> int(np.argmax(MedianBand().run(np.arange(300, dtype=np.int64), values).score))
    200
    """

    def __init__(self) -> None:
        super().__init__()
        self._ring = np.zeros(WINDOW)
        self._count = 0

    def look(self, value: float) -> tuple[float, float, float]:
        """See `Baseline.look`."""
        held = self._ring[: min(self._count, WINDOW)]
        middle, sigma = value, 0.0
        if len(held):
            half = len(held) // 2
            middle = float(np.partition(held, half)[half])
            sigma = _SIGMA * float(np.partition(np.abs(held - middle), half)[half])
        away = abs(value - middle)
        score = away / (2.0 * _LIMIT * sigma) if sigma > 0.0 else float(away > 0.0)
        self._ring[self._count % WINDOW] = value
        self._count += 1
        return score, middle - _LIMIT * sigma, middle + _LIMIT * sigma
