"""The market's calendar against one that goes through a day minute by minute."""

import datetime as dt
import zoneinfo
from bisect import bisect_right
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.calendar import AUCTIONS, WEEKDAYS, CalendarError, PhaseName, calendar_of
from kernel.time import HOUR, MINUTE, SECOND, Instant

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Asia/Kolkata", "Australia/Lord_Howe",
    "America/Santiago", "Africa/Cairo", "Asia/Beirut",
]  # fmt: skip
CHANGES = [
    "2026-03-29",
    "2026-10-25",
    "2026-03-08",
    "2026-11-01",
    "2026-04-05",
    "2026-09-06",
    "2026-04-24",
    "2026-10-30",
]
"""Days around which the zones above change their clocks."""
XETRA = {
    "zone": "Europe/Berlin",
    "sessions": {
        "regular": [
            {"phase": "pre_open", "from": "08:00"},
            {"phase": "opening_auction", "from": "08:50"},
            {"phase": "continuous", "from": "09:00"},
            {"phase": "intraday_auction", "from": "13:00"},
            {"phase": "continuous", "from": "13:02"},
            {"phase": "closing_auction", "from": "17:30"},
            {"phase": "closed", "from": "17:35"},
        ],
        "half": [{"phase": "continuous", "from": "09:00"}, {"phase": "closed", "from": "14:00:30"}],
    },
    "week": dict.fromkeys(WEEKDAYS[:5], "regular"),
    "holidays": ["2026-12-25"],
    "days": {"2026-12-30": "half"},
}


def at(text: str, zone: str = "Europe/Berlin") -> Instant:
    moment = dt.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone))
    return Instant(int(moment.timestamp()) * SECOND)


@pytest.mark.parametrize(
    ("moment", "phase"),
    [
        ("2026-03-02 07:59:59", "closed"),
        ("2026-03-02 08:00:00", "pre_open"),
        ("2026-03-02 08:55:00", "opening_auction"),
        ("2026-03-02 09:00:00", "continuous"),
        ("2026-03-02 13:01:59", "intraday_auction"),
        ("2026-03-02 17:34:59", "closing_auction"),
        ("2026-03-02 17:35:00", "closed"),
        ("2026-03-07 10:00:00", "closed"),  # a Saturday
        ("2026-12-25 10:00:00", "closed"),  # a holiday
        ("2026-12-30 14:00:29", "continuous"),  # a half day
        ("2026-12-30 14:00:30", "closed"),
    ],
)
def test_a_day_goes_through_its_phases(moment, phase):
    found = calendar_of(XETRA).phase_at(at(moment))
    assert found.name == phase
    assert found.auction is phase.endswith("auction")


def test_a_phase_knows_its_bounds_and_the_next_auction():
    calendar = calendar_of(XETRA)
    monday = calendar.phase_at(at("2026-03-02 10:00"))
    assert (monday.since, monday.until) == (at("2026-03-02 09:00"), at("2026-03-02 13:00"))
    assert monday.next_auction_at == at("2026-03-02 13:00")
    weekend = calendar.phase_at(at("2026-03-07 10:00"))
    assert (weekend.since, weekend.until) == (at("2026-03-06 17:35"), at("2026-03-09 08:00"))
    assert weekend.next_auction_at == at("2026-03-09 08:50")
    assert calendar.phase_at(at("2026-03-02 08:55")).next_auction_at == at("2026-03-02 13:00")


def test_a_session_follows_the_wall_clock_through_a_change_of_time():
    calendar = calendar_of(XETRA)
    friday, monday = (calendar.phase_at(at(f"{day} 10:00")).since for day in ("2026-03-27", "2026-03-30"))
    assert friday is not None
    assert monday is not None
    assert monday - friday == 3 * 24 * HOUR - HOUR


def test_a_time_shown_twice_counts_the_first_time_and_a_skipped_one_when_it_is_skipped():
    night = {
        "zone": "Europe/Berlin",
        "sessions": {"night": [{"phase": "continuous", "from": "02:30"}, {"phase": "closed", "from": "04:00"}]},
        "week": {"sunday": "night"},
    }
    calendar = calendar_of(night)
    spring = calendar.phase_at(at("2026-03-29 03:30"))
    assert spring.since == at("2026-03-29 03:00")
    autumn = calendar.phase_at(at("2026-10-25 03:30"))
    assert autumn.since is not None
    assert autumn.until is not None
    assert autumn.until - autumn.since == 150 * MINUTE


@st.composite
def calendars(draw):
    def session():
        times = sorted(draw(st.sets(st.integers(0, 1439), min_size=2, max_size=6)))
        phases, last = [], PhaseName.CLOSED
        for _ in times[:-1]:
            last = draw(st.sampled_from([name for name in PhaseName if name is not last]))
            phases.append(last)
        if last is PhaseName.CLOSED:
            phases[-1] = PhaseName.PRE_OPEN if phases[-2:-1] != [PhaseName.PRE_OPEN] else PhaseName.CONTINUOUS
        phases.append(PhaseName.CLOSED)
        return [{"phase": str(p), "from": f"{t // 60:02}:{t % 60:02}"} for p, t in zip(phases, times, strict=True)]

    day = dt.date.fromisoformat(draw(st.sampled_from(CHANGES)))
    special = day + dt.timedelta(days=draw(st.integers(-1, 2)))
    data = {
        "zone": draw(st.sampled_from(ZONES)),
        "sessions": {"a": session(), "b": session()},
        "week": {name: draw(st.sampled_from("ab")) for name in draw(st.sets(st.sampled_from(WEEKDAYS), min_size=1))},
    }
    kind = draw(st.sampled_from(["none", "holiday", "special"]))
    data |= {"holidays": [str(special)]} if kind == "holiday" else {}
    data |= {"days": {str(special): draw(st.sampled_from("ab"))}} if kind == "special" else {}
    return data, day


