"""Hysteresis: when an alert that comes and goes counts as gone, and when an incident may be cleared."""

from __future__ import annotations

from typing import Final

import msgspec

from incidents.incident import AlertFact, Incident
from kernel.time import MINUTE, SECOND, Duration, Instant


class Hysteresis(msgspec.Struct, frozen=True, kw_only=True):
    """How long silence must last before it is believed."""

    quiet_ns: Duration = Duration(10 * SECOND)
    """After a plain recovery: several evaluations of a rule."""
    changes: int = 4
    """So many changes of one alert `within_ns` are flapping: it fired, recovered, fired and recovered again."""
    within_ns: Duration = Duration(10 * MINUTE)
    flap_quiet_ns: Duration = Duration(2 * MINUTE)
    """After flapping."""


DEFAULT: Final = Hysteresis()


def is_flapping(alert: AlertFact, rule: Hysteresis = DEFAULT) -> bool:
    """Tell whether the latest changes of an alert came too close together to believe the last one."""
    if len(alert.changes) < rule.changes:
        return False
    return alert.changes[-1] - alert.changes[-rule.changes] <= rule.within_ns


def quiet_at(alert: AlertFact, rule: Hysteresis = DEFAULT) -> Instant | None:
    """Return from when an alert counts as gone; None while it fires."""
    if alert.firing:
        return None
    return Instant(alert.since + (rule.flap_quiet_ns if is_flapping(alert, rule) else rule.quiet_ns))


def counts_as_firing(alert: AlertFact, now: Instant, rule: Hysteresis = DEFAULT) -> bool:
    """Tell whether an alert fires or was quiet for too short a time."""
    quiet = quiet_at(alert, rule)
    return quiet is None or now < quiet


def clears_at(incident: Incident, rule: Hysteresis = DEFAULT) -> Instant | None:
    """Return from when `Signal.CLEARED` is due if nothing fires until then; None while an alert fires."""
    latest = incident.reopened_at or incident.opened_at
    for alert in incident.alerts.values():
        quiet = quiet_at(alert, rule)
        if quiet is None:
            return None
        latest = max(latest, quiet)
    return latest
