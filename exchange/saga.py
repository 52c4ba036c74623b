"""Settlement of a trade as a saga: six steps at four services, each with what takes it back.

Nothing here does I/O. `carry_out` is what a service does with one ask, whoever asks; `NEXT` is the order of the steps,
whoever follows it: a coordinator (`exchange/saga_coordinator.py`) or the services themselves
(`exchange/saga_choreography.py`). Up to the pivot, `CLEAR`, a saga can be cancelled, and its steps are taken back in
reverse order; after it, it goes on until it is settled. After Garcia-Molina and Salem, "Sagas" (1987).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Protocol, assert_never

import msgspec

from exchange.events import Traded
from exchange.ledger import CASH, FEES, Asset, Posting
from exchange.shards import partition_of_id
from exchange.types import AccountId, TradeId

ESCROW: Final = AccountId("$escrow")
"""Who holds what is reserved and not yet delivered, in each service's own book."""


class Service(StrEnum):
    """Who carries a step out."""

    CASH = "cash"
    SECURITIES = "securities"
    FEES = "fees"
    CLEARING = "clearing"


class Step(StrEnum):
    """What a service can be asked; `BEGIN` is what the reader of trades says by itself."""

    BEGIN = "begin"
    RESERVE_CASH = "reserve_cash"
    RESERVE_SECURITIES = "reserve_securities"
    CHARGE_FEES = "charge_fees"
    CLEAR = "clear"
    """The pivot: once done, the trade will be settled."""
    DELIVER_SECURITIES = "deliver_securities"
    DELIVER_CASH = "deliver_cash"
    VOID = "void"
    """Never clear; too late when it is cleared."""
    REFUND_FEES = "refund_fees"
    RELEASE_SECURITIES = "release_securities"
    RELEASE_CASH = "release_cash"


class Verdict(StrEnum):
    """What a service answers."""

    DONE = "done"
    REFUSED = "refused"
    TOO_LATE = "too_late"
    """Asked to void what is cleared."""
    GIVEN_UP = "given_up"
    """Said of `BEGIN`: the saga takes too long, the pivot shall say which way it goes."""
    FORGOTTEN = "forgotten"
    """The saga ended so long ago that nothing of it is kept: nothing is done, and nothing follows from it."""


class Reason(StrEnum):
    """Why a step was refused."""

    NONE = ""
    INSUFFICIENT = "insufficient"
    """The account would have less than it may."""
    SUSPENDED = "suspended"
    """Clearing takes no trade of this account."""
    OVERTAKEN = "overtaken"
    """What takes the step back came first, and left a tombstone."""
    NOT_RESERVED = "not_reserved"
    """Asked to deliver what is not reserved: a fault of who asked; nothing is remembered."""
    FORGOTTEN = "forgotten"
    """Of the verdict of the same name."""


class End(StrEnum):
    """How a saga ended."""

    SETTLED = "settled"
    CANCELLED = "cancelled"


class Deed(StrEnum):
    """What a person does to a saga that is stuck."""

    RETRY = "retry"
    """What is waited for is asked, or said, once more."""
    COMPENSATE = "compensate"
    """It is given up, as one that takes too long."""


WHO_MAX: Final = 200
"""Characters of a person's name that are kept with a deed."""
WHY_LEAST: Final = 3
WHY_MAX: Final = 1000
"""Characters of a reason."""


class Instruction(msgspec.Struct, frozen=True, gc=False):
    """What one trade moves. Its trade's id is the id of its saga."""

    trade_id: TradeId
    asset: Asset
    lots: int
    cost: int
    """Millionths of the currency, as the fees; a negative fee is a rebate."""
    buyer: AccountId
    seller: AccountId
    buyer_fee: int = 0
    seller_fee: int = 0
    trace: str = ""
    """The `traceparent` of the order that took; decides nothing. Empty: not known."""


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Do this step of this saga. Asked again, it is answered again and not done again."""

    step: Step
    instruction: Instruction


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What became of a step. With a coordinator its answer, without one the event the next service reacts to."""

    step: Step
    instruction: Instruction
    verdict: Verdict
    reason: Reason = Reason.NONE


