"""A series as a picture a person can judge: values, expected band, a strip of scores, and each page with its sentence.

Drawn by matplotlib as SVG or PNG, with the colours of the boards. However long the series, a picture has some two
thousand columns: each shows the least and the most of what falls into it, so that no spike is lost.
"""

from __future__ import annotations

import datetime as dt
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import THRESHOLD
from control.series_story import Story, Told
from incidents.plot import figure
from kernel.errors import InputError, PermanentError
from kernel.time import SECOND, to_rfc3339

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS: Final = (".svg", ".png")
CURVE: Final = "#3c7dd9"
BAND: Final = "#8a8f99"
ALARM: Final = "#d1495b"
CALM: Final = "#b9d4f5"
INK: Final = "#1f2430"
GRID: Final = "#d9dce2"
_COLUMNS: Final = 2000
_PANELS: Final = 4
"""Of a file of many columns, those most to blame."""
_SENTENCES: Final = 8
"""Written below the picture; further pages are marked and counted."""
_LETTERS: Final = 150


def draw(story: Story, target: Path, *, first: int = 0, last: int | None = None) -> None:
    """Draw rows `first` to `last` (without it) of a story into a file.

    Raises:
        InputError: the file's name ends in no known format.
        PermanentError: it cannot be written.
    """
    if target.suffix.lower() not in FORMATS:
        raise InputError(str(target), "is no picture", right=f"end the name in {' or '.join(FORMATS)}")
    import matplotlib as mpl

    style: Any = {
        "svg.hashsalt": "tapewatch", "svg.fonttype": "none", "font.size": 9, "text.color": INK, "axes.edgecolor": BAND,
        "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.6,
        "font.family": "sans-serif", "text.parse_math": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        picture = _picture(story, slice(first, len(story.series.at) if last is None else last))
        part = target.with_name(f".{target.stem}.part{target.suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            metadata = {"Date": None, "Creator": "tapewatch"} if target.suffix.lower() == ".svg" else {}
            picture.savefig(part, dpi=110, metadata=metadata, facecolor="white")
            part.replace(target)
        except OSError as error:
            raise PermanentError(f"{target}: cannot be written: {error.strerror or error}") from error
        finally:
            part.unlink(missing_ok=True)


def _picture(story: Story, rows: slice) -> Figure:
    from matplotlib.figure import Figure

    pages = [page for page in story.pages if rows.start <= page.row < rows.stop]
    shown = _columns(story, pages)
    words = _words(pages)
    heights = [2.6 if len(shown) == 1 else 1.5] * len(shown) + [0.55]
    text = 0.2 + 0.2 * sum(line.count("\n") + 1 for line in words)
    picture = Figure(figsize=(11, sum(heights) + text + 1.1))
    total = picture.get_figheight()
    axes = picture.subplots(
        len(heights), 1, sharex=True, squeeze=False,
        gridspec_kw={
            "height_ratios": heights, "hspace": 0.12, "left": 0.075, "right": 0.985, "top": 1 - 0.45 / total,
            "bottom": (text + 0.35) / total,
        },
    )[:, 0]  # fmt: skip
    at = story.series.at[rows]
    for axis, column in zip(axes, shown, strict=False):
        _panel(axis, story, rows, column)
    _strip(axes[-1], at, story.scores.score[rows])
    axes[-1].set_xlim(_moment(int(at.min())), _moment(max(int(at.max()), int(at.min()) + SECOND)))
    for axis in axes:
        _quiet(axis)
        for number, page in enumerate(pages, 1):
            _mark(axis, page, number if axis is axes[0] else 0)
    _times(axes[-1])
    picture.text(0.075, 1 - 0.2 / total, _title(story, pages), fontsize=10, weight="bold", va="center")
    place = text - 0.1
    for line in words:
        picture.text(0.075, place / total, line, fontsize=8.5, va="top", linespacing=1.25)
        place -= 0.2 * (line.count("\n") + 1)
    return picture


def _title(story: Story, pages: list[Told]) -> str:
    count = "no page" if not pages else "one page" if len(pages) == 1 else f"{len(pages)} pages"
    return f"{_plain(story.series.name)}: {count}"


def _words(pages: list[Told]) -> list[str]:
    lines = []
    for number, page in enumerate(pages[:_SENTENCES], 1):
        text = f"{number}  {to_rfc3339(page.at)[:19].replace('T', ' ')}  {page.sentence}"
        lines.append("\n".join(textwrap.wrap(_plain(text), _LETTERS, subsequent_indent="     ")))
    if len(pages) > _SENTENCES:
        lines.append(f"and {len(pages) - _SENTENCES} more, marked above")
    return lines or ["Nothing in these rows pages."]


def _plain(text: str) -> str:
    """Drop what no font can show."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _columns(story: Story, pages: list[Told]) -> list[int]:
    """Return the columns to show, those most to blame for the pages first when they do not all fit."""
    count = len(story.series.columns)
    if count <= _PANELS:
        return list(range(count))
    blame = dict.fromkeys(story.series.columns, 0.0)
    for page in pages:
        for place, column in enumerate(page.blamed):
            blame[column] += 1.0 / (1 + place)
    order = sorted(range(count), key=lambda index: -blame[story.series.columns[index]])
    return order[:_PANELS]


def _panel(axis: Axes, story: Story, rows: slice, column: int) -> None:
    at, values = story.series.at[rows], story.series.values[rows, column]
    when, low, high = _binned(at, values)
    one_each = len(when) == len(at)
    if len(story.series.columns) == 1:
        _, band_low, _ = _binned(at, story.scores.low[rows])
        _, _, band_high = _binned(at, story.scores.high[rows])
        axis.fill_between(
            when, band_low, band_high, color=BAND, alpha=0.3, linewidth=0, label="expected from the last rows"
        )
    if one_each:
        axis.plot(when, low, color=CURVE, linewidth=0.9, label="value")
    else:
        axis.fill_between(when, low, high, color=CURVE, linewidth=0.9, alpha=0.9, label="value, least to most")
    finite = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)]])
    if len(finite):  # the values fill the picture: a band that is wide at first must not flatten them
        room = (finite.max() - finite.min()) or max(1.0, abs(float(finite.max())))
        axis.set_ylim(finite.min() - 0.12 * room, finite.max() + 0.2 * room)
    axis.yaxis.set_major_formatter(lambda value, _: figure(value))
    if len(story.series.columns) > 1:
        axis.set_ylabel(_plain(story.series.columns[column])[:18], rotation=90, fontsize=8)
    else:
        axis.legend(loc="lower left", bbox_to_anchor=(0.6, 1.0), ncols=2, frameon=False, fontsize=8, borderaxespad=0.2)


def _strip(axis: Axes, at: NDArray[np.int64], score: NDArray[np.float64]) -> None:
    when, _, high = _binned(at, score)
    axis.fill_between(when, 0, high, color=CALM, linewidth=0, step="mid")
    axis.fill_between(when, 0, np.where(high >= THRESHOLD, high, np.nan), color=ALARM, linewidth=0, step="mid")
    axis.axhline(THRESHOLD, color=BAND, linewidth=0.7, linestyle=(0, (4, 3)))
    axis.set_ylim(0, 1)
    axis.set_yticks([0, THRESHOLD, 1])
    axis.set_ylabel("score", fontsize=8)


def _mark(axis: Axes, page: Told, number: int) -> None:
    when = _moment(page.at)
    axis.axvline(when, color=ALARM, linewidth=0.9, alpha=0.8)  # type: ignore[arg-type]
    if 0 < number <= _SENTENCES:
        axis.annotate(
            f"{number}", (when, 1.0), xycoords=("data", "axes fraction"), xytext=(0, -2),
            textcoords="offset points", ha="center", va="top", fontsize=8, color="white", weight="bold",
            bbox={"boxstyle": "round,pad=0.22", "facecolor": ALARM, "edgecolor": "none"},
        )  # fmt: skip


def _quiet(axis: Axes) -> None:
    axis.grid(visible=True, color=GRID, linewidth=0.5)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(length=2, width=0.5)


def _times(axis: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    places = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(places)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(places))  # type: ignore[no-untyped-call]


def _moment(at: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=at // 1000)  # noqa: DTZ001 - drawn as UTC


def _binned(
    at: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Return times and the least and largest value of each column of the picture; NaN where there is none."""
    if len(at) <= _COLUMNS:
        return (at // 1000).astype("datetime64[us]"), values, values
    start, end = int(at.min()), int(at.max())
    span = max(end - start, SECOND)
    place = np.minimum((at - start) * 1.0 / span * _COLUMNS, _COLUMNS - 1).astype(np.int64)
    low, high = np.full(_COLUMNS, np.inf), np.full(_COLUMNS, -np.inf)
    held = np.isfinite(values)
    np.minimum.at(low, place[held], values[held])
    np.maximum.at(high, place[held], values[held])
    full = np.isfinite(low)
    when = start + (np.arange(_COLUMNS) + 0.5) * span / _COLUMNS
    # A column without a row, among many with some, is a gap only when the series itself has one there.
    occupied = np.zeros(_COLUMNS, dtype=np.bool_)
    occupied[place] = True
    keep = occupied | full
    low[~full], high[~full] = np.nan, np.nan
    return (when[keep] / 1000).astype(np.int64).astype("datetime64[us]"), low[keep], high[keep]
