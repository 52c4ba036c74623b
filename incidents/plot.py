"""Line plots as plain SVG: a curve over time, its axes with units, and the instants that matter.

Pure text from values: no script, no style of its own. Colours come from the page's style sheet through the classes
`curve`, `axis`, `grid`, `band`, `expected` and `mark mark-NAME`, so that light, dark and paper need one drawing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Final

import msgspec

from kernel.time import SECOND, Instant

MARKS: Final = ("fault", "alert", "action", "proof", "undone", "resolved")
"""The instants a plot can mark, in the order of a healthy incident."""
_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_LETTER: Final = 0.56
"""Width of a letter in heights: good for the sans-serif faces a page falls back to."""


class Mark(msgspec.Struct, frozen=True):
    """An instant to be marked with a vertical line."""

    name: str
    at: Instant


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """One curve and how to read it."""

    title: str
    description: str
    """For who cannot see the drawing: what the curve does, in a sentence or two."""
    unit: str
    points: tuple[tuple[Instant, float], ...]
    """In the order of time. A value that is not finite is a gap."""
    marks: tuple[Mark, ...] = ()
    expected: tuple[str, float] | None = None
    """A relation such as `>=` and the number the proof asks for."""


class Size(msgspec.Struct, frozen=True):
    """The drawing's box in SVG units; one unit is one CSS pixel at full size."""

    width: int
    height: int
    letter: int


WIDE: Final = Size(760, 280, 12)
NARROW: Final = Size(380, 260, 12)


class _Frame(msgspec.Struct, frozen=True):
    """Where the plot area lies and which span of time and value it shows."""

    left: float
    right: float
    top: float
    bottom: float
    start: int
    end: int
    low: float
    high: float

    def x(self, at: int) -> float:
        return round(self.left + (self.right - self.left) * (at - self.start) / (self.end - self.start), 1)

    def y(self, value: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low), 1)


