"""Each channel against a slow one of lists and numpy, in plain Python."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from anomaly import strangeness
from anomaly.channels import averages, clock, flatline, neighbour, shape, spread
from anomaly.compiled import entry
from kernel.time import DAY, MINUTE

RNG = np.random.default_rng(11)
STEP = 5 * MINUTE
A_DAY = DAY // STEP
MONDAY = 4 * DAY
"""The first Monday of 1970."""


@entry
def _averages(state, values, out):
    for i in range(len(values)):
        averages.step(state, values[i])
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = state.short, state.quarter, state.hour, state.day


@entry
def _spread(state, values, out):
    for i in range(len(values)):
        out[i] = spread.step(state, values[i])


@entry
def _neighbour(state, values, floor, out):
    for i in range(len(values)):
        out[i] = neighbour.step(state, values[i], floor)


@entry
def _shape(state, values, out):
    for i in range(len(values)):
        out[i] = shape.step(state, values[i])


@entry
def _flatline(state, values, out):
    for i in range(len(values)):
        out[i] = flatline.step(state, values[i])


@entry
def _clock(state, at, values, plain, slots, out):
    for i in range(len(values)):
        out[i, 0], out[i, 1] = clock.step(state, at[i], values[i], plain, slots[i])
        out[i, 2] = state.expected


def averages_of(values):
    state, out = np.zeros(1, averages.AVERAGES)[0], np.zeros((len(values), 4))
    _averages(state, np.asarray(values, float), out)
    return out


def over(step, dtype, values, *more):
    out = np.zeros(len(values))
    step(np.zeros(1, dtype)[0], np.asarray(values, float), *more, out)
    return out


def clock_of(at, values, plain=0.0, slots=None):
    out = np.zeros((len(values), 3))
    given = np.full(len(values), -1, np.int32) if slots is None else np.asarray(slots, np.int32)
    _clock(np.zeros(1, clock.CLOCK)[0], np.asarray(at, np.int64), np.asarray(values, float), plain, given, out)
    return out


# Averages.


def plain_average(values, share):
    """The mean of the first values, then a share of each new one: written as weights of all values."""
    first = round(1 / share)
    found = []
    for n in range(1, len(values) + 1):
        weights = [1 / min(n, first)] * min(n, first)
        for _ in range(first, n):
            weights = [w * (1 - share) for w in weights] + [share]
        found.append(float(np.dot(weights, values[:n])))
    return found


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_average_is_the_mean_at_first_and_then_fades(place):
    share = averages_of([0.0] * 999 + [1.0])[-1, place]
    values = RNG.normal(5.0, 2.0, 120)
    assert averages_of(values)[:, place] == pytest.approx(plain_average(values, share))


def test_averages_reach_farther_back_one_after_the_other():
    found = averages_of([0.0] * 999 + [1.0])[-1]
    assert 1 > found[0] > found[1] > found[2] > found[3]


@pytest.mark.parametrize("factor", [4.0, 2.0**-20])
def test_averages_are_free_of_the_unit(factor):
    values = RNG.normal(0.0, 2.0, 800)
    assert averages_of(values * factor) == pytest.approx(averages_of(values) * factor)
    assert averages_of(-values) == pytest.approx(-averages_of(values))


def test_an_outage_is_no_new_normal_of_the_day_while_the_hour_follows():
    values = RNG.normal(0.0, 1.0, 600)
    values[560:] += 1000.0
    found = averages_of(values)
    assert found[-1, 2] > 500.0
    assert found[-1, 3] < 10.0


def test_the_averages_of_a_constant_are_the_constant():
    assert (averages_of([3.25] * 700) == 3.25).all()


# Spread.


def plain_spread(deviations, fast_share=1 / 12, slow_share=1 / 400, quiet=24, young=50, clip=4.0):
    fast = slow = 0.0
    found = []
    for n, deviation in enumerate(deviations, start=1):
        fast = fast + max(fast_share, 1 / n) * (abs(deviation) - fast)
        floor = 1e-9 * abs(slow) + 1e-12
        found.append(0.0 if n <= quiet else math.log((fast + floor) / (slow + floor)))
        seen = fast if n < young else min(fast, clip * slow + floor)
        slow = slow + max(slow_share, 1 / n) * (seen - slow)
    return found


def test_spread_is_that_of_a_plain_loop():
    values = np.concatenate([RNG.normal(0.0, 1.0, 500), RNG.normal(0.0, 20.0, 80), RNG.normal(0.0, 1.0, 200)])
    assert over(_spread, spread.SPREAD, values) == pytest.approx(plain_spread(values.tolist()), abs=1e-9)


def test_spread_is_free_of_the_unit_and_still_for_a_constant():
    values = RNG.normal(0.0, 1.0, 600)
    found = over(_spread, spread.SPREAD, values)
    assert over(_spread, spread.SPREAD, values * 1024) == pytest.approx(found, abs=1e-6)
    assert over(_spread, spread.SPREAD, np.zeros(600)).tolist() == [0.0] * 600
    calm = found[300:].max()
    assert over(_spread, spread.SPREAD, np.append(values, values[:30] * 8))[-1] > calm + 1


# Neighbour.


def plain_nearest(values):
    """The distance of each last stretch to the nearest remembered one, None while there is none."""
    length, memory, found = neighbour.LENGTH, [], []
    for n in range(1, len(values) + 1):
        last = values[max(n - length, 0) : n]
        if n < length:
            found.append(None)
            continue
        found.append(min((float(np.abs(last - one).sum()) for one in memory), default=None))
        if int((n + 1) * neighbour.PACE) != int(n * neighbour.PACE):
            memory = [*memory, last][-neighbour.REMEMBERED :]
    return found


def test_neighbour_is_the_distance_to_the_nearest_remembered_stretch_over_a_usual_one():
    values = RNG.normal(0.0, 1.0, int(neighbour.REMEMBERED / neighbour.PACE) + 150)
    found = over(_neighbour, neighbour.NEIGHBOUR, values, 0.0)
    nearest = plain_nearest(values)
    heard = np.flatnonzero(found)
    assert heard[0] < 200
    assert len(values) - heard[0] == len(heard)
    usual = np.array([nearest[i] / found[i] for i in heard])
    assert (np.abs(np.diff(usual) / usual[:-1]) < 0.05).all(), "the usual distance moves slowly"
    since = [one for one in nearest[: heard[0]] if one is not None]
    assert usual[0] == pytest.approx(np.mean(since), rel=0.5)


def test_neighbour_knows_again_what_it_has_seen_and_starts_at_the_new():
    wave = np.tile(np.sin(np.arange(16) / 8 * np.pi), 50)
    noise = RNG.normal(0.0, 0.01, len(wave))
    found = over(_neighbour, neighbour.NEIGHBOUR, np.append(wave + noise, [2.0, -2.0] * (neighbour.LENGTH // 2)), 1e-3)
    assert found[-neighbour.LENGTH :].max() > 5 * found[400 : -neighbour.LENGTH].max()
    again = over(_neighbour, neighbour.NEIGHBOUR, wave, 1e-3)
    assert again[400:].max() < 1e-6


# Shape.


def plain_shape(values, forget=2000, enough=0.9):
    width, mean, covariance = shape.WINDOW, np.zeros(shape.WINDOW), np.zeros((shape.WINDOW, shape.WINDOW))
    basis, found = None, [0.0] * (width - 1)
    for n in range(1, len(values) - width + 2):
        window = values[n - 1 : n - 1 + width]
        away = window - mean
        rest = np.zeros(width) if basis is None else away - basis @ (basis.T @ away)
        found.append(float(np.sqrt((rest**2).mean())))
        share = max(1 / n, 1 / forget)
        covariance = covariance + share * (np.outer(away, away) - covariance)
        mean = mean + share * away
        if n == shape.FIRST or (n > shape.FIRST and n % shape.EVERY == 0):
            variance, vectors = np.linalg.eigh(covariance)
            reached = np.cumsum(variance[::-1]) / variance.sum()
            kept = min(int(np.searchsorted(reached, enough)) + 1, shape.KEPT)
            basis = vectors[:, ::-1][:, :kept]
    return found


@pytest.mark.parametrize("kind", ["noise", "waves", "walk"])
def test_shape_is_what_the_leading_components_of_the_past_leave_unexplained(kind):
    steps = np.arange(shape.EVERY * 2 + 60)
    noise = np.random.default_rng(4).normal(0.0, 1.0, len(steps))
    values = {
        "noise": noise, "walk": np.cumsum(noise),
        "waves": np.sin(steps / 3.0) + np.sin(steps / 5.0 + 1) + 0.01 * noise,
    }[kind]  # fmt: skip
    assert over(_shape, shape.SHAPE, values) == pytest.approx(plain_shape(values), rel=1e-6, abs=1e-9)


def test_shape_of_a_constant_is_explained():
    assert over(_shape, shape.SHAPE, [7.0] * 900).max() == pytest.approx(0.0, abs=1e-6)


# Flatline.


def plain_run(values):
    """How many rows before each have its very value, without a break."""
    return [k for _, same in itertools.groupby(values) for k in range(len(list(same)))]


def test_flatline_counts_the_rows_that_stand_still_over_the_longest_before():
    values = np.concatenate([RNG.normal(0.0, 1.0, 600), [0.5] * 60])
    found = over(_flatline, flatline.FLATLINE, values)
    heard = np.array(plain_run(values)) >= flatline.LEAST_RUN
    assert (found > 0).tolist() == heard.tolist()
    ratio = np.array(plain_run(values))[heard] / found[heard]
    assert ratio == pytest.approx(np.full(len(ratio), ratio[0])), "what was longest before does not move meanwhile"
    assert found[-1] > 3


def test_a_series_that_often_stands_still_as_long_is_nothing_new():
    values = np.repeat(RNG.normal(0.0, 1.0, 60), 20)
    assert over(_flatline, flatline.FLATLINE, values)[flatline.LEARNS :].max() < 1.5


def test_a_constant_from_the_first_row_stands_still_as_it_always_did():
    found = over(_flatline, flatline.FLATLINE, [1.0] * (flatline.LEARNS - 1))
    assert found.max() <= 1.0


# Same clock.


def stamps(days):
    return MONDAY + np.arange(days * A_DAY, dtype=np.int64) * STEP


def plain_bins(at):
    return [int((t % DAY) * clock.BINS // DAY) for t in at.tolist()]


def test_what_the_clock_expects_is_the_mean_of_the_same_time_on_the_days_before():
    at = stamps(4)
    values = RNG.normal(10.0, 1.0, len(at))
    found = clock_of(at, values)
    table = {}
    for t, b, x in zip(at.tolist(), plain_bins(at), values.tolist(), strict=True):
        table.setdefault(b, {}).setdefault(t // DAY, []).append(x)
    for i, b in enumerate(plain_bins(at)):
        before = [np.mean(xs) for day, xs in table[b].items() if day < at[i] // DAY]
        if before:
            assert found[i, 2] == pytest.approx(np.mean(before))
        else:
            assert np.isnan(found[i, 2])
            assert np.isnan(found[i, 0])


def test_a_residual_has_the_sign_of_the_departure_and_is_nothing_within_the_neighbouring_bins():
    at = stamps(4)
    values = np.array(plain_bins(at), float) + RNG.normal(0.0, 0.01, len(at))
    wait = 3 * A_DAY + 100
    places = {"as ever": 0.0, "far above": 40.0, "far below": -40.0}
    found = {}
    for name, more in places.items():
        spoilt = values[: wait + 1].copy()
        spoilt[-1] += more
        found[name] = clock_of(at[: wait + 1], spoilt)[-1, 0]
    assert found["far above"] > 10 > abs(found["as ever"])
    assert found["far below"] < -10
    edge = np.where(np.array(plain_bins(at)) < 72, 0.0, 100.0) + RNG.normal(0.0, 0.01, len(at))
    early = 3 * A_DAY + A_DAY // 2 - 1
    moved = edge.copy()
    moved[early] = 100.0
    assert abs(clock_of(at, moved)[early, 0]) < 10, "a steep edge one row early is no departure"
    moved[early - 30] = 100.0
    assert clock_of(at, moved)[early - 30, 0] > 100


def test_a_season_is_trusted_only_where_the_past_confirmed_it():
    at = stamps(5)
    season = np.sin(np.arange(len(at)) / A_DAY * 2 * np.pi) + RNG.normal(0.0, 0.1, len(at))
    found = clock_of(at, season)
    assert (found[: A_DAY + clock.PROVEN - 1, 1] >= 1).all()
    assert found[-1, 1] < 0.3
    assert clock_of(at, RNG.normal(0.0, 1.0, len(at)))[-1, 1] > 0.7
    assert clock_of(at, np.zeros(len(at)))[-1, 1] >= 1


def test_weekends_are_expected_apart_once_they_have_been_seen():
    at = stamps(21)
    weekend = (at // DAY + 3) % 7 >= 5
    values = np.where(weekend, 0.0, 100.0) + RNG.normal(0.0, 1.0, len(at))
    found = clock_of(at, values, plain=70.0)
    second = slice(12 * A_DAY, 14 * A_DAY)
    assert np.abs(found[second, 2]).max() < 20
    assert found[14 * A_DAY : 19 * A_DAY, 2].min() > 80


def test_a_place_in_the_session_takes_the_clocks_place():
    at = stamps(10)
    day = np.arange(len(at)) // A_DAY
    place = (np.arange(len(at)) + 31 * day) % A_DAY  # the session begins at another time every day
    values = np.where(place < 6, 50.0, 5.0) + RNG.normal(0.0, 0.5, len(at))
    told = clock_of(at, values, plain=5.0, slots=place)
    untold = clock_of(at, values, plain=5.0)
    opening = (place < 6) & (day >= 6)
    assert np.abs(told[opening, 2] - 50.0).max() < 5
    assert np.abs(untold[opening, 2] - 50.0).max() > 20


def test_stamps_before_1970_and_slots_of_any_size_have_their_place():
    at = np.arange(-A_DAY, A_DAY, dtype=np.int64) * STEP
    found = clock_of(at, np.ones(len(at)), slots=np.arange(len(at)) * 1_000_003)
    assert np.isfinite(found[A_DAY:, 2]).all()


# Strangeness: the score.


def strangeness_of(values, surprises, beyond=0, stood=0.0):
    state = np.zeros(1, strangeness.STRANGENESS)[0]
    return np.array(
        [strangeness.step(state, x, np.full(10, u), beyond, stood, 4032.0)
         for x, u in zip(values, surprises, strict=True)]
    )  # fmt: skip


def test_one_wild_row_is_strange_at_once_and_leaves_no_long_tail():
    values, surprises = RNG.normal(0.0, 1.0, 700), np.full(700, 0.3)
    values[600], surprises[600] = 60.0, 9.0
    found = strangeness_of(values, surprises, beyond=3)
    assert found[600] > 100 * found[500:600].max()
    assert found[601:].max() < found[600] / 100


def test_what_is_faint_is_stranger_the_longer_it_goes_on():
    surprises = np.full(700, 0.3)
    surprises[600:] = 1.5
    found = strangeness_of(RNG.normal(0.0, 1.0, 700), surprises)
    assert found[640] > 2 * found[601] > 2 * found[500:600].max()


def test_strangeness_is_free_of_the_unit_and_rises_with_votes_and_with_standing_still():
    values, surprises = RNG.normal(0.0, 1.0, 300), RNG.uniform(0.0, 2.0, 300)
    plain = strangeness_of(values, surprises)
    assert strangeness_of(values * 1024, surprises) == pytest.approx(plain)
    voted = [strangeness_of(values, surprises, beyond=n)[-1] for n in range(5)]
    assert voted[0] < voted[1] < voted[2] < voted[3] == voted[4]
    assert strangeness_of(values, surprises, stood=2.0) == pytest.approx(plain + 120.0)


def test_a_value_far_from_the_mean_is_no_news_where_the_same_clock_knows_it():
    values, expected, unexpected = np.append(RNG.normal(0.0, 1.0, 600), 6.0), np.full(10, 1.0), np.full(10, 1.0)
    expected[6], unexpected[6] = 0.1, 0.0
    found = []
    for last in (expected, unexpected):
        state = np.zeros(1, strangeness.STRANGENESS)[0]
        for x in values[:-1]:
            strangeness.step(state, x, np.full(10, 0.3), 0, 0.0, 4032.0)
        found.append(strangeness.step(state, values[-1], last, 3, 0.0, 4032.0))
    assert found[0] < found[1] / 3


def test_a_score_keeps_the_order_and_reaches_a_half_in_an_episode_only():
    rising = np.array([0.0, 1.0, 50.0, 89.0, 91.0, 99.9, 100.0, 101.0, 1e3, 1e5])
    inside, outside = ([strangeness.score(x, episode) for x in rising] for episode in (1, 0))
    assert (np.diff(inside) > 0).all()
    assert (np.diff(outside) > 0).all()
    assert (inside[6], inside[:4]) == (0.5, outside[:4])
    assert max(outside) < 0.5 <= inside[6]
    assert max(inside) < 1.0
