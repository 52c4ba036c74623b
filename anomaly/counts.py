"""A second opinion on counts: is so much or so little still chance?

A log has dozens of kinds of lines, and what is rare comes in fits: a detector that alarms seldom for one series alarms
daily for fifty. So a count must also be beyond what counts of its own mean and spread do by chance, in the last bucket
or in the last three together:

    |sum of b counts - b m| > z sqrt(b max(v, m) + 1/2)

with m and v the running mean and variance (exponential, about `_MEMORY` buckets). At z = 4.5 a Poisson count exceeds
this about once in 100,000 buckets.

Cost: some 20 microseconds for a bucket of 200 kinds.

>>> opinion, chance = Opinion(2), np.random.default_rng(1)
>>> for _ in range(200):
...     said = opinion.step(chance.poisson((3.0, 50.0)).astype(float))
>>> opinion.step(np.array([30.0, 52.0])).tolist()
[True, False]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_Z: Final = 4.5
_MEMORY: Final = 300
_FIRST: Final = 20
"""Buckets before there is an opinion."""
_TOGETHER: Final = 3


class Opinion:
    """Running means and variances of counts, NaN where a count is not known."""

    def __init__(self, count: int) -> None:
        """Know nothing of `count` series."""
        self._seen = np.zeros(count)
        self._mean, self._variance = np.zeros(count), np.zeros(count)
        self._last = np.zeros((_TOGETHER, count))

    def step(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which counts are beyond chance, and learn from them."""
        known = np.isfinite(values)
        counts = np.where(known, values, self._mean)
        self._last = np.vstack((self._last[1:], np.where(known, counts - self._mean, 0.0)))
        spread = np.maximum(self._variance, self._mean)
        beyond = np.zeros(len(values), dtype=np.bool_)
        for together in (1, _TOGETHER):
            apart = np.abs(self._last[-together:].sum(axis=0))
            beyond |= apart > _Z * np.sqrt(together * spread + 0.5)
        beyond &= self._seen >= _FIRST
        self._learn(counts, known)
        return beyond

    def forget(self, index: int) -> None:
        """Know nothing of one series again."""
        self._seen[index] = self._mean[index] = self._variance[index] = 0.0
        self._last[:, index] = 0.0

    def save(self) -> dict[str, object]:
        """Return the state as JSON takes it."""
        return {
            "seen": self._seen.tolist(),
            "mean": self._mean.tolist(),
            "variance": self._variance.tolist(),
            "last": self._last.tolist(),
        }

    @classmethod
    def restore(cls, held: Mapping[str, Any]) -> Opinion:
        """Return what `save` kept."""
        made = cls(len(held["seen"]))
        made._seen, made._mean = np.array(held["seen"], dtype=float), np.array(held["mean"], dtype=float)
        made._variance = np.array(held["variance"], dtype=float)
        made._last = np.array(held["last"], dtype=float).reshape(_TOGETHER, len(made._seen))
        return made

    def _learn(self, counts: NDArray[np.float64], known: NDArray[np.bool_]) -> None:
        self._seen += known
        rate = np.where(known, np.maximum(1.0 / np.maximum(self._seen, 1.0), 1.0 / _MEMORY), 0.0)
        # What is far outside teaches little, so that a burst is not its own excuse.
        limit = 6 * np.sqrt(np.maximum(self._variance, self._mean) + 0.5)
        apart = counts - self._mean
        apart = np.where(self._seen > _FIRST, np.clip(apart, -limit, limit), apart)
        self._mean += rate * apart
        self._variance += rate * (apart * apart * (1 - rate) - self._variance)
