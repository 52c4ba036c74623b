import dataclasses
import random

import numpy as np
import pytest

from anomaly.cause_words import apart, figure, put
from anomaly.causes import OUTSIDE, SERIES_MAX, Change, ChangeKind, rank
from anomaly.movement import Move, Track, Verdict, Window, judge
from kernel.time import MINUTE, SECOND, Instant
from tests.anomaly.made_incidents import BEGAN, GRAPH, make, quiet

WINDOW = Window(Instant(BEGAN), Instant(BEGAN + 120 * SECOND), Instant(BEGAN + 140 * SECOND))


def track(values, service="engine", metric="latency", **more):
    at = np.int64(BEGAN) + np.arange(len(values), dtype=np.int64) * SECOND
    return Track(service, metric, "s", at, np.array(values, dtype=float), **more)


def noisy(seed, n=140, level=10.0):
    return np.random.default_rng(seed).normal(level, 0.5, n)


def shifted(seed, start, by, n=140):
    values = noisy(seed, n)
    values[start:] += by
    return values


def ranked(made):
    return rank(made.tracks, GRAPH, made.window, about=made.about, changes=made.changes)


def test_the_culprit_of_200_made_incidents_with_distractors_is_ranked_first_in_four_of_five():
    cases = [(made, ranked(made)) for made in map(make, range(5_000, 5_200))]
    first = sum(case.suspects[0].service == made.culprit for made, case in cases)
    second = sum(made.culprit in {one.service for one in case.suspects[:2]} for made, case in cases)
    clear = [made.culprit == case.suspects[0].service for made, case in cases if case.stands_out]
    share = f"first {first}, among two {second}, clear {len(clear)} of 200"
    assert first >= 160, share
    assert second >= 185, share
    assert len(clear) >= 140, share
    assert np.mean(clear) >= 0.88


def test_no_hypothesis_stands_out_where_nothing_but_noise_happened():
    cases = [ranked(made) for made in map(quiet, range(40))]
    assert sum(case.stands_out for case in cases) <= 1
    assert all(len(case.suspects) >= 2 for case in cases)


def test_the_order_of_the_series_changes_nothing():
    made = make(7)
    told = put(ranked(made))
    random.Random(1).shuffle(made.tracks)
    assert put(ranked(made)) == told


@pytest.mark.parametrize("by", [4.0, -4.0])
def test_a_movement_is_found_with_its_instant_size_and_direction(by):
    move = judge(track(shifted(1, 100, by)), WINDOW)
    assert isinstance(move, Move)
    assert abs(move.at - (BEGAN + 100 * SECOND)) <= 2 * SECOND
    assert move.up is (by > 0)
    assert 5 < move.size < 15
    assert move.low < move.usual < move.high
    assert abs(move.peak - (10 + by)) < 2


def test_a_slow_ramp_is_found_long_before_it_is_large():
    values = noisy(2, 140) + np.concatenate([np.zeros(80), np.linspace(0, 6, 60)])
    move = judge(track(values), WINDOW)
    assert isinstance(move, Move)
    assert 78 <= (move.at - BEGAN) / SECOND <= 105


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (np.full(140, 3.0), Verdict.STILL),
        (np.zeros(140), Verdict.STILL),
        (np.full(140, np.nan), Verdict.EMPTY),
        (noisy(3), Verdict.STILL),
        (np.where(np.arange(140) == 110, 90.0, noisy(4)), Verdict.STILL),
        (np.concatenate([np.full(118, np.nan), noisy(5, 22)]), Verdict.SHORT),
    ],
)
def test_constant_missing_calm_single_outlier_and_young_series_are_no_movement(values, verdict):
    assert judge(track(values), WINDOW) is verdict


def test_a_constant_series_that_changes_is_a_movement_of_bounded_size():
    values = np.zeros(140)
    values[110:] = 7.0
    move = judge(track(values), WINDOW)
    assert isinstance(move, Move)
    assert move.size <= 50
    assert (move.at - BEGAN) // SECOND == 110


