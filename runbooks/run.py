"""Carrying out a runbook without touching anything.

A run asks; whoever drives it does the asking's work and answers. So the same code runs against the real plant, in a
rehearsal and in a simulation, and a run that was cut short goes on by being given its recorded answers again.

The order, visible in `run`:

1. Guards: each is read. Unknown evidence refuses; a guard that does not hold says itself what that means.
2. Consent, unless the runbook is automatic. People take their time, so guards that have grown old are read again.
3. Each step: Permit, Do, then its proof.
4. A proof that is *refuted* in its time takes back what was done, last step first.

Rules of the machine:

- Time comes from the answers alone. A stretch in which nobody watched (the controller was down, the clock jumped)
  counts neither for a proof nor against its limit.
- Only data younger than the action counts, and two readings of the same sample prove no more than one.
- After a refusal nothing starts any more, not even an undo: whoever refuses wants hands off. What was done stays, is
  named in the conclusion, and a person decides.
- Taking back is an action too and needs evidence: when a proof's time ends *blind* (there is no young reading that
  speaks against it, or only the platform is silent), nothing is taken back. Removing replicas while the monitoring is
  gone would be acting on no data.
- Where a proof names a workload, the platform is a second witness: both must say so, and whatever it started anew
  after the action breaks the proof.
- An approval is good for the plan it named. The first permission asks whether its facts still stand.
- What is not taken back is said: `undo: nothing` leaves nothing behind, `undo: keep` is the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from typing import Final, NamedTuple, TypeVar

from kernel.errors import PermanentError
from kernel.time import MILLISECOND, Instant
from runbooks.changes import TakeBack
from runbooks.facts import target_of_action
from runbooks.model import (
    Action,
    Answer,
    Ask,
    AskAnswer,
    Conclusion,
    Consent,
    Do,
    DoAnswer,
    Evidence,
    Guard,
    HaltSymbol,
    Look,
    LookAnswer,
    Otherwise,
    Outcome,
    Permit,
    PermitAnswer,
    Proof,
    Question,
    Read,
    ReadAnswer,
    RefusalReason,
    ResumeSymbol,
    Runbook,
    Scale,
    SetReplicas,
    Step,
    Undo,
    Wait,
    WaitAnswer,
)
from runbooks.words import describe, duration, looked, promised, said, wanted

A = TypeVar("A")
Run = Generator[Question, Answer, Conclusion]
"""A run under way: `next` gives the first question, `send(answer)` the next, its return value is the conclusion."""
Part = Generator[Question, Answer, A]
"""A stretch of a run that ends in an A."""

_ROUNDS: Final = 3
"""How often guards that grew old before the first action are read; then the run is refused."""
_POLL_MIN: Final = MILLISECOND


class _Done(NamedTuple):
    """A step that was carried out."""

    key: str
    step: Step
    answer: DoAnswer


class _Refuted(NamedTuple):
    """A proof that did not come true in its time."""

    blind: bool
    """No reading of the last moments could be acted on."""
    detail: str


class _Undone(NamedTuple):
    """What became of taking back."""

    owed: int
    failed: bool
    reason: str
    words: str


def run(runbook: Runbook, run_id: str) -> Run:
    """Carry out a runbook whose parameters are bound.

    `run_id` must be unique: the key of a step's action is `<run_id>/<index from 0>`, that of its undo
    `<run_id>/<index>/undo`.
    """
    ended = yield from _enter(runbook)
    if ended is not None:
        return ended
    done: list[_Done] = []
    mended_at: Instant | None = None
    for index, step in enumerate(runbook.steps):
        outcome = yield from _take(step, f"{run_id}/{index}", done)
        if isinstance(outcome, Conclusion):
            return outcome
        mended_at = outcome or mended_at
    if mended_at is None:
        return Conclusion(
            outcome=Outcome.NOT_PROVEN,
            reason="",
            detail=_sentences("every step was carried out, but none carries a proof", _stays(done)),
        )
    return Conclusion(outcome=Outcome.MENDED, reason="", detail=_mended(runbook), mended_at=mended_at)


def _take(step: Step, key: str, done: list[_Done]) -> Part[Conclusion | Instant | None]:
    """Take one step: return when its proof was seen (None without a proof), or how the run ended here."""
    if done and (refused := (yield from _permit(step.action, done))) is not None:
        return refused
    answer = yield from _do(Do(step.action, key=key))
    if answer.refused:
        return _refused(answer.refused, f"to {describe(step.action)} was refused. {answer.error}", done)
    if not answer.ok:
        return (yield from _after_failure(step, answer, done))
    done.append(_Done(key, step, answer))
    if step.proof is None:
        return None
    proof = yield from _prove(step.proof, answer.at, "proof")
    return (yield from _after_refuted(step, proof, done)) if isinstance(proof, _Refuted) else proof


# --- before the first action --------------------------------------------------------------------------------------


def _enter(runbook: Runbook) -> Part[Conclusion | None]:  # noqa: PLR0911 - each way to end here
    """Ask everything that stands before the first action; None when it may start now."""
    if not runbook.steps and not runbook.never_acts:
        return Conclusion(outcome=Outcome.NOT_APPLICABLE, reason="", detail="The runbook has no steps.")
    asked: AskAnswer | None = None
    for _ in range(_ROUNDS):
        read_at = yield from _check(runbook.guards)
        if isinstance(read_at, Conclusion):
            return read_at
        if runbook.never_acts:
            return _refused(RefusalReason.PERSON_ONLY, runbook.never_acts, [])
        if runbook.consent is not Consent.AUTOMATIC and asked is None:
            asked = yield from _ask(Ask(runbook.consent, _plan(runbook)))
            if not asked.granted:
                return _refused(RefusalReason.NO_CONSENT, asked.detail or "nobody consented in time", [])
        permission = yield from _permission(Permit(runbook.steps[0].action, plan=asked.plan if asked else ""))
        if not permission.granted:
            return _refused(permission.reason, permission.detail, [])
        if not _grown_old(read_at, permission.at):
            return None
    return _refused(RefusalReason.NO_EVIDENCE, "the guards grew old before the first action could start", [])


def _check(guards: Iterable[Guard]) -> Part[Conclusion | list[tuple[Instant, Evidence]]]:
    """Read every guard: return when each was read, or how the run ends on the first that does not hold."""
    read_at: list[tuple[Instant, Evidence]] = []
    for guard in guards:
        evidence = guard.evidence
        reading = yield from _read(evidence, "guard")
        if why := _unusable(evidence, reading):
            return _refused(RefusalReason.NO_EVIDENCE, f"guard {evidence.name}: {why}", [])
        if not evidence.holds(reading.value or 0.0):
            return _not_met(guard.otherwise, evidence, reading)
        read_at.append((reading.at, evidence))
    return read_at


def _plan(runbook: Runbook) -> str:
    return f"{runbook.title}: {', then '.join(describe(step.action) for step in runbook.steps)}"


def _grown_old(read_at: Iterable[tuple[Instant, Evidence]], now: Instant) -> bool:
    return any(now - at > evidence.max_age_ns for at, evidence in read_at)


def _not_met(otherwise: Otherwise, evidence: Evidence, reading: ReadAnswer) -> Conclusion:
    words = f"guard {wanted(evidence)} does not hold: it reads {said(reading)}"
    if otherwise is Otherwise.REFUSED:
        return _refused(RefusalReason.GUARD_NOT_MET, words, [])
    return Conclusion(
        outcome=Outcome.NOT_APPLICABLE, reason=RefusalReason.GUARD_NOT_MET, detail=_sentences(words, "nothing was done")
    )


def _unusable(evidence: Evidence, reading: ReadAnswer) -> str:
    """Say why a reading must not be acted on; empty when it may."""
    if reading.value is None or reading.data_at is None:
        return f"no answer that may be acted on, {said(reading)}"
    if not math.isfinite(reading.value):
        return f"the answer is no number ({reading.value})"
    if reading.at - reading.data_at > evidence.max_age_ns:
        return f"the data is {duration(reading.at - reading.data_at)} old, {duration(evidence.max_age_ns)} is allowed"
    return ""


# --- proof --------------------------------------------------------------------------------------------------------


def _prove(proof: Proof, done_at: Instant, purpose: str) -> Part[Instant | _Refuted]:
    """Poll until the evidence has held long enough; return when that was seen, or how it was refuted.

    How long it held is measured between the data's own times, so the same old sample read often proves nothing.
    """
    evidence, poll_ns = proof.evidence, max(proof.poll_ns, _POLL_MIN)
    streak, witness = _Streak(), _Witness(proof.settled, purpose, evidence.max_age_ns, done_at)
    now, spoke_at, watched_ns = done_at, None, 0
    words, alone = "nothing was read", False
    while watched_ns < proof.within_ns:
        pause_ns = min(poll_ns, proof.within_ns - watched_ns)
        yield from _wait(Wait(Instant(now + pause_ns)))
        against = yield from witness.look()
        reading = yield from _read(evidence, purpose)
        why = _unusable(evidence, reading) or _too_early(reading, done_at)
        spoke_at = spoke_at if why else reading.at
        streak = streak.then(evidence, None if why or against else reading)
        alone = witness.silent and not why and evidence.holds(reading.value or 0.0)
        if streak.length_ns >= proof.holds_for_ns:
            return reading.at
        words = "; ".join(filter(None, (why or f"it reads {said(reading)}", against)))
        # At least the pause that was asked for, so that a clock which stands still cannot hold a run for ever; at most
        # a little more, so that time in which nobody watched does not end the proof.
        watched_ns += min(max(reading.at - now, pause_ns), pause_ns + evidence.max_age_ns)
        now = max(now, reading.at)
    blind = spoke_at is None or now - spoke_at > evidence.max_age_ns or alone
    return _Refuted(blind, f"{promised(proof)} was not seen; at the end: {words}")


def _too_early(reading: ReadAnswer, done_at: Instant) -> str:
    return "" if (reading.data_at or 0) > done_at else "the data is not younger than the action"


class _Witness:
    """The platform as a second witness of a proof: what it says must be young and later than the action, too."""

    def __init__(self, target: str, purpose: str, max_age_ns: int, done_at: Instant) -> None:
        self._target = target
        self._purpose = purpose
        self._max_age_ns = max_age_ns
        self._done_at = done_at
        self._restarts: int | None = None
        self.silent = False
        """The platform's last word was none that may be acted on."""

    def look(self) -> Part[str]:
        """Look once; return what speaks against the proof, empty when nothing does."""
        if not self._target:
            return ""
        answer = yield Look(self._target, self._purpose)
        assert isinstance(answer, LookAnswer), f"a Look was answered with {answer!r}"
        self.silent = True
        if answer.settled is None or answer.seen_at is None:
            return f"the platform has no answer: {answer.detail or 'no reason given'}"
        if answer.seen_at <= self._done_at or answer.at - answer.seen_at > self._max_age_ns:
            return "the platform's facts are old, or not younger than the action"
        self.silent = False
        before, self._restarts = self._restarts, answer.restarts
        if before is not None and answer.restarts > before:
            return f"{answer.restarts - before} replicas of {self._target} were started anew by the platform meanwhile"
        return "" if answer.settled else f"{self._target} is {looked(answer)}"


