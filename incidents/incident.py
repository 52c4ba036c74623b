"""An incident: a fold over its timeline. Nothing about it is stored that the entries do not say.

Life of an incident (`TRANSITIONS` is the rule, this is the picture):

    OPEN --acknowledge--> ACKNOWLEDGED --verified--> MITIGATED --cleared--> RESOLVED
      ^                                                  |                      |
      +------------------------ relapsed ----------------+------- reopen -------+

`cleared` and `close` lead to RESOLVED from every other state, `merged` too when the incident turns out to be another's.
MITIGATED is reached by nothing but a proving reading: an action that answered "done" proves nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from incidents.timeline import Draft, Entry, EntryKind
from kernel.errors import PermanentError
from kernel.time import HOUR, MINUTE, Duration, Instant

CHANGES_KEPT: Final = 32
"""How many changes of one alert are remembered for hysteresis; more than any flap limit asks for."""


class State(StrEnum):
    """Where an incident stands."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    MITIGATED = "mitigated"
    RESOLVED = "resolved"


class Signal(StrEnum):
    """What moves an incident."""

    ACKNOWLEDGE = "acknowledge"
    """A person has it in hand."""
    VERIFIED = "verified"
    """A reading proved that the remedy helped."""
    RELAPSED = "relapsed"
    """An alert fired again after the proof."""
    CLEARED = "cleared"
    """Every alert stayed resolved for the quiet time."""
    CLOSE = "close"
    """A person says that it is over."""
    MERGED = "merged"
    """Its cause belongs to another incident, which goes on with its alerts."""
    REOPEN = "reopen"
    """An alert of it fired again soon after it was resolved."""


TRANSITIONS: Final[Mapping[State, Mapping[Signal, State]]] = {
    State.OPEN: {
        Signal.ACKNOWLEDGE: State.ACKNOWLEDGED,
        Signal.VERIFIED: State.MITIGATED,
        Signal.CLEARED: State.RESOLVED,
        Signal.CLOSE: State.RESOLVED,
        Signal.MERGED: State.RESOLVED,
    },
    State.ACKNOWLEDGED: {
        Signal.ACKNOWLEDGE: State.ACKNOWLEDGED,  # of something new that was handed over since
        Signal.VERIFIED: State.MITIGATED,
        Signal.CLEARED: State.RESOLVED,
        Signal.CLOSE: State.RESOLVED,
        Signal.MERGED: State.RESOLVED,
    },
    State.MITIGATED: {
        Signal.ACKNOWLEDGE: State.MITIGATED,  # what a person has to end, such as a halt, was seen
        Signal.VERIFIED: State.MITIGATED,  # a second run of the same incident proved its part
        Signal.RELAPSED: State.OPEN,
        Signal.CLEARED: State.RESOLVED,
        Signal.CLOSE: State.RESOLVED,
        Signal.MERGED: State.RESOLVED,
    },
    State.RESOLVED: {Signal.REOPEN: State.OPEN},
}

UNRESOLVED: Final = frozenset({State.OPEN, State.ACKNOWLEDGED, State.MITIGATED})


class IllegalTransitionError(PermanentError):
    """A signal arrived in a state that has no answer to it."""

    def __init__(self, state: State, signal: Signal) -> None:
        allowed = ", ".join(TRANSITIONS[state])
        super().__init__(f"the incident is {state}: {signal} is not allowed here, only {allowed}")
        self.state = state
        self.signal = signal


def next_state(state: State, signal: Signal) -> State:
    """Return where `signal` leads from `state`.

    Raises:
        IllegalTransitionError: the table has no answer.
    """
    try:
        return TRANSITIONS[state][signal]
    except KeyError:
        raise IllegalTransitionError(state, signal) from None


class ActionPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is owed at a level: who is told, how fast, and what happens without anybody."""

    level: int
    name: str
    told: tuple[str, ...]
    told_within_ns: Duration
    acknowledged_within_ns: Duration
    automatic: str
    then: str


ACTION_PLAN: Final[Mapping[int, ActionPlan]] = {
    1: ActionPlan(
        level=1,
        name="the market or acknowledged orders are in danger",
        told=("on-call engineer", "trading operations", "incident commander"),
        told_within_ns=MINUTE,
        acknowledged_within_ns=Duration(5 * MINUTE),
        automatic="guarded runbooks run at once; halting is allowed, reopening only after a proven replay",
        then="nobody acknowledges within 5 minutes: the second on-call and the head of operations are told",
    ),
    2: ActionPlan(
        level=2,
        name="a service is degraded, participants notice",
        told=("on-call engineer", "owning team"),
        told_within_ns=Duration(5 * MINUTE),
        acknowledged_within_ns=Duration(30 * MINUTE),
        automatic="guarded runbooks run at once",
        then="not mitigated within 30 minutes: the level rises to 1",
    ),
    3: ActionPlan(
        level=3,
        name="nothing is broken, something should be put in order",
        told=("owning team",),
        told_within_ns=HOUR,
        acknowledged_within_ns=Duration(8 * HOUR),
        automatic="guarded runbooks run when the limits allow",
        then="looked at in working hours",
    ),
}


class AlertFact(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as the incident knows it."""

    fingerprint: str
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    firing: bool
    starts_at: Instant
    """When the alert itself says that it began."""
    since: Instant
    """When its present status was seen."""
    ends_at: Instant | None = None
    """When it itself says that it ended; None while firing."""
    path: str = "prometheus"
    changes: tuple[Instant, ...] = ()
    """When its status changed, the latest last, at most `CHANGES_KEPT`."""


class RunFact(msgspec.Struct, frozen=True, kw_only=True):
    """A runbook's run as the timeline tells it."""

    id: str
    runbook: str
    title: str
    target: str
    started_at: Instant
    ended_at: Instant | None = None
    outcome: str | None = None
    """A `runbooks.model.Outcome`; None while it runs."""
    reason: str = ""
    detail: str = ""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What the entries of one timeline say, taken together."""

    id: str
    key: str
    """What makes alerts this incident's own: a service, or an alert name and a symbol."""
    title: str
    service: str
    """The service of the cause; it follows the cause."""
    team: str
    level: int
    """1 (worst) to 3. On its own it only ever rises."""
    state: State
    opened_at: Instant
    updated_at: Instant
    entries: int
    """How many entries were folded."""
    acknowledged_at: Instant | None = None
    acknowledged_by: str = ""
    mitigated_at: Instant | None = None
    """When the proof came that still stands."""
    resolved_at: Instant | None = None
    reopened_at: Instant | None = None
    alerts: Mapping[str, AlertFact] = {}
    """By fingerprint, in the order they came."""
    cause: str = ""
    """Fingerprint of the alert held to be the cause."""
    needs_person: bool = False
    """Handed over, and not resolved since."""
    needs_person_why: str = ""
    what_to_do: str = ""
    runs: tuple[RunFact, ...] = ()
    declined: tuple[str, ...] = ()
    """Runbooks that were not run, in order, as `runbook: reason`."""
    replicas: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    merged_into: str = ""
    likely_cause: str = ""
    """What the last ranking of causes says, when one of them stands out."""

    @property
    def unresolved(self) -> bool:
        """Whether it still goes on."""
        return self.state is not State.RESOLVED

    @property
    def firing(self) -> tuple[AlertFact, ...]:
        """The alerts that fire now."""
        return tuple(alert for alert in self.alerts.values() if alert.firing)

    @property
    def cause_alert(self) -> AlertFact | None:
        """The alert held to be the cause."""
        return self.alerts.get(self.cause)

    @property
    def plan(self) -> ActionPlan:
        """What is owed at its level."""
        return ACTION_PLAN[self.level]

    @property
    def active_runs(self) -> tuple[RunFact, ...]:
        """Runs under way."""
        return tuple(run for run in self.runs if run.ended_at is None)


def fold(entries: Iterable[Entry | Draft]) -> Incident:
    """Return the incident a timeline tells. The first entry must open it."""
    incident: Incident | None = None
    for entry in entries:
        incident = apply(incident, entry)
    assert incident is not None, "a timeline has at least the entry that opens it"
    return incident


def apply(incident: Incident | None, entry: Entry | Draft) -> Incident:
    """Return the incident after one more entry.

    Raises:
        IllegalTransitionError: the entry moves the incident where the table does not lead.
    """
    if incident is None:
        assert entry.kind is EntryKind.OPENED, f"the first entry of a timeline opens it, it is not {entry.kind}"
        return _opened(entry)
    assert entry.kind is not EntryKind.OPENED, f"{incident.id} is opened twice"
    seen = replace(incident, updated_at=entry.at, entries=incident.entries + 1)
    change = _CHANGES.get(entry.kind)
    return change(seen, entry) if change else seen