class Remembered(msgspec.Struct, frozen=True, gc=False):
    """What a service keeps of a step it answered."""

    step: Step
    verdict: Verdict
    reason: Reason = Reason.NONE


class Carried(msgspec.Struct, frozen=True):
    """What one ask leads to: `postings` and `remembered` are written in one transaction, then `answer` is sent."""

    answer: Answer
    postings: tuple[Posting, ...] = ()
    remembered: tuple[Remembered, ...] = ()
    """Empty: nothing new, the ask was answered from memory."""


class Rules(msgspec.Struct, frozen=True):
    """What a service refuses."""

    least: int | None = None
    """The least an account may have after a reservation or a fee; none: anything."""
    suspended: frozenset[AccountId] = frozenset()
    """Whose trades clearing does not take."""
    least_of: Mapping[AccountId, int | None] = {}
    """Accounts with a bound of their own, in the place of `least`."""

    @property
    def bounded(self) -> bool:
        """Whether anybody has a bound."""
        return self.least is not None or any(one is not None for one in self.least_of.values())


class Known(Protocol):
    """What a service has, read within the transaction that will write."""

    def remembered(self, trade_id: TradeId, step: Step) -> Remembered | None:
        """Return what was answered to a step, or nothing."""
        ...

    def amount(self, account: AccountId, asset: Asset) -> int:
        """Return what an account has of an asset in this service's book."""
        ...

    def forgotten(self, trade_id: TradeId) -> bool:
        """Tell whether a saga ended so long ago that what was answered in it is not kept."""
        ...


AT: Final[Mapping[Step, Service]] = {
    Step.RESERVE_CASH: Service.CASH,
    Step.RESERVE_SECURITIES: Service.SECURITIES,
    Step.CHARGE_FEES: Service.FEES,
    Step.CLEAR: Service.CLEARING,
    Step.DELIVER_SECURITIES: Service.SECURITIES,
    Step.DELIVER_CASH: Service.CASH,
    Step.VOID: Service.CLEARING,
    Step.REFUND_FEES: Service.FEES,
    Step.RELEASE_SECURITIES: Service.SECURITIES,
    Step.RELEASE_CASH: Service.CASH,
}
TAKES_BACK: Final[Mapping[Step, Step]] = {
    Step.VOID: Step.CLEAR,
    Step.REFUND_FEES: Step.CHARGE_FEES,
    Step.RELEASE_SECURITIES: Step.RESERVE_SECURITIES,
    Step.RELEASE_CASH: Step.RESERVE_CASH,
}
NEEDS: Final[Mapping[Step, Step]] = {
    Step.DELIVER_SECURITIES: Step.RESERVE_SECURITIES,
    Step.DELIVER_CASH: Step.RESERVE_CASH,
}
NEXT: Final[Mapping[tuple[Step, Verdict], Step | End]] = {
    (Step.BEGIN, Verdict.DONE): Step.RESERVE_CASH,
    (Step.BEGIN, Verdict.GIVEN_UP): Step.VOID,
    (Step.RESERVE_CASH, Verdict.DONE): Step.RESERVE_SECURITIES,
    (Step.RESERVE_CASH, Verdict.REFUSED): End.CANCELLED,
    (Step.RESERVE_SECURITIES, Verdict.DONE): Step.CHARGE_FEES,
    (Step.RESERVE_SECURITIES, Verdict.REFUSED): Step.RELEASE_CASH,
    (Step.CHARGE_FEES, Verdict.DONE): Step.CLEAR,
    (Step.CHARGE_FEES, Verdict.REFUSED): Step.RELEASE_SECURITIES,
    (Step.CLEAR, Verdict.DONE): Step.DELIVER_SECURITIES,
    (Step.CLEAR, Verdict.REFUSED): Step.REFUND_FEES,
    (Step.DELIVER_SECURITIES, Verdict.DONE): Step.DELIVER_CASH,
    (Step.DELIVER_CASH, Verdict.DONE): End.SETTLED,
    (Step.VOID, Verdict.DONE): Step.REFUND_FEES,
    (Step.VOID, Verdict.TOO_LATE): Step.DELIVER_SECURITIES,
    (Step.REFUND_FEES, Verdict.DONE): Step.RELEASE_SECURITIES,
    (Step.RELEASE_SECURITIES, Verdict.DONE): Step.RELEASE_CASH,
    (Step.RELEASE_CASH, Verdict.DONE): End.CANCELLED,
}
"""The order of the steps. An answer that is not in it changes nothing: the saga waits, and is told as stuck."""


