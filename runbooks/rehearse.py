"""Rehearsing a runbook: the same machine, answered by a supposition instead of a plant. Nothing is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

import msgspec

from kernel.time import MILLISECOND, Instant
from runbooks.model import (
    Answer,
    Ask,
    AskAnswer,
    Conclusion,
    Do,
    DoAnswer,
    Evidence,
    Look,
    LookAnswer,
    Permit,
    PermitAnswer,
    Question,
    Read,
    ReadAnswer,
    Runbook,
    Scale,
    SetReplicas,
    Wait,
    WaitAnswer,
)
from runbooks.run import advance, run
from runbooks.words import describe, duration, looked, said, wanted

Answerer = Callable[[Question, Instant], Answer]
"""Answers a question at an instant; the rehearsal's stand-in for the plant."""

START: Final = Instant(0)


class Line(msgspec.Struct, frozen=True):
    """One question of a rehearsal, its supposed answer, and both in words."""

    at: Instant
    question: Question
    answer: Answer
    words: str


class Rehearsal(msgspec.Struct, frozen=True):
    """Everything a run would ask, and how it would end."""

    lines: tuple[Line, ...]
    conclusion: Conclusion

    @property
    def actions(self) -> tuple[Do, ...]:
        """What would be done, in order."""
        return tuple(line.question for line in self.lines if isinstance(line.question, Do))


class Supposition:
    """A plant as it is supposed: guards hold, actions succeed, and proofs come true or, with `helps` false, do not."""

    def __init__(self, *, helps: bool = True, replicas: int = 2) -> None:
        self._helps = helps
        self._replicas = replicas

    def __call__(self, question: Question, now: Instant) -> Answer:
        """Answer as supposed."""
        match question:
            case Read():
                good = question.purpose != "proof" or self._helps
                value = _value(question.evidence, good=good)
                return ReadAnswer(now, value=value, data_at=now)
            case Look():
                good = question.purpose != "proof" or self._helps
                return LookAnswer(now, settled=good, seen_at=now, detail="" if good else "as supposed")
            case Ask():
                return AskAnswer(now, granted=True, by=("rehearsal",))
            case Permit():
                return PermitAnswer(now, granted=True)
            case Do():
                return self._do(question, now)
            case Wait():
                return WaitAnswer(Instant(max(now, question.until)))
            case _:
                assert_never(question)

    def _do(self, question: Do, now: Instant) -> DoAnswer:
        before, action = self._replicas, question.action
        if isinstance(action, Scale):
            self._replicas = min(max(before + action.by, action.minimum), action.maximum)
        elif isinstance(action, SetReplicas):
            self._replicas = action.replicas
        else:
            return DoAnswer(now, ok=True)
        return DoAnswer(now, ok=True, before={"replicas": str(before)}, after={"replicas": str(self._replicas)})


def rehearse(runbook: Runbook, answer: Answerer | None = None, *, run_id: str = "rehearsal") -> Rehearsal:
    """Run a bound runbook against a supposition (by default: everything goes well) in time that passes by itself."""
    answer = answer or Supposition()
    generator, lines, now = run(runbook, run_id), list[Line](), START
    step = advance(generator)
    while not isinstance(step, Conclusion):
        now = Instant(now + MILLISECOND)  # asking takes time, too: an answer is never as old as the question before
        given = answer(step, now)
        lines.append(Line(now, step, given, _tell(step, given)))
        now = Instant(max(now, given.at))
        step = advance(generator, given)
    return Rehearsal(tuple(lines), step)


def _value(evidence: Evidence, *, good: bool) -> float:
    expected = evidence.expected
    return next(value for value in (expected, expected + 1, expected - 1) if evidence.holds(value) is good)


def _tell(question: Question, answer: Answer) -> str:
    match question:
        case Read():
            assert isinstance(answer, ReadAnswer)
            return f"read {wanted(question.evidence)} ({question.purpose}): {said(answer)}"
        case Look():
            assert isinstance(answer, LookAnswer)
            return f"ask the platform whether {question.target} has settled ({question.purpose}): {looked(answer)}"
        case Ask():
            return f"ask for consent ({question.consent}): {question.what}"
        case Permit():
            return f"ask the policy whether to {describe(question.action)}" + (" (undo)" if question.undo else "")
        case Do():
            return f"would {describe(question.action)}" + (" (undo)" if question.undo else "")
        case Wait():
            return f"wait until {duration(question.until)} from the start"
        case _:
            assert_never(question)
