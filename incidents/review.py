"""A period in review, for managers: what happened, what it cost, what the automation did, what to do about it. Pure.

Every figure is computed from timelines, from Prometheus's own readings, or from the two; where a figure is not known,
the page says so instead of showing a zero.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from incidents.noise import EXPECTED_ALWAYS, Advice, RuleWorth
from incidents.plot import figure
from incidents.story import Story
from incidents.timeline import Entry, EntryKind
from incidents.words import OUTCOMES, REASONS, clean, clock, day, label, number_of, shown, spell
from kernel.time import DAY, Instant, seconds

RULES_SHOWN: Final = 25
METRICS_SHOWN: Final = 20
INCIDENTS_SHOWN: Final = 60
_UNKNOWN: Final = "not known"


class MetricCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one metric costs, and who looks at it."""

    name: str
    series: int
    bytes_per_day: float | None
    """On Prometheus's disk, estimated from its own bytes per sample; None when that is not known."""
    owner: str = ""
    alerts: tuple[str, ...] = ()
    boards: tuple[str, ...] = ()

    @property
    def is_unused(self) -> bool:
        """Whether neither an alert nor a board looks at it."""
        return not self.alerts and not self.boards


class ObjectiveState(msgspec.Struct, frozen=True, kw_only=True):
    """How one objective stands."""

    name: str
    objective: float
    """Share of good events that is promised, such as 0.999."""
    achieved: float | None
    """Share of good events over the period."""
    budget_left: float | None
    """Share of the error budget that is left; below zero: overspent."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a review is made from."""

    start: Instant
    end: Instant
    made: Instant
    timelines: Mapping[str, Sequence[Entry]]
    """Of the incidents opened in the period."""
    before: Mapping[str, Sequence[Entry]]
    """Of those opened in the period of the same length before it."""
    rules: Sequence[RuleWorth]
    metrics: Sequence[MetricCost]
    objectives: Sequence[ObjectiveState]
    orders: float | None = None
    """Orders that participants sent in the period; None: not known."""
    data_begins: Instant | None = None
    """Since when Prometheus has data, when that is later than the start."""
    notes: tuple[str, ...] = ()
    """What could not be read, a sentence each."""
    reports: Mapping[str, str] = MappingProxyType({})
    """Where the post-mortem of an incident lies, as a link from the page."""


class Tile(msgspec.Struct, frozen=True):
    """A figure to be seen from afar."""

    name: str
    value: str
    note: str = ""
    tone: str = "plain"


class Row(msgspec.Struct, frozen=True):
    """One row of a table; `link` leads to the report of an incident."""

    cells: tuple[str, ...]
    tone: str = "plain"
    link: str = ""


class Table(msgspec.Struct, frozen=True):
    """A table, and what stands in its place when it is empty."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    empty: str
    note: str = ""


class Review(msgspec.Struct, frozen=True):
    """A review, ready to be rendered."""

    title: str
    period: str
    made: str
    summary: tuple[str, ...]
    tiles: tuple[Tile, ...]
    tables: tuple[Table, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]


class _Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of one incident."""

    id: str
    title: str
    level: str
    service: str
    opened: Instant
    mitigated: int | None
    resolved: int | None
    detected: int | None
    person: bool
    outcomes: tuple[str, ...]
    refusals: tuple[str, ...]
    orders: float | None
    minutes: float | None


def review(facts: Facts) -> Review:
    """Tell a period."""
    now = [_incident(name, entries) for name, entries in facts.timelines.items() if entries]
    before = [_incident(name, entries) for name, entries in facts.before.items() if entries]
    now.sort(key=lambda one: one.opened)
    week = facts.end - facts.start == 7 * DAY
    return Review(
        title="The week in review" if week else f"The last {spell(facts.end - facts.start)} in review",
        period=f"{day(facts.start)} {clock(facts.start)[:5]} to {day(facts.end)} {clock(facts.end)[:5]} UTC",
        made=f"{day(facts.made)} {clock(facts.made)[:8]} UTC",
        summary=tuple(_summary(now, before, facts)),
        tiles=tuple(_tiles(now, before, facts)),
        tables=(
            _objectives(facts.objectives), _incidents(now, facts.reports), _automation(now), _rules(facts.rules),
            _metrics(facts.metrics),
        ),
        advice=tuple(_advice(facts)),
        notes=tuple(_notes(facts)),
    )  # fmt: skip