def is_behind(trade_id: TradeId, horizons: Mapping[int, int]) -> bool:
    """Tell whether a saga is at or behind the horizon of its part of the exchange: `horizons` has a trade for each.

    Every saga up to that trade has ended, and was forgotten. A trade's id says which part made it.
    """
    return 0 < trade_id <= horizons.get(partition_of_id(trade_id), 0)


def instruction(trade: Traded, money: int, trace: str = "") -> Instruction:
    """Return what a trade moves; `money` is `money_per_tick` of its instrument, `trace` the order's `traceparent`."""
    return Instruction(
        trade.trade_id,
        Asset(trade.symbol),
        trade.quantity,
        trade.price * trade.quantity * money,
        trade.buyer,
        trade.seller,
        trade.buyer_fee,
        trade.seller_fee,
        trace,
    )


def carry_out(ask: Ask, known: Known, rules: Rules) -> Carried:
    """Return what a service does with an ask.

    An ask that was answered is answered the same again. What takes back a step that never came leaves a tombstone, so
    that the step is refused when it comes. What is asked of a saga that is forgotten is not done, whatever it is: it
    lay in a queue or among dead letters until nobody knew of it any more.
    """
    trade_id = ask.instruction.trade_id
    if known.forgotten(trade_id):
        return Carried(Answer(ask.step, ask.instruction, Verdict.FORGOTTEN, Reason.FORGOTTEN))
    before = known.remembered(trade_id, ask.step)
    if before is not None:
        return Carried(Answer(ask.step, ask.instruction, before.verdict, before.reason))
    if ask.step in TAKES_BACK:
        return _take_back(ask, known)
    needed = NEEDS.get(ask.step)
    if needed is not None:
        reserved = known.remembered(trade_id, needed)
        if reserved is None or reserved.verdict is not Verdict.DONE:
            return Carried(Answer(ask.step, ask.instruction, Verdict.REFUSED, Reason.NOT_RESERVED))
    entries = movement(ask)
    reason = _refusal(ask, entries, known, rules)
    verdict = Verdict.REFUSED if reason else Verdict.DONE
    return Carried(
        Answer(ask.step, ask.instruction, verdict, reason),
        () if reason else entries,
        (Remembered(ask.step, verdict, reason),),
    )


def movement(ask: Ask) -> tuple[Posting, ...]:
    """Return the postings of a step, two a movement; none for a step that moves nothing."""
    it = ask.instruction
    entries: tuple[Posting, ...]
    match ask.step:
        case Step.RESERVE_CASH:
            entries = _move(it, CASH, it.cost, it.buyer, ESCROW)
        case Step.RELEASE_CASH:
            entries = _move(it, CASH, it.cost, ESCROW, it.buyer)
        case Step.DELIVER_CASH:
            entries = _move(it, CASH, it.cost, ESCROW, it.seller)
        case Step.RESERVE_SECURITIES:
            entries = _move(it, it.asset, it.lots, it.seller, ESCROW)
        case Step.RELEASE_SECURITIES:
            entries = _move(it, it.asset, it.lots, ESCROW, it.seller)
        case Step.DELIVER_SECURITIES:
            entries = _move(it, it.asset, it.lots, ESCROW, it.buyer)
        case Step.CHARGE_FEES:
            entries = _move(it, CASH, it.buyer_fee, it.buyer, FEES)
            entries += _move(it, CASH, it.seller_fee, it.seller, FEES)
        case Step.REFUND_FEES:
            entries = _move(it, CASH, it.buyer_fee, FEES, it.buyer)
            entries += _move(it, CASH, it.seller_fee, FEES, it.seller)
        case Step.BEGIN | Step.CLEAR | Step.VOID:
            entries = ()
        case _:
            assert_never(ask.step)
    return entries


