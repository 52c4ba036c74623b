"""What moved first: ranks the services of a plant as the cause of an incident, each against its rivals.

Every series is judged by itself (`anomaly.movement`); what is left is a handful of services that moved, with instants
and sizes. Each is a hypothesis and gets points, 0 to 1, for five things:

    first     how long after the first movement of all it began: exp(-delay / tau)
    most      how far its farthest series went: log(1 + size) / log(1 + largest size)
    explains  the share of the other movements, by size, that its place in the graph explains: those of services that
              stand on it, later than its own; half for a flow that dries up on the way down; less for every service
              that stands directly on it, was watched and did not move
    about     whether the service that the alert speaks of is it, or stands on it
    change    whether a restart or a deploy of it came shortly before

and loses some when a service that it stands on moved before it. The weights are the same for every plant. A fault that
was injected on purpose is told as evidence and counts for nothing: a drill must not answer itself. There are always two
hypotheses at least; the last resort is that the cause lies outside of what is watched.

The idea of walking a graph with the times and sizes of anomalies is that of MonitorRank (Kim, Sumbaly, Shah,
SIGMETRICS 2013) and of CauseInfer (Chen et al., INFOCOM 2014); random walks are left out, because each point must be
sayable in words. A small movement that stands alone is often chance and counts for less.

Cost: 10 ms for 100 series of 300 readings.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from anomaly.movement import Move, Track, Verdict, Window, judge, known_to_move, step_of
from kernel.graph import Graph, upstream
from kernel.time import MINUTE, SECOND, Duration, Instant

SERIES_MAX: Final = 500
"""Series that are looked at; what is above is left out by name and counted."""
HYPOTHESES_MAX: Final = 5
OUTSIDE: Final = "outside"
"""The hypothesis that nothing watched is the cause."""
_WEIGHTS: Final = {"first": 0.25, "most": 0.20, "explains": 0.25, "about": 0.20, "change": 0.10}
_PRECEDED: Final = 0.25
_STRONG: Final = 0.7
"""A service began to move with its first series of at least this share of its largest size, in logarithms."""
_STANDS_OUT: Final = 0.6
_MARGIN: Final = 0.15
"""Of 400 made incidents, four in five stand out with this margin, and 92 in 100 of those name the culprit."""
_CHANCE: Final = 2.0
_SURE: Final = 4.0
"""A service that moved with one series alone, and nothing else near it in time, is believed from `_CHANCE` deviations
on, and wholly at so many more."""
_HALF: Final = 0.5
_FLOW: Final = 0.5
_NO_WAY: Final = 0.6
"""What has no way to the alert's service in the graph keeps this share of its points."""
_REPEATS: Final = Duration(MINUTE)
"""What a series follows may be seen to move so much later: it may be the noisier one."""
_CHANGE_BEFORE: Final = Duration(2 * MINUTE)
_BLIND: Final = 0.8
"""When this share of all series ends at once, it is their reader that failed."""


class ChangeKind(enum.StrEnum):
    """What was done to a service."""

    RESTART = "restart"
    DEPLOY = "deploy"
    FAULT = "fault"
    """Broken on purpose; told, and not counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Something that was done to a service, in words: `gateway-1 was started`."""

    at: Instant
    service: str
    kind: ChangeKind
    words: str


