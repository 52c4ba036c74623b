"""The isolation forest scores as scikit-learn's, by a pure function, and is grown only when due."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest  # type: ignore[import-untyped]

from anomaly.forest import Forest, grown, lagged, strangeness
from kernel.time import HOUR, MINUTE, Instant

ROWS = np.random.default_rng(5).normal(size=(600, 4))


def test_scores_are_those_of_the_library():
    theirs = IsolationForest(n_estimators=20, max_samples=256, random_state=3).fit(ROWS)
    asked = np.random.default_rng(6).normal(size=(50, 4)) * 3
    assert strangeness(grown(ROWS, 3, trees=20), asked) == pytest.approx(-theirs.score_samples(asked), abs=1e-9)


def test_the_same_seed_grows_the_same_trees_and_another_others():
    one, two, other = (grown(ROWS, seed, trees=5) for seed in (1, 1, 2))
    assert one.cut.tobytes() == two.cut.tobytes()
    assert one.cut.tobytes() != other.cut.tobytes()


def test_rows_with_a_missing_value_are_left_out_and_too_few_are_refused():
    holes = ROWS.copy()
    holes[::2, 1] = np.nan
    trees = grown(holes, 1, trees=5)
    assert trees.cut.tobytes() == grown(ROWS[1::2], 1, trees=5).cut.tobytes()
    assert strangeness(trees, np.array([[np.nan, 0, 0, 0]])).tolist() == [0.0]
    with pytest.raises(ValueError, match="at least 64 whole rows, not 10"):
        grown(ROWS[:10], 1)


def test_windows_of_lags_leave_out_those_with_a_gap():
    assert lagged(np.array([1.0, 2.0, 3.0, np.nan, 5.0, 6.0]), 2).tolist() == [[1, 2], [2, 3], [5, 6]]
    assert lagged(np.array([1.0]), 3).shape == (0, 3)


def test_it_is_due_at_first_and_then_by_the_hour():
    forest, start = Forest(seed=1), Instant(10**18)
    assert forest.due(start)
    assert forest.strangeness(ROWS[:3]).tolist() == [0.0, 0.0, 0.0]
    forest.refit(start, ROWS[:10])
    assert forest.due(start), "too few rows grow nothing"
    forest.refit(start, ROWS)
    assert not forest.due(Instant(start + 59 * MINUTE))
    assert forest.due(Instant(start + HOUR))
    usual, strange = forest.strangeness(np.array([[0.0] * 4, [9.0, -9.0, 9.0, -9.0]]))
    assert usual < 0.5 < strange
