import json
import random

import numpy as np
import pytest

from anomaly.detector import Channel, Scores
from anomaly.detector import Finding as SeriesFinding
from anomaly.log_rates import GAP_MAX, LogWatcher, Why, score_log
from anomaly.templates import Limits
from kernel.errors import PermanentError
from kernel.time import SECOND, Instant

START = Instant(1_772_443_800 * SECOND)
WARM = Limits(warm_lines=200)


class Plain:
    """A fleet of running means: enough to see what it is given and to raise an alert for four deviations."""

    def __init__(self, count):
        self.past = [[] for _ in range(count)]
        self.given = []

    def __len__(self):
        return len(self.past)

    def advance(self, at, values, slots=None):
        self.given.append(values.copy())
        score = np.zeros(len(values))
        for i, value in enumerate(values):
            past = self.past[i]
            if np.isnan(value):
                continue
            if len(past) >= 20:
                apart = abs(value - np.mean(past)) / max(1.0, np.std(past))
                score[i] = min(1.0, apart / 8)
            past.append(float(value))
        self.score = score
        nothing = np.zeros(len(values))
        return Scores(
            score, score >= 0.5, score >= 0.5, nothing.astype(np.int8), nothing, nothing, nothing.astype(np.int8)
        )

    def finding(self, index):
        if self.score[index] < 0.5:
            return None
        return SeriesFinding(
            START, Channel.SPIKE, self.past[index][-1], 1, 2, f"{self.past[index][-1]:g}, expected few"
        )

    def feedback(self, index, *, false_alarm):
        raise AssertionError("nobody asked")

    def restart(self, index):
        raise AssertionError("a place in a log's fleet is given on, never begun anew")

    def vacate(self, index):
        self.past[index] = []

    def save(self):
        return json.dumps(self.past).encode()

    @classmethod
    def restore(cls, state):
        made = cls(0)
        made.past = json.loads(state)
        return made


def at(s):
    return Instant(START + round(s * SECOND))


def minutes(seed, n, per=20, first=0):
    """Give `n` minutes of a log in which two kinds of lines come about `per` times each."""
    chance = random.Random(seed)
    for minute in range(first, first + n):
        for kind in ("order {} accepted", "trade {} of {} lots settled"):
            count = max(0, round(chance.gauss(per, 2)))
            for i in range(count):
                yield kind.format(chance.randrange(999), i), at(60 * minute + 60 * i / (count + 1))


def watched(**more):
    fleets = []

    def make(count):
        fleets.append(Plain(count))
        return fleets[-1]

    return LogWatcher(make, limits=WARM, rated=10, **more), fleets


def fed(watcher, pairs):
    return [bucket for line, when in sorted(pairs, key=lambda pair: pair[1]) for bucket in watcher.add(line, when)]


def test_a_calm_log_has_a_bucket_a_minute_and_no_alert():
    watcher, _ = watched()
    buckets = fed(watcher, minutes(1, 60)) + watcher.finish()
    assert len(buckets) == 60
    assert not any(bucket.alert for bucket in buckets)
    assert [bucket.at for bucket in buckets[:2]] == [at(60), at(120)]


def test_a_kind_that_comes_too_often_is_told_with_an_example():
    watcher, _ = watched()
    fed(watcher, minutes(2, 60))
    burst = [("order 17 accepted", at(3600 + i / 10)) for i in range(300)]
    (bucket,) = [one for one in fed(watcher, burst) + watcher.finish() if one.at == at(3660)]
    assert bucket.alert
    found = next(one for one in bucket.findings if one.text == "order <n> accepted")
    assert found.why is Why.RATE
    assert found.sentence.startswith("“order <n> accepted”, lines in a minute: 300, expected few; such as: order ")


def test_a_kind_that_stops_while_others_come_is_a_true_zero():
    watcher, fleets = watched()
    fed(watcher, minutes(3, 60))
    rest = [pair for pair in minutes(4, 3, first=60) if pair[0].startswith("order")]
    buckets = fed(watcher, rest) + watcher.finish()
    assert any(one.alert and one.text.startswith("trade") for bucket in buckets for one in bucket.findings)
    slot = watcher._slots[next(one.id for one in watcher.templates.all() if one.text.startswith("trade"))]
    assert fleets[0].given[-1][slot] == 0