@dataclasses.dataclass(frozen=True, slots=True)
class Moved:
    """A series that moved."""

    metric: str
    unit: str
    move: Move
    follows: str = ""
    """As `Track.follows`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Suspect:
    """A service, what of it moved, and how its points came about."""

    service: str
    moved: tuple[Moved, ...]
    """The leading one first: of those that moved first, the one that moved most, and none before what it follows."""
    judged: int
    """How many of its series could be judged."""
    at: Instant | None
    """When it began to move; None when it did not."""
    size: float
    points: Mapping[str, float]
    score: float
    explains: tuple[str, ...] = ()
    """Services that moved after it and stand on it."""
    dries: tuple[str, ...] = ()
    """Services that it stands on and whose flow fell after it."""
    unexplained: tuple[str, ...] = ()
    """Other services that moved."""
    unmoved: tuple[str, ...] = ()
    """Services that stand directly on it and did not move although they were watched."""
    before: tuple[str, ...] = ()
    """Services that it stands on and that moved before it."""
    changes: tuple[Change, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """Everything about an incident that the ranking goes by."""

    window: Window
    about: str
    """The service that the alert speaks of."""
    suspects: tuple[Suspect, ...]
    """Best first, two at least."""
    stands_out: bool
    series: int
    judged: int
    moved: int
    left_out: int
    blind: bool
    """Nearly every series ended at once: nothing can be said."""


def rank(
    tracks: Sequence[Track],
    graph: Graph,
    window: Window,
    *,
    about: str = "",
    changes: Sequence[Change] = (),
    known: Collection[tuple[str, str]] = (),
) -> Case:
    """Rank which service moved first and most.

    Args:
        tracks: Series by service and metric, in any order; at most `SERIES_MAX` are looked at.
        graph: Which service depends on which.
        window: The time that is looked at.
        about: The service of the incident; unknown when empty.
        changes: What was done to services; only what came shortly before a movement is told of it.
        known: Service and metric of series of which a detector has said that they left their usual range.

    Returns:
        The case, the same for the same input in whatever order.
    """
    ordered = sorted(tracks, key=lambda track: (track.service, track.metric))
    looked = ordered[:SERIES_MAX]
    verdicts = [(track, _judged(track, window, known)) for track in looked]
    judged = [(track, verdict) for track, verdict in verdicts if isinstance(verdict, Move) or verdict is Verdict.STILL]
    moves = [(track, verdict) for track, verdict in judged if isinstance(verdict, Move)]
    gone = sum(move.gone for _, move in moves)
    blind = bool(judged) and gone >= max(3, _BLIND * len(judged))
    plant = _Plant(judged, [] if blind else moves, graph, about, changes, _tolerance(looked))
    suspects = plant.suspects()
    best, rival = suspects[0], suspects[1]
    clear = best.at is not None and best.score >= _STANDS_OUT and best.score - rival.score >= _MARGIN
    return Case(
        window=window,
        about=about,
        suspects=tuple(suspects[:HYPOTHESES_MAX]),
        stands_out=clear,
        series=len(ordered),
        judged=len(judged),
        moved=len(moves),
        left_out=len(ordered) - len(looked),
        blind=blind,
    )


def _judged(track: Track, window: Window, known: Collection[tuple[str, str]]) -> Move | Verdict:
    verdict = judge(track, window)
    found = known_to_move(track, window) if (track.service, track.metric) in known else None
    if found is None or (isinstance(verdict, Move) and (verdict.gone or verdict.size > found.size)):
        return verdict
    return found


def _tolerance(tracks: Sequence[Track]) -> Duration:
    """Return within which distance two movements count as one instant: two usual steps."""
    steps = sorted(step for track in tracks if (step := step_of(track.at)) > 0)
    return Duration(2 * steps[len(steps) // 2] if steps else SECOND)


class _Plant:
    """The movements by service, with the graph between them."""

    def __init__(
        self,
        judged: Sequence[tuple[Track, Move | Verdict]],
        moves: Sequence[tuple[Track, Move]],
        graph: Graph,
        about: str,
        changes: Sequence[Change],
        tolerance: Duration,
    ) -> None:
        self._graph, self._about, self._changes, self._tolerance = graph, about, changes, tolerance
        self._judged: dict[str, int] = {}
        for track, _ in judged:
            self._judged[track.service] = self._judged.get(track.service, 0) + 1
        self._moved: dict[str, list[Moved]] = {}
        for track, move in moves:
            self._moved.setdefault(track.service, []).append(Moved(track.metric, track.unit, move, track.follows))
        self._size = {name: max(one.move.size for one in moved) for name, moved in self._moved.items()}
        self._at = {name: self._began(name) for name in self._moved}
        largest = max(self._size.values(), default=0.0)
        self._largest = largest
        # Neither a small wobble long before everything else nor what has no way to the alert makes the rest late.
        strong = [name for name in self._at if self._weight(self._size[name]) >= _STRONG]
        near = [name for name in strong if self._concerns(name) and self._backing(name) > _HALF] or strong
        self._first = min((self._at[name] for name in near), default=0)
        self._tau = max(2 * tolerance, (max(self._at.values(), default=0) - self._first) / 3)

    def suspects(self) -> list[Suspect]:
        """Return the hypotheses, best first, two at least."""
        found = [self._suspect(name) for name in sorted(self._moved)]
        if self._about not in self._moved and self._judged.get(self._about):
            found.append(self._still(self._about))
        if len(found) < 2:  # noqa: PLR2004 - a hypothesis without a rival is no ranking
            known = {one.service for one in found}
            found += [self._still(name) for name in self._rivals() if name not in known][:1]
            found.append(self._outside())
        if len(found) < 2:  # noqa: PLR2004 - nothing moved, and nobody said of what the alert speaks
            found.append(self._still("plant"))
        return sorted(found, key=lambda one: (-one.score, one.at or math.inf, one.service))

    def _began(self, name: str) -> Instant:
        enough = _STRONG * math.log1p(self._size[name])
        return min(one.move.at for one in self._moved[name] if math.log1p(one.move.size) >= enough)

    def _suspect(self, name: str) -> Suspect:
        at, size = self._at[name], self._size[name]
        others = [one for one in self._moved if one != name]
        above, standing = self._upstream(name), [one for one in others if name in self._upstream(one)]
        explains = [one for one in standing if self._at[one] >= at - self._tolerance]
        dries = [one for one in others if one in above and self._at[one] >= at and self._falls(one)]
        before = [one for one in others if one in above and self._at[one] < at - self._tolerance]
        direct = [one for one, below in self._graph.items() if name in below and self._judged.get(one)]
        unmoved = [one for one in direct if one not in self._moved]
        changes = [
            one
            for one in self._changes
            if one.service == name and at - _CHANGE_BEFORE <= one.at <= at + self._tolerance
        ]
        weight = {one: min(1.0, self._size[one] / self._largest + 0.2) for one in others}
        share = sum(weight[one] for one in explains) + _FLOW * sum(weight[one] for one in dries)
        explained = share / sum(weight.values()) if others else 0.5
        covered = 1 - len(unmoved) / len(direct) if direct else 0.5
        points = {
            "first": self._firstness(name, at, size),
            "most": self._weight(size),
            "explains": (0.7 * explained + 0.3 * covered) * self._backing(name),
            "about": self._concerns(name),
            "change": float(any(one.kind is not ChangeKind.FAULT for one in changes)),
        }
        score = sum(_WEIGHTS[key] * value for key, value in points.items())
        # A wobble above explains less than a fall: what preceded counts by how it compares.
        stronger = max((self._weight(self._size[one]) * self._backing(one) for one in before), default=0.0)
        stronger /= self._weight(size)
        score -= _PRECEDED * min(1.0, stronger)
        if not points["about"]:
            score *= _NO_WAY
        return Suspect(
            service=name,
            moved=self._leading(name),
            judged=self._judged.get(name, 0),
            at=at,
            size=size,
            points=points,
            score=min(1.0, max(0.0, score)),
            explains=tuple(sorted(explains, key=lambda one: (self._at[one], one))),
            dries=tuple(sorted(dries)),
            unexplained=tuple(sorted(set(others) - set(explains) - set(dries))),
            unmoved=tuple(sorted(unmoved)),
            before=tuple(sorted(before, key=lambda one: (self._at[one], one))),
            changes=tuple(changes),
        )

    def _weight(self, size: float) -> float:
        """Return how a size compares with the largest of all, by logarithms: 10 of 40 deviations are no trifle."""
        return math.log1p(size) / math.log1p(self._largest)

    def _firstness(self, name: str, at: Instant, size: float) -> float:
        late = math.exp(-max(0.0, at - self._first - self._tolerance / 2) / self._tau)
        return late * min(1.0, self._weight(size) / _STRONG) * self._backing(name)

    def _backing(self, name: str) -> float:
        """Return how far one believes that a service moved: a small movement that stands alone is often chance."""
        at = self._at[name]
        near = sum(abs(one.move.at - at) <= 2 * self._tolerance for moved in self._moved.values() for one in moved)
        return 1.0 if near > 1 else min(1.0, (self._size[name] - _CHANCE) / _SURE)

    def _concerns(self, name: str) -> float:
        """Return how well a service fits what the alert speaks of."""
        if not self._about or self._about == name:
            return 1.0
        if name in self._upstream(self._about):
            return 1.0
        # What stands on the alert's service can choke it with load; what has no way to it can do nothing.
        return 0.4 if self._about in self._upstream(name) else 0.0

    def _falls(self, name: str) -> bool:
        return any(not one.move.up for one in self._moved[name])

    def _leading(self, name: str) -> tuple[Moved, ...]:
        soon = self._at[name] + self._tolerance
        moved = {one.metric: one.move.at for one in self._moved[name]}

        def place(one: Moved) -> tuple[bool, bool, float, Instant, str]:
            repeats = moved.get(one.follows, math.inf) <= one.move.at + _REPEATS
            return repeats, one.move.at > soon, -one.move.size, one.move.at, one.metric

        return tuple(sorted(self._moved[name], key=place))

    def _rivals(self) -> list[str]:
        """Return the services that could be the cause although they did not move, the nearest first."""
        start = next(iter(self._moved), self._about)
        near = [start, *self._graph.get(start, ()), *sorted(self._upstream(start)), self._about]
        return [one for one in dict.fromkeys(near) if one and (self._judged.get(one) or one == self._about)]

    def _still(self, name: str) -> Suspect:
        score = _WEIGHTS["about"] * self._concerns(name)
        return Suspect(name, (), self._judged.get(name, 0), None, 0.0, {"about": self._concerns(name)}, score)

    def _outside(self) -> Suspect:
        """Return the hypothesis that nothing watched is the cause: the likelier the less moved."""
        strongest = min(1.0, self._largest / 20)
        score = 0.4 * (1 - strongest)
        return Suspect(OUTSIDE, (), 0, None, 0.0, {}, score, unexplained=tuple(sorted(self._moved)))

    def _upstream(self, name: str) -> frozenset[str]:
        return upstream(name, self._graph)
