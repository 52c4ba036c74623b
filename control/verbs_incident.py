"""The verbs `incident` and `postmortem`: what people ask and say of incidents."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape as markup
from rich.table import Table

from control import faults, verbs_causes
from control.calls import call, fetch
from control.fault import Plant
from control.layout import Layout
from control.terminal import EXIT_CODES, USAGE, AsJson, By, State, err, guarded, layout_of, out, print_json, who
from control.terminal import starting as starting_with
from incidents.incident import ACTION_PLAN, Incident
from incidents.incident import State as IncidentState
from incidents.timeline import Entry
from incidents.words import OUTCOMES, REASONS, clean, clock, day, spell
from kernel.errors import InputError, PermanentError, TapewatchError, TemporaryError

_NAMES_SHOWN: Final = 3
_COLOURS: Final = {
    IncidentState.OPEN: "red",
    IncidentState.ACKNOWLEDGED: "yellow",
    IncidentState.MITIGATED: "cyan",
    IncidentState.RESOLVED: "green",
}
ALERTS_SHOWN: Final = 40
ENTRIES_SHOWN: Final = 100
"""Of a storm people see the beginning and the end, so many entries each; `--json` has them all."""
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,40}")


class Told(msgspec.Struct, frozen=True):
    """What control tells of a timeline."""

    entries: tuple[Entry, ...]
    tamper: str | None = None


class Desk:
    """Control's interface for incidents, in a state directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def ask(self, path: str, incident: str = "") -> Any:
        """Return control's answer.

        Raises:
            TapewatchError: as `control.calls.call`; names the report of `incident` that lies in the state directory.
        """
        plant = self._connect(incident)
        try:
            return call("GET", f"{plant.addresses.control}/api/v1/{path}", token=plant.admin)
        except TemporaryError as error:
            raise TemporaryError(f"control cannot be reached: {error}{self._hint(incident)}") from error

    def say(self, path: str, body: object) -> Any:
        """Tell control something and return its answer."""
        plant = self._connect()
        try:
            return call("POST", f"{plant.addresses.control}/api/v1/{path}", token=plant.admin, body=body)
        except TemporaryError as error:
            raise TemporaryError(f"control cannot be reached: {error}") from error

    def document(self, incident: str, form: str) -> str:
        """Return an incident's post-mortem as it stands now, as `html` or `md`."""
        plant = self._connect(incident)
        url = f"{plant.addresses.control}/api/v1/{path_of(incident)}/postmortem?format={form}"
        try:
            return fetch("GET", url, token=plant.admin, timeout_s=60.0).decode()
        except TemporaryError as error:
            raise TemporaryError(f"control cannot be reached: {error}{self._hint(incident)}") from error

    def report(self, incident: str) -> Path:
        """Return where an incident's report lies, once it was written."""
        return self._layout.reports / f"{incident}.html"

    def _connect(self, incident: str = "") -> Plant:
        try:
            return faults.connect(self._layout.root)
        except TemporaryError as error:
            raise TemporaryError(f"{error}{self._hint(incident)}") from error

    def _hint(self, incident: str) -> str:
        path = self.report(incident)
        there = _ID.fullmatch(incident) is not None and path.is_file()
        return f"; the report written last is {path}" if there else ""


def path_of(incident: str) -> str:
    """Return an incident's path in control's interface.

    Raises:
        InputError: that is no incident's id.
    """
    if _ID.fullmatch(incident) is None:
        raise InputError("incident", f"{incident[:40]!r} is no id", right="such as INC-20260302-0001")
    return f"incidents/{incident}"


