"""Every question of the boards asked of a live Prometheus: which of them find nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kernel.errors import InputError, PermanentError
from kernel.time import SECOND, Duration, Instant
from monitor.adapters import yaml_places
from monitor.adapters.boards.files import ROOM
from monitor.adapters.boards.reading import Document, Query, label_values
from monitor.ports import Curve, Metrics
from monitor.promql import metric_names

SILENT: Final = ROOM / "silent.yml"
LOOK_BACK: Final = Duration(60 * SECOND)
EVENTS_BACK: Final = Duration(900 * SECOND)
STEP: Final = Duration(5 * SECOND)
_AT_ONCE: Final = 4
KINDS: Final = ("distributed", "kubernetes")
"""The kinds of estate with series of their own."""


@dataclass(frozen=True)
class Verdict:
    """What one question found."""

    query: Query
    series: int
    excuse: str = ""
    """Why it may find nothing; empty when it may not."""
    trouble: str = ""
    """What Prometheus said against it."""

    @property
    def dead(self) -> bool:
        """Whether it is wrong or finds nothing without an excuse."""
        return bool(self.trouble) or (not self.series and not self.excuse)

    def sentence(self) -> str:
        """Say what is dead, with file and line."""
        why = self.trouble or "finds nothing on a live Prometheus; mend it, or declare its series in silent.yml"
        return f"{self.query.where}: {self.query.kind} {self.query.title}: {self.query.expr}: {why}"


@dataclass(frozen=True)
class Excuse:
    """Why the series of one name may be silent."""

    series: str
    why: str
    only: str = ""
    """The one kind of estate that fills it, `distributed` or `kubernetes`; empty when none always does."""


def declared(path: Path = SILENT) -> tuple[Excuse, ...]:
    """Return the series that may be silent.

    Raises:
        InputError: the file is broken; names file and line.
    """
    value, lines = yaml_places.read(path)
    entries = value.get("silent") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"{path}:1", "no list `silent`", right="silent: [{series: ..., why: ...}]")
    found: list[Excuse] = []
    for place, entry in enumerate(entries):
        where = f"{path}:{lines.get(('silent', place), 1)}"
        if not isinstance(entry, dict) or not entry.get("series") or not entry.get("why"):
            raise InputError(where, "an entry is a series and a why", right="{series: kube_, why: no Kubernetes}")
        if set(entry) - {"series", "why", "only"} or entry.get("only", KINDS[0]) not in KINDS:
            right = f"besides series and why at most `only`, one of {', '.join(KINDS)}"
            raise InputError(where, "an entry says more than it may", right=right)
        found.append(Excuse(str(entry["series"]), str(entry["why"]), entry.get("only", "")))
    return tuple(found)


def excuses(path: Path = SILENT, *, estate: str = "local") -> dict[str, str]:
    """Return the series that may be silent on this kind of estate, and why.

    Raises:
        InputError: the file is broken; names file and line.
    """
    return {one.series: one.why for one in declared(path) if one.only != estate}


def others(path: Path = SILENT, *, estate: str = "local") -> dict[str, str]:
    """Return, of the excuses, those that stand for another kind of estate: nothing here could ever answer them.

    Raises:
        InputError: the file is broken; names file and line.
    """
    return {one.series: one.why for one in declared(path) if one.only not in {"", estate}}


def excuse_of(expr: str, silent: Mapping[str, str]) -> str:
    """Return why a question, with its variables filled in, may find nothing; empty when it may not."""
    return next((why for series, why in silent.items() if _asks_for(expr, series)), "")


def _asks_for(expr: str, series: str) -> bool:
    if "{" in series:
        return series in expr
    names = metric_names(expr)
    return any(name == series or (series.endswith("_") and name.startswith(series)) for name in names)


def idle_excuses(boards: Sequence[Document], silent: Mapping[str, str]) -> list[str]:
    """Return the declared series that no board asks for: an excuse nobody needs hides the next fault."""
    asked = [board.filled(query.expr) for board in boards for query in board.queries()]
    return [series for series in silent if not any(_asks_for(expr, series) for expr in asked)]


async def ask_all(
    boards: Sequence[Document], prometheus: Metrics, now: Instant, silent: Mapping[str, str]
) -> list[Verdict]:
    """Ask every question of the boards; the answers stand in the order of the questions.

    Raises:
        TemporaryError: Prometheus cannot be reached.
    """
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(board: Document, query: Query) -> Verdict:
        asked = label_values(query.expr) if query.kind == "variable" else None
        text = f"count by ({asked[1]}) ({asked[0]})" if asked else query.expr
        excuse = excuse_of(board.filled(query.expr), silent)
        back = EVENTS_BACK if query.kind == "annotation" else LOOK_BACK
        async with gate:
            try:
                curves = await prometheus.curve(board.filled(text), Instant(now - back), now, STEP)
            except PermanentError as error:
                return Verdict(query, 0, trouble=str(error))
        return Verdict(query, sum(map(_speaks, curves)), excuse)

    return list(await asyncio.gather(*(one(board, query) for board in boards for query in board.queries())))


def _speaks(curve: Curve) -> bool:
    return any(math.isfinite(value) for _, value in curve.points)
