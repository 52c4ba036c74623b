"""Which alerts are one incident.

Rules, the first that fits decides:
    1. An alert that an unresolved incident holds, or one resolved less than `reopen_ns` ago, belongs to it.
    2. A matter of its own (a kill-switch-class alert of one symbol, a piece of information with a runbook) only ever
       belongs to the incident of its own key: one incident per alert name and symbol, so that each symbol is halted,
       proven and handed over on its own.
    2a. Departures that detectors find alone are a matter of their own for each service, unless they began in many
       services within `together_ns`: that is one cause, and one incident. What another alert tells never joins it.
    3. An alert of the service which an incident is about joins it; a worse one becomes its cause.
    4. An alert of a service that depends on the incident's service joins as a symptom, while the cause fires or within
       `symptom_ns` of its end.
    5. An alert of a service on which the incident's service depends becomes the cause of every incident below it that
       opened less than `cause_ns` ago: the oldest goes on, the others merge into it.
    6. Else it opens an incident. Siblings (settlement and gateway both stand on the engine) stay apart.
A resolved notice never opens, never joins, never acts: it only marks its own alert.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from incidents.incident import (
    AlertFact,
    Incident,
    Signal,
    State,
    apply,
    level_change,
    transition,
)
from incidents.signals import AlertSignal, Severity, Status
from incidents.timeline import Draft, EntryKind
from kernel.graph import Graph, upstream
from kernel.time import MINUTE, Duration, Instant
from monitor.service_graph import DEPENDS_ON
from runbooks.model import OF_DETECTORS

PER_SYMBOL: Final = frozenset({"SequenceGap", "BookCrossed"})
MANY_SERVICES: Final = 3
"""Departures of so many services at once have one cause: two may well be two troubles."""


class Windows(msgspec.Struct, frozen=True, kw_only=True):
    """How far apart things may be and still be one matter."""

    reopen_ns: Duration = Duration(10 * MINUTE)
    symptom_ns: Duration = Duration(2 * MINUTE)
    cause_ns: Duration = Duration(5 * MINUTE)
    together_ns: Duration = MINUTE
    """Departures that began so close to each other began together."""


DEFAULT: Final = Windows()


class Part(StrEnum):
    """What an alert is to the incident it joins."""

    CAUSE = "cause"
    SYMPTOM = "symptom"


class IgnoreReason(StrEnum):
    """Why a signal changes nothing."""

    INFORMATION = "information"
    DUPLICATE = "duplicate"
    UNKNOWN_RESOLVED = "unknown_resolved"
    ALREADY_ENDED = "already_ended"
    """It says that an alert fires whose end is known: late, or overtaken by its own end."""


class Opens(msgspec.Struct, frozen=True):
    """A new incident."""

    key: str


class Joins(msgspec.Struct, frozen=True):
    """It belongs to an incident that is there; `absorbs` are the incidents that merge into it."""

    incident: str
    part: Part
    why: str
    absorbs: tuple[str, ...] = ()


class Resolves(msgspec.Struct, frozen=True):
    """An alert of the incident ended."""

    incident: str


class Ignored(msgspec.Struct, frozen=True):
    """Nothing changes."""

    reason: IgnoreReason


Decision = Opens | Joins | Resolves | Ignored


def opens_with(answered: Collection[str]) -> Callable[[AlertSignal], bool]:
    """Return the rule which alerts may open an incident: all but information that no runbook answers."""
    return lambda signal: signal.severity is not Severity.INFO or signal.name in answered


def key_of(signal: AlertSignal) -> str:
    """Return what makes alerts one matter from the start."""
    if signal.name in PER_SYMBOL:
        return f"{signal.name}/{signal.labels.get('symbol', '')}"
    if signal.severity is Severity.INFO:
        return f"{signal.name}/{signal.service}"
    return signal.service


def stands_alone(key: str) -> bool:
    """Tell whether an incident of this key gathers nothing but its own alerts."""
    return "/" in key


def correlate(
    signal: AlertSignal,
    incidents: Sequence[Incident],
    graph: Graph,
    now: Instant,
    *,
    opens: Callable[[AlertSignal], bool],
    ended: Mapping[str, Instant] | None = None,
    windows: Windows = DEFAULT,
) -> Decision:
    """Decide what a signal means.

    Args:
        signal: What arrived.
        incidents: The unresolved incidents and those resolved lately, oldest first.
        graph: Which service depends on which.
        now: The present instant.
        opens: Which alerts may open an incident (`opens_with`).
        ended: Latest known end by fingerprint (`IncidentStore.ended`): what arrived before its own firing.
        windows: How far apart things may be.
    """
    holder = _holder(signal.fingerprint, incidents, now, windows)
    known = holder.alerts[signal.fingerprint] if holder else None
    if signal.status is Status.RESOLVED:
        return _end(signal, holder, known)
    if known and known.firing:
        return Ignored(IgnoreReason.DUPLICATE)
    # An end may overtake its own beginning although the alert is known from an episode before.
    ends = [known.ends_at if known else None, (ended or {}).get(signal.fingerprint)]
    if any(end is not None and signal.starts_at < end for end in ends):
        return Ignored(IgnoreReason.ALREADY_ENDED)
    if not opens(signal):
        return Ignored(IgnoreReason.INFORMATION)
    if holder:
        part = Part.CAUSE if holder.cause == signal.fingerprint else Part.SYMPTOM
        return Joins(holder.id, part, "it fires again")
    return _place(signal, [one for one in incidents if one.unresolved], graph, now, windows)


def _end(signal: AlertSignal, holder: Incident | None, known: AlertFact | None) -> Decision:
    if holder is None or known is None:
        return Ignored(IgnoreReason.UNKNOWN_RESOLVED)
    if not known.firing:
        return Ignored(IgnoreReason.DUPLICATE)
    if signal.ends_at is not None and signal.ends_at < known.starts_at:
        return Ignored(IgnoreReason.ALREADY_ENDED)
    return Resolves(holder.id)


def _holder(fingerprint: str, incidents: Sequence[Incident], now: Instant, windows: Windows) -> Incident | None:
    """Return the incident an alert belongs to: unresolved ones first, then the one resolved last."""
    resolved: Incident | None = None
    for one in reversed(incidents):
        if fingerprint not in one.alerts or one.merged_into:
            continue
        if one.unresolved:
            return one
        if one.resolved_at is not None and now - one.resolved_at < windows.reopen_ns and resolved is None:
            resolved = one
    return resolved


def _place(
    signal: AlertSignal, incidents: Sequence[Incident], graph: Graph, now: Instant, windows: Windows
) -> Decision:
    """Decide where an alert that no incident holds belongs."""
    key = key_of(signal)
    if signal.name in OF_DETECTORS:
        return _place_departure(signal, incidents, windows)
    if stands_alone(key):
        own = next((one for one in incidents if one.key == key), None)
        return Joins(own.id, Part.SYMPTOM, "the same matter") if own else Opens(key)
    shared = [one for one in incidents if not stands_alone(one.key)]
    same = next((one for one in shared if one.service == signal.service), None)
    lower = tuple(one for one in shared if _explains(signal.service, one, graph, now, windows))
    if same is not None:
        worse = same.cause_alert is None or _rank(signal.name, signal.labels) < _rank_of(same.cause_alert)
        part, why = (Part.CAUSE, "it is worse") if worse else (Part.SYMPTOM, "the same service")
        return Joins(same.id, part, why, tuple(one.id for one in lower))
    above = upstream(signal.service, graph)
    for one in shared:
        if one.service in above and _still_explains(one, now, windows):
            return Joins(one.id, Part.SYMPTOM, f"{signal.service} depends on {one.service}")
    if lower:
        why = f"{lower[0].service} depends on {signal.service}"
        return Joins(lower[0].id, Part.CAUSE, why, tuple(one.id for one in lower[1:]))
    return Opens(key)


def _place_departure(signal: AlertSignal, incidents: Sequence[Incident], windows: Windows) -> Decision:
    """Decide where a departure belongs: with its service's, with those of many others that began with it, or alone."""
    key = key_of(signal)
    held = {one.id: departing for one in incidents if (departing := _departures(one))}
    for one in incidents:
        own = [alert for alert in held.get(one.id, ()) if alert.labels.get("service") == signal.service]
        # Where many departed, what is over for this service says nothing of what comes later.
        if one.key == key or any(alert.firing or _near(alert, signal, windows) for alert in own):
            return Joins(one.id, Part.SYMPTOM, "the same matter")
    together = {
        one: services
        for one, departing in held.items()
        if (services := {str(alert.labels.get("service")) for alert in departing if _near(alert, signal, windows)})
    }
    services = {signal.service}.union(*together.values())
    if len(services) < MANY_SERVICES:
        return Opens(key)
    first, *others = together
    why = f"departures of {len(services)} services began together: {', '.join(sorted(services))}"
    return Joins(first, Part.SYMPTOM, why, tuple(others))


