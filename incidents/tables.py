"""The plots, links and timeline of a post-mortem. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from incidents.plot import MARKS, Mark, Plot, figure, scaled
from incidents.report import Fold, PlotOf, Row
from incidents.story import Story
from incidents.timeline import Entry, EntryKind
from incidents.words import clean, clock, instant_of, label, number_of, spell, web_link
from kernel.time import Instant

ROWS_PER_STREAK: Final = 6
"""Alerts, or readings, in a row that the timeline shows before it folds the rest of the streak."""
ALERT_ROWS: Final = 24
"""Alert entries that the timeline shows at all; a storm is told by counts."""


def plots(story: Story) -> Iterator[PlotOf]:
    """Draw the latest curve of each name, proofs first."""
    latest = {clean(entry.data.get("name"), 80): entry for entry in story.all(EntryKind.CURVE)}
    for name, entry in sorted(latest.items(), key=lambda item: not item[0].startswith("proof")):
        points = tuple(_points(entry.data.get("points")))
        finite = [value for _, value in points if value == value]  # noqa: PLR0124 - the test for NaN
        if not finite:
            continue
        proof = story.one(EntryKind.EVIDENCE_READ, last=True, purpose="proof", query=entry.data.get("query"))
        expected = number_of(proof.data.get("expected")) if proof else None
        asked = (clean(proof.data.get("relation"), 4), expected) if proof and expected is not None else None
        unit = clean(entry.data.get("unit", ""), 30)
        factor, short = scaled(unit, max(map(abs, finite)))
        low, high = figure(min(finite) * factor), f"{figure(max(finite) * factor)} {short}".rstrip()
        asks = f" The proof asks for {asked[0]} {f'{figure(asked[1] * factor)} {short}'.rstrip()}." if asked else ""
        plot = Plot(
            title=_plot_title(name),
            description=f"From {clock(points[0][0])} to {clock(points[-1][0])} UTC the values lay between {low} and {high}.{asks}",  # noqa: E501 - a sentence or a table row stays whole
            unit=unit,
            points=points,
            marks=tuple(_marks(entry.data.get("marks"))),
            expected=asked,
        )
        yield PlotOf(plot, tuple(sorted({entry.n} | ({proof.n} if proof else set()))))


def _plot_title(name: str) -> str:
    """`proof_gateways_answering` reads `Proof: gateways answering`."""
    words = label(name).removeprefix("proof ")
    return f"Proof: {words}" if name.startswith("proof_") else words[:1].upper() + words[1:]


def _points(value: object) -> Iterator[tuple[Instant, float]]:
    for point in value if isinstance(value, list | tuple) else ():
        at = instant_of(point[0]) if isinstance(point, list | tuple) and len(point) == 2 else None  # noqa: PLR2004 - a pair
        if at is not None:
            number = number_of(point[1])
            yield Instant(at), float("nan") if number is None else number


def _marks(value: object) -> Iterator[Mark]:
    held = {name: instant_of(at) for name, at in value.items()} if isinstance(value, dict) else {}
    ordered = sorted(
        held.items(), key=lambda item: (item[1] or 0, MARKS.index(item[0]) if item[0] in MARKS else len(MARKS))
    )
    for name, at in ordered[:12]:
        if at is not None:
            yield Mark(clean(name, 20), Instant(at))


def links(story: Story) -> Iterator[tuple[str, str]]:
    """Return the runbooks and dashboards that the alerts name: plain web addresses only."""
    seen: set[str] = set()
    for alert in story.alerts:
        annotations = alert.data.get("annotations")
        for key, name in (("runbook_url", "Runbook"), ("dashboard", "Dashboard")):
            url = web_link(annotations.get(key)) if isinstance(annotations, dict) else None
            if url is not None and url not in seen and len(seen) < 8:  # noqa: PLR2004 - a storm has hundreds of the same kind
                seen.add(url)
                yield f"{name} of {clean(alert.data.get('alertname'), 80)}", url


def timeline(story: Story) -> Iterator[Row | Fold]:
    """Show every entry, but of a streak of alerts or readings only the first, and of all alerts only `ALERT_ROWS`."""
    alerts_left = ALERT_ROWS
    for family, streak in groupby(story.entries, key=_family):
        entries = list(streak)
        keep = (
            len(entries)
            if family is None
            else min(ROWS_PER_STREAK, alerts_left if family == "alerts" else len(entries))
        )
        if len(entries) == keep + 1 and keep:
            keep += 1  # a fold of one entry saves nothing
        for entry in entries[:keep]:
            yield _row(story, entry)
        if entries[keep:]:
            yield _fold(entries[keep:])
        if family == "alerts":
            alerts_left = max(0, alerts_left - keep)


def _family(entry: Entry) -> str | None:
    if entry.kind in {EntryKind.ALERT_FIRING, EntryKind.ALERT_RESOLVED}:
        return "alerts"
    return "readings" if entry.kind in {EntryKind.EVIDENCE_READ, EntryKind.PLATFORM_READ} else None


def _row(story: Story, entry: Entry) -> Row:
    apart = entry.at - story.opened.at
    return Row(
        n=entry.n,
        at=clock(entry.at),
        since=("−" if apart < 0 else "+") + spell(apart),  # noqa: RUF001 - the typographic sign is meant
        kind=label(entry.kind),
        source=clean(entry.source, 60),
        text=clean(entry.text, 400),
    )


def _fold(entries: Sequence[Entry]) -> Fold:
    counts = Counter(
        clean(entry.data.get("alertname") or entry.data.get("name"), 60)
        + (" resolved" if entry.kind is EntryKind.ALERT_RESOLVED else "")
        for entry in entries
    ).most_common()
    shown_counts = counts[:8]
    rest = sum(count for _, count in counts[8:])
    return Fold(
        numbers=tuple(entry.n for entry in entries),
        at=clock(entries[0].at),
        until=clock(entries[-1].at),
        counts=(*shown_counts, *((("others", rest),) if rest else ())),
    )