def _opened(entry: Entry | Draft) -> Incident:
    return Incident(
        id=_text(entry, "incident"),
        key=_text(entry, "key"),
        title=_text(entry, "title"),
        service=_text(entry, "service"),
        team=_text(entry, "team"),
        level=_number(entry, "level"),
        state=State.OPEN,
        opened_at=entry.at,
        updated_at=entry.at,
        entries=1,
    )


def _alert_firing(incident: Incident, entry: Entry | Draft) -> Incident:
    fingerprint = _text(entry, "fingerprint")
    labels = _texts(entry, "labels")
    before = incident.alerts.get(fingerprint)
    changed = before is None or not before.firing
    changes = before.changes if before else ()
    alert = AlertFact(
        fingerprint=fingerprint,
        name=_text(entry, "alertname"),
        labels=labels,
        annotations=_texts(entry, "annotations"),
        firing=True,
        starts_at=Instant(_number(entry, "starts_at", entry.at)),
        since=entry.at if changed or before is None else before.since,
        path=_text(entry, "path") or "prometheus",
        changes=(*changes, entry.at)[-CHANGES_KEPT:] if changed else changes,
    )
    after = replace(
        incident,
        alerts={**incident.alerts, fingerprint: alert},
        replicas=_with(incident.replicas, labels.get("replica")),
        symbols=_with(incident.symbols, labels.get("symbol")),
    )
    return after if incident.cause else replace(after, cause=fingerprint)


def _alert_resolved(incident: Incident, entry: Entry | Draft) -> Incident:
    fingerprint = _text(entry, "fingerprint")
    before = incident.alerts.get(fingerprint)
    if before is None or not before.firing:
        return incident
    ended = Instant(_number(entry, "ends_at", entry.at))
    changes = (*before.changes, entry.at)[-CHANGES_KEPT:]
    after = replace(before, firing=False, since=entry.at, ends_at=ended, changes=changes)
    return replace(incident, alerts={**incident.alerts, fingerprint: after})


def _cause_changed(incident: Incident, entry: Entry | Draft) -> Incident:
    """Service, team and title follow the cause: they say what the incident is about."""
    fingerprint = _text(entry, "fingerprint")
    alert = incident.alerts.get(fingerprint)
    if alert is None:
        return replace(incident, cause=fingerprint)
    return replace(
        incident,
        cause=fingerprint,
        service=alert.labels.get("service", incident.service),
        team=alert.labels.get("team", incident.team),
        title=_text(entry, "title") or incident.title,
    )


def _state_changed(incident: Incident, entry: Entry | Draft) -> Incident:
    signal = Signal(_text(entry, "signal"))
    after = replace(incident, state=next_state(incident.state, signal))
    match signal:
        case Signal.ACKNOWLEDGE:
            by = entry.source.removeprefix("person:")
            return replace(after, acknowledged_at=after.acknowledged_at or entry.at, acknowledged_by=by)
        case Signal.VERIFIED:
            return replace(after, mitigated_at=after.mitigated_at or entry.at)
        case Signal.RELAPSED:
            return replace(after, mitigated_at=None)
        case Signal.REOPEN:
            return replace(after, mitigated_at=None, resolved_at=None, reopened_at=entry.at, merged_into="")
        case Signal.CLEARED | Signal.CLOSE | Signal.MERGED:
            return replace(
                after, resolved_at=entry.at, needs_person=False, needs_person_why="", merged_into=_text(entry, "into")
            )


def _run_started(incident: Incident, entry: Entry | Draft) -> Incident:
    run = RunFact(
        id=_text(entry, "run"),
        runbook=_text(entry, "runbook"),
        title=_text(entry, "title"),
        target=_text(entry, "target"),
        started_at=entry.at,
    )
    return replace(incident, runs=(*incident.runs, run))


def _run_ended(incident: Incident, entry: Entry | Draft) -> Incident:
    ended = _text(entry, "run")
    runs = tuple(
        replace(
            run,
            ended_at=entry.at,
            outcome=_text(entry, "outcome"),
            reason=_text(entry, "reason"),
            detail=_text(entry, "detail"),
        )
        if run.id == ended
        else run
        for run in incident.runs
    )
    return replace(incident, runs=runs)


