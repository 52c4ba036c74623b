"""Phases of the market as Alertmanager's intervals: they agree with the calendar, second by second."""

import calendar as month_lengths
import datetime as dt
import zoneinfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exchange.calendar import WEEKDAYS, Calendar, PhaseName, Turn
from kernel.time import SECOND, Instant
from monitor.routing.intervals import YEARS_AHEAD, hours_intervals, name_of, phase_intervals
from monitor.routing.model import Hours
from monitor.routing.walk import contains

YEAR = 2026
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu",
    "Africa/Cairo", "Pacific/Chatham", "America/Santiago",
]  # fmt: skip


# --- the oracle: every range written out ---


def numbers(ranges):
    return {n for text in ranges for n in range(int(text.split(":")[0]), int(text.split(":")[-1]) + 1)}


def inside(rows, at_s) -> bool:
    """Tell as Alertmanager does whether a second lies in a list of intervals."""
    for row in rows:
        wall = dt.datetime.fromtimestamp(at_s, zoneinfo.ZoneInfo(row.get("location", "UTC")))
        fits = [
            f"{wall:%A}".lower() in row.get("weekdays", WEEKDAYS),
            "days_of_month" not in row or wall.day in numbers(row["days_of_month"]),
            "months" not in row or wall.month in numbers(row["months"]),
            "years" not in row or wall.year in numbers(row["years"]),
            any(one["start_time"] <= f"{wall:%H:%M}" < one["end_time"] for one in row["times"]),
        ]
        if all(fits):
            return True
    return False


# --- calendars ---

minutes = st.one_of(st.integers(0, 4 * 60), st.integers(0, 1439))


@st.composite
def sessions(draw, *, by_second=False):
    at = sorted(draw(st.sets(st.integers(0, 86_399) if by_second else minutes.map(lambda m: m * 60), max_size=6)))
    turns, last = [], PhaseName.CLOSED
    for place, at_s in enumerate(at):
        ends = place == len(at) - 1
        if ends and last is PhaseName.CLOSED:
            break
        phase = PhaseName.CLOSED if ends else draw(st.sampled_from([one for one in PhaseName if one is not last]))
        turns.append(Turn(at_s, phase))
        last = phase
    return tuple(turns)


def transitions(zone, year):
    """Return the days on which the clock is set."""
    days = [dt.date(year, 1, 1) + dt.timedelta(days=n) for n in range(366)]
    at = [dt.datetime.combine(day, dt.time(), zone).utcoffset() for day in days]
    return [day for day, before, after in zip(days, at, at[1:], strict=False) if before != after]


SET = {(name, year): transitions(zoneinfo.ZoneInfo(name), year) for name in ZONES for year in (YEAR, YEAR + 3)}


@st.composite
def moments(draw, *, by_second=False):
    """Return a calendar, phases, and a second that is likely to be near a turn."""
    zone = draw(st.sampled_from(ZONES))
    year = draw(st.sampled_from([YEAR, YEAR + 3]))
    some = st.dates(dt.date(year, 1, 1), dt.date(year, 12, 31))
    day = draw(st.one_of(st.sampled_from(SET[zone, year]), some) if SET[zone, year] else some)
    one = sessions(by_second=by_second)
    week = tuple(draw(one) for _ in WEEKDAYS)
    days = draw(
        st.dictionaries(st.one_of(some, st.just(day), st.sampled_from([day + dt.timedelta(days=1)])), one, max_size=4)
    )
    calendar = Calendar(zone=zoneinfo.ZoneInfo(zone), week=week, days=days)
    turns = [turn.at_s for turn in days.get(day, week[day.weekday()])] or [0]
    at_s = draw(st.sampled_from(turns)) + draw(st.one_of(st.integers(-90, 90), st.integers(-2 * 3600, 2 * 3600)))
    if draw(st.booleans()):
        at_s = draw(st.integers(0, 86_399))
    midnight = dt.datetime.combine(day, dt.time(), zoneinfo.ZoneInfo(zone)).timestamp()
    phases = frozenset(draw(st.sets(st.sampled_from(list(PhaseName)), min_size=1)))
    return calendar, phases, round(midnight) + at_s


BERLIN = Calendar(
    zone=zoneinfo.ZoneInfo("Europe/Berlin"),
    week=((Turn(9000, PhaseName.CONTINUOUS), Turn(10_200, PhaseName.CLOSED)),) * 7,
)
TWICE = (BERLIN, frozenset({PhaseName.CONTINUOUS}), round(dt.datetime(2026, 10, 25, 1, 10, tzinfo=dt.UTC).timestamp()))
"""02:10 by the second pass: the market opened at 02:30 by the first and closed at 02:50."""


