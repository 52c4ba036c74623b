"""Looking back: what would have paged if the detectors had watched, and whether the promised budget would have held."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from control.anomaly_reading import window_of
from control.series_files import SUFFIXES, SeriesFile
from control.series_joint import FileDetector, ours
from control.series_scoring import series_in
from control.series_stamps import UNREADABLE
from control.series_story import Series, Told, load, tell
from kernel.errors import InputError, TapewatchError
from kernel.time import DAY, SECOND, Duration, Instant, to_rfc3339
from monitor.adapters.prometheus_api import PrometheusApi
from monitor.watched import filled

WARM_STEPS: Final = 1440
"""Readings before the first that counts: a day of minutes, so that the detectors know what is usual."""
_CHUNK: Final = 3000
"""Steps of one question: a Prometheus refuses more than 11,000."""
_ANSWER_S: Final = 30.0
_SERIES_MAX: Final = 500


@dataclasses.dataclass(slots=True)
class Past:
    """Recorded series, read one after the other; `troubles` fills with a sentence for each that cannot be had."""

    series: Iterator[Series]
    troubles: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One series in the time looked at. `used` is its pages as a share of the pages promised at most."""

    name: str
    rows: int
    days: float
    pages: int
    used: float


@dataclasses.dataclass(frozen=True, slots=True)
class Backtest:
    """What would have paged."""

    lines: tuple[Line, ...]
    pages: tuple[tuple[str, Told], ...]
    """Series and page, in the order of time."""
    budget_per_day: float
    """Promised: so many false alarms a day of one series at most."""

    @property
    def days(self) -> float:
        """Days of all series together."""
        return sum(line.days for line in self.lines)

    def verdict(self) -> str:
        """Say in a sentence how many pages a day, and how that stands to what was promised."""
        if not self.lines:
            return "no series had a reading in that time"
        pages, days = len(self.pages), self.days
        counted = "one page" if pages == 1 else f"{pages} pages"
        if days <= 0:
            return f"{counted}; the time is too short to say how often"
        longest = max(line.days for line in self.lines)
        return (
            f"{counted} in {longest:.1f} days of {len(self.lines)} series: {pages / longest:.2f} a day in all, "
            f"{pages / days:.3f} a day and series; promised are {self.budget_per_day:g} false ones at most, so "
            f"{pages / (days * self.budget_per_day):.0%} of the budget if every page was false"
        )

    def facts(self) -> Mapping[str, Any]:
        """Return all of it as JSON's values."""
        longest = max((line.days for line in self.lines), default=0.0)
        return {
            "series": [dataclasses.asdict(line) for line in self.lines],
            "series_days": self.days, "pages_per_day": len(self.pages) / longest if longest > 0 else None,
            "pages_per_series_day": len(self.pages) / self.days if self.days > 0 else None,
            "budget_per_series_day": self.budget_per_day,
            "budget_used": len(self.pages) / (self.days * self.budget_per_day) if self.days > 0 else None,
            "pages": [
                {
                    "series": name, "at": to_rfc3339(one.at), "score": one.score.score, "sentence": one.sentence,
                    "channel": one.score.channel.name.lower(),
                }
                for name, one in self.pages
            ],
        }  # fmt: skip


def look_back(
    past: Past,
    start: Instant | None,
    end: Instant | None,
    *,
    plots: Path | None = None,
    make: Callable[[int], FileDetector] = ours,
    budget: float | None = None,
) -> Backtest:
    """Score the past and count what would have paged from `start` to `end`; what lies before warms the detectors.

    Args:
        past: the series, each from before `start` on.
        start: the first instant that counts; else the beginning of each series.
        end: the last one; else its end.
        plots: a folder for pictures of the series that page.
        make: the detector of a series of so many columns.
        budget: promised false alarms of one series a day at most; else what our detectors promise.

    Raises:
        PermanentError: a plot cannot be written.
    """
    from control.series_plot import draw

    if budget is None:
        from anomaly.settings import Settings

        budget = Settings().budget_per_day
    lines: list[Line] = []
    pages: list[tuple[str, Told]] = []
    for series in past.series:
        inside = np.ones(len(series.at), dtype=np.bool_)
        inside &= series.at >= start if start is not None else True
        inside &= series.at <= end if end is not None else True
        if not inside.any():
            past.troubles.append(f"{series.name}: no reading in that time")
            continue
        story = tell(series, make)
        mine = [page for page in story.pages if inside[page.row]]
        counted = series.at[inside]
        days = float(counted.max() - counted.min()) / DAY
        used = len(mine) / (days * budget) if days > 0 else 0.0
        lines.append(Line(series.name, int(inside.sum()), days, len(mine), used))
        pages += [(series.name, page) for page in mine]
        if plots is not None and mine:
            draw(story, plots / f"{_file_name(series.name)}.svg")
    return Backtest(tuple(lines), tuple(sorted(pages, key=lambda one: one[1].at)), budget)


