"""The control loop: signals become incidents, incidents become runs, runs become timelines.

One turn: decide on what was taken in -> choose what to do about each incident -> close what is quiet. Everything a turn
decides is one transaction; what it starts (runs, reports) goes on beside it. The loop alone decides to go on after an
operating error, and counts each.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from control import killswitch, tell
from control.anomaly_found import Finder
from control.causes import Investigator
from control.config import ControlTuning
from control.consent import consent_for
from control.deadman import SILENT, DeadMan
from control.decide import HandOver, Start, next_step
from control.driver import Driver, has_acted
from control.errors import RefusedByRailError
from control.evidence import Archivist
from control.intake import Intake, StoreThread
from control.paging import Pager
from control.preview import preview
from control.rehearsed import Preview
from control.telemetry import ControlInstruments
from exchange.ports import Log
from incidents.correlate import Told, opens_with
from incidents.correlate import tell as tell_signals
from incidents.flap import Hysteresis, clears_at
from incidents.incident import UNRESOLVED, AlertFact, Incident, Signal, State, handed_over, transition
from incidents.ports import IncidentStore, RunRecord
from incidents.signals import AlertSignal, Status, own_signal
from incidents.timeline import Draft
from kernel.errors import TapewatchError
from kernel.time import HOUR, MINUTE, SECOND, Clock, Instant, seconds
from runbooks.bind import bind
from runbooks.facts import PastRun, target
from runbooks.model import Conclusion, Outcome, Refusal, RefusalReason, Runbook
from runbooks.policy import admit, refuse_in_progress, refuse_no_target

TICK_S: Final = 0.25
"""How long a turn waits for something new before it looks at what time alone has changed."""
BATCH: Final = 50
"""Signals decided on in one go. Webhooks wait for the store meanwhile: about 20 ms at most."""
FLOOD_PAUSE_S: Final = 0.1
"""How long deciding may wait, after each full batch, for a flood of deliveries to be kept."""
PERSON_PATIENCE: Final = 5 * SECOND
"""How long an incident that a person opened for a run waits for that run."""
REOPEN_WINDOW: Final = 10 * MINUTE
_SILENT: Final = frozenset({RefusalReason.COOL_DOWN, RefusalReason.RUN_IN_PROGRESS})
"""Refusals that pass by themselves: told once, tried again, never a reason to wake a person."""


@dataclass(frozen=True)
class LoopParts:
    """What the loop works with."""

    store: StoreThread
    intake: Intake
    driver: Driver
    pager: Pager
    archivist: Archivist
    deadman: DeadMan
    library: Mapping[str, Runbook]
    """Runbook by the alert it answers."""
    tuning: ControlTuning
    kill_switch: Path
    telemetry: ControlInstruments
    log: Log
    clock: Clock
    causes: Investigator | None = None
    """Ranks what moved first; None: nobody does."""
    found: Finder | None = None
    """Reads what the detectors found; None: nobody does."""


class Loop:
    """Turns until it is stopped."""

    def __init__(self, parts: LoopParts, wake: asyncio.Event) -> None:
        """`wake` is set whenever new signals are durable."""
        self._p = parts
        self._wake = wake
        self._runs: dict[str, tuple[asyncio.Task[None], RunRecord]] = {}
        """The runs under way here, by incident."""
        self._starting: dict[str, str] = {}
        """Targets of the runs that are just being written down, by incident."""
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._looked_back = False
        self._told_declined: set[tuple[str, str, str]] = set()
        self._opens = opens_with(frozenset(parts.library))
        self._rule = Hysteresis(quiet_ns=seconds(parts.tuning.quiet_s), flap_quiet_ns=seconds(parts.tuning.quiet_s * 6))
        self._arrived: dict[str, Instant] = {}
        """When the first signal of an alert arrived, by fingerprint, until its run starts."""

    async def run(self) -> None:
        """Turn until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.turn()
            except TapewatchError as error:
                self._p.telemetry.error(type(error).__name__)
                self._p.log.event("turn-failed", severity="error", message=str(error))
                await asyncio.sleep(TICK_S)

    async def turn(self) -> None:
        """Do one round of everything that is due."""
        now = self._p.clock.now()
        await self._resume()
        silent = self._p.deadman.due(now)
        if silent is not None:
            await self._p.intake.take_in([silent])
            self._p.deadman.told(silent)
        while decided := await self._decide_signals():
            if decided == BATCH:
                await self._p.intake.calm(FLOOD_PAUSE_S)
        now = self._p.clock.now()
        unresolved = await self._p.store.call(lambda store: store.incidents(UNRESOLVED))
        for incident in unresolved:
            await self._advance(incident, now)
        await self._p.pager.turn(unresolved, now, self._asking())
        backlog = await self._p.store.call(lambda store: store.backlog())
        self._p.telemetry.standing(unresolved, backlog=backlog, runs=len(self._runs), now=now)
        self._p.telemetry.kill_switch(on=killswitch.read(self._p.kill_switch) is not None)

    # --- signals ----------------------------------------------------------------------------------------------------

    async def _decide_signals(self) -> int:
        """Decide on one batch of pending signals; return how many there were."""
        pending = await self._p.store.call(lambda store: store.pending(BATCH))
        if not pending:
            return 0
        now = self._p.clock.now()
        signals = [signal for _, signal in pending if not self._p.deadman.note(signal, now)]
        offset = pending[-1][0]
        try:
            told = await self._p.store.call(lambda store: self._told(store, signals, offset, now))
        except TapewatchError:
            raise
        except Exception:  # noqa: BLE001 - a fault of ours in one signal must hold up none of the others
            await self._decide_singly(pending, now)
            return len(pending)
        self._tell_opened(told)
        for signal in signals:
            if signal.status is Status.RESOLVED:
                self._arrived.pop(signal.fingerprint, None)
            elif signal.name in self._p.library:
                self._arrived.setdefault(signal.fingerprint, signal.received_at)
        for incident in told.incidents.values():
            if incident.unresolved:
                if self._p.found is not None:
                    self._p.found.begin(incident)
                await self._advance(incident, now)
        return len(pending)

    def _tell_opened(self, told: Told) -> None:
        for incident_id in told.opened:
            incident = told.incidents[incident_id]
            self._p.telemetry.opened(incident.level)
            self._p.log.event("incident-opened", severity="warning", incident=incident_id, message=incident.title)
            if self._p.causes is not None:
                self._p.causes.begin(incident_id)

    def _told(self, store: IncidentStore, signals: Sequence[AlertSignal], offset: int, now: Instant) -> Told:
        """Decide on signals in one visit to the store's thread: each visit more would delay the first action."""
        ended = store.ended({signal.fingerprint for signal in signals})
        told = tell_signals(
            signals, _recent(store, now), lambda: store.new_id(now), now=now, opens=self._opens, ended=ended
        )
        store.decide(offset, told.drafts)
        return told

    async def _decide_singly(self, pending: Sequence[tuple[int, AlertSignal]], now: Instant) -> None:
        """Decide on signals one by one; what cannot be decided on is told as an incident of its own, never dropped."""
        for offset, signal in pending:
            try:
                await self._p.store.call(functools.partial(self._told, signals=[signal], offset=offset, now=now))
            except TapewatchError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the next signal waits
                self._p.telemetry.error("signal")
                self._p.log.event("signal-undecidable", severity="error", message=f"{signal.name}: {error!r}")
                stand_in = undecidable(signal, now)
                await self._p.store.call(functools.partial(self._told, signals=[stand_in], offset=offset, now=now))

    # --- incidents --------------------------------------------------------------------------------------------------

    async def _advance(self, incident: Incident, now: Instant) -> None:
        """Do what is due about one incident."""
        if self._busy(incident.id) or incident.id in self._closing or incident.active_runs:
            return
        if not incident.alerts and not incident.runs and now - incident.opened_at < PERSON_PATIENCE:
            return  # a person has just opened it for a run that is about to be written down
        due = clears_at(incident, self._rule)
        if due is not None:
            # Who was asked to look has to say so first: what a refused or vain run left changed is not over by itself.
            unseen = incident.needs_person and incident.acknowledged_at is None
            if now >= due and not unseen:
                self._closing[incident.id] = asyncio.create_task(
                    self._close(incident, now), name=f"close {incident.id}"
                )
            return
        await self._act_on(incident, now)

    async def _act_on(self, incident: Incident, now: Instant) -> None:
        """Begin the next run for an incident whose alerts fire, or hand it over."""
        if not any(alert.name in self._p.library for alert in incident.firing) and incident.needs_person:
            return  # `next_step` would say the same, but the store is busy enough without a question for each of these
        runs = await self._p.store.call(lambda store: _runs_of(store.runs_since(incident.opened_at), incident.id))
        patience = seconds(self._p.tuning.handover_s)
        declined: set[str] = set()
        while True:
            match next_step(incident, self._p.library, runs, now, patience, declined=declined):
                case Start(alert, runbook):
                    if await self._begin(incident, alert, runbook, now):
                        return
                    declined.add(alert.fingerprint)
                case HandOver(reason, what_to_do):
                    await self.hand_over(incident, reason, what_to_do)
                    return
                case None:
                    return

    async def _close(self, incident: Incident, now: Instant) -> None:
        """Close a quiet incident, beside the turns: a monitoring that answers slowly must hold nobody up."""
        try:
            evidence, ranked = await asyncio.gather(self._p.archivist.gather(incident, now), self._ranked(incident))
            evidence = [*ranked, *evidence]
            at = self._p.clock.now()
            if await self._p.store.call(lambda store: self._cleared(store, incident.id, evidence, at)):
                self._p.log.event("incident-resolved", incident=incident.id)
                await self._p.archivist.report(incident.id)
        except TapewatchError as error:
            self._p.telemetry.error(type(error).__name__)
            self._p.log.event("close-failed", severity="error", incident=incident.id, message=str(error))
        finally:
            self._closing.pop(incident.id, None)

    async def _ranked(self, incident: Incident) -> list[Draft]:
        """Return what the last look at an incident's causes adds, and at what the detectors found."""
        if self._p.causes is None and self._p.found is None:
            return []
        entries = await self._p.store.call(lambda store: store.timeline(incident.id))
        found = await self._p.found.at_end(incident, entries) if self._p.found is not None else []
        return [*found, *(await self._p.causes.at_end(incident, entries) if self._p.causes is not None else [])]

    def _cleared(self, store: IncidentStore, incident_id: str, evidence: Sequence[Draft], at: Instant) -> bool:
        """Clear an incident when it is still quiet: alerts, runs and people go on while evidence is gathered."""
        incident = store.incident(incident_id)
        if incident is None or not incident.unresolved or incident.active_runs or self._busy(incident_id):
            return False
        due = clears_at(incident, self._rule)
        if due is None or at < due:
            return False
        why = "every alert has been resolved for long enough"
        if not incident.runs:
            why += "; nothing was done by us"
        store.append(incident_id, [*evidence, transition(incident, Signal.CLEARED, at=at, source="control", why=why)])
        return True

    async def hand_over(self, incident: Incident, reason: str, what_to_do: str, *told_first: Draft) -> None:
        """Give an incident to a person, and say so on their ways; `told_first` goes before it in the same commit."""
        draft = handed_over(at=self._p.clock.now(), source="control", reason=reason, what_to_do=what_to_do)
        await self._p.store.call(lambda store: store.append(incident.id, [*told_first, draft]))
        self._p.telemetry.handed_over()
        self._p.log.event("handed-over", severity="warning", incident=incident.id, message=reason)

    # --- runs -------------------------------------------------------------------------------------------------------

    async def _begin(self, incident: Incident, alert: AlertFact, runbook: Runbook, now: Instant) -> bool:
        """Begin a run for an alert; False when it may not begin now."""
        bound = bind(runbook, alert.labels)
        refusal = bound if isinstance(bound, Refusal) else await self._refusal(bound, now, alert.name)
        if refusal is not None:
            await self._decline(incident, runbook, refusal, alert, now)
            return False
        assert isinstance(bound, Runbook), "what is not refused is bound"
        try:
            await self.start(incident, bound, alert.labels, arrived=self._arrived.get(alert.fingerprint))
        except RefusedByRailError:
            return True  # a person's run came first; the next turn looks again
        self._arrived.pop(alert.fingerprint, None)
        return True

    async def start(
        self, incident: Incident, bound: Runbook, labels: Mapping[str, str], *, arrived: Instant | None, by: str = ""
    ) -> RunRecord:
        """Start a run of a bound runbook that was admitted.

        Raises:
            RefusedByRailError: another run took the incident or the target since it was admitted.
        """
        # No await stands between this look and the claim: the loop and a person may want the same at once.
        bound = self._under_consent(bound, incident.level)
        taken = refuse_in_progress(target(bound), self._active())
        if taken is not None or self._busy(incident.id) or incident.id in self._closing:
            raise RefusedByRailError(f"{RefusalReason.RUN_IN_PROGRESS}: {incident.id} has just changed; look again")
        self._starting[incident.id] = target(bound)
        try:
            now = self._p.clock.now()
            run = await self._p.store.call(lambda store: _written(store, incident.id, bound, labels, now, by))
            self._launch(run, bound, arrived)
        finally:
            self._starting.pop(incident.id, None)
        return run

    def _under_consent(self, bound: Runbook, level: int) -> Runbook:
        """Let a bound runbook ask those who must agree at an incident's level.

        A run that is resumed keeps what its journal tells (`Driver.drive`), whatever became of the level since.
        """
        consent = consent_for(bound, level, self._p.tuning.consent_floor)
        return msgspec.structs.replace(bound, consent=consent)

    def _busy(self, incident_id: str) -> bool:
        return incident_id in self._runs or incident_id in self._starting

    def _asking(self) -> dict[str, str]:
        """Return what the runs under way ask people's consent for, by incident."""
        asked = self._p.driver.parts.consents.open
        return {run.incident: asked[run.id].words for _, run in self._runs.values() if run.id in asked}

    def _active(self) -> list[str]:
        return [*(record.target for _, record in self._runs.values()), *self._starting.values()]

    async def refusal(self, bound: Runbook) -> Refusal | None:
        """Tell why a bound runbook may not begin now, for a person who asks; a target nobody knows is told at once."""
        facts = await self._p.driver.facts()
        unknown = (refuse_no_target(step.action, facts) for step in bound.steps)
        return next(filter(None, unknown), None) or await self._refusal(bound, self._p.clock.now())

    async def rehearse(self, bound: Runbook, level: int) -> Preview:
        """Say what a run of a bound runbook would do now, in an incident of a level; changes nothing."""
        bound = self._under_consent(bound, level)
        try:
            refusal = await self.refusal(bound)
        except TapewatchError as error:
            refusal = Refusal(RefusalReason.NO_EVIDENCE, str(error))
        return await preview(self._p.driver.parts, bound, level, refusal)

    async def _refusal(self, bound: Runbook, now: Instant, alert: str = "") -> Refusal | None:
        past = await history(self._p.store, now, sizes_of(self._p.library.values()))
        thrown = killswitch.read(self._p.kill_switch) is not None
        return admit(bound, target(bound), past, self._active(), thrown, now, alert)

    async def _decline(
        self, incident: Incident, runbook: Runbook, refusal: Refusal, alert: AlertFact, now: Instant
    ) -> None:
        """Tell a refusal once per episode; those that do not pass by themselves go to a person."""
        mark = (incident.id, f"{alert.fingerprint}@{alert.since}", str(refusal.reason))
        if mark in self._told_declined:
            return
        declined = tell.run_declined(runbook.name, refusal.reason, refusal.detail, now)
        if refusal.reason in _SILENT:
            await self._p.store.call(lambda store: store.append(incident.id, [declined]))
        else:
            reason = f"{runbook.name} may not run: {refusal.detail}"
            await self.hand_over(incident, reason, runbook.when_refused, declined)
        # Only what is durable counts as told: after a failure of the store the next turn tells it again.
        self._told_declined.add(mark)
        self._p.telemetry.refused(refusal.reason)

    def _launch(self, run: RunRecord, bound: Runbook, arrived: Instant | None) -> None:
        task = asyncio.create_task(self._carry_out(run, bound, arrived), name=run.id)
        self._runs[run.incident] = (task, run)

    async def _carry_out(self, run: RunRecord, bound: Runbook, arrived: Instant | None) -> None:
        try:
            conclusion = await self._driven(run, bound, arrived)
            await self._conclude(run, bound, conclusion)
        except TapewatchError as error:
            # The store failed in mid-run: the run stays open in the journal, and a turn soon goes on with it.
            self._p.telemetry.error(type(error).__name__)
            self._p.log.event("run-cut-short", severity="error", run=run.id, message=str(error))
            await asyncio.sleep(TICK_S)
        finally:
            self._runs.pop(run.incident, None)
            self._wake.set()

    async def _driven(self, run: RunRecord, bound: Runbook, arrived: Instant | None) -> Conclusion:
        try:
            return await self._p.driver.drive(run, bound, asked_for_at=arrived)
        except TapewatchError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault in one run ends that run and wakes a person; others go on
            self._p.telemetry.error("fault")
            self._p.log.event("run-fault", severity="error", run=run.id, message=repr(error))
            return Conclusion(outcome=Outcome.FAILED, reason="", detail=f"A fault of the program ended it: {error!r}.")

    async def _conclude(self, run: RunRecord, bound: Runbook, conclusion: Conclusion) -> None:
        ended = msgspec.structs.replace(
            run,
            ended_at=self._p.clock.now(),
            outcome=str(conclusion.outcome),
            reason=conclusion.reason,
            detail=conclusion.detail,
        )
        incident = await self._p.store.call(lambda store: store.incident(run.incident))
        assert incident is not None, "a run belongs to an incident"
        halted = tell.stays_halted(ended, conclusion, incident, bound)
        drafts = [*tell.run_ended(ended, conclusion, incident, bound), *halted]
        await self._p.store.call(lambda store: store.end_run(ended, drafts))
        self._p.telemetry.ended(bound, conclusion)
        if conclusion.outcome not in {Outcome.REFUSED, Outcome.NOT_APPLICABLE}:
            self._p.telemetry.acted(run.labels.get("alertname", ""))
        if halted or conclusion.outcome not in {Outcome.MENDED, Outcome.NOT_APPLICABLE}:
            self._p.telemetry.handed_over()
        self._p.log.event(
            "run-ended",
            severity="info" if conclusion.outcome is Outcome.MENDED else "warning",
            run=run.id,
            outcome=str(conclusion.outcome),
            message=conclusion.detail,
        )

    async def _resume(self) -> None:
        """Go on with the runs that a crash, a restart or a failure of the store cut short."""
        if not self._looked_back:
            for incident in await self._p.store.call(lambda store: store.incidents(UNRESOLVED)):
                for alert in incident.firing:
                    if alert.name == SILENT:
                        self._p.deadman.resume(alert.starts_at)
            self._looked_back = True
        gone: list[tuple[RunRecord, Runbook | None]] = []
        idle = [run for run in await self._p.store.call(lambda s: s.open_runs()) if not self._busy(run.incident)]
        levels = await self._p.store.call(_levels, idle) if idle else {}
        # No await stands within this loop: what it looks at must not change under it.
        for run in idle:
            if self._busy(run.incident):
                continue
            runbook = next((book for book in self._p.library.values() if book.name == run.runbook), None)
            bound = bind(runbook, run.labels) if runbook is not None else None
            if not isinstance(bound, Runbook):
                gone.append((run, runbook))
                continue
            self._p.log.event("run-resumed", run=run.id)
            self._launch(run, self._under_consent(bound, levels.get(run.incident, bound.level)), None)
        for run, runbook in gone:
            lost = Conclusion(outcome=Outcome.FAILED, reason="", detail=f"{run.runbook} is gone from the library.")
            nobody = msgspec.structs.replace(next(iter(self._p.library.values())), name=run.runbook)
            await self._conclude(run, runbook or nobody, lost)

    async def stop(self) -> None:
        """Cut runs short where they are: their journals let the next start go on with them."""
        tasks = [*(task for task, _ in self._runs.values()), *self._closing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for beside in (self._p.causes, self._p.found):
            if beside is not None:
                await beside.stop()


def undecidable(signal: AlertSignal, now: Instant) -> AlertSignal:
    """Return what stands for a signal that our own program could not decide on: a person has to look."""
    labels = {
        "alertname": "SignalUndecidable",
        "severity": "critical",
        "level": "2",
        "team": "observability",
        "service": "control",
    }
    annotations = {
        "summary": "A signal could not be decided on",
        "description": f"{signal.name} of {signal.service}, {signal.status}: see the log of control.",
    }
    return own_signal(labels, annotations, status=Status.FIRING, starts_at=now, received_at=now)


async def history(store: StoreThread, now: Instant, sizes: Mapping[str, int] | None = None) -> list[PastRun]:
    """Return the runs of the past hour as the policy counts them; `sizes`: replicas a runbook touches at most."""
    records = await store.call(lambda kept: kept.runs_since(Instant(now - HOUR)))
    touched = await store.call(_touched, records)
    return [
        PastRun(
            runbook=run.runbook,
            target=run.target,
            started_at=run.started_at,
            ended_at=run.ended_at,
            outcome=Outcome(run.outcome) if run.outcome else None,
            touched=max((sizes or {}).get(run.runbook, 1), 1),
            acted=run.outcome != Outcome.NOT_APPLICABLE and (run.outcome != Outcome.REFUSED or run.id in touched),
        )
        for run in records
    ]


def sizes_of(library: Iterable[Runbook]) -> dict[str, int]:
    """Return how many replicas each runbook touches at most, by its name."""
    return {runbook.name: runbook.blast_radius.replicas for runbook in library}


def _touched(store: IncidentStore, runs: Sequence[RunRecord]) -> frozenset[str]:
    """Return those of the refused runs that had carried out a step before they were refused the next."""
    refused = [run.id for run in runs if run.outcome == Outcome.REFUSED]
    return frozenset(one for one in refused if has_acted(store.run_journal(one)))


def _levels(store: IncidentStore, runs: Sequence[RunRecord]) -> dict[str, int]:
    """Return the levels of the incidents that runs belong to."""
    incidents = (store.incident(run.incident) for run in runs)
    return {incident.id: incident.level for incident in incidents if incident is not None}


def _written(
    store: IncidentStore, incident_id: str, bound: Runbook, labels: Mapping[str, str], now: Instant, by: str
) -> RunRecord:
    """Write a new run down; its number is counted where nobody else can count."""
    incident = store.incident(incident_id)
    assert incident is not None, "a run belongs to an incident"
    run = RunRecord(
        id=f"{incident_id}/run-{len(incident.runs) + 1}",
        incident=incident_id,
        runbook=bound.name,
        target=target(bound),
        labels=dict(labels),
        started_at=now,
    )
    store.start_run(run, [tell.run_started(run, bound, by=by)])
    return run


def _recent(store: IncidentStore, now: Instant) -> list[Incident]:
    """Return the unresolved incidents, however many came after them, and those resolved lately, oldest first."""
    lately = [
        one
        for one in store.incidents({State.RESOLVED})
        if one.resolved_at is not None and now - one.resolved_at < REOPEN_WINDOW
    ]
    return sorted([*lately, *store.incidents(UNRESOLVED)], key=lambda one: (one.opened_at, one.id))


def _runs_of(runs: Sequence[RunRecord], incident: str) -> list[RunRecord]:
    return [run for run in runs if run.incident == incident]
