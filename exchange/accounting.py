"""What a load was told, held against what the journal says: the account of every order sent.

acknowledged  answered with a place in the journal and carried out
rejected      answered with a place in the journal and refused by a rule
refused       answered 503, never sequenced
unknown       no answer that could be had
lost          answered as done, and the journal does not know it
duplicated    one client id carried out more than once
mismatched    answered otherwise than the journal says, or a refused request that the journal has
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from exchange.answers import OrderAnswer, Status, answer_of
from exchange.commands import CancelOrder, MassCancel, PlaceOrder, ReplaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Rejected
from exchange.ports import ClientOutcome
from exchange.shards import made_whole
from exchange.types import AccountId, ClientId, RejectReason
from kernel.time import Instant

MAX_EXAMPLES: Final = 20


class LoadLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request of a load, as its log keeps it. Times are nanoseconds since the epoch."""

    account: AccountId
    client_id: ClientId
    kind: str
    intended_at: Instant
    sent_at: Instant
    answered_at: Instant
    outcome: ClientOutcome
    attempts: int = 1
    answer: OrderAnswer | None = None


class Account(msgspec.Struct, frozen=True):
    """How every request of a load ended."""

    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0
    refused: int = 0
    unknown: int = 0
    lost: int = 0
    duplicated: int = 0
    mismatched: int = 0
    journal_seq: int = 0
    examples: tuple[str, ...] = ()
    """The first of what is wrong, in words."""

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, doubled or answered wrongly."""
        return not (self.lost or self.duplicated or self.mismatched)


class Replayed(msgspec.Struct, frozen=True):
    """What the journal says about every participant's request."""

    seq: int
    answers: dict[tuple[str, str], OrderAnswer]
    repeated: dict[tuple[str, str], int]
    """Client ids that were carried out more than once, and how often."""


def replayed(engine: Engine, items: Iterable[Sequenced], partition: int = 0) -> Replayed:
    """Apply commands from the first on and keep what each participant should have been told.

    `partition` is the engine's, where it is one of several: ids are told whole.
    """
    answers: dict[tuple[str, str], OrderAnswer] = {}
    carried_out: Counter[tuple[str, str]] = Counter()
    for item in items:
        events = engine.apply(item)
        command = item.command
        if not isinstance(command, PlaceOrder | CancelOrder | ReplaceOrder | MassCancel):
            continue
        key = (str(command.account), str(command.client_id))
        if any(isinstance(one, Rejected) and one.reason is RejectReason.DUPLICATE_CLIENT_ID for one in events):
            continue
        carried_out[key] += 1
        told = tuple(made_whole(partition, event) for event in events) if partition else events
        answers.setdefault(key, answer_of(item.seq, command.client_id, told, command))
    return Replayed(engine.sequence, answers, {key: count for key, count in carried_out.items() if count > 1})


def together(parts: Sequence[Replayed]) -> Replayed:
    """Return what the journals of all engines say: a request is in one of them, a mass cancel of everything in all."""
    if len(parts) == 1:
        return parts[0]
    answers: dict[tuple[str, str], OrderAnswer] = {}
    repeated: Counter[tuple[str, str]] = Counter()
    for part in parts:
        repeated.update(part.repeated)
        for key, answer in part.answers.items():
            before = answers.setdefault(key, answer)
            if before is answer:
                continue
            if before.orders is None or answer.orders is None:
                repeated[key] += 1
                continue
            answers[key] = msgspec.structs.replace(
                before, orders=before.orders + answer.orders, canceled=before.canceled + answer.canceled
            )
    return Replayed(sum(part.seq for part in parts), answers, dict(repeated))


def account(lines: Iterable[LoadLine], journal: Replayed) -> Account:
    """Hold a load's log against the journal."""
    count: Counter[str] = Counter()
    examples: list[str] = []
    seen: set[tuple[str, str]] = set()
    for line in lines:
        key = (str(line.account), str(line.client_id))
        count["sent"] += 1
        count[line.outcome] += 1
        trouble = _trouble(line, journal.answers.get(key))
        if key in seen:
            trouble = "mismatched", "two lines for one client id"
        seen.add(key)
        if trouble is not None:
            count[trouble[0]] += 1
            if len(examples) < MAX_EXAMPLES:
                examples.append(f"{trouble[0]}: {line.account} {line.client_id}: {trouble[1]}")
    doubled = [key for key in journal.repeated if key in seen]
    examples.extend(f"duplicated: {who} {client_id}" for who, client_id in doubled[:MAX_EXAMPLES])
    return Account(
        sent=count["sent"],
        acknowledged=count[ClientOutcome.ACKNOWLEDGED],
        rejected=count[ClientOutcome.REJECTED],
        refused=count[ClientOutcome.REFUSED],
        unknown=count[ClientOutcome.UNKNOWN],
        lost=count["lost"],
        duplicated=len(doubled),
        mismatched=count["mismatched"],
        journal_seq=journal.seq,
        examples=tuple(examples),
    )


def _trouble(line: LoadLine, said: OrderAnswer | None) -> tuple[str, str] | None:
    match line.outcome:
        case ClientOutcome.ACKNOWLEDGED | ClientOutcome.REJECTED:
            if said is None:
                return "lost", f"answered {line.outcome}, and not in the journal"
            if line.answer is not None and line.answer != _as_told(line.answer, said):
                return "mismatched", f"answered {line.answer}, the journal says {said}"
            if (said.status is Status.REJECTED) != (line.outcome is ClientOutcome.REJECTED):
                return "mismatched", f"answered {line.outcome}, the journal says {said.status}"
        case ClientOutcome.REFUSED:
            if said is not None:
                return "mismatched", f"answered as never sequenced, and in the journal at {said.seq}"
        case ClientOutcome.UNKNOWN:
            pass
    return None


def _as_told(answer: OrderAnswer, said: OrderAnswer) -> OrderAnswer:
    """Return what the journal says without what answers did not tell when this one was given, or looked up."""
    if not answer.members:
        said = msgspec.structs.replace(said, members=(), right="")
    if answer.state is not None or said.state is None:
        return said
    return msgspec.structs.replace(said, state=None, cancel_reason=None)
