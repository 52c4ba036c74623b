"""The verbs `slo`: what is promised, how much of each error budget is left, and the rules made from it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape as markup
from rich.table import Table

from control.child import now
from control.terminal import (
    DONE,
    EXIT_CODES,
    FAILED,
    UNREACHABLE,
    AsJson,
    State,
    err,
    escape,
    guarded,
    layout_of,
    out,
    print_json,
    starting,
)
from kernel.errors import InputError, TapewatchError
from kernel.time import SECOND, Instant
from monitor.slo import Slo, alert_name, budget_used
from monitor.slo_rules import expr_of, files_of

RULES: Final = Path(__file__).resolve().parent.parent / "alerts" / "rules"
_FRESH: Final = 10 * SECOND
"""A budget older than this is not shown as today's."""
_ASKED: Final = {"left": "slo:error_budget_remaining:ratio", "burn_1h": "slo:burn_rate:ratio_rate1h"}
_LOW: Final = 0.25
app = typer.Typer(no_args_is_help=True, help="Objectives and their error budgets.", epilog=EXIT_CODES)


def complete_slo(incomplete: str) -> list[str]:
    """Offer the names of the objectives."""
    try:
        return starting([slo.name for slo in _load(None)], incomplete)
    except TapewatchError:
        return []


Folder = Annotated[
    Path | None, typer.Option("--slos", help="Directory of OpenSLO files; else alerts/slo.", show_default=False)
]


@app.command("list", epilog="Example: tapewatch slo list --json")
def list_(slos: Folder = None, state: State = None, *, as_json: AsJson = False) -> None:
    """Show each objective, and from a running estate what is left of its budget; without one exit code 4."""
    found = guarded(lambda: _load(slos))
    measured, why = _measured(state)
    rows = [
        {
            "name": slo.name, "service": slo.service, "team": slo.team, "objective": slo.objective,
            "budget_remaining": measured.get("left", {}).get(slo.name),
            "burn_rate_1h": measured.get("burn_1h", {}).get(slo.name),
        }
        for slo in found
    ]  # fmt: skip
    if as_json:
        print_json({"measured": bool(measured), "slos": rows})
    else:
        _print(rows)
    if why:
        err.print(f"[bold red]tapewatch:[/] budgets are not known: {escape(why)}")
        raise typer.Exit(UNREACHABLE)
    if not measured and not as_json:
        out.print("the estate has no figures yet: budgets are not known", soft_wrap=True)


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table()
    for column in ("objective", "service", "team", "target", "budget left", "burn 1h"):
        table.add_column(column, justify="right" if column in {"target", "budget left", "burn 1h"} else "left")
    for row in rows:
        table.add_row(
            markup(str(row["name"])), str(row["service"]), str(row["team"]), f"{float(str(row['objective'])):.3%}",
            _coloured(row["budget_remaining"]), "-" if row["burn_rate_1h"] is None else f"{row['burn_rate_1h']:.2f}",
        )  # fmt: skip
    out.print(table)


@app.command("show", epilog="Example: tapewatch slo show order-entry-latency")
def show(
    name: Annotated[str, typer.Argument(help="An objective.", autocompletion=complete_slo)],
    slos: Folder = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show one objective: what counts, how much may go wrong, and when people are told."""
    slo = guarded(lambda: _one(name, _load(slos)))
    alerts = [
        {
            "alert": alert_name(slo.name, one.name), **asdict(one), "uses": budget_used(one.burn, one.long),
            "expr": expr_of(slo, one),
        }
        for one in slo.conditions
    ]  # fmt: skip
    if as_json:
        print_json({**asdict(slo), "budget": slo.budget, "conditions": alerts})
        return
    for key, text in (
        ("objective", f"{slo.objective:.3%}: {slo.description}"),
        ("budget", f"{slo.budget:.3%} of 30 days' events; nobody is told below {slo.minimum_events} events"),
        ("service", f"{slo.service}, {slo.team}"),
        *((key, str(value)) for key, value in asdict(slo.indicator).items()),
        ("file", slo.where),
    ):
        out.print(f"{key:13}{markup(text)}", soft_wrap=True)
    table = Table()
    for column in ("alert", "burn rate", "windows", "uses up", "for", "level"):
        table.add_column(column)
    for one in alerts:
        windows = f"{one['long']} & {one['short']}"
        table.add_row(one["alert"], f"{one['burn']:g}", windows, f"{one['uses']:.0%}", one["after"], f"{one['level']}")
    out.print(table)


@app.command("check", epilog="Example: tapewatch slo check --slos my-objectives")
def check(slos: Folder = None, *, as_json: AsJson = False) -> None:
    """Check the files of objectives, and that the rules are those made from them; 1 when they are not."""
    found = guarded(lambda: _load(slos))
    stale = [name for name, text in files_of(found).items() if slos is None and _text(RULES / name) != text]
    if as_json:
        print_json({"slos": [slo.name for slo in found], "stale": stale})
    else:
        out.print(f"{len(found)} objectives, {sum(len(slo.conditions) for slo in found)} alerts")
        for name in stale:
            out.print(f"[red]alerts/rules/{name} is not what the objectives make: run `tapewatch slo rules --write`[/]")
    raise typer.Exit(FAILED if stale else DONE)


@app.command("rules", epilog="Example: tapewatch slo rules --write")
def rules(
    slos: Folder = None,
    *,
    write: Annotated[bool, typer.Option("--write", help="Into alerts/rules, instead of the terminal.")] = False,
) -> None:
    """Print Prometheus's rules for the objectives, or write them where the estate reads them."""
    for name, text in files_of(guarded(lambda: _load(slos))).items():
        if write:
            (RULES / name).write_text(text)
            out.print(f"written: alerts/rules/{name}", soft_wrap=True)
        else:
            out.print(text, markup=False, soft_wrap=True, end="")


def _load(folder: Path | None) -> tuple[Slo, ...]:
    from monitor.adapters.slo_files import HOUSE, load

    return load(folder or HOUSE)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _one(name: str, slos: tuple[Slo, ...]) -> Slo:
    for slo in slos:
        if slo.name == name:
            return slo
    raise InputError(f"objective {name}", "is not known", right=f"known are {', '.join(slo.name for slo in slos)}")


def _measured(state: Path | None) -> tuple[dict[str, dict[str, float]], str]:
    """Ask the running estate; nothing and why not when there is none: the objectives are worth showing without."""
    from control.addresses import load_addresses

    layout = layout_of(state)
    try:
        return asyncio.run(_ask(load_addresses(layout.addresses).prometheus)), ""
    except TapewatchError as error:
        return {}, str(error)


async def _ask(url: str) -> dict[str, dict[str, float]]:
    from monitor.adapters.prometheus_api import PrometheusApi

    found: dict[str, dict[str, float]] = {}
    end = now()
    async with PrometheusApi(url) as prometheus:
        for key, query in _ASKED.items():
            curves = await prometheus.curve(query, Instant(end - _FRESH), end, SECOND)
            if values := {one.labels["slo"]: one.points[-1][1] for one in curves if one.points}:
                found[key] = values
    return found


def _coloured(left: Any) -> str:
    if left is None:
        return "-"
    colour = "red" if left <= 0 else "yellow" if left < _LOW else "green"
    return f"[{colour}]{left:.1%}[/]"
