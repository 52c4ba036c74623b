"""The detector of a file: of its one column of values, or of several that belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import THRESHOLD, Channel, Detector, Sample, Score, Scores
from kernel.time import Instant

if TYPE_CHECKING:
    from anomaly.contributions import Contribution
    from anomaly.settings import Settings

PLACES: Final = 3
"""Columns named as causes at most."""
NOBODY: Final = -1


class Streamed(Detector, Protocol):
    """A detector that can take many rows of its series at once, as if they came one by one."""

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64], slots: NDArray[np.int32] | None = None) -> Scores:
        """Score rows in order and learn from them; arrays of their number."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Spoken:
    """What is said of one row. `sentence` is empty when nothing is unusual; `column` is the one it is about."""

    score: Score
    sentence: str
    column: int
    contributions: tuple[Contribution, ...] = ()
    """What each channel gave to it; none of a machine, of a baseline, or of a row that was not judged."""


class FileDetector(Protocol):
    """What scores a file: rows of one or several values in order."""

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64]) -> Scores:
        """Score rows in order and learn from them; `values` has one column for each of the file's."""
        ...

    def update(self, at: int, values: NDArray[np.float64], names: Sequence[str]) -> Spoken:
        """Score one row as `run` would, in words; only the words know the columns' names."""
        ...

    def blamed(self) -> NDArray[np.int32]:
        """Return, for each row of the last call, up to `PLACES` columns, the most to blame first; `NOBODY` fills up."""
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

    def update(self, at: int, values: NDArray[np.float64], names: Sequence[str]) -> Spoken:
        """See `FileDetector`."""
        del names
        self._rows = 1
        score = self._series.update(Sample(Instant(at), float(values[0])))
        return Spoken(score, score.finding.sentence if score.finding is not None else "", 0)

    def blamed(self) -> NDArray[np.int32]:
        """See `FileDetector`."""
        return np.zeros((self._rows, 1), dtype=np.int32)


class Ours(Single):
    """One column, judged by our detector: its words say what each channel gave."""

    def __init__(self, settings: Settings) -> None:
        """Score with these settings."""
        from anomaly.series import Series  # compiled code, which the terminal's other verbs need not load

        self._own = Series(settings)
        super().__init__(lambda: self._own)

    def update(self, at: int, values: NDArray[np.float64], names: Sequence[str]) -> Spoken:
        """See `FileDetector`."""
        del names
        self._rows = 1
        score, contributions = self._own.explain(Sample(Instant(at), float(values[0])))
        sentence = score.finding.sentence if score.finding is not None else ""
        return Spoken(score, sentence, 0, contributions)


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
        episodes = _any([one.episode for one in found])
        before = np.concatenate(([self._open], episodes[:-1])) if len(episodes) else episodes
        alert = _any([one.alert for one in found]) & ~before
        self._open = bool(episodes[-1]) if len(episodes) else self._open
        best = self._scores.argmax(axis=1) if len(at) else np.zeros(0, dtype=np.int64)
        return Scores(
            score=self._scores.max(axis=1), alert=alert, episode=episodes, channel=_of(found, "channel", best),
            low=_of(found, "low", best), high=_of(found, "high", best),
            # A row counts as scored when any of its columns was.
            verdict=np.column_stack([one.verdict for one in found]).min(axis=1),
        )  # fmt: skip

    def update(self, at: int, values: NDArray[np.float64], names: Sequence[str]) -> Spoken:
        """See `FileDetector`."""
        found = [
            one.update(Sample(Instant(at), value)) for one, value in zip(self._series, values.tolist(), strict=True)
        ]
        self._scores = np.array([[one.score for one in found]])
        best = int(self._scores[0].argmax())
        alert = any(one.alert for one in found) and not self._open
        self._open = any(one.episode for one in found)
        verdict = min(one.verdict for one in found)
        finding = found[best].finding
        score = dataclasses.replace(found[best], alert=alert, episode=self._open, verdict=verdict)
        return Spoken(score, f"{names[best]}: {finding.sentence}" if finding is not None else "", best)

    def blamed(self) -> NDArray[np.int32]:
        """See `FileDetector`."""
        order = np.argsort(-self._scores, axis=1, kind="stable")[:, :PLACES].astype(np.int32)
        order[np.take_along_axis(self._scores, order, axis=1) <= 0.0] = NOBODY
        return order


class Together:
    """Columns of one machine, judged together as well as each for itself."""

    def __init__(self, count: int) -> None:
        """Judge `count` columns."""
        from anomaly.joint import Joint  # as above

        self._joint = Joint(count)
        self._blamed = np.zeros((0, PLACES), dtype=np.int32)

    def run(self, at: NDArray[np.int64], values: NDArray[np.float64]) -> Scores:
        """See `FileDetector`; a machine has no one expected range, so none is told."""
        found = self._joint.run(at, values)
        self._blamed = found.causes
        nowhere = np.full(len(at), np.nan)
        channel = np.where(found.score >= THRESHOLD, Channel.JOINT, Channel.NONE).astype(np.int8)
        return Scores(found.score, found.alert, found.episode, channel, nowhere, nowhere, found.verdict)

    def update(self, at: int, values: NDArray[np.float64], names: Sequence[str]) -> Spoken:
        """See `FileDetector`."""
        found = self._joint.update(Instant(at), values)
        causes = [*found.causes, *[NOBODY] * PLACES][:PLACES]
        self._blamed = np.array([causes], dtype=np.int32)
        score = Score(
            found.at, found.score, alert=found.alert, episode=found.episode, low=np.nan, high=np.nan,
            channel=Channel.JOINT if found.score >= THRESHOLD else Channel.NONE, verdict=found.verdict,
        )  # fmt: skip
        sentence = found.finding.sentence(list(names)) if found.finding is not None else ""
        return Spoken(score, sentence, max(0, causes[0]))

    def blamed(self) -> NDArray[np.int32]:
        """See `FileDetector`."""
        return self._blamed


def _any(columns: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.logical_or.reduce(columns)
    return found


def _of(found: Sequence[Scores], name: str, best: NDArray[np.int64]) -> NDArray[Any]:
    picked: NDArray[Any] = np.column_stack([getattr(one, name) for one in found])[np.arange(len(best)), best]
    return picked


def alone(make: Callable[[], Streamed], columns: int) -> FileDetector:
    """Return a detector of a file's columns, each scored for itself by what `make` returns."""
    return Single(make) if columns == 1 else Several(columns, make)


def ours(columns: int, settings: Settings | None = None) -> FileDetector:
    """Return our detector of a file with so many columns of values."""
    from anomaly.settings import Settings

    return Ours(settings or Settings()) if columns == 1 else Together(columns)
