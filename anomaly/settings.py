"""The settings of the detectors: the same for every series and data set, with switches for what a trial removes."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

VOTERS: Final = 6
"""Channels that vote."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How a detector judges. Memories are counted in rows at a step of five minutes, and longer ones by a day's worth.

    `budget_per_day` is the promise: false alarms of a healthy series in a day. The switches at the end remove a part,
    to see what it is good for.
    """

    budget_per_day: float = 0.1
    warm_up: int = 100
    """Rows before the first score that may page."""
    forget: float = 0.002
    """Share of the way back to the usual range that a record goes in a row."""
    memory: float = 200.0
    """Rows after which an earlier peak counts 1/e."""
    recur: float = 0.2
    """Weighted earlier peaks at the same height from which a value is nothing new."""
    alike: float = 0.05
    """How much lower an earlier peak may be, as a share of its height above the median, and still count as as high."""
    thrift: float = 1.1
    """How much longer earlier peaks count for each week's budget that the pages of the last week have spent."""
    bar: float = 0.003
    """How far beyond the record, in units of the 1 to 99 % range, the third channel must be."""
    caution: float = 0.01
    """What is added to `bar` for each e-fold by which records would come more often than the budget allows."""
    votes: int = 3
    """Channels that must agree."""
    refractory: int = 100
    """Rows after a page in which there is no other."""
    clock_bar: float = 0.1
    """As `bar`, for the two channels of the same clock, which decide alone."""
    clock_trust: float = 0.7
    """The same clock is believed when its error is below this share of the error without it."""
    use_novelty: bool = True
    use_smooth: bool = True
    use_level: bool = True
    use_drift: bool = True
    use_neighbour: bool = True
    use_spread: bool = True
    use_clock: bool = True
    use_shape: bool = True
    use_flatline: bool = True
    use_missed: bool = False
    """Page when values fail to come. Off: rules see an absent series, and a page here doubled the false alarms."""
    use_calibration: bool = True
    use_agreement: bool = True
    use_episodes: bool = True

    def __post_init__(self) -> None:
        """Refuse what the compiled code could not index."""
        if not 1 <= self.votes <= VOTERS:
            raise ValueError(f"votes is {self.votes}; right would be 1 to {VOTERS}")

    def numbers(self) -> NDArray[np.float64]:
        """Return the settings as the numbers that the compiled code reads, in the order of the fields."""
        return np.array([float(getattr(self, field.name)) for field in dataclasses.fields(self)])


DEFAULT: Final = Settings()
