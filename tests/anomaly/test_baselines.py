from __future__ import annotations

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

import anomaly.baselines
from anomaly.baselines import BASELINES
from anomaly.baselines.baseline import CALM, WARM_UP, Baseline
from anomaly.detector import Sample, Verdict
from kernel.time import SECOND, Instant

NAMES = sorted(BASELINES)


def _walk(count=900, seed=3):
    rng = np.random.default_rng(seed)
    values = 50.0 + np.sin(np.arange(count) / 20.0) + rng.normal(0.0, 0.2, count)
    values[700:703] += 30.0
    return np.arange(count, dtype=np.int64) * SECOND, values


@pytest.mark.parametrize("name", [one.name for one in pkgutil.iter_modules(anomaly.baselines.__path__)])
def test_the_example_of_a_baseline_is_true(name):
    found = doctest.testmod(importlib.import_module(f"anomaly.baselines.{name}"))
    assert found.failed == 0
    assert found.attempted or name == "baseline"


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_finds_what_nobody_could_overlook(name):
    at, values = _walk()
    found = BASELINES[name]().run(at, values)
    assert found.score[700:712].max() == found.score.max() > 0.5
    assert found.alert[700:712].any()
    assert np.isfinite(found.score).all()
    assert (found.score >= 0).all()
    assert (found.score <= 1).all()
    assert not found.alert[:WARM_UP].any()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_baseline_says_of_a_row_does_not_depend_on_later_rows(name):
    at, values = _walk()
    whole = BASELINES[name]().run(at, values)
    for cut in (150, 701, 899):
        part = BASELINES[name]().run(at[:cut], values[:cut])
        assert (part.score == whole.score[:cut]).all()
        assert (part.alert == whole.alert[:cut]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_leaves_missed_values_aside(name):
    at, values = _walk()
    holes = values.copy()
    holes[200:230] = np.nan
    found = BASELINES[name]().run(at, holes)
    rest = BASELINES[name]().run(at[:-30], np.delete(values, range(200, 230)))
    assert (found.verdict[200:230] == Verdict.MISSED).all()
    assert (np.delete(found.score, range(200, 230)) == rest.score).all()


class _Told(Baseline):
    def look(self, value):
        return value, 0.0, 1.0


def test_a_baseline_pages_once_an_episode_and_again_after_calm():
    told = [0.0] * WARM_UP + [0.9, 0.9, 0.1, 0.9] + [0.1] * CALM + [0.9]
    rows = [_Told(), *told]
    scores = [rows[0].update(Sample(Instant(k), value)) for k, value in enumerate(told)]
    assert [k for k, one in enumerate(scores) if one.alert] == [WARM_UP, len(told) - 1]
    assert scores[WARM_UP].finding is not None
    assert scores[WARM_UP + 2].episode
    assert not scores[-2].episode
