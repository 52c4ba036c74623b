"""Panels as pictures: lines, figures, dials, bars, tables, heat and states, in SVG and HTML. Every text is escaped."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, Final

from monitor.adapters.boards.figures import shown
from monitor.adapters.boards.gathering import Scene, Series, Shown
from monitor.adapters.boards.model import GREY

PALETTE: Final = (
    "#3c7dd9", "#e8743b", "#2f9e5b", "#8b6fd1", "#1b9aaa", "#c2549d", "#b58900", "#5f6caf", "#7fb069", "#d1495b",
    "#00798c", "#9c6644",
)  # fmt: skip
_SIZE: Final = 1000.0
"""Charts are drawn on a square and stretched: text stands beside them, in HTML, and is not stretched."""
_TICKS: Final = 4
_ROWS_MAX: Final = 30
_FILLED_MAX: Final = 4
"""With more lines than this, what is filled below them is mud."""
_LONG: Final = 10


def draw(one: Shown, scene: Scene) -> str:
    """Return the inside of a panel."""
    if one.trouble:
        return f'<p class="trouble">{escape(one.trouble)}</p>'
    if not one.series:
        return f'<p class="none">{escape(str(_defaults(one).get("noValue") or "no data"))}</p>'
    return _DRAWERS.get(str(one.panel.get("type")), _lines)(one, scene)


def _defaults(one: Shown) -> Mapping[str, Any]:
    found: Mapping[str, Any] = one.panel.get("fieldConfig", {}).get("defaults", {})
    return found


def _unit(one: Shown) -> str:
    return str(_defaults(one).get("unit", "short"))


def _figure(one: Shown, value: float) -> str:
    """Return a value as the panel shows it: a word where it has one."""
    for mapping in _defaults(one).get("mappings") or []:
        word = mapping.get("options", {}).get(f"{value:g}")
        if word:
            return str(word.get("text"))
    return shown(value, _unit(one), _defaults(one).get("decimals"))


def _limit_colour(one: Shown, value: float) -> str:
    for mapping in _defaults(one).get("mappings") or []:
        word = mapping.get("options", {}).get(f"{value:g}")
        if word:
            return _safe(word.get("color"))
    colour = "#8a8f99"
    for step in _steps(one):
        if step.get("value") is None or value >= step["value"]:
            colour = _safe(step.get("color"))
    return colour


def _steps(one: Shown) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = _defaults(one).get("thresholds", {}).get("steps", [])
    return found


def _safe(colour: object) -> str:
    """Return a colour that is one, so that a board's file cannot write into the page's styles."""
    return str(colour) if re.fullmatch(r"#[0-9a-fA-F]{3,8}", str(colour)) else "#8a8f99"


def colours(one: Shown) -> list[str]:
    """Return the colour of each series: by its meaning where a rule says one, else the next of the palette."""
    rules = []
    for override in one.panel.get("fieldConfig", {}).get("overrides", []):
        found = re.fullmatch(r"/(.*)/(i?)", str(override.get("matcher", {}).get("options", "")))
        fixed = [prop["value"] for prop in override.get("properties", []) if prop.get("id") == "color"]
        if found and fixed:
            rules.append((re.compile(found[1], re.IGNORECASE if found[2] else 0), fixed[-1].get("fixedColor")))
    given, fresh = [], 0
    for series in one.series:
        fixed = [colour for pattern, colour in rules if pattern.search(series.name)]
        if fixed and (_safe(fixed[-1]) not in given or _safe(fixed[-1]) == GREY):
            given.append(_safe(fixed[-1]))
        else:
            given.append(PALETTE[fresh % len(PALETTE)])
            fresh += 1
    return given


def _nice(low: float, high: float) -> tuple[float, float, list[float]]:
    """Return bounds and ticks of an axis."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / _TICKS
    size = 10.0 ** math.floor(math.log10(rough))
    step = next((size * each for each in (1, 2, 2.5, 5) if size * each >= rough), size * 10)
    first, last = math.floor(low / step) * step, math.ceil(high / step) * step
    return first, last, [first + step * place for place in range(round((last - first) / step) + 1)]