def _level_changed(incident: Incident, entry: Entry | Draft) -> Incident:
    return replace(incident, level=_number(entry, "to"))


def _run_declined(incident: Incident, entry: Entry | Draft) -> Incident:
    return replace(incident, declined=(*incident.declined, f"{_text(entry, 'runbook')}: {_text(entry, 'reason')}"))


def _handed_over(incident: Incident, entry: Entry | Draft) -> Incident:
    why, what = _text(entry, "reason"), _text(entry, "what_to_do")
    # Something new has to be seen anew, whoever acknowledged what was known before.
    unseen = replace(incident, acknowledged_at=None, acknowledged_by="")
    return replace(unseen, needs_person=True, needs_person_why=why, what_to_do=what)


def _causes_ranked(incident: Incident, entry: Entry | Draft) -> Incident:
    if _text(entry, "trouble"):
        return incident  # what could not be told takes nothing back
    return replace(incident, likely_cause=_text(entry, "sentence") if entry.data.get("stands_out") is True else "")


# The other kinds tell something without changing what the incident is.
_CHANGES: Final[Mapping[EntryKind, Callable[[Incident, Entry | Draft], Incident]]] = {
    EntryKind.ALERT_FIRING: _alert_firing,
    EntryKind.ALERT_RESOLVED: _alert_resolved,
    EntryKind.CAUSE_CHANGED: _cause_changed,
    EntryKind.STATE_CHANGED: _state_changed,
    EntryKind.LEVEL_CHANGED: _level_changed,
    EntryKind.RUN_STARTED: _run_started,
    EntryKind.RUN_ENDED: _run_ended,
    EntryKind.RUN_DECLINED: _run_declined,
    EntryKind.HANDED_OVER: _handed_over,
    EntryKind.CAUSES_RANKED: _causes_ranked,
}


def _with(known: tuple[str, ...], one: str | None) -> tuple[str, ...]:
    """Return the sorted names with one more; searched by halves, because a storm brings thousands."""
    if not one:
        return known
    place = bisect_left(known, one)
    return known if known[place : place + 1] == (one,) else (*known[:place], one, *known[place:])


def _text(entry: Entry | Draft, name: str) -> str:
    value = entry.data.get(name)
    return "" if value is None else str(value)


def _number(entry: Entry | Draft, name: str, default: int | None = None) -> int:
    value = entry.data.get(name, default)
    assert isinstance(value, int), f"{entry.kind} says {name} as a whole number, not {value!r}"
    return value


def _texts(entry: Entry | Draft, name: str) -> Mapping[str, str]:
    value = entry.data.get(name)
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, Mapping) else {}


# --- drafts: the only makers of the entries that move an incident ---------------------------------------------------


def transition(incident: Incident, signal: Signal, *, at: Instant, source: str, why: str, into: str = "") -> Draft:
    """Draft a change of state.

    Raises:
        IllegalTransitionError: the table has no answer; nothing changed.
    """
    to = next_state(incident.state, signal)
    data = {"from": str(incident.state), "to": str(to), "signal": str(signal)}
    if into:
        data["into"] = into
    said = f"{incident.state} -> {to}: {why}" if to is not incident.state else f"still {to}: {why}"
    return Draft(at, EntryKind.STATE_CHANGED, source, said, data)


def level_change(incident: Incident, level: int, *, at: Instant, source: str, why: str) -> Draft:
    """Draft a change of level (1 is the highest). Only a person may lower it."""
    assert level in ACTION_PLAN, f"level {level} is none of 1, 2, 3"
    assert level < incident.level or source.startswith("person:"), "on its own a level only rises"
    text = f"level {incident.level} -> {level}: {why}"
    return Draft(at, EntryKind.LEVEL_CHANGED, source, text, {"from": incident.level, "to": level, "why": why})


def handed_over(*, at: Instant, source: str, reason: str, what_to_do: str) -> Draft:
    """Draft that a person is needed from here."""
    data = {"reason": reason, "what_to_do": what_to_do}
    return Draft(at, EntryKind.HANDED_OVER, source, f"A person is needed: {reason}", data)
