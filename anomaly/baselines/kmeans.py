"""Consensus of k-means models, as in Netdata: a value is strange when every model of the recent past says so.

    features: the last six of a series differenced once and smoothed over three
    d = distance to the nearest of two centres,   strange when d > the 99th percentile of the training distances

A new model is trained every `EVERY` values on the last `HISTORY`, the latest `MODELS` are asked, and all must agree.
The score is half the smallest ratio of d to a model's limit, so 0.5 is agreement. Netdata, "Machine learning powered
anomaly detection" (its documentation, 2022); Lloyd, "Least squares quantization in PCM", 1982.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from anomaly.baselines.baseline import Baseline

MODELS: Final = 18
EVERY: Final = 100
HISTORY: Final = 1000
LAGS: Final = 6
SMOOTH: Final = 3
_NEEDED: Final = LAGS + SMOOTH
_ROUNDS: Final = 12
_QUANTILE: Final = 0.99


class KMeansConsensus(Baseline):
    """The latest `MODELS` models of two centres each.

    >>> import numpy as np
    >>> from anomaly.baselines.kmeans import KMeansConsensus
    >>> values = np.random.default_rng(7).normal(100.0, 1.0, 1200)
    >>> values[1000] = 140.0
    >>> int(np.argmax(KMeansConsensus().run(np.arange(1200, dtype=np.int64), values).score)) in range(1000, 1010)
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[float] = []
        self._count = 0
        self._centres = np.zeros((0, 2, LAGS))
        self._limits = np.zeros(0)

    def look(self, value: float) -> tuple[float, float, float]:
        """See `Baseline.look`; the range told is that of the values the models were trained on."""
        if self._count and self._count % EVERY == 0:
            self._train()
        self._held.append(value)
        self._count += 1
        if len(self._held) > HISTORY:
            del self._held[0]
        if not len(self._limits) or len(self._held) < _NEEDED + 1:
            return 0.0, value, value
        feature = _features(np.array(self._held[-_NEEDED - 1 :]))[-1]
        nearest = np.sqrt(((self._centres - feature) ** 2).sum(axis=2)).min(axis=1)
        return float((nearest / self._limits).min()) / 2.0, self._low, self._high

    def _train(self) -> None:
        past = np.array(self._held)
        if len(past) < EVERY:
            return
        features = _features(past)
        centres = _two_centres(features)
        distances = np.sqrt(((features[:, None, :] - centres) ** 2).sum(axis=2)).min(axis=1)
        limit = max(float(np.quantile(distances, _QUANTILE)), 1e-9)
        self._centres = np.concatenate([self._centres, centres[None]])[-MODELS:]
        self._limits = np.append(self._limits, limit)[-MODELS:]
        self._low, self._high = float(past.min()), float(past.max())


def _features(values: NDArray[np.float64]) -> NDArray[np.float64]:
    steps = np.diff(values)
    smooth = np.convolve(steps, np.full(SMOOTH, 1.0 / SMOOTH), mode="valid")
    return np.lib.stride_tricks.sliding_window_view(smooth, LAGS)


def _two_centres(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centres of two clusters; begun at the least and the most active window, so that chance has no part."""
    size = (features**2).sum(axis=1)
    centres = features[[int(size.argmin()), int(size.argmax())]].copy()
    for _ in range(_ROUNDS):
        mine = ((features[:, None, :] - centres) ** 2).sum(axis=2).argmin(axis=1)
        for index in (0, 1):
            if (mine == index).any():
                centres[index] = features[mine == index].mean(axis=0)
    return centres
