"""What participants are told of the market's calendar: the turns of the days ahead, at universal times."""

from __future__ import annotations

from typing import Final

import msgspec

from exchange.calendar import Calendar, PhaseName
from kernel.time import Instant, to_rfc3339

AHEAD_DAYS: Final = 7


class TurnTold(msgspec.Struct, frozen=True):
    """A phase begins."""

    at: str
    """RFC 3339, universal time: local time's odd hours are worked out."""
    phase: PhaseName


class CalendarTold(msgspec.Struct, frozen=True):
    """The calendar as it is told: the same all day long, from every gateway."""

    zone: str
    """The market's time zone; empty: no calendar is kept, and trading is always continuous."""
    day: str
    """Today there, such as `2026-03-02`; empty without a calendar."""
    turns: tuple[TurnTold, ...]
    """From the one that today began with to those of a week ahead, in order."""


def always_open() -> CalendarTold:
    """Return what is told where no calendar is kept."""
    return CalendarTold("", "", ())


def told(calendar: Calendar, now: Instant) -> CalendarTold:
    """Return what is told at an instant."""
    day = calendar.day_of(now)
    turns = calendar.turns_around(now)
    first = max((place for place, one in enumerate(turns) if calendar.day_of(one.at) < day), default=0)
    ahead = (one for one in turns[first:] if (calendar.day_of(one.at) - day).days <= AHEAD_DAYS)
    return CalendarTold(
        calendar.zone.key, day.isoformat(), tuple(TurnTold(to_rfc3339(one.at), one.phase) for one in ahead)
    )
