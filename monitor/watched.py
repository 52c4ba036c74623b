"""Which series detectors watch: what each asks Prometheus, and how its answer is told apart from the others.

All of them are one question (`union`): each part gets the label `series` with the id of its entry and the label `item`
with the value that it splits by, so that one answer holds everything and no two parts can be taken for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from monitor.promql import quoted

WINDOW: Final = "$window"
"""Stands in a query for the window of its rates."""
BY_JOB: Final = "$job"
"""A service that is the label `job` of the result."""
BUILDS: Final = ":builds"
PROCESSES: Final = ":processes"
"""Ids of the two questions asked beside the series: which version runs, and since when. No entry has a colon."""


class Harm(StrEnum):
    """In which direction a series does harm; on the other side it is shown and asks for nobody."""

    BOTH = "both"
    UP = "up"
    DOWN = "down"


class Renews(StrEnum):
    """What makes the past of a series worthless."""

    BUILD = "build"
    """Another version of the program."""
    PROCESS = "process"
    """A new process as well: its memory and its processor time begin anew."""


@dataclass(frozen=True)
class Watched:
    """One entry of the list."""

    id: str
    query: str
    """PromQL over metrics of the catalogue, with `$window` for the window of rates."""
    service: str
    """Whose it is, or `$job`."""
    unit: str
    """As it stands behind a value in a sentence."""
    reason: str
    by: str = ""
    """The one label that it splits by; empty: it gives one series."""
    most: int = 1
    """Parts at most; what is above is left out and counted."""
    harm: Harm = Harm.BOTH
    least: float = 0.0
    """The smallest departure from its usual value that matters to anybody, in its own unit."""
    least_share: float = 0.0
    """The same as a share of the usual value; the larger of the two counts."""
    session: bool = False
    """Whether it follows the phases of the market, so that the calendar explains its changes."""
    renews: Renews = Renews.BUILD
    follows: str = ""
    """The entry of the same service whose movements this one repeats; a ranking of causes names that one first."""
    where: str = ""
    """File and line."""


def union(watched: Sequence[Watched], window_s: int) -> str:
    """Return the one question for all of them, and for versions and starts of processes."""
    return " or ".join([*(labelled(one, window_s) for one in watched), lives()])


def lives() -> str:
    """Return the question which version of each process runs, and since when."""
    builds = _named(BUILDS, 'max by (job, replica, version) (tapewatch_build_info{job!=""})', "replica")
    processes = _named(PROCESSES, 'max by (job, replica) (process_start_time_seconds{replica!=""})', "replica")
    return f"{builds} or {processes}"


def labelled(one: Watched, window_s: int) -> str:
    """Return the question of one entry with the labels that tell it apart."""
    return _named(one.id, filled(one.query, window_s), one.by)


def filled(query: str, window_s: int) -> str:
    """Return a query with its window filled in."""
    return query.replace(WINDOW, f"{window_s}s")


def _named(name: str, query: str, by: str) -> str:
    split = f'label_replace({query}, "item", "$1", {quoted(by)}, "(.*)")' if by else query
    return f'label_replace({split}, "series", {quoted(name)}, "", "")'
