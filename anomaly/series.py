"""The detector of one series.

>>> import numpy as np
>>> from anomaly.detector import Sample
>>> from kernel.time import Instant
>>> series, minute = Series(), 60 * 10**9
>>> for i, x in enumerate(np.random.default_rng(7).normal(10.0, 1.0, 400)):
...     score = series.update(Sample(Instant(i * minute), float(x)))
>>> score.alert
False
>>> score = series.update(Sample(Instant(400 * minute), 100.0))
>>> score.alert, score.channel.name, score.score >= 0.5
(True, 'NOVELTY', True)
>>> score.finding.sentence
'100, expected 7.654 to 11.99: outside everything seen lately; highest in 7 hours'
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from anomaly import keep, kernel, words
from anomaly.contributions import Contribution, contributions_of
from anomaly.detector import NO_SLOT, Channel, Sample, Score, Scores, Verdict
from anomaly.settings import DEFAULT, Settings

_CHANNELS: Final = tuple(Channel)
_VERDICTS: Final = tuple(Verdict)


class Series:
    """Scores one series, sample by sample; see `anomaly.detector.Detector`."""

    def __init__(self, settings: Settings = DEFAULT) -> None:
        """Begin without a past."""
        self.settings = settings
        self._numbers = settings.numbers()
        self._take(kernel.blank(1))

    def _take(self, states: NDArray[np.void]) -> None:
        self._states, self._state = states, states[0]
        self._out, self._paged = np.zeros((1, 3)), np.zeros(1, np.bool_)
        self._marks = np.zeros((1, 3), np.int8)

    def update(self, sample: Sample) -> Score:
        """Score a sample and learn from it."""
        kernel.one(
            self._state, self._numbers, sample.at, sample.value, sample.slot, self._out, self._paged, self._marks
        )
        score, low, high = self._out[0].tolist()
        channel, episode, verdict = self._marks[0].tolist()
        return Score(
            sample.at, score, bool(self._paged[0]), bool(episode), _CHANNELS[channel], low, high, _VERDICTS[verdict],
            words.finding_of(self._state),
        )  # fmt: skip

    def explain(self, sample: Sample) -> tuple[Score, tuple[Contribution, ...]]:
        """Score a sample as `update` does, and say what each channel gave to it; nothing of one that is not judged."""
        before = self._states.copy()[0]
        score = self.update(sample)
        return score, contributions_of(before, self._state, self._numbers, paged=score.alert)

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64], slots: NDArray[np.int32] | None = None) -> Scores:
        """Score rows one after the other, as `update` would; `at` in nanoseconds. Returns arrays of their length."""
        n = len(values)
        out, paged, marks = np.zeros((n, 3)), np.zeros(n, np.bool_), np.zeros((n, 3), np.int8)
        kernel.run(
            self._state, self._numbers, np.ascontiguousarray(at, np.int64), np.ascontiguousarray(values, np.float64),
            np.full(n, NO_SLOT, np.int32) if slots is None else np.ascontiguousarray(slots, np.int32),
            out, paged, marks,
        )  # fmt: skip
        return scores_of(out, paged, marks)

    def feedback(self, *, false_alarm: bool) -> None:
        """Learn what a person says of the last alert: see `patience_after`."""
        self._state["patience"] = patience_after(float(self._state["patience"]), false_alarm=false_alarm)

    def save(self) -> bytes:
        """Return the whole state: versioned, no code in it."""
        return keep.pack(self._states, self.settings)

    @classmethod
    def restore(cls, kept: bytes) -> Series:
        """Go on from a saved state, bit for bit.

        Raises:
            InputError: it is no such state, or one of another version.
        """
        states, settings = keep.unpack(kept)
        series = cls(settings)
        series._take(states)
        return series


def scores_of(out: NDArray[np.float64], paged: NDArray[np.bool_], marks: NDArray[np.int8]) -> Scores:
    """Return the arrays that compiled code filled under the names of the port."""
    return Scores(
        score=out[:, 0], alert=paged, episode=marks[:, 1].astype(np.bool_), channel=marks[:, 0],
        low=out[:, 1], high=out[:, 2], verdict=marks[:, 2],
    )  # fmt: skip


def patience_after(patience: float, *, false_alarm: bool) -> float:
    """Return how far beyond the bar a series must be from now on: more after a false alarm, by degrees as before.

    The first false alarm raises the bar twentyfold, to about a tenth of the usual range, and each further one doubles
    it; a confirmed one takes one step back.
    """
    return min(max(patience, 10.0) * 2, 1000.0) if false_alarm else max(patience / 2, 1.0)
