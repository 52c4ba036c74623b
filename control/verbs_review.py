"""The verb `alerts report`: what the rules were worth, what the metrics cost, and the period in review as a page."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
import typer
from rich.markup import escape as markup
from rich.table import Table as RichTable

from control import faults
from control.addresses import write_atomically
from control.child import now
from control.layout import Layout
from control.terminal import AsJson, State, err, guarded, layout_of, out, print_json
from control.verbs_incident import Desk, Told
from incidents.noise import Advice
from incidents.review import Facts, Table, review
from incidents.timeline import Entry
from kernel.errors import InputError, PermanentError, TapewatchError
from kernel.time import DAY, MINUTE, Duration, Instant, parse_duration

SINCE_MAX: Final = Duration(366 * DAY)
_TABLES_SHOWN: Final = ("Alerts that fired", "What the metrics cost", "Objectives")


def report(
    since: Annotated[str, typer.Option(help="How far back to look, such as 12h or 7d.")] = "7d",
    html: Annotated[Path | None, typer.Option(help="Write the managers' page here.", show_default=False)] = None,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Tell per rule how often it fired, was acted on, was noise; what metrics cost; and what to do about it."""
    layout = layout_of(state)
    facts = guarded(lambda: _facts(layout, since, html))
    if html is not None:
        guarded(lambda: _write(facts, html))
        err.print(f"written: {html}", soft_wrap=True)
    if as_json:
        print_json({"facts": _without_timelines(facts), "review": review(facts)})
    elif html is None:
        _print(facts)


def _facts(layout: Layout, since: str, html: Path | None) -> Facts:
    from control.review import QUESTION_TIMEOUT_S, gather
    from monitor.adapters.prometheus_api import PrometheusApi

    length = _length(since)
    plant = faults.connect(layout.root)
    end = now()
    start = Instant(end - length)
    timelines, notes = _timelines(Desk(layout))
    reports = {} if html is None else _reports(layout, timelines, html.absolute().parent)

    async def ask() -> Facts:
        async with PrometheusApi(plant.addresses.prometheus, timeout_s=QUESTION_TIMEOUT_S) as prometheus:
            return await gather(prometheus, timelines, start=start, end=end, notes=notes, reports=reports)

    return asyncio.run(ask())


def _length(since: str) -> Duration:
    try:
        length = parse_duration(since)
    except ValueError as error:
        raise InputError("--since", str(error), right="give one such as 12h or 7d") from error
    if not MINUTE <= length <= SINCE_MAX:
        raise InputError("--since", f"is {since}", right="give at least 1m, at most 366d")
    return length


def _timelines(desk: Desk) -> tuple[dict[str, Sequence[Entry]], list[str]]:
    """Return the timelines that control knows, and a note when it cannot be asked."""
    try:
        known = desk.ask("incidents?all=true")
        return {
            str(one["id"]): msgspec.convert(desk.ask(f"incidents/{one['id']}/timeline"), Told).entries for one in known
        }, []
    except TapewatchError as error:
        return {}, [f"Incidents are not known: {error}"]


def _reports(layout: Layout, ids: Iterable[str], beside: Path) -> dict[str, str]:
    """Return links to the post-mortems that were written, from a page in the directory `beside`."""
    paths = {incident: layout.reports / f"{incident}.html" for incident in ids}
    return {incident: quote(os.path.relpath(path, beside)) for incident, path in paths.items() if path.is_file()}


def _write(facts: Facts, path: Path) -> None:
    from incidents.adapters.review_page import to_html

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_html(review(facts)).encode())
    except OSError as error:
        raise PermanentError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from error


def _without_timelines(facts: Facts) -> dict[str, object]:
    told: dict[str, object] = msgspec.structs.asdict(facts)
    return told | {"timelines": sorted(facts.timelines), "before": sorted(facts.before)}


def _print(facts: Facts) -> None:
    told = review(facts)
    out.print(f"[bold]{markup(told.title)}[/], {markup(told.period)}")
    out.print(markup(" ".join(told.summary)), soft_wrap=True)
    for table in told.tables:
        if table.title in _TABLES_SHOWN:
            _print_table(table)
    never = [row.rule.alert for row in facts.rules if Advice.NEVER in row.advice]
    if never:
        out.print(f"[bold]never fired:[/] {markup(', '.join(sorted(never)))}", soft_wrap=True)
    for sentence in told.advice:
        out.print(f"· {markup(sentence)}", soft_wrap=True)
    for sentence in told.notes:
        out.print(f"[yellow]not known:[/] {markup(sentence)}", soft_wrap=True)


def _print_table(table: Table) -> None:
    if not table.rows:
        out.print(f"{markup(table.title)}: {markup(table.empty)}")
        return
    shown = RichTable(title=table.title, title_justify="left", caption=table.note or None, caption_justify="left")
    for head in table.heads:
        shown.add_column(head)
    colours = {"bad": "red", "warn": "yellow", "good": "green"}
    for row in table.rows:
        first, *others = (markup(cell) for cell in row.cells)
        colour = colours.get(row.tone)
        shown.add_row(f"[{colour}]{first}[/]" if colour else first, *others)
    out.print(shown)
