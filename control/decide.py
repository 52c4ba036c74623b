"""What to do about an incident next: a pure choice between starting a run, handing over and waiting.

The rules, in order:

1. What was handed over stays handed over: an episode whose run did not help is a person's from then on. Another alert
   of the same incident is another matter and gets its own runbook.
2. One run at a time, and the cause first. Alerts of other services get a runbook only when the cause has stopped firing
   and they go on: what a cause explains needs no cure of its own.
3. An episode (one alert, from its start to its end) gets one run that acts. A run that found itself not applicable may
   be tried again a few times, because the cause may show a moment later than its symptoms.
4. A proof that held while its alert goes on firing was the wrong proof: a person decides.
5. What nothing can be done about goes to a person, soon at level 1, later at level 2, never at level 3 (a ticket).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from incidents.incident import AlertFact, Incident
from incidents.ports import RunRecord
from kernel.time import Duration, Instant, seconds
from runbooks.model import Outcome, Runbook

RETRY_AFTER: Final = seconds(2.0)
"""Until a runbook that found itself not applicable is tried again; each further pause is twice as long."""
TRIES_MAX: Final = 5
LINGER: Final = seconds(7.0)
"""An alert that outlives its cause for so long has a cause of its own.

Longer than any rule on the order path looks back, or a past that the cause explains would be cured once more.
"""
LEVEL_1_PATIENCE: Final = seconds(3.0)
"""At level 1 nobody waits for a cause that may still show."""


@dataclass(frozen=True)
class Start:
    """Run a runbook for an alert."""

    alert: AlertFact
    runbook: Runbook


@dataclass(frozen=True)
class HandOver:
    """Give the incident to a person."""

    reason: str
    what_to_do: str


Next = Start | HandOver | None


def next_step(
    incident: Incident,
    library: Mapping[str, Runbook],
    runs: Sequence[RunRecord],
    now: Instant,
    patience: Duration,
    *,
    declined: Collection[str] = (),
) -> Next:
    """Choose what to do about an unresolved incident now.

    Args:
        incident: as it stands.
        library: runbook by the name of the alert it answers.
        runs: this incident's runs, oldest first.
        now: the present.
        patience: how long a state without anything left to try may last before a person is told.
        declined: fingerprints of alerts whose runbook may not begin now.
    """
    if not incident.unresolved or not incident.firing:
        return None
    if any(run.ended_at is None for run in runs):
        return None
    waiting: list[str] = []
    for alert in _candidates(incident, now):
        if alert.fingerprint in declined:
            waiting.append("")
            continue
        runbook = library.get(alert.name)
        if runbook is None:
            waiting.append(f"no runbook answers {alert.name}")
            continue
        choice = _for_episode(alert, runbook, _of_episode(alert, runs), now, patience)
        if choice is not None and not (incident.needs_person and isinstance(choice, HandOver)):
            return choice
        waiting.append("")
    if incident.needs_person:
        return None
    return _out_of_ideas(incident, [w for w in waiting if w], len(waiting), runs, now, patience)


def _candidates(incident: Incident, now: Instant) -> list[AlertFact]:
    """Return the firing alerts that may get a runbook, the most promising first."""
    cause = incident.cause_alert
    firing = sorted(incident.firing, key=lambda alert: (alert.fingerprint != incident.cause, alert.since))
    if cause is None or not cause.firing:
        ended = cause.since if cause is not None else incident.opened_at
        return [alert for alert in firing if now - max(ended, alert.since) >= LINGER]
    service = cause.labels.get("service")
    return [alert for alert in firing if alert.labels.get("service") == service]


def _of_episode(alert: AlertFact, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs of this alert's present episode; one that was under way when it fired anew is among them."""
    return [run for run in runs if (run.ended_at or 0) >= alert.since and dict(run.labels) == dict(alert.labels)]


def _for_episode(
    alert: AlertFact, runbook: Runbook, tried: Sequence[RunRecord], now: Instant, patience: Duration
) -> Next:
    if not tried:
        return Start(alert, runbook)
    last = tried[-1]
    assert last.ended_at is not None, "no run is under way here"
    if last.outcome == Outcome.MENDED:
        if now - last.ended_at < patience:
            return None
        return HandOver(f"{runbook.name} was proven to have helped, but {alert.name} still fires", runbook.when_refused)
    if last.outcome == Outcome.NOT_APPLICABLE:
        if len(tried) >= TRIES_MAX:
            return HandOver(f"{runbook.name} did not apply {len(tried)} times: {last.detail}", runbook.when_refused)
        return Start(alert, runbook) if now - last.ended_at >= RETRY_AFTER << (len(tried) - 1) else None
    return HandOver(f"{runbook.name} ended as {last.outcome}: {last.detail}", runbook.when_refused)


def _out_of_ideas(
    incident: Incident,
    without: Sequence[str],
    candidates: int,
    runs: Sequence[RunRecord],
    now: Instant,
    patience: Duration,
) -> HandOver | None:
    """Hand over when no candidate has a runbook and the level asks for a person."""
    if not candidates or len(without) < candidates or incident.level >= 3:  # noqa: PLR2004 - level 3 is a ticket
        return None
    quiet_since = max([incident.reopened_at or incident.opened_at, *(run.ended_at or now for run in runs)])
    if now - quiet_since < (LEVEL_1_PATIENCE if incident.level == 1 else patience):
        return None
    return HandOver("; ".join(dict.fromkeys(without)), incident.plan.then)