def _stacked(series: Sequence[Series]) -> list[list[tuple[float, float, float]]]:
    base: dict[float, float] = {}
    layers = []
    for one in series:
        layer = []
        for at, value in one.points:
            below = base.get(at, 0.0)
            base[at] = below + value
            layer.append((at, below, below + value))
        layers.append(layer)
    return layers


def _lines(one: Shown, scene: Scene) -> str:
    custom = _defaults(one).get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    layers = _stacked(one.series) if stacked else [[(at, 0.0, value) for at, value in s.points] for s in one.series]
    values = [value for layer in layers for _, _, value in layer]
    low = min(0.0, *values) if min(values) >= 0 or stacked else min(values)
    top = max(values)
    if top == low == 0:  # an idle panel shows where its first limit lies
        top = next((step["value"] for step in _steps(one) if step.get("value")), 1.0)
    low, high, ticks = _nice(low, top)

    def place(at: float, value: float) -> str:
        x = (at - scene.start) / (scene.end - scene.start) * _SIZE
        return f"{x:.1f},{(high - value) / (high - low) * _SIZE:.1f}"

    grid = "".join(f'<path class="grid" d="M{place(scene.start, t)}L{place(scene.end, t)}"/>' for t in ticks)
    marks = "".join(
        f'<path class="limit" stroke="{_safe(step.get("color"))}" d="M{place(scene.start, step["value"])}'
        f'L{place(scene.end, step["value"])}"/>'
        for step in _steps(one)
        if step.get("value") is not None and low <= step["value"] <= high and len(_steps(one)) > 1
    )
    events = "".join(
        f'<path class="event" stroke="{_safe(event.colour)}" d="M{place(event.at, low)}L{place(event.at, high)}">'
        f"<title>{escape(event.text)}</title></path>"
        for event in scene.events
    )
    weight = 0.55 if stacked else 0.1 if len(layers) <= _FILLED_MAX else 0.0
    drawn = "".join(
        _line(layer, colour, place, scene.step, weight)
        for layer, colour, series in zip(layers, colours(one), one.series, strict=True)
        if not stacked or _speaks(series)
    )
    svg = f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">{grid}{events}{drawn}{marks}</svg>'
    axis = "".join(
        f'<span style="top:{(high - t) / (high - low) * 100:.1f}%">{escape(shown(t, _unit(one)))}</span>' for t in ticks
    )
    return f'<div class="chart"><div class="ys">{axis}</div>{svg}{_times(scene)}</div>{_legend(one)}'


def _line(
    layer: Sequence[tuple[float, float, float]], colour: str, place: Callable[[float, float], str], step: float,
    weight: float,
) -> str:  # fmt: skip
    """Draw one line; a gap of more than two steps stays a gap."""
    runs: list[list[tuple[float, float, float]]] = []
    for point in layer:
        if not runs or point[0] - runs[-1][-1][0] > 2.1 * step:
            runs.append([])
        runs[-1].append(point)
    drawn = []
    for run in runs:
        top = "L".join(place(at, high) for at, _, high in run)
        if len(run) == 1:
            top += f"L{place(run[0][0] + step / 2, run[0][2])}"
        bottom = "L".join(place(at, low) for at, low, _ in reversed(run))
        drawn.append(f'<path class="area" fill="{colour}" fill-opacity="{weight}" d="M{top}L{bottom}Z"/>')
        drawn.append(f'<path class="line" stroke="{colour}" d="M{top}"/>')
    return "".join(drawn)


def _speaks(series: Series) -> bool:
    return any(value for _, value in series.points)


