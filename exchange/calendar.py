"""When the market is in which phase: a calendar of sessions by local time, pure and deterministic.

A session is a list of turns, each a local time of one day and the phase that begins then; before its first turn and
after its last the market is closed, so no session goes past midnight. Every weekday has a session or none, and single
days (holidays, half days) have their own.

Local time is not even. A turn at a time that the clock shows twice is taken the first time; one at a time that the
clock skips is taken when it skips, and what would then last no time at all is left out.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
import zoneinfo
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, NamedTuple

from kernel.errors import InputError
from kernel.time import SECOND, Instant

HORIZON_DAYS: Final = 31
"""How far a calendar looks back and ahead; no market that keeps one is closed for longer."""
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_DAY_S: Final = 86_400
_TIME: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Where = tuple[str | int, ...]
"""Where a value stands in the calendar's data: keys and positions from the root."""


class PhaseName(StrEnum):
    """What a market does at a time of day."""

    PRE_OPEN = "pre_open"
    """Orders are taken, nothing trades."""
    OPENING_AUCTION = "opening_auction"
    CONTINUOUS = "continuous"
    INTRADAY_AUCTION = "intraday_auction"
    CLOSING_AUCTION = "closing_auction"
    POST_CLOSE = "post_close"
    """What is left trades at the closing price, or is corrected."""
    CLOSED = "closed"


AUCTIONS: Final = frozenset({PhaseName.OPENING_AUCTION, PhaseName.INTRADAY_AUCTION, PhaseName.CLOSING_AUCTION})


class Phase(NamedTuple):
    """A stretch of market time. None stands for farther away than `HORIZON_DAYS`."""

    name: PhaseName
    auction: bool
    """Orders are gathered for one price."""
    since: Instant | None
    until: Instant | None
    next_auction_at: Instant | None
    """When the first auction after the moment asked for begins; one that runs now does not count."""


ALWAYS: Final = Phase(PhaseName.CONTINUOUS, auction=False, since=None, until=None, next_auction_at=None)
"""The phase where no calendar is kept."""


class Turn(NamedTuple):
    """A phase begins at a local time, in seconds after midnight."""

    at_s: int
    phase: PhaseName


Session = tuple[Turn, ...]
"""The turns of one day in order, the last of them to closed; empty: closed all day."""


class CalendarError(InputError):
    """A calendar's data is wrong; `path` tells where."""

    def __init__(self, path: Where, problem: str, right: str) -> None:
        super().__init__(".".join(map(str, path)) or "calendar", problem, right=right)
        self.path = path


class Began(NamedTuple):
    """A phase and when it really begins, by universal time."""

    at: Instant
    phase: PhaseName


