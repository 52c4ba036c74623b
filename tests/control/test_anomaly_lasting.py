"""What a detector noticed counts only when it lasts: the same measure for every series, in its own widths."""

from __future__ import annotations

import math
import random

import pytest

from control.anomaly_lasting import LONGEST, PENDING, Lasting
from kernel.time import SECOND, Instant
from monitor.watched import Harm


class Series:
    """A series read every second; a word may come with any reading."""

    def __init__(self, harm: Harm = Harm.UP, seed: int = 1) -> None:
        self.lasting, self.now_s, self.rng = Lasting(harm), 0, random.Random(seed)

    def read(self, value: float, *, word: bool = False) -> bool:
        self.now_s += 1
        return self.lasting.take(Instant(self.now_s * SECOND), value, word=word)

    def calm(self, seconds: int, middle: float = 100.0, *, word_at: int = -1) -> list[bool]:
        return [self.read(middle + self.rng.uniform(-5, 5), word=n == word_at) for n in range(seconds)]


def test_a_spike_that_is_over_before_anybody_could_look_asks_for_nobody():
    series = Series()
    series.calm(240)
    told = [series.read(500.0, word=True), *(series.read(500.0) for _ in range(5)), *series.calm(90)]
    assert not any(told)


def test_a_level_that_stays_counts_within_the_window_and_until_it_is_back():
    series = Series()
    series.calm(240)
    told = [series.read(120.0, word=True), *(series.read(120.0) for _ in range(40))]
    assert told.index(True) <= 12
    assert all(told[told.index(True) :])
    assert series.lasting.sentence("orders/s").startswith("120 orders/s over 20 s, expected 9")
    assert not any(series.calm(30)[15:])


def test_a_creep_counts_once_it_has_gone_far_enough_though_the_word_came_early():
    series = Series()
    series.calm(240)
    told = [series.read(105.0 + 0.5 * n, word=n == 0) for n in range(50)]
    assert True in told
    assert told.index(True) > 12


def test_a_word_that_nothing_follows_is_forgotten_after_a_minute():
    series = Series()
    series.calm(240)
    series.read(106.0, word=True)
    series.calm(PENDING // SECOND + 1)
    assert series.lasting.band is None
    assert not any(series.read(130.0) for _ in range(30)), "without a new word nothing counts"


def test_before_two_minutes_were_seen_nobody_is_asked():
    series = Series()
    series.calm(120)
    assert not any([series.read(900.0, word=True), *(series.read(900.0) for _ in range(60))])


@pytest.mark.parametrize(("harm", "value", "counts"), [
    (Harm.UP, 150.0, True), (Harm.UP, 50.0, False), (Harm.DOWN, 50.0, True), (Harm.DOWN, 150.0, False),
    (Harm.BOTH, 150.0, True), (Harm.BOTH, 50.0, True),
])  # fmt: skip
def test_only_the_side_that_does_harm_counts(harm, value, counts):
    series = Series(harm)
    series.calm(240)
    assert any([series.read(value, word=True), *(series.read(value) for _ in range(30))]) is counts


def test_hundredths_of_a_value_that_never_moves_are_nobodys_business():
    series = Series()
    for _ in range(240):
        series.read(52_850_000.0)
    assert not any([series.read(52_990_000.0, word=True), *(series.read(52_990_000.0) for _ in range(40))])


def test_what_lasts_for_long_has_become_usual_and_what_ends_is_not_told_of_any_more():
    series = Series()
    series.calm(240)
    told = [series.read(200.0, word=True), *(series.read(200.0) for _ in range(LONGEST // SECOND + 1))]
    assert told[60]
    assert not told[-1]
    again = Series()
    again.calm(240)
    assert [again.read(200.0, word=True), *(again.read(200.0) for _ in range(30))][-1]
    assert not [again.read(math.nan) for _ in range(15)][-1]


@pytest.mark.parametrize(("far", "back", "stands"), [
    (200.0, 109.0, False), (200.0, 115.0, True), (117.5, 109.0, True), (117.5, 103.0, False),
])  # fmt: skip
def test_what_was_far_away_is_over_when_most_of_it_is_though_a_little_stays(far, back, stands):
    series = Series()
    series.calm(240)
    assert [series.read(far, word=True), *(series.read(far) for _ in range(40))][-1]
    kept = Lasting.restore(Harm.UP, series.lasting.kept())
    told = [series.read(back) for _ in range(25)]
    assert told[-1] is stands
    again = [kept.take(Instant((series.now_s - 24 + n) * SECOND), back, word=False) for n in range(25)]
    assert again == told, "a restart changes nothing"
