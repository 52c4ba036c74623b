"""Consent of people: who must agree, to which plan, and when a yes is void."""

import asyncio
import itertools

import msgspec
import pytest

from control.consent import Consents, check_floor, consent_for, consent_on_record
from control.errors import RefusedByRailError
from control.plan_digest import Plan, plan_of
from kernel.errors import InputError, PermanentError, TemporaryError
from runbooks.adapters.fake import plant
from runbooks.adapters.yaml_library import LIBRARY as SHIPPED
from runbooks.facts import PlantFacts
from runbooks.model import Ask, Consent, Permit, Read, RestartReplica
from tests.sim.library import ENGINE, GATEWAY, evidence
from tests.sim.virtual import run

AUTOMATIC, ONE, FOUR = Consent.AUTOMATIC, Consent.ONE_APPROVER, Consent.FOUR_EYES
FACTS = PlantFacts(workloads=tuple(plant()), allowed=frozenset({"gateway"}))
PLAN = plan_of(GATEWAY, FACTS)


def other(changed=1) -> Plan:
    """Return the plan after somebody has changed the gateway."""
    workloads = tuple(
        msgspec.structs.replace(one, generation=one.generation + changed) if one.name == "gateway" else one
        for one in FACTS.workloads
    )
    return plan_of(GATEWAY, msgspec.structs.replace(FACTS, workloads=workloads))


# --- who must agree -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "by_level", "floor"), list(itertools.product(Consent, [None, *Consent], [None, *Consent]))
)
def test_the_level_decides_and_a_floor_only_asks_for_more(own, by_level, floor):
    levels = {1: by_level} if by_level else {}
    runbook = msgspec.structs.replace(GATEWAY, consent=own, consent_by_level=levels)
    order = list(Consent)
    for name, level in itertools.product(("*", "gateway-down"), (1, 2)):
        asked = by_level if by_level and level == 1 else own
        found = consent_for(runbook, level, {name: floor} if floor else {})
        assert order.index(found) == max(order.index(asked), order.index(floor or AUTOMATIC))
    assert consent_for(runbook, 2, {"engine-down": FOUR}) is own


def test_the_tighter_of_two_floors_holds():
    assert consent_for(GATEWAY, 2, {"*": FOUR, "gateway-down": ONE}) is FOUR
    assert consent_for(GATEWAY, 2, {"*": ONE, "gateway-down": FOUR}) is FOUR


def test_a_floor_for_a_runbook_that_does_not_exist_is_refused():
    check_floor({"*": ONE, "gateway-down": FOUR}, SHIPPED)
    with pytest.raises(InputError, match=r"there is no runbook 'gateway-dwon'; did you mean gateway-down\?"):
        check_floor({"gateway-dwon": FOUR}, SHIPPED)


def test_a_run_that_was_cut_short_keeps_the_consent_its_journal_tells():
    read = Read(evidence("x", "==", 1), "guard")
    permit = Permit(RestartReplica("gateway", "gateway-1"))
    assert consent_on_record([]) is None
    assert consent_on_record([read]) is None
    assert consent_on_record([read, Ask(FOUR, "x"), permit]) is FOUR
    assert consent_on_record([read, permit]) is AUTOMATIC


# --- asking ---------------------------------------------------------------------------------------------------------


def ask(consent, *answers, expiry_s=10.0, plans=(PLAN,)):
    """Let people answer one after the other; return the verdict, what each was told and what was asked anew.

    `plans` are what each look at the facts gives, the last one from then on. An answer that is a number is a pause.
    """

    async def main():
        consents, seen, anew = Consents(expiry_s), list(plans), []

        async def look():
            found = seen.pop(0) if len(seen) > 1 else seen[0]
            if isinstance(found, Exception):
                raise found
            return found

        async def told_anew(words):
            anew.append(words)

        waiting = asyncio.create_task(consents.wait_for("run-1", Ask(consent, "restart it"), look, told=told_anew))
        await asyncio.sleep(0.01)
        told = []
        for answer in answers:
            if isinstance(answer, int | float):
                await asyncio.sleep(answer)
                continue
            by, grant, *more = answer
            try:
                told.append(consents.answer("run-1", by, grant=grant, **(more[0] if more else {})))
            except PermanentError as error:
                told.append(type(error).__name__ + str(error))
            await asyncio.sleep(0)
        verdict = await waiting
        assert not consents.open
        return verdict, told, anew

    return run(main())


def test_one_approver_is_enough_where_one_is_asked_for():
    verdict, told, _ = ask(ONE, ("anna", True))
    assert verdict.granted
    assert verdict.by == ("anna",)
    assert verdict.plan == PLAN.digest
    assert told == [f"granted for plan {PLAN.short}: the run goes on"]