def complete_incident(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of the incidents there are."""
    try:
        known = Desk(layout_of(ctx.params.get("state"))).ask("incidents?all=true")
    except (TapewatchError, typer.Exit):
        return []
    return starting_with((str(one["id"]) for one in known), incomplete)


Id = Annotated[str, typer.Argument(help="Such as INC-20260302-0001.", autocompletion=complete_incident)]
app = typer.Typer(no_args_is_help=True, help="See incidents, take them on, close them.", epilog=EXIT_CODES)


@app.command("list", epilog="Example: tapewatch incident list --all --json")
def list_(
    state: State = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the incidents that go on."""
    path = "incidents?all=true" if everything else "incidents"
    found = guarded(lambda: Desk(layout_of(state)).ask(path))
    if as_json:
        print_json(found)
    else:
        _print_list(msgspec.convert(found, tuple[Incident, ...]), everything=everything)


@app.command("show", epilog="Example: tapewatch incident show INC-20260302-0001")
def show(id: Id, state: State = None, *, as_json: AsJson = False) -> None:  # noqa: A002 - the word of the interface
    """Show one incident: state, level, plan, alerts, runs, timeline."""
    desk = Desk(layout_of(state))
    found = guarded(lambda: desk.ask(path_of(id), id))
    told = guarded(lambda: desk.ask(f"{path_of(id)}/timeline", id))
    if as_json:
        print_json({"incident": found, "plan": ACTION_PLAN.get(found["level"]), **told})
    else:
        _print_incident(msgspec.convert(found, Incident), msgspec.convert(told, Told), desk)


@app.command("ack", epilog="Example: tapewatch incident ack INC-20260302-0001 --by anna")
def acknowledge(id: Id, by: By = "", state: State = None) -> None:  # noqa: A002 - the word of the interface
    """Take an incident on."""
    _said(state, id, "ack", {"by": who(by)}, f"{id} is taken on by {who(by)}")


@app.command("note", epilog='Example: tapewatch incident note INC-20260302-0001 "the switch vendor was called"')
def note(id: Id, text: str, by: By = "", state: State = None) -> None:  # noqa: A002 - the word of the interface
    """Add words to an incident's timeline."""
    _said(state, id, "note", {"by": who(by), "text": text}, f"noted in {id}")


@app.command("resolve", epilog='Example: tapewatch incident resolve INC-20260302-0001 --why "a test"')
def resolve(
    id: Id,  # noqa: A002 - the word of the interface
    why: Annotated[str, typer.Option(help="Why it is over; kept in the timeline.", show_default=False)] = "",
    by: By = "",
    state: State = None,
    *,
    force: Annotated[bool, typer.Option("--force", help="Even while its alerts fire.")] = False,
) -> None:
    """Close an incident by hand."""
    body = {"by": who(by), "text": why} | ({"force": True} if force else {})
    _said(state, id, "resolve", body, f"{id} is closed by {who(by)}")


app.command("causes", epilog=verbs_causes.EXAMPLE)(verbs_causes.causes)


def _said(state: Path | None, id: str, verb: str, body: object, done: str) -> None:  # noqa: A002 - see above
    guarded(lambda: Desk(layout_of(state)).say(f"{path_of(id)}/{verb}", body))
    out.print(markup(done))


def postmortem(
    id: Id,  # noqa: A002 - the word of the interface
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the document to this file.", show_default=False)
    ] = None,
    state: State = None,
    *,
    html: Annotated[bool, typer.Option("--html", help="Print the page as it stands now.")] = False,
    md: Annotated[bool, typer.Option("--md", help="Print it as Markdown.")] = False,
) -> None:
    """Name an incident's post-mortem, or print it."""
    if html and md:
        err.print("tapewatch: --html and --md: one of them at a time")
        raise typer.Exit(USAGE)
    desk = Desk(layout_of(state))
    form = "md" if md or (output is not None and output.suffix == ".md" and not html) else "html"
    if not (html or md or output is not None):
        guarded(lambda: _known(desk, id))
        typer.echo(str(desk.report(id)))
        return
    text = guarded(lambda: desk.document(id, form))
    if output is None:
        typer.echo(text)
    else:
        guarded(lambda: _write(output, text))
        out.print(markup(f"written to {output}"))


