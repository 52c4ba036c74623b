"""Scoring recorded series: a folder of CSV files in, a folder of the same names with scores out.

What a row's score depends on is that row and the rows before it, in the file's order, and nothing else: no name or path
reaches a detector. A row without a readable time never reaches it either and gets 0; a missed value, a repeated stamp
and a step back in time get what the detector says of them. Whatever is wrong with one file, the others go on.
"""

from __future__ import annotations

import dataclasses
import gzip
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import Scores, Verdict
from control.series_files import SUFFIXES, Block, Note, SeriesFile
from control.series_joint import NOBODY, FileDetector, ours
from control.series_stamps import UNREADABLE
from kernel.errors import InputError, PermanentError, TapewatchError

HEADER: Final = b"timestamp,score,alert\n"
_GZIP_LEVEL: Final = 4
"""Half the time of the usual 6 for a twentieth more bytes."""
LEFT_ASIDE: Final = {
    Verdict.DUPLICATE: "the stamp of the row before, left aside",
    Verdict.BACKWARD: "the time goes back, left aside; sort the file by time",
}
"""Why a row has no score of its own: of one column the result repeats that of the row before it, of several it is 0."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """A column to blame for an alert of a file of several; rank 1 contributes most."""

    line: int
    stamp: str
    score: float
    rank: int
    column: str


@dataclasses.dataclass(slots=True)
class FileReport:
    """What became of one file. `error` is set when no row of it could be scored."""

    name: str
    rows: int = 0
    scored: int = 0
    alerts: int = 0
    columns: int = 0
    notes: list[Note] = dataclasses.field(default_factory=list)
    error: str = ""
    causes: list[Cause] = dataclasses.field(default_factory=list)
    left_aside: dict[str, Note] = dataclasses.field(default_factory=dict)
    """Rows without a score of their own, by the name of the verdict."""

    @property
    def whole(self) -> bool:
        """Whether every row was scored, or had no value to score."""
        return not self.error and not self.notes

    def sentences(self) -> list[str]:
        """Say what is wrong with the file, one sentence each, beginning with `file:line`."""
        if self.error:
            return [self.error]
        return [
            f"{self.name}:{note.line}: {note.what}" + (f" ({note.rows:,} such cells or rows)" if note.rows > 1 else "")
            if note.line
            else f"{self.name}: {note.what}; the {self.rows:,} rows before were scored"
            for note in self.notes
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One file to be scored. `name` is for people; the detector sees neither it nor the paths."""

    name: str
    source: Path
    target: Path
    with_causes: bool = False
    make: Callable[[int], FileDetector] = ours
    """What scores a file of so many columns; must be such that another process can be given it."""


def series_in(folder: Path) -> list[str]:
    """Return the relative names of the CSV files in nested folders, sorted.

    Raises:
        InputError: there is no such folder, or no CSV file in it.
    """
    if not folder.is_dir():
        raise InputError(str(folder), "is no folder", right="name a folder of CSV files with lines of time and value")
    found: list[str] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(where).relative_to(folder)
        found += [str(inside / name) for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not found:
        raise InputError(str(folder), "holds no .csv or .csv.gz file")
    return sorted(found)


def apart(source: Path, target: Path) -> None:
    """Refuse a folder of results that lies in the folder of series, or the other way round.

    Raises:
        InputError: results would be read as series the next time, or written over them.
    """
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise InputError(str(target), f"lies in the same place as {source}", right="write the scores elsewhere")
    if target.exists() and not target.is_dir():
        raise InputError(str(target), "is no folder")


def score_folder(
    source: Path,
    target: Path,
    *,
    jobs: int,
    with_causes: bool = False,
    make: Callable[[int], FileDetector] = ours,
    done: Callable[[FileReport], None],
) -> list[FileReport]:
    """Score every series in a folder; `done` hears of each as it ends. Returns the reports in the names' order.

    Args:
        source: the folder of series.
        target: the folder of results, made when there is none.
        jobs: how many processes work at once.
        with_causes: whether to name the columns behind each alert of a file of several.
        make: the detector of a file of so many columns.
        done: told of each file as it ends.

    Raises:
        InputError: a folder is wrong.
        PermanentError: the results cannot be written.
    """
    names = series_in(source)
    apart(source, target)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermanentError(f"{target}: cannot be made: {error.strerror}") from error
    work = [Job(name, source / name, target / name, with_causes, make) for name in names]
    reports: list[FileReport] = []
    for report in _each(work, min(jobs, len(work))):
        reports.append(report)
        done(report)
    return sorted(reports, key=lambda report: report.name)


def _each(work: Sequence[Job], jobs: int) -> Iterator[FileReport]:
    if jobs <= 1:
        yield from map(score_file, work)
        return
    # The largest first, so that none is left alone at the end. Fresh processes: a fork would copy half-held locks.
    waiting = sorted(work, key=lambda job: -_size(job.source))
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[FileReport], Job] = {pool.submit(score_file, job): job for job in waiting}
        try:
            while running:
                for one in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(one)
                    try:
                        yield one.result()
                    except BrokenProcessPool:
                        yield FileReport(job.name, error=f"{job.name}: the process that scored it was ended")
        finally:
            for one in running:
                one.cancel()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def score_file(job: Job) -> FileReport:
    """Score one file; whatever is wrong with it is in the report, never raised.

    The result appears whole or not at all.
    """
    report = FileReport(job.name)
    try:
        series = SeriesFile(job.source)
        report.columns = len(series.columns)
        with _written(job.target) as out:
            out.write(HEADER)
            with_causes = job.with_causes and report.columns > 1
            for block, scores, causes in scored_blocks(series, with_causes=with_causes, make=job.make):
                _write(out, block, scores)
                _count(report, series, block, scores)
                report.causes += causes
            _refuse_nothing(report)
        report.notes = sorted(series.notes.values(), key=lambda note: note.line)
    except InputError as error:
        report.error = str(error).replace(str(job.source), job.name)
    except OSError as error:
        report.error = f"{job.name}: {error.strerror or error}"
    except TapewatchError as error:
        report.error = f"{job.name}: {error}"
    except Exception as error:  # noqa: BLE001 - one file's stumbling block must not take the others with it
        first = (str(error).splitlines() or [""])[0][:200]
        report.error = f"{job.name}: not scored, a fault of the program: {type(error).__name__}: {first}"
    return report


