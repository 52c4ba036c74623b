"""What a post-mortem is: values, ready to be rendered. Everything that is said names the entries that back it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from incidents.plot import Plot


class Sentence(msgspec.Struct, frozen=True):
    """Something that is said, and the numbers of the entries that back it."""

    text: str
    backed_by: tuple[int, ...]


class Figure(msgspec.Struct, frozen=True):
    """A figure with its name: `orders refused or delayed`, `1,204`."""

    name: str
    value: str
    backed_by: tuple[int, ...]


class FollowUp(msgspec.Struct, frozen=True):
    """Work that the evidence asks for, and whose it is."""

    sentence: Sentence
    owner: str


class Suspicion(msgspec.Struct, frozen=True):
    """A hypothesis about the cause, with what speaks for it and against it."""

    name: str
    points: str
    sentence: Sentence
    speaks_for: tuple[Sentence, ...]
    speaks_against: tuple[Sentence, ...]


class Check(msgspec.Struct, frozen=True):
    """Readings of one piece of evidence in a run: the last one, and how many there were."""

    purpose: str
    name: str
    query: str
    asked: str
    said: str
    held: bool
    backed_by: tuple[int, ...]


class Attempt(msgspec.Struct, frozen=True):
    """One run of a runbook."""

    runbook: str
    title: str
    outcome: str
    sentences: tuple[Sentence, ...]
    checks: tuple[Check, ...]


class PlotOf(msgspec.Struct, frozen=True):
    """A plot and the entries it is drawn from."""

    plot: Plot
    backed_by: tuple[int, ...]


class Row(msgspec.Struct, frozen=True):
    """An entry in the timeline's table."""

    n: int
    at: str
    since: str
    kind: str
    source: str
    text: str


class Fold(msgspec.Struct, frozen=True):
    """Entries that the table tells by counts."""

    numbers: tuple[int, ...]
    at: str
    until: str
    counts: tuple[tuple[str, int], ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A post-mortem, ready to be rendered."""

    id: str
    title: str
    level: str
    service: str
    team: str
    status: str
    tone: str
    """`good`, `warn` or `bad`: the badge's colour."""
    opened: str
    made: str
    entries: int
    tamper: str | None
    summary: tuple[Sentence, ...]
    impact: tuple[Figure, ...]
    impact_notes: tuple[Sentence, ...]
    timings: tuple[Figure, ...]
    causes: tuple[Sentence, ...]
    moved: tuple[Sentence, ...]
    """What moved first, as a whole."""
    suspicions: tuple[Suspicion, ...]
    """The hypotheses, best first."""
    tried: tuple[Attempt, ...]
    refused: tuple[Sentence, ...]
    undone: tuple[Sentence, ...]
    plots: tuple[PlotOf, ...]
    went_well: tuple[Sentence, ...]
    went_poorly: tuple[Sentence, ...]
    follow_ups: tuple[FollowUp, ...]
    links: tuple[tuple[str, str], ...]
    timeline: tuple[Row | Fold, ...]

    def sentences(self) -> Iterator[Sentence]:
        """Yield everything that is said with a fact in it, figures and captions too."""
        yield from (*self.summary, *self.impact_notes, *self.causes, *self.refused, *self.undone)
        yield from (*self.went_well, *self.went_poorly, *(item.sentence for item in self.follow_ups))
        yield from self.moved
        for one in self.suspicions:
            yield from (one.sentence, *one.speaks_for, *one.speaks_against)
            yield Sentence(f"{one.name}: {one.points}", one.sentence.backed_by)
        for item in (*self.impact, *self.timings):
            yield Sentence(f"{item.name}: {item.value}", item.backed_by)
        for attempt in self.tried:
            yield from attempt.sentences
            for check in attempt.checks:
                yield Sentence(f"{check.name}: {check.asked}: {check.said}", check.backed_by)
        for drawn in self.plots:
            yield Sentence(drawn.plot.description, drawn.backed_by)
