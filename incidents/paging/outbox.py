"""The life of a delivery: a fold over what was noted of it. Pure; every time is given.

Rule 1: nothing is sent before its try is noted, so a try without an answer is doubtful, whoever crashed in between.
Rule 2: what is told late, twice or out of order never takes a delivery back from DELIVERED.
Rule 3: pages of one group go to one recipient in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, assert_never

import msgspec

from incidents.paging.answers import Answer, AnswerKind, Receipt, ReceiptKind
from incidents.paging.page import Page
from incidents.paging.policy import TOP_LEVEL, Policy
from kernel.time import Instant, seconds


class Phase(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"
    TRYING = "trying"
    """A try is noted and no answer: under way, or cut short by a crash."""
    SENT = "sent"
    """Accepted; a receipt is awaited."""
    ACCEPTED = "accepted"
    """Accepted by a provider that gives no receipts: all that will be known."""
    DELIVERED = "delivered"
    FAILED = "failed"
    UNCONFIRMED = "unconfirmed"
    """Accepted, and the receipt never came."""


OVER: Final = frozenset({Phase.ACCEPTED, Phase.DELIVERED, Phase.FAILED, Phase.UNCONFIRMED})
REACHED: Final = frozenset({Phase.ACCEPTED, Phase.DELIVERED})


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """A page was taken in for a recipient."""

    at: Instant
    id: str
    channel: str
    to: str
    page: Page
    parent: str = ""
    """The delivery it was escalated from."""


class Tried(msgspec.Struct, frozen=True, tag="tried"):
    """A try begins: noted before anything leaves."""

    at: Instant


class Answered(msgspec.Struct, frozen=True, tag="answered"):
    """A try, or a look, came to an answer."""

    at: Instant
    answer: Answer
    receipt_due: bool = False
    """Whether a receipt will tell more."""
    retry_at: Instant | None = None


class Told(msgspec.Struct, frozen=True, tag="told"):
    """A provider told what became of it."""

    at: Instant
    receipt: Receipt


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """It was given up: FAILED when nobody had taken it, UNCONFIRMED when the receipt never came."""

    at: Instant
    phase: Phase
    reason: str


class Escalated(msgspec.Struct, frozen=True, tag="escalated"):
    """It was handed to the next channel as well."""

    at: Instant
    channel: str


Note = Taken | Tried | Answered | Told | Ended | Escalated


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One page for one recipient, as its notes tell."""

    id: str
    channel: str
    to: str
    page: Page
    parent: str
    taken_at: Instant
    phase: Phase = Phase.WAITING
    tries: int = 0
    first_try_at: Instant | None = None
    next_at: Instant
    """When the next try is due, while it waits."""
    doubtful: bool = False
    """A try may have arrived although nobody said so."""
    ref: str = ""
    reason: str = ""
    sent_at: Instant | None = None
    ended_at: Instant | None = None
    escalated_to: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more is done about it."""
        return self.phase in OVER

    @property
    def lane(self) -> tuple[str, str, str]:
        """What must be sent one after another."""
        return self.channel, self.to, self.page.key


def begin(taken: Taken) -> Delivery:
    """Return a delivery as it begins."""
    return Delivery(
        id=taken.id, channel=taken.channel, to=taken.to, page=taken.page, parent=taken.parent, taken_at=taken.at,
        next_at=taken.at,
    )  # fmt: skip


def apply(delivery: Delivery, note: Note) -> Delivery:
    """Return the delivery after one more note."""
    change = msgspec.structs.replace
    match note:
        case Taken():
            raise AssertionError("a delivery is taken in once")
        case Tried(at):
            if delivery.phase not in {Phase.WAITING, Phase.TRYING}:
                return delivery
            first = delivery.first_try_at if delivery.first_try_at is not None else at
            # A try after one that was never answered: the earlier one may have arrived.
            doubtful = delivery.doubtful or delivery.phase is Phase.TRYING
            return change(delivery, phase=Phase.TRYING, tries=delivery.tries + 1, first_try_at=first, doubtful=doubtful)
        case Answered():
            return _answered(delivery, note)
        case Told(at, receipt):
            return _told(delivery, at, receipt)
        case Ended(at, phase, reason):
            return delivery if delivery.over else change(delivery, phase=phase, reason=reason, ended_at=at)
        case Escalated(_, channel):
            return change(delivery, escalated_to=delivery.escalated_to or channel)
        case _:
            assert_never(note)


def _answered(delivery: Delivery, note: Answered) -> Delivery:
    change, answer = msgspec.structs.replace, note.answer
    if delivery.over:  # its receipt, or the end, came first: only the provider's name for it is news
        return change(delivery, ref=delivery.ref or answer.ref)
    match answer.kind:
        case AnswerKind.ACCEPTED:
            phase = Phase.SENT if note.receipt_due else Phase.ACCEPTED
            ended_at = None if note.receipt_due else note.at
            return change(
                delivery, phase=phase, ref=answer.ref, reason=answer.reason, sent_at=note.at, ended_at=ended_at,
                doubtful=False,
            )  # fmt: skip
        case AnswerKind.REFUSED:
            return change(delivery, phase=Phase.FAILED, reason=answer.reason, ended_at=note.at)
        case AnswerKind.BUSY | AnswerKind.DOUBTFUL:
            doubtful = delivery.doubtful or answer.kind is AnswerKind.DOUBTFUL
            next_at = note.retry_at if note.retry_at is not None else note.at
            return change(delivery, phase=Phase.WAITING, reason=answer.reason, next_at=next_at, doubtful=doubtful)
        case _:
            assert_never(answer.kind)


def _told(delivery: Delivery, at: Instant, receipt: Receipt) -> Delivery:
    change = msgspec.structs.replace
    match receipt.kind:
        case ReceiptKind.PENDING:
            return delivery
        case ReceiptKind.DELIVERED if delivery.phase is not Phase.DELIVERED:
            return change(delivery, phase=Phase.DELIVERED, reason=receipt.reason, ended_at=at)
        case ReceiptKind.FAILED if not delivery.over:
            return change(delivery, phase=Phase.FAILED, reason=receipt.reason or "failed there", ended_at=at)
        case _:
            return delivery


def fold(notes: Iterable[Note]) -> Delivery | None:
    """Return a delivery by its notes in order; None: there are none."""
    delivery: Delivery | None = None
    for note in notes:
        if delivery is None:
            assert isinstance(note, Taken), "the first note says what was taken in"
            delivery = begin(note)
        else:
            delivery = apply(delivery, note)
    return delivery


class Do(StrEnum):
    """What is due for a delivery."""

    SEND = "send"
    LOOK_THEN_SEND = "look_then_send"
    POLL = "poll"
    GIVE_UP = "give_up"
    LEAVE_UNCONFIRMED = "leave_unconfirmed"
    NOTHING = "nothing"


def due(delivery: Delivery, policy: Policy, now: Instant, *, looks: bool, polls: bool, polled: int = 0) -> Do:
    """Return what is due for a delivery that nobody works on.

    Args:
        delivery: as it stands.
        policy: how patient to be.
        now: the present instant.
        looks: whether the provider can be looked at before a doubtful page is sent again.
        polls: whether it can be asked for the receipt.
        polled: how often it has been asked.
    """
    match delivery.phase:
        case Phase.WAITING | Phase.TRYING:
            if delivery.tries and now - delivery.taken_at >= seconds(policy.give_up_s):
                return Do.GIVE_UP
            if delivery.phase is Phase.WAITING and now < delivery.next_at:
                return Do.NOTHING
            doubtful = delivery.doubtful or delivery.phase is Phase.TRYING
            return Do.LOOK_THEN_SEND if doubtful and looks else Do.SEND
        case Phase.SENT:
            assert delivery.sent_at is not None, "what is sent was sent at some time"
            if now - delivery.sent_at >= seconds(policy.unconfirmed_s):
                return Do.LEAVE_UNCONFIRMED
            asked_at = delivery.sent_at + policy.polled_until(polled)
            return Do.POLL if polls and now >= asked_at else Do.NOTHING
        case _:
            return Do.NOTHING


def overdue(delivery: Delivery, receipt_s: float, now: Instant) -> bool:
    """Tell whether the receipt of an accepted page should have come by now."""
    if delivery.phase is Phase.UNCONFIRMED:
        return False
    return (
        delivery.phase is Phase.SENT and delivery.sent_at is not None and now - delivery.sent_at >= seconds(receipt_s)
    )


def escalates(delivery: Delivery, policy: Policy, now: Instant) -> bool:
    """Tell whether a page must go to the next channel as well.

    Level 1 only, and never the end of an alert: who was not told of the beginning is not woken for the end. What failed
    escalates at once.
    """
    page = delivery.page
    if page.level > TOP_LEVEL or page.firing == 0 or page.test or delivery.escalated_to or delivery.phase in REACHED:
        return False
    lost = delivery.phase in {Phase.FAILED, Phase.UNCONFIRMED}
    return lost or now - delivery.taken_at >= seconds(policy.escalate_s)
