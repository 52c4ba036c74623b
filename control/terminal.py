"""What the terminal shows: tables for people, JSON for scripts, errors on standard error."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from control import killswitch
from control.calls import call
from control.doctor_services import Check
from control.errors import BadRequestError, NotFoundError, RefusedByRailError
from control.fault import Fault, Plant
from control.layout import Layout
from control.settings import Settings, load_settings
from kernel.errors import InputError, TapewatchError, TemporaryError
from kernel.time import Instant, to_rfc3339
from runbooks.ports import RefusedError, WorkloadStatus

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
UNREACHABLE: Final = 4
EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 the thing asked for failed, 2 wrong usage, 3 refused by a guard, 4 cannot reach."
)

_GLANCE_S: Final = 2.0
"""How long `status` waits for one that may hang."""
PIPED_WIDTH: Final = 160
"""Columns when nobody's window says how many there are: wide enough for every table."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)
T = TypeVar("T")

State = Annotated[Path | None, typer.Option(help="State directory of the estate (setting state).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
By = Annotated[str, typer.Option(help="Who says so; else the user's name.", show_default=False)]


def settings_of(state: Path | None) -> Settings:
    """Return the settings, or end with the sentence that says which one is wrong."""
    return guarded(lambda: load_settings(state=state))


def layout_of(state: Path | None) -> Layout:
    """Return the paths of the estate that is meant."""
    return Layout(settings_of(state).state.absolute())


def estate_of(state: Path | None) -> Layout:
    """Return the paths of an estate that has run before.

    Raises:
        InputError: none ever ran in that directory, so that a mistyped path is not taken for the estate meant.
    """
    layout = layout_of(state)
    try:
        layout.version.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            str(layout.root),
            "no estate ever ran here",
            right="name its state directory with --state or TAPEWATCH_STATE",
        ) from None
    except OSError:  # there, and not ours to read: what is to be done with it says so itself
        return layout
    return layout


def who(by: str) -> str:
    """Return who speaks: the one named, else the user."""
    if by.strip():
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name
        return f"uid-{os.getuid()}"


def starting(words: Iterable[str], incomplete: str) -> list[str]:
    """Return the words that complete what was typed."""
    return sorted(word for word in words if word.startswith(incomplete))


def exit_code(error: TapewatchError) -> int:
    """Return the exit code that tells of an error."""
    match error:
        case RefusedError() | RefusedByRailError():
            return REFUSED
        case InputError() | BadRequestError() | NotFoundError():
            return USAGE
        case TemporaryError():
            return UNREACHABLE
        case _:
            return FAILED


def guarded(work: Callable[[], T]) -> T:
    """Do the work; an operating error becomes its sentence on standard error and its exit code.

    Raises:
        typer.Exit: with the code of `EXIT_CODES`.
    """
    try:
        return work()
    except TapewatchError as error:
        err.print(f"[bold red]tapewatch:[/] {escape(str(error))}")
        raise typer.Exit(exit_code(error)) from None
    except OSError as error:  # of a file or a directory that was named here, such as one of another user's
        where = "" if error.filename is None else f"{error.filename}: "
        words = error.strerror or str(error) or type(error).__name__  # one of asyncio's may have no words
        err.print(f"[bold red]tapewatch:[/] {escape(f'{where}{words}')}", soft_wrap=True)
        raise typer.Exit(FAILED) from None


def escape(text: str) -> str:
    """Make text harmless for Rich's markup."""
    return text.replace("[", "\\[")


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def status_of(plant: Plant, workloads: Sequence[WorkloadStatus] | None = None) -> dict[str, Any]:
    """Return what `status --json` prints: addresses, and every workload (asked for when not given)."""
    if workloads is None:
        seen = call("GET", f"{plant.addresses.estate}/v1/workloads", token=plant.admin)
        workloads = msgspec.convert(seen, type=tuple[WorkloadStatus, ...])
    book = plant.addresses
    thrown = killswitch.read(plant.layout.kill_switch)
    return {
        "state": book.state, "phase": book.phase, "pid": book.pid, "started_at": to_rfc3339(book.started_at),
        "prometheus": book.prometheus, "alertmanager": book.alertmanager, "control": book.control,
        "estate": book.estate, "on": book.on, "edge": book.edge or None,
        "edge_ca": str(plant.layout.edge / "ca.pem") if book.edge else None,
        "kubeconfig": str(plant.layout.kube / "admin.kubeconfig") if book.on == "kubernetes" else None,
        "kill_switch": {
            "on": thrown is not None, "by": thrown.by if thrown else None, "why": thrown.why if thrown else None,
        },
        "market": _market(plant), "incidents": _incidents(plant),
        "workloads": [
            {
                "name": each.name, "desired": each.desired, "ready": each.ready, "generation": each.generation,
                "singleton": each.singleton, "owned_by": each.owned_by,
                "replicas": [
                    {
                        "id": replica.id, "pid": replica.pid, "ready": replica.ready, "running": replica.running,
                        "url": replica.url, "uid": replica.uid, "started_at": _moment(replica.started_at),
                    }
                    for replica in each.replicas
                ],
            }
            for each in workloads
        ],
    }  # fmt: skip


def _market(plant: Plant) -> dict[str, Any] | None:
    """Return what is halted, and whether no order is taken at all; None when the engine does not say."""
    try:
        seen = call("GET", f"{plant.addresses.engine}/v1/status", timeout_s=_GLANCE_S)
        return {
            "halted": bool(seen["market_halted"]), "halted_symbols": list(seen["halted_symbols"]),
            "journal_failed": bool(seen["journal_failed"]) and not seen.get("engines"),  # one of several is not all
        }  # fmt: skip
    except (TapewatchError, KeyError, TypeError):  # whoever answers in other words is no engine
        return None


def _incidents(plant: Plant) -> dict[str, int] | None:
    """Count what goes on; None when control does not say."""
    try:
        seen = call("GET", f"{plant.addresses.control}/api/v1/incidents", token=plant.admin, timeout_s=_GLANCE_S)
        return {"open": len(seen), "waiting_for_person": sum(bool(one["needs_person"]) for one in seen)}
    except (TapewatchError, KeyError, TypeError):
        return None


def _moment(at: Instant | None) -> str | None:
    return None if at is None else to_rfc3339(at)


def print_status(status: dict[str, Any]) -> None:
    """Print `status_of` for people."""
    for name, text in _headlines(status):
        out.print(f"{name:13}{text}", soft_wrap=True)
    table = Table(
        title=f"estate in {status['state']}, {status['phase']} since {status['started_at']}", title_justify="left"
    )
    for column in ("workload", "replica", "pid", "ready", "address", "mended by"):
        table.add_column(column, no_wrap=True)
    for workload in status["workloads"]:
        for replica in workload["replicas"]:
            ready = "[green]yes[/]" if replica["ready"] else "[red]no[/]" if replica["running"] else "[red]down[/]"
            pid = str(replica["pid"] or "-")
            table.add_row(workload["name"], replica["id"], pid, ready, replica["url"], workload["owned_by"])
    out.print(table)
    for name in ("prometheus", "alertmanager", "control", "kubeconfig"):
        if status.get(name):
            out.print(f"{name:13}{status[name]}", soft_wrap=True)
    if status.get("edge"):
        trust = f"{status['edge']}/v1/orders by TLS; {status['edge_ca']} vouches for it"
        out.print(f"{'orders':13}{escape(trust)}", soft_wrap=True)


def _headlines(status: dict[str, Any]) -> Iterable[tuple[str, str]]:
    switch, market, incidents = status["kill_switch"], status["market"], status["incidents"]
    thrown = f"[bold red]on[/], thrown by {escape(str(switch['by']))}: {escape(str(switch['why']))}"
    yield "kill switch", thrown if switch["on"] else "off"
    if market is None:
        yield "market", "[red]unknown: the engine does not answer[/]"
    elif market["journal_failed"]:
        yield "market", "[bold red]takes no orders: the engine's journal failed[/]"
    else:
        symbols = ", ".join(map(escape, market["halted_symbols"]))
        halted = f"; [bold red]halted symbols:[/] {symbols}" if symbols else ""
        yield "market", ("[bold red]halted[/]" if market["halted"] else "open") + halted
    if incidents is None:
        yield "incidents", "[red]unknown: control does not answer[/]"
    else:
        waiting = incidents["waiting_for_person"]
        wait = f", [bold red]{waiting} waiting for a person[/]" if waiting else ", none waiting for a person"
        yield "incidents", f"{incidents['open']} unresolved{wait}"


def print_checks(checks: Sequence[Check], *, estate: str) -> None:
    """Print what the doctor found that such an estate needs."""
    table = Table()
    for column in ("needed", "", "found", "how to get it"):
        table.add_column(column)
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]missing[/]"
        table.add_row(check.name, mark, escape(check.found), "" if check.ok else check.get)
    out.print(table)
    if estate != "distributed":
        out.print("a distributed estate needs servers besides: tapewatch doctor --estate distributed")


def print_faults(faults: Sequence[Fault], active: Mapping[str, Mapping[str, str]]) -> None:
    """Print what can be broken, and what is: `active` tells it by a fault's name."""
    table = Table()
    for column in ("fault", "what it does", "at", "size", "ends by", *(["now at"] if active else [])):
        table.add_column(column)
    for fault in faults:
        struck = ", ".join(f"{at} ({value})" if value else at for at, value in active.get(fault.name, {}).items())
        words = (fault.name, fault.what, fault.target, fault.value, fault.cleared_by, *([struck] if active else []))
        table.add_row(*map(escape, words), style="yellow" if struck else "")
    out.print(table)
