"""Sagas without a coordinator: each service reacts to what the others say.

An event is an `Answer` that everybody hears. A service whose step is next carries it out and says what became of it,
and says it again, after longer and longer waits, until it hears that the saga ended. Who reads the trades says that a
saga begins, and that it is given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from exchange.saga import AT, NEXT, Answer, Ask, End, Instruction, Service, Step, Verdict, is_behind
from exchange.saga_coordinator import Times
from exchange.types import TradeId
from kernel.time import Duration, Instant


class Saying(msgspec.Struct, frozen=True):
    """An event that is said until the end of its saga is heard. A service keeps it in the transaction of its effect."""

    answer: Answer
    since: Instant


def follows(answer: Answer) -> Ask | End | None:
    """Return the step an event leads to, or the end it tells, or nothing."""
    after = NEXT.get((answer.step, answer.verdict))
    return Ask(after, answer.instruction) if isinstance(after, Step) else after


def reaction(service: Service, heard: Answer) -> Ask | None:
    """Return what a service is to carry out when it hears an event, if anything."""
    after = follows(heard)
    return after if isinstance(after, Ask) and AT[after.step] is service else None


class Sayings:
    """What one service, or the reader of the trades, says until it hears the end: one event a saga, the newest."""

    def __init__(self, times: Times, kept: Iterable[Saying] = (), ends: Iterable[Answer] = ()) -> None:
        self._times: Final = times
        self._ends: dict[TradeId, Answer] = {end.instruction.trade_id: end for end in ends}
        self._kept: dict[TradeId, Saying] = {item.answer.instruction.trade_id: item for item in kept}
        self._said: dict[TradeId, tuple[Answer, Instant, int]] = {}

    @property
    def kept(self) -> dict[TradeId, Saying]:
        """What is still said, by saga."""
        return dict(self._kept)

    @property
    def kept_count(self) -> int:
        """Of how many sagas something is said."""
        return len(self._kept)

    def says(self, trade_id: TradeId) -> bool:
        """Tell whether something is said of a saga."""
        return trade_id in self._kept

    @property
    def ends(self) -> dict[TradeId, Answer]:
        """The event that told the end, by saga; to be kept as what is said is kept."""
        return dict(self._ends)

    def forget(self, trade_id: TradeId) -> None:
        """Drop the memory of an end: for a party whose store is asked for ends."""
        self._ends.pop(trade_id, None)

    def drop(self, horizons: Mapping[int, int]) -> None:
        """Say nothing more of what is at or behind a horizon (`exchange.saga.is_behind`): it ended, for everybody."""
        for kept in (self._kept, self._said, self._ends):
            for trade_id in [one for one in kept if is_behind(one, horizons)]:
                del kept[trade_id]

    def again(self, answer: Answer) -> Answer | None:
        """Return what to say when a step was answered from memory: the end, so that who missed it hears it.

        Before the end nothing: what is kept is said anyway, and saying it at once would multiply every repeat.
        """
        return self._ends.get(answer.instruction.trade_id)

    def begin(self, instruction: Instruction, now: Instant) -> Saying | None:
        """Begin to say that a saga begins; return what is to be kept, nothing when it is said already."""
        if instruction.trade_id in self._kept:
            return None
        return self.keep(Answer(Step.BEGIN, instruction, Verdict.DONE), now)

    def keep(self, answer: Answer, now: Instant) -> Saying | None:
        """Say this from now on instead of what was said of its saga; nothing is kept of an end."""
        trade_id = answer.instruction.trade_id
        if self.hear(answer):
            return None
        saying = self._kept[trade_id] = Saying(answer, now)
        return saying

    def hear(self, answer: Answer) -> bool:
        """Return whether an event tells the end of its saga; nothing more is said of it then."""
        if not isinstance(follows(answer), End):
            return False
        trade_id = answer.instruction.trade_id
        self._ends.setdefault(trade_id, answer)
        self._said.pop(trade_id, None)
        self._kept.pop(trade_id, None)
        return True

    def late(self, now: Instant) -> list[Saying]:
        """Give up what began too long ago: for the reader of the trades, who alone says `BEGIN`."""
        given_up = []
        for saying in list(self._kept.values()):
            begun = saying.answer
            if begun.step is Step.BEGIN and begun.verdict is Verdict.DONE and now - saying.since >= self._times.give_up:
                kept = self.keep(Answer(Step.BEGIN, begun.instruction, Verdict.GIVEN_UP), now)
                assert kept is not None
                given_up.append(kept)
        return given_up

    def given_up(self, trade_id: TradeId, now: Instant) -> Saying | None:
        """Return what is to be kept when a saga is given up at once; None where nothing says that it begins."""
        saying = self._kept.get(trade_id)
        if saying is None or (saying.answer.step, saying.answer.verdict) != (Step.BEGIN, Verdict.DONE):
            return None
        return Saying(Answer(Step.BEGIN, saying.answer.instruction, Verdict.GIVEN_UP), now)

    def said(self, trade_id: TradeId) -> tuple[int, Instant | None]:
        """Return how often what is said of a saga was said, and when last, as far as this run of it knows."""
        answer, at, times = self._said.get(trade_id, (None, None, 0))
        saying = self._kept.get(trade_id)
        return (times, at) if saying is not None and saying.answer == answer else (0, None)

    def say_again(self, trade_id: TradeId) -> None:
        """Have what is said of a saga said with the next `due`, whatever was waited for."""
        self._said.pop(trade_id, None)

    def due(self, now: Instant, only: Iterable[TradeId] | None = None) -> list[Answer]:
        """Return what is to be said now; with `only`, of these sagas."""
        due = []
        looked = self._kept if only is None else [one for one in only if one in self._kept]
        for trade_id in looked:
            saying = self._kept[trade_id]
            said, at, times = self._said.get(trade_id, (None, now, 0))
            if said != saying.answer:
                times = 0
            if times and now - at < min(self._times.longest, self._times.first << min(times - 1, 32)):
                continue
            self._said[trade_id] = (saying.answer, now, times + 1)
            due.append(saying.answer)
        return due

    def stuck(self, now: Instant) -> list[tuple[TradeId, Step, Duration]]:
        """Return the sagas whose end is not heard for too long: which, what was said last here, and how long ago."""
        return [
            (trade_id, saying.answer.step, Duration(now - saying.since))
            for trade_id, saying in self._kept.items()
            if now - saying.since >= self._times.stuck
        ]
