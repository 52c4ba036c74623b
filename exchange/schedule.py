"""The calendar's turns as commands: when the market's phase is to be turned, to what, and under which key.

A turn is a command in the journal like an operator's, so a replay needs no calendar. Its key names the day and the
phase; what was journalled of the present session is known by it, so that a process that begins anew writes what it
missed, in order, and nothing twice.

- Where no turn is known (a calendar is kept for the first time, or a person opened a new session, which forgets the
  keys) nothing is made up for: the market turns to the phase that the calendar tells now, if it is in another.
- A market that is closed before its time, by a person or by the third breaker, stays closed until the next session.
- A halt or a pause stays, whatever the phase is turned to (table P). A clock that was set back repeats nothing.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from exchange.calendar import Calendar, PhaseName
from exchange.commands import CloseSession, OpenSession, SetPhase
from exchange.engine import ADMIN
from exchange.types import ClientId, TradingPhase
from kernel.time import HOUR, Instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exchange.engine import Engine

LOOK_AGAIN: Final = 6 * HOUR
"""Where no turn is in sight, the calendar is looked at again after so long."""

TurnCommand = OpenSession | SetPhase | CloseSession


class PlannedTurn(NamedTuple):
    """The market's next phase and when it begins."""

    at: Instant
    phase: TradingPhase


class _Turn(NamedTuple):
    at: Instant
    phase: TradingPhase
    begins: bool
    """Whether it is the first of its session: the market is closed before it."""
    key: ClientId


class Schedule:
    """Tells which commands turn the phases of one engine as a calendar says. Keeps how far it got."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar: Final = calendar
        self._done: Instant | None = None
        """The last turn that was written, or needed not be; None before the engine was asked what it knows."""
        self._look_at = Instant(0)
        self._next: PlannedTurn | None = None

    @property
    def look_at(self) -> Instant:
        """The instant before which `due` tells nothing."""
        return self._look_at

    @property
    def next_turn(self) -> PlannedTurn | None:
        """The turn that comes after all that `due` has told; None when none is in sight."""
        return self._next

    def due(self, engine: Engine, now: Instant) -> tuple[TurnCommand, ...]:
        """Return the commands of all turns up to `now` that are still to be written, in order.

        They are told once: whoever asks must see to it that they are carried out before any other command.
        """
        if now < self._look_at:
            return ()
        turns = self._turns(now)
        past = [turn for turn in turns if turn.at <= now]
        self._next = next((PlannedTurn(turn.at, turn.phase) for turn in turns if turn.at > now), None)
        self._look_at = Instant(now + LOOK_AGAIN) if self._next is None else self._next.at
        if not past:
            return ()
        missed = past[-1:]
        if self._done is not None:
            missed = [turn for turn in past if turn.at > self._done]
        elif known := [turn.at for turn in past if engine.known(ADMIN, turn.key) is not None]:
            missed = [turn for turn in past if turn.at > known[-1]]
        elif engine.market_phase is past[-1].phase:
            missed = []
        self._done = past[-1].at if self._done is None else max(self._done, past[-1].at)
        return _commands(missed, engine.market_phase)

    def _turns(self, now: Instant) -> list[_Turn]:
        turns: list[_Turn] = []
        before = PhaseName.CLOSED
        count: Counter[tuple[dt.date, PhaseName]] = Counter()
        for at, phase in self._calendar.turns_around(now):
            day = self._calendar.day_of(at)
            count[day, phase] += 1
            # Not the time of day: a turn that is moved while its phase lasts is not made twice.
            again = f"-{count[day, phase]}" if count[day, phase] > 1 else ""
            key = ClientId(f"calendar-{day.isoformat()}-{phase}{again}")
            turns.append(_Turn(at, TradingPhase(str(phase)), before is PhaseName.CLOSED, key))
            before = phase
        return turns


def _commands(turns: Sequence[_Turn], phase: TradingPhase) -> tuple[TurnCommand, ...]:
    """Return what turns a market that is in `phase` now; turns of a session that was closed early are left out."""
    commands: list[TurnCommand] = []
    for turn in turns:
        if turn.phase is TradingPhase.CLOSED:
            commands.append(CloseSession(turn.key))
        elif turn.begins:
            commands.append(OpenSession(turn.key, turn.phase))
        elif phase is not TradingPhase.CLOSED:
            commands.append(SetPhase(turn.key, turn.phase))
        else:
            continue
        phase = turn.phase
    return tuple(commands)
