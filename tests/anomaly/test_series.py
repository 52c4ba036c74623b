"""One series: three ways to step it that agree to the last bit, odd input, and what is promised of pages."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import kernel
from anomaly.detector import THRESHOLD, Channel, Sample, Verdict
from anomaly.fleet import Fleet
from anomaly.series import Series
from anomaly.settings import Settings
from kernel.time import DAY, MINUTE, Instant

STEP = 5 * MINUTE
A_DAY = DAY // STEP
START = 1_700_000_000 * 10**9
FIELDS = ("score", "alert", "episode", "channel", "low", "high", "verdict")
WARM_UP = 100
SEEDS = (0, 1, 2, 3)


def stamps(count, step=STEP):
    return START + np.arange(count, dtype=np.int64) * step


def scored(values, at=None, **changed):
    values = np.asarray(values, float)
    return Series(Settings(**changed)).run(stamps(len(values)) if at is None else at, values)


def by_update(at, values):
    """One sample after the other; returns the arrays of `Scores` by name, and the scores."""
    series = Series()
    scores = [series.update(Sample(Instant(t), x)) for t, x in zip(at.tolist(), values.tolist(), strict=True)]
    return {name: np.array([getattr(one, name) for one in scores]) for name in FIELDS}, scores


def by_fleet(at, values):
    fleet, rows = Fleet(2), []
    still = np.zeros(1)
    for t, x in zip(at, values, strict=True):
        given_ = fleet.advance(np.array([t, t]), np.append(still, x))
        rows.append([getattr(given_, name)[1] for name in FIELDS])
    return {name: np.array([row[k] for row in rows]) for k, name in enumerate(FIELDS)}


def assert_same(one, two):
    for name in FIELDS:
        a, b = (np.asarray(x[name] if isinstance(x, dict) else getattr(x, name), float) for x in (one, two))
        assert a.tobytes() == b.tobytes(), name


def assert_sound(at, values, found):
    """What holds of any input whatever."""
    assert np.isfinite(found.score).all()
    assert ((found.score >= 0) & (found.score <= 1)).all()
    assert (found.score[found.alert] >= THRESHOLD).all()
    assert ((found.score >= THRESHOLD) <= found.episode).all()
    assert (found.episode[found.alert]).all()
    assert ((found.verdict == Verdict.MISSED) <= ~np.isfinite(values)).all()
    assert not found.alert[found.verdict > Verdict.MISSED].any()
    assert (found.channel[found.alert & (found.verdict == Verdict.MISSED)] == Channel.MISSED).all()
    assert ((found.channel == Channel.NONE) == ~found.episode).all()
    assert (np.isnan(found.low) == np.isnan(found.high)).all()
    assert (found.low <= found.high)[~np.isnan(found.low)].all()


def _noise(seed, count=1200):
    return np.random.default_rng(seed).normal(0.0, 1.0, count)


def _mixed(odd, share, seed=5):
    values = _noise(seed)
    return np.where(np.random.default_rng(seed + 1).random(len(values)) < share, odd, values)


def _with(values, rows, value):
    values[rows] = value
    return values


ODD = {
    "missed": lambda: _mixed(math.nan, 0.3),
    "infinite": lambda: _mixed(math.inf, 0.2),
    "infinite both ways": lambda: _mixed(-math.inf, 0.5),
    "nothing at all": lambda: np.full(700, math.nan),
    "constant": lambda: np.full(1200, 4.5),
    "zero": lambda: np.zeros(1200),
    "two rows": lambda: np.array([1.0, 2.0]),
    "one row": lambda: np.array([1.0]),
    "no row": lambda: np.zeros(0),
    "huge": lambda: _noise(5) * 1e300,
    "largest and smallest": lambda: np.where(_noise(5) > 0, 1.7e308, -1.7e308),
    "one huge": lambda: _with(_noise(5), [700, 900], [1e300, -1e300]),
    "one large": lambda: _with(_noise(5), 700, 1e200),
    "huge from the first row": lambda: _with(_noise(5), 0, 1e300),
    "huge level": lambda: _with(_noise(5), slice(600, None), 1e250),
    "tiny": lambda: _noise(5) * 1e-300,
    "denormal": lambda: np.round(_noise(5)) * 5e-324,
    "large offset": lambda: _noise(5) + 1e15,
    "alternating": lambda: np.tile([1.0, -1.0], 600),
    "counter": lambda: np.cumsum(np.abs(_noise(5))),
    "counter reset": lambda: np.cumsum(np.abs(_noise(5))) % 300,
    "rare events": lambda: (np.abs(_noise(5)) > 3).astype(float),
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_whatever_the_values_scores_are_sound_and_the_three_ways_agree(name):
    values = ODD[name]()
    at = stamps(len(values))
    found = scored(values)
    assert_sound(at, values, found)
    if len(values):
        one, _ = by_update(at, values)
        assert_same(one, found)
        assert_same(by_fleet(at, values), found)


@pytest.mark.parametrize("name", ["one huge", "one large", "huge level"])
def test_a_huge_value_is_found_and_does_not_blind_the_series_for_ever(name):
    found = scored(ODD[name]())
    assert found.alert[600:712].any()
    later = np.append(ODD[name](), [0.0, math.nan, 1.0])
    assert np.isfinite(scored(later).score).all()


@pytest.mark.parametrize("name", ["constant", "zero", "nothing at all", "two rows", "alternating"])
def test_a_series_that_never_changes_its_way_never_pages(name):
    assert not scored(ODD[name]()).alert.any()


CLOCKS = {
    "duplicates": lambda at: np.repeat(at[::2], 2),
    "a few rows back": lambda at: np.concatenate([at[:500], at[497:500], at[500:-3]]),
    "set back for good": lambda at: np.concatenate([at[:500], at[:500] - 40 * DAY, at[500:700] - 40 * DAY]),
    "irregular": lambda at: np.sort(at + np.random.default_rng(3).integers(-STEP, STEP, len(at))),
    "a long pause": lambda at: at + np.where(np.arange(len(at)) > 600, 30 * DAY, 0),
    "other step": lambda at: np.concatenate([at[:600], at[600] + np.arange(len(at) - 600) * MINUTE]),
    "one second": lambda at: START + np.arange(len(at), dtype=np.int64) * 10**9,
    "one nanosecond": lambda at: START + np.arange(len(at), dtype=np.int64),
    "before 1970": lambda at: at - 60 * 365 * DAY,
    "all the same": lambda at: np.full(len(at), START),
    "backwards": lambda at: at[::-1].copy(),
}


@pytest.mark.parametrize("name", sorted(CLOCKS))
def test_whatever_the_stamps_scores_are_sound_and_the_three_ways_agree(name):
    values = _noise(5)
    at = CLOCKS[name](stamps(len(values))).astype(np.int64)
    values = values[: len(at)]
    found = scored(values, at)
    assert_sound(at, values, found)
    one, _ = by_update(at, values)
    assert_same(one, found)
    assert_same(by_fleet(at, values), found)


def test_a_duplicate_and_a_clock_a_few_rows_back_are_left_aside():
    values, at = _noise(5), stamps(1200)
    whole = scored(values)
    doubled = scored(np.insert(values, 500, 99.0), np.insert(at, 500, at[499]))
    assert doubled.verdict[500] == Verdict.DUPLICATE
    assert np.delete(doubled.score, 500).tobytes() == whole.score.tobytes()
    back = scored(np.insert(values, 500, [99.0] * 3), np.insert(at, 500, at[490:493]))
    assert (back.verdict[500:503] == Verdict.BACKWARD).all()
    assert np.delete(back.score, [500, 501, 502]).tobytes() == whole.score.tobytes()


def test_a_clock_set_back_for_good_is_followed_after_a_few_rows():
    at = CLOCKS["set back for good"](stamps(1200))
    found = scored(_noise(5), at)
    assert (found.verdict[500:502] == Verdict.BACKWARD).all()
    assert (found.verdict[520:] == Verdict.SCORED).all()


values_any = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(-10, 10), st.integers(-3, 3).map(float)
)
steps_any = st.one_of(st.just(STEP), st.integers(-3 * STEP, 3 * STEP), st.just(0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(values_any, steps_any), min_size=1, max_size=50), st.integers(0, 700), st.integers(0, 10**6))
def test_any_rows_after_any_past_are_sound_and_agree(rows, past, seed):
    before = _noise(seed, past)
    values = np.concatenate([before, [x for x, _ in rows]])
    at = np.concatenate([stamps(past), (START + past * STEP) + np.cumsum([step for _, step in rows])]).astype(np.int64)
    whole = scored(values, at)
    assert_sound(at, values, whole)
    series = Series()
    series.run(at[:past], before)
    kept = series.save()
    for i, (t, x) in enumerate(zip(at[past:].tolist(), values[past:].tolist(), strict=True), start=past):
        one = series.update(Sample(Instant(t), x))
        assert [float(getattr(one, name)) for name in FIELDS] == pytest.approx(
            [float(getattr(whole, name)[i]) for name in FIELDS], rel=0, abs=0, nan_ok=True
        )
        assert (one.finding is not None) == one.episode
    fleet, again = Fleet.restore(kept), Series.restore(kept)
    for t, x in zip(at[past:], values[past:], strict=True):
        together = fleet.advance(np.array([t]), np.array([x]))
        alone = again.update(Sample(Instant(int(t)), float(x)))
        assert together.score[0] == alone.score
    assert fleet.save() == again.save() == series.save()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_said_of_a_row_does_not_depend_on_later_rows(seed):
    values = _noise(seed, 2500)
    values[1500:1560] += 9.0
    values[900:950] = math.nan
    whole = scored(values)
    for cut in (1, 99, 101, 899, 910, 951, 1501, 1511, 1584, 2499):
        part = scored(values[:cut])
        for name in FIELDS:
            assert getattr(part, name).tobytes() == getattr(whole, name)[:cut].tobytes()


@pytest.mark.parametrize("gap", [1, 6, 60])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_missing_is_not_zero_and_no_page_comes_when_data_come_back(seed, told, gap):
    values = np.random.default_rng(seed).normal(50.0, 1.0, 6 * A_DAY)
    whole = scored(values)
    first, back = 4 * A_DAY, 4 * A_DAY + gap
    values[first:back] = math.nan
    found = scored(values, use_missed=told)
    assert (found.verdict[first:back] == Verdict.MISSED).all()
    assert (found.channel[first:back][found.alert[first:back]] == Channel.MISSED).all()
    assert found.alert[first:back].sum() == (1 if told and gap > 20 else 0)
    assert not found.alert[back : back + 3].any()
    assert found.alert.sum() <= whole.alert.sum() + 2
    assert found.low[-1] > 40


def test_gaps_of_a_usual_length_page_nobody():
    values = np.random.default_rng(1).normal(50.0, 1.0, 8 * A_DAY)
    for first in range(100, len(values) - 50, 150):
        values[first : first + 30] = math.nan
    found = scored(values, use_missed=True)
    missed = found.verdict == Verdict.MISSED
    assert not (found.alert & missed)[600:].any()


def test_a_first_score_comes_within_a_hundred_rows_and_the_verdict_says_when_it_is_warm():
    found = scored(_noise(5))
    assert found.score[:WARM_UP].max() > 0
    assert found.verdict[0] == Verdict.WARMING
    assert (found.verdict[WARM_UP:] == Verdict.SCORED).all()
    assert np.isfinite(found.low[WARM_UP:]).all()


def _healthy(seed, days):
    """Healthy series of several kinds, by seed."""
    rng, count = np.random.default_rng(seed), days * A_DAY
    noise = rng.normal(0.0, 1.0, count)
    hour = np.arange(count) / A_DAY * 2 * np.pi
    return [
        lambda: noise,
        lambda: np.exp(0.5 * noise),
        lambda: rng.poisson(4.0, count).astype(float),
        lambda: rng.uniform(0.0, 1.0, count),
        lambda: 50 + 10 * np.sin(hour) + noise,
        lambda: rng.poisson(np.exp(2 + np.sin(hour))).astype(float),
        lambda: rng.standard_t(5, count),
        lambda: rng.gamma(2.0, 1.0, count),
        lambda: np.convolve(rng.normal(0.0, 1.0, count + 4), np.ones(5) / 5, "valid"),
        lambda: np.where(rng.random(count) < 0.05, 1.0, 0.0),
    ][seed % 10]()


@functools.cache
def healthy_pages():
    """Pages of sixty healthy series over twenty days, a row a series and a column a row of theirs."""
    return np.array([scored(_healthy(seed, 20)).alert for seed in range(60)])


def test_healthy_series_page_no_more_than_three_times_as_often_as_promised():
    assert healthy_pages().sum() / (60 * 20) <= 3 * Settings().budget_per_day


def test_nothing_pages_in_the_warm_up_of_a_healthy_series():
    assert not healthy_pages()[:, :WARM_UP].any()


FROM = 5 * A_DAY


def normal_week(seed, days=8):
    """Noise, calmer in the last rows before FROM: no page stands in the way of one that is due."""
    values = np.random.default_rng(seed).normal(10.0, 1.0, days * A_DAY)
    values[FROM - 150 : FROM] = 10.0 + 0.4 * (values[FROM - 150 : FROM] - 10.0)
    return values


CHANGES = {
    "a spike": lambda v: _with(v, FROM, 60.0),
    "an hour": lambda v: _with(v, slice(FROM, FROM + 12), v[FROM : FROM + 12] + 40),
    "a level": lambda v: _with(v, slice(FROM, None), v[FROM:] + 20),
    "a level down": lambda v: _with(v, slice(FROM, None), v[FROM:] - 20),
    "restlessness": lambda v: _with(v, slice(FROM, FROM + 60), 10 + 12 * (v[FROM : FROM + 60] - 10)),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
@pytest.mark.parametrize("seed", SEEDS)
def test_a_change_nobody_could_overlook_pages_at_once_and_only_once(name, seed):
    values = CHANGES[name](normal_week(seed))
    found = scored(values)
    pages = np.flatnonzero(found.alert[FROM : FROM + 80])
    assert len(pages) == 1
    assert pages[0] < 12
    assert found.episode[FROM + pages[0] : FROM + 12].all()


def ramp(seed):
    values = normal_week(seed)
    values[FROM : FROM + 300] += np.linspace(0, 200, 300)
    return scored(values)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_slow_ramp_is_found_and_its_pages_are_far_apart(seed):
    found = ramp(seed)
    assert found.alert[FROM : FROM + 90].any()
    assert (np.diff(np.flatnonzero(found.alert)) > Settings().refractory).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_episode_of_a_ramp_begins_with_its_page_and_has_no_other(seed):
    found = ramp(seed)
    for began, rows in itertools.groupby(zip(found.episode, found.alert, strict=True), key=lambda row: row[0]):
        alerts = [bool(alert) for _, alert in rows]
        assert sum(alerts) == (1 if began else 0)
        assert alerts[0] == began


@pytest.mark.parametrize("seed", SEEDS)
def test_an_alert_has_a_finding_in_words_with_value_and_range(seed):
    values = normal_week(seed)
    values[FROM : FROM + 6] = 75.0
    series, found = Series(), None
    series.run(stamps(FROM), values[:FROM])
    for row in range(FROM, FROM + 6):
        score = series.update(Sample(Instant(int(stamps(FROM + 6)[row])), float(values[row])))
        assert (score.finding is not None) == score.episode
        found = score.finding or found
        if score.alert:
            assert score.finding is not None
    assert found is not None
    assert found.value == 75.0
    assert found.channel is not Channel.NONE
    assert found.low < found.high < 75.0
    assert found.sentence.startswith("75, expected ")
    assert ": " in found.sentence


@pytest.mark.parametrize("seed", SEEDS)
def test_a_new_level_is_news_once_and_then_normal(seed):
    values = normal_week(seed, 20)
    values[FROM:] += 20.0
    found = scored(values)
    plain = scored(normal_week(seed, 20)).alert[FROM:].sum()
    assert found.alert[FROM : FROM + 12].any()
    assert found.alert[FROM:].sum() <= plain + 3
    assert not found.episode[-1]


def test_the_spike_of_a_daily_job_pages_no_more_after_some_days():
    pages = 0
    for seed in range(8):
        values = normal_week(seed, 16)
        values[100::A_DAY] += 50.0
        job = np.zeros(len(values), bool)
        job[100::A_DAY] = True
        pages += int((scored(values).alert & job)[8 * A_DAY :].sum())
    assert pages <= 6, f"{pages} of 64 runs of a job after the first eight days"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_broken_season_is_found_though_the_values_are_usual_ones(seed):
    rows = np.arange(12 * A_DAY)
    values = 100 + 40 * np.sin(rows / A_DAY * 2 * np.pi) + np.random.default_rng(seed).normal(0.0, 2.0, len(rows))
    broken = 10 * A_DAY + 200
    usual = scored(values)
    values[broken : broken + 30] = np.random.default_rng(seed).normal(130.0, 2.0, 30)
    found = scored(values)
    assert found.episode[broken : broken + 30].any()
    assert found.alert[broken : broken + 30].any() or usual.alert[broken - 80 : broken].any()


def test_a_frozen_value_is_found_though_it_is_a_usual_one():
    for seed in range(8):
        values = normal_week(seed)
        values[FROM:] = 10.3
        found = scored(values)
        assert found.alert[FROM : FROM + 200].any(), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frozen_value_is_found_even_soon_after_another_page(seed):
    values = normal_week(seed)
    values[FROM - 30] = 60.0
    values[FROM:] = 10.3
    found = scored(values)
    assert found.alert[FROM - 30]
    assert found.alert[FROM : FROM + 300].any()


def test_the_state_of_a_series_is_bounded_and_small():
    series = Series()
    series.run(stamps(3 * A_DAY), _noise(1, 3 * A_DAY))
    early = len(series.save())
    series.run(stamps(40 * A_DAY)[3 * A_DAY :], _noise(2, 37 * A_DAY))
    assert len(series.save()) == early <= 32 * 1024
    assert kernel.STATE.itemsize <= 32 * 1024


def test_feedback_raises_the_bar_by_degrees_and_confirmation_takes_it_back():
    values = normal_week(1)
    values[FROM] = 16.5
    told = {}
    for times in (0, 1, 9):
        series = Series()
        series.run(stamps(FROM), values[:FROM])
        for _ in range(times):
            series.feedback(false_alarm=True)
        kept = series.save()
        told[times] = series.run(stamps(len(values))[FROM:], values[FROM:]).alert.sum()
        again = Series.restore(kept)
        for _ in range(12):
            again.feedback(false_alarm=False)
        found = again.run(stamps(len(values))[FROM:], values[FROM:]).alert.sum()
        assert found == told[0]
    assert told[9] <= told[1] <= told[0]
    assert told[9] == 0
