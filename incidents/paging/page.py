"""A page: one notification for people, from one Alertmanager webhook, short enough for every channel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import msgspec

from incidents.paging.text import clean, cut, one_line, safe_url
from incidents.signals import BODY_BYTES_MAX, VALUE_BYTES_MAX, AlertSignal, Severity, Status, parse_webhook
from kernel.errors import InputError
from kernel.time import Instant

SHOWN_MAX: Final = 20
"""Alerts a page tells of one by one; the others are counted."""
SUMMARY_LETTERS_MAX: Final = 300
DESCRIPTION_LETTERS_MAX: Final = 600
NAME_LETTERS_MAX: Final = 80
TEST_GROUP: Final = "tapewatch:page-test"


class Event(StrEnum):
    """What a page tells, in the words of those who keep alerts by a key."""

    TRIGGER = "trigger"
    RESOLVE = "resolve"


class Shown(msgspec.Struct, frozen=True):
    """One alert of a page, cleaned and cut."""

    name: str
    status: Status
    summary: str
    description: str = ""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One notification for people. Every text in it is clean and short; nothing of it is markup."""

    key: str
    """SHA-256 of the group's key in hex: what Alertmanager itself gives OpsGenie as alias, PagerDuty as dedup_key."""
    content: str
    """Equal for a repeated delivery of the same facts."""
    event: Event
    severity: Severity
    level: int
    """1 (worst) to 3: the worst of its alerts that fire; of all when none does."""
    team: str
    service: str
    shown: tuple[Shown, ...]
    count: int
    """Alerts in all; more than are shown."""
    firing: int
    runbook_url: str = ""
    dashboard_url: str = ""
    received_at: Instant
    test: bool = False

    @property
    def title(self) -> str:
        """One line: what it is, how bad, and how many."""
        first = self.shown[0]
        mark = "TEST" if self.test else "RESOLVED" if self.event is Event.RESOLVE else f"L{self.level}"
        more = f" (+{self.count - 1} more)" if self.count > 1 else ""
        said = f": {first.summary}" if first.summary else ""
        return f"[{mark}] {first.name} {self.service}{said}{more}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The alerts one by one, and how many are left out."""
        told = []
        for one in self.shown:
            what = one.description or one.summary
            told.append(f"{one.status} {one.name}" + (f": {what}" if what else ""))
        left_out = self.count - len(self.shown)
        return (*told, f"and {left_out} more") if left_out else tuple(told)


def page_of(body: bytes, received_at: Instant) -> Page:
    """Read an Alertmanager webhook as a page.

    Raises:
        InputError: the body breaks a rule of `incidents.signals`, or holds no alert.
    """
    try:
        signals = parse_webhook(body, received_at)
    except InputError:
        signals = parse_webhook(_shortened(body), received_at)
    if not signals:
        raise InputError("webhook: alerts", "is empty", right="a page tells of at least one alert")
    return page_from(signals)


def _shortened(body: bytes) -> bytes:
    """Return a webhook with over-long annotations cut: a long description is no reason to tell nobody.

    Raises:
        InputError: it is no JSON object that could be shortened; what else is wrong is found by who reads it next.
    """
    if len(body) > BODY_BYTES_MAX:
        raise InputError("webhook: body", f"has {len(body)} bytes", right=f"at most {BODY_BYTES_MAX} are read")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("webhook: body", "is not JSON", right="Alertmanager sends one JSON object") from error
    alerts = document.get("alerts") if isinstance(document, dict) else None
    for alert in alerts if isinstance(alerts, list) else ():
        annotations = alert.get("annotations") if isinstance(alert, dict) else None
        if not isinstance(annotations, dict):
            continue
        for name, text in annotations.items():
            if isinstance(text, str):
                # half a letter at the end is dropped; what is shown of it is cut much shorter, between letters
                annotations[name] = text.encode("utf-8", "replace")[:VALUE_BYTES_MAX].decode(errors="ignore")
    return json.dumps(document).encode()


def page_from(signals: Sequence[AlertSignal], *, test: bool = False) -> Page:
    """Return the page that tells of `signals`, which are of one group and at least one."""
    firing = [one for one in signals if one.status is Status.FIRING]
    ordered = sorted(firing or signals, key=lambda one: (one.level, one.starts_at, one.name, one.fingerprint))
    worst = ordered[0]
    shown = [*ordered, *(one for one in signals if firing and one.status is Status.RESOLVED)][:SHOWN_MAX]
    return Page(
        key=hashlib.sha256(worst.group_key.encode()).hexdigest(),
        content=hashlib.sha256(json.dumps(sorted(one.key for one in signals)).encode()).hexdigest(),
        event=Event.TRIGGER if firing else Event.RESOLVE,
        severity=min((one.severity for one in ordered), key=list(Severity).index),
        level=worst.level,
        team=_word(worst.team),
        service=_word(worst.service),
        shown=tuple(_shown(one) for one in shown),
        count=len(signals),
        firing=len(firing),
        runbook_url=safe_url(worst.annotations.get("runbook_url", "")),
        dashboard_url=safe_url(worst.annotations.get("dashboard", "")),
        received_at=worst.received_at,
        test=test,
    )


def _shown(signal: AlertSignal) -> Shown:
    return Shown(
        name=_word(signal.name),
        status=signal.status,
        summary=cut(one_line(signal.annotations.get("summary", "")), SUMMARY_LETTERS_MAX),
        description=cut(clean(signal.annotations.get("description", "")), DESCRIPTION_LETTERS_MAX),
    )


def _word(text: str) -> str:
    return cut(one_line(text), NAME_LETTERS_MAX) or "unknown"
