"""The market's phases and people's hours as Alertmanager's time intervals.

An interval of Alertmanager is a set of whole minutes by the wall clock of its location; a list of them is their union,
and nothing can be taken out of it again. So days that differ from their weekday are left out of the weekly intervals
by naming all others, month by month.

Where a phase begins within a minute, that minute counts as outside: rather told too much than muted too much. The wall
clock cannot tell the two passes of an hour that it shows twice. Days on which a phase begins within such an hour are
therefore written by UTC, for the years of `YEARS_AHEAD`; after them the second pass may be taken for the first.
"""

from __future__ import annotations

import calendar as month_lengths
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from exchange.calendar import WEEKDAYS, Calendar, PhaseName, Session, Turn
from kernel.time import SECOND, Instant
from monitor.routing.model import Hours

YEARS_AHEAD: Final = 6
YEAR_MIN: Final = 1970
YEAR_MAX: Final = 2199
DAY_MIN: Final = 1440
_DAY_S: Final = 86_400

Interval = dict[str, Any]
"""One of Alertmanager's intervals, as it stands in the file."""
Span = tuple[int, int]
"""From a minute of the day to another one, the latter not included."""


def name_of(phases: Iterable[PhaseName]) -> str:
    """Return the name of the intervals in which the market is in one of some phases."""
    return "phase-" + "-or-".join(sorted(phases))


def hours_intervals(hours: Hours) -> list[Interval]:
    """Return when people are at work."""
    return [
        {
            "times": _times([(hours.start_min, hours.end_min)]),
            "weekdays": list(hours.days),
            "location": hours.zone,
        }
    ]


def phase_intervals(calendar: Calendar, phases: frozenset[PhaseName], year: int) -> list[Interval]:
    """Return when the market is in one of some phases: exactly, to the minute.

    `year` is the one from which hours shown twice are looked for.
    """
    twice = dict(_shown_twice(calendar, phases, year))
    special = {day: spans_of(session, phases) for day, session in calendar.days.items() if day not in twice}
    left_out = {*special, *twice}
    found: list[Interval] = []
    weekly = _weekly(calendar, phases)
    found += _years_without(weekly, calendar.zone.key, left_out)
    for (years, month), days in _by_month(left_out).items():
        for spans, names in weekly.items():
            found += _row(
                spans, calendar.zone.key, weekdays=names, days_of_month=_ranges(_others(days)), months=[str(month)],
                years=[str(years)],
            )  # fmt: skip
        for spans, same in _grouped({day: special[day] for day in days if day in special}).items():
            found += _row(
                spans, calendar.zone.key, days_of_month=_ranges(sorted(day.day for day in same)), months=[str(month)],
                years=[str(years)],
            )  # fmt: skip
    for _, rows in sorted(twice.items()):
        found += rows
    return found


def spans_of(session: Session, phases: frozenset[PhaseName]) -> tuple[Span, ...]:
    """Return the whole minutes of a day's session that lie in one of some phases."""
    turns = [Turn(0, PhaseName.CLOSED), *session, Turn(_DAY_S, PhaseName.CLOSED)]
    return _whole_minutes((turn.at_s, following.at_s) for turn, following in pairwise(turns) if turn.phase in phases)


