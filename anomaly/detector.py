"""The port of every detector: a sample goes in, a score comes out, and the next sample may be stranger still.

A detector sees one series as samples in time and nothing else: no name, no unit, no label. What it says of a row
never depends on later rows. The room knows no exchange and no Prometheus: whoever holds the calendar of the plant may
tell the place of a sample in its session (`Sample.slot`).
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from kernel.time import Instant

THRESHOLD: Final = 0.5
"""The one threshold, for every series: a score at or above it is an anomaly."""

NO_SLOT: Final = -1
"""A sample whose place in a session nobody has told."""


class Channel(enum.IntEnum):
    """What kind of strangeness a score speaks of; the order is the order of the arrays."""

    NONE = 0
    SPIKE = 1
    LEVEL_UP = 2
    LEVEL_DOWN = 3
    SPREAD = 4
    SAME_CLOCK = 5
    NOVELTY = 6
    NEIGHBOUR = 7
    SHAPE = 8
    FLATLINE = 9
    MISSED = 10
    JOINT = 11


class Verdict(enum.IntEnum):
    """What became of a sample."""

    SCORED = 0
    WARMING = 1
    """Scored against a short past: it pages only when far outside anything seen."""
    MISSED = 2
    """No value: a missed scrape, NaN or an infinite value. Never read as zero."""
    DUPLICATE = 3
    """The stamp of the sample before; left aside."""
    BACKWARD = 4
    """The clock stepped back; left aside until it has caught up or stayed back."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One reading of one series.

    `value` is NaN for a missed reading. `slot` is the place in the session as the caller's calendar counts it (for
    example the minute since the phase began, phases numbered apart), or NO_SLOT.
    """

    at: Instant
    value: float
    slot: int = NO_SLOT

    @property
    def missed(self) -> bool:
        """Whether there is no value to score."""
        return not math.isfinite(self.value)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """An anomaly in words.

    `low` and `high` are the expected range in the series' own unit; `sentence` says value, range and the winning
    channel's reason, for example "41, expected 812 to 1,040 at this time of day; lowest in 9 days".
    """

    at: Instant
    channel: Channel
    value: float
    low: float
    high: float
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """What a detector says of one sample.

    `score` is 0 to 1, calibrated: 0.5 is the threshold of every series, reached in an episode only. `alert`
    is true on the one row of an episode that pages. `episode` is true from there until the series is calm again.
    `channel` is the winning channel, NONE when nothing is unusual. `low` and `high` are the expected range, NaN before
    there is one. `finding` is set all through an episode, and when the score reaches the threshold.
    """

    at: Instant
    score: float
    alert: bool
    episode: bool
    channel: Channel
    low: float
    high: float
    verdict: Verdict
    finding: Finding | None = None


class Detector(Protocol):
    """A detector of one series, streaming: bounded state, one sample at a time, in time's order."""

    def update(self, sample: Sample) -> Score:
        """Score a sample and learn from it."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """What a fleet says of one sample per series: arrays of the length of the fleet, in its order.

    `channel` holds `Channel` numbers and `verdict` holds `Verdict` numbers, both int8; `alert` and `episode` are bool;
    the rest float64. The arrays are the fleet's own and hold until its next step: copy what is to be kept.
    """

    score: NDArray[np.float64]
    alert: NDArray[np.bool_]
    episode: NDArray[np.bool_]
    channel: NDArray[np.int8]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    verdict: NDArray[np.int8]


class FleetDetector(Protocol):
    """Many series that advance together, one sample each; the same scores as a detector for each would give."""

    def __len__(self) -> int:
        """Return the number of series."""
        ...

    def advance(
        self, at: NDArray[np.int64], values: NDArray[np.float64], slots: NDArray[np.int32] | None = None
    ) -> Scores:
        """Score one sample of every series and learn from it; `at` in nanoseconds, NaN for a series without a value."""
        ...

    def finding(self, index: int) -> Finding | None:
        """Return the finding of a series' last sample, None when nothing was unusual."""
        ...

    def feedback(self, index: int, *, false_alarm: bool) -> None:
        """Learn what a person says of the series' last alert: it pages later from now on, or as before."""
        ...

    def restart(self, index: int) -> None:
        """Forget the past of one series, as after a deploy that changes what is normal; what people said is kept."""
        ...

    def vacate(self, index: int) -> None:
        """Forget one series whole, what people said of it too: its place is another's from now on."""
        ...

    def save(self) -> bytes:
        """Return the whole state: versioned, no code in it, restored bit for bit by the class's `restore`."""
        ...
