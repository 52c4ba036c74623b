"""The words of a finding hold with its numbers: what lies inside the expected range is never said to be outside."""

from __future__ import annotations

import re

import numpy as np
import pytest

from anomaly import kernel
from anomaly.detector import Channel, Sample
from anomaly.series import Series
from anomaly.words import finding_of
from kernel.time import DAY, MINUTE, Instant

STEP = 5 * MINUTE
A_DAY = DAY // STEP


def made(kind):
    rng = np.random.default_rng(11)
    values = rng.normal(50.0, 1.0, 1500)
    rows = np.arange(1500)
    match kind:
        case "restless":
            values[1200:1260] = 50.0 + 3.0 * (-1.0) ** rows[1200:1260]
        case "sagging":
            values[1200:1230] = 48.6 + rng.normal(0.0, 0.2, 30)
        case "outside":
            values[1200:1210] = 75.0
        case "frozen":
            values[1200:] = 50.4
        case "season":
            values = 50.0 + 20.0 * np.sin(rows / A_DAY * 2 * np.pi) + rng.normal(0.0, 0.5, 1500)
            values[1290:1320] = 50.0 + rng.normal(0.0, 0.5, 30)
    return values


def told(kind):
    """Each row with a finding, and whether it pages."""
    series = Series()
    for row, value in enumerate(made(kind)):
        score = series.update(Sample(Instant(row * STEP), float(value)))
        if score.finding is not None:
            yield score.finding, score.alert


@pytest.mark.parametrize("kind", ["restless", "sagging", "outside", "frozen", "season"])
def test_what_is_said_of_the_range_is_true(kind):
    pages = 0
    for finding, paged in told(kind):
        inside = finding.low <= finding.value <= finding.high
        assert (", within the usual " in finding.sentence) == inside, finding.sentence
        assert (", expected " in finding.sentence) != inside
        assert ("not yet calm after" in finding.sentence) == (inside and not paged), finding.sentence
        if inside:
            assert not re.search("(highest|lowest) in", finding.sentence), finding.sentence
        pages += paged
    assert pages


def test_pages_of_values_inside_their_range_were_seen():
    """Else the test above would hold of nothing."""
    seen = {finding.channel for kind in ("restless", "sagging", "frozen", "season") for finding, paged in told(kind)
            if paged and finding.low <= finding.value <= finding.high}  # fmt: skip
    assert Channel.FLATLINE in seen
    assert len(seen) >= 2


@pytest.mark.parametrize("channel", [one for one in Channel if one not in {Channel.NONE, Channel.JOINT}])
def test_no_reason_of_a_page_inside_the_range_says_that_the_value_is_outside(channel):
    state = kernel.blank(1)[0]
    state["channel"], state["value"], state["low"], state["high"] = channel, 5.0, 1.0, 9.0
    state["tail"][kernel.NOVEL]["quantile"] = [1, 2, 3, 5, 7, 8, 9]
    state["clock"]["expected"], state["clock"]["usual_error"] = 5.0, 1.0
    state["last_page"] = state["tick"] = 700
    finding = finding_of(state)
    assert finding is not None
    reason = finding.sentence.partition(": ")[2]
    assert finding.sentence.startswith("5, within the usual ")
    assert not re.match("far from|outside|a new level", reason) or channel is Channel.SPIKE, finding.sentence
