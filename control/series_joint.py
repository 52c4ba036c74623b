"""The detector of a file: of its one column of values, or of several that belong together."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import Detector, Sample, Score, Scores
from kernel.time import Instant

if TYPE_CHECKING:
    from anomaly.settings import Settings

_LEAST: Final = 1e-12


class Streamed(Detector, Protocol):
    """A detector that can take many rows of its series at once, as if they came one by one."""

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64], slots: NDArray[np.int32] | None = None) -> Scores:
        """Score rows in order and learn from them; arrays of their number."""
        ...


class FileDetector(Protocol):
    """What scores a file: rows of one or several values in order."""

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64]) -> Scores:
        """Score rows in order and learn from them; `values` has one column for each of the file's."""
        ...

    def update(self, at: int, values: NDArray[np.float64]) -> tuple[Score, int]:
        """Score one row as `run` would; return its score with its words, and the column that they are about."""
        ...

    def shares(self) -> NDArray[np.float64]:
        """Return, for each row of the last call, each column's share in what was strange; a row sums up to 1 or 0."""
        ...


class Single:
    """One column."""

    def __init__(self, make: Callable[[], Streamed]) -> None:
        """Score with the detector that `make` returns."""
        self._series = make()
        self._rows = 0

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64]) -> Scores:
        """See `FileDetector`."""
        self._rows = len(at)
        return self._series.run(at, np.ascontiguousarray(values[:, 0]))

    def update(self, at: int, values: NDArray[np.float64]) -> tuple[Score, int]:
        """See `FileDetector`."""
        self._rows = 1
        return self._series.update(Sample(Instant(at), float(values[0]))), 0

    def shares(self) -> NDArray[np.float64]:
        """See `FileDetector`."""
        return np.ones((self._rows, 1))


class Several:
    """Columns scored each for itself: the largest score counts, and one page an episode of any of them."""

    def __init__(self, count: int, make: Callable[[], Streamed]) -> None:
        """Score `count` columns with a detector each, as `make` returns them."""
        self._series = [make() for _ in range(count)]
        self._scores = np.zeros((0, count))
        self._open = False

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64]) -> Scores:
        """See `FileDetector`."""
        found = [one.run(at, np.ascontiguousarray(values[:, k])) for k, one in enumerate(self._series)]
        self._scores = np.column_stack([one.score for one in found])
        episodes = np.column_stack([one.episode for one in found]).any(axis=1)
        before = np.concatenate(([self._open], episodes[:-1])) if len(episodes) else episodes
        alert = np.column_stack([one.alert for one in found]).any(axis=1) & ~before
        self._open = bool(episodes[-1]) if len(episodes) else self._open
        best = self._scores.argmax(axis=1) if len(at) else np.zeros(0, dtype=np.int64)
        return Scores(
            score=self._scores.max(axis=1), alert=alert, episode=episodes, channel=_of(found, "channel", best),
            low=_of(found, "low", best), high=_of(found, "high", best),
            # A row counts as scored when any of its columns was.
            verdict=np.column_stack([one.verdict for one in found]).min(axis=1),
        )  # fmt: skip

    def update(self, at: int, values: NDArray[np.float64]) -> tuple[Score, int]:
        """See `FileDetector`."""
        found = [
            one.update(Sample(Instant(at), value)) for one, value in zip(self._series, values.tolist(), strict=True)
        ]
        self._scores = np.array([[one.score for one in found]])
        best = int(self._scores[0].argmax())
        alert = any(one.alert for one in found) and not self._open
        self._open = any(one.episode for one in found)
        verdict = min(one.verdict for one in found)
        return dataclasses.replace(found[best], alert=alert, episode=self._open, verdict=verdict), best

    def shares(self) -> NDArray[np.float64]:
        """See `FileDetector`."""
        total = self._scores.sum(axis=1, keepdims=True)
        return self._scores / np.maximum(total, _LEAST)


def _of(found: Sequence[Scores], name: str, best: NDArray[np.int64]) -> NDArray[np.generic]:
    columns = np.column_stack([getattr(one, name) for one in found])
    picked: NDArray[np.generic] = columns[np.arange(len(best)), best]
    return picked


def alone(make: Callable[[], Streamed], columns: int) -> FileDetector:
    """Return a detector of a file's columns, each scored for itself by what `make` returns."""
    return Single(make) if columns == 1 else Several(columns, make)


def ours(columns: int, settings: Settings | None = None) -> FileDetector:
    """Return our detector of a file with so many columns of values."""
    from anomaly.series import Series  # compiled code, which the terminal's other verbs need not load
    from anomaly.settings import Settings

    return alone(functools.partial(Series, settings or Settings()), columns)