def naive(data, first, last):
    """Return each minute's phase from one instant to another: the wall clock is looked at, and never goes back."""
    zone, day, phase, shown = zoneinfo.ZoneInfo(data["zone"]), None, "closed", ""
    for utc in range(first - 2 * 86_400, last, 60):
        wall = dt.datetime.fromtimestamp(utc, tz=zone)
        if day is None or wall.date() > day:
            day, shown = wall.date(), ""
        if wall.date() == day:
            shown = max(shown, f"{wall:%H:%M}")
        name = data["week"].get(WEEKDAYS[day.weekday()], "")
        name = "" if str(day) in data.get("holidays", []) else data.get("days", {}).get(str(day), name)
        turns = [turn["phase"] for turn in data["sessions"].get(name, []) if turn["from"] <= shown]
        phase = turns[-1] if turns else "closed"
        if utc >= first:
            yield utc, phase


@settings(max_examples=40, deadline=None)
@given(calendars())
def test_every_minute_is_in_the_phase_that_the_wall_clock_says(made):
    data, day = made
    calendar = calendar_of(data)
    noon = int(dt.datetime.combine(day, dt.time(12), tzinfo=dt.UTC).timestamp())
    minutes = list(naive(data, noon - 86_400, noon + 86_400))
    found = [calendar.phase_at(Instant(utc * SECOND)) for utc, _ in minutes]
    assert [one.name for one in found] == [phase for _, phase in minutes]
    begins = [(after, now) for (_, before), (after, now) in pairwise(minutes) if before != now]
    auctions = [utc for utc, phase in begins if phase.endswith("auction")]
    since, ahead = None, iter([*begins, None])
    following = next(ahead)
    for (utc, _), one in zip(minutes, found, strict=True):
        if following is not None and utc == following[0]:
            since, following = following, next(ahead)
        assert one.auction is (one.name in AUCTIONS)
        assert since is None or one.since == since[0] * SECOND
        assert following is None or one.until == following[0] * SECOND
        coming = auctions[bisect_right(auctions, utc) :]
        assert not coming or one.next_auction_at == coming[0] * SECOND


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"zone": "Europe/Berln"}, r"zone: 'Europe/Berln' is no time zone; did you mean Europe/Berlin\?"),
        ({"zone": "Europe"}, r"zone: 'Europe' is no time zone"),
        ({"zone": "../etc/passwd"}, r"is no time zone"),
        ({"zones": "UTC"}, r"'zones' is not known here; allowed are zone"),
        ({"week": {}}, r"week: no day has a session"),
        ({"week": {"mondag": "regular"}}, r"week.mondag: 'mondag' is not known here; allowed are monday"),
        ({"week": {"monday": "late"}}, r"week.monday: 'late' is no session; one of regular, half"),
        ({"holidays": ["2026-02-30"]}, r"holidays.0: '2026-02-30' is no date"),
        ({"holidays": ["2026-12-25", "2026-12-25"]}, r"holidays.1: 2026-12-25 stands here twice"),
        ({"holidays": "2026-12-25"}, r"holidays: '2026-12-25' stands where a list is needed"),
        ({"days": {"2026-12-25": "half"}}, r"days.2026-12-25: 2026-12-25 is a holiday, too"),
        ({"sessions": {"regular": []}}, r"sessions.regular: the session does not close"),
        ({"sessions": {"regular": [{"phase": "continuous"}]}}, r"sessions.regular.0: from is missing"),
        ({"sessions": []}, r"sessions: \[\] stands where names and values are needed"),
    ],
)
def test_what_is_wrong_in_a_calendar_is_said_with_its_place(change, told):
    with pytest.raises(CalendarError, match=told):
        calendar_of(XETRA | change)


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        ({"phase": "auction", "from": "10:00"}, r"phase: 'auction' is no phase; one of pre_open"),
        ({"phase": "continuous", "from": "25:00"}, r"from: '25:00' is no time of day"),
        ({"phase": "continuous", "from": 990}, r"from: 990 is no time of day; write it in quotes"),
        ({"phase": "continuous", "from": "08:00"}, r"from: 08:00 is not later than the turn before"),
        ({"phase": "pre_open", "from": "10:00"}, r"phase: the market is in pre_open already"),
    ],
)
def test_a_turn_that_makes_no_sense_is_refused(turn, told):
    sessions = {"regular": [{"phase": "pre_open", "from": "08:00"}, turn, {"phase": "closed", "from": "23:00"}]}
    with pytest.raises(CalendarError, match=r"sessions.regular.1." + told):
        calendar_of(XETRA | {"sessions": sessions, "days": {}})


@pytest.mark.parametrize("key", ["zone", "sessions", "week"])
def test_what_a_calendar_needs_is_asked_for(key):
    with pytest.raises(CalendarError, match=f"{key} is missing"):
        calendar_of({name: value for name, value in XETRA.items() if name != key})
