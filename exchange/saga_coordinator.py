"""Sagas led by a coordinator: its state is a fold over its journal.

Who drives it appends an entry to the journal, then applies it, then sends what `asks` returns. After a crash the
journal is folded again and every open step is asked again, which services answer from memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from exchange.saga import AT, NEXT, Answer, Ask, End, Instruction, Reason, Service, Step, Verdict
from exchange.types import TradeId
from kernel.time import SECOND, Duration, Instant

BEFORE_THE_PIVOT: Final = frozenset({Step.RESERVE_CASH, Step.RESERVE_SECURITIES, Step.CHARGE_FEES, Step.CLEAR})
"""Where a saga may be given up; at `CLEAR` the pivot itself says whether it is too late."""
GOES_ON: Final = frozenset({Step.DELIVER_SECURITIES, Step.DELIVER_CASH})


class Times(msgspec.Struct, frozen=True):
    """How long is waited."""

    first: Duration = Duration(SECOND // 5)
    """From the first ask to the second; doubled for each further one."""
    longest: Duration = Duration(10 * SECOND)
    give_up: Duration = Duration(30 * SECOND)
    """From the beginning of a saga until it is cancelled, unless it is past the pivot."""
    stuck: Duration = Duration(60 * SECOND)
    """On one step, until it is said that the saga is stuck."""


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """A trade is to be settled."""

    at: Instant
    instruction: Instruction


class Told(msgspec.Struct, frozen=True, tag="told"):
    """A service answered the step its saga stood at."""

    at: Instant
    answer: Answer


class GaveUp(msgspec.Struct, frozen=True, tag="gave_up"):
    """A saga took too long; clearing is asked to void it."""

    at: Instant
    trade_id: TradeId


Entry: TypeAlias = Begun | Told | GaveUp


class StuckReason(StrEnum):
    """Why a saga does not end."""

    UNANSWERED = "unanswered"
    """A service before the pivot does not answer."""
    NOT_TAKEN_BACK = "not_taken_back"
    """A service does not take its step back; what others reserved stays reserved."""
    NOT_DELIVERED = "not_delivered"
    """Cleared, and a service does not deliver."""
    REFUSED = "refused"
    """A service refuses what cannot be refused any more; somebody has to look."""


class Stuck(msgspec.Struct, frozen=True):
    """A saga that stands at one step for too long, and who is waited for."""

    trade_id: TradeId
    step: Step
    service: Service
    since: Instant
    reason: StuckReason
    refusal: Reason = Reason.NONE


class Standing(msgspec.Struct, frozen=True):
    """Where an open saga stands."""

    instruction: Instruction
    begun: Instant
    step: Step
    since: Instant
    refusal: Reason = Reason.NONE
    """Why the step it stands at was refused although nothing can follow from that."""


class Asked(msgspec.Struct, frozen=True):
    """When a step was asked last, and how often; forgotten in a crash."""

    step: Step
    at: Instant
    times: int


class Coordinator:
    """The sagas of one settlement."""

    def __init__(self, times: Times, entries: Iterable[Entry] = ()) -> None:
        self._times: Final = times
        self._open: dict[TradeId, Standing] = {}
        self._ended: dict[TradeId, End] = {}
        self._asked: dict[TradeId, Asked] = {}
        for entry in entries:
            self.apply(entry)

    @property
    def standing(self) -> dict[TradeId, Standing]:
        """The open sagas, oldest first."""
        return dict(self._open)

    @property
    def open_count(self) -> int:
        """How many sagas are open."""
        return len(self._open)

    def at(self, trade_id: TradeId) -> Standing | None:
        """Return where a saga stands; None when it is not open."""
        return self._open.get(trade_id)

    @property
    def ended(self) -> dict[TradeId, End]:
        """How the others ended."""
        return dict(self._ended)

    def begin(self, instruction: Instruction, now: Instant) -> Begun | None:
        """Return the entry that begins a saga, or nothing when it was begun before."""
        known = instruction.trade_id in self._open or instruction.trade_id in self._ended
        return None if known else Begun(now, instruction)

    def told(self, answer: Answer, now: Instant) -> Told | None:
        """Return the entry an answer leads to, or nothing when its saga does not stand at that step (any more)."""
        standing = self._open.get(answer.instruction.trade_id)
        if standing is None or standing.step is not answer.step:
            return None
        if (answer.step, answer.verdict) not in NEXT and standing.refusal is answer.reason:
            return None
        return Told(now, answer)

    def late(self, now: Instant) -> list[GaveUp]:
        """Return the entries that give up what takes too long."""
        return [
            GaveUp(now, trade_id)
            for trade_id, standing in self._open.items()
            if standing.step in BEFORE_THE_PIVOT and now - standing.begun >= self._times.give_up
        ]

    def apply(self, entry: Entry) -> None:
        """Take over an entry that is in the journal."""
        match entry:
            case Begun():
                first = NEXT[Step.BEGIN, Verdict.DONE]
                assert isinstance(first, Step)
                self._open[entry.instruction.trade_id] = Standing(entry.instruction, entry.at, first, entry.at)
            case Told():
                self._go(self._open[entry.answer.instruction.trade_id], entry.answer, entry.at)
            case GaveUp():
                standing = self._open[entry.trade_id]
                assert standing.step in BEFORE_THE_PIVOT, f"{standing.step} is past giving up"
                self._go(standing, Answer(Step.BEGIN, standing.instruction, Verdict.GIVEN_UP), entry.at)

    def give_up(self, trade_id: TradeId, now: Instant) -> GaveUp | None:
        """Return the entry that gives a saga up at once; None: it is not open, or where it cannot be given up."""
        standing = self._open.get(trade_id)
        return GaveUp(now, trade_id) if standing is not None and standing.step in BEFORE_THE_PIVOT else None

    def asked(self, trade_id: TradeId) -> Asked | None:
        """Return when the step a saga stands at was asked last, and how often, as far as this run of it knows."""
        asked, standing = self._asked.get(trade_id), self._open.get(trade_id)
        return asked if asked is not None and standing is not None and asked.step is standing.step else None

    def ask_again(self, trade_id: TradeId) -> None:
        """Have the step a saga stands at asked with the next `asks`, whatever was waited for."""
        self._asked.pop(trade_id, None)

    def forget(self, trade_id: TradeId) -> None:
        """Drop the memory of an ended saga: for a driver whose journal tells which sagas were begun."""
        self._ended.pop(trade_id, None)

    def asks(self, now: Instant, only: Iterable[TradeId] | None = None) -> list[Ask]:
        """Return what is to be asked now: each open step once at first, then again after longer and longer waits.

        With `only`, nothing but the open ones of these sagas is looked at.
        """
        asks = []
        looked = self._open if only is None else [one for one in only if one in self._open]
        for trade_id in looked:
            standing = self._open[trade_id]
            asked = self._asked.get(trade_id)
            times = asked.times if asked is not None and asked.step is standing.step else 0
            if asked is not None and times and now - asked.at < self._wait(times):
                continue
            self._asked[trade_id] = Asked(standing.step, now, times + 1)
            asks.append(Ask(standing.step, standing.instruction))
        return asks

    def stuck(self, now: Instant) -> list[Stuck]:
        """Return the sagas that stand at one step for too long, as the journal tells it."""
        return [
            Stuck(trade_id, standing.step, AT[standing.step], standing.since, why(standing), standing.refusal)
            for trade_id, standing in self._open.items()
            if now - standing.since >= self._times.stuck
        ]

    def _wait(self, times: int) -> int:
        return min(self._times.longest, self._times.first << min(times - 1, 32))

    def _go(self, standing: Standing, answer: Answer, at: Instant) -> None:
        trade_id = standing.instruction.trade_id
        after = NEXT.get((answer.step, answer.verdict))
        if after is None:
            self._open[trade_id] = msgspec.structs.replace(standing, refusal=answer.reason)
        elif isinstance(after, End):
            del self._open[trade_id]
            self._asked.pop(trade_id, None)
            self._ended[trade_id] = after
        else:
            self._open[trade_id] = Standing(standing.instruction, standing.begun, after, at)


def why(standing: Standing) -> StuckReason:
    """Return why a saga does not go on from where it stands."""
    if standing.refusal:
        return StuckReason.REFUSED
    if standing.step in BEFORE_THE_PIVOT:
        return StuckReason.UNANSWERED
    return StuckReason.NOT_DELIVERED if standing.step in GOES_ON else StuckReason.NOT_TAKEN_BACK