def _departures(incident: Incident) -> list[AlertFact]:
    """Return the departures of an incident that is about nothing else."""
    if incident.key.partition("/")[0] not in OF_DETECTORS:
        return []
    return [alert for alert in incident.alerts.values() if alert.name in OF_DETECTORS]


def _near(alert: AlertFact, signal: AlertSignal, windows: Windows) -> bool:
    """Tell whether two alerts began together, by their own words: control may be late with either."""
    return abs(alert.starts_at - signal.starts_at) <= windows.together_ns


def _still_explains(incident: Incident, now: Instant, windows: Windows) -> bool:
    cause = incident.cause_alert
    return cause is None or cause.firing or now - cause.since <= windows.symptom_ns


def _explains(service: str, incident: Incident, graph: Graph, now: Instant, windows: Windows) -> bool:
    """Tell whether an alert of `service` may be why this incident opened."""
    began = incident.reopened_at or incident.opened_at
    return service in upstream(incident.service, graph) and now - began <= windows.cause_ns


def _rank(name: str, labels: Mapping[str, str]) -> tuple[int, int, bool]:
    """Order alerts of one service, the worst first; a process that is down explains what it does badly."""
    level = int(labels["level"]) if labels.get("level") in {"1", "2", "3"} else 2
    severity = {"critical": 0, "warning": 1, "info": 2}.get(labels.get("severity", ""), 1)
    return level, severity, not name.endswith("Down")


