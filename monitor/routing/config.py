"""Alertmanager's configuration, made from the organisation: for 0.25, or with what newer ones speak themselves.

Whatever people hear of, control hears of as it would without them: its routes, groups and waits are the same whether
channels are live or not. People's routes come first and say `continue`, but for what control must not be told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from exchange.calendar import Calendar
from monitor.routing.intervals import Interval, hours_intervals, name_of, phase_intervals
from monitor.routing.model import (
    CONTROL,
    NEEDS_PERSON,
    NOBODY,
    UNSPOKEN,
    WATCHDOG,
    Hears,
    Hours,
    Inhibition,
    Mute,
    Organisation,
    Team,
    Tier,
    Version,
)
from monitor.routing.receivers import Bridge, Credential, receiver_of

Route = dict[str, Any]
Labels = Mapping[str, str]
Noted = tuple[str, Route]
"""A route and why it is there."""

KILL_SWITCH_CLASS: Final = ("SequenceGap", "BookCrossed", "JournalFailed", "LedgerImbalance")
HEARTBEAT: Final = "heartbeat"
_PLAIN: Final = re.compile(r"[\w-]+")
_PACE: Final = {
    # What endangers the market is told at once; a group that has told waits half a minute, so that a storm is a few
    # messages.
    Tier.AT_ONCE: {"group_wait": "0s", "group_interval": "30s", "repeat_interval": "15m"},
    Tier.IN_HOURS: {"group_wait": "10s", "group_interval": "1m", "repeat_interval": "1h"},
    Tier.OFF_HOURS: {"group_wait": "10s", "group_interval": "1m", "repeat_interval": "1h"},
    # A storm of a minute is one message.
    Tier.TICKET: {"group_wait": "90s", "group_interval": "15m", "repeat_interval": "1d"},
}
_TIERS: Final = {1: (Tier.AT_ONCE,), 2: (Tier.IN_HOURS, Tier.OFF_HOURS), 3: (Tier.TICKET,)}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a configuration is used."""

    version: Version
    control_url: str
    """Where control takes its webhook."""
    control_token: str
    """File of the webhook's token."""
    bridge: Bridge
    live: Mapping[str, Credential]
    """The channels that can be used, by name."""
    calendar: Calendar | None = None
    """The market's; None: nothing is muted."""
    year: int = 2026
    """From which on hours that the clock shows twice are looked for."""


class Config(msgspec.Struct, frozen=True):
    """A configuration, and why its parts are there."""

    data: dict[str, Any]
    routes: tuple[Noted, ...]
    inhibitions: tuple[Inhibition, ...]


def config_of(organisation: Organisation, place: Place, alerts: Mapping[str, Labels]) -> Config:
    """Return the configuration. `alerts`: the labels that each rule gives its alert, by name."""
    made = _Maker(organisation, place, alerts)
    noted = tuple(made.routes())
    data: dict[str, Any] = {
        "global": {"resolve_timeout": "1m"},
        "route": {
            "receiver": CONTROL, "group_by": ["alertname", "service"],
            # Symptoms wait a moment, so that their cause can arrive first and hold them back.
            "group_wait": "1s", "group_interval": "2s", "repeat_interval": "1m",
            "routes": [route for _, route in noted],
        },
        "inhibit_rules": [inhibit_rule(one) for one in organisation.inhibitions],
        "receivers": made.receivers(),
    }  # fmt: skip
    intervals = made.intervals()
    if intervals:
        data["time_intervals"] = intervals
    return Config(data, noted, organisation.inhibitions)


def inhibit_rule(one: Inhibition) -> dict[str, Any]:
    """Return a cause and its symptoms as Alertmanager has them."""
    equal = {"equal": list(one.equal)} if one.equal else {}
    return {
        "source_matchers": [any_of("alertname", one.source)],
        "target_matchers": [any_of("alertname", one.target)],
    } | equal


def any_of(label: str, values: Sequence[str]) -> str:
    """Return the matcher of a label that has one of some values (regular expressions)."""
    if len(values) == 1 and _PLAIN.fullmatch(values[0]):
        return f'{label}="{values[0]}"'
    return f'{label}=~"{"|".join(values)}"'


