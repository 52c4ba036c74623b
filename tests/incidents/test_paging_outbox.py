"""The life of a delivery against a naive telling of it, and its store against the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incidents.adapters.page_outbox import REPEAT, PageOutbox
from incidents.paging.answers import Answer, AnswerKind, Receipt, ReceiptKind
from incidents.paging.outbox import (
    OVER,
    Answered,
    Do,
    Ended,
    Escalated,
    Phase,
    Taken,
    Told,
    Tried,
    due,
    escalates,
    fold,
    overdue,
)
from incidents.paging.page import page_of
from incidents.paging.policy import Policy
from kernel.errors import PermanentError
from kernel.time import SECOND, Instant, seconds
from tests.contract.bridge_plant import alert, webhook

PAGE = page_of(json.dumps(webhook()).encode(), Instant(0))
TAKEN = Taken(Instant(0), "d1", "sms", "+4930123456", PAGE)
POLICY = Policy(give_up_s=100, unconfirmed_s=50, escalate_s=10)
notes = st.builds(Tried, at=st.integers(0, 10**11).map(Instant)) | st.builds(
    Answered,
    at=st.integers(0, 10**11).map(Instant),
    answer=st.builds(Answer, kind=st.sampled_from(AnswerKind), reason=st.just("r"), ref=st.sampled_from(["", "x"])),
    receipt_due=st.booleans(),
) | st.builds(
    Told, at=st.integers(0, 10**11).map(Instant), receipt=st.builds(Receipt, kind=st.sampled_from(ReceiptKind))
) | st.builds(
    Ended,
    at=st.integers(0, 10**11).map(Instant),
    phase=st.sampled_from([Phase.FAILED, Phase.UNCONFIRMED]),
    reason=st.just("gone"),
) | st.builds(Escalated, at=st.just(Instant(5)), channel=st.sampled_from(["call", "slack"]))  # fmt: skip


def naive(script):
    """Tell the same from the whole story at once, a question at a time."""
    phase, tries, doubtful, escalated = "waiting", 0, False, ""
    for note in script:
        over = phase in {"accepted", "delivered", "failed", "unconfirmed"}
        kind = type(note).__name__
        if kind == "Tried" and phase in {"waiting", "trying"}:
            doubtful = doubtful or phase == "trying"
            phase, tries = "trying", tries + 1
        elif kind == "Answered" and not over:
            word = str(note.answer.kind)
            if word == "accepted":
                phase, doubtful = ("sent" if note.receipt_due else "accepted"), False
            elif word == "refused":
                phase = "failed"
            else:
                phase, doubtful = "waiting", doubtful or word == "doubtful"
        elif kind == "Told" and str(note.receipt.kind) == "delivered":
            phase = "delivered"
        elif kind == "Told" and str(note.receipt.kind) == "failed" and not over:
            phase = "failed"
        elif kind == "Ended" and not over:
            phase = str(note.phase)
        elif kind == "Escalated":
            escalated = escalated or note.channel
    return phase, tries, doubtful, escalated


@settings(max_examples=300)
@given(st.lists(notes, max_size=12))
def test_the_fold_tells_what_the_naive_telling_tells(script):
    made = fold([TAKEN, *script])
    assert (made.phase, made.tries, made.doubtful, made.escalated_to) == naive(script)
    assert (made.ended_at is not None) == made.over


@given(st.lists(notes, max_size=12), st.lists(notes, max_size=12))
def test_what_was_delivered_stays_delivered(before, after):
    delivered = Told(Instant(1), Receipt(ReceiptKind.DELIVERED))
    assert fold([TAKEN, *before, delivered, *after]).phase is Phase.DELIVERED


@settings(max_examples=40)
@given(st.lists(notes, max_size=8))
def test_the_store_gives_back_what_was_noted(tmp_path_factory, script):
    path = tmp_path_factory.mktemp("outbox") / "pages.sqlite"
    outbox = PageOutbox(path)
    (one,) = outbox.take([TAKEN])
    for note in script:
        one, _ = outbox.note(one, [note])
    outbox.close()
    again = PageOutbox(path)
    assert again.get(one.id) == one
    assert [each.id for each in again.unfinished()] == ([] if one.phase in OVER else [one.id])
    again.close()


def answered(kind, at=1, **more):
    return Answered(Instant(at * SECOND), Answer(kind), **more)


def do(*script, at_s=0.0, looks=True, polls=True, polled=0):
    return due(fold([TAKEN, *script]), POLICY, Instant(seconds(at_s)), looks=looks, polls=polls, polled=polled)


TRY = Tried(Instant(0))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (do(), Do.SEND),
        (do(TRY), Do.LOOK_THEN_SEND),
        (do(TRY, looks=False), Do.SEND),
        (do(TRY, answered(AnswerKind.BUSY, retry_at=Instant(5 * SECOND)), at_s=4), Do.NOTHING),
        (do(TRY, answered(AnswerKind.BUSY, retry_at=Instant(5 * SECOND)), at_s=5), Do.SEND),
        (do(TRY, answered(AnswerKind.DOUBTFUL), at_s=5), Do.LOOK_THEN_SEND),
        (do(TRY, answered(AnswerKind.DOUBTFUL), at_s=5, looks=False), Do.SEND),
        (do(TRY, answered(AnswerKind.DOUBTFUL), TRY, answered(AnswerKind.BUSY), at_s=5), Do.LOOK_THEN_SEND),
        (do(TRY, answered(AnswerKind.REFUSED), at_s=5), Do.NOTHING),
        (do(TRY, answered(AnswerKind.BUSY), at_s=100), Do.GIVE_UP),
        (do(at_s=100), Do.SEND),
        (do(TRY, answered(AnswerKind.ACCEPTED, receipt_due=True), at_s=1.5), Do.NOTHING),
        (do(TRY, answered(AnswerKind.ACCEPTED, receipt_due=True), at_s=2), Do.POLL),
        (do(TRY, answered(AnswerKind.ACCEPTED, receipt_due=True), at_s=3, polled=1), Do.NOTHING),
        (do(TRY, answered(AnswerKind.ACCEPTED, receipt_due=True), at_s=4, polled=1), Do.POLL),
        (do(TRY, answered(AnswerKind.ACCEPTED, receipt_due=True), at_s=4, polls=False), Do.NOTHING),
        (do(TRY, answered(AnswerKind.ACCEPTED, receipt_due=True), at_s=51), Do.LEAVE_UNCONFIRMED),
        (do(TRY, answered(AnswerKind.ACCEPTED), at_s=51), Do.NOTHING),
    ],
)
def test_what_is_due(what, expected):
    assert what is expected


def test_a_page_that_came_while_nothing_ran_is_tried_once_however_old_it_is():
    assert do(at_s=10_000) is Do.SEND


@pytest.mark.parametrize(
    ("script", "at_s", "expected"),
    [
        ([], 9.9, False),
        ([], 10, True),
        ([TRY, answered(AnswerKind.REFUSED)], 1, True),
        ([TRY, answered(AnswerKind.ACCEPTED)], 99, False),
        ([TRY, answered(AnswerKind.ACCEPTED, receipt_due=True)], 9, False),
        ([TRY, answered(AnswerKind.ACCEPTED, receipt_due=True)], 10, True),
        ([Escalated(Instant(1), "call")], 99, False),
    ],
)
def test_what_is_not_delivered_in_time_escalates_once(script, at_s, expected):
    assert escalates(fold([TAKEN, *script]), POLICY, Instant(seconds(at_s))) is expected


@pytest.mark.parametrize("labels", [{"level": "2"}, {"level": "3"}])
def test_lower_levels_and_ends_of_alerts_do_not_escalate(labels):
    lower = page_of(json.dumps(webhook(alert(labels=alert()["labels"] | labels))).encode(), Instant(0))
    over = page_of(json.dumps(webhook(alert(status="resolved", endsAt="2026-03-02T09:40:00Z"))).encode(), Instant(0))
    for page in (lower, over):
        one = fold([Taken(Instant(0), "d", "sms", "x", page), TRY, answered(AnswerKind.REFUSED)])
        assert not escalates(one, POLICY, Instant(10**15))


def test_a_receipt_is_overdue_after_its_time_and_only_while_it_is_awaited():
    sent = [TAKEN, TRY, answered(AnswerKind.ACCEPTED, receipt_due=True)]
    assert not overdue(fold(sent), 30, Instant(30 * SECOND))
    assert overdue(fold(sent), 30, Instant(31 * SECOND))
    assert not overdue(fold([*sent, Told(Instant(2), Receipt(ReceiptKind.DELIVERED))]), 30, Instant(31 * SECOND))


@given(st.text(max_size=10), st.integers(1, 100))
def test_waits_double_up_to_the_longest_and_never_come_together_by_much(delivery, tries):
    wait = Policy().wait(delivery, tries, None)
    plain = min(2.0 ** (tries - 1), 60.0)
    assert seconds(plain) <= wait <= seconds(plain * 1.2)
    assert Policy().wait(delivery, tries, 7.5) == seconds(7.5)


def test_a_repeated_webhook_is_known_and_a_reminder_is_not(tmp_path):
    outbox = PageOutbox(tmp_path / "pages.sqlite")
    (one,) = outbox.take([TAKEN])

    def at(time):
        return outbox.take([Taken(Instant(time), "", "sms", "+4930123456", PAGE)])

    assert at(10**15) == [], "it is still on its way"
    outbox.note(one, [TRY, answered(AnswerKind.ACCEPTED)])
    assert at(REPEAT - 1) == []
    assert len(at(REPEAT)) == 1
    assert len(outbox.take([Taken(Instant(0), "", "sms", "+4930999999", PAGE)])) == 1
    outbox.close()


def test_what_is_handed_on_is_not_sent_where_it_has_arrived(tmp_path):
    outbox = PageOutbox(tmp_path / "pages.sqlite")
    (there,) = outbox.take([TAKEN])
    outbox.note(there, [TRY, answered(AnswerKind.ACCEPTED)])
    (teams,) = outbox.take([Taken(Instant(0), "", "teams", "", PAGE)])
    later = Instant(60 * SECOND)
    onward = Taken(later, "", "sms", "+4930123456", PAGE, teams.id)
    _, new = outbox.note(teams, [Escalated(later, "sms")], [onward])
    assert new == []
    outbox.close()


def test_everything_of_one_commit_is_kept_or_nothing(tmp_path):
    outbox = PageOutbox(tmp_path / "pages.sqlite")
    (one,) = outbox.take([TAKEN])
    with pytest.raises(AssertionError):
        outbox.note(one, [TRY, TAKEN])
    assert outbox.get(one.id) == one
    outbox.close()


def test_what_is_long_over_is_forgotten(tmp_path):
    outbox = PageOutbox(tmp_path / "pages.sqlite")
    (one,) = outbox.take([TAKEN])
    outbox.note(one, [TRY, answered(AnswerKind.ACCEPTED)])
    assert outbox.forget(Instant(SECOND)) == 0
    assert outbox.forget(Instant(2 * SECOND)) == 1
    assert outbox.get(one.id) is None
    outbox.close()


def test_an_outbox_of_another_version_is_refused(tmp_path):
    outbox = PageOutbox(tmp_path / "pages.sqlite")
    outbox._db.execute("PRAGMA user_version = 9")
    outbox.close()
    with pytest.raises(PermanentError, match="version 9"):
        PageOutbox(tmp_path / "pages.sqlite")