def test_a_series_that_always_grew_does_not_move_by_growing_on_or_by_stopping_but_by_growing_faster():
    line = np.arange(140) * 0.1 + noisy(20, level=50.0) * 0.2
    assert judge(track(line), WINDOW) is Verdict.STILL
    stopped = line.copy()
    stopped[110:] = stopped[109] + noisy(21, 30, 0.0) * 0.2
    assert judge(track(stopped), WINDOW) is Verdict.STILL
    faster = line.copy()
    faster[100:] += np.arange(40) * 0.5
    move = judge(track(faster), WINDOW)
    assert isinstance(move, Move)
    assert move.up
    assert abs(move.at - (BEGAN + 100 * SECOND)) <= 8 * SECOND


def test_a_series_that_ends_is_a_movement_and_a_gap_is_none():
    ended, gap = noisy(6), noisy(6)
    ended[112:] = np.nan
    gap[112:116] = np.nan
    move = judge(track(ended), WINDOW)
    assert isinstance(move, Move)
    assert move.gone
    assert (move.at - BEGAN) // SECOND == 112
    assert judge(track(gap), WINDOW) is Verdict.STILL


def test_a_counter_is_judged_by_its_rate_and_its_reset_is_no_movement():
    steps = np.random.default_rng(8).poisson(40, 140).astype(float)
    total = np.cumsum(steps)
    total[100:] -= total[99]
    assert judge(track(total, counter=True), WINDOW) is Verdict.STILL
    steps[110:] *= 4
    move = judge(track(np.cumsum(steps), counter=True), WINDOW)
    assert isinstance(move, Move)
    assert move.up
    assert abs(move.usual - 40) < 3


def test_unsorted_and_duplicate_stamps_change_nothing():
    plain = track(shifted(9, 100, 5.0))
    order = np.random.default_rng(1).permutation(140)
    mixed = dataclasses.replace(
        plain,
        at=np.concatenate([plain.at[order], plain.at[:9]]),
        values=np.concatenate([plain.values[order], plain.values[:9]]),
    )
    assert judge(mixed, WINDOW) == judge(plain, WINDOW)


def test_a_service_is_not_blamed_when_one_it_stands_on_moved_before_it():
    tracks = [
        track(shifted(10, 105, 5.0), "engine", "commit"),
        track(shifted(11, 112, 20.0), "gateway"),
        track(noisy(12), "settlement"),
    ]
    told = put(rank(tracks, GRAPH, WINDOW, about="gateway"))
    assert [one.service for one in told.hypotheses[:2]] == ["engine", "gateway"]
    engine, gateway = told.hypotheses[:2]
    assert any("explains what stands on it and moved after it: gateway" in text for text in engine.speaks_for)
    assert any("should have moved and did not" in text and "settlement" in text for text in engine.speaks_against)
    assert any(text.startswith("engine, on which it stands, moved") for text in gateway.speaks_against)


def test_a_lone_movement_has_a_rival_too():
    told = put(rank([track(shifted(13, 110, 6.0)), track(noisy(14), "gateway")], GRAPH, WINDOW, about="engine"))
    assert told.hypotheses[0].service == "engine"
    assert len(told.hypotheses) >= 2
    assert told.hypotheses[-1].speaks_against or told.hypotheses[-1].speaks_for


def test_nothing_at_all_is_said_to_be_nothing():
    told = put(rank([], GRAPH, WINDOW, about="engine"))
    assert told.sentence.startswith("No hypothesis stands out: of no series enough was seen")
    told = put(rank([track(noisy(15))], GRAPH, WINDOW, about="engine"))
    assert told.sentence == "No hypothesis stands out: none of 1 series left its usual range."
    assert OUTSIDE in {one.service for one in told.hypotheses}


def test_when_every_series_ends_at_once_their_reader_is_suspected_and_nobody_else():
    values = noisy(16)
    values[110:] = np.nan
    tracks = [track(values, service, f"m{i}") for service in GRAPH for i in range(3)]
    case = rank(tracks, GRAPH, WINDOW, about="engine")
    assert case.blind
    assert not case.stands_out
    assert "what reads them that failed" in put(case).sentence


