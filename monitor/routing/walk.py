"""An alert's way through a configuration, as Alertmanager walks it: who is told, when, and what holds it back."""

from __future__ import annotations

import calendar as month_lengths
import datetime as dt
import re
import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from exchange.calendar import WEEKDAYS
from kernel.time import SECOND, Instant

_MATCHER: Final = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"(.*)"\s*')
_INHERITED: Final = ("receiver", "group_by", "group_wait", "group_interval", "repeat_interval")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

Labels = Mapping[str, str]
Config = Mapping[str, Any]


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A route that takes an alert."""

    receiver: str
    group_by: tuple[str, ...]
    group_wait: str
    group_interval: str
    repeat_interval: str
    mute: tuple[str, ...]
    """Names of the intervals in which it is silent."""
    active: tuple[str, ...]
    """Names of the intervals outside which it is silent; none: always active."""


def matches(matchers: Iterable[str], labels: Labels) -> bool:
    """Tell whether every matcher fits. A label that is missing is empty."""
    for text in matchers:
        found = _MATCHER.fullmatch(text)
        assert found is not None, f"{text} is no matcher"
        name, relation, value = found.groups()
        have = labels.get(name, "")
        fits = have == value if relation in ("=", "!=") else re.fullmatch(value, have) is not None
        if fits is relation.startswith("!"):
            return False
    return True


def hits_of(config: Config, labels: Labels) -> list[Hit]:
    """Return the routes that take an alert, in order."""
    return _walk(config["route"], labels, {})


def _walk(route: Config, labels: Labels, above: Config) -> list[Hit]:
    if not matches(route.get("matchers", []), labels):
        return []
    own = {**above, **{key: route[key] for key in _INHERITED if key in route}}
    found: list[Hit] = []
    for child in route.get("routes", []):
        below = _walk(child, labels, own)
        found += below
        if below and not child.get("continue", False):
            break
    if found:
        return found
    return [
        Hit(
            receiver=own["receiver"], group_by=tuple(own["group_by"]), group_wait=own["group_wait"],
            group_interval=own["group_interval"], repeat_interval=own["repeat_interval"],
            mute=tuple(route.get("mute_time_intervals", ())), active=tuple(route.get("active_time_intervals", ())),
        )
    ]  # fmt: skip


def silent_by(config: Config, hit: Hit, at: Instant) -> str | None:
    """Return the interval that keeps a route silent at an instant; None: it tells."""
    rows = {one["name"]: one["time_intervals"] for one in config.get("time_intervals", [])}
    for name in hit.mute:
        if any(contains(row, at) for row in rows[name]):
            return name
    if hit.active and not any(contains(row, at) for name in hit.active for row in rows[name]):
        return f"outside {', '.join(hit.active)}"
    return None


def held_by(config: Config, labels: Labels, known: Iterable[Labels]) -> list[str]:
    """Return which of the known alerts would hold this one back while they fire (where they agree on `equal`)."""
    found = set()
    for rule in config.get("inhibit_rules", []):
        if not matches(rule["target_matchers"], labels):
            continue
        equal: Sequence[str] = rule.get("equal", ())
        for source in known:
            if source["alertname"] != labels.get("alertname") and matches(rule["source_matchers"], source):
                found.add(source["alertname"] + (f" (same {', '.join(equal)})" if equal else ""))
    return sorted(found)


def contains(row: Config, at: Instant) -> bool:
    """Tell whether an instant lies in one of Alertmanager's intervals."""
    zone = zoneinfo.ZoneInfo(row.get("location", "UTC"))
    wall = (_EPOCH + dt.timedelta(seconds=at // SECOND)).astimezone(zone)
    length = month_lengths.monthrange(wall.year, wall.month)[1]
    minute = wall.hour * 60 + wall.minute
    return (
        _in_any(row.get("years"), wall.year)
        and _in_any(row.get("months"), wall.month)
        and _in_any(row.get("days_of_month"), wall.day, length)
        and ("weekdays" not in row or WEEKDAYS[wall.weekday()] in row["weekdays"])
        and any(_minute(one["start_time"]) <= minute < _minute(one["end_time"]) for one in row["times"])
    )


def _in_any(ranges: Sequence[str] | None, number: int, length: int = 0) -> bool:
    if ranges is None:
        return True
    for text in ranges:
        first, _, last = text.partition(":")
        low, high = int(first), int(last or first)
        if length and low < 0:
            low, high = low + length + 1, high + length + 1 if high < 0 else high
        if low <= number <= high:
            return True
    return False


def _minute(clock: str) -> int:
    hour, _, minute = clock.partition(":")
    return int(hour) * 60 + int(minute)