def _file_name(name: str) -> str:
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:120] or "series"


def from_folder(folder: Path) -> Past:
    """Return the series of a folder, in the order of their names.

    Raises:
        InputError: there is no such folder, or no series in it.
    """
    names = series_in(folder)
    troubles: list[str] = []

    def each() -> Iterator[Series]:
        for name in names:
            try:
                series, told = load(folder / name, name)
            except InputError as error:
                troubles.append(str(error).replace(str(folder / name), name))
                continue
            troubles.extend(sentence.replace(str(folder / name), name) for sentence in told)
            yield series

    return Past(each(), troubles)


def newest_in(folder: Path) -> Instant:
    """Return the newest time in the series of a folder: of recorded series it is what "ago" means.

    Raises:
        InputError: there is no such folder, no series in it, or no time in any of them.
    """
    newest: int | None = None
    for name in series_in(folder):
        try:
            for block in SeriesFile(folder / name).blocks():
                told = block.at[block.at != UNREADABLE]
                if len(told):
                    newest = int(told.max()) if newest is None else max(newest, int(told.max()))
        except (InputError, OSError):
            continue  # whoever reads it says what is wrong with it
    if newest is None:
        raise InputError(str(folder), "no series in it has a time, so nothing can be counted back from its end")
    return Instant(newest)


def from_prometheus(url: str, queries: Sequence[str], start: Instant, end: Instant, step: Duration) -> Past:
    """Return the series of queries, or of everything that is watched, from a Prometheus.

    Raises:
        TemporaryError: Prometheus does not answer.
        PermanentError: it refuses a query that was given.
    """
    return asyncio.run(_asked(url, queries, start, end, step))


async def _asked(url: str, queries: Sequence[str], start: Instant, end: Instant, step: Duration) -> Past:
    asked = [("", query) for query in queries] or _watched(step)
    troubles: list[str] = []
    series: list[Series] = []
    async with PrometheusApi(url, timeout_s=_ANSWER_S) as prometheus:
        begin = Instant(start // step * step - WARM_STEPS * step)  # whole steps: the same question gets the same answer
        for name, query in asked:
            try:
                found = await _curves(prometheus, query, begin, end, step)
            except TapewatchError as error:
                if not name:  # what a person asked for must be had; one of many that are watched may be refused
                    raise
                troubles.append(f"{name}: {error}")
                continue
            if not found:
                troubles.append(f"{name or query}: Prometheus has no reading in that time")
            series += [_series(name or query, labels, points, step) for labels, points in found.items()]
    if len(series) > _SERIES_MAX:
        raise InputError("--query", f"gives {len(series)} series, {_SERIES_MAX} at most", right="sum some of them up")
    return Past(iter(series), troubles)


def _watched(step: Duration) -> list[tuple[str, str]]:
    from monitor.adapters.watched_files import HOUSE, load_watched

    window = window_of(step // SECOND)
    return [(one.id, filled(one.query, window)) for one in load_watched(HOUSE)]


Labels = tuple[tuple[str, str], ...]
Points = dict[int, float]


async def _curves(
    prometheus: PrometheusApi, query: str, start: Instant, end: Instant, step: Duration
) -> dict[Labels, Points]:
    found: dict[Labels, Points] = {}
    at = int(start)
    while at <= end:
        last = min(int(end), at + (_CHUNK - 1) * step)
        for curve in await prometheus.curve(query, Instant(at), Instant(last), step):
            labels = tuple(sorted(curve.labels.items()))
            found.setdefault(labels, {}).update((int(when), value) for when, value in curve.points)
        at = last + step
    return found


def _series(name: str, labels: Labels, points: Points, step: Duration) -> Series:
    """Put readings on their grid: where Prometheus had none between two, a reading was missed."""
    first, last = min(points), max(points)
    at = np.arange(first, last + 1, step, dtype=np.int64)
    values = np.full(len(at), np.nan)
    for when, value in points.items():
        values[(when - first) // step] = value
    values[~np.isfinite(values)] = np.nan
    shown = ",".join(f"{key}={value}" for key, value in labels if key != "__name__")
    return Series(f"{name}{{{shown}}}" if shown else name, ("value",), at, values[:, None])