def _known(desk: Desk, incident: str) -> None:
    """Be sure that an incident has a report.

    Raises:
        TapewatchError: there is no such incident, it has none yet, or nobody knows.
    """
    path = desk.report(incident)
    where = path_of(incident)
    if path.is_file():
        return
    found = desk.ask(where, incident)
    raise PermanentError(
        f"{incident} is {found['state']}: its report is written when it is resolved or handed over; "
        "--html or --md prints it as it stands"
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise PermanentError(f"{path} cannot be written: {error.strerror}") from error


# --- for people ----------------------------------------------------------------------------------------------------


def _print_list(incidents: Sequence[Incident], *, everything: bool) -> None:
    if not incidents:
        out.print("no incident yet" if everything else "no incident goes on; --all shows the resolved ones")
        return
    table = Table()
    for column in ("incident", "state", "level", "opened (UTC)", "lasts", "what", "fires now", "waits for"):
        table.add_column(column, no_wrap=column in {"incident", "state", "opened (UTC)", "lasts"})
    for one in sorted(incidents, key=lambda one: one.opened_at):
        table.add_row(
            one.id, _state(one), str(one.level), f"{day(one.opened_at)} {clock(one.opened_at)[:8]}",
            spell((one.resolved_at or time.time_ns()) - one.opened_at), markup(clean(one.title)),
            _firing(one), "[bold red]a person[/]" if one.needs_person else _waits(one),
        )  # fmt: skip
    out.print(table)


def _firing(incident: Incident) -> str:
    """Name what fires now, the cause first: an incident that waits for a person may have taken in another alert."""
    ranked = sorted(incident.firing, key=lambda alert: (alert.fingerprint != incident.cause, alert.since))
    names = list(dict.fromkeys(alert.name for alert in ranked))
    return markup(clean(", ".join(names[:_NAMES_SHOWN]) + (" ..." if len(names) > _NAMES_SHOWN else ""))) or "-"


def _waits(incident: Incident) -> str:
    if not incident.unresolved:
        return "nobody"
    if incident.active_runs:
        return f"runbook {markup(clean(incident.active_runs[0].runbook))}"
    return "all clear" if incident.state is IncidentState.MITIGATED else "control"


def _state(incident: Incident) -> str:
    return f"[{_COLOURS[incident.state]}]{incident.state}[/]"


def _print_incident(one: Incident, told: Told, desk: Desk) -> None:
    out.print(f"[bold]{one.id}[/]  {markup(clean(one.title))}")
    ended = one.resolved_at or time.time_ns()
    since = f"{day(one.opened_at)} {clock(one.opened_at)} UTC"
    tense = "after" if one.resolved_at else "for"
    plan = (
        f"tell {', '.join(one.plan.told)} within {spell(one.plan.told_within_ns)}; "
        f"acknowledged within {spell(one.plan.acknowledged_within_ns)}; {one.plan.automatic}"
    )
    lines = [
        ("state", f"{_state(one)}, opened {since}, {tense} {spell(ended - one.opened_at)}"),
        ("level", f"{one.level}: {one.plan.name}"),
        ("plan", plan),
        ("", one.plan.then),
        ("service", markup(f"{clean(one.service)} (team {clean(one.team)})")),
    ]
    if one.acknowledged_by:
        lines.append(("taken on", markup(f"by {clean(one.acknowledged_by)}")))
    if one.merged_into:
        lines.append(("merged", markup(f"into {clean(one.merged_into)}")))
    if one.needs_person:
        lines.append(("person", f"[bold red]needed[/]: {markup(clean(one.needs_person_why))}"))
        lines.append(("to do", markup(clean(one.what_to_do, 1000))))
    if desk.report(one.id).is_file():
        lines.append(("report", markup(str(desk.report(one.id)))))
    for name, text in lines:
        out.print(f"{name:10}{text}", soft_wrap=True)
    verbs_causes.print_found(told.entries)
    verbs_causes.print_in_short(told.entries)
    _print_alerts(one)
    _print_runs(one)
    _print_timeline(told)


def _print_alerts(one: Incident) -> None:
    table = Table(title="alerts", title_justify="left")
    for column in ("alert", "is", "since", "about", "told by"):
        table.add_column(column)
    for alert in islice(one.alerts.values(), ALERTS_SHOWN):
        about = " ".join(f"{name}={alert.labels[name]}" for name in ("replica", "symbol") if name in alert.labels)
        mark = " (cause)" if alert.fingerprint == one.cause else ""
        status = "[red]firing[/]" if alert.firing else "[green]over[/]"
        table.add_row(
            markup(clean(alert.name)) + mark, status, clock(alert.since), markup(clean(about)), markup(alert.path)
        )
    if one.alerts:
        out.print(table)
    if len(one.alerts) > ALERTS_SHOWN:
        out.print(f"and {len(one.alerts) - ALERTS_SHOWN} alerts more; --json shows all")


def _print_runs(one: Incident) -> None:
    table = Table(title="runs", title_justify="left")
    for column in ("run", "runbook", "target", "came to", "because"):
        table.add_column(column)
    for run in one.runs:
        outcome = OUTCOMES.get(run.outcome or "", run.outcome) if run.outcome else "under way"
        detail = run.detail or REASONS.get(run.reason, run.reason)
        table.add_row(*(markup(clean(cell)) for cell in (run.id, run.runbook, run.target, outcome, detail)))
    if one.runs:
        out.print(table)
    for declined in one.declined:
        name, _, reason = declined.partition(": ")
        out.print(markup(f"not run: {clean(name)}, {REASONS.get(reason, clean(reason))}"))


def _print_timeline(told: Told) -> None:
    table = Table(title="timeline (UTC)", title_justify="left")
    for column in ("#", "at", "who", "what"):
        table.add_column(column, no_wrap=column in {"#", "at"})
    left_out = len(told.entries) - 2 * ENTRIES_SHOWN
    for place, entry in enumerate(told.entries):
        if left_out > 0 and ENTRIES_SHOWN <= place < ENTRIES_SHOWN + left_out:
            if place == ENTRIES_SHOWN:
                table.add_row("…", "", "", f"{left_out} entries more; --json shows all")
            continue
        table.add_row(str(entry.n), clock(entry.at), markup(clean(entry.source)), markup(clean(entry.text, 400)))
    out.print(table)
    if told.tamper is not None:
        out.print(f"[bold red]the timeline is not whole:[/] {markup(told.tamper)}")
