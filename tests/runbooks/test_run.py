"""The machine of a run: what it asks, in which order, and how it ends."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import PermanentError
from kernel.time import Duration, Instant, seconds
from runbooks.model import (
    Ask,
    AskAnswer,
    BlastRadius,
    Conclusion,
    Consent,
    Do,
    DoAnswer,
    Evidence,
    Guard,
    HaltSymbol,
    Limits,
    Otherwise,
    Outcome,
    Permit,
    PermitAnswer,
    Proof,
    Read,
    ReadAnswer,
    RefusalReason,
    Relation,
    RestartReplica,
    Runbook,
    Scale,
    SetReplicas,
    Step,
    Undo,
    Wait,
    WaitAnswer,
)
from runbooks.rehearse import Supposition, rehearse
from runbooks.run import advance, replay, run

S = seconds(1)
GOOD = Evidence(name="x", query="x", fresh="x", relation=Relation.EQ, expected=1.0, max_age_ns=seconds(3))
PROOF = Proof(evidence=GOOD, holds_for_ns=seconds(2), within_ns=seconds(10), poll_ns=seconds(1))
SCALE = Step(name="out", action=Scale("gateway", 1, 2, 4), undo=Undo.RESTORE_REPLICAS, proof=PROOF, undo_proof=PROOF)
RESTART = Step(name="restart", action=RestartReplica("gateway", "gateway-1"), undo=Undo.NOTHING, proof=PROOF)
HALT = Step(name="halt", action=HaltSymbol("TWA", "gap"), undo=Undo.KEEP, proof=PROOF)


def book(*steps, consent=Consent.AUTOMATIC, otherwise=Otherwise.REFUSED):
    return Runbook(
        name="b", title="B", answers=("A",), service="gateway", team="t", level=2, consent=consent, parameters={},
        guards=(Guard(evidence=GOOD, otherwise=otherwise),), steps=steps,
        blast_radius=BlastRadius(replicas=3, symbols=1),
        limits=Limits(cool_down_ns=Duration(0), runs_per_hour=9, ineffective_runs=9), when_refused="look",
    )  # fmt: skip


class Scripted(Supposition):
    """A supposition with exceptions: `rules` maps (kind, nth of its kind) to an answer maker."""

    def __init__(self, rules, **kwargs):
        super().__init__(**kwargs)
        self.rules, self.count = rules, {}

    def __call__(self, question, now):
        kind = question.purpose if isinstance(question, Read) else type(question).__name__
        nth = self.count[kind] = self.count.get(kind, -1) + 1
        rule = self.rules.get((kind, nth)) or self.rules.get(kind)
        return rule(question, now) if rule else super().__call__(question, now)


def reading(value, age=0):
    return lambda _q, now: ReadAnswer(now, value=value, data_at=None if value is None else Instant(now - age))


def deny(reason):
    return lambda _q, now: PermitAnswer(now, granted=False, reason=reason, detail="no")


def questions(rehearsal, kind):
    return [line.question for line in rehearsal.lines if isinstance(line.question, kind)]


def test_a_run_that_helps_is_mended_at_the_reading_that_completes_the_proof():
    done = rehearse(book(SCALE))
    assert done.conclusion.outcome is Outcome.MENDED
    assert done.conclusion.mended_at == done.lines[-1].answer.at
    assert [do.key for do in done.actions] == ["rehearsal/0"]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_guard_without_a_finite_answer_refuses_even_when_it_would_not_be_applicable(value):
    ended = rehearse(book(SCALE, otherwise=Otherwise.NOT_APPLICABLE), Scripted({"guard": reading(value)}))
    assert (ended.conclusion.outcome, ended.conclusion.reason) == (Outcome.REFUSED, RefusalReason.NO_EVIDENCE)
    assert not ended.actions


def test_a_guard_with_stale_data_refuses():
    ended = rehearse(book(SCALE), Scripted({"guard": reading(1.0, age=3 * S + 1)}))
    assert ended.conclusion.reason == RefusalReason.NO_EVIDENCE


@pytest.mark.parametrize(
    ("otherwise", "outcome"),
    [(Otherwise.REFUSED, Outcome.REFUSED), (Otherwise.NOT_APPLICABLE, Outcome.NOT_APPLICABLE)],
)
def test_a_guard_that_does_not_hold_says_what_that_means(otherwise, outcome):
    ended = rehearse(book(SCALE, otherwise=otherwise), Scripted({"guard": reading(0.0)}))
    assert (ended.conclusion.outcome, ended.conclusion.reason) == (outcome, RefusalReason.GUARD_NOT_MET)
    assert not questions(ended, Permit)


def test_without_consent_nothing_is_done():
    ended = rehearse(
        book(SCALE, consent=Consent.ONE_APPROVER), Scripted({"Ask": lambda _q, now: AskAnswer(now, granted=False)})
    )
    assert ended.conclusion.reason == RefusalReason.NO_CONSENT
    assert not ended.actions


def test_guards_that_grew_old_while_people_thought_are_read_again():
    slow = Scripted({"Ask": lambda _q, now: AskAnswer(Instant(now + 60 * S), granted=True)})
    done = rehearse(book(SCALE, consent=Consent.FOUR_EYES), slow)
    kinds = [type(line.question) for line in done.lines[:6]]
    assert kinds == [Read, Ask, Permit, Read, Permit, Do]


def test_a_proof_that_is_refuted_is_taken_back_to_the_count_before():
    ended = rehearse(book(SCALE), Supposition(helps=False))
    assert ended.conclusion.outcome is Outcome.UNDONE
    assert ended.conclusion.undone
    assert [(do.action, do.key, do.undo) for do in ended.actions] == [
        (SCALE.action, "rehearsal/0", False),
        (SetReplicas("gateway", 2, only_if=3), "rehearsal/0/undo", True),
    ]


def test_steps_are_taken_back_last_first_and_the_safe_side_is_kept():
    second = msgspec.structs.replace(SCALE, name="more", action=Scale("market", 2, 1, 9))
    refuted = Scripted({("proof", n): reading(0.0) for n in range(6, 60)})
    ended = rehearse(book(SCALE, HALT, second), refuted)
    assert [do.action for do in ended.actions if do.undo] == [
        SetReplicas("market", 3, only_if=5),
        SetReplicas("gateway", 2, only_if=3),
    ]
    assert "Halt is kept" in ended.conclusion.detail


@pytest.mark.parametrize("step", [RESTART, HALT])
def test_where_nothing_is_owed_a_refuted_proof_is_not_proven(step):
    ended = rehearse(book(step), Supposition(helps=False))
    assert (ended.conclusion.outcome, ended.conclusion.undone, len(ended.actions)) == (Outcome.NOT_PROVEN, False, 1)


def test_a_scale_that_changed_nothing_has_nothing_to_take_back():
    ended = rehearse(book(SCALE), Supposition(helps=False, replicas=4))
    assert (ended.conclusion.outcome, len(ended.actions)) == (Outcome.NOT_PROVEN, 1)


def test_a_proof_that_ends_blind_takes_nothing_back():
    ended = rehearse(book(SCALE), Scripted({"proof": reading(None)}))
    assert (ended.conclusion.outcome, ended.conclusion.reason) == (Outcome.NOT_PROVEN, RefusalReason.NO_EVIDENCE)
    assert len(ended.actions) == 1
    assert "stays" in ended.conclusion.detail


def test_one_lost_reading_at_the_end_does_not_make_a_refuted_proof_blind():
    rules = {"proof": reading(0.0), **{("proof", n): reading(None) for n in (9, 10)}}
    assert rehearse(book(SCALE), Scripted(rules)).conclusion.outcome is Outcome.UNDONE


def test_data_from_before_the_action_proves_nothing():
    ended = rehearse(book(RESTART), Scripted({"proof": lambda _q, now: ReadAnswer(now, value=1.0, data_at=Instant(1))}))
    assert ended.conclusion.outcome is Outcome.NOT_PROVEN


def test_the_same_sample_read_again_and_again_proves_nothing():
    fixed = {}

    def same(_question, now):
        return ReadAnswer(now, value=1.0, data_at=fixed.setdefault("at", now))

    long_lived = msgspec.structs.replace(GOOD, max_age_ns=seconds(100))
    step = msgspec.structs.replace(RESTART, proof=msgspec.structs.replace(PROOF, evidence=long_lived))
    assert rehearse(book(step), Scripted({"proof": same})).conclusion.outcome is Outcome.NOT_PROVEN


@pytest.mark.parametrize("bad", [0.0, None])
def test_a_break_starts_the_proof_anew(bad):
    unbroken = rehearse(book(RESTART))
    broken = rehearse(book(RESTART), Scripted({("proof", 1): reading(bad)}))
    assert broken.conclusion.outcome is Outcome.MENDED
    assert len(questions(broken, Read)) == len(questions(unbroken, Read)) + 2


def test_a_stretch_nobody_watched_counts_neither_for_the_proof_nor_against_it():
    away = Scripted({("Wait", 1): lambda q, _now: WaitAnswer(Instant(q.until + 600 * S))})
    done = rehearse(book(RESTART), away)
    assert done.conclusion.outcome is Outcome.MENDED
    assert len(questions(done, Read)) == 1 + 4  # a guard; one before the gap, three after it


@pytest.mark.parametrize("how", ["permit", "do"])
def test_a_refusal_in_the_middle_keeps_what_was_done_and_names_it(how):
    rules = {
        "permit": {("Permit", 1): deny("kill_switch")},
        "do": {("Do", 1): lambda _q, now: DoAnswer(now, ok=False, refused="kill_switch", error="thrown")},
    }[how]
    ended = rehearse(book(SCALE, RESTART), Scripted(rules))
    assert (ended.conclusion.outcome, ended.conclusion.reason) == (Outcome.REFUSED, "kill_switch")
    assert "stays: out (scale gateway by +1" in ended.conclusion.detail
    assert not any(do.undo for do in ended.actions)


def test_with_the_kill_switch_on_not_even_an_undo_starts():
    ended = rehearse(book(SCALE), Scripted({("Permit", 1): deny("kill_switch")}, helps=False))
    assert (ended.conclusion.outcome, ended.conclusion.reason) == (Outcome.NOT_PROVEN, "kill_switch")
    assert len(ended.actions) == 1


def test_a_failed_action_takes_the_earlier_steps_back():
    ended = rehearse(book(SCALE, RESTART), Scripted({("Do", 1): lambda _q, now: DoAnswer(now, ok=False, error="full")}))
    assert (ended.conclusion.outcome, ended.conclusion.undone) == (Outcome.FAILED, True)
    assert ended.actions[-1].action == SetReplicas("gateway", 2, only_if=3)


@pytest.mark.parametrize(
    "rules",
    [
        {("Do", 1): lambda _q, now: DoAnswer(now, ok=False, error="gone")},
        {("Do", 0): lambda _q, now: DoAnswer(now, ok=True)},
        {"undo_proof": reading(0.0)},
    ],
    ids=["the undo fails", "the counts are not known", "the undo is not proven"],
)
def test_an_undo_that_is_not_done_and_proven_is_not_called_undone(rules):
    ended = rehearse(book(SCALE), Scripted(rules, helps=False))
    assert (ended.conclusion.outcome, ended.conclusion.undone) == (Outcome.NOT_PROVEN, False)
    assert "stays" in ended.conclusion.detail


def test_a_clock_that_stands_still_does_not_hold_a_run_for_ever():
    frozen = Scripted({"proof": lambda _q, _n: ReadAnswer(Instant(0), value=1.0, data_at=Instant(0))})
    assert rehearse(book(SCALE), frozen).conclusion.outcome is Outcome.NOT_PROVEN


def test_answers_of_another_runbook_are_refused_with_their_number():
    with pytest.raises(PermanentError, match="recorded answer 1 is a DoAnswer, but the run asks a Read"):
        replay(run(book(SCALE), "r"), [DoAnswer(Instant(0), ok=True)])


@st.composite
def runs(draw):
    """A random runbook answered at random, to its end."""
    steps = draw(st.lists(st.sampled_from([SCALE, RESTART, HALT]), min_size=1, max_size=3))
    runbook = book(*steps, consent=draw(st.sampled_from(Consent)))
    generator, now, lines = run(runbook, "r"), 0, []
    question = advance(generator)
    while not isinstance(question, Conclusion):
        now = draw(st.integers(now - S, now + 4 * S))
        match question:
            case Read():
                value = draw(st.sampled_from([1.0, 1.0, 1.0, 0.0, None, math.nan]))
                data_at = draw(st.none() | st.integers(now - 4 * S, now))
                answer = ReadAnswer(Instant(now), value=value, data_at=data_at)
            case Ask():
                answer = AskAnswer(Instant(now), granted=draw(st.booleans()))
            case Permit():
                granted = draw(st.integers(0, 5)) > 0
                answer = PermitAnswer(Instant(now), granted=granted, reason="" if granted else "kill_switch")
            case Do():
                how = draw(st.sampled_from(["ok", "ok", "ok", "error", "refused"]))
                counts = {"before": {"replicas": "2"}, "after": {"replicas": draw(st.sampled_from(["2", "3"]))}}
                answer = DoAnswer(
                    Instant(now), ok=how == "ok", refused="conflict" if how == "refused" else "", **counts
                )
            case Wait():
                now = draw(st.integers(question.until - S, question.until + 9 * S))
                answer = WaitAnswer(Instant(now))
        lines.append((question, answer))
        assert len(lines) < 500, "a run must end"
        question = advance(generator, answer)
    return runbook, lines, question


@settings(max_examples=150, deadline=None)
@given(runs(), st.data())
def test_whatever_is_answered_a_run_ends_within_its_rules(done, data):
    runbook, lines, conclusion = done
    dos = [(question, answer) for question, answer in lines if isinstance(question, Do)]
    keys = [question.key for question, _ in dos]
    assert len(keys) == len(set(keys)), "at most one Do for a key"
    stops = [
        n for n, (_, a) in enumerate(lines)
        if (isinstance(a, PermitAnswer | AskAnswer) and not a.granted) or (isinstance(a, DoAnswer) and a.refused)
    ]  # fmt: skip
    assert all(not isinstance(question, Do) for n in stops for question, _ in lines[n + 1 :]), "nothing after a refusal"
    carried_out = {question.key for question, answer in dos if answer.ok and not question.undo}
    assert all(q.key.removesuffix("/undo") in carried_out for q, _ in dos if q.undo), "only what was done is undone"
    for n, (question, _) in enumerate(lines):
        if isinstance(question, Do):
            assert lines[n - 1][0] == Permit(question.action, undo=question.undo), "each Do follows its own permission"
    if conclusion.outcome is Outcome.MENDED:
        assert carried_out == {f"r/{n}" for n in range(len(runbook.steps))}
    cut = data.draw(st.integers(0, len(lines)))
    expected = lines[cut][0] if cut < len(lines) else conclusion
    assert replay(run(runbook, "r"), [answer for _, answer in lines[:cut]]) == expected, "same answers, same questions"
