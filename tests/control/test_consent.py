"""Consent of people: one, two, none, and not the same one twice."""

import asyncio

import pytest

from control.consent import Consents
from kernel.errors import InputError, PermanentError
from runbooks.model import Consent
from tests.sim.virtual import run


def ask(consent, *answers, expiry_s=10.0):
    """Let people answer one after the other; return the verdict and what each was told."""

    async def main():
        consents = Consents(expiry_s)
        waiting = asyncio.create_task(consents.wait_for("run-1", consent, "restart it"))
        await asyncio.sleep(0)
        told = []
        for by, grant in answers:
            try:
                told.append(consents.answer("run-1", by, grant=grant))
            except PermanentError as error:
                told.append(type(error).__name__ + str(error))
            await asyncio.sleep(0)
        verdict = await waiting
        assert not consents.open
        return verdict, told

    return run(main())


def test_one_approver_is_enough_where_one_is_asked_for():
    verdict, _ = ask(Consent.ONE_APPROVER, ("anna", True))
    assert verdict.granted
    assert verdict.by == ("anna",)


def test_four_eyes_are_two_people():
    verdict, told = ask(Consent.FOUR_EYES, ("anna", True), ("ben", True))
    assert verdict.granted
    assert verdict.by == ("anna", "ben")
    assert told[0] == "1 more person has to agree"


@pytest.mark.parametrize("again", ["anna", "Anna", " anna ", "ANNA"])
def test_the_same_person_spelled_otherwise_is_not_a_second_one(again):
    verdict, told = ask(Consent.FOUR_EYES, ("anna", True), (again, True))
    assert not verdict.granted
    assert "a second person is needed" in told[1]
    assert "only 1 of 2 agreed" in verdict.detail


@pytest.mark.parametrize("by", ["", "   ", "x" * 101, "a\x00b"])
def test_nobody_cannot_agree(by):
    verdict, told = ask(Consent.ONE_APPROVER, (by, True))
    assert not verdict.granted
    assert told[0].startswith(InputError.__name__)


def test_one_no_ends_it():
    verdict, told = ask(Consent.FOUR_EYES, ("anna", True), ("ben", False), ("carl", True))
    assert not verdict.granted
    assert verdict.by == ("ben",)
    assert "asks for no consent now" in told[2]


def test_silence_is_no():
    verdict, _ = ask(Consent.ONE_APPROVER)
    assert not verdict.granted
    assert "nobody answered in time" in verdict.detail


def test_what_was_not_asked_cannot_be_answered():
    with pytest.raises(PermanentError, match="asks for no consent now"):
        Consents(1.0).answer("run-9", "anna", grant=True)
