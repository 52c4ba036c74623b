"""The verbs `runbook`: what would be done, checked, rehearsed, and done when a person asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
import typer
from rich.markup import escape as markup
from rich.table import Table

from control.preview_page import print_preview, print_question
from control.rehearsed import Preview
from control.terminal import (
    DONE,
    EXIT_CODES,
    FAILED,
    REFUSED,
    AsJson,
    By,
    State,
    err,
    guarded,
    layout_of,
    out,
    print_json,
    who,
)
from control.terminal import starting as starting_with
from control.verbs_incident import Desk
from incidents.words import OUTCOMES
from kernel.errors import InputError
from runbooks.bind import bind
from runbooks.model import Refusal, Runbook, Wait
from runbooks.rehearse import Rehearsal, Supposition, rehearse
from runbooks.words import describe, duration, promised, wanted

LIBRARY: Final = Path(__file__).resolve().parent.parent / "runbooks" / "library"
"""The runbooks that come with the program. Their reader is imported where it is needed: it is slow to load."""
EXAMPLES: Final = {"symbol": "ACME", "replica": "1"}
"""What stands for a label nobody gave in a rehearsal; a replica is named after its service."""


def complete_runbook(incomplete: str) -> list[str]:
    """Offer the names of the runbooks that ship with the program."""
    return starting_with((path.stem for path in LIBRARY.glob("*.yaml")), incomplete)


Name = Annotated[str, typer.Argument(help="Such as gateway-down.", autocompletion=complete_runbook)]
Library = Annotated[Path, typer.Option(help="Directory of the runbooks; else the ones that ship.", show_default=False)]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", help="A label of the alert it answers, such as replica=gateway-1."),
]


class Against(StrEnum):
    """What a rehearsal is held against."""

    SUPPOSITION = "supposition"
    LIVE = "live"


app = typer.Typer(no_args_is_help=True, help="See, check, rehearse and run runbooks.", epilog=EXIT_CODES)


@app.command("list", epilog="Example: tapewatch runbook list")
def list_(library: Library = LIBRARY, *, as_json: AsJson = False) -> None:
    """Show the runbooks: what each answers, does and may touch."""
    from runbooks.adapters.yaml_library import load_library

    runbooks, broken = load_library(library)
    if as_json:
        print_json({"runbooks": runbooks, "errors": [str(error) for error in broken]})
    else:
        _print_list(runbooks)
    for error in broken:
        err.print(f"[bold red]tapewatch:[/] {markup(str(error))}")
    raise typer.Exit(FAILED if broken else DONE)


@app.command("show", epilog="Example: tapewatch runbook show gateway-down")
def show(name: Name, library: Library = LIBRARY, *, as_json: AsJson = False) -> None:
    """Show one runbook in words."""
    runbook = guarded(lambda: _find(name, library))
    if as_json:
        print_json(runbook)
    else:
        _print_runbook(runbook)


@app.command("check", epilog="Example: tapewatch runbook check runbooks/library/*.yaml")
def check(
    files: Annotated[list[Path] | None, typer.Argument(help="Files; else the library.", show_default=False)] = None,
    library: Library = LIBRARY,
    *,
    as_json: AsJson = False,
) -> None:
    """Say of each file whether it is a runbook, or where it is broken. Touches nothing, needs no estate."""
    told = [_checked(path) for path in files] if files else _checked_library(library)
    if as_json:
        print_json(told)
    else:
        for one in told:
            if one["error"]:
                err.print(f"[bold red]broken[/] {markup(one['error'])}")
            else:
                out.print(f"[green]good[/]   {markup(one['file'])}", soft_wrap=True)
    raise typer.Exit(FAILED if any(one["error"] for one in told) else DONE)


@app.command("rehearse", epilog="Example: tapewatch runbook rehearse gateway-down --against live -l replica=gateway-2")
def rehearse_(
    name: Name,
    labels: Labels = None,
    against: Annotated[Against, typer.Option(help="The running plant, or a supposition.")] = Against.SUPPOSITION,
    library: Library = LIBRARY,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what a run would ask and do. Touches nothing.

    Supposed, it is shown once when the remedy helps and once when it does not. Live, the running control reads every
    guard, asks every rail and the platform, and says whether the run would begin.
    """
    if against is Against.LIVE:
        _rehearse_live(name, labels or [], state, as_json=as_json)
        return
    bound = guarded(lambda: _bound(_find(name, library), labels or []))
    told = {"helps": rehearse(bound), "does_not_help": rehearse(bound, Supposition(helps=False))}
    if as_json:
        print_json(told)
        return
    for words, rehearsal in zip(("the remedy helps", "it does not help"), told.values(), strict=True):
        _print_rehearsal(words, rehearsal)


