"""Driving one run: ask what the machine asks, journal it, carry it out, answer.

Order of things for each question: the question (with the answer before it) is journalled, it is carried out, the answer
is journalled with the next question. What acts or asks people waits until the journal is on the disk, with all before
it; what only looks does not wait, for it can look again. A controller killed at any point therefore resumes by giving
the machine its recorded answers and asking the open question again; a `Do` carries a key, so asking it again repeats no
effect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

import msgspec

from control import killswitch, tell
from control.bindings import Plant
from control.consent import Consents, consent_on_record
from control.failpoints import Failpoint, Failpoints
from control.intake import StoreThread
from control.market import bounds_market
from control.plan_digest import Plan, plan_of, short, steps_in_words
from control.telemetry import ControlInstruments
from incidents.ports import JournalKind, RunRecord
from incidents.timeline import Draft
from kernel.errors import PermanentError, TapewatchError
from kernel.time import SECOND, Clock, Duration, Instant, to_seconds
from monitor.ports import Metrics, Reading
from runbooks.facts import PastRun, PlantFacts
from runbooks.model import (
    Answer,
    Ask,
    AskAnswer,
    Conclusion,
    Do,
    DoAnswer,
    Look,
    Outcome,
    Permit,
    PermitAnswer,
    Question,
    Read,
    ReadAnswer,
    RefusalReason,
    Runbook,
    Wait,
    WaitAnswer,
)
from runbooks.policy import permit
from runbooks.run import Run, advance
from runbooks.run import run as machine
from runbooks.words import duration

RESUME_WITHIN: Final = Duration(60 * SECOND)
"""For how long after its last answer an action that was cut short may be begun by the next process.

Longer than a lease takes to change hands; what was seen longer ago says nothing of now.
"""
_AHEAD_S: Final = 1.0
"""How old what was looked at ahead may be; a permission's facts are seldom younger than half of that."""
_QUESTION: Final = msgspec.json.Encoder()
_ANSWER: Final = msgspec.json.Decoder(Answer)
_ASKED: Final = msgspec.json.Decoder(Question)


@dataclass(frozen=True)
class Parts:
    """What a driver works with."""

    store: StoreThread
    metrics: Metrics
    plant: Plant
    facts: Callable[[], Awaitable[PlantFacts]]
    """Looks at the plant now; raises `TapewatchError` when it cannot be seen."""
    history: Callable[[Instant], Awaitable[list[PastRun]]]
    """Runs that ended within the hour before an instant."""
    kill_switch: Path
    consents: Consents
    failpoints: Failpoints
    telemetry: ControlInstruments
    clock: Clock
    market: Callable[[PlantFacts], Awaitable[PlantFacts]] | None = None
    """Adds what of the market goes through each replica; asked only for runbooks that bound it."""
    ahead: Callable[[Runbook], Coroutine[object, object, PlantFacts]] | None = None
    """Looks at the plant while the guards are read, so that the first permission need not wait for it."""