def figure(value: float) -> str:
    """Write a number for people: whole ones with separators, others with four significant digits, never an exponent."""
    if not math.isfinite(value):
        return "not a number"
    if value == int(value) and abs(value) < 1e15:  # noqa: PLR2004 - beyond this a float no longer counts in ones
        return f"{int(value):,}"
    digits = max(0, min(9, 3 - math.floor(math.log10(abs(value)))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled(unit: str, largest: float) -> tuple[float, str]:
    """Return the factor and the unit's short form for the largest value: seconds below one read in milliseconds."""
    if unit in {"seconds", "s"}:
        return (1000.0, "ms") if largest < 1 else (1.0, "s")
    return 1.0, "" if unit in {"", "bool", "flag", "1"} else unit


def nice_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return about `count` round numbers that cover low to high: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(index * step, 12) for index in range(first, last + 1))


def sparkline(plot: Plot, columns: int = 60) -> str:
    """Draw the curve in one line of block letters: what Markdown can show. A blank is a gap."""
    finite = [value for _, value in plot.points if math.isfinite(value)]
    if not finite:
        return ""
    start, end = plot.points[0][0], plot.points[-1][0]
    low, high = min(0.0, *finite), max(finite)
    buckets: list[list[float]] = [[] for _ in range(columns)]
    for at, value in plot.points:
        if math.isfinite(value):
            buckets[min(columns - 1, (at - start) * columns // max(1, end - start))].append(value)
    span = high - low or 1.0
    step = len(_BLOCKS) - 1
    line = "".join(_BLOCKS[round((max(held) - low) / span * step)] if held else " " for held in buckets)
    return line.rstrip()


def to_svg(plot: Plot, size: Size, name: str) -> str:
    """Draw a plot.

    Args:
        plot: what to draw; texts may be hostile, they are escaped.
        size: the box; the page shows `WIDE` or `NARROW` after its own width.
        name: prefix for the ids of title and description, unique on the page.

    Returns:
        An `<svg>` element, or an empty text when there is no finite value to draw.
    """
    finite = [(at, value) for at, value in plot.points if math.isfinite(value)]
    if not finite:
        return ""
    factor, unit = scaled(plot.unit, max(abs(value) for _, value in finite))
    values = [value * factor for _, value in finite]
    # The labels' rows need the frame's sides, the frame's top needs the rows: sides do not depend on the top.
    rows = _label_rows(plot, _frame(plot, values, factor, size, 0)[0], size)
    frame, ticks = _frame(plot, values, factor, size, 1 + max([-1, *rows.values()]))
    zero = next((mark.at for mark in plot.marks if mark.name == "fault"), Instant(frame.start))
    since = "the fault" if any(mark.name == "fault" for mark in plot.marks) else "the start of the curve"
    name = _text(name)
    return "\n".join(
        (
            (
                f'<svg class="plot" viewBox="0 0 {size.width} {size.height}" role="img" font-size="{size.letter}" '
                f'aria-labelledby="{name}-title {name}-desc" xmlns="http://www.w3.org/2000/svg">'
            ),
            f'<title id="{name}-title">{_text(plot.title)}</title>',
            f'<desc id="{name}-desc">{_text(plot.description)}</desc>',
            *_band(plot, frame),
            *_value_axis(frame, ticks, unit, size),
            *_time_axis(frame, zero, since, size),
            *_expected(plot, frame, factor, unit, size),
            *_curve(plot.points, frame, factor),
            *_marks(frame, size, rows),
            "</svg>",
        )
    )


def _text(text: str) -> str:
    """Escape a text, and drop what XML 1.0 cannot carry."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text), quote=True)


def _frame(
    plot: Plot, values: Sequence[float], factor: float, size: Size, label_rows: int
) -> tuple[_Frame, tuple[float, ...]]:
    held = [*values, 0.0] + ([plot.expected[1] * factor] if plot.expected else [])
    low, high = min(held), max(held)
    if high - low < 1e-9 * max(1.0, abs(high), abs(low)):  # flat: an axis needs some height
        high = low + max(1.0, abs(low))
    ticks = nice_ticks(low, high, 4)
    at = [point[0] for point in plot.points] + [mark.at for mark in plot.marks]
    start, end = min(at), max(at)
    widest = max(len(figure(tick)) for tick in ticks)
    frame = _Frame(
        left=10 + widest * size.letter * _LETTER,
        right=size.width - 12.0,
        top=size.letter * (1.9 + 1.35 * label_rows),
        bottom=size.height - size.letter * 3.6,
        start=start,
        end=end if end > start else start + SECOND,
        low=ticks[0],
        high=ticks[-1] + (ticks[-1] - ticks[0]) * 0.04,
    )
    return frame, ticks


def _value_axis(frame: _Frame, ticks: Sequence[float], unit: str, size: Size) -> list[str]:
    lines = []
    for tick in ticks:
        y = frame.y(tick)
        lines.append(f'<line class="grid" x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{y}" y2="{y}"/>')
        lines.append(
            f'<text class="axis" x="{frame.left - 6:.1f}" y="{y + size.letter * 0.35:.1f}" '
            f'text-anchor="end">{figure(tick)}</text>'
        )
    if unit:
        lines.append(f'<text class="axis unit" x="2" y="{frame.top - size.letter * 0.75:.1f}">{_text(unit)}</text>')
    return lines


def _time_axis(frame: _Frame, zero: int, since: str, size: Size) -> list[str]:
    span = (frame.end - frame.start) / SECOND
    divisor, unit = (60.0, "minutes") if span > 600 else (1.0, "seconds")  # noqa: PLR2004 - ten minutes of seconds crowd the axis
    low, high = (frame.start - zero) / SECOND / divisor, (frame.end - zero) / SECOND / divisor
    lines = [
        f'<line class="base" x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{frame.bottom:.1f}" y2="{frame.bottom:.1f}"/>'  # noqa: E501 - a sentence or a table row stays whole
    ]
    y = frame.bottom + size.letter * 1.5
    for tick in nice_ticks(low, high, size.width // 90):
        if low - 1e-9 <= tick <= high + 1e-9:
            x = frame.x(zero + round(tick * divisor * SECOND))
            lines.append(f'<line class="base" x1="{x}" x2="{x}" y1="{frame.bottom:.1f}" y2="{frame.bottom + 4:.1f}"/>')
            lines.append(f'<text class="axis" x="{x}" y="{y:.1f}" text-anchor="middle">{figure(tick)}</text>')
    middle = (frame.left + frame.right) / 2
    lines.append(
        f'<text class="axis unit" x="{middle:.1f}" y="{y + size.letter * 1.5:.1f}" text-anchor="middle">'
        f"{unit} since {since}</text>"
    )
    return lines


def _expected(plot: Plot, frame: _Frame, factor: float, unit: str, size: Size) -> list[str]:
    if plot.expected is None:
        return []
    relation, value = plot.expected
    y = frame.y(value * factor)
    label = f"proof asks {relation} {figure(value * factor)} {unit}".rstrip()
    below = y - frame.top < size.letter * 1.6
    return [
        f'<line class="expected" x1="{frame.left:.1f}" x2="{frame.right:.1f}" y1="{y}" y2="{y}"/>',
        (
            f'<text class="expected-label" x="{frame.right:.1f}" y="{y + (size.letter * 1.3 if below else -5):.1f}" '
            f'text-anchor="end">{_text(label)}</text>'
        ),
    ]


def _pieces(points: Sequence[tuple[Instant, float]]) -> list[list[tuple[Instant, float]]]:
    """Cut the curve where values are missing: between samples more than three usual steps apart nothing is known."""
    steps = sorted(later[0] - earlier[0] for earlier, later in pairwise(points))
    usual = steps[len(steps) // 2] if steps else 0
    pieces: list[list[tuple[Instant, float]]] = [[]]
    for at, value in points:
        if not math.isfinite(value):
            pieces.append([])
            continue
        if pieces[-1] and at - pieces[-1][-1][0] > 3 * usual:
            pieces.append([])
        pieces[-1].append((at, value))
    return [piece for piece in pieces if piece]


def _curve(points: Sequence[tuple[Instant, float]], frame: _Frame, factor: float) -> list[str]:
    flags = all(value in {0.0, 1.0} for _, value in points if math.isfinite(value))
    lines = []
    for piece in _pieces(points):
        if len(piece) == 1:
            lines.append(
                f'<circle class="dot" cx="{frame.x(piece[0][0])}" cy="{frame.y(piece[0][1] * factor)}" r="2.5"/>'
            )
            continue
        path = [f"M{frame.x(piece[0][0])} {frame.y(piece[0][1] * factor)}"]
        for at, value in piece[1:]:
            # A flag holds until the next sample: a slope between 0 and 1 would be a value nobody saw.
            path.append(
                f"H{frame.x(at)}V{frame.y(value * factor)}" if flags else f"L{frame.x(at)} {frame.y(value * factor)}"
            )
        lines.append(f'<path class="curve" d="{"".join(path)}"/>')
    return lines


def _band(plot: Plot, frame: _Frame) -> list[str]:
    """Shade the time from the fault (or alert) to the proof (or the end of the incident)."""
    at = {mark.name: mark.at for mark in plot.marks}
    start = at.get("fault", at.get("alert"))
    if start is None:
        return []
    x, end = frame.x(start), frame.x(at.get("proof", at.get("resolved", Instant(frame.end))))
    if end <= x:
        return []
    return [
        f'<rect class="band" x="{x}" y="{frame.top:.1f}" width="{end - x:.1f}" height="{frame.bottom - frame.top:.1f}"/>'  # noqa: E501 - a sentence or a table row stays whole
    ]


def _label_span(mark: Mark, frame: _Frame, size: Size) -> tuple[float, float]:
    """Return from where to where a mark's label reaches: right of its line, or left of it at the edge."""
    x = frame.x(mark.at)
    width = (len(mark.name) + 0.5) * size.letter * _LETTER
    return (x + 4, x + 4 + width) if x + 4 + width <= size.width else (x - 4 - width, x - 4)


def _label_rows(plot: Plot, frame: _Frame, size: Size) -> dict[Mark, int]:
    """Give each mark's label the highest row in which it touches no other label."""
    taken: list[list[tuple[float, float]]] = []
    rows: dict[Mark, int] = {}
    for mark in sorted(plot.marks, key=lambda mark: mark.at):
        left, right = _label_span(mark, frame, size)
        free = (n for n, row in enumerate(taken) if all(right + 4 <= start or end + 4 <= left for start, end in row))
        row = next(free, len(taken))
        if row == len(taken):
            taken.append([])
        taken[row].append((left, right))
        rows[mark] = row
    return rows


def _marks(frame: _Frame, size: Size, rows: dict[Mark, int]) -> list[str]:
    lines = []
    for mark, row in rows.items():
        x = frame.x(mark.at)
        kind = mark.name if mark.name in MARKS else "other"
        y = size.letter * (1.1 + 1.35 * row)
        left, right = _label_span(mark, frame, size)
        anchor, at = ("start", left) if left > x else ("end", right)
        lines.append(f'<g class="mark mark-{kind}"><line x1="{x}" x2="{x}" y1="{y - 9:.1f}" y2="{frame.bottom:.1f}"/>')
        lines.append(f'<text x="{at:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_text(mark.name)}</text></g>')
    return lines