def _rank_of(alert: AlertFact) -> tuple[int, int, bool]:
    return _rank(alert.name, alert.labels)


# --- from decisions to entries --------------------------------------------------------------------------------------


class Told(msgspec.Struct, frozen=True):
    """What a batch of signals adds to the incidents."""

    drafts: Mapping[str, Sequence[Draft]]
    """By incident, for `IncidentStore.decide`."""
    incidents: Mapping[str, Incident]
    """The incidents touched, as they are after it."""
    opened: tuple[str, ...]
    decisions: tuple[Decision, ...]
    """One a signal, in order."""


def tell(  # noqa: PLR0913 - what `correlate` needs, all by name
    signals: Iterable[AlertSignal],
    incidents: Iterable[Incident],
    new_id: Callable[[], str],
    *,
    now: Instant,
    opens: Callable[[AlertSignal], bool],
    ended: Mapping[str, Instant] | None = None,
    graph: Graph = DEPENDS_ON,
    windows: Windows = DEFAULT,
) -> Told:
    """Decide on signals in order, each in the light of those before it, and write what they say as drafts.

    Args:
        signals: In the order they were taken in.
        incidents: The unresolved and the lately resolved, oldest first.
        new_id: Called once for each incident that is opened.
        now: The time of the entries.
        opens: Which alerts may open an incident.
        ended: Latest known end by fingerprint.
        graph: Which service depends on which.
        windows: How far apart things may be.
    """
    book = _Book({one.id: one for one in incidents}, now)
    ends = dict(ended or {})
    decisions: list[Decision] = []
    opened: list[str] = []
    for signal in signals:
        decision = correlate(signal, tuple(book.known.values()), graph, now, opens=opens, ended=ends, windows=windows)
        decisions.append(decision)
        if signal.ends_at is not None:
            ends[signal.fingerprint] = max(signal.ends_at, ends.get(signal.fingerprint, signal.ends_at))
        match decision:
            case Opens(key):
                opened.append(new_id())
                book.open(opened[-1], key, signal)
            case Joins():
                book.join(decision, signal)
            case Resolves(incident_id):
                book.add(incident_id, _resolved(signal, now))
            case Ignored():
                pass
    touched = {one: book.known[one] for one in book.drafts}
    return Told(book.drafts, touched, tuple(opened), tuple(decisions))


