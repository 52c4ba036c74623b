"""An isolation forest over windows of lags or rows of a machine, fitted by the hour off the hot path.

Liu, Ting and Zhou 2008, "Isolation Forest": a row that few random cuts set apart is strange, 2 ** (-depth / c(n)) with
the mean depth over the trees. scikit-learn grows the trees; what is kept of them is plain arrays and a pure function,
so that scoring holds no lock, reads no state and costs trees x depth steps a row. The same rows and seed grow the same
trees.

>>> import numpy as np
>>> rows = np.random.default_rng(1).normal(size=(500, 3))
>>> trees = grown(rows, seed=4)
>>> usual, strange = strangeness(trees, np.array([[0.0, 0.0, 0.0], [6.0, -6.0, 6.0]]))
>>> bool(usual < 0.5 < strange)
True
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest  # type: ignore[import-untyped]

from anomaly.compiled import entry
from kernel.time import HOUR, Duration, Instant

Floats = NDArray[np.float64]

TREES: Final = 100
SAMPLE: Final = 256
"""Rows a tree is grown on."""
MOST_ROWS: Final = 4096
"""Rows a fit looks at; the latest ones, which bounds its time to about a second."""
LEAST_ROWS: Final = 64
_EULER: Final = 0.5772156649015329
_PAIR: Final = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Trees:
    """A grown forest: the nodes of all trees one after another. `left` is -1 at a leaf, where `depth` counts."""

    roots: NDArray[np.int64]
    column: NDArray[np.int64]
    cut: Floats
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    depth: Floats
    usual: float


def lagged(values: Floats, lags: int) -> Floats:
    """Return the windows of `lags` successive values, oldest first, one a row; those with a missing value left out."""
    if len(values) < lags:
        return np.zeros((0, lags))
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(values, dtype=np.float64), lags)
    return np.ascontiguousarray(windows[np.isfinite(windows).all(axis=1)])


def grown(rows: Floats, seed: int, trees: int = TREES) -> Trees:
    """Grow a forest on the latest rows; rows with a missing value are left out.

    Raises:
        ValueError: fewer than 64 whole rows.
    """
    whole = rows[np.isfinite(rows).all(axis=1)][-MOST_ROWS:]
    if len(whole) < LEAST_ROWS:
        raise ValueError(f"a forest grows on at least {LEAST_ROWS} whole rows, not {len(whole)}")
    sample = min(SAMPLE, len(whole))
    found = IsolationForest(n_estimators=trees, max_samples=sample, random_state=seed, n_jobs=1).fit(whole)
    parts: list[tuple[NDArray[np.int64], Floats, NDArray[np.int64], NDArray[np.int64], Floats]] = []
    roots, base = [], 0
    for each in found.estimators_:
        tree = each.tree_
        leaf = tree.children_left < 0
        deep = np.zeros(tree.node_count)
        for node in np.flatnonzero(~leaf).tolist():  # a parent comes before its children
            deep[[tree.children_left[node], tree.children_right[node]]] = deep[node] + 1
        deep += np.array([_usual_depth(count) for count in tree.n_node_samples.tolist()])
        left, right = (np.where(leaf, -1, side + base) for side in (tree.children_left, tree.children_right))
        parts.append((tree.feature.astype(np.int64), tree.threshold.astype(np.float64), left, right, deep))
        roots.append(base)
        base += tree.node_count
    column, cut, lefts, rights, depth = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Trees(
        np.array(roots, dtype=np.int64), column, cut, lefts.astype(np.int64), rights.astype(np.int64), depth,
        _usual_depth(sample),
    )  # fmt: skip


def strangeness(trees: Trees, rows: Floats) -> Floats:
    """Return how strange each row is, 0 to 1, about 0.5 for a usual one; 0 for a row with a missing value."""
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    out: Floats = _walk(trees.roots, trees.column, trees.cut, (trees.left, trees.right), trees.depth, trees.usual, rows)
    return out


@entry
def _walk(
    roots: NDArray[np.int64], column: NDArray[np.int64], cut: Floats,
    sides: tuple[NDArray[np.int64], NDArray[np.int64]], depth: Floats, usual: float, rows: Floats,
) -> Floats:  # fmt: skip
    out = np.zeros(len(rows))
    for row in range(len(rows)):
        if not np.all(np.isfinite(rows[row])):
            continue
        total = 0.0
        for root in roots:
            node = root
            while sides[0][node] >= 0:
                # the trees were grown on single precision, and so they are asked
                goes_left = np.float32(rows[row, column[node]]) <= cut[node]
                node = sides[0][node] if goes_left else sides[1][node]
            total += depth[node]
        out[row] = 2.0 ** (-total / len(roots) / usual)
    return out


def _usual_depth(count: int) -> float:
    """Return c(n): the mean depth of a search that fails among `count` rows."""
    if count <= 1:
        return 0.0
    if count == _PAIR:
        return 1.0
    return 2.0 * (math.log(count - 1.0) + _EULER) - 2.0 * (count - 1.0) / count


class Forest:
    """A forest that is grown again by the hour: the caller asks `due` and runs `refit` where it holds up nothing."""

    def __init__(self, seed: int, every: Duration = HOUR) -> None:
        self._seed, self._every, self._grown_at = seed, every, Instant(0)
        self._trees: Trees | None = None

    def due(self, at: Instant) -> bool:
        """Say whether the forest is to be grown (again)."""
        return self._trees is None or at - self._grown_at >= self._every

    def refit(self, at: Instant, rows: Floats) -> None:
        """Grow the forest on the rows seen until `at`; with too few it stays as it was."""
        if len(rows) >= LEAST_ROWS and int(np.isfinite(rows).all(axis=1).sum()) >= LEAST_ROWS:
            self._trees = grown(rows, self._seed)
            self._grown_at = at

    def strangeness(self, rows: Floats) -> Floats:
        """Return how strange each row is; 0 for all until the forest was grown."""
        return np.zeros(len(rows)) if self._trees is None else strangeness(self._trees, rows)
