"""A day of the market for a drill: today's session, whose phases begin while the drill runs.

A calendar tells local times of day and no session goes past midnight, so the drill takes a time zone in which it is
about noon now. The other days of the week are regular ones: that today is different is what the calendar is for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from control.scenario import Turn
from kernel.time import SECOND, Instant

_REGULAR: Final = [{"phase": "continuous", "from": "09:00"}, {"phase": "closed", "from": "17:30"}]
_NOON: Final = 12


def day_of(turns: Sequence[Turn], started: Instant) -> dict[str, Any]:
    """Return the data of a calendar whose today turns as told, in seconds after `started`.

    `turns` lie within eleven hours of `started`.
    """
    utc = dt.datetime.fromtimestamp(started // SECOND, tz=dt.UTC)
    east_h = _NOON - utc.hour
    local = utc + dt.timedelta(hours=east_h)
    today = [
        {"phase": str(turn.phase), "from": f"{local + dt.timedelta(seconds=turn.at_s):%H:%M:%S}"} for turn in turns
    ]
    week: Mapping[str, str] = dict.fromkeys(("monday", "tuesday", "wednesday", "thursday", "friday"), "regular")
    return {
        # The names of these zones count westwards.
        "zone": f"Etc/GMT{-east_h:+d}" if east_h else "Etc/UTC",
        "sessions": {"regular": _REGULAR, "today": today},
        "week": week,
        "days": {f"{local:%Y-%m-%d}": "today"},
    }
