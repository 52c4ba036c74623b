"""What each channel gave to a row: it changes no score, and its votes are those that made the row page or not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from anomaly import kernel
from anomaly import tail as tails
from anomaly.contributions import FLATLINE, NAMES
from anomaly.detector import Channel, Sample
from anomaly.series import Series
from anomaly.settings import VOTERS, Settings
from kernel.time import DAY, MINUTE, Instant

STEP = 5 * MINUTE
A_DAY = DAY // STEP
CLOCKS = slice(kernel.CLOCK_NOW, kernel.CLOCK_SHORT + 1)


def explained(values, settings=None, at=None):
    """The series after the last row, and what was said of each."""
    series = Series(settings or Settings())
    stamps = (np.arange(len(values)) * STEP).tolist() if at is None else at
    return series, [series.explain(Sample(Instant(t), float(x))) for t, x in zip(stamps, values, strict=True)]


def made(kind, seed):
    rng = np.random.default_rng(seed)
    values = {
        "noise": rng.normal(10.0, 1.0, 900),
        "day": 10.0 + 5.0 * np.sin(np.arange(900) / A_DAY * 2 * np.pi) + rng.normal(0.0, 0.3, 900),
        "heavy": rng.standard_t(3, 900),
        "counts": rng.poisson(2.0, 900).astype(float),
        "job": rng.normal(0.0, 1.0, 900) + 30.0 * (np.arange(900) % 90 == 89),
    }[kind]
    values[700:730] += {"noise": 3.0, "day": 4.0, "heavy": 15.0, "counts": 6.0, "job": 20.0}[kind]
    return values


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("kind", ["noise", "day", "heavy", "counts", "job"])
def test_the_votes_are_those_that_page(kind, seed):
    """Until the first page nothing but the votes decides: after it an episode holds others back."""
    settings = Settings()
    said = explained(made(kind, seed), settings)[1]
    first = next((row for row, (score, _) in enumerate(said) if score.alert), len(said))
    for row, (score, each) in enumerate(said[: first + 1]):
        votes = [one.votes for one in each]
        assert votes[kernel.SPIKE] is votes[kernel.FORM] is None
        agreed = sum(votes[:VOTERS]) >= settings.votes or all(votes[CLOCKS]) or votes[-1]
        assert agreed == score.alert, f"row {row}: {each}"
    assert first < len(said) or kind == "counts"


def test_asking_changes_no_score_and_no_state():
    values = made("noise", 4)
    values[300], values[301:304] = 60.0, np.nan
    asked, said = explained(values)
    plain = Series()
    scores = [plain.update(Sample(Instant(row * STEP), float(x))) for row, x in enumerate(values)]
    assert [repr(score) for score, _ in said] == [repr(score) for score in scores]
    assert asked.save() == plain.save()


def test_figures_are_those_of_the_past_before_the_row():
    """Worked out once more from the state itself, with plain numbers."""
    series, _ = explained(made("noise", 5)[:600])
    past = series._states["tail"][0][kernel.NOVEL].copy()
    _, each = series.explain(Sample(Instant(600 * STEP), 17.0))
    one = dict(zip((*NAMES, FLATLINE), each, strict=True))["novelty"]
    quantile = past["quantile"]
    assert (one.value, one.low, one.high) == (17.0, past["low"], past["high"])
    assert one.beyond == pytest.approx((17.0 - past["high"]) / (quantile[tails.Q99] - quantile[tails.Q01]), rel=1e-4)
    assert one.one_in > 100
    middle = explained([*made("noise", 5)[:600], float(quantile[tails.Q50])])[1][-1][1][kernel.NOVEL]
    assert middle.one_in == 1.0
    assert middle.beyond < 0
    assert middle.why == "within its record"
    averages = series._states["averages"][0]
    assert each[kernel.DRIFT].value == averages["short"] - averages["day"]
    assert all(math.isnan(each[j].low) for j in (kernel.NEAR, kernel.RESTLESS, kernel.FORM))


def test_each_reason_for_no_vote_is_told():
    early = explained(made("noise", 6)[:50])[1][-1][1]
    assert {one.why for one in early[:VOTERS]} == {"its past is too short"}
    assert {one.why for one in early[CLOCKS]} == {"no season is confirmed"}
    seen = explained(made("job", 6)[:630])[1][-1][1]  # the seventh of a job's peaks: high, and no news
    assert seen[kernel.NOVEL].votes is False
    again = np.random.default_rng(6).normal(10.0, 1.0, 500)
    again[400], again[440] = 30.0, 30.5
    assert explained(again[:441])[1][-1][1][kernel.NOVEL].why == "as far out not long ago"
    off = explained(made("noise", 6)[:300], Settings(use_drift=False, use_clock=False))[1][-1][1]
    assert off[kernel.DRIFT].why == off[kernel.CLOCK_NOW].why == "switched off"


def test_of_a_false_alarm_more_is_asked_and_the_reason_says_how_much():
    values = np.random.default_rng(7).normal(10.0, 1.0, 500)
    series, _ = explained(values)
    series.feedback(false_alarm=True)
    just = float(series._states["tail"][0][kernel.NOVEL]["high"]) + 0.25
    one = series.explain(Sample(Instant(500 * STEP), just))[1][kernel.NOVEL]
    assert one.votes is False
    assert one.why.startswith("beyond by less than 0.")
    calm = explained(values)[0].explain(Sample(Instant(500 * STEP), just))[1][kernel.NOVEL]
    assert calm.votes is True


def test_a_value_that_stands_still_is_told_by_flatline_alone_and_once():
    values = np.random.default_rng(8).normal(10.0, 1.0, 700)
    values[600:] = 10.0123
    said = explained(values)[1]
    (page,) = [row for row, (score, _) in enumerate(said) if score.channel is Channel.FLATLINE and score.alert]
    still = said[page][1][-1]
    assert (still.channel, still.value, still.votes) == (FLATLINE, page - 600, True)
    assert said[page + 1][1][-1].why == "it was told already"
    assert said[599][1][-1].why == "it moves"


def test_rows_that_are_not_judged_have_no_contributions():
    values = [*made("noise", 9)[:300], np.nan, 5.0, 5.0]
    at = [*(np.arange(302) * STEP).tolist(), 301 * STEP]
    said = explained(values, at=at)[1]
    assert said[300][1] == said[302][1] == ()
    assert len(said[301][1]) == len(NAMES) + 1
