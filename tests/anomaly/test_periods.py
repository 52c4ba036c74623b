"""Periods are found where there are any, to the row, and nowhere else."""

from __future__ import annotations

import time

import numpy as np
import pytest

from anomaly.periods import periods


def rhythm(rows: int, period: int, seed: int = 0, noise: float = 0.3):
    rng = np.random.default_rng(seed)
    return 5 + np.sin(2 * np.pi * np.arange(rows) / period) + noise * rng.normal(size=rows)


@pytest.mark.parametrize(("rows", "period"), [(2000, 96), (2016, 288), (20_160, 1440), (700, 24)])
def test_a_rhythm_is_found_within_one_percent(rows, period):
    found = periods(rhythm(rows, period))
    assert found
    assert abs(found[0].rows - period) <= max(1, period // 100)
    assert found[0].strength > 0.5


@pytest.mark.parametrize("seed", range(5))
def test_noise_drift_and_steps_have_none(seed):
    rng = np.random.default_rng(seed)
    assert periods(rng.normal(size=3000)) == ()
    assert periods(np.cumsum(rng.normal(size=300)) * 0 + np.arange(300.0)) == ()
    assert periods(np.repeat([1.0, 9.0], 500) + 0.1 * rng.normal(size=1000)) == ()


def test_gaps_and_outliers_hide_no_rhythm():
    values = rhythm(2016, 288)
    values[100:160] = np.nan
    values[np.random.default_rng(1).random(2016) < 0.1] = np.nan
    values[[7, 900]] = 1e9, np.inf
    assert abs(periods(values)[0].rows - 288) <= 2


@pytest.mark.parametrize(
    "values",
    [np.zeros(0), np.ones(10), np.full(500, 3.0), np.full(500, np.nan), np.where(np.arange(500) % 3 == 0, 1.0, np.nan)],
)
def test_too_little_to_judge_by_has_none(values):
    assert periods(values) == ()


def test_a_long_series_takes_no_longer_than_a_bound():
    begun = time.process_time()
    periods(rhythm(200_000, 1440))
    assert time.process_time() - begun < 5.0
