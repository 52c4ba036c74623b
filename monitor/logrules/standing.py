"""What becomes of matches: alerts that stand while matches come, end after `hold`, and are not raised again too soon.

The delay between two raisings follows ElastAlert's `realert` and `exponential_realert`, to the letter of its program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from kernel.time import Instant
from monitor.logrules.fold import Match, key_of, key_text
from monitor.logrules.model import Rule
from monitor.ports import PostableAlert

MAX_ALERTS: Final = 200
"""Alerts of one rule that stand at once; nobody reads the two hundred and first."""
MAX_LABEL: Final = 200
DOCS: Final = "https://tapewatch.example/docs/log-alerts.md"
DASHBOARDS: Final = "https://tapewatch.example/dashboards"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """The alert of one key."""

    standing: bool = False
    since: int = 0
    until: int = 0
    last: int = 0
    """The last match."""
    streak: int = 0
    why: str = ""
    value: float = 0.0
    raised: tuple[int, ...] = ()
    silent_until: int = 0
    exponent: int = 0
    suppressed: int = 0


Alerts = Mapping[str, Alert]


def advance(rule: Rule, alerts: Alerts, matches: Sequence[Match], upto: int) -> dict[str, Alert]:
    """Return the alerts after these matches, at event time `upto`."""
    now = dict(alerts)
    for match in sorted(matches, key=lambda one: (one.at, one.key)):
        text = key_text(match.key)
        room = text in now or sum(one.standing for one in now.values()) < MAX_ALERTS
        if room:
            now[text] = _matched(rule, _aged(now.get(text, Alert()), match.at), match)
    aged = {text: _aged(one, upto) for text, one in now.items()}
    return {text: one for text, one in aged.items() if one.standing or _matters(rule, one, upto)}


def _aged(alert: Alert, now: int) -> Alert:
    return msgspec.structs.replace(alert, standing=False) if alert.standing and now > alert.until else alert


def _matters(rule: Rule, alert: Alert, now: int) -> bool:
    flapping = rule.flapping.within if rule.flapping else 0
    keep = max(alert.last + rule.hold, alert.silent_until + 2 * max(rule.realert_max, rule.realert))
    return now <= max(keep, alert.until, (alert.raised[-1] + flapping) if alert.raised else 0)


def _matched(rule: Rule, alert: Alert, match: Match) -> Alert:
    near = alert.last and match.at - alert.last <= rule.hold
    told = msgspec.structs.replace(
        alert, last=match.at, streak=alert.streak + 1 if near else 1, why=match.why, value=match.value
    )
    if told.standing:
        return msgspec.structs.replace(told, until=max(told.until, match.at + _hold(rule, told)))
    if told.streak < rule.open_after:
        return told
    if match.at < told.silent_until:
        return msgspec.structs.replace(told, suppressed=told.suppressed + 1)
    silent, exponent = _next(rule, told, match.at)
    within = rule.flapping.within if rule.flapping else 0
    raised = (*(at for at in told.raised if at >= match.at - within), match.at)[-100:]
    opened = msgspec.structs.replace(
        told, standing=True, since=match.at, raised=raised, silent_until=silent, exponent=exponent, suppressed=0
    )
    return msgspec.structs.replace(opened, until=match.at + _hold(rule, opened))


def _hold(rule: Rule, alert: Alert) -> int:
    return max(rule.hold, rule.flapping.quiet) if rule.flapping and flaps(rule, alert) else rule.hold


def flaps(rule: Rule, alert: Alert) -> bool:
    """Return whether an alert came and went so often that it is held."""
    return rule.flapping is not None and len(alert.raised) >= rule.flapping.times


def _next(rule: Rule, alert: Alert, at: int) -> tuple[int, int]:
    """Return until when a key raised at `at` is silent, and the exponent (ElastAlert's next_alert_time)."""
    if not alert.raised or not rule.realert or not rule.realert_max:
        return at + rule.realert, 0
    exponent, past = alert.exponent, at - alert.silent_until
    if past < rule.realert * 2**exponent:
        exponent += 1
    else:
        while past > rule.realert * 2**exponent and exponent > 0:
            past -= rule.realert * 2**exponent
            exponent -= 1
    wait = rule.realert * 2**exponent
    return (at + rule.realert_max, exponent - 1) if wait >= rule.realert_max else (at + wait, exponent)


def label_of(field: str) -> str:
    """Return the label that a field's value stands under."""
    return field.replace(".", "_").replace("@", "").replace("-", "_")


def postable(rule: Rule, text: str, alert: Alert, ends_at: Instant) -> PostableAlert:
    """Return an alert as Alertmanager takes it. Its labels are the rule's and the key's, so that they stay the same."""
    key = dict(zip(rule.by, key_of(text), strict=False))
    labels = {"alertname": rule.name, **rule.labels, "audience": "people", "source": "logs"}
    labels |= {label_of(field): value[:MAX_LABEL] for field, value in key.items()}
    annotations = {
        "runbook_url": f"{DOCS}#{rule.name.lower()}",
        "dashboard": f"{DASHBOARDS}/tapewatch-monitoring",
        **{name: _filled(words, alert, key) for name, words in rule.annotations.items()},
        "why": alert.why[:500] + ("; it comes and goes and is held" if flaps(rule, alert) else ""),
        "query": rule.query_text[:500],
    }
    return PostableAlert(labels, annotations, starts_at=Instant(alert.since), ends_at=ends_at)


def _filled(words: str, alert: Alert, key: Mapping[str, str]) -> str:
    for name, value in {"value": f"{alert.value:g}", "why": alert.why, **key}.items():
        words = words.replace(f"{{{name}}}", value[:MAX_LABEL] if name != "why" else value[:500])
    return words
