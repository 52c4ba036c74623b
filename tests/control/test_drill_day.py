"""The day of a drill: whatever the hour, the phases begin as many seconds after the start as the scenario says."""

from __future__ import annotations

import pytest

from control.drill_day import day_of
from control.scenario import Turn
from exchange.calendar import PhaseName, calendar_of
from kernel.time import HOUR, SECOND, Instant, from_rfc3339

TURNS = (
    Turn(phase=PhaseName.PRE_OPEN, at_s=-7200),
    Turn(phase=PhaseName.CONTINUOUS, at_s=170),
    Turn(phase=PhaseName.CLOSED, at_s=14_400),
)


@pytest.mark.parametrize("hour", range(24))
def test_the_phases_begin_when_told_at_any_hour_of_any_day(hour):
    start = Instant(from_rfc3339("2026-11-28T00:00:00Z") + hour * HOUR + 3599 * SECOND + 123)
    calendar, whole = calendar_of(day_of(TURNS, start)), Instant(start // SECOND * SECOND)
    for turn in TURNS:
        at = Instant(whole + turn.at_s * SECOND)
        assert calendar.phase_at(at).name == turn.phase
        assert calendar.phase_at(at).since == at
    assert calendar.phase_at(Instant(whole - 7201 * SECOND)).name == PhaseName.CLOSED
