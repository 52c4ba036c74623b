"""What arrives: one alert of one notification, checked and brought into one shape.

A webhook body is hostile until `parse_webhook` has read it whole: size, nesting, encoding, repeated keys and every
label set are checked before anything is believed. Our own signals (dead man's switch, estate) use the same type.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NoReturn

import msgspec

from kernel.errors import InputError
from kernel.time import Instant, from_rfc3339

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""About twice 10,000 alerts of ours; Alertmanager itself sends no more than it was posted."""
ALERTS_MAX: Final = 10_000
LABELS_MAX: Final = 64
"""Per label set and per annotation set; Prometheus's own defaults in hosted services are 30 to 40."""
NAME_BYTES_MAX: Final = 256
VALUE_BYTES_MAX: Final = 4 * 1024
DEPTH_MAX: Final = 8
"""Alertmanager's body is 4 deep; twice that leaves room for fields of later versions."""
GROUP_KEY_BYTES_MAX: Final = 16 * 1024
INSTANT_MAX: Final = 2**63 - 1
"""The year 2262: what fits a signed 64-bit column in nanoseconds."""

# A JSON string, closed or not. It always matches at a quote, so that a body of quotes cannot make the search quadratic.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")
_FINGERPRINT: Final = re.compile(r"[0-9A-Za-z_.:-]{1,128}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Status(StrEnum):
    """Whether an alert fires, in Alertmanager's words."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Severity(StrEnum):
    """How bad an alert is, from its label `severity`."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class AlertSignal(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of one notification."""

    key: str
    """Equal for a repeated delivery of the same fact: hash of group key, fingerprint, status, start (and end)."""
    fingerprint: str
    """Equal for equal label sets."""
    status: Status
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: Instant
    ends_at: Instant | None
    """None while firing."""
    received_at: Instant
    group_key: str
    generator_url: str = ""

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]

    @property
    def service(self) -> str:
        """The workload the alert is about, `unknown` without the label."""
        return self.labels.get("service") or "unknown"

    @property
    def team(self) -> str:
        """Who owns it, `unknown` without the label."""
        return self.labels.get("team") or "unknown"

    @property
    def severity(self) -> Severity:
        """How bad it is; an alert which does not say so is a warning."""
        try:
            return Severity(self.labels.get("severity", ""))
        except ValueError:
            return Severity.WARNING

    @property
    def level(self) -> int:
        """The level it asks for, 1 (worst) to 3; from its severity when the label is missing or wrong."""
        said = self.labels.get("level", "")
        if said in {"1", "2", "3"}:
            return int(said)
        return {Severity.CRITICAL: 1, Severity.WARNING: 2, Severity.INFO: 3}[self.severity]

    @property
    def path(self) -> str:
        """How it came to Alertmanager: `prometheus` by a rule, `direct` posted by a process of ours."""
        return "prometheus" if "/graph?" in self.generator_url else "direct"


def signal_key(
    group_key: str, fingerprint: str, status: Status, starts_at: Instant, ends_at: Instant | None = None
) -> str:
    """Return what makes two deliveries one: the hash of what they say, not of when they came."""
    facts = json.dumps([group_key, fingerprint, status, starts_at, ends_at if status is Status.RESOLVED else None])
    return hashlib.sha256(facts.encode()).hexdigest()


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Return a fingerprint for signals of our own: 16 hex digits, equal for equal label sets."""
    return hashlib.sha256(json.dumps(sorted(labels.items())).encode()).hexdigest()[:16]


def own_signal(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    *,
    status: Status,
    starts_at: Instant,
    received_at: Instant,
    ends_at: Instant | None = None,
    group_key: str = "tapewatch",
) -> AlertSignal:
    """Make a signal of our own, such as the dead man's switch. `labels` must hold `alertname`."""
    assert labels.get("alertname"), "a signal has a name"
    assert (ends_at is None) == (status is Status.FIRING), "a signal ends when it is resolved"
    fingerprint = fingerprint_of(labels)
    return AlertSignal(
        key=signal_key(group_key, fingerprint, status, starts_at, ends_at),
        fingerprint=fingerprint,
        status=status,
        labels=dict(labels),
        annotations=dict(annotations),
        starts_at=starts_at,
        ends_at=ends_at,
        received_at=received_at,
        group_key=group_key,
    )


def parse_webhook(body: bytes, received_at: Instant) -> list[AlertSignal]:
    """Read an Alertmanager webhook of version "4".

    Fields it does not know are left alone, so that a newer Alertmanager is understood.

    Raises:
        InputError: the body breaks a rule; `where` names the place, such as `webhook: alerts[3].labels`.
    """
    document = _read_json(body)
    if document.get("version") != "4":
        _refuse("version", f"is {_shown(document.get('version'))}", 'only version "4" is understood')
    group_key = _text(document.get("groupKey"), "groupKey", GROUP_KEY_BYTES_MAX)
    if not group_key:
        _refuse("groupKey", "is empty", "Alertmanager names the group of every notification")
    alerts = document.get("alerts")
    if not isinstance(alerts, list):
        _refuse("alerts", f"is {_shown(alerts)}", "a list of alerts is needed")
    if len(alerts) > ALERTS_MAX:
        _refuse("alerts", f"holds {len(alerts)} alerts", f"at most {ALERTS_MAX} are taken at once")
    return [_alert(alert, f"alerts[{i}]", group_key, received_at) for i, alert in enumerate(alerts)]