class _Streak(NamedTuple):
    """How long evidence has held without a break, by the times of the data; -1 while it does not hold."""

    since: int = 0
    latest: int = 0
    length_ns: int = -1

    def then(self, evidence: Evidence, reading: ReadAnswer | None) -> _Streak:
        """Return the streak after a reading; None stands for one that must not be acted on."""
        if reading is None or not evidence.holds(reading.value or 0.0):
            return _Streak()
        data_at = reading.data_at or 0
        unseen = data_at - self.latest > evidence.max_age_ns
        since = data_at if self.length_ns < 0 or unseen else self.since
        return _Streak(since, data_at, max(data_at - since, 0))


# --- taking back --------------------------------------------------------------------------------------------------


def _after_refuted(step: Step, proof: _Refuted, done: list[_Done]) -> Part[Conclusion]:
    words = f'after the step "{step.name}", {proof.detail}'
    if proof.blind:
        return Conclusion(
            outcome=Outcome.NOT_PROVEN,
            reason=RefusalReason.NO_EVIDENCE,
            detail=_sentences(words, "without evidence nothing is taken back", _stays(done)),
        )
    back = yield from _take_back(done)
    undone = back.owed > 0 and not back.failed
    return Conclusion(
        outcome=Outcome.UNDONE if undone else Outcome.NOT_PROVEN,
        reason=back.reason,
        detail=_sentences(words, back.words),
        undone=undone,
    )


