"""Instants, durations and the port that tells the time.

Cores take an `Instant` as an argument and never ask for one; only adapters, `control/` and the terminal hold a `Clock`.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final, NewType, Protocol

Instant = NewType("Instant", int)
"""A point in time: nanoseconds since the Unix epoch, UTC."""

Duration = NewType("Duration", int)
"""A length of time in nanoseconds."""

MICROSECOND: Final = Duration(1_000)
MILLISECOND: Final = Duration(1_000_000)
SECOND: Final = Duration(1_000_000_000)
MINUTE: Final = Duration(60 * SECOND)
HOUR: Final = Duration(60 * MINUTE)
DAY: Final = Duration(24 * HOUR)

_UNITS: Final = {"ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h|d)")


class Clock(Protocol):
    """Where an adapter gets the time. The core takes an `Instant` argument instead."""

    def now(self) -> Instant:
        """Return the present instant; never earlier than the one returned before."""
        ...


def seconds(value: float) -> Duration:
    """Return `value` seconds as a duration, rounded to the nearest nanosecond."""
    return Duration(round(value * SECOND))


def to_seconds(duration: int) -> float:
    """Return a duration (or an instant) in seconds; good to about a microsecond for an instant."""
    return duration / SECOND


def parse_duration(text: str) -> Duration:
    """Read a duration in Prometheus's notation, such as `500ms`, `5s` or `1m30s`.

    Raises:
        ValueError: the text is not a sequence of whole numbers with a unit of ms, s, m, h or d.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(
            f"{text!r} is no duration: write whole numbers with ms, s, m, h or d, for example 500ms or 1m30s"
        )
    return Duration(sum(int(number) * _UNITS[unit] for number, unit in parts))


def to_rfc3339(instant: int) -> str:
    """Write an instant as RFC 3339 in UTC with microseconds, such as `2026-03-02T09:30:00.000001Z`."""
    moment = dt.datetime.fromtimestamp(instant // SECOND, tz=dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{instant % SECOND // MICROSECOND:06d}Z"


def from_rfc3339(text: str) -> Instant:
    """Read an RFC 3339 time with any offset and up to nanoseconds.

    Raises:
        ValueError: the text is not such a time, or names none within the years 1 to 9999.
    """
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no RFC 3339 time such as 2026-03-02T09:30:00Z")
    whole, fraction, offset = match.groups()
    moment = dt.datetime.fromisoformat(whole.upper() + ("+00:00" if offset in "Zz" else offset))
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    elapsed = moment - epoch
    return Instant((elapsed.days * 86_400 + elapsed.seconds) * SECOND + int((fraction or "0").ljust(9, "0")))