def test_four_eyes_are_two_people():
    verdict, told, _ = ask(FOUR, ("anna", True), ("ben", True))
    assert verdict.granted
    assert verdict.by == ("anna", "ben")
    assert told[0] == f"agreed to plan {PLAN.short}: 1 more person has to agree"


@pytest.mark.parametrize("again", ["anna", "Anna", " anna ", "ANNA", "\uff41nna"])
def test_the_same_person_spelled_otherwise_is_not_a_second_one(again):
    verdict, told, _ = ask(FOUR, ("anna", True), (again, True))
    assert not verdict.granted
    assert "a second person is needed" in told[1]
    assert told[1].startswith(RefusedByRailError.__name__)
    assert "only 1 of 2 agreed" in verdict.detail


@pytest.mark.parametrize("by", ["", "   ", "x" * 101, "a\x00b", "an\u200bna"])
def test_nobody_cannot_agree(by):
    verdict, told, _ = ask(ONE, (by, True))
    assert not verdict.granted
    assert told[0].startswith(InputError.__name__)


def test_one_no_ends_it_and_says_why():
    verdict, told, _ = ask(FOUR, ("anna", True), ("ben", False, {"why": "the  rack is\nbeing moved"}), ("carl", True))
    assert not verdict.granted
    assert verdict.by == ("ben",)
    assert verdict.detail == "denied by ben: the rack is being moved"
    assert "asks for no consent now" in told[2]


def test_silence_is_no():
    verdict, _, _ = ask(ONE)
    assert not verdict.granted
    assert "nobody answered in time" in verdict.detail


def test_what_was_not_asked_cannot_be_answered():
    with pytest.raises(PermanentError, match="asks for no consent now"):
        Consents(1.0).answer("run-9", "anna", grant=True)


# --- plans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [PLAN.digest, PLAN.short, PLAN.short.upper(), f" {PLAN.short} "])
def test_an_approval_may_name_its_plan(named):
    assert ask(ONE, ("anna", True, {"plan": named}))[0].granted


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("0" * 12, f"RefusedByRailErrorrun-1 asks for plan {PLAN.short}, not 000000000000; look at it again"),
        (PLAN.short[:11], "InputErrorplan: "),
        ("latest", "InputErrorplan: 'latest' is no plan's hash; give at least 12 hex digits"),
    ],
)
def test_an_approval_of_another_plan_is_refused(named, told):
    verdict, answers, _ = ask(ONE, ("anna", True, {"plan": named}))
    assert not verdict.granted
    assert answers[0].startswith(told)


def test_when_the_facts_change_what_was_agreed_to_is_void():
    answers = ("anna", True), 1.5, ("ben", True), ("ben", True, {"plan": PLAN.short}), ("anna", True)
    verdict, told, anew = ask(FOUR, *answers, plans=(PLAN, other()))
    assert verdict.granted
    assert verdict.by == ("ben", "anna")
    assert verdict.plan == other().digest
    assert told[1] == f"agreed to plan {other().short}: 1 more person has to agree"
    assert f"not {PLAN.short}" in told[2]
    first, words = anew
    asks = f"`tapewatch approve run-1 --plan {PLAN.short}` or `tapewatch deny run-1`"
    assert first == f"asks two different people to approve plan {PLAN.short} within 10 s: restart it. Answer by {asks}"
    assert words == (
        f"asks anew, for the facts changed: gateway generation 1 -> 2. Plan {PLAN.short} became {other().short}; "
        "void is the consent of anna"
    )


def test_facts_that_never_stand_still_end_the_question_in_its_time():
    plans = [other(n) for n in range(60)]
    verdict, _, anew = ask(ONE, plans=plans, expiry_s=5.0)
    assert not verdict.granted
    assert 4 <= len(anew) <= 6
    assert "asks anew" in verdict.detail


def test_while_the_plant_cannot_be_seen_nobody_is_asked():
    trouble = TemporaryError("the plant does not answer")
    verdict, told, _ = ask(ONE, ("anna", True), plans=(trouble,))
    assert not verdict.granted
    assert "asks for no consent now" in told[0]
    assert "the plant does not answer" in verdict.detail
    assert ask(ONE, 2.5, ("anna", True), plans=(trouble, trouble, PLAN))[0].granted


def test_a_question_outlives_a_moment_in_which_the_plant_cannot_be_seen():
    verdict, _, anew = ask(FOUR, ("anna", True), 3.5, ("ben", True), plans=(PLAN, TemporaryError("no answer"), PLAN))
    assert verdict.granted
    assert len(anew) == 1


def test_the_engines_plan_is_another_one_than_the_gateways():
    assert plan_of(ENGINE, FACTS).digest != PLAN.digest
