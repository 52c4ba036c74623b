"""The last value: a step is strange when it is large beside the steps before.

    score = |x_t - x_(t-1)| / (6 * 1.2533 * mean |x_i - x_(i-1)|)

so that 0.5 is three standard deviations of a normal step. The naive forecast that Hyndman and Koehler ("Another look at
measures of forecast accuracy", 2006) measure all others by. O(1) a value.
"""

from __future__ import annotations

import math
from typing import Final

from anomaly.baselines.baseline import Baseline

WEIGHT: Final = 0.01
_SIGMA: Final = math.sqrt(math.pi / 2.0)
"""Of a normal distribution, the standard deviation in units of the mean distance."""
_LIMIT: Final = 3.0


class LastValue(Baseline):
    """The value before, and a moving mean of the steps.

    >>> import numpy as np
    >>> from anomaly.baselines.last_value import LastValue
    >>> values = np.random.default_rng(7).normal(100.0, 1.0, 300).cumsum()
    >>> values[200:] += 2000.0
    >>> int(np.argmax(LastValue().run(np.arange(300, dtype=np.int64), values).score))
    200
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: float | None = None
        self._step = 0.0

    def look(self, value: float) -> tuple[float, float, float]:
        """See `Baseline.look`."""
        last = value if self._last is None else self._last
        step = abs(value - last)
        reach = _LIMIT * _SIGMA * self._step
        score = step / (2.0 * reach) if reach > 0.0 else float(step > 0.0)
        self._last = value
        self._step += WEIGHT * (step - self._step) if self._step > 0.0 else step
        return score, last - reach, last + reach