def _after_failure(step: Step, answer: DoAnswer, done: list[_Done]) -> Part[Conclusion]:
    back = yield from _take_back(done)
    words = f"{describe(step.action)} failed: {answer.error or 'no reason given'}"
    return Conclusion(
        outcome=Outcome.FAILED,
        reason=back.reason,
        detail=_sentences(words, back.words),
        undone=back.owed > 0 and not back.failed,
    )


def _take_back(done: list[_Done]) -> Part[_Undone]:
    """Take back every step that owes it, the last first; stop at the first that cannot be taken back.

    An earlier step may be what a later one stands on, so nothing is taken from under a step that remains.
    """
    words: list[str] = []
    owed = 0
    for position in range(len(done) - 1, -1, -1):
        step = done[position]
        action = _inverse(step)
        if action is None:
            words.append(_left(step))
            continue
        owed += 1
        if isinstance(action, str):
            reason, trouble = "", action
        else:
            reason, trouble = yield from _undo(step, action)
        if trouble:
            words += [trouble, _stays(done[: position + 1])]
            return _Undone(owed, failed=True, reason=reason, words=_sentences(*words))
        words.append(f"{step.step.name} was taken back")
    return _Undone(owed, failed=False, reason="", words=_sentences(*words))


def _undo(done: _Done, action: Action) -> Part[tuple[str, str]]:
    """Carry out one undo; return a reason and what went wrong, both empty when it was done and proven."""
    permission = yield from _permission(Permit(action, undo=True))
    if not permission.granted:
        return permission.reason, f"taking back {done.step.name} was refused ({permission.reason}). {permission.detail}"
    answer = yield from _do(Do(action, key=f"{done.key}/undo", undo=True))
    if answer.refused:
        return answer.refused, f"taking back {done.step.name} was refused ({answer.refused}). {answer.error}"
    if not answer.ok:
        return "", f"taking back {done.step.name} failed: {answer.error or 'no reason given'}"
    if done.step.undo_proof is not None:
        proof = yield from _prove(done.step.undo_proof, answer.at, "undo_proof")
        if isinstance(proof, _Refuted):
            return "", f"{done.step.name} was taken back but that is not proven: {proof.detail}"
    return "", ""


