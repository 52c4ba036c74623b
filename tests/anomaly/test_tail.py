"""The past of a channel against sorted lists: quantiles, records, peaks that recur, and how surprising a value is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import tail as tails
from anomaly.compiled import entry
from anomaly.tail import APART, FRESH, LEVELS, PEAKS, Q01, Q03, Q50, Q97, Q99, TAIL

LEVEL = (0.01, 0.03, 0.10, 0.50, 0.90, 0.97, 0.99)
FORGET, MEMORY, FLOOR, ALIKE = 0.01, 150.0, 1e-9, 0.1
FIELDS = 15


@entry
def _trace(tail, values, forget, fade, asked, seen):
    """Before each value is learnt: quantiles, record, margin and side, recurrence high and low, surprises."""
    memory, floor, alike = asked
    for i in range(len(values)):
        x = values[i]
        for level in range(LEVELS):
            seen[i, level] = tail.quantile[level]
        seen[i, 7], seen[i, 8] = tail.high, tail.low
        seen[i, 9], seen[i, 10] = tails.margin(tail, x, True, floor)
        seen[i, 11], seen[i, 12] = 0.0, 0.0
        if i > 0:
            seen[i, 11] = tails.recurrence(tail, x, 0, i, memory, alike)
            seen[i, 12] = tails.recurrence(tail, x, 1, i, memory, alike)
        seen[i, 13], seen[i, 14] = tails.surprise(tail, x, False), tails.surprise(tail, x, True)
        tails.learn(tail, x, i, forget, fade)


def _traced(values, fade=1.0):
    tail, seen = np.zeros(1, TAIL)[0], np.zeros((len(values), FIELDS))
    _trace(tail, np.asarray(values, float), FORGET, fade, (MEMORY, FLOOR, ALIKE), seen)
    return tail, seen


def _made(kind, seed, count):
    rng = np.random.default_rng(seed)
    normal = rng.normal(0.0, 1.0, count)
    return {
        "constant": lambda: np.full(count, 4.25),
        "two-valued": lambda: np.where(rng.random(count) < rng.random(), 1.0, 5.0),
        "normal": lambda: normal,
        "cauchy": lambda: rng.standard_cauchy(count),
        "lognormal": lambda: np.exp(3 * normal),
        "pareto": lambda: rng.pareto(0.5, count),
        "counts": lambda: rng.poisson(2.0, count).astype(float),
        "ascending": lambda: np.sort(normal),
        "descending": lambda: -np.sort(normal),
        "drifting": lambda: np.arange(count) / 100 + normal,
    }[kind]()


KINDS = ("constant", "two-valued", "normal", "cauchy", "lognormal", "pareto", "counts", "ascending", "descending",
         "drifting")  # fmt: skip
made = st.builds(_made, st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(4, 150).map(lambda n: n * FRESH))


def rank_error(values, found, wanted):
    """How far the share of values below `found` is from the one that was wanted; ties give an interval."""
    below, upto = (values < found).mean(), (values <= found).mean()
    return max(below - wanted, wanted - upto, 0.0)


@settings(max_examples=60, deadline=None)
@given(made)
def test_a_quantile_is_off_by_a_known_share_of_the_ranks_least_at_the_ends(values):
    tail, _ = _traced(values)
    found = tail["quantile"]
    # In 1,300 made series of each kind the worst was 0.25 (counts), and 0.34 where there are two values only: between
    # them lies a gap without a rank, and what is told of the level beside it lies in the gap.
    share = 0.5 if len(np.unique(values)) == 2 else 0.3
    for wanted, value in zip(LEVEL, found, strict=True):
        assert rank_error(values, value, wanted) <= share * math.sqrt(wanted * (1 - wanted)) + 2 / len(values)
    assert (np.diff(found) >= 0).all()
    assert values.min() <= found[0]
    assert found[-1] <= values.max()


@pytest.mark.parametrize("kind", ["normal", "lognormal", "counts"])
def test_on_many_ordinary_values_quantiles_are_close_to_those_of_numpy(kind):
    values = _made(kind, 3, 400 * FRESH)
    found = _traced(values)[0]["quantile"]
    for level in (Q01, Q50, Q99):
        assert rank_error(values, found[level], LEVEL[level]) <= (0.01 if level != Q50 else 0.03)


@settings(max_examples=30, deadline=None)
@given(made)
def test_nothing_is_lost_when_values_are_merged(values):
    tail, _ = _traced(values)
    held = int(tail["centres"])
    weight, centre = tail["weight"][:held], tail["centre"][:held]
    assert tail["count"] == len(values)
    assert weight.sum() == pytest.approx(len(values))
    assert (np.diff(centre) >= 0).all()
    assert (weight * centre).sum() == pytest.approx(values.sum(), rel=1e-9, abs=1e-9 * np.abs(values).sum())


def test_the_digest_of_a_constant_says_the_constant():
    assert _traced(np.full(320, 4.25))[0]["quantile"].tolist() == [4.25] * LEVELS


def test_with_fading_weights_the_quantiles_follow_to_a_new_level():
    values = np.random.default_rng(5).normal(0.0, 1.0, 6000)
    values[2000:] += 50.0
    assert _traced(values, fade=0.97)[0]["quantile"].min() > 40.0
    assert _traced(values)[0]["quantile"].min() < 10.0


class Recorded:
    """Record and peaks by lists: every peak is kept, with the row on which it was last seen."""

    def __init__(self):
        self.high, self.low, self.count = 0.0, 0.0, 0
        self.peaks = ([], [])

    def margin(self, x, quantile):
        beyond, side = max((x - self.high, 0), (self.low - x, -1))
        return (beyond - FLOOR) / (quantile[Q99] - quantile[Q01] + FLOOR), -side

    def recurrence(self, x, side, row, middle):
        x = x - ALIKE * (x - middle)
        heights = [(at, h) for at, h in self.peaks[side][-PEAKS:] if row - at > APART]
        return sum(math.exp(-(row - at) / MEMORY) for at, h in heights if (h >= x if side == 0 else h <= x))

    def learn(self, x, row, quantile):
        if self.count == 0:
            self.high = self.low = x
        if self.count >= 2 * FRESH:
            for side, out, worse in ((0, x > quantile[Q97], max), (1, x < quantile[Q03], min)):
                if out:
                    self._peak(self.peaks[side], x, row, worse)
            if self.high > quantile[Q99]:
                self.high += (quantile[Q99] - self.high) * FORGET
            if self.low < quantile[Q01]:
                self.low += (quantile[Q01] - self.low) * FORGET
        self.high, self.low, self.count = max(self.high, x), min(self.low, x), self.count + 1

    @staticmethod
    def _peak(peaks, x, row, worse):
        if peaks and row - peaks[-1][0] <= APART:
            peaks[-1] = (row, worse(peaks[-1][1], x))
        else:
            peaks.append((row, x))


@settings(max_examples=25, deadline=None)
@given(made)
def test_records_margins_and_recurring_peaks_are_those_of_plain_lists(values):
    _, seen = _traced(values)
    past = Recorded()
    for row, x in enumerate(values.tolist()):
        quantile = seen[row, :LEVELS]
        if row > 0:
            assert (past.high, past.low) == (seen[row, 7], seen[row, 8])
            margin, side = past.margin(x, quantile)
            assert seen[row, 9] == pytest.approx(margin, rel=1e-9)
            assert seen[row, 10] == side
            assert seen[row, 11] == pytest.approx(past.recurrence(x, 0, row, quantile[Q50]), abs=1e-12)
            assert seen[row, 12] == pytest.approx(past.recurrence(x, 1, row, quantile[Q50]), abs=1e-12)
        past.learn(x, row, quantile)


def test_a_peak_seen_before_recurs_and_one_that_goes_on_is_not_counted_twice():
    values = np.zeros(600)
    values[[200, 300, 400, 405, 500]] = 9.0, 9.0, 9.0, 9.0, 9.5
    _, seen = _traced(values)
    assert seen[200, 11] == 0.0
    assert seen[300, 11] == pytest.approx(math.exp(-100 / MEMORY))
    assert seen[405, 11] == pytest.approx(seen[400, 11] * math.exp(-5 / MEMORY))
    alike = math.exp(-95 / MEMORY) + sum(math.exp(-n / MEMORY) for n in (200, 300))
    assert seen[500, 11] == pytest.approx(alike), "a little lower is as high"


def test_what_lies_within_the_record_has_no_margin_and_beyond_it_grows_with_the_distance():
    tail, _ = _traced(np.random.default_rng(5).normal(0.0, 1.0, 640))
    asked = np.array([tail["low"], 0.0, tail["high"], 6.0, 12.0, 24.0])
    found = np.array([_asked(tail, x)[9] for x in asked])
    assert (found[:3] <= 0).all()
    assert (np.diff(found[2:]) > 0).all()


def _asked(tail, x):
    """Ask one value of a copy of the past."""
    seen = np.zeros((1, FIELDS))
    _trace(tail.copy(), np.array([x]), FORGET, 1.0, (MEMORY, FLOOR, ALIKE), seen)
    return seen[0]


def _surprises(quantile, asked):
    tails_ = np.zeros(1, TAIL)
    found = np.zeros((len(asked), 2))
    for i, x in enumerate(asked):
        tail = tails_.copy()[0]
        tail["count"], tail["quantile"] = 1, quantile
        found[i] = _asked(tail, x)[13:]
    return found


numbers = st.one_of(st.floats(-1e100, 1e100), st.floats(-10, 10), st.integers(-3, 3).map(float))


@settings(max_examples=80, deadline=None)
@given(st.lists(numbers, min_size=LEVELS, max_size=LEVELS).map(sorted), st.lists(numbers, min_size=2, max_size=20))
def test_surprise_is_finite_and_grows_with_the_distance_from_the_middle(quantile, asked):
    asked = sorted({*asked, *quantile, quantile[Q99] + 1, quantile[Q99] * 2 + 1, 1e100})
    found = _surprises(quantile, asked)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert (np.diff(found[:, 0]) >= -1e-9).all()
    above = np.array(asked) >= quantile[Q50]
    assert (np.diff(found[above, 1]) >= -1e-9).all()
    assert (np.diff(found[~above, 1]) <= 1e-9).all()


def test_surprise_is_the_logarithm_of_the_share_that_was_as_far_out():
    quantile = [-2.3, -1.9, -1.3, 0.0, 1.3, 1.9, 2.3]
    one, two = _surprises(quantile, [-9.0, 0.0, 1.3, 1.9, 2.3, 9.0]).T
    assert one[2:5] == pytest.approx([1.0, -math.log10(0.03), 2.0], abs=1e-3)
    assert one[0] == one[1] == two[1] == 0.0
    assert two[0] == two[5] > 3.0