def _whole_minutes(stretches: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    """Return stretches of seconds as minutes, each shrunk to whole ones; neighbours are one."""
    merged: list[list[int]] = []
    for since_s, until_s in stretches:
        if merged and merged[-1][1] == since_s:
            merged[-1][1] = until_s
        else:
            merged.append([since_s, until_s])
    spans = ((-(-since_s // 60), until_s // 60) for since_s, until_s in merged)
    return tuple((since, until) for since, until in spans if since < until)


def _weekly(calendar: Calendar, phases: frozenset[PhaseName]) -> dict[tuple[Span, ...], list[str]]:
    found: dict[tuple[Span, ...], list[str]] = defaultdict(list)
    for name, session in zip(WEEKDAYS, calendar.week, strict=True):
        found[spans_of(session, phases)].append(name)
    return found


def _years_without(
    weekly: Mapping[tuple[Span, ...], list[str]], zone: str, left_out: Iterable[dt.date]
) -> list[Interval]:
    """Return the weekly intervals of every month that has no day of its own."""
    months: dict[int, set[int]] = defaultdict(set)
    for day in left_out:
        months[day.year].add(day.month)
    found: list[Interval] = []
    for spans, names in weekly.items():
        plain = [year for year in range(YEAR_MIN, YEAR_MAX + 1) if year not in months]
        found += _row(spans, zone, weekdays=names, years=_ranges(plain))
        for year, taken in sorted(months.items()):
            rest = [month for month in range(1, 13) if month not in taken]
            if rest:
                found += _row(spans, zone, weekdays=names, months=_ranges(rest), years=[str(year)])
    return found


def _row(spans: Sequence[Span], zone: str, **when: list[str]) -> Iterator[Interval]:
    if spans and all(when.values()):
        yield {"times": _times(spans), **when, "location": zone}


def _times(spans: Iterable[Span]) -> list[dict[str, str]]:
    return [{"start_time": _clock(since), "end_time": _clock(until)} for since, until in spans]


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _others(days: Iterable[dt.date]) -> list[int]:
    some = sorted(days)
    taken = {day.day for day in some}
    length = month_lengths.monthrange(some[0].year, some[0].month)[1]
    return [day for day in range(1, length + 1) if day not in taken]


def _by_month(days: Iterable[dt.date]) -> dict[tuple[int, int], list[dt.date]]:
    found: dict[tuple[int, int], list[dt.date]] = defaultdict(list)
    for day in sorted(days):
        found[day.year, day.month].append(day)
    return found


def _grouped(days: Mapping[dt.date, tuple[Span, ...]]) -> dict[tuple[Span, ...], list[dt.date]]:
    found: dict[tuple[Span, ...], list[dt.date]] = defaultdict(list)
    for day, spans in sorted(days.items()):
        found[spans].append(day)
    return found


def _ranges(numbers: Sequence[int]) -> list[str]:
    """Return ascending numbers as Alertmanager writes them: `1:24`, `26`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first}:{last}" for first, last in runs]


# --- hours that the clock shows twice -------------------------------------------------------------------------------


def _shown_twice(
    calendar: Calendar, phases: frozenset[PhaseName], year: int
) -> Iterator[tuple[dt.date, list[Interval]]]:
    """Yield the days on which a phase begins in an hour that is shown twice, and their intervals by UTC."""
    if not any(calendar.week) and not any(calendar.days.values()):
        return
    zone = calendar.zone
    day, end = dt.date(year, 1, 1), dt.date(year + YEARS_AHEAD, 1, 1)
    while day < end:
        following = day + dt.timedelta(days=1)
        if _midnight(day, zone) + _DAY_S < _midnight(following, zone):
            session = calendar.days.get(day, calendar.week[day.weekday()])
            if any(_is_twice(day, turn.at_s, zone) for turn in session):
                yield day, _by_utc(calendar, phases, _midnight(day, zone), _midnight(following, zone))
        day = following


def _midnight(day: dt.date, zone: dt.tzinfo) -> int:
    return round(dt.datetime.combine(day, dt.time(), zone).timestamp())


def _is_twice(day: dt.date, at_s: int, zone: dt.tzinfo) -> bool:
    wall = dt.datetime.combine(day, dt.time(), zone) + dt.timedelta(seconds=at_s)
    return wall.replace(fold=1).timestamp() > wall.replace(fold=0).timestamp()


def _by_utc(calendar: Calendar, phases: frozenset[PhaseName], since_s: int, until_s: int) -> list[Interval]:
    stretches: list[tuple[int, int]] = []
    at_s = since_s
    while at_s < until_s:
        phase = calendar.phase_at(Instant(at_s * SECOND))
        turn_s = until_s if phase.until is None else min(until_s, phase.until // SECOND)
        if phase.name in phases:
            stretches.append((at_s, turn_s))
        at_s = turn_s
    rows: list[Interval] = []
    for since, until in _whole_minutes(stretches):
        while since < until:
            day_end = min(until, (since // DAY_MIN + 1) * DAY_MIN)
            day = dt.date(1970, 1, 1) + dt.timedelta(days=since // DAY_MIN)
            start, end = since % DAY_MIN, (day_end - 1) % DAY_MIN + 1
            rows += _row(
                [(start, end)], "UTC", days_of_month=[str(day.day)], months=[str(day.month)], years=[str(day.year)]
            )
            since = day_end  # noqa: PLW2901 - a span that goes past midnight is cut there
    return rows
