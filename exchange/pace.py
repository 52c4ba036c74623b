"""How busy a phase of the market is: what a load that follows the calendar sends, as a factor on its usual rate.

Nothing of it is news to whoever knows the calendar: the rush at the open comes every day, and after a close, early or
not, nobody sends anything.
"""

from __future__ import annotations

import math
from typing import Final

from exchange.calendar import Calendar, Phase, PhaseName
from kernel.time import MINUTE, Duration, Instant

RUSH: Final = 1.5
"""How much more than usual comes in when continuous trading begins."""
RUSH_LASTS: Final = Duration(5 * MINUTE)
"""After so long a third of the rush is left."""
OF_PHASE: Final = {
    PhaseName.PRE_OPEN: 0.25,
    PhaseName.OPENING_AUCTION: 0.5,
    PhaseName.CONTINUOUS: 1.0,
    PhaseName.INTRADAY_AUCTION: 0.5,
    PhaseName.CLOSING_AUCTION: 1.2,
    PhaseName.POST_CLOSE: 0.1,
    PhaseName.CLOSED: 0.0,
}


class SessionPace:
    """Tells how busy it is at an instant; kept for the phase asked for last."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar: Final = calendar
        self._phase: Phase | None = None

    def __call__(self, at: Instant) -> float:
        """Return the factor on the usual rate; 0: nobody sends."""
        phase = self._phase
        if phase is None or not (phase.since or at) <= at < (phase.until or at):
            phase = self._phase = self._calendar.phase_at(at)
        usual = OF_PHASE[phase.name]
        if phase.name is not PhaseName.CONTINUOUS or phase.since is None:
            return usual
        return usual * (1.0 + RUSH * math.exp(-(at - phase.since) / RUSH_LASTS))


def always(_: Instant) -> float:
    """Return the factor where no calendar is followed."""
    return 1.0