class _Maker:
    """Makes the parts and keeps which receivers and intervals they name."""

    def __init__(self, organisation: Organisation, place: Place, alerts: Mapping[str, Labels]) -> None:
        self._org = organisation
        self._place = place
        self._alerts = alerts
        self._mutes = organisation.mutes if place.calendar is not None else ()
        self._people: dict[str, tuple[Team, Tier]] = {}
        self._hours: dict[str, Hours] = {}
        self._phases: dict[str, Mute] = {}

    # --- routes ---

    def routes(self) -> list[Noted]:
        noted = [(one.why, self._heard(one)) for one in self._org.hears if self._is_heard(one)]
        if self._usable(self._org.heartbeat):
            noted.append(("Somebody outside notices when this falls silent.", {
                "matchers": [any_of("alertname", (WATCHDOG,))], "receiver": HEARTBEAT, "continue": True,
                "group_by": ["alertname"], "group_wait": "0s", "group_interval": "30s", "repeat_interval": "1m",
            }))  # fmt: skip
        noted.append((
            "The dead man's switch: heard every few seconds, or else the alert path is broken.",
            {
                "matchers": [any_of("alertname", (WATCHDOG,))], "receiver": CONTROL, "group_by": ["alertname"],
                "group_wait": "0s", "group_interval": "2s", "repeat_interval": "4s",
            },
        ))  # fmt: skip
        killing = [name for name in self._alerts if name in KILL_SWITCH_CLASS]
        critical = [name for name in self._for_control() if self._alerts[name].get("severity") == "critical"]
        rest = [name for name in self._for_control() if name not in {*critical, *killing, WATCHDOG}]
        noted.append((
            "Kill-switch class: one group for each symbol, so that the hundredth symbol waits for none of the others.",
            {
                "matchers": [any_of("alertname", KILL_SWITCH_CLASS)], "receiver": CONTROL,
                "group_by": ["alertname", "service", "symbol"], "group_wait": "0s", "group_interval": "1s",
                **self._muted(killing),
            },
        ))  # fmt: skip
        noted.append((
            "What stops or delays orders: at once, one group for each replica.",
            {
                "matchers": ['severity="critical"'], "receiver": CONTROL,
                "group_by": ["alertname", "service", "replica"], "group_wait": "0s", "group_interval": "1s",
                **self._muted([name for name in critical if name not in killing]),
            },
        ))  # fmt: skip
        muted = self._muted(rest)
        if self._place.live:
            # The root takes only what no route has taken: without this one, what people hear of by `continue` and no
            # other route takes would not reach control.
            noted.append(("Everything else.", {"receiver": CONTROL, **muted}))
        else:
            noted += [("It means nothing in some phases.", route) for route in muted.get("routes", [])]
        return noted

    def _is_heard(self, one: Hears) -> bool:
        """Without a live channel only what must not reach control needs a route of its own."""
        return bool(self._place.live) or not one.control_too

    def _heard(self, one: Hears) -> Route:
        route: Route = {"matchers": [any_of(label, (text,)) for label, text in one.match.items()]}
        grouped = ["incident"] if one.match.get("alertname") == NEEDS_PERSON else ["alertname", "service", "team"]
        pace = {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "5m"} if grouped == ["incident"] else {}
        if len(one.levels) == 1:
            route["matchers"].append(f'level="{one.levels[0]}"')
        route["receiver"] = NOBODY
        if one.control_too:
            route["continue"] = True
        route |= {"group_by": grouped, **pace}
        if not self._place.live:
            return route | (pace or _PACE[Tier.TICKET])
        route["receiver"] = self._told(self._org.teams[self._org.default_team], Tier.OFF_HOURS)
        route |= pace or _PACE[Tier.OFF_HOURS]
        route["routes"] = [
            leaf
            for team in self._org.teams.values()
            for level in one.levels
            for leaf in self._leaves(one, team, level, pace)
        ]
        return route

    def _leaves(self, one: Hears, team: Team, level: int, pace: Mapping[str, str]) -> list[Route]:
        leaves: list[Route] = []
        names = [name for name in self._alerts if self._fits(name, one, team, level)]
        for tier in _TIERS[level]:
            leaf: Route = {"matchers": [f'team="{team.name}"', f'level="{level}"'], "receiver": self._told(team, tier)}
            leaf |= {} if pace else _PACE[tier]
            when: Route = {}
            if tier is Tier.IN_HOURS:
                when = {"active_time_intervals": [self._at_work(team)]}
                leaf["continue"] = True
            elif tier is Tier.OFF_HOURS:
                when = {"mute_time_intervals": [self._at_work(team)]}
            leaves.append({**leaf, **when, **self._muted(names, when)})
        return leaves

    def _fits(self, name: str, one: Hears, team: Team, level: int) -> bool:
        labels = {**self._alerts[name], "alertname": name}
        if labels.get("team") != team.name or labels.get("level") != str(level):
            return False
        return all(
            "{{" in labels.get(key, "") or re.fullmatch(text, labels.get(key, "")) for key, text in one.match.items()
        )

    def _for_control(self) -> list[str]:
        apart = [one for one in self._org.hears if not one.control_too]
        return [
            name for name, labels in self._alerts.items()
            if not any(
                all(re.fullmatch(text, {**labels, "alertname": name}.get(key, "")) for key, text in one.match.items())
                for one in apart
            )
        ]  # fmt: skip

    def _muted(self, names: Sequence[str], when: Route | None = None) -> Route:
        """Return the children of a route for those of its alerts that mean nothing in some phases.

        A child inherits all but its parent's intervals.
        """
        found: dict[str, list[str]] = {}
        for mute in self._mutes:
            if mute.alert in names:
                interval = name_of(mute.phases)
                self._phases[interval] = mute
                found.setdefault(interval, []).append(mute.alert)
        children = []
        for interval, alerts in found.items():
            child = {"matchers": [any_of("alertname", alerts)], **(when or {})}
            child["mute_time_intervals"] = [*child.get("mute_time_intervals", []), interval]
            children.append(child)
        return {"routes": children} if children else {}

    # --- who ---

    def _usable(self, channel: str) -> bool:
        return channel in self._place.live and self._org.channels[channel].kind not in UNSPOKEN[self._place.version]

    def _told(self, team: Team, tier: Tier) -> str:
        """Return the receiver of a team's tier.

        A tier of which no channel is live falls back on level 1's: rather too loud than unheard. A ticket never does.
        """
        for each in (tier, Tier.AT_ONCE) if tier is not Tier.TICKET else (tier,):
            if any(map(self._usable, team.tiers.get(each, ()))):
                name = f"{team.name}-{each}"
                self._people[name] = (team, each)
                return name
        return NOBODY

    def _at_work(self, team: Team) -> str:
        name = f"hours-{team.hours}"
        self._hours[name] = self._org.hours[team.hours]
        return name

    def receivers(self) -> list[dict[str, Any]]:
        hook = {
            "url": self._place.control_url, "send_resolved": True,
            # 0: every alert of the group is delivered, none is cut off.
            "max_alerts": 0,
            "http_config": {
                "follow_redirects": False,
                "authorization": {"type": "Bearer", "credentials_file": self._place.control_token},
            },
        }  # fmt: skip
        found: list[dict[str, Any]] = [{"name": CONTROL, "webhook_configs": [hook]}, {"name": NOBODY}]
        if self._usable(self._org.heartbeat):
            found.append(self._receiver(HEARTBEAT, [self._org.heartbeat], None))
        found += [self._receiver(name, team.tiers[tier], tier) for name, (team, tier) in sorted(self._people.items())]
        return found

    def _receiver(self, name: str, channels: Sequence[str], tier: Tier | None) -> dict[str, Any]:
        made: dict[str, Any] = {"name": name}
        for channel in channels:
            if self._usable(channel):
                key, config = receiver_of(
                    self._org.channels[channel],
                    self._place.live[channel],
                    self._place.version,
                    self._place.bridge,
                    tier,
                )
                made.setdefault(key, []).append(config)
        return made

    def intervals(self) -> list[dict[str, Any]]:
        found: dict[str, list[Interval]] = {name: hours_intervals(hours) for name, hours in sorted(self._hours.items())}
        if self._place.calendar is not None:
            for name, mute in sorted(self._phases.items()):
                found[name] = phase_intervals(self._place.calendar, mute.phases, self._place.year)
        return [{"name": name, "time_intervals": rows} for name, rows in found.items()]