def _times(scene: Scene) -> str:
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    text = "".join(
        f'<span style="left:{share * 100:g}%">'
        f"{time.strftime('%H:%M:%S', time.gmtime(scene.start + share * (scene.end - scene.start)))}</span>"
        for share in shares
    )
    return f'<div class="xs">{text}</div>'


def _legend(one: Shown) -> str:
    pairs = sorted(zip(one.series, colours(one), strict=True), key=lambda pair: not _speaks(pair[0]))
    items = "".join(
        f'<li{"" if _speaks(series) else " class=still"}><i style="background:{colour}"></i>{escape(series.name)} '
        f"<b>{escape(_figure(one, series.last))}</b></li>"
        for series, colour in pairs
    )
    more = f"<li>{one.left_out} more are not drawn</li>" if one.left_out else ""
    return f'<ul class="legend">{items}{more}</ul>'


def _stat(one: Shown, scene: Scene) -> str:
    parts = []
    for series in one.series:
        colour = _limit_colour(one, series.last)
        name = f"<small>{escape(series.name)}</small>" if len(one.series) > 1 else ""
        text = _figure(one, series.last)
        size = ";font-size:19px" if len(text) > _LONG else ""
        parts.append(f'<div class="figure" style="color:{colour}{size}">{escape(text)}{name}</div>')
    spark = ""
    if len(one.series) == 1 and len(one.series[0].points) > 1:
        spark = _spark(one.series[0], scene, _limit_colour(one, one.series[0].last))
    return f'<div class="stat">{"".join(parts)}{spark}</div>'


def _spark(series: Series, scene: Scene, colour: str) -> str:
    values = [value for _, value in series.points]
    low, high = min(values), max(values)
    room = (high - low) or 1.0

    def place(at: float, value: float) -> str:
        x = (at - scene.start) / (scene.end - scene.start) * _SIZE
        return f"{x:.1f},{900 - (value - low) / room * 800:.1f}"

    layer = [(at, low - room / 8, value) for at, value in series.points]
    return (
        f'<svg class="spark" viewBox="0 0 1000 1000" preserveAspectRatio="none">'
        f"{_line(layer, colour, place, scene.step, 0.1)}</svg>"
    )


def _gauge(one: Shown, _: Scene) -> str:
    value = one.series[0].last
    low, high = float(_defaults(one).get("min", 0)), float(_defaults(one).get("max", 1))
    share = min(1.0, max(0.0, (value - low) / ((high - low) or 1)))
    limits = [step for step in _steps(one) if step.get("value") is not None and low < step["value"] < high]
    ends = [low, *(step["value"] for step in limits), high]
    ring = "".join(
        _arc(92, (begin - low) / (high - low), (end - low) / (high - low), _limit_colour(one, begin), 5)
        for begin, end in pairwise(ends)
    )
    colour = _limit_colour(one, value)
    return (
        f'<svg class="dial" viewBox="0 0 200 118"><g fill="none">{_arc(76, 0, 1, "var(--track)", 20)}'
        f"{_arc(76, 0, max(share, 0.005), colour, 20)}{ring}</g>"
        f'<text x="100" y="98" text-anchor="middle" fill="{colour}">{escape(_figure(one, value))}</text></svg>'
    )


def _arc(radius: float, begin: float, end: float, colour: str, width: float) -> str:
    def point(share: float) -> str:
        angle = math.pi * (1 - share)
        return f"{100 + radius * math.cos(angle):.2f},{104 - radius * math.sin(angle):.2f}"

    way = f"M{point(begin)}A{radius:g},{radius:g} 0 0 1 {point(end)}"
    return f'<path stroke="{colour}" stroke-width="{width:g}" d="{way}"/>'


def _bars(one: Shown, _: Scene) -> str:
    top = _defaults(one).get("max")
    high = float(top) if top is not None else max(*(series.last for series in one.series), 0.0) or 1.0
    rows = "".join(
        f'<div class="bar"><span>{escape(series.name)}</span><div><i style="width:'
        f'{min(100.0, max(0.5, series.last / high * 100)):.1f}%;background:{_limit_colour(one, series.last)}">'
        "</i></div>"
        f"<b>{escape(_figure(one, series.last))}</b></div>"
        for series in sorted(one.series, key=lambda series: -series.last)[:_ROWS_MAX]
    )
    return f'<div class="bars">{rows}</div>'