def _read_json(body: bytes) -> Mapping[str, object]:
    if len(body) > BODY_BYTES_MAX:
        _refuse("body", f"has {len(body)} bytes", f"at most {BODY_BYTES_MAX} are read")
    if _depth(body) > DEPTH_MAX:
        _refuse("body", "is nested too deeply", f"at most {DEPTH_MAX} levels are read")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            "webhook: body", f"is not UTF-8 at byte {error.start}", right="JSON is sent as UTF-8"
        ) from error
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            "webhook: body", f"is not JSON: {error}", right="Alertmanager sends one JSON object"
        ) from error
    if not isinstance(document, dict):
        _refuse("body", f"is {_shown(document)}", "Alertmanager sends one JSON object")
    return document


def _depth(body: bytes) -> int:
    """Return the deepest nesting, seen without building a value."""
    deepest = depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        if bracket in b"[{":
            depth += 1
            if depth > deepest:
                deepest = depth
                if deepest > DEPTH_MAX:
                    break
        else:
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        _refuse("body", f"an object has the key {_shown(twice)} twice", "every key once")
    return made


def _no_constant(word: str) -> NoReturn:
    _refuse("body", f"holds {word}", "JSON knows no such number")


def _alert(alert: object, where: str, group_key: str, received_at: Instant) -> AlertSignal:
    if not isinstance(alert, dict):
        _refuse(where, f"is {_shown(alert)}", "an alert is an object")
    labels = _pairs(alert.get("labels"), f"{where}.labels")
    if not labels.get("alertname"):
        _refuse(f"{where}.labels", "holds no alertname", "every alert has a name")
    annotations = _pairs(alert.get("annotations", {}), f"{where}.annotations")
    fingerprint = alert.get("fingerprint")
    if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
        _refuse(f"{where}.fingerprint", f"is {_shown(fingerprint)}", "up to 128 letters, digits and _ . : - are right")
    said = alert.get("status")
    if not isinstance(said, str) or said not in {Status.FIRING, Status.RESOLVED}:
        _refuse(f"{where}.status", f"is {_shown(said)}", "firing or resolved is right")
    status = Status(said)
    starts_at = _instant(alert.get("startsAt"), f"{where}.startsAt")
    ends_at = _instant(alert.get("endsAt"), f"{where}.endsAt") if status is Status.RESOLVED else None
    return AlertSignal(
        key=signal_key(group_key, fingerprint, status, starts_at, ends_at),
        fingerprint=fingerprint,
        status=status,
        labels=labels,
        annotations=annotations,
        starts_at=starts_at,
        ends_at=ends_at,
        received_at=received_at,
        group_key=group_key,
        generator_url=_text(alert.get("generatorURL", ""), f"{where}.generatorURL", VALUE_BYTES_MAX),
    )


def _pairs(value: object, where: str) -> dict[str, str]:
    """Check a label or annotation set whole."""
    if not isinstance(value, dict):
        _refuse(where, f"is {_shown(value)}", "an object of texts is needed")
    if len(value) > LABELS_MAX:
        _refuse(where, f"holds {len(value)} entries", f"at most {LABELS_MAX} are taken")
    for name, text in value.items():
        if not name or _CONTROL.search(name):
            _refuse(where, f"holds the name {_shown(name)}", "a name is not empty and holds no control characters")
        _text(name, f"{where}, a name", NAME_BYTES_MAX)
        _text(text, f"{where}[{_shown(name)}]", VALUE_BYTES_MAX)
    return value


def _text(value: object, where: str, bytes_max: int) -> str:
    if not isinstance(value, str):
        _refuse(where, f"is {_shown(value)}", "a text is needed")
    try:
        size = len(value) if value.isascii() else len(value.encode("utf-8"))
    except UnicodeEncodeError:
        _refuse(where, "holds half of a surrogate pair", "text must be valid Unicode")
    if size > bytes_max:
        _refuse(where, f"has {size} bytes", f"at most {bytes_max} are taken")
    if "\0" in value:
        _refuse(where, "holds a NUL character", "text without NUL is needed")
    return value


def _instant(value: object, where: str) -> Instant:
    if not isinstance(value, str):
        _refuse(where, f"is {_shown(value)}", "an RFC 3339 time such as 2026-03-02T09:30:00Z is needed")
    try:
        instant = from_rfc3339(value)
    except (ValueError, OverflowError) as error:
        raise InputError(f"webhook: {where}", str(error)[:200]) from error
    if not 0 <= instant <= INSTANT_MAX:
        _refuse(where, f"is {_shown(value)}", "a time between 1970 and 2262 is needed")
    return instant


def _shown(value: object) -> str:
    """Show a piece of hostile input: short, one line, escaped."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return ascii(value if len(value) <= 40 else value[:40] + "...")  # noqa: PLR2004 - what fits a sentence
    return {dict: "an object", list: "a list", bool: "a truth value"}.get(type(value), "a number")


def _refuse(where: str, problem: str, right: str) -> NoReturn:
    raise InputError(f"webhook: {where}", problem, right=right)