def _rehearse_live(name: str, labels: Sequence[str], state: Path | None, *, as_json: bool) -> None:
    body = {"labels": guarded(lambda: _pairs(labels))}
    told = guarded(lambda: Desk(layout_of(state)).say(f"runbooks/{quote(name, safe='')}/rehearse", body))
    preview = msgspec.convert(told, Preview)
    if as_json:
        print_json(told)
    else:
        print_preview(preview)
    raise typer.Exit(DONE if preview.begins else REFUSED)


@app.command("run", epilog="Example: tapewatch runbook run gateway-down --label replica=gateway-1")
def run(name: Name, labels: Labels = None, by: By = "", state: State = None, *, as_json: AsJson = False) -> None:
    """Ask control to run a runbook now. Every guard and rail holds for people, too."""
    body = {"by": who(by), "labels": guarded(lambda: _pairs(labels or []))}
    record = guarded(lambda: Desk(layout_of(state)).say(f"runbooks/{quote(name, safe='')}/run", body))
    if as_json:
        print_json(record)
        return
    out.print(markup(f"run {record['id']} of {record['runbook']} began for {record['incident']}"), soft_wrap=True)
    out.print(markup(f"`tapewatch incident show {record['incident']}` tells how it goes"), soft_wrap=True)


@app.command("asking", epilog="Example: tapewatch runbook asking --json")
def asking(state: State = None, *, as_json: AsJson = False) -> None:
    """Show the runs that wait for people's consent."""
    found = guarded(lambda: Desk(layout_of(state)).ask("consents"))
    if as_json:
        print_json(found)
    elif not found:
        out.print("no run waits for consent")
    else:
        for one in found:
            print_question(one)


RunId = Annotated[str, typer.Argument(help="The run that asks, as `runbook asking` names it.")]
PlanHash = Annotated[
    str, typer.Option("--plan", help="The hash of the plan that is meant; refused when another is asked for now.")
]


@app.command("approve", epilog="Example: tapewatch runbook approve RUN --by anna --plan 0123456789ab")
def approve(run: RunId, by: By = "", plan: PlanHash = "", state: State = None) -> None:
    """Agree to what a run asks consent for."""
    _answer(state, {"run": run, "by": who(by), "grant": True, "plan": plan})


@app.command("deny", epilog='Example: tapewatch runbook deny RUN --by anna --why "the rack is being moved"')
def deny(run: RunId, by: By = "", why: Annotated[str, typer.Option(help="Why not.")] = "", state: State = None) -> None:
    """Forbid what a run asks consent for."""
    _answer(state, {"run": run, "by": who(by), "grant": False, "why": why})


def _answer(state: Path | None, body: Mapping[str, object]) -> None:
    out.print(markup(guarded(lambda: Desk(layout_of(state)).say("consents", body))["said"]), soft_wrap=True)


# --- files ---------------------------------------------------------------------------------------------------------


def _find(name: str, library: Path) -> Runbook:
    """Return one runbook.

    Raises:
        InputError: there is none of this name, or its file is broken.
    """
    names = sorted(path.stem for path in library.glob("*.yaml")) if library.is_dir() else []
    if name not in names:
        right = f"there are {', '.join(names)}" if names else f"{library} holds no runbook"
        raise InputError("runbook", f"{name[:60]!r} is not known", right=right)
    from runbooks.adapters.yaml_library import load_runbook

    return load_runbook(library / f"{name}.yaml")


def _checked(path: Path) -> dict[str, str]:
    from runbooks.adapters.yaml_library import load_runbook

    try:
        return {"file": str(path), "name": load_runbook(path).name, "error": ""}
    except InputError as error:
        return {"file": str(path), "name": "", "error": str(error)}