def _incident(name: str, entries: Sequence[Entry]) -> _Incident:
    story = Story(entries)
    opened, mitigated, resolved = story.opened.at, story.reached("mitigated"), story.reached("resolved")
    level = story.one(EntryKind.LEVEL_CHANGED, last=True)
    impact = story.one(EntryKind.IMPACT, last=True)
    merged = story.one(EntryKind.STATE_CHANGED, signal="merged") is not None
    title = story.one(EntryKind.CAUSE_CHANGED, last=True)
    return _Incident(
        id=clean(name, 80),
        title=clean((title and title.data.get("title")) or story.opened.data.get("title") or story.opened.text, 140)
        + (" (part of another incident)" if merged else ""),
        level=shown(level.data.get("to") if level else story.opened.data.get("level", "?")),
        service=clean(story.opened.data.get("service", "unknown"), 80),
        opened=opened,
        mitigated=mitigated.at - opened if mitigated else None,
        resolved=resolved.at - opened if resolved else None,
        detected=opened - story.fault[0] if story.fault and story.fault[0] <= opened else None,
        person=story.handed is not None or any(one.source.startswith("person:") for one in entries),
        outcomes=tuple(str(one.data.get("outcome")) for one in story.all(EntryKind.RUN_ENDED)),
        refusals=tuple(
            str(one.data.get("reason"))
            for one in [*story.all(EntryKind.RUN_ENDED, outcome="refused"), *story.all(EntryKind.RUN_DECLINED)]
        ),
        orders=number_of(impact.data.get("orders")) if impact else None,
        minutes=number_of(impact.data.get("minutes")) if impact else None,
    )  # fmt: skip


def _median(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known)) if known else None


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _took(value: int | None) -> str:
    return _UNKNOWN if value is None else spell(value)


def _summary(now: Sequence[_Incident], before: Sequence[_Incident], facts: Facts) -> Iterator[str]:
    if not now:
        yield "No incident was opened."
    else:
        grave = sum(one.level == "1" for one in now)
        people = sum(one.person for one in now)
        count = "One incident was" if len(now) == 1 else f"{figure(len(now))} incidents were"
        of_those = f", {figure(grave)} of level 1" if grave else ", none of level 1"
        needed = f"{figure(people)} needed a person" if people else "none needed a person"
        yield f"{count} opened{of_those}; {needed}."
        if before:
            yield f"In the period before it was {figure(len(before))}."
    affected = _sum(one.orders for one in now)
    if affected is not None and facts.orders:
        yield f"{figure(affected)} of {figure(facts.orders)} orders were affected ({affected / facts.orders:.3%})."
    elif affected is not None:
        yield f"{figure(affected)} orders were affected."
    broken = [one.name for one in facts.objectives if one.budget_left is not None and one.budget_left < 0]
    if broken:
        yield f"The error budget is overspent for: {', '.join(clean(name, 80) for name in broken)}."
    elif any(one.budget_left is not None for one in facts.objectives):
        yield "No error budget is overspent."


def _tiles(now: Sequence[_Incident], before: Sequence[_Incident], facts: Facts) -> Iterator[Tile]:
    yield Tile("Incidents", figure(len(now)), f"{figure(len(before))} in the period before", "warn" if now else "good")
    alone = sum("mended" in one.outcomes and not one.person for one in now)
    yield Tile("Mended without a person", f"{figure(alone)} of {figure(len(now))}", "a reading proved each")
    undone = sum(one.outcomes.count("undone") for one in now)
    yield Tile("Taken back", figure(undone), "remedies that did not help")
    yield Tile("Median time to mitigate", _took(_median(one.mitigated for one in now)), "opened to proof")
    yield Tile("Median time to resolve", _took(_median(one.resolved for one in now)), "opened to quiet")
    affected = _sum(one.orders for one in now)
    minutes = _sum(one.minutes for one in now)
    yield Tile(
        "Orders affected",
        _UNKNOWN if affected is None and now else figure(affected or 0),
        "" if minutes is None else f"over {figure(minutes)} minutes",
    )
    worst = min((one.budget_left for one in facts.objectives if one.budget_left is not None), default=None)
    tone = "plain" if worst is None else "bad" if worst < 0 else "warn" if worst < 0.25 else "good"  # noqa: PLR2004
    yield Tile("Smallest budget left", _UNKNOWN if worst is None else f"{worst:.0%}", "of all objectives", tone)
    fired = [row for row in facts.rules if row.episodes]
    noise, followed = sum(row.noise for row in fired), sum(row.noise + row.acted for row in fired)
    share = f"{noise / followed:.0%}" if followed else _UNKNOWN
    yield Tile("Noise", share, f"of {figure(followed)} alerts that had an incident")


def _objectives(objectives: Sequence[ObjectiveState]) -> Table:
    rows = []
    for one in objectives:
        left = one.budget_left
        tone = "plain" if left is None else "bad" if left < 0 else "good"
        rows.append(
            Row(
                (
                    clean(one.name, 80),
                    f"{one.objective:.4%}".rstrip("0").rstrip("."),
                    _UNKNOWN if one.achieved is None else f"{one.achieved:.4%}",
                    _UNKNOWN if left is None else f"{left:.1%}",
                ),
                tone,
            )
        )
    return Table("Objectives", ("Objective", "Promised", "Kept", "Budget left"), tuple(rows),
                 "No objective could be read.")  # fmt: skip