def _move(it: Instruction, asset: Asset, amount: int, giver: AccountId, taker: AccountId) -> tuple[Posting, ...]:
    if not amount:
        return ()
    return (Posting(it.trade_id, giver, asset, -amount), Posting(it.trade_id, taker, asset, amount))


def _take_back(ask: Ask, known: Known) -> Carried:
    step = TAKES_BACK[ask.step]
    taken = known.remembered(ask.instruction.trade_id, step)
    if taken is not None and taken.verdict is Verdict.DONE:
        if ask.step is Step.VOID:
            return Carried(
                Answer(ask.step, ask.instruction, Verdict.TOO_LATE),
                remembered=(Remembered(ask.step, Verdict.TOO_LATE),),
            )
        return Carried(
            Answer(ask.step, ask.instruction, Verdict.DONE),
            movement(ask),
            (Remembered(ask.step, Verdict.DONE),),
        )
    tombstone = () if taken is not None else (Remembered(step, Verdict.REFUSED, Reason.OVERTAKEN),)
    return Carried(
        Answer(ask.step, ask.instruction, Verdict.DONE),
        remembered=(*tombstone, Remembered(ask.step, Verdict.DONE)),
    )


def _refusal(ask: Ask, entries: tuple[Posting, ...], known: Known, rules: Rules) -> Reason:
    if ask.step is Step.CLEAR and {ask.instruction.buyer, ask.instruction.seller} & rules.suspended:
        return Reason.SUSPENDED
    if not rules.bounded or ask.step in NEEDS:
        return Reason.NONE
    # An account that trades with itself pays both fees, so its postings are judged together.
    taken: defaultdict[tuple[AccountId, Asset], int] = defaultdict(int)
    for entry in entries:
        taken[entry.account, entry.asset] += entry.amount
    for (account, asset), amount in taken.items():
        if amount >= 0 or account in {ESCROW, FEES}:
            continue
        least = rules.least_of.get(account, rules.least)
        if least is not None and known.amount(account, asset) + amount < least:
            return Reason.INSUFFICIENT
    return Reason.NONE


class Book:
    """What one service has, in memory: the sums of its postings, and what it answered."""

    def __init__(self) -> None:
        self._amounts: defaultdict[tuple[AccountId, Asset], int] = defaultdict(int)
        self._remembered: dict[tuple[TradeId, Step], Remembered] = {}
        self._horizons: dict[int, int] = {}

    def remembered(self, trade_id: TradeId, step: Step) -> Remembered | None:
        """Return what was answered to a step, or nothing."""
        return self._remembered.get((trade_id, step))

    def amount(self, account: AccountId, asset: Asset) -> int:
        """Return what an account has of an asset."""
        return self._amounts.get((account, asset), 0)

    def forgotten(self, trade_id: TradeId) -> bool:
        """Tell whether a saga is at or behind the horizon of its part."""
        return is_behind(trade_id, self._horizons)

    def forget(self, up_to: TradeId) -> None:
        """Forget every saga of a part up to a trade: all of them have ended."""
        part = partition_of_id(up_to)
        self._horizons[part] = max(up_to, self._horizons.get(part, 0))
        self._remembered = {key: one for key, one in self._remembered.items() if not self.forgotten(key[0])}

    def amounts(self) -> dict[tuple[AccountId, Asset], int]:
        """Return every balance that is not zero."""
        return {key: amount for key, amount in self._amounts.items() if amount}

    def write(self, carried: Carried) -> None:
        """Take over effect and memory of an ask, together."""
        for entry in carried.postings:
            self._amounts[entry.account, entry.asset] += entry.amount
        for remembered in carried.remembered:
            self._remembered[carried.answer.instruction.trade_id, remembered.step] = remembered

    def deposit(self, account: AccountId, asset: Asset, amount: int) -> None:
        """Put something in from outside; the sums of the book grow by it."""
        self._amounts[account, asset] += amount