class _Book:
    """The incidents while a batch is told: each draft is applied as soon as it is written."""

    def __init__(self, known: dict[str, Incident], now: Instant) -> None:
        self.known = known
        self.drafts: dict[str, list[Draft]] = {}
        self._now = now

    def add(self, incident_id: str, *drafts: Draft) -> None:
        for draft in drafts:
            self.known[incident_id] = apply(self.known.get(incident_id), draft)
            self.drafts.setdefault(incident_id, []).append(draft)

    def open(self, incident_id: str, key: str, signal: AlertSignal) -> None:
        title = _title(signal)
        data = {
            "incident": incident_id,
            "title": title,
            "level": signal.level,
            "service": signal.service,
            "team": signal.team,
            "key": key,
        }
        text = f"Opened at level {signal.level}: {title}"
        self.add(incident_id, Draft(self._now, EntryKind.OPENED, "control", text, data), _firing(signal, self._now))

    def join(self, decision: Joins, signal: AlertSignal) -> None:
        one = decision.incident
        incident = self.known[one]
        self.add(one, _firing(signal, self._now))
        if incident.state is State.RESOLVED:
            self.add(one, self._moved(one, Signal.REOPEN, f"{signal.name} fires again"))
        elif incident.state is State.MITIGATED:
            self.add(one, self._moved(one, Signal.RELAPSED, f"{signal.name} fires"))
        if decision.part is Part.CAUSE and incident.cause != signal.fingerprint:
            data = {
                "fingerprint": signal.fingerprint,
                "alertname": signal.name,
                "why": decision.why,
                "title": _title(signal),
            }
            text = f"{signal.name} is held to be the cause: {decision.why}"
            self.add(one, Draft(self._now, EntryKind.CAUSE_CHANGED, "control", text, data))
        self._rise(one, signal.level, signal.name)
        for other in decision.absorbs:
            why = f"its cause belongs to {one}" if decision.part is Part.CAUSE else decision.why
            self._merge(other, one, why)

    def _merge(self, other: str, into: str, why: str) -> None:
        """Let one incident go on in another, which takes over all its alerts."""
        merged = self.known[other]
        for alert in merged.alerts.values():
            if alert.fingerprint not in self.known[into].alerts and alert.firing:
                self.add(into, _taken_over(alert, other, self._now))
        self._rise(into, merged.level, f"what {other} told")
        self.add(other, transition(merged, Signal.MERGED, at=self._now, source="control", why=why, into=into))

    def _rise(self, incident_id: str, level: int, why: str) -> None:
        incident = self.known[incident_id]
        if level < incident.level:
            self.add(incident_id, level_change(incident, level, at=self._now, source="control", why=why))

    def _moved(self, incident_id: str, signal: Signal, why: str) -> Draft:
        return transition(self.known[incident_id], signal, at=self._now, source="control", why=why)


def _firing(signal: AlertSignal, now: Instant) -> Draft:
    data = {
        "fingerprint": signal.fingerprint,
        "alertname": signal.name,
        "labels": dict(signal.labels),
        "annotations": dict(signal.annotations),
        "starts_at": signal.starts_at,
        "path": signal.path,
    }
    return Draft(now, EntryKind.ALERT_FIRING, "alertmanager", f"{_named(signal.labels)} fires: {_title(signal)}", data)


def _taken_over(alert: AlertFact, other: str, now: Instant) -> Draft:
    data = {
        "fingerprint": alert.fingerprint,
        "alertname": alert.name,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "starts_at": alert.starts_at,
        "path": alert.path,
    }
    text = f"{_named(alert.labels)} is taken over from {other}"
    return Draft(now, EntryKind.ALERT_FIRING, "control", text, data)


def _resolved(signal: AlertSignal, now: Instant) -> Draft:
    data = {"fingerprint": signal.fingerprint, "alertname": signal.name, "ends_at": signal.ends_at}
    return Draft(now, EntryKind.ALERT_RESOLVED, "alertmanager", f"{_named(signal.labels)} is resolved", data)


def _title(signal: AlertSignal) -> str:
    """Return one short line, whatever the annotation holds."""
    return _line(signal.annotations.get("summary") or f"{signal.name} ({signal.service})")


def _named(labels: Mapping[str, str]) -> str:
    item = labels.get("replica") or labels.get("symbol")
    return _line(f"{labels.get('alertname', '')} ({item})" if item else labels.get("alertname", ""))


def _line(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text[:200]).strip()
