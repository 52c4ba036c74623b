"""Half-space trees of river, behind the port of the detectors: a baseline that needs a library only benches have.

Tan, Ting and Liu, "Fast anomaly detection for streaming data", IJCAI 2011. The score is half the ratio of the trees'
mass score to the largest among the values before, which fades over some thousand values: 0.5 is "as strange as any
lately".
"""

from __future__ import annotations

from typing import Any

from river.anomaly import HalfSpaceTrees as RiverTrees

from anomaly.baselines.baseline import Baseline

LAGS = 3
_FADE = 0.999


class HalfSpaceTrees(Baseline):
    def __init__(self) -> None:
        super().__init__()
        self._trees: Any = RiverTrees(n_trees=10, height=6, window_size=250, seed=7)
        self._held: list[float] = []
        self._low = self._high = 0.0
        self._largest = 0.0

    def look(self, value: float) -> tuple[float, float, float]:
        if not self._held:
            self._low = self._high = value
        low, high = self._low, self._high
        self._low, self._high = min(low, value), max(high, value)
        self._held = [*self._held, value][-LAGS:]
        span = (self._high - self._low) or 1.0
        row = {index: (one - self._low) / span for index, one in enumerate(self._held)}
        if len(row) < LAGS:
            return 0.0, low, high
        found = float(self._trees.score_one(row))
        self._trees.learn_one(row)
        score = 0.5 * found / self._largest if self._largest > 0.0 else 0.0
        self._largest = max(self._largest * _FADE, found)
        # The trees' scores are coarse: a tie with the largest is no alarm, a hundredth more is.
        return score / 1.01, low, high