def test_a_restart_counts_and_a_fault_injected_on_purpose_is_told_without_counting():
    tracks = [track(shifted(17, 110, 5.0), "gateway"), track(shifted(18, 110, 5.0), "settlement")]
    at = Instant(BEGAN + 105 * SECOND)

    def with_change(kind):
        return rank(tracks, GRAPH, WINDOW, changes=[Change(at, "settlement", kind, "settlement-1 was started")])

    plain = {one.service: one.score for one in rank(tracks, GRAPH, WINDOW).suspects}
    restart, fault = with_change(ChangeKind.RESTART), with_change(ChangeKind.FAULT)
    assert {one.service: one.score for one in fault.suspects} == plain
    assert next(one.score for one in restart.suspects if one.service == "settlement") > plain["settlement"]
    told = next(one for one in put(fault).hypotheses if one.service == "settlement")
    assert any("broken on purpose" in text for text in told.speaks_for)


def test_more_series_than_the_bound_are_left_out_and_counted():
    case = rank([track(noisy(i), metric=f"m{i:04}") for i in range(SERIES_MAX + 3)], GRAPH, WINDOW)
    assert case.left_out == 3
    assert "3 more were left out" in put(case).basis


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.00215, "s", "2.15 ms"),
        (0.0000021, "s", "2.1 µs"),
        (12.0, "s", "12 s"),
        (41_300_000.0, "bytes", "41.3 MB"),
        (812.4, "orders/s", "812 orders/s"),
        (12_345.0, "", "12,345"),
        (0.0, "s", "0 s"),
    ],
)
def test_figures_read_as_people_say_them(value, unit, said):
    assert figure(value, unit) == said


def test_distances_read_as_people_say_them():
    assert [apart(250_000_000), apart(12 * SECOND), apart(3 * MINUTE + 5 * SECOND)] == ["250 ms", "12 s", "3 min 5 s"]


def test_a_small_movement_that_stands_alone_does_not_take_the_blame_for_a_later_large_one():
    tracks = [
        track(shifted(30, 100, 1.9), "engine", "match-time"),
        *(track(noisy(40 + i), "engine", f"m{i}") for i in range(6)),
        track(shifted(31, 112, -6.0), "market-data", "messages"),
        track(shifted(32, 112, -6.0), "watchdog", "messages"),
    ]
    told = put(rank(tracks, GRAPH, WINDOW, about="watchdog"))
    assert told.hypotheses[0].service == "market-data"


@pytest.mark.parametrize(("more", "first"), [
    ({}, "engine"), ({"least": 5.0}, "settlement"), ({"least_share": 0.5}, "settlement"), ({"least": 2.0}, "engine"),
])  # fmt: skip
def test_a_departure_that_matters_to_nobody_is_no_rival_however_early_it_was(more, first):
    early = track(shifted(1, 90, 2.0), "engine", "commit-time", **more)
    leak = track(shifted(2, 100, 30.0), "settlement", "memory", least=5.0)
    graph = {"settlement": ("engine",)}
    assert rank([early, leak], graph, WINDOW, about="settlement").suspects[0].service == first


def test_an_end_is_a_movement_whatever_matters():
    ended = track(noisy(3)[:100], "engine", "commit-time", least=1e9)
    assert isinstance(judge(ended, WINDOW), Move)


@pytest.mark.parametrize(("follows", "late_s", "leading"), [
    ("", 0, "queue-time"), ("commit-time", 0, "commit-time"), ("commit-time", 30, "commit-time"),
    ("commit-time", 100, "queue-time"), ("something else", 0, "queue-time"),
])  # fmt: skip
def test_what_repeats_the_movements_of_another_series_does_not_lead_before_it(follows, late_s, leading):
    many = 300
    window = Window(Instant(BEGAN), Instant(BEGAN + 170 * SECOND), Instant(BEGAN + (many - 1) * SECOND))
    commit = track(shifted(4, 150 + late_s, 6.0, many), metric="commit-time")
    queue = track(shifted(5, 150, 30.0, many), metric="queue-time", follows=follows)
    case = rank([commit, queue], GRAPH, window, about="engine")
    assert case.suspects[0].moved[0].metric == leading
    assert {one.metric for one in case.suspects[0].moved} == {"commit-time", "queue-time"}
