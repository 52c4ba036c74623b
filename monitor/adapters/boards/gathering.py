"""What a board shows now: the series of each panel and the events over them, as far as Prometheus has them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kernel.errors import PermanentError
from kernel.time import SECOND, Duration, Instant, to_seconds
from monitor.adapters.boards.reading import Document
from monitor.ports import Metrics

POINTS: Final = 150
SERIES_MAX: Final = 60
"""More lines than this nobody tells apart; the page says how many it left out."""
_AT_ONCE: Final = 4
_LEGEND: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_HIDDEN: Final = frozenset({"__name__", "instance"})


@dataclass(frozen=True)
class Series:
    """One line: its name, labels, and points (seconds since the epoch, value), finite ones only."""

    name: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """Its newest value."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Shown:
    """What one panel shows."""

    panel: Mapping[str, Any]
    series: Sequence[Series]
    left_out: int = 0
    trouble: str = ""


@dataclass(frozen=True)
class Event:
    """One event of an annotation."""

    at: float
    colour: str
    text: str


@dataclass(frozen=True)
class Scene:
    """A board with all that it shows."""

    board: Document
    start: float
    end: float
    step: float
    panels: Sequence[Shown]
    events: Sequence[Event]


async def scene(board: Document, prometheus: Metrics, end: Instant, span: Duration) -> Scene:
    """Ask all that a board shows over `span` up to `end`.

    Raises:
        TemporaryError: Prometheus cannot be reached.
    """
    start = Instant(end - span)
    step = Duration(max(1, math.ceil(to_seconds(span) / POINTS)) * SECOND)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def panel(one: Mapping[str, Any]) -> Shown:
        async with gate:
            return await _panel(board, one, prometheus, start, end, step)

    async def event(one: Mapping[str, Any]) -> list[Event]:
        async with gate:
            return await _events(board, one, prometheus, start, end)

    shown = await asyncio.gather(*(panel(one) for _, one in board.panels))
    events = await asyncio.gather(*(event(one) for one in board.value.get("annotations", {}).get("list", [])))
    found = sorted((one for some in events for one in some), key=lambda one: one.at)
    return Scene(board, to_seconds(start), to_seconds(end), to_seconds(step), shown, found)


async def _panel(
    board: Document, panel: Mapping[str, Any], prometheus: Metrics, start: Instant, end: Instant, step: Duration
) -> Shown:
    found: list[Series] = []
    for target in panel.get("targets", []):
        begin = end if target.get("instant") else start
        try:
            curves = await prometheus.curve(board.filled(str(target.get("expr"))), begin, end, step)
        except PermanentError as error:
            return Shown(panel, (), trouble=str(error))
        for curve in curves:
            points = [(to_seconds(at), value) for at, value in curve.points if math.isfinite(value)]
            if points:
                found.append(Series(_name(str(target.get("legendFormat", "")), curve.labels), curve.labels, points))
    found.sort(key=lambda one: one.name) if len(panel.get("targets", [])) == 1 else None
    kept = found if panel.get("type") == "heatmap" else found[:SERIES_MAX]
    return Shown(panel, kept, len(found) - len(kept))


def _name(legend: str, labels: Mapping[str, str]) -> str:
    if legend and legend != "__auto":
        return _LEGEND.sub(lambda found: labels.get(found[1], ""), legend).strip() or "value"
    return ", ".join(value for label, value in sorted(labels.items()) if label not in _HIDDEN) or "value"


async def _events(
    board: Document, one: Mapping[str, Any], prometheus: Metrics, start: Instant, end: Instant
) -> list[Event]:
    step = Duration(5 * SECOND)
    try:
        curves = await prometheus.curve(board.filled(str(one.get("expr"))), start, end, step)
    except PermanentError:
        return []
    found = []
    for curve in curves:
        before = -math.inf
        for at, _ in curve.points:
            if to_seconds(at) - before > to_seconds(step) * 1.5:
                text = _name(str(one.get("titleFormat")), curve.labels)
                found.append(Event(to_seconds(at), str(one.get("iconColor")), text))
            before = to_seconds(at)
    return found