def _incidents(now: Sequence[_Incident], reports: Mapping[str, str]) -> Table:
    rows = []
    for one in now[-INCIDENTS_SHOWN:]:
        outcome = label(one.outcomes[-1]) if one.outcomes else "no run"
        rows.append(
            Row(
                (
                    one.id,
                    f"{day(one.opened)} {clock(one.opened)[:8]}",
                    one.level,
                    one.title,
                    outcome,
                    "yes" if one.person else "no",
                    _took(one.mitigated),
                    _took(one.resolved),
                    _UNKNOWN if one.orders is None else figure(one.orders),
                ),
                "bad" if one.level == "1" else "plain",
                reports.get(one.id, ""),
            )
        )
    more = len(now) - len(rows)
    heads = ("Incident", "Opened", "Level", "What", "Last run", "Person", "To mitigate", "To resolve", "Orders")
    return Table(
        "Incidents", heads, tuple(rows), "There were none.", f"{more} older ones are left out." if more else ""
    )


def _automation(now: Sequence[_Incident]) -> Table:
    outcomes = Counter(outcome for one in now for outcome in one.outcomes)
    refusals = Counter(reason for one in now for reason in one.refusals)
    rows = [Row((label(name), figure(count), OUTCOMES.get(name, ""))) for name, count in outcomes.most_common()]
    rows += [
        Row((f"… because of {label(name)}", figure(count), REASONS.get(name, "")))
        for name, count in refusals.most_common()
    ]
    return Table("What the automation did", ("Outcome", "Runs", "Meaning"), tuple(rows), "No runbook ran.")


def _rules(rules: Sequence[RuleWorth]) -> Table:
    fired = [row for row in rules if row.episodes and row.rule.alert not in EXPECTED_ALWAYS]
    rows = [
        Row(
            (
                clean(row.rule.alert, 80), clean(row.rule.level, 8), clean(row.rule.team or "nobody", 80),
                figure(row.episodes), figure(row.acted),
                figure(row.noise), figure(row.open), figure(row.not_followed), spell(seconds(row.firing_s)),
                ", ".join(label(one) for one in row.advice) or "none",
            ),
            "warn" if set(row.advice) - {Advice.NEVER} else "plain",
        )
        for row in fired[:RULES_SHOWN]
    ]  # fmt: skip
    never = sum(not row.episodes for row in rules)
    note = f"{figure(never)} of {figure(len(rules))} rules never fired." if rules else ""
    if len(fired) > len(rows):
        note += f" {figure(len(fired) - len(rows))} more that fired are left out."
    heads = (
        "Alert",
        "Level",
        "Team",
        "Fired",
        "Acted on",
        "Noise",
        "Open",
        "Not followed",
        "Firing for",
        "What is wrong",
    )
    return Table("Alerts that fired", heads, tuple(rows), "None fired.", note.strip())


def _metrics(metrics: Sequence[MetricCost]) -> Table:
    costly = sorted(metrics, key=lambda one: (-one.series, one.name))
    rows = [
        Row(
            (
                one.name, figure(one.series), _bytes(one.bytes_per_day), one.owner or "nobody", figure(len(one.alerts)),
                figure(len(one.boards)),
            ),
            "warn" if one.is_unused else "plain",
        )
        for one in costly[:METRICS_SHOWN]
    ]  # fmt: skip
    unused = [one for one in metrics if one.is_unused]
    total = sum(one.series for one in metrics)
    note = ""
    if metrics:
        idle = sum(one.series for one in unused)
        note = (
            f"{figure(total)} series in all; {figure(len(unused))} metrics with {figure(idle)} series are looked at by "
            "no alert and no board."
        )
    heads = ("Metric", "Series", "Bytes a day", "Owner", "Alerts", "Boards")
    return Table("What the metrics cost", heads, tuple(rows), "Prometheus could not be asked.", note)


def _bytes(value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    for unit in ("B", "kB", "MB"):
        if value < 1000:  # noqa: PLR2004 - the next unit
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def _advice(facts: Facts) -> Iterator[str]:
    for row in facts.rules:
        for advice, words in zip(row.advice, row.words, strict=True):
            if advice is not Advice.NEVER:
                yield f"{row.rule.alert}: {words}"
    unused = sorted((one for one in facts.metrics if one.is_unused), key=lambda one: -one.series)
    if unused:
        names = ", ".join(f"{one.name} ({figure(one.series)})" for one in unused[:5])
        yield f"Metrics that nobody looks at, the largest first: {names}. Use them, or stop exporting them."
    for one in facts.objectives:
        if one.budget_left is not None and one.budget_left < 0:
            yield f"{clean(one.name, 80)}: its budget is overspent; the error-budget policy says what follows."


def _notes(facts: Facts) -> Iterator[str]:
    if facts.data_begins is not None and facts.data_begins > facts.start:
        begins = facts.data_begins
        when = f"{day(begins)} {clock(begins)[:8]} UTC"
        yield f"Prometheus has data since {when} only; nothing is known of the time before."
    yield from facts.notes