def _inverse(done: _Done) -> Action | str | None:  # noqa: PLR0911 - one return a kind of undo
    """Return the action that takes a step back, None when none is owed, or words when it cannot be made out."""
    action, answer = done.step.action, done.answer
    match done.step.undo, action:
        case Undo.RESTORE_REPLICAS, Scale():
            before, after = answer.before.get("replicas", ""), answer.after.get("replicas", "")
            if not (_is_count(before) and _is_count(after)):
                return f"{done.step.name} cannot be taken back: the answer did not name the replicas before and after"
            if before == after:
                return None
            if answer.after.get("knob", "replicas") != "replicas":
                # The platform kept what it changed, sees who has written since, and turns back the knob it turned.
                return TakeBack(action.workload, of=done.key)
            return SetReplicas(action.workload, int(before), only_if=int(after))
        case Undo.RESUME_SYMBOL, HaltSymbol():
            return ResumeSymbol(action.symbol)
        case Undo.RESTORE, _:
            return TakeBack(target_of_action(action), of=done.key)
        case ((Undo.NOTHING | Undo.KEEP), _):
            return None
        case _:
            return f"{done.step.name} cannot be taken back: {done.step.undo} does not fit {describe(action)}"


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6  # noqa: PLR2004 - digits of any sane replica count


