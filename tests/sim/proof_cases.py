"""Runs of one step against witnesses that are late, silent, wrong or of two minds. All from a seed.

What a run concludes is held against its transcript by other means than its own: a cure is believed only when both
witnesses said so for long enough, on data that is young and later than the action.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from kernel.chance import stream
from kernel.time import SECOND, Instant, seconds
from runbooks.model import (
    Action,
    Answer,
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
    RestartReplica,
    Scale,
    Undo,
    Wait,
    WaitAnswer,
)
from runbooks.run import advance
from runbooks.run import run as machine
from tests.sim.cluster_library import proof
from tests.sim.library import book, guard, step

RUNS = 10
"""Runs a seed."""
MAX_AGE_NS = seconds(3)
HOLDS_NS = seconds(3)


@dataclass
class Witnesses:
    """What monitoring and platform say at a time."""

    chance: random.Random
    now: int = 1_000 * SECOND
    frozen_at: int = 0
    seen_at: int = 0
    restarts: int = 0
    good: float = 0.0
    settled: bool = True
    late_until: int = 0
    """Until then the monitoring has nothing new to say: just after an action that is no proof."""
    silent_from: int = 1 << 62
    """From then on the monitoring has nothing new to say at all."""
    transcript: list[tuple[Question, Answer]] = field(default_factory=list)

    def go_on(self, ns: int) -> None:
        chance = self.chance
        self.now += ns
        if chance.random() < 0.75 and self.late_until <= self.now < self.silent_from:
            self.frozen_at = self.now - seconds(chance.uniform(0, 1))
        if chance.random() < 0.8:
            self.seen_at = self.now - seconds(chance.uniform(0, 1))
        if chance.random() < 0.1:
            self.good = 1.0 - self.good
        if chance.random() < 0.1:
            self.settled = not self.settled
        self.restarts += chance.random() < 0.1

    def answer(self, question: Question) -> Answer:
        self.go_on(seconds(self.chance.uniform(0, 0.05)))
        now = Instant(self.now)
        match question:
            case Read():
                if self.chance.random() < 0.1:
                    return ReadAnswer(at=now, value=None, data_at=None, unknown="missing")
                value = 0.0 if question.purpose == "guard" else self.good
                return ReadAnswer(at=now, value=value, data_at=Instant(self.frozen_at))
            case Look():
                known = self.chance.random() > 0.05
                return LookAnswer(
                    now, settled=self.settled if known else None, seen_at=Instant(self.seen_at), restarts=self.restarts
                )
            case Permit():
                return PermitAnswer(now, granted=True)
            case Do():
                self.late_until = self.now + seconds(self.chance.uniform(0, 2))
                if self.chance.random() < 0.3:
                    self.silent_from = self.now + seconds(self.chance.uniform(0, 12))
                return DoAnswer(at=now, ok=True, before={"replicas": "3"}, after={"replicas": "4"})
            case Wait():
                self.go_on(max(question.until - self.now, 0))
                return WaitAnswer(at=Instant(self.now))
            case _:
                raise AssertionError(question)


def _live(chance: random.Random) -> tuple[Witnesses, Conclusion]:
    shown = proof("cured", "==", 1, chance.choice(["gateway", "gateway", ""]), within_s=12.0)
    kinds: list[tuple[Action, Undo]] = [
        (RestartReplica("gateway", "g"), Undo.NOTHING),
        (Scale("gateway", 1, 1, 9), Undo.RESTORE_REPLICAS),
    ]
    action, undo = chance.choice(kinds)
    runbook = book("book", "X", "gateway", 2, (guard("broken", "==", 0),), step(action, undo, shown))
    witnesses = Witnesses(chance, good=chance.choice([0.0, 1.0]))
    witnesses.go_on(seconds(1))
    witnesses.frozen_at = witnesses.now - seconds(chance.choice([0.5, 0.5, 30]))
    generator = machine(runbook, "run")
    question = advance(generator)
    while not isinstance(question, Conclusion):
        answer = witnesses.answer(question)
        witnesses.transcript.append((question, answer))
        question = advance(generator, answer)
    return witnesses, question


def complaints(seed: int) -> list[str]:
    """Return what was concluded without proof."""
    chance = stream(seed, "proofs")
    return [each for _ in range(RUNS) for each in _wrong(*_live(chance))]


def _wrong(witnesses: Witnesses, end: Conclusion) -> Iterator[str]:
    rounds: list[tuple[Read, ReadAnswer, list[LookAnswer]]] = []
    done_at, undone = 0, False
    for question, answer in witnesses.transcript:
        if isinstance(answer, DoAnswer):
            undone = undone or bool(done_at)
            done_at = done_at or answer.at
        elif isinstance(question, Read) and isinstance(answer, ReadAnswer):
            rounds.append((question, answer, []))
        elif isinstance(answer, LookAnswer):
            rounds[-1][2].append(answer)
    first = rounds[0][1]
    if done_at and (first.value is None or first.data_at is None or first.at - first.data_at > seconds(5)):
        yield "it acted on a guard without an answer, or on an old one"
    proofs = [(answer, looks) for question, answer, looks in rounds if question.purpose == "proof"]
    if end.outcome is Outcome.MENDED and not _held(proofs, done_at, asked="with gateway settled" in end.detail):
        yield "it called mended what was not proven"
    lately = [answer for answer, _ in proofs if proofs[-1][0].at - answer.at <= MAX_AGE_NS]
    if undone and not any(_usable(answer, done_at) for answer in lately):
        yield "it took back although nobody had said anything lately"


def _usable(answer: ReadAnswer, done_at: int) -> bool:
    young = answer.data_at is not None and done_at < answer.data_at and answer.at - answer.data_at <= MAX_AGE_NS
    return answer.value is not None and young


def _held(proofs: list[tuple[ReadAnswer, list[LookAnswer]]], done_at: int, *, asked: bool) -> bool:
    """Tell whether the last rounds, one after the other, are a proof."""
    until, restarts = None, None
    for answer, looks in reversed(proofs):
        good = _usable(answer, done_at) and answer.value == 1
        if asked:
            good = good and bool(looks) and all(
                look.settled and look.seen_at is not None and look.seen_at > done_at
                and look.at - look.seen_at <= MAX_AGE_NS and (restarts is None or look.restarts >= restarts)
                for look in looks
            )  # fmt: skip
            restarts = looks[-1].restarts if looks else restarts
        if not good or answer.data_at is None:
            return False
        until = until or answer.data_at
        if until - answer.data_at >= HOLDS_NS:
            return True
    return False
