"""From the plain data of the organisation's files to the organisation, or to what is wrong with them and where."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from exchange.calendar import PhaseName
from kernel.errors import InputError
from monitor.routing.model import (
    BRIDGED,
    LEVELS,
    NEEDS_PERSON,
    WATCHDOG,
    Channel,
    Hears,
    Hours,
    Inhibition,
    Kind,
    Mute,
    Organisation,
    Team,
    Tier,
    Version,
)
from monitor.routing.receivers import NEEDED, OPTIONAL

HOURS: Final = "hours.yaml"
CHANNELS: Final = "channels.yaml"
TEAMS: Final = "teams.yaml"
PEOPLE: Final = "people.yaml"
INHIBITIONS: Final = "inhibitions.yaml"
MUTES: Final = "phase_mutes.yaml"
FILES: Final = (HOURS, CHANNELS, TEAMS, PEOPLE, INHIBITIONS, MUTES)

_TIER_KEYS: Final = {
    "level_1": Tier.AT_ONCE, "level_2": Tier.IN_HOURS, "level_2_off_hours": Tier.OFF_HOURS, "level_3": Tier.TICKET,
}  # fmt: skip
_SERVED: Final = BRIDGED[Version.MODERN]
"""Kinds whose credentials only the bridge ever needs."""

Where = tuple[str | int, ...]
Files = Mapping[str, Mapping[str, Any]]


class RoutingError(InputError):
    """Something in a file is wrong; `path` tells where."""

    def __init__(self, file: str, path: Where, problem: str, right: str) -> None:
        super().__init__(f"{file}: {'.'.join(map(str, path))}", problem, right=right)
        self.file = file
        self.path = path


def organisation_of(files: Files) -> Organisation:
    """Make the organisation of its files' data, which fits the schema.

    Raises:
        RoutingError: something names what is not there, stands twice, or leads nowhere.
    """
    hours = {name: _hours(name, told) for name, told in files[HOURS]["hours"].items()}
    channels = {name: _channel(name, told) for name, told in files[CHANNELS]["channels"].items()}
    teams = {name: _team(name, told, hours, channels) for name, told in files[TEAMS]["teams"].items()}
    default = files[TEAMS]["default_team"]
    if default not in teams:
        raise RoutingError(TEAMS, ("default_team",), f"{default} is no team", _nearest(default, teams))
    heartbeat = files[CHANNELS].get("heartbeat", "")
    if heartbeat:
        _check_channel(CHANNELS, ("heartbeat",), heartbeat, channels)
        if channels[heartbeat].kind is not Kind.WEBHOOK:
            raise RoutingError(CHANNELS, ("heartbeat",), f"{heartbeat} is no webhook", "name a channel of kind webhook")
    _check_used(channels, teams, heartbeat)
    return Organisation(
        channels=channels, hours=hours, teams=teams, default_team=default, heartbeat=heartbeat,
        hears=tuple(_hears(files[PEOPLE]["hears"])),
        inhibitions=tuple(_inhibitions(files[INHIBITIONS]["inhibitions"])),
        mutes=tuple(_mutes(files[MUTES]["mutes"])) if MUTES in files else (),
    )  # fmt: skip


def check_alerts(organisation: Organisation, known: Iterable[str]) -> None:
    """Refuse inhibitions and mutes of alerts that no rule has.

    Raises:
        RoutingError: names the first one.
    """
    names = sorted(known)
    for n, one in enumerate(organisation.inhibitions):
        for key, patterns in (("source", one.source), ("target", one.target)):
            for m, pattern in enumerate(patterns):
                if not any(re.fullmatch(pattern, name) for name in names):
                    path = ("inhibitions", n, key, m)
                    raise RoutingError(INHIBITIONS, path, f"{pattern} is no alert", _nearest(pattern, names))
    for n, mute in enumerate(organisation.mutes):
        if mute.alert not in names:
            raise RoutingError(MUTES, ("mutes", n, "alert"), f"{mute.alert} is no alert", _nearest(mute.alert, names))


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names[:20]) or 'none'}"


def _hours(name: str, told: Mapping[str, Any]) -> Hours:
    try:
        zoneinfo.ZoneInfo(told["zone"])
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        right = _nearest(told["zone"], sorted(zoneinfo.available_timezones()))
        raise RoutingError(HOURS, ("hours", name, "zone"), f"{told['zone']} is no time zone", right) from None
    start, end = _minute(told["from"]), _minute(told["to"])
    if end <= start:
        right = "work that goes past midnight is two entries of hours"
        raise RoutingError(HOURS, ("hours", name, "to"), f"{told['to']} is not later than {told['from']}", right)
    return Hours(name=name, zone=told["zone"], days=tuple(told["days"]), start_min=start, end_min=end)


def _minute(clock: str) -> int:
    hour, _, minute = clock.partition(":")
    return int(hour) * 60 + int(minute)


def _channel(name: str, told: Mapping[str, Any]) -> Channel:
    kind, settings = Kind(told["kind"]), told.get("settings", {})
    at: Where = ("channels", name)
    needed, allowed = NEEDED.get(kind, ()), (*NEEDED.get(kind, ()), *OPTIONAL.get(kind, ()))
    for key in needed:
        if key not in settings:
            raise RoutingError(
                CHANNELS, at, f"a channel of kind {kind} needs the setting {key}", f"settings: {{{key}: ...}}"
            )
    for key in settings:
        if key not in allowed:
            right = f"it takes {', '.join(allowed) or 'none'}"
            raise RoutingError(CHANNELS, (*at, "settings", key), f"{key} is no setting of kind {kind}", right)
    if kind is Kind.TELEGRAM and not re.fullmatch(r"-?[1-9]\d{0,18}", settings["chat_id"]):
        path = (*at, "settings", "chat_id")
        raise RoutingError(
            CHANNELS, path, f"{settings['chat_id']} is no chat id", 'a number in quotes, such as "-100123"'
        )
    if "url" in settings and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", settings["url"]):
        raise RoutingError(CHANNELS, (*at, "settings", "url"), f"{settings['url']} is no address", "write https://...")
    if kind in _SERVED and "secret" in told:
        raise RoutingError(
            CHANNELS, (*at, "secret"), f"{kind} goes by the bridge", "leave the secret to the bridge's file"
        )
    if kind not in _SERVED and "secret" not in told:
        raise RoutingError(
            CHANNELS, at, f"{kind} needs credentials", "secret: the name of a file in the directory of credentials"
        )
    return Channel(name=name, kind=kind, secret=told.get("secret", ""), settings=settings)


def _team(name: str, told: Mapping[str, Any], hours: Mapping[str, Hours], channels: Mapping[str, Channel]) -> Team:
    if told["hours"] not in hours:
        path = ("teams", name, "hours")
        raise RoutingError(TEAMS, path, f"{told['hours']} are no hours", _nearest(told["hours"], hours))
    for key in _TIER_KEYS:
        for n, channel in enumerate(told[key]):
            _check_channel(TEAMS, ("teams", name, key, n), channel, channels)
    tiers = {tier: tuple(told[key]) for key, tier in _TIER_KEYS.items()}
    return Team(name=name, hours=told["hours"], tiers=tiers)


def _check_channel(file: str, path: Where, name: str, channels: Mapping[str, Channel]) -> None:
    if name not in channels:
        raise RoutingError(file, path, f"nobody defined the channel {name}", _nearest(name, channels))


def _check_used(channels: Mapping[str, Channel], teams: Mapping[str, Team], heartbeat: str) -> None:
    secrets: dict[str, str] = {}
    for name, channel in channels.items():
        if channel.secret and (other := secrets.setdefault(channel.secret, name)) != name:
            path = ("channels", name, "secret")
            raise RoutingError(
                CHANNELS, path, f"{channel.secret} is the secret of {other}, too", "one file for each channel"
            )
    for name, team in teams.items():
        if heartbeat and heartbeat in {each for names in team.tiers.values() for each in names}:
            right = "name another channel: this one hears the Watchdog alert every minute"
            raise RoutingError(TEAMS, ("teams", name), f"{heartbeat} is the heartbeat", right)


def _hears(told: Sequence[Mapping[str, Any]]) -> Iterator[Hears]:
    names: set[str] = set()
    for n, one in enumerate(told):
        if one["name"] in names:
            raise RoutingError(PEOPLE, ("hears", n, "name"), f"{one['name']} stands here twice", "keep one of them")
        names.add(one["name"])
        for label, text in one["match"].items():
            try:
                re.compile(text)
            except re.error as error:
                path = ("hears", n, "match", label)
                raise RoutingError(
                    PEOPLE, path, f"{text} is no regular expression: {error.msg}", "such as a|b"
                ) from None
        yield Hears(
            name=one["name"], why=one["why"], match=one["match"], levels=tuple(one.get("levels", LEVELS)),
            control_too=one.get("control_too", True),
        )  # fmt: skip
    first = told[0]
    if first.get("match") != {"alertname": NEEDS_PERSON} or first.get("control_too", True) or "levels" in first:
        right = f"match: {{alertname: {NEEDS_PERSON}}}, control_too: false, without levels"
        raise RoutingError(
            PEOPLE, ("hears", 0), f"{NEEDS_PERSON} does not come first, or would come back to control", right
        )


def _inhibitions(told: Iterable[Mapping[str, Any]]) -> Iterator[Inhibition]:
    seen: set[Inhibition] = set()
    for n, one in enumerate(told):
        for key in ("source", "target"):
            for m, text in enumerate(one[key]):
                try:
                    re.compile(text)
                except re.error as error:
                    path = ("inhibitions", n, key, m)
                    right = "a name, or such as .+Down"
                    raise RoutingError(
                        INHIBITIONS, path, f"{text} is no regular expression: {error.msg}", right
                    ) from None
        rule = Inhibition(source=tuple(one["source"]), target=tuple(one["target"]), equal=tuple(one.get("equal", ())))
        if rule in seen:
            raise RoutingError(INHIBITIONS, ("inhibitions", n), "this rule stands here twice", "keep one of them")
        seen.add(rule)
        yield Inhibition(source=rule.source, target=rule.target, equal=rule.equal, why=one["why"])


def _mutes(told: Iterable[Mapping[str, Any]]) -> Iterator[Mute]:
    seen: set[str] = set()
    for n, one in enumerate(told):
        alert, path = one["alert"], ("mutes", n, "alert")
        if alert in seen:
            raise RoutingError(MUTES, path, f"{alert} stands here twice", "name all its phases in one place")
        if alert in (WATCHDOG, NEEDS_PERSON):
            raise RoutingError(MUTES, path, f"{alert} must be heard at any time", "leave it out")
        seen.add(alert)
        yield Mute(alert=alert, phases=frozenset(map(PhaseName, one["phases"])), reason=one["reason"])
