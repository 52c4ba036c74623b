"""The organisation as values: teams, their hours, their channels, what people hear of, what holds what back. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from exchange.calendar import PhaseName
from kernel.errors import InputError

CONTROL: Final = "control"
"""The receiver that is the program itself."""
NOBODY: Final = "on-call"
"""The receiver of what people should hear of while no channel is live: control's own page shows it."""
NEEDS_PERSON: Final = "IncidentNeedsPerson"
WATCHDOG: Final = "Watchdog"
LEVELS: Final = (1, 2, 3)
SEVERITIES: Final = ("critical", "warning", "info")


class Kind(StrEnum):
    """What a channel is."""

    SLACK = "slack"
    TEAMS = "teams"
    DISCORD = "discord"
    WEBHOOK = "webhook"
    EMAIL = "email"
    SMS = "sms"
    CALL = "call"
    OPSGENIE = "opsgenie"
    JSM = "jsm"
    """Jira Service Management Operations: speaks as OpsGenie does, at another address."""
    JIRA = "jira"
    PAGERDUTY = "pagerduty"
    ZENDUTY = "zenduty"
    TELEGRAM = "telegram"


class Tier(StrEnum):
    """How much a page is worth disturbing somebody for."""

    AT_ONCE = "level-1"
    """The market is endangered: everything that rings, at any hour."""
    IN_HOURS = "level-2"
    OFF_HOURS = "level-2-off-hours"
    TICKET = "level-3"
    """Work for the next day: never wakes anybody."""


class Version(StrEnum):
    """Which Alertmanager a configuration is for."""

    OLD = "0.25"
    MODERN = "modern"


BRIDGED: Final = {
    Version.OLD: frozenset({Kind.TEAMS, Kind.ZENDUTY, Kind.SMS, Kind.CALL}),
    Version.MODERN: frozenset({Kind.ZENDUTY, Kind.SMS, Kind.CALL}),
}
"""What an Alertmanager cannot speak to: the bridge does."""
UNSPOKEN: Final = {Version.OLD: frozenset({Kind.JIRA}), Version.MODERN: frozenset[Kind]()}
"""What neither an Alertmanager nor the bridge can speak to."""


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """A way to people."""

    name: str
    kind: Kind
    secret: str = ""
    """File of the credentials' directory that holds its key, token or secret address."""
    settings: Mapping[str, str] = msgspec.field(default_factory=dict)
    """What is no secret, such as the chat room."""


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """When people are at work, by their own clock."""

    name: str
    zone: str
    days: tuple[str, ...]
    """By name, such as monday."""
    start_min: int
    """Minutes after midnight."""
    end_min: int
    """Minutes after midnight, at most 1440; after `start_min`."""


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for something, and how they are told."""

    name: str
    hours: str
    tiers: Mapping[Tier, tuple[str, ...]]
    """Names of channels."""


class Hears(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts people are told of directly, beside control or instead of it."""

    name: str
    match: Mapping[str, str]
    """Regular expressions by label; all must fit whole."""
    levels: tuple[int, ...] = LEVELS
    control_too: bool = True
    """Whether control is told as well."""
    why: str = ""


class Inhibition(msgspec.Struct, frozen=True, kw_only=True):
    """A cause holds back its symptoms."""

    source: tuple[str, ...]
    """Names of alerts, or regular expressions such as `.+Down`."""
    target: tuple[str, ...]
    equal: tuple[str, ...] = ()
    why: str = ""


class Mute(msgspec.Struct, frozen=True, kw_only=True):
    """In some phases of the market an alert means nothing."""

    alert: str
    phases: frozenset[PhaseName]
    reason: str


class Organisation(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    channels: Mapping[str, Channel]
    hours: Mapping[str, Hours]
    teams: Mapping[str, Team]
    default_team: str
    """Who is told of what bears the label of no team."""
    hears: tuple[Hears, ...]
    inhibitions: tuple[Inhibition, ...]
    mutes: tuple[Mute, ...] = ()
    heartbeat: str = ""
    """The channel that hears every Watchdog alert, so that somebody outside notices its silence; empty: nobody."""


Live = Mapping[str, str]
"""Channels that can be used, by name: the path of the credentials' file (empty for one that the bridge serves)."""


class UnheardError(InputError):
    """Alerts of level 1 would reach nobody, although people can be told."""


def check_heard(organisation: Organisation, live: Live) -> None:
    """Refuse channels by which no alert of level 1 reaches its team.

    Raises:
        UnheardError: a team has none, although some channel is live; says which would do.
    """
    if not live:
        return
    for team in organisation.teams.values():
        wanted = team.tiers.get(Tier.AT_ONCE, ())
        if not set(wanted) & set(live):
            raise UnheardError(
                f"team {team.name}", "would hear of no alert of level 1, although other channels are live",
                right=f"give the credentials of one of {', '.join(wanted)}",
            )  # fmt: skip
