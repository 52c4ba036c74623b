"""Many series that advance together: an array of states, one sample each in a step, the same scores as one by one.

>>> import numpy as np
>>> fleet, minute = Fleet(1000), 60 * 10**9
>>> values = np.random.default_rng(7).normal(10.0, 1.0, (300, 1000))
>>> for i in range(300):
...     scores = fleet.advance(np.full(1000, i * minute), values[i])
>>> scores.score.shape, bool((scores.score < 0.5).mean() > 0.9)
((1000,), True)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomaly import keep, kernel, words
from anomaly.detector import NO_SLOT, Finding, Scores
from anomaly.series import patience_after, scores_of
from anomaly.settings import DEFAULT, Settings


class Fleet:
    """Scores many series; see `anomaly.detector.FleetDetector`."""

    def __init__(self, count: int, settings: Settings = DEFAULT) -> None:
        """Begin with `count` series without a past."""
        self.settings = settings
        self._numbers = settings.numbers()
        self._take(kernel.blank(count))

    def _take(self, states: NDArray[np.void]) -> None:
        count = len(states)
        self._states = states
        self._out, self._paged = np.zeros((count, 3)), np.zeros(count, np.bool_)
        self._marks = np.zeros((count, 3), np.int8)
        self._no_slots = np.full(count, NO_SLOT, np.int32)

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self._states)

    def advance(
        self, at: NDArray[np.int64], values: NDArray[np.float64], slots: NDArray[np.int32] | None = None
    ) -> Scores:
        """Score one sample of every series and learn from it; `at` in nanoseconds, NaN where there is no value.

        Raises:
            ValueError: an array has not the length of the fleet.
        """
        given = self._no_slots if slots is None else np.ascontiguousarray(slots, np.int32)
        stamps, samples = np.ascontiguousarray(at, np.int64), np.ascontiguousarray(values, np.float64)
        if not len(stamps) == len(samples) == len(given) == len(self):
            raise ValueError(f"{len(stamps)} stamps, {len(samples)} values, {len(given)} slots for {len(self)} series")
        kernel.advance(self._states, self._numbers, stamps, samples, given, self._out, self._paged, self._marks)
        return scores_of(self._out, self._paged, self._marks)

    def finding(self, index: int) -> Finding | None:
        """Return the finding of a series' last sample, None when nothing was unusual."""
        return words.finding_of(self._states[index])

    def feedback(self, index: int, *, false_alarm: bool) -> None:
        """Learn what a person says of the series' last alert; no other series hears of it."""
        state = self._states[index]
        state["patience"] = patience_after(float(state["patience"]), false_alarm=false_alarm)

    def restart(self, index: int) -> None:
        """Forget the past of one series, as after a deploy that changes what is normal; feedback is kept."""
        patience = float(self._states[index]["patience"])
        self.vacate(index)
        self._states[index]["patience"] = patience

    def vacate(self, index: int) -> None:
        """Forget one series whole, feedback too: its place is another's from now on."""
        self._states[index] = kernel.blank(1)[0]

    def grow(self, count: int) -> None:
        """Add `count` series without a past at the end."""
        # As bytes: records joined as records would carry chance in their padding into what is saved.
        whole = np.concatenate((self._states.view(np.uint8), kernel.blank(count).view(np.uint8)))
        self._take(whole.view(kernel.STATE))

    def save(self) -> bytes:
        """Return the whole state: versioned, no code in it."""
        return keep.pack(self._states, self.settings)

    @classmethod
    def restore(cls, kept: bytes) -> Fleet:
        """Go on from a saved state, bit for bit.

        Raises:
            InputError: it is no such state, or one of another version.
        """
        states, settings = keep.unpack(kept)
        fleet = cls(0, settings)
        fleet._take(states)
        return fleet