class Driver:
    """Carries runs out, one question at a time."""

    def __init__(self, parts: Parts) -> None:
        """Work with `parts`, which are shared by all runs."""
        self._parts = parts
        self._plans: dict[str, dict[str, Plan]] = {}
        """The plans a run has asked consent for, by digest, to say later what has changed."""
        self._ahead: dict[str, asyncio.Task[tuple[float, PlantFacts | None]]] = {}
        """What was looked at when a run began, for its first permission, and when that look began."""

    @property
    def parts(self) -> Parts:
        """What it works with."""
        return self._parts

    async def drive(self, run: RunRecord, runbook: Runbook, *, asked_for_at: Instant | None = None) -> Conclusion:
        """Carry a run out, or go on with one that was cut short; everything but its end is journalled.

        `asked_for_at` is when the signal that led here arrived, for the time to the first action.
        """
        if self._parts.ahead is not None:
            self._ahead[run.id] = asyncio.create_task(_timed(self._parts.ahead(runbook)), name=f"look for {run.id}")
        journal = await self._parts.store.call(lambda store: store.run_journal(run.id))
        runbook = _as_begun(runbook, journal)
        generator = machine(runbook, run.id)
        try:
            question, answers, open_before = _resumed(generator, journal)
        except PermanentError as error:
            return Conclusion(outcome=Outcome.FAILED, reason="", detail=f"It could not be resumed: {error}.")
        try:
            return await self._go_on(run, runbook, generator, (question, answers, open_before), asked_for_at)
        finally:
            self._plans.pop(run.id, None)
            if (ahead := self._ahead.pop(run.id, None)) is not None:
                ahead.cancel()

    async def _go_on(
        self,
        run: RunRecord,
        runbook: Runbook,
        generator: Run,
        standing: tuple[Question | Conclusion, list[Answer], bool],
        asked_for_at: Instant | None,
    ) -> Conclusion:
        question, answers, open_before = standing
        n = len(answers)
        rows: list[tuple[int, JournalKind, bytes]] = []
        drafts: list[Draft] = []
        looked: list[Draft] = []
        first = True
        while not isinstance(question, Conclusion):
            if not open_before:
                rows.append((n, "question", _QUESTION.encode(question)))
                drafts += tell.asked(run, question, self._parts.clock.now())
            if isinstance(question, Do) and first and asked_for_at is not None and not n_acted(answers):
                self._parts.telemetry.first_action(to_seconds(self._parts.clock.now() - asked_for_at))
                first = False
            # Only what acts or asks people waits for the disk; a reading can be taken again after a loss of power.
            await self._persist(run, rows, drafts, synced=isinstance(question, Do | Ask))
            answer = await self._answer(question, run, runbook, open_before=open_before)
            open_before = False
            answers.append(answer)
            following = advance(generator, answer)
            rows = [(n, "answer", _QUESTION.encode(answer))]
            if isinstance(question, Look):
                # What the platform said is told with the reading that goes with it, or not at all.
                looked = tell.answered(run, question, answer, worth_telling=True)
                drafts = []
            else:
                worth_telling = _worth_telling(question, answer, following)
                drafts = tell.answered(run, question, answer, worth_telling=worth_telling)
                drafts, looked = [*(looked if drafts else ()), *drafts], []
            if isinstance(question, Do):
                # An effect's answer is made durable at once: the next question may take long to come.
                await self._persist(run, rows, drafts)
                rows, drafts = [], []
            question, n = following, n + 1
        await self._persist(run, rows, drafts)
        return question

    def _forbidden(self) -> bool:
        return killswitch.read(self._parts.kill_switch) is not None

    async def facts(self) -> PlantFacts:
        """Look at the plant now; raises `TapewatchError` when it cannot be seen."""
        return await self._parts.facts()

    async def _persist(
        self,
        run: RunRecord,
        rows: list[tuple[int, JournalKind, bytes]],
        drafts: list[Draft],
        *,
        synced: bool = True,
    ) -> None:
        if rows or drafts:
            await self._parts.store.call(lambda store: store.advance(run.id, tuple(rows), tuple(drafts), synced=synced))

    async def _answer(self, question: Question, run: RunRecord, runbook: Runbook, *, open_before: bool) -> Answer:
        match question:
            case Read():
                return await self._read(question)
            case Look():
                return await self._parts.plant.look(question.target)
            case Wait():
                return await self._wait(question)
            case Ask():
                return await self._ask(question, run, runbook)
            case Permit():
                return await self._permit(question, run, runbook)
            case Do():
                stale = await self._no_longer_good(question, run, runbook) if open_before else ""
                return await self._do(question, open_before=open_before, stale=stale)
            case _:
                assert_never(question)

    async def _read(self, question: Read) -> ReadAnswer:
        evidence = question.evidence
        reading = await self._parts.metrics.read(evidence.query, fresh=evidence.fresh, max_age=evidence.max_age_ns)
        now = self._parts.clock.now()
        if isinstance(reading, Reading):
            return ReadAnswer(at=now, value=reading.value, data_at=reading.data_at)
        self._parts.telemetry.evidence_unknown(reading.why)
        return ReadAnswer(at=now, value=None, data_at=None, unknown=reading.why, detail=reading.detail)

    async def _wait(self, question: Wait) -> WaitAnswer:
        pause_ns = question.until - self._parts.clock.now()
        if pause_ns > 0:
            await asyncio.sleep(to_seconds(pause_ns))
        return WaitAnswer(at=self._parts.clock.now())

    async def _ask(self, question: Ask, run: RunRecord, runbook: Runbook) -> AskAnswer:
        plans = self._plans.setdefault(run.id, {})

        async def look() -> Plan:
            plan = plan_of(runbook, await self._parts.facts())
            return plans.setdefault(plan.digest, plan)

        async def told(words: str) -> None:
            await self._persist(run, [], [tell.consent_asked(run, words, self._parts.clock.now())])

        does = steps_in_words(runbook)
        verdict = await self._parts.consents.wait_for(run.id, question, look, does=does, told=told)
        return replace_at(verdict, self._parts.clock.now())

    async def _permit(self, question: Permit, run: RunRecord, runbook: Runbook) -> PermitAnswer:
        now = self._parts.clock.now()
        try:
            facts = await self._facts_for(runbook, run.id)
        except TapewatchError as error:
            return PermitAnswer(now, granted=False, reason=RefusalReason.NO_EVIDENCE, detail=str(error))
        history = [past for past in await self._parts.history(now) if past.started_at != run.started_at]
        answer = permit(
            question.action,
            runbook=runbook,
            facts=facts,
            history=history,
            kill_switch=killswitch.read(self._parts.kill_switch) is not None,
            now=self._parts.clock.now(),
            undo=question.undo,
        )
        plan = plan_of(runbook, facts) if question.plan and answer.granted else None
        if plan is None or plan.digest == question.plan:
            return answer
        approved = self._plans.get(run.id, {}).get(question.plan)
        what = approved.differs(plan) if approved is not None else f"they make plan {plan.short} now"
        words = f"the facts changed since plan {short(question.plan)} was approved: {what}"
        return PermitAnswer(answer.at, granted=False, reason=RefusalReason.PLAN_CHANGED, detail=words)

    async def _facts_for(self, runbook: Runbook, run_id: str) -> PlantFacts:
        """Look at the plant, and at what of the market goes through it only where the runbook bounds that."""
        facts = await self._seen_ahead(run_id) or await self._parts.facts()
        if self._parts.market is None or not bounds_market(runbook):
            return facts
        return await self._parts.market(facts)

    async def _seen_ahead(self, run_id: str) -> PlantFacts | None:
        """Return what was looked at when the run began, once and only a moment later."""
        ahead = self._ahead.pop(run_id, None)
        if ahead is None:
            return None
        began_s, facts = await ahead
        return facts if time.monotonic() - began_s < _AHEAD_S else None

    async def _no_longer_good(self, question: Do, run: RunRecord, runbook: Runbook) -> str:
        """Say why what was permitted before control stopped must not be begun now; empty when it may be, or was done.

        What it stood on is as old as the stop was long: the rails are asked anew, and in time evidence is none.
        """
        if await self._parts.plant.done(question.action, question.key):
            return ""
        answer = await self._permit(Permit(question.action, undo=question.undo), run, runbook)
        if not answer.granted:
            return f"it is not permitted any more ({answer.reason}). {answer.detail}"
        journal = await self._parts.store.call(lambda store: store.run_journal(run.id))
        answered = [_ANSWER.decode(payload) for _, kind, payload in journal if kind == "answer"]
        age_ns = answer.at - max((one.at for one in answered), default=answer.at)
        return "" if age_ns <= RESUME_WITHIN else f"what was seen before it is {duration(age_ns)} old"

    async def _do(self, question: Do, *, open_before: bool, stale: str = "") -> DoAnswer:
        """Carry an action out; `open_before` tells that a process before this one may have begun to."""
        self._parts.failpoints.reach(Failpoint.BEFORE_EFFECT)
        thrown = killswitch.read(self._parts.kill_switch)
        now = self._parts.clock.now()
        if thrown is not None and open_before:
            # No refusal, for a refusal says that nothing was touched.
            words = f"kill switch {thrown}; whether it was done before control stopped is not known"
            answer = DoAnswer(at=now, ok=False, error=words)
        elif thrown is not None:
            answer = DoAnswer(at=now, ok=False, refused=RefusalReason.KILL_SWITCH, error=f"kill switch {thrown}")
        elif stale:
            words = f"whether it was done before control stopped is not known; {stale}"
            answer = DoAnswer(at=now, ok=False, error=words)
        else:
            answer = await self._parts.plant.carry_out(question.action, question.key, forbidden=self._forbidden)
        self._parts.failpoints.reach(Failpoint.AFTER_EFFECT)
        self._parts.telemetry.action(question.action, answer)
        return answer