def _left(done: _Done) -> str:
    if done.step.undo is Undo.KEEP:
        return f"{done.step.name} is kept: it is the safe side, a person decides"
    return f"{done.step.name} leaves nothing to take back"


# --- asking -------------------------------------------------------------------------------------------------------


def _permit(action: Action, done: list[_Done]) -> Part[Conclusion | None]:
    answer = yield from _permission(Permit(action))
    return None if answer.granted else _refused(answer.reason, answer.detail, done)


def _read(evidence: Evidence, purpose: str) -> Part[ReadAnswer]:
    answer = yield Read(evidence, purpose)
    assert isinstance(answer, ReadAnswer), f"a Read was answered with {answer!r}"
    return answer


def _ask(question: Ask) -> Part[AskAnswer]:
    answer = yield question
    assert isinstance(answer, AskAnswer), f"an Ask was answered with {answer!r}"
    return answer


def _permission(question: Permit) -> Part[PermitAnswer]:
    answer = yield question
    assert isinstance(answer, PermitAnswer), f"a Permit was answered with {answer!r}"
    return answer


def _do(question: Do) -> Part[DoAnswer]:
    answer = yield question
    assert isinstance(answer, DoAnswer), f"a Do was answered with {answer!r}"
    return answer


def _wait(question: Wait) -> Part[WaitAnswer]:
    answer = yield question
    assert isinstance(answer, WaitAnswer), f"a Wait was answered with {answer!r}"
    return answer


# --- words --------------------------------------------------------------------------------------------------------


def _refused(reason: str, detail: str, done: list[_Done]) -> Conclusion:
    return Conclusion(outcome=Outcome.REFUSED, reason=reason, detail=_sentences(detail or reason, _stays(done)))


def _stays(done: Iterable[_Done]) -> str:
    names = [f"{step.step.name} ({describe(step.step.action)})" for step in done]
    return f"what was done stays: {', '.join(names)}" if names else "nothing was done"


def _mended(runbook: Runbook) -> str:
    seen = (f'{promised(s.proof)} was seen after the step "{s.name}"' for s in runbook.steps if s.proof is not None)
    return _sentences(*seen)


def _sentences(*parts: str) -> str:
    whole = (part.strip().rstrip(".") for part in parts)
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in whole if part)


# --- driving ------------------------------------------------------------------------------------------------------

_FITS: Final[dict[type[object], type[object]]] = {
    Read: ReadAnswer,
    Look: LookAnswer,
    Ask: AskAnswer,
    Permit: PermitAnswer,
    Do: DoAnswer,
    Wait: WaitAnswer,
}


def advance(generator: Run, answer: Answer | None = None) -> Question | Conclusion:
    """Give a run its next answer (None to start it); return its next question, or how it ended."""
    try:
        return next(generator) if answer is None else generator.send(answer)
    except StopIteration as stop:
        conclusion: Conclusion = stop.value
        return conclusion


def replay(generator: Run, answers: Iterable[Answer]) -> Question | Conclusion:
    """Bring a fresh run to where its recorded answers lead; return the question that is open now, or how it ended.

    Raises:
        PermanentError: the answers are not those of this runbook (it was changed while the run was cut short).
    """
    question = advance(generator)
    for number, answer in enumerate(answers, start=1):
        if isinstance(question, Conclusion):
            raise PermanentError(f"recorded answer {number} comes after the run had ended; start the run anew")
        if not isinstance(answer, _FITS[type(question)]):
            kind, given = type(question).__name__, type(answer).__name__
            raise PermanentError(
                f"recorded answer {number} is a {given}, but the run asks a {kind}; start the run anew"
            )
        question = advance(generator, answer)
    return question