TWICE_ITS_OWN = (Calendar(BERLIN.zone, ((),) * 7, {dt.date(2026, 10, 25): BERLIN.week[0]}), TWICE[1], TWICE[2] + 1800)
WITHIN = (Calendar(BERLIN.zone, ((Turn(9030, PhaseName.CONTINUOUS), Turn(10_230, PhaseName.CLOSED)),) * 7), *TWICE[1:])


@given(moments())
@example(TWICE)
@example(TWICE_ITS_OWN)
@settings(max_examples=150, deadline=None)
def test_an_alert_is_muted_exactly_in_its_phases(moment):
    calendar, phases, at_s = moment
    rows = phase_intervals(calendar, phases, YEAR)
    wanted = calendar.phase_at(Instant(at_s * SECOND)).name in phases
    assert inside(rows, at_s) is wanted
    assert any(contains(row, Instant(at_s * SECOND)) for row in rows) is wanted


@given(moments(by_second=True))
@example((*WITHIN[:2], round(dt.datetime(2026, 11, 27, 1, 30, 10, tzinfo=dt.UTC).timestamp())))
@example((*WITHIN[:2], round(dt.datetime(2026, 11, 27, 1, 50, 40, tzinfo=dt.UTC).timestamp())))
@settings(max_examples=60, deadline=None)
def test_a_phase_that_begins_within_a_minute_is_muted_too_little_never_too_much(moment):
    calendar, phases, at_s = moment
    muted = inside(phase_intervals(calendar, phases, YEAR), at_s)
    at = Instant(at_s * SECOND)
    if muted:
        assert calendar.phase_at(at).name in phases
    elif calendar.phase_at(at).name in phases:
        around = [calendar.phase_at(Instant(at + s * SECOND)).name in phases for s in range(-60, 61)]
        assert not all(around), "a whole minute within the phases is left out"


def test_an_hour_that_is_shown_twice_is_told_apart_for_the_years_ahead_and_ordinary_days_stay_weekly():
    _, phases, at_s = TWICE
    rows = phase_intervals(BERLIN, phases, YEAR)
    assert len([row for row in rows if row["location"] == "UTC"]) == YEARS_AHEAD
    plain = [{**row, "location": "Europe/Berlin"} for row in rows if row["location"] != "UTC"]
    assert not inside(plain, at_s - 3600), "the day is taken out of the weekly intervals"


def test_a_week_without_days_of_its_own_is_a_handful_of_intervals_for_ever():
    day = (Turn(9 * 3600, PhaseName.CONTINUOUS), Turn(17 * 3600, PhaseName.CLOSED))
    calendar = Calendar(zone=zoneinfo.ZoneInfo("Europe/Berlin"), week=(day,) * 5 + ((), ()))
    rows = phase_intervals(calendar, frozenset({PhaseName.CLOSED}), YEAR)
    assert len(rows) == 2
    assert inside(rows, round(dt.datetime(2099, 6, 6, 12, tzinfo=dt.UTC).timestamp())), "a Saturday"


def test_a_holiday_mutes_that_day_and_no_other():
    day = (Turn(9 * 3600, PhaseName.CONTINUOUS), Turn(17 * 3600, PhaseName.CLOSED))
    holiday = dt.date(2026, 12, 25)
    calendar = Calendar(zone=zoneinfo.ZoneInfo("Europe/Berlin"), week=(day,) * 7, days={holiday: ()})
    rows = phase_intervals(calendar, frozenset({PhaseName.CLOSED}), YEAR)
    noons = {
        n: inside(rows, round(dt.datetime(2026, 12, n, 12, tzinfo=dt.UTC).timestamp()))
        for n in range(1, month_lengths.monthrange(2026, 12)[1] + 1)
    }
    assert [n for n, muted in noons.items() if muted] == [25]


@pytest.mark.parametrize(
    ("at", "working"),
    [
        ("2026-11-27T06:59:59+01:00", False), ("2026-11-27T07:00:00+01:00", True), ("2026-11-27T18:59:59+01:00", True),
        ("2026-11-27T19:00:00+01:00", False), ("2026-11-28T12:00:00+01:00", False), ("2026-07-03T05:30:00+00:00", True),
    ],
)  # fmt: skip
def test_people_work_by_their_own_clock(at, working):
    hours = Hours(name="h", zone="Europe/Berlin", days=tuple(WEEKDAYS[:5]), start_min=420, end_min=1140)
    assert inside(hours_intervals(hours), round(dt.datetime.fromisoformat(at).timestamp())) is working


def test_intervals_are_named_by_their_phases():
    assert name_of({PhaseName.PRE_OPEN, PhaseName.CLOSED}) == "phase-closed-or-pre_open"
