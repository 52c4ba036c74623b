"""Isolation forest on lags: how few random cuts it takes to isolate the last eight values from the windows before them.

    s = 2^(-E[path] / c(n)),   score = 0.5 * (s - 0.4) / (s_max - 0.4)

where s_max is the largest s of the windows the forest was grown from, so that 0.5 is "stranger than all of them".
Liu, Ting and Zhou, "Isolation forest", ICDM 2008. Grown anew every `REFIT` values from the last `HISTORY`; the trees of
scikit-learn are then walked by compiled code, some 10 us a value.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest  # type: ignore[import-untyped]

from anomaly.baselines.baseline import Baseline

LAGS: Final = 8
HISTORY: Final = 1000
REFIT: Final = 500
TREES: Final = 50
_SAMPLES: Final = 256
_FLOOR: Final = 0.4
"""Scores of the most ordinary windows lie about here."""
_SEED: Final = 7


class IsolationForestOnLags(Baseline):
    """A forest over windows of `LAGS` values.

    >>> import numpy as np
    >>> from anomaly.baselines.isolation_forest import IsolationForestOnLags
    >>> values = np.sin(np.arange(700) / 8.0) + np.random.default_rng(7).normal(0.0, 0.05, 700)
    >>> values[600] = 5.0
    >>> scores = IsolationForestOnLags().run(np.arange(700, dtype=np.int64), values)
    >>> 600 in np.flatnonzero(scores.alert), int(np.argmax(scores.score)) in range(600, 600 + 8)
    (True, True)
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[float] = []
        self._since = 0
        self._trees: _Trees | None = None
        self._largest = 1.0

    def look(self, value: float) -> tuple[float, float, float]:
        """See `Baseline.look`; a forest knows no range, so the one told is that of the values it was grown from."""
        if (self._trees is None and len(self._held) >= 10 * LAGS) or self._since >= REFIT:
            self._grow()
        self._held.append(value)
        self._since += 1
        if len(self._held) > HISTORY:
            del self._held[0]
        if self._trees is None:
            return 0.0, value, value
        found = self._trees.score(np.array([self._held[-LAGS:]]))[0]
        score = 0.5 * (found - _FLOOR) / max(self._largest - _FLOOR, 0.01)
        return float(score), self._low, self._high

    def _grow(self) -> None:
        past = np.array(self._held)
        windows = np.lib.stride_tricks.sliding_window_view(past, LAGS)
        forest = IsolationForest(n_estimators=TREES, max_samples=min(_SAMPLES, len(windows)), random_state=_SEED)
        self._trees = _Trees(forest.fit(windows))
        self._largest = float(self._trees.score(windows).max())
        self._low, self._high = float(past.min()), float(past.max())
        self._since = 0


class _Trees:
    """A grown forest as flat arrays."""

    def __init__(self, forest: IsolationForest) -> None:
        trees = [one.tree_ for one in forest.estimators_]
        starts = np.cumsum([0, *(tree.node_count for tree in trees)])
        self._roots = starts[:-1].astype(np.int64)
        self._feature = np.concatenate([tree.feature for tree in trees]).astype(np.int64)
        self._cut = np.concatenate([tree.threshold for tree in trees])
        self._left, self._right = (
            np.concatenate([getattr(tree, side) + start for tree, start in zip(trees, starts[:-1], strict=True)])
            for side in ("children_left", "children_right")
        )
        sizes = np.concatenate([tree.n_node_samples for tree in trees]).astype(np.float64)
        self._rest = _average(sizes)
        self._usual = float(_average(np.array([float(forest.max_samples_)]))[0])

    def score(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        depth = _depths(
            np.ascontiguousarray(windows, dtype=np.float32), self._roots, self._feature, self._cut, self._left,
            self._right, self._rest,
        )  # fmt: skip
        found: NDArray[np.float64] = 2.0 ** (-depth / self._usual)
        return found


def _average(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return c(n): the average path of an unsuccessful search among n."""
    found = np.zeros(len(sizes))
    found[sizes == 2] = 1.0  # noqa: PLR2004 - two take one cut
    many = sizes > 2  # noqa: PLR2004 - as above
    found[many] = 2.0 * (np.log(sizes[many] - 1.0) + np.euler_gamma) - 2.0 * (sizes[many] - 1.0) / sizes[many]
    return found


@numba.njit(cache=True)
def _depths(
    windows: NDArray[np.float32], roots: NDArray[np.int64], feature: NDArray[np.int64], cut: NDArray[np.float64],
    left: NDArray[np.int64], right: NDArray[np.int64], rest: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    found = np.zeros(windows.shape[0])
    for row in range(windows.shape[0]):
        total = 0.0
        for root in roots:
            node, depth = root, 0.0
            while feature[node] >= 0:
                node = left[node] if windows[row, feature[node]] <= cut[node] else right[node]
                depth += 1.0
            total += depth + rest[node]
        found[row] = total / len(roots)
    return found
