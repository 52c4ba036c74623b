"""Driving one run: ask what the machine asks, journal it, carry it out, answer.

Order of things for each question: the question (with the answer before it) is journalled, it is carried out, the answer
is journalled with the next question. What acts or asks people waits until the journal is on the disk, with all before
it; what only looks does not wait, for it can look again. A controller killed at any point therefore resumes by giving
the machine its recorded answers and asking the open question again; a `Do` carries a key, so asking it again repeats no
effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

import msgspec

from control import killswitch, tell
from control.bindings import Plant
from control.consent import Consents
from control.failpoints import Failpoint, Failpoints
from control.intake import StoreThread
from control.telemetry import ControlInstruments
from incidents.ports import JournalKind, RunRecord
from incidents.timeline import Draft
from kernel.errors import PermanentError, TapewatchError
from kernel.time import Clock, Instant, to_seconds
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
    LookAnswer,
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

_QUESTION: Final = msgspec.json.Encoder()
_ANSWER: Final = msgspec.json.Decoder(Answer)


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


class Driver:
    """Carries runs out, one question at a time."""

    def __init__(self, parts: Parts) -> None:
        """Work with `parts`, which are shared by all runs."""
        self._parts = parts

    async def drive(self, run: RunRecord, runbook: Runbook, *, asked_for_at: Instant | None = None) -> Conclusion:
        """Carry a run out, or go on with one that was cut short; everything but its end is journalled.

        `asked_for_at` is when the signal that led here arrived, for the time to the first action.
        """
        journal = await self._parts.store.call(lambda store: store.run_journal(run.id))
        generator = machine(runbook, run.id)
        try:
            question, answers, open_before = _resumed(generator, journal)
        except PermanentError as error:
            return Conclusion(outcome=Outcome.FAILED, reason="", detail=f"It could not be resumed: {error}.")
        n = len(answers)
        rows: list[tuple[int, JournalKind, bytes]] = []
        drafts: list[Draft] = []
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
            drafts = tell.answered(run, question, answer, worth_telling=_worth_telling(question, answer, following))
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
                return await self._ask(question, run)
            case Permit():
                return await self._permit(question, run, runbook)
            case Do():
                return await self._do(question, open_before=open_before)
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

    async def _ask(self, question: Ask, run: RunRecord) -> AskAnswer:
        verdict = await self._parts.consents.wait_for(run.id, question.consent, question.what)
        return replace_at(verdict, self._parts.clock.now())

    async def _permit(self, question: Permit, run: RunRecord, runbook: Runbook) -> PermitAnswer:
        now = self._parts.clock.now()
        try:
            facts = await self._parts.facts()
        except TapewatchError as error:
            return PermitAnswer(now, granted=False, reason=RefusalReason.NO_EVIDENCE, detail=str(error))
        history = [past for past in await self._parts.history(now) if past.started_at != run.started_at]
        return permit(
            question.action,
            runbook=runbook,
            facts=facts,
            history=history,
            kill_switch=killswitch.read(self._parts.kill_switch) is not None,
            now=self._parts.clock.now(),
            undo=question.undo,
        )

    async def _do(self, question: Do, *, open_before: bool) -> DoAnswer:
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
        else:
            answer = await self._parts.plant.carry_out(question.action, question.key, forbidden=self._forbidden)
        self._parts.failpoints.reach(Failpoint.AFTER_EFFECT)
        self._parts.telemetry.action(question.action, answer)
        return answer


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
    if isinstance(answer, LookAnswer):
        return answer.settled is None or not isinstance(following, Wait)
    if not isinstance(question, Read) or not isinstance(answer, ReadAnswer):
        return True
    return question.purpose == "guard" or answer.value is None or not isinstance(following, Wait)