async def _timed(look: Awaitable[PlantFacts]) -> tuple[float, PlantFacts | None]:
    """Return when a look began and what it saw; None when it failed: whoever needs it looks again and hears why."""
    began_s = time.monotonic()
    try:
        return began_s, await look
    except TapewatchError:
        return began_s, None


def _resumed(
    generator: Run, journal: Sequence[tuple[int, JournalKind, bytes]]
) -> tuple[Question | Conclusion, list[Answer], bool]:
    """Bring a fresh run to where its journal leads: the question open now, the answers so far, whether it was asked.

    Raises:
        PermanentError: the journal is not this runbook's (it was changed while the run was cut short).
    """
    asked = {n: payload for n, kind, payload in journal if kind == "question"}
    answers = [_ANSWER.decode(payload) for _, kind, payload in journal if kind == "answer"]
    question = advance(generator)
    for n in range(len(answers) + 1):
        if n in asked and (isinstance(question, Conclusion) or asked[n] != _QUESTION.encode(question)):
            raise PermanentError(f"the runbook now asks something else at question {n + 1}; start the run anew")
        if n < len(answers):
            question = advance(generator, answers[n])
    return question, answers, len(answers) in asked


def _as_begun(runbook: Runbook, journal: Sequence[tuple[int, JournalKind, bytes]]) -> Runbook:
    """Return the runbook under the consent its run began with, if its journal tells that already."""
    asked = (_ASKED.decode(payload) for _, kind, payload in journal if kind == "question")
    recorded = consent_on_record(asked)
    return runbook if recorded is None else msgspec.structs.replace(runbook, consent=recorded)


def has_acted(journal: Sequence[tuple[int, JournalKind, bytes]]) -> bool:
    """Tell whether a run's journal holds an action that was carried out."""
    answers = (_ANSWER.decode(payload) for _, kind, payload in journal if kind == "answer")
    return any(isinstance(answer, DoAnswer) and answer.ok for answer in answers)


def n_acted(answers: list[Answer]) -> int:
    """Return how many actions were answered so far."""
    return sum(isinstance(answer, DoAnswer) for answer in answers)


def replace_at(answer: AskAnswer, at: Instant) -> AskAnswer:
    """Return the verdict with the time it became known to the run."""
    return msgspec.structs.replace(answer, at=at)


def _worth_telling(question: Question, answer: Answer, following: Question | Conclusion) -> bool:
    """Guards are always told; of a proof's many readings the one that decides, and those without an answer."""
    if not isinstance(question, Read) or not isinstance(answer, ReadAnswer):
        return True
    return question.purpose == "guard" or answer.value is None or not isinstance(following, Wait)