@pytest.mark.parametrize(("alive", "whole", "kind"), [(None, 0.0, None), (True, 0.0, 0.0), (False, None, None)])
def test_silence_is_zero_or_missing_by_what_is_known_of_the_log(alive, whole, kind):
    watcher, fleets = watched()
    fed(watcher, minutes(5, 40))
    watcher.advance(at(60 * 40), alive=None)
    watcher.advance(at(60 * 45), alive=alive)
    slot = next(iter(watcher._slots.values()))
    for given in fleets[0].given[-4:]:
        for value, meant in ((given[0], whole), (given[slot], kind)):
            assert np.isnan(value) if meant is None else value == meant


def test_a_never_seen_kind_is_an_alert_after_a_long_quiet_and_a_murmur_after_a_short_one():
    watcher, _ = watched()
    fed(watcher, minutes(6, 90))
    buckets = fed(watcher, [("the journal is torn", at(5_401)), ("order 1 accepted", at(5_470))])
    first = next(found for bucket in buckets for found in bucket.findings if found.why is Why.NEW)
    assert first.alert
    assert "never seen, after 90 times a minute without one: “the journal is torn”" in first.sentence
    fed(watcher, minutes(7, 5, first=92))
    buckets = fed(watcher, [("another thing broke now", at(5_845)), ("order 1 accepted", at(5_900))])
    second = next(found for bucket in buckets for found in bucket.findings if found.why is Why.NEW)
    assert not second.alert
    assert 0 < second.score < 0.5


def test_a_gap_of_a_year_costs_no_more_than_its_bound():
    watcher, fleets = watched()
    watcher.add("order 1 accepted", at(0))
    buckets = watcher.add("order 2 accepted", at(400 * 86_400))
    assert len(buckets) <= GAP_MAX + 2
    assert len(fleets[0].given) == len(buckets)


def test_a_line_that_comes_late_counts_where_it_comes():
    watcher, _ = watched()
    watcher.add("order 1 accepted", at(130))
    assert watcher.add("order 2 accepted", at(10)) == []
    assert watcher.finish()[0].lines == 2


def test_a_template_that_was_let_go_of_gives_its_place_back():
    fleets = []

    def make(count):
        fleets.append(Plain(count))
        return fleets[-1]

    watcher = LogWatcher(make, limits=Limits(templates=8), rated=3)
    chance = random.Random(8)
    for i in range(4_000):
        kind = "".join(chance.choices("abcdefgh", k=6))
        watcher.add(f"{kind} {kind[::-1]} came" if i % 3 else f"part {i // 500 * 'x'}y is well", at(i))
    assert len(watcher._slots) + len(watcher._free) == 3
    assert len(set(watcher._slots.values()) | set(watcher._free)) == 3


def test_a_restored_watcher_goes_on_bit_for_bit():
    pairs = sorted(minutes(9, 80), key=lambda pair: pair[1])
    whole, _ = watched()
    fed(whole, pairs[:2_000])
    other = LogWatcher.restore(whole.save(), Plain, Plain.restore)
    assert other.save() == whole.save()
    rest = [*pairs[2_000:], ("the journal is torn", at(4_801))]
    assert fed(other, rest) + other.finish() == fed(whole, rest) + whole.finish()
    assert other.save() == whole.save()


@pytest.mark.parametrize("state", [b"", b"{}\n", b'{"version":9}\n', b'{"version":1}\n', b"\xff\n", b"[]\n{}"])
def test_a_state_that_is_none_is_refused_in_a_sentence(state):
    with pytest.raises(PermanentError, match="log: the state"):
        LogWatcher.restore(state, Plain, Plain.restore)


def test_a_state_that_is_cut_is_refused():
    watcher, _ = watched()
    fed(watcher, minutes(10, 5))
    with pytest.raises(PermanentError, match="bytes"):
        LogWatcher.restore(watcher.save()[:-9], Plain, Plain.restore)


def test_later_lines_never_change_the_score_of_a_bucket():
    calm = sorted(minutes(11, 50), key=lambda pair: pair[1])
    pairs = [*calm, ("odd thing", at(3_001)), ("order 1 accepted", at(3_100))]
    whole = score_log([line for line, _ in pairs], [when for _, when in pairs], Plain, limits=WARM)
    cut = pairs[: len(pairs) // 2]
    part = score_log([line for line, _ in cut], [when for _, when in cut], Plain, limits=WARM)
    assert whole[: len(part) - 1] == part[:-1]