def _checked_library(library: Path) -> list[dict[str, str]]:
    from runbooks.adapters.yaml_library import load_library

    runbooks, broken = load_library(library)
    good = [{"file": str(library / f"{one.name}.yaml"), "name": one.name, "error": ""} for one in runbooks]
    bad = [{"file": error.where.partition(":")[0], "name": "", "error": str(error)} for error in broken]
    return sorted(good + bad, key=lambda one: one["file"])


def _pairs(labels: Sequence[str]) -> dict[str, str]:
    """Return labels given as `name=value`.

    Raises:
        InputError: one is not so written.
    """
    pairs: dict[str, str] = {}
    for text in labels:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InputError("--label", f"is {text[:60]!r}", right="write name=value, such as replica=gateway-1")
        pairs[name] = value
    return pairs


def _bound(runbook: Runbook, labels: Sequence[str]) -> Runbook:
    """Bind a runbook to the labels given, and to examples where none is.

    Raises:
        InputError: a label's value is no target's name.
    """
    examples = {label: EXAMPLES.get(label, "example") for label in runbook.parameters.values()}
    if "replica" in examples:
        examples["replica"] = f"{runbook.service}-1"
    bound = bind(runbook, examples | _pairs(labels))
    if isinstance(bound, Refusal):
        raise InputError("--label", bound.detail, right="give the labels of an alert that the runbook answers")
    return bound


# --- for people ----------------------------------------------------------------------------------------------------


def _print_list(runbooks: Sequence[Runbook]) -> None:
    table = Table()
    for column in ("runbook", "answers", "does", "consent", "level"):
        table.add_column(column)
    for one in runbooks:
        does = "; ".join(describe(step.action) for step in one.steps)
        cells = (one.name, ", ".join(one.answers), does, one.consent, one.level)
        table.add_row(*(markup(str(cell)) for cell in cells))
    out.print(table)


def _print_runbook(one: Runbook) -> None:
    lines: list[tuple[str, str]] = [
        ("answers", ", ".join(one.answers)),
        ("service", f"{one.service} (team {one.team}, level {one.level})"),
        ("consent", str(one.consent).replace("_", " ")),
    ]
    lines += [("needs", f"the label {label}") for label in one.parameters.values()]
    for guard in one.guards:
        lines.append(("only if", f"{wanted(guard.evidence)}, else {str(guard.otherwise).replace('_', ' ')}"))
        lines.append(("", guard.evidence.query))
    for number, step in enumerate(one.steps, 1):
        lines.append((f"step {number}", f"{step.name}: {describe(step.action)}"))
        if step.proof is not None:
            lines += [("  proof", promised(step.proof)), ("", step.proof.evidence.query)]
        lines.append(("  undo", str(step.undo).replace("_", " ")))
    radius, limits = one.blast_radius, one.limits
    rates = (
        f"not again within {duration(limits.cool_down_ns)}, at most {limits.runs_per_hour} an hour, "
        f"handed over after {limits.ineffective_runs} that did not help"
    )
    market = ", the market" if radius.market else ""
    lines += [
        ("touches", f"at most {radius.replicas} replicas, {radius.symbols} symbols{market}"),
        ("limits", rates),
        ("else", one.when_refused),
    ]
    out.print(f"[bold]{markup(one.name)}[/]  {markup(one.title)}", soft_wrap=True)
    for name, text in lines:
        out.print(f"{name:10}{markup(text)}", soft_wrap=True)


def _print_rehearsal(words: str, rehearsal: Rehearsal) -> None:
    out.print(f"[bold]Supposed that {words}:[/]")
    told: list[tuple[str, int, int]] = []
    for line in rehearsal.lines:
        if isinstance(line.question, Wait):
            continue  # the time of the next line says it
        if told and told[-1][0] == line.words:
            told[-1] = (line.words, told[-1][1], told[-1][2] + 1)
        else:
            told.append((line.words, line.at, 1))
    for text, at, times in told:
        again = f" ({times} times)" if times > 1 else ""
        out.print(f"  {duration(at):>8}  {markup(text)}{again}", soft_wrap=True)
    end = rehearsal.conclusion
    out.print(
        f"  [bold]{end.outcome}[/]: {markup(OUTCOMES.get(end.outcome, ''))}. {markup(end.detail)}\n", soft_wrap=True
    )
