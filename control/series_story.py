"""What a detector says of a recorded series, in words: each page with its sentence, and any one row on request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import Channel, Score, Scores, Verdict
from control.series_files import SeriesFile
from control.series_joint import NOBODY, FileDetector, ours
from control.series_stamps import UNREADABLE
from kernel.errors import InputError
from kernel.time import DAY, Instant, to_rfc3339

if TYPE_CHECKING:  # compiled code
    from anomaly.contributions import Contribution

CHANNELS: Final = {
    Channel.NONE: "nothing unusual",
    Channel.SPIKE: "a sudden value, far from those just before",
    Channel.LEVEL_UP: "a level that has risen and stays",
    Channel.LEVEL_DOWN: "a level that has fallen and stays",
    Channel.SPREAD: "values that scatter more than before",
    Channel.SAME_CLOCK: "another value than at this time on other days",
    Channel.NOVELTY: "a value outside everything seen",
    Channel.NEIGHBOUR: "a stretch that nothing of the past resembles",
    Channel.SHAPE: "another shape than the past has",
    Channel.FLATLINE: "a value that no longer moves",
    Channel.MISSED: "readings that do not come",
    Channel.JOINT: "columns that no longer go together",
}
"""Each channel in words, the same for every series."""
VERDICTS: Final = {
    Verdict.SCORED: "scored",
    Verdict.WARMING: "scored against a short past: only what is far outside anything seen pages",
    Verdict.MISSED: "there was no value",
    Verdict.DUPLICATE: "it was left aside: its time is that of the row before",
    Verdict.BACKWARD: "it was left aside: its time lies before that of a row before it",
}
LEFT_ASIDE: Final = frozenset({Verdict.DUPLICATE, Verdict.BACKWARD})
"""Of a row that is neither scored nor learnt from; of one column it keeps the score of the row before."""
ROWS_OF_ONE_TIME: Final = 20
"""Rows told of for one time at most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """A recorded series in memory: times in nanoseconds, one row of values a time."""

    name: str
    columns: tuple[str, ...]
    at: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def days(self) -> float:
        """How long it goes on, in days."""
        return float(self.at[-1] - self.at[0]) / DAY if len(self.at) > 1 else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """One row, and what the detector says of it."""

    row: int
    at: Instant
    score: Score
    sentence: str
    blamed: tuple[str, ...]
    """The columns to blame, the most first; of one column that one."""
    contributions: tuple[Contribution, ...] = ()
    """What each channel gave to it; of a file of several columns nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """A series, its scores and its pages."""

    series: Series
    scores: Scores
    pages: tuple[Told, ...]


def load(path: Path, name: str | None = None) -> tuple[Series, list[str]]:
    """Read a file; return the series and what is wrong with the file, a sentence each.

    Raises:
        InputError: there is no such file, or no series in it.
    """
    try:
        file = SeriesFile(path)
        blocks = list(file.blocks())
    except OSError as error:
        raise InputError(str(path), error.strerror or str(error)) from error
    at = np.concatenate([block.at for block in blocks])
    values = np.concatenate([block.values for block in blocks])
    readable = at != UNREADABLE
    if not readable.any() or not np.isfinite(values[readable]).any():
        raise InputError(str(path), "no row has a time and a value that can be scored")
    told = [f"{path}:{note.line}: {note.what}" for note in file.notes.values()]
    return Series(name or path.name, file.columns, at[readable], values[readable]), told


def tell(series: Series, make: Callable[[int], FileDetector] = ours) -> Story:
    """Score a series and put each of its pages into words."""
    scores = make(len(series.columns)).run(series.at, series.values)
    return Story(series, scores, tuple(at_rows(series, np.flatnonzero(scores.alert).tolist(), make)))


def at_rows(series: Series, rows: Sequence[int], make: Callable[[int], FileDetector] = ours) -> list[Told]:
    """Put some rows, in order, into words: a fresh detector reads up to each and is asked of it."""
    detector = make(len(series.columns))
    told: list[Told] = []
    done = 0
    for row in rows:
        if row > done:
            detector.run(series.at[done:row], series.values[done:row])
        spoken = detector.update(int(series.at[row]), series.values[row], series.columns)
        blamed = tuple(series.columns[column] for column in detector.blamed()[-1].tolist() if column != NOBODY)
        score, sentence = spoken.score, spoken.sentence
        if score.verdict in LEFT_ASIDE:  # what is found then speaks of a row before
            score, sentence, blamed = dataclasses.replace(score, channel=Channel.NONE, finding=None), "", ()
        sentence = sentence or _calm(score, float(series.values[row, spoken.column]))
        told.append(Told(row, Instant(int(series.at[row])), score, sentence, blamed, spoken.contributions))
        done = row + 1
    return told


def rows_at(series: Series, at: Instant) -> list[int]:
    """Return the rows of a time, else those of the last time before it, in the file's order.

    More than one row has a time that is repeated, `ROWS_OF_ONE_TIME` are told at most; where times go back, they may
    lie far apart.

    Raises:
        InputError: the time lies outside the series.
    """
    before = series.at[series.at <= at]
    if not len(before) or at > series.at.max():
        span = f"it goes from {to_rfc3339(int(series.at.min()))} to {to_rfc3339(int(series.at.max()))}"
        raise InputError(to_rfc3339(at), f"lies outside {series.name}", right=span)
    return [int(row) for row in np.flatnonzero(series.at == before.max())[:ROWS_OF_ONE_TIME]]


def _calm(score: Score, value: float) -> str:
    if score.verdict in {Verdict.MISSED, Verdict.DUPLICATE, Verdict.BACKWARD}:
        return VERDICTS[score.verdict]
    if not np.isfinite(score.low):
        return "nothing unusual" if score.verdict is Verdict.SCORED else f"{value:g}; there is no expected range yet"
    return f"{value:g}, expected {score.low:g} to {score.high:g}"
