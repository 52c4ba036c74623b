"""Many series at once: each as if it were alone, grown, restarted and told of false alarms one by one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.detector import NO_SLOT, Channel, Scores, Verdict
from anomaly.fleet import Fleet
from anomaly.series import Series
from kernel.time import MINUTE

STEP = 5 * MINUTE
PAST = 700
NAMES = tuple(field.name for field in dataclasses.fields(Scores))


def stamps(count, first=0):
    return np.arange(first, first + count, dtype=np.int64) * STEP


def made(seed, count):
    """A random series: noise, counts or a walk, with a gap, an infinite value and a spell of strangeness."""
    rng = np.random.default_rng(seed)
    values = [
        lambda: rng.normal(rng.uniform(-100, 100), rng.uniform(0.01, 50), count),
        lambda: rng.poisson(3.0, count).astype(float),
        lambda: np.cumsum(rng.normal(0.0, 1.0, count)),
        lambda: np.full(count, 7.0),
        lambda: rng.standard_cauchy(count),
    ][seed % 5]()
    spell = int(rng.integers(count))
    values[spell : spell + 10] += 100.0
    values[rng.integers(count)] = np.inf
    gap = int(rng.integers(count))
    values[gap : gap + 20] = np.nan
    return values


def advanced(fleet, at, table, slots=None):
    """What a fleet says of the rows of a table, by name: arrays of rows and series."""
    said = {name: [] for name in NAMES}
    for row, values in enumerate(table):
        stamp = at[row] if np.ndim(at[row]) else np.full(len(fleet), at[row])
        found = fleet.advance(stamp, values, None if slots is None else slots[row])
        for name in NAMES:
            said[name].append(getattr(found, name).copy())
    return {name: np.array(rows) for name, rows in said.items()}


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=4), st.integers(0, 4), st.booleans())
def test_a_series_is_not_changed_by_its_neighbours(seed, others, place, slotted):
    place = min(place, len(others))
    count = 260
    columns = [made(other, count) for other in others]
    columns.insert(place, made(seed, count))
    at = np.stack([stamps(count, first=1000 * k) for k in range(len(columns))], axis=1)
    slots = np.stack([(np.arange(count, dtype=np.int32) + k) % 90 for k in range(len(columns))], axis=1)
    if not slotted:
        slots[:] = NO_SLOT
    said = advanced(Fleet(len(columns)), at, np.stack(columns, axis=1), slots)
    alone = Series().run(at[:, place], columns[place], slots[:, place])
    for name in NAMES:
        assert said[name][:, place].tobytes() == getattr(alone, name).tobytes(), name


def test_no_slots_are_the_same_as_slots_that_nobody_told():
    table = np.stack([made(k, 300) for k in range(3)], axis=1)
    told = advanced(Fleet(3), stamps(300), table, np.full((300, 3), NO_SLOT, np.int32))
    untold = advanced(Fleet(3), stamps(300), table)
    assert all(told[name].tobytes() == untold[name].tobytes() for name in NAMES)


def test_an_empty_fleet_advances_and_says_nothing():
    fleet = Fleet(0)
    found = fleet.advance(np.zeros(0, np.int64), np.zeros(0))
    assert len(fleet) == 0
    assert all(len(getattr(found, name)) == 0 for name in NAMES)


@pytest.mark.parametrize(("stamped", "valued", "slotted"), [(2, 3, None), (3, 2, None), (3, 4, None), (3, 3, 2)])
def test_arrays_of_another_length_are_refused_and_change_nothing(stamped, valued, slotted):
    fleet = Fleet(3)
    before = fleet.save()
    slots = None if slotted is None else np.zeros(slotted, np.int32)
    with pytest.raises(ValueError, match="for 3 series"):
        fleet.advance(np.zeros(stamped, np.int64), np.zeros(valued), slots)
    assert fleet.save() == before


def test_scores_have_the_types_of_the_port():
    found = Fleet(2).advance(np.zeros(2, np.int64), np.array([1.0, np.nan]))
    assert {name: str(getattr(found, name).dtype) for name in NAMES} == {
        "score": "float64", "alert": "bool", "episode": "bool", "channel": "int8", "low": "float64",
        "high": "float64", "verdict": "int8",
    }  # fmt: skip
    assert found.verdict.tolist() == [Verdict.WARMING, Verdict.MISSED]


@pytest.fixture(scope="module")
def warm():
    """The bytes of a fleet of three that has seen noise."""
    fleet = Fleet(3)
    advanced(fleet, stamps(PAST), noise(3))
    return fleet.save()


def noise(seed):
    """Rows of three series, calmer at the end: no page stands in the way of one that is due."""
    table = np.random.default_rng(seed).normal(10.0, 1.0, (PAST, 3))
    table[-150:] = 10.0 + 0.4 * (table[-150:] - 10.0)
    return table


def struck(fleet, height, row=PAST + 100):
    """Whether each series pages when all of them jump to a height; the fleet is left as it was."""
    one = Fleet.restore(fleet.save())
    return one.advance(np.full(len(one), row * STEP), np.full(len(one), height)).alert.tolist()


def test_a_grown_fleet_keeps_its_past_and_the_new_begin_without_one(warm):
    fleet, plain = Fleet.restore(warm), Fleet.restore(warm)
    fleet.grow(2)
    assert len(fleet) == 5
    table = np.random.default_rng(4).normal(10.0, 1.0, (150, 5))
    found = advanced(fleet, stamps(150, PAST), table)
    old = advanced(plain, stamps(150, PAST), table[:, :3])
    new = advanced(Fleet(2), stamps(150, PAST), table[:, 3:])
    for name in NAMES:
        assert found[name][:, :3].tobytes() == old[name].tobytes()
        assert found[name][:, 3:].tobytes() == new[name].tobytes()


def test_growing_by_none_changes_nothing(warm):
    fleet = Fleet.restore(warm)
    fleet.grow(0)
    assert len(fleet) == 3
    table = np.random.default_rng(4).normal(10.0, 1.0, (50, 3))
    grown, plain = (advanced(one, stamps(50, PAST), table) for one in (fleet, Fleet.restore(warm)))
    assert all(grown[name].tobytes() == plain[name].tobytes() for name in NAMES)


def test_a_restarted_series_forgets_its_past_and_the_others_do_not(warm):
    fleet, plain = Fleet.restore(warm), Fleet.restore(warm)
    fleet.restart(1)
    table = np.random.default_rng(4).normal(500.0, 1.0, (60, 3))
    found, old = (advanced(one, stamps(60, PAST), table) for one in (fleet, plain))
    new = Series().run(stamps(60, PAST), table[:, 1])
    for name in NAMES:
        assert found[name][:, [0, 2]].tobytes() == old[name][:, [0, 2]].tobytes()
        assert found[name][:, 1].tobytes() == getattr(new, name).tobytes()
    assert old["alert"][:, 1].any()
    assert not found["alert"][:, 1].any()


def test_a_false_alarm_raises_the_bar_of_one_series_only_and_a_true_one_takes_it_back(warm):
    fleet = Fleet.restore(warm)
    assert struck(fleet, 18.0) == [True, True, True]
    for _ in range(8):
        fleet.feedback(1, false_alarm=True)
    assert struck(fleet, 18.0) == [True, False, True]
    for _ in range(10):
        fleet.feedback(1, false_alarm=False)
    assert struck(fleet, 18.0) == [True, True, True]
    assert fleet.save() == warm


def test_feedback_is_kept_through_a_restart(warm):
    fleet = Fleet.restore(warm)
    for _ in range(8):
        fleet.feedback(1, false_alarm=True)
    fleet.restart(1)
    advanced(fleet, stamps(PAST, PAST), noise(5))
    assert struck(fleet, 18.0, 2 * PAST + 100)[1] is False


def test_a_place_that_is_given_to_another_series_keeps_neither_its_past_nor_its_feedback(warm):
    fleet = Fleet.restore(warm)
    for _ in range(8):
        fleet.feedback(1, false_alarm=True)
    fleet.vacate(1)
    advanced(fleet, stamps(PAST, PAST), noise(5))
    assert struck(fleet, 18.0, 2 * PAST + 100)[1] is True
    table = np.random.default_rng(4).normal(500.0, 1.0, (60, 3))
    fleet, plain = Fleet.restore(warm), Fleet.restore(warm)
    fleet.feedback(1, false_alarm=True)
    fleet.vacate(1)
    found, others = (advanced(one, stamps(60, PAST), table) for one in (fleet, plain))
    alone = Series().run(stamps(60, PAST), table[:, 1])
    for name in NAMES:
        assert found[name][:, 1].tobytes() == getattr(alone, name).tobytes()
        assert found[name][:, [0, 2]].tobytes() == others[name][:, [0, 2]].tobytes()


def test_a_series_far_outside_pages_even_after_one_false_alarm(warm):
    fleet = Fleet.restore(warm)
    fleet.feedback(0, false_alarm=True)
    assert struck(fleet, 1000.0) == [True, True, True]


def test_a_finding_is_there_in_an_episode_and_not_before(warm):
    fleet = Fleet.restore(warm)
    assert [fleet.finding(i) for i in range(3)] == [None] * 3
    found = fleet.advance(np.full(3, (PAST + 100) * STEP), np.array([10.0, 60.0, 10.0]))
    assert found.episode.tolist() == [fleet.finding(i) is not None for i in range(3)] == [False, True, False]
    assert (found.score >= 0.5).tolist() == [False, True, False]
    told = fleet.finding(1)
    assert told is not None
    assert (told.value, told.at) == (60.0, (PAST + 100) * STEP)
    assert told.channel == found.channel[1] != Channel.NONE
    assert told.sentence.startswith("60, expected ")


def test_a_missed_value_is_told_apart_for_each_series(warm):
    fleet = Fleet.restore(warm)
    found = fleet.advance(np.full(3, (PAST + 1) * STEP), np.array([10.0, np.nan, -np.inf]))
    assert found.verdict.tolist() == [Verdict.SCORED, Verdict.MISSED, Verdict.MISSED]
    assert not found.alert.any()
