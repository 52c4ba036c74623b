"""A load that follows the calendar is quiet before the open, busiest at it, and silent after the close."""

from __future__ import annotations

import pytest

from exchange.calendar import calendar_of
from exchange.pace import RUSH, SessionPace, always
from kernel.time import HOUR, MINUTE, SECOND, Instant, from_rfc3339

DAY = {
    "zone": "Etc/UTC",
    "sessions": {
        "regular": [
            {"phase": "pre_open", "from": "08:00"},
            {"phase": "opening_auction", "from": "08:50"},
            {"phase": "continuous", "from": "09:00"},
            {"phase": "closing_auction", "from": "17:30"},
            {"phase": "closed", "from": "17:40"},
        ],
        "half": [{"phase": "continuous", "from": "09:00"}, {"phase": "closed", "from": "12:00"}],
    },
    "week": {"monday": "regular", "tuesday": "regular"},
    "days": {"2026-11-24": "half"},
}


def at(text: str) -> Instant:
    return from_rfc3339(text)


@pytest.mark.parametrize(
    ("when", "factor"),
    [
        ("2026-11-23T07:59:59Z", 0.0),
        ("2026-11-23T08:30:00Z", 0.25),
        ("2026-11-23T08:55:00Z", 0.5),
        ("2026-11-23T09:00:00Z", 1.0 + RUSH),
        ("2026-11-23T15:00:00Z", 1.0),
        ("2026-11-23T17:35:00Z", 1.2),
        ("2026-11-23T18:00:00Z", 0.0),
        ("2026-11-24T11:59:59Z", 1.0),
        ("2026-11-24T12:00:00Z", 0.0),
    ],
)
def test_each_phase_has_its_pace(when, factor):
    assert SessionPace(calendar_of(DAY))(at(when)) == pytest.approx(factor, abs=1e-3)


def test_the_rush_at_the_open_ebbs_away_and_never_grows():
    pace, opened = SessionPace(calendar_of(DAY)), at("2026-11-23T09:00:00Z")
    seen = [pace(Instant(opened + minute * MINUTE)) for minute in range(0, 60, 5)]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 2 * seen[-1]


def test_the_pace_is_the_same_whether_asked_in_order_or_not():
    calendar, opened = calendar_of(DAY), at("2026-11-23T09:00:00Z")
    moments = [Instant(opened + hours * HOUR + 7 * SECOND) for hours in (9, -1, 2, 30, 0, 15)]
    pace = SessionPace(calendar)
    assert [pace(one) for one in moments] == [SessionPace(calendar)(one) for one in moments]


def test_without_a_calendar_it_is_always_as_busy():
    assert {always(Instant(0)), always(at("2026-11-23T03:00:00Z"))} == {1.0}