@dataclass
class Calendar:
    """Tells the phase at an instant. It keeps what it worked out for the day asked for last."""

    zone: zoneinfo.ZoneInfo
    week: tuple[Session, ...]
    """By weekday, Monday first; seven."""
    days: Mapping[dt.date, Session] = field(default_factory=dict)
    """Days that differ from their weekday."""
    _known: tuple[dt.date, list[Began]] | None = None

    def phase_at(self, instant: Instant) -> Phase:
        """Return the phase the market is in, whether it is an auction, its bounds and when the next auction begins."""
        began = self._around(instant)
        index = bisect_right(began, instant, key=lambda one: one.at) - 1
        current = began[index].phase if index >= 0 else PhaseName.CLOSED
        later = began[index + 1 :]
        return Phase(
            name=current,
            auction=current in AUCTIONS,
            since=began[index].at if index >= 0 else None,
            until=later[0].at if later else None,
            next_auction_at=next((one.at for one in later if one.phase in AUCTIONS), None),
        )

    def turns_around(self, instant: Instant) -> tuple[Began, ...]:
        """Return every turn from `HORIZON_DAYS` before an instant to as many days after it, in order.

        None of them lasts no time, and none turns to the phase that is there already.
        """
        return tuple(self._around(instant))

    def day_of(self, instant: Instant) -> dt.date:
        """Return the date that the market's clock shows at an instant."""
        return (_EPOCH + dt.timedelta(seconds=instant // SECOND)).astimezone(self.zone).date()

    def _around(self, instant: Instant) -> list[Began]:
        """Return every turn from `HORIZON_DAYS` before an instant to as many days after it."""
        today = self.day_of(instant)
        if self._known is None or self._known[0] != today:
            turns = sorted(
                (turn for days in range(-HORIZON_DAYS, HORIZON_DAYS + 1) for turn in self._turns(today, days)),
                key=lambda one: one.at,
            )
            self._known = today, _merged(turns)
        return self._known[1]

    def _turns(self, today: dt.date, days: int) -> Iterator[Began]:
        day = today + dt.timedelta(days=days)
        for turn in self.days.get(day, self.week[day.weekday()]):
            yield Began(self._instant(day, turn.at_s), turn.phase)

    def _instant(self, day: dt.date, at_s: int) -> Instant:
        """Return the first instant at which the wall clock shows at least a time of a day."""
        wall = dt.datetime.combine(day, dt.time()) + dt.timedelta(seconds=at_s)
        first, second = (wall.replace(tzinfo=self.zone, fold=fold) for fold in (0, 1))
        late, early = _seconds(first), _seconds(second)
        if early >= late:  # an even time, or one shown twice
            return Instant(late * SECOND)
        skipped = range(early, late + 1)
        return Instant((early + bisect_left(skipped, wall, key=self._wall)) * SECOND)

    def _wall(self, utc_s: int) -> dt.datetime:
        return (_EPOCH + dt.timedelta(seconds=utc_s)).astimezone(self.zone).replace(tzinfo=None)


def _seconds(moment: dt.datetime) -> int:
    elapsed = moment.astimezone(dt.UTC) - _EPOCH
    return elapsed.days * _DAY_S + elapsed.seconds


def _merged(turns: Sequence[Began]) -> list[Began]:
    """Leave out what lasts no time, and turns to the phase that is there already."""
    lasting = [one for one, following in pairwise(turns) if one.at < following.at]
    merged: list[Began] = []
    for turn in (*lasting, *turns[-1:]):
        if not merged or merged[-1].phase is not turn.phase:
            merged.append(turn)
    return merged


# --- reading a calendar --------------------------------------------------------------------------------------------


def calendar_of(data: object) -> Calendar:
    """Make a calendar of plain data, as it stands in its file (see `docs/consent.md`).

    Raises:
        CalendarError: what is wrong, and where.
    """
    top = _mapping(data, (), known=("zone", "sessions", "week", "holidays", "days"))
    for key in ("zone", "sessions", "week"):
        if key not in top:
            raise CalendarError((), f"{key} is missing", "a calendar has zone, sessions and week")
    sessions = {
        name: _session(turns, ("sessions", name)) for name, turns in _mapping(top["sessions"], ("sessions",)).items()
    }
    week = _mapping(top["week"], ("week",), known=WEEKDAYS)
    if not week:
        raise CalendarError(("week",), "no day has a session", "name at least one, such as monday: regular")
    chosen = {day: _chosen(name, ("week", day), sessions) for day, name in week.items()}
    return Calendar(
        zone=_zone(top["zone"]),
        week=tuple(chosen.get(day, ()) for day in WEEKDAYS),
        days=_special_days(top, sessions),
    )


def _special_days(top: Mapping[str, Any], sessions: Mapping[str, Session]) -> dict[dt.date, Session]:
    days: dict[dt.date, Session] = {}
    for n, text in enumerate(_list(top.get("holidays", []), ("holidays",))):
        day = _date(text, ("holidays", n))
        if day in days:
            raise CalendarError(("holidays", n), f"{day} stands here twice", "keep one of them")
        days[day] = ()
    for text, name in _mapping(top.get("days", {}), ("days",)).items():
        day = _date(text, ("days", text))
        if day in days:
            raise CalendarError(("days", text), f"{day} is a holiday, too", "keep one of them")
        days[day] = _chosen(name, ("days", text), sessions)
    return days


def _session(data: object, path: Where) -> Session:
    turns: list[Turn] = []
    for n, each in enumerate(_list(data, path)):
        turn, here = _mapping(each, (*path, n), known=("phase", "from")), (*path, n)
        for key in ("phase", "from"):
            if key not in turn:
                raise CalendarError(here, f"{key} is missing", 'write {phase: continuous, from: "09:00"}')
        phase, at_s = _phase(turn["phase"], (*here, "phase")), _time(turn["from"], (*here, "from"))
        if turns and at_s <= turns[-1].at_s:
            raise CalendarError((*here, "from"), f"{turn['from']} is not later than the turn before", "put it in order")
        if phase is (turns[-1].phase if turns else PhaseName.CLOSED):
            raise CalendarError((*here, "phase"), f"the market is in {phase} already", "leave this turn out")
        turns.append(Turn(at_s, phase))
    if not turns or turns[-1].phase is not PhaseName.CLOSED:
        right = "end it with phase: closed; a session does not go past midnight"
        raise CalendarError(path, "the session does not close", right)
    return tuple(turns)


def _phase(value: object, path: Where) -> PhaseName:
    names = [str(name) for name in PhaseName]
    if value not in names:
        raise CalendarError(path, f"{_short(value)} is no phase", f"one of {', '.join(names)}")
    return PhaseName(str(value))


def _time(value: object, path: Where) -> int:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise CalendarError(path, f"{_short(value)} is no time of day", 'write it in quotes, such as "09:00"')
    hour, minute, second = (int(part or 0) for part in match.groups())
    return hour * 3600 + minute * 60 + second


def _date(value: object, path: Where) -> dt.date:
    wrong = CalendarError(path, f"{_short(value)} is no date", 'write it in quotes, such as "2026-12-25"')
    if not isinstance(value, str) or re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII) is None:
        raise wrong
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        raise wrong from None


def _chosen(name: object, path: Where, sessions: Mapping[str, Session]) -> Session:
    if not isinstance(name, str) or name not in sessions:
        raise CalendarError(path, f"{_short(name)} is no session", f"one of {', '.join(sessions) or 'none'}")
    return sessions[name]


def _zone(value: object) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(str(value))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(str(value), sorted(zoneinfo.available_timezones()), n=1)
        right = f"did you mean {near[0]}?" if near else "write one such as Europe/Berlin"
        raise CalendarError(("zone",), f"{_short(value)} is no time zone", right) from None


def _mapping(data: object, path: Where, *, known: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise CalendarError(path, f"{_short(data)} stands where names and values are needed", "write name: value")
    for key in data:
        if known and key not in known:
            raise CalendarError((*path, key), f"{_short(key)} is not known here", f"allowed are {', '.join(known)}")
    return data


def _list(data: object, path: Where) -> Sequence[Any]:
    if not isinstance(data, list | tuple):
        raise CalendarError(path, f"{_short(data)} stands where a list is needed", "write its parts with a dash each")
    return data


def _short(value: object) -> str:
    return repr(value)[:40]