def scored_blocks(
    series: SeriesFile, *, with_causes: bool = False, make: Callable[[int], FileDetector] = ours
) -> Iterator[tuple[Block, Scores, list[Cause]]]:
    """Yield a file's blocks with what the detector says of their rows; unreadable rows are 0 and alert of nothing."""
    detector = make(len(series.columns))
    for block in series.blocks():
        told = block.at != UNREADABLE
        if told.all():
            found = detector.run(block.at, block.values)
        else:
            found = _spread(detector.run(block.at[told], block.values[told]), told)
        causes = list(_causes(block, found, detector.blamed(), series.columns, told)) if with_causes else []
        yield block, found, causes


def _spread(found: Scores, told: NDArray[np.bool_]) -> Scores:
    """Put rows back between those that were left out."""
    count = len(told)
    wide: dict[str, NDArray[np.generic]] = {}
    for field in dataclasses.fields(Scores):
        narrow = getattr(found, field.name)
        column = np.full(count, np.nan) if field.name in {"low", "high"} else np.zeros(count, dtype=narrow.dtype)
        column[told] = narrow
        wide[field.name] = column
    wide["verdict"][~told] = Verdict.MISSED
    return Scores(**wide)  # type: ignore[arg-type]


def _causes(
    block: Block, found: Scores, blamed: NDArray[np.int32], columns: Sequence[str], told: NDArray[np.bool_]
) -> Iterator[Cause]:
    place = np.cumsum(told) - 1
    for row in np.flatnonzero(found.alert).tolist():
        stamp, score = block.stamps[row].decode("utf-8", "replace"), float(found.score[row])
        names = [columns[column] for column in blamed[place[row]].tolist() if column != NOBODY]
        for rank, name in enumerate(names, 1):
            yield Cause(int(block.lines[row]), stamp, score, rank, name)


def _count(report: FileReport, series: SeriesFile, block: Block, found: Scores) -> None:
    report.rows += len(block.lines)
    report.alerts += int(found.alert.sum())
    report.scored += int(((found.verdict == Verdict.SCORED) | (found.verdict == Verdict.WARMING)).sum())
    for verdict, what in LEFT_ASIDE.items():
        rows = np.flatnonzero(found.verdict == verdict)
        if len(rows):
            kind = verdict.name.lower()
            series.note(kind, what, int(block.lines[rows[0]]), len(rows))
            report.left_aside[kind] = series.notes[kind]


def _refuse_nothing(report: FileReport) -> None:
    if not report.scored:
        raise InputError(report.name, "no row has a time and a value that can be scored")


def _write(out: IO[bytes] | gzip.GzipFile, block: Block, found: Scores) -> None:
    stamps: Sequence[bytes] = block.stamps
    if any(letter in b"".join(stamps) for letter in (b",", b'"', b";")) or not b"".join(stamps).isascii():
        stamps = [_quoted(stamp) for stamp in stamps]
    score = np.clip(np.nan_to_num(found.score, nan=0.0), 0.0, 1.0).tolist()
    lines = [b"%b,%.6f,%d\n" % row for row in zip(stamps, score, found.alert.tolist(), strict=True)]
    out.write(b"".join(lines))


def _quoted(stamp: bytes) -> bytes:
    text = stamp.decode("utf-8", "replace")
    if any(letter in text for letter in ',";'):
        text = '"' + text.replace('"', '""') + '"'
    return text.encode()


@contextmanager
def _written(target: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file that takes its name only when it is whole; an exception leaves nothing behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as raw:
            if target.name.lower().endswith(".gz"):
                # Neither name nor time in the header: equal scores are equal bytes.
                with gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0) as packed:
                    yield packed
            else:
                yield raw
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
