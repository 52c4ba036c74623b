"""The joint view of a machine: causal, restorable, indifferent to bad values, and right about who is to blame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import joint_model, joint_tail
from anomaly.detector import Verdict
from anomaly.joint import Joint, JointSettings
from bench.parts import made_machines
from kernel.time import MINUTE, Instant

ROWS = 2600


def machine(seed: int = 1, columns: int = 5, rows: int = ROWS):
    """A machine whose metrics follow one load, but for the last, which never moves."""
    rng = np.random.default_rng(seed)
    load = rng.gamma(5.0, 1.0, rows)
    values = load[:, None] * np.arange(1, columns + 1) + 0.2 * rng.normal(size=(rows, columns))
    values[:, -1] = 7.0
    return np.arange(rows, dtype=np.int64) * MINUTE, values


def same(one, other, rows: int) -> None:
    for name in one._fields:
        a, b = getattr(one, name)[:rows], getattr(other, name)[:rows]
        assert a.tobytes() == b.tobytes(), name


@pytest.fixture(scope="module")
def whole():
    at, values = machine()
    values[2000:2040, 1] = values[500:540, 1]
    values[777] = np.nan
    return at, values, Joint(5).run(at, values)


def test_a_row_is_scored_the_same_when_later_rows_are_cut_off(whole):
    at, values, said = whole
    for cut in (1, 99, 101, 1700, 2010, 2600):
        same(Joint(5).run(at[:cut], values[:cut]), said, cut)


def test_rows_one_by_one_are_scored_as_all_at_once(whole):
    at, values, said = whole
    joint = Joint(5)
    joint.run(at[:1990], values[:1990])
    for row in range(1990, 2060):
        one = joint.update(Instant(int(at[row])), values[row])
        assert (one.score, one.alert, one.episode) == (said.score[row], said.alert[row], said.episode[row])
        assert one.causes == tuple(each for each in said.causes[row].tolist() if each >= 0)
        assert (one.finding is None) == (one.score < 0.5)


def test_a_restored_machine_goes_on_bit_for_bit(whole):
    at, values, said = whole
    for cut in (50, 1234, 2005):
        first = Joint(5)
        first.run(at[:cut], values[:cut])
        kept = first.save()
        second = Joint.restore(kept)
        assert second.save() == kept
        rest = second.run(at[cut:], values[cut:])
        assert rest.score.tobytes() == said.score[cut:].tobytes()
        assert rest.alert.tobytes() == said.alert[cut:].tobytes()


def test_a_metric_that_leaves_the_others_is_found_and_named(whole):
    said = whole[2]
    pages = np.flatnonzero(said.alert[2000:2040]) + 2000
    assert len(pages) > 0
    assert said.causes[pages[0], 0] == 1
    assert said.score[2003:2035].min() >= 0.5, "the score stays high all through"


def test_a_finding_says_value_and_range_with_the_names_of_the_caller():
    at, values = machine()
    joint = Joint(5)
    joint.run(at[:2000], values[:2000])
    row = values[2000].copy()
    row[1] = 90.0
    found = [joint.update(Instant(int(at[2000 + each])), row) for each in range(6)][-1]
    assert found.finding is not None
    said = found.finding.sentence(["a", "work", "c", "d", "e"])
    assert said.startswith("work 90, expected ")
    cause = found.finding.causes[0]
    assert cause.low < values[2000, 1] < cause.high < 90.0


def test_a_constant_that_moves_is_news_and_the_others_are_not_blamed():
    at, values = machine()
    values[2100:, 4] = 8.0
    said = Joint(5).run(at, values)
    pages = np.flatnonzero(said.alert[2100:2120]) + 2100
    assert len(pages) > 0
    assert said.causes[pages[0], 0] == 4


def test_a_machine_at_rest_never_pages():
    at = np.arange(3000, dtype=np.int64) * MINUTE
    said = Joint(3).run(at, np.full((3000, 3), 4.2))
    assert not said.alert.any()
    assert said.score.max() < 0.5


def test_what_is_missed_is_no_zero_and_what_is_infinite_is_missed():
    at, values = machine()
    holes = values.copy()
    rng = np.random.default_rng(9)
    holes[rng.random(values.shape) < 0.02] = np.nan
    holes[rng.random(values.shape) < 0.01] = np.inf
    holes[1500:1560] = np.nan
    said = Joint(5).run(at, holes)
    assert np.isfinite(said.score).all()
    assert (said.verdict[1500:1560] == Verdict.MISSED).all()
    assert said.score[1500:1560].max() == 0.0
    assert not said.alert[1560:1600].any(), "the end of an outage is no anomaly"
    assert said.alert.sum() <= 3


def test_a_metric_that_appears_late_or_never_takes_no_part_until_it_is_known():
    at, values = machine(columns=6)
    values[:1200, 2] = np.nan
    values[:, 3] = np.nan
    said = Joint(6).run(at, values)
    assert np.isfinite(said.score).all()
    assert not said.alert[1190:1290].any()


def test_duplicates_and_a_clock_that_steps_back_are_left_aside_until_it_stays_back():
    at, values = machine()
    at = at.copy()
    at[1000], at[1100:1110] = at[999], at[500:510]
    said = Joint(5).run(at, values)
    assert said.verdict[1000] == Verdict.DUPLICATE
    assert (said.verdict[1100:1110] == Verdict.BACKWARD).all()
    assert said.verdict[1110] in {Verdict.SCORED, Verdict.WARMING}
    back = at.copy()
    back[1200:] -= 900 * MINUTE
    assert Joint(5).run(back, values).verdict[1400] != Verdict.BACKWARD


def test_nothing_is_said_within_the_first_hundred_rows_and_only_the_far_outside_pages_on_the_first_day():
    at, values = machine()
    values[700:706] *= 1.5
    values[900:906] *= 100
    said = Joint(5).run(at, values)
    assert said.score[:100].max() == 0.0
    assert not said.alert[:890].any()
    assert said.alert[900:906].any()


def test_a_false_alarm_is_learnt_from_within_bounds():
    joint = Joint(2)
    for _ in range(9):
        joint.feedback(false_alarm=True)
    low = joint._state.levels[4]
    assert low == joint.settings.budget_per_day / 8
    for _ in range(9):
        joint.feedback(false_alarm=False)
    assert joint._state.levels[4] == joint.settings.budget_per_day


def test_bad_shapes_and_damaged_states_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="at least one metric"):
        Joint(0)
    with pytest.raises(ValueError, match="do not go with values of shape"):
        Joint(3).run(np.zeros(2, dtype=np.int64), np.zeros((2, 4)))
    kept = Joint(3).save()
    for bad, word in (
        (b"", "no kept state"),
        (kept[:-1], "damaged"),
        (kept[:60] + b"x" + kept[61:], "damaged"),
        (b"TWJOINT9" + kept[8:], "no kept state"),
    ):
        with pytest.raises(ValueError, match=word):
            Joint.restore(bad)


def test_the_state_of_a_machine_is_bounded():
    at, values = machine(columns=38, rows=1500)
    joint = Joint(38)
    joint.run(at, values)
    assert len(joint.save()) <= 38 * 32 * 1024


@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(120, 200), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_statistics_of_the_pca_are_those_of_a_naive_one(seed, columns, rows, still):
    rng = np.random.default_rng(seed)
    window = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns)) + 3.0
    if still:
        window[:, 0] = 5.0
    row = window[-1] + rng.normal(size=columns) * (0.0 if still else 1.0)
    model = joint_model.fit(window)
    t2, spe = joint_model.components(model, row)

    ordered = np.sort(window, axis=0)
    middle = ordered[rows // 2]
    quarter = (ordered[rows * 3 // 4] - ordered[rows // 4]) / 1.349
    scale = np.maximum(quarter, (ordered[rows * 99 // 100] - ordered[rows // 100]) / 4.65)
    moving = np.ptp(window, axis=0) > 0
    scale[~moving] = 1.0
    z = np.clip((window - middle) / scale, -6, 6) * moving
    shared = np.cov(z, rowvar=False, bias=True)
    values, vectors = np.linalg.eigh(shared)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(values), 0.9 * values.sum())) + 1
    kept = min(kept, columns - 1)
    floor = max(float(np.median(np.maximum(values[kept:], 0))), 0.02)
    now = np.clip(np.clip((row - middle) / scale, -30, 30) - z.mean(axis=0), -12, 12) * moving
    parts = (now @ vectors) ** 2 / np.maximum(values, floor)
    assert t2 == pytest.approx(parts[:kept].sum(), rel=1e-6, abs=1e-8)
    assert spe == pytest.approx(parts[kept:].sum(), rel=1e-6, abs=1e-8)

    live = np.flatnonzero(moving)
    ridge = shared + np.eye(columns) * (0.02 * np.trace(shared) / len(live) + 1e-9)
    inverse = np.linalg.inv(ridge[np.ix_(live, live)])
    whole = ((window - middle) / scale - z.mean(axis=0))[:, live]
    left = whole @ inverse / np.sqrt(np.diag(inverse))
    ends = np.sort(left, axis=0)
    wide = np.maximum(ends[rows * 99 // 100] - ends[rows // 100], 0.5)
    e = ((row - middle) / scale - z.mean(axis=0))[live] @ inverse / np.sqrt(np.diag(inverse))
    naive = np.clip(np.maximum(e - ends[-1], ends[0] - e) / wide, 0, 10)
    found = joint_model.residuals(model, row, np.zeros(columns))
    assert found[live] == pytest.approx(naive, rel=1e-5, abs=1e-6)


def test_a_tail_says_how_rarely_a_height_comes_and_back_again():
    blocks = np.random.default_rng(3).exponential(2.0, 400)
    tail = joint_tail.fitted(blocks, 400, 24.0)
    for height in (7.0, 8.0, 9.0):
        seen = -np.log10(24.0 * float(np.exp(-height / 2.0)))
        assert joint_tail.rarity(tail, height) == pytest.approx(seen, abs=0.5)
        assert joint_tail.height(tail, joint_tail.rarity(tail, height)) == pytest.approx(height)
    rising = [joint_tail.rarity(tail, each) for each in np.linspace(0, 30, 100)]
    assert (np.diff(rising) >= 0).all()


def test_made_machines_with_known_events_are_mostly_found_and_rarely_paged_beside():
    found = false = events = 0
    for number, columns in ((2, 25), (4, 8), (5, 12)):
        made = made_machines.make(13, number, columns)
        at = np.arange(len(made.values), dtype=np.int64) * MINUTE
        alert = Joint(columns, JointSettings()).run(at, made.values).alert
        inside = np.zeros(len(alert), dtype=bool)
        for event in made.events:
            span = slice(max(0, event.first - 5), event.last + 1)
            inside[span] = True
            found += bool(alert[span].any())
        events += len(made.events)
        false += int((alert & ~inside)[made.scored_from :].sum())
    assert found >= 0.4 * events
    assert false <= 17, "half a page a machine-day at most"
