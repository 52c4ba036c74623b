"""The platform as a second witness, undo through the platform, approvals with a plan, and runbooks that never act."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import msgspec
import pytest

from kernel.time import Instant, seconds
from runbooks.changes import Cordon, RollBack, SetFlag, SwitchService, TakeBack
from runbooks.model import (
    AskAnswer,
    Consent,
    Do,
    DoAnswer,
    LookAnswer,
    Outcome,
    Permit,
    PermitAnswer,
    ReadAnswer,
    RefusalReason,
    Scale,
    SetReplicas,
    Step,
    Undo,
)
from runbooks.rehearse import Supposition, rehearse
from tests.runbooks.test_run import PROOF, Scripted, book, reading

SETTLED = msgspec.structs.replace(PROOF, settled="gateway")
ROLL_BACK = Step(name="back", action=RollBack("gateway"), undo=Undo.RESTORE, proof=SETTLED, undo_proof=PROOF)


def look(settled, *, age=0, restarts=0, detail=""):
    def answer(_question, now):
        seen = None if settled is None else Instant(now - age)
        return LookAnswer(now, settled=settled, seen_at=seen, restarts=restarts, detail=detail)

    return answer


def ends(rules, *, helps=True, step=ROLL_BACK):
    return rehearse(book(step), Scripted(rules, helps=helps))


def dos(rehearsal):
    return [(do.action, do.undo) for do in rehearsal.actions]


def test_both_witnesses_must_agree():
    assert ends({}).conclusion.outcome is Outcome.MENDED
    refuted = ends({"Look": look(settled=False, detail="1 of 2 ready")})
    assert refuted.conclusion.outcome is Outcome.UNDONE
    assert "gateway is not settled (1 of 2 ready)" in refuted.conclusion.detail


def test_a_platform_that_does_not_answer_proves_nothing_and_nothing_is_taken_back_for_it():
    blind = ends({"Look": look(None, detail="the API server does not answer")})
    assert (blind.conclusion.outcome, blind.conclusion.reason) == (Outcome.NOT_PROVEN, RefusalReason.NO_EVIDENCE)
    assert dos(blind) == [(RollBack("gateway"), False)]


def test_old_facts_of_the_platform_prove_nothing():
    blind = ends({"Look": look(settled=True, age=seconds(20))})
    assert (blind.conclusion.outcome, blind.conclusion.reason) == (Outcome.NOT_PROVEN, RefusalReason.NO_EVIDENCE)


def test_a_reading_that_speaks_against_it_is_enough_to_take_back_though_the_platform_is_silent():
    against = ends({"Look": look(None)}, helps=False)
    assert against.conclusion.outcome is Outcome.UNDONE


def test_what_the_platform_starts_anew_breaks_the_proof():
    counts = iter(range(1000))

    def crashing(question, now):
        return look(settled=True, restarts=next(counts))(question, now)

    refuted = ends({"Look": crashing})
    assert refuted.conclusion.outcome is Outcome.UNDONE
    assert "started anew by the platform" in refuted.conclusion.detail


def test_restarts_from_before_the_proof_do_not_count():
    assert ends({"Look": look(settled=True, restarts=7)}).conclusion.outcome is Outcome.MENDED


@pytest.mark.parametrize(
    ("action", "target"),
    [
        (RollBack("gateway"), "gateway"), (Cordon("n1"), "node:n1"), (SetFlag("flags", "f", "v"), "config:flags"),
        (SwitchService("engine", "green"), "service:engine"),
    ],
)  # fmt: skip
def test_the_platform_takes_back_by_the_key_of_what_was_done(action, target):
    step = msgspec.structs.replace(ROLL_BACK, action=action, proof=PROOF)
    undone = rehearse(book(step), Supposition(helps=False), run_id="r")
    assert dos(undone) == [(action, False), (TakeBack(target, of="r/0"), True)]
    assert undone.conclusion.outcome is Outcome.UNDONE


def scaled(knob):
    def answer(question, now):
        assert isinstance(question, Do)
        return DoAnswer(now, ok=True, before={"replicas": "2", "knob": knob}, after={"replicas": "3", "knob": knob})

    return answer


def test_another_controllers_knob_is_turned_back_by_the_platform():
    step = Step(name="out", action=Scale("gateway", 1, 2, 4), undo=Undo.RESTORE_REPLICAS, proof=PROOF)
    for knob, back in (
        ("hpa.minReplicas", TakeBack("gateway", of="r/0")), ("replicas", SetReplicas("gateway", 2, only_if=3)),
    ):  # fmt: skip
        answer = Scripted({("Do", 0): scaled(knob)}, helps=False)
        assert rehearse(book(step), answer, run_id="r").actions[1].action == back


def test_an_undo_that_someone_elses_write_forbids_is_named_and_not_forced():
    def changed(_question, now):
        return DoAnswer(now, ok=False, refused=RefusalReason.CONFLICT, error="kubectl has changed gateway since")

    ended = ends({("Do", 1): changed}, helps=False).conclusion
    assert (ended.outcome, ended.reason, ended.undone) == (Outcome.NOT_PROVEN, RefusalReason.CONFLICT, False)
    assert "kubectl has changed gateway since" in ended.detail
    assert "What was done stays" in ended.detail


def test_a_runbook_that_never_acts_asks_a_person_once_its_guards_hold():
    page = msgspec.structs.replace(book(), never_acts="only a person may renew it")
    ended = rehearse(page)
    assert (ended.conclusion.outcome, ended.conclusion.reason) == (Outcome.REFUSED, RefusalReason.PERSON_ONLY)
    assert "nly a person may renew it" in ended.conclusion.detail
    assert not ended.actions
    other = rehearse(page, Scripted({"guard": reading(None)}))
    assert other.conclusion.reason == RefusalReason.NO_EVIDENCE


def test_the_first_permission_names_the_plan_that_was_approved():
    def approved(_question, now):
        return AskAnswer(now, granted=True, by=("anna",), plan="abc123")

    told = rehearse(book(ROLL_BACK, consent=Consent.ONE_APPROVER), Scripted({"Ask": approved}))
    permits = [line.question for line in told.lines if isinstance(line.question, Permit)]
    assert [permit.plan for permit in permits] == ["abc123"]

    def changed(question, now):
        return PermitAnswer(now, granted=question.plan != "abc123", reason=RefusalReason.PLAN_CHANGED, detail="changed")

    void = rehearse(book(ROLL_BACK, consent=Consent.ONE_APPROVER), Scripted({"Ask": approved, "Permit": changed}))
    assert (void.conclusion.outcome, void.conclusion.reason) == (Outcome.REFUSED, RefusalReason.PLAN_CHANGED)
    assert not void.actions


def test_a_platform_that_never_answers_cannot_hold_a_run_for_ever():
    ended = ends({"Look": look(None), "proof": lambda _q, now: ReadAnswer(now, value=1.0, data_at=now)})
    assert len(ended.lines) < 60
