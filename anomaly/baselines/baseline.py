"""What the baselines share: from a strangeness per value to scores, alerts and episodes.

A baseline says how strange a value is, 0 to 1 with 0.5 as its own usual limit, and what it would have expected. It
pages on the first row of a run of strange ones; the run is over after `CALM` rows below the limit. A missed value is
left aside: it neither counts as calm nor as strange.
"""

from __future__ import annotations

import abc
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import THRESHOLD, Channel, Finding, Sample, Score, Scores, Verdict
from kernel.time import Instant

CALM: Final = 5
"""Rows below the limit after which a further strange value is a new alarm."""
WARM_UP: Final = 100
"""Values before the first that may be called strange, the same for every baseline."""


class Baseline(abc.ABC):
    """A detector of one series by one well-known method."""

    def __init__(self) -> None:
        self._seen = 0
        self._calm = CALM
        self._strange = 0.0

    @abc.abstractmethod
    def look(self, value: float) -> tuple[float, float, float]:
        """Return how strange a finite value is (0 to 1), and the range expected for it; then learn from it."""

    def update(self, sample: Sample) -> Score:
        """See `Detector.update`."""
        if sample.missed:
            return Score(
                sample.at, 0.0, alert=False, episode=self._calm < CALM, channel=Channel.NONE, low=math.nan,
                high=math.nan, verdict=Verdict.MISSED,
            )  # fmt: skip
        score, low, high = self.look(sample.value)
        self._seen += 1
        warm = self._seen > WARM_UP
        score = min(1.0, max(0.0, score)) if warm else 0.0
        strange = score >= THRESHOLD
        alert = strange and self._calm >= CALM
        self._calm = 0 if strange else min(CALM, self._calm + 1)
        finding = None
        if strange:
            sentence = f"{sample.value:g}, expected {low:g} to {high:g}"
            finding = Finding(sample.at, Channel.SPIKE, sample.value, low, high, sentence)
        return Score(
            sample.at, score, alert=alert, episode=self._calm < CALM, low=low, high=high, finding=finding,
            channel=Channel.SPIKE if strange else Channel.NONE, verdict=Verdict.SCORED if warm else Verdict.WARMING,
        )  # fmt: skip

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64], slots: NDArray[np.int32] | None = None) -> Scores:
        """Score many rows in order, as `update` would one by one; a baseline does not look at `slots`."""
        del slots
        rows = [
            self.update(Sample(Instant(when), value)) for when, value in zip(at.tolist(), values.tolist(), strict=True)
        ]
        return Scores(
            score=np.array([row.score for row in rows], dtype=np.float64),
            alert=np.array([row.alert for row in rows], dtype=np.bool_),
            episode=np.array([row.episode for row in rows], dtype=np.bool_),
            channel=np.array([row.channel for row in rows], dtype=np.int8),
            low=np.array([row.low for row in rows], dtype=np.float64),
            high=np.array([row.high for row in rows], dtype=np.float64),
            verdict=np.array([row.verdict for row in rows], dtype=np.int8),
        )
