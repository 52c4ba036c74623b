"""`tapewatch anomaly watch` and `anomaly feedback`: see what detectors see of a running estate, and tell them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from control import anomaly_desk
from control.anomaly_view import SeriesNow, View
from control.child import now
from control.terminal import (
    DONE,
    AsJson,
    By,
    State,
    err,
    escape,
    estate_of,
    guarded,
    layout_of,
    out,
    print_json,
    starting,
    who,
)
from kernel.errors import InputError, TapewatchError

EVERY_S: Final = 1.0
_PAGES: Final = 5
_HOT: Final = 0.5


def complete_series(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of pages and series."""
    try:
        pages, series = anomaly_desk.known(layout_of(ctx.params.get("state")))
    except (TapewatchError, typer.Exit):
        return []
    return starting([*(page.id for page in pages), *series], incomplete)


Limit = Annotated[int, typer.Option("--limit", "-n", help="Series at most, the most unusual first.", min=1, max=1000)]
Service = Annotated[str, typer.Option(help="Only of this service.", show_default=False)]
Id = Annotated[
    str,
    typer.Argument(
        help="A page's id, a series as `watch` shows it, or an incident's id.", autocompletion=complete_series
    ),
]


def watch(
    limit: Limit = 20,
    service: Service = "",
    state: State = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show every watched series as it is judged: live in a terminal, a line for each change in a pipe."""
    layout = guarded(lambda: estate_of(state))

    def look() -> View:
        seen = anomaly_desk.view(layout)
        return msgspec.structs.replace(
            seen, series=tuple(one for one in seen.series if not service or one.service == service)
        )

    first = guarded(look)
    if once:
        if as_json:
            print_json(first)
        elif out.is_terminal:
            out.print(table(first, limit))
        else:
            _lines([headline(first), *map(anomaly_desk.sentence, anomaly_desk.ranked(first.series)[:limit])])
        raise typer.Exit(DONE)
    try:
        if as_json:
            _stream(first, look, lambda seen, _: [msgspec.json.encode(seen).decode()])
        elif out.is_terminal:
            _live(first, look, limit)
        else:
            _stream(first, look, changes)
    except KeyboardInterrupt:
        raise typer.Exit(DONE) from None


def feedback(
    what: Id,
    state: State = None,
    by: By = "",
    *,
    false_alarm: Annotated[
        bool | None, typer.Option("--false/--true", help="Whether it was a false alarm.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether a page was a false alarm: its series then asks later, and no other changes; --true confirms it."""

    def keep() -> list[str]:
        if false_alarm is None:
            raise InputError("feedback", "was it a false alarm", right="--false if it was, --true if it was right")
        return anomaly_desk.say(estate_of(state), what, false_alarm=false_alarm, by=who(by), at=now())

    names = guarded(keep)
    if as_json:
        print_json({"said_of": names, "false_alarm": false_alarm})
        return
    means = "a false alarm: it asks later from now on" if false_alarm else "right: it asks as before"
    for name in names:
        out.print(f"kept: {escape(name)} was {means}", soft_wrap=True)


# --- how it looks -------------------------------------------------------------------------------------------------


def headline(seen: View) -> str:
    """Return how the detectors are doing, in one line."""
    if seen.trouble:
        age = f"readings are {seen.fresh_s:.0f} s old" if seen.fresh_s is not None else "no readings yet"
        return f"no scores of the present: {age}; {seen.trouble}"
    unusual = sum((one.score or 0) >= _HOT for one in seen.series)
    warming = sum(one.state == "warming" for one in seen.series)
    text = f"{len(seen.series)} series, {unusual} unusual, {warming} warming up, readings {seen.fresh_s or 0:.1f} s old"
    text += f"; pages of the day {seen.pages_day}, promised {seen.pages_promised:.2f}"
    if seen.left_out or seen.refused:
        text += f"; left out {seen.left_out}, refused {', '.join(seen.refused) or 'none'}"
    return text


def table(seen: View, limit: int) -> Group:
    """Return the view for people: the most unusual series, and below in words what is unusual and the latest pages."""
    told = Table(title=escape(headline(seen)), title_justify="left", title_style="bold red" if seen.trouble else "bold",
                 box=SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    told.add_column("series", no_wrap=True)
    for column in ("value", "expected", "score"):
        told.add_column(column, justify="right", no_wrap=True)
    told.add_column("")
    ranked = anomaly_desk.ranked(seen.series)[:limit]
    for one in ranked:
        told.add_row(*_cells(one), style="dim" if seen.trouble else None)
    lines = [Text(f"{one.id}: {one.sentence}", style="yellow") for one in ranked if one.sentence]
    for page in seen.pages[:_PAGES]:
        name = f"{page.series}/{page.item}" if page.item else page.series
        said = {"false": "said to be false; ", "true": "confirmed; "}.get(page.answer, "")
        lines.append(Text(f"page {page.id}: {said}{name}: {page.sentence}", style="bold" if not said else "dim"))
    return Group(told, *lines)


def _cells(one: SeriesNow) -> tuple[str, ...]:
    score = one.score or 0.0
    colour = "red" if one.alert else "yellow" if score >= _HOT else "green"
    mark = "alert" if one.alert else one.state if one.state != "scored" else ""
    shown = f"[{colour}]{score:.2f}[/]" if one.score is not None else "-"
    figure, expected = anomaly_desk.figure(one.value, one.unit), anomaly_desk.span(one.low, one.high, one.unit)
    return escape(one.id), figure, expected, shown, mark


def changes(seen: View, before: View | None) -> list[str]:
    """Return a line for whatever began or ended since the last look; at first how things are."""
    stamp = seen.at or "-"
    if before is None:
        standing = [one for one in seen.series if one.alert or (one.score or 0) >= _HOT]
        return [f"{stamp} {headline(seen)}", *(f"{stamp} {anomaly_desk.sentence(one)}" for one in standing)]
    lines = []
    if seen.trouble != before.trouble:
        lines.append(f"{stamp} {headline(seen)}")
    was = {one.id: one for one in before.series}
    for one in seen.series:
        alert, hot = _state(one)
        alert_before, hot_before = _state(was.get(one.id))
        if alert and not alert_before:
            lines.append(f"{stamp} ALERT {anomaly_desk.sentence(one)}, page {one.page}")
        elif alert_before and not alert:
            lines.append(f"{stamp} calm {anomaly_desk.sentence(one)}")
        elif hot and not hot_before and not alert:
            lines.append(f"{stamp} unusual {anomaly_desk.sentence(one)}")
    return lines


def _state(one: SeriesNow | None) -> tuple[bool, bool]:
    return (False, False) if one is None else (one.alert, (one.score or 0) >= _HOT)


# --- going on -----------------------------------------------------------------------------------------------------


def _stream(first: View, look: Callable[[], View], lines: Callable[[View, View | None], list[str]]) -> None:
    _lines(lines(first, None))
    before, trouble = first, ""
    while True:
        time.sleep(EVERY_S)
        try:
            seen = look()
        except TapewatchError as error:
            if str(error) != trouble:
                trouble = str(error)
                err.print(escape(trouble))
            continue
        trouble = ""
        if seen.at != before.at or seen.trouble != before.trouble:
            _lines(lines(seen, before))
            before = seen


def _live(first: View, look: Callable[[], View], limit: int) -> None:
    with Live(table(first, limit), console=out, auto_refresh=False, screen=False) as live:
        seen = first
        while True:
            time.sleep(EVERY_S)
            try:
                seen = look()
            except TapewatchError as error:
                seen = msgspec.structs.replace(seen, trouble=str(error))
            live.update(table(seen, limit), refresh=True)


def _lines(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
    sys.stdout.flush()