def _table(one: Shown, _: Scene) -> str:
    heads = sorted({label for series in one.series for label in series.labels} - {"__name__", "instance"})
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(series.labels.get(head, ''))}</td>" for head in heads)
        + f'<td style="color:{_limit_colour(one, series.last)}">{escape(_figure(one, series.last))}</td></tr>'
        for series in one.series[:_ROWS_MAX]
    )  # fmt: skip
    head = "".join(f"<th>{escape(each)}</th>" for each in [*heads, "value"])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _heat(one: Shown, scene: Scene) -> str:
    bounds = sorted(
        ((_bound(series.labels.get("le", "")), dict(series.points)) for series in one.series), key=lambda pair: pair[0]
    )
    cells: list[tuple[int, float, float]] = []
    before: dict[float, float] = {}
    for row, (_, points) in enumerate(bounds):
        cells.extend((row, at, value - before.get(at, 0.0)) for at, value in points.items())
        before = points
    cells = [cell for cell in cells if cell[2] > 0]
    used = [row for row, _, _ in cells] or [0]
    first, last = max(0, min(used) - 1), max(used) + 1
    most = max((math.log1p(value) for _, _, value in cells), default=1.0) or 1.0
    tall, wide = _SIZE / (last - first), scene.step / (scene.end - scene.start) * _SIZE
    drawn = "".join(
        f'<rect x="{(at - scene.start) / (scene.end - scene.start) * _SIZE:.1f}" y="{(last - 1 - row) * tall:.1f}" '
        f'width="{wide:.1f}" height="{tall:.1f}" fill="#e8743b" '
        f'fill-opacity="{0.08 + 0.92 * math.log1p(value) / most:.2f}"/>'
        for row, at, value in cells
    )
    axis = "".join(
        f'<span style="top:{(last - 1 - row) * tall / 10:.1f}%">{escape(shown(bounds[row][0], _unit(one)))}</span>'
        for row in range(first, min(last, len(bounds)), max(1, (last - first) // 6))
    )
    svg = f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none">{drawn}</svg>'
    return f'<div class="chart"><div class="ys">{axis}</div>{svg}{_times(scene)}</div>'


def _bound(text: str) -> float:
    try:
        return float(text.replace("+Inf", "inf"))
    except ValueError:
        return math.inf


def _states(one: Shown, scene: Scene) -> str:
    rows = []
    for series in one.series[:_ROWS_MAX]:
        spans: list[tuple[float, float, float]] = []
        for at, value in series.points:
            end = min(scene.end, at + scene.step)
            if spans and spans[-1][2] == value and at - spans[-1][1] < 1.1 * scene.step:
                spans[-1] = (spans[-1][0], end, value)
            else:
                spans.append((at, end, value))
        whole = scene.end - scene.start
        drawn = "".join(
            f'<i title="{escape(_figure(one, value))}" style="left:{(begin - scene.start) / whole * 100:.2f}%;'
            f'width:{(end - begin) / whole * 100:.2f}%;background:{_limit_colour(one, value)}">'
            f"{escape(_figure(one, value)) if end - begin > whole / 8 else ''}</i>"
            for begin, end, value in spans
        )
        rows.append(f'<div class="state"><span>{escape(series.name)}</span><div>{drawn}</div></div>')
    return f'<div class="states">{"".join(rows)}</div>'


_DRAWERS: Final[Mapping[str, Callable[[Shown, Scene], str]]] = {
    "timeseries": _lines, "stat": _stat, "gauge": _gauge, "bargauge": _bars, "table": _table, "heatmap": _heat,
    "state-timeline": _states,
}  # fmt: skip
