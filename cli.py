"""The terminal of Tapewatch: parse, call control, print, exit code. No logic."""

from __future__ import annotations

import asyncio
import getpass
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from control import doctor as doctor_room
from control import faults, killswitch
from control.child import now
from control.estate import Estate, run
from control.layout import Layout
from control.settings import Settings, load_settings
from control.terminal import (
    DONE,
    EXIT_CODES,
    FAILED,
    err,
    escape,
    guarded,
    out,
    print_checks,
    print_faults,
    print_json,
    print_status,
    status_of,
)  # fmt: skip

app = typer.Typer(name="tapewatch", no_args_is_help=True, pretty_exceptions_enable=False, epilog=EXIT_CODES)
fault_app = typer.Typer(no_args_is_help=True, help="Break something on purpose, and mend it.", epilog=EXIT_CODES)
switch_app = typer.Typer(no_args_is_help=True, help="Forbid or allow every automatic action.", epilog=EXIT_CODES)
app.add_typer(fault_app, name="fault")
app.add_typer(switch_app, name="kill-switch")

State = Annotated[Path | None, typer.Option(help="State directory of the estate (setting state).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def tapewatch() -> None:
    """Run, watch and mend a stock exchange: each remedy is proven or undone."""


def _settings(state: Path | None) -> Settings:
    return guarded(lambda: load_settings(state=state))


def _layout(state: Path | None) -> Layout:
    return Layout(_settings(state).state.absolute())


@app.command(epilog=EXIT_CODES)
def up(state: State = None) -> None:
    """Run the estate here until Ctrl-C."""
    settings = _settings(state)
    guarded(lambda: asyncio.run(run(settings, lambda text: out.print(escape(text)), _announce)))


def _announce(estate: Estate) -> None:
    print_status(guarded(lambda: status_of_estate(estate)))
    out.print("Ctrl-C stops it; `tapewatch fault list` shows what can be broken")


def status_of_estate(estate: Estate) -> dict[str, object]:
    """Return the status from within the estate's own process."""
    return status_of(faults.connect(estate.layout.root), estate.supervisor.all())


@app.command(epilog=EXIT_CODES)
def down(state: State = None) -> None:
    """Stop the estate that runs elsewhere, in order, and wait for it."""
    root = _settings(state).state
    guarded(lambda: faults.stop_and_wait(faults.connect(root)))
    out.print("stopped")


@app.command(epilog=EXIT_CODES)
def status(state: State = None, *, as_json: AsJson = False) -> None:
    """Show every workload, its replicas and the addresses."""
    root = _settings(state).state
    found = guarded(lambda: status_of(faults.connect(root)))
    if as_json:
        print_json(found)
    else:
        print_status(found)


@app.command(epilog=EXIT_CODES)
def doctor(state: State = None, *, as_json: AsJson = False) -> NoReturn:
    """Say what is missing on this machine and how to get it."""
    checks = doctor_room.examine(_settings(state))
    if as_json:
        print_json(checks)
    else:
        print_checks(checks)
    raise typer.Exit(DONE if all(check.ok for check in checks) else FAILED)


@fault_app.command("list")
def fault_list(*, as_json: AsJson = False) -> None:
    """Show what can be broken."""
    if as_json:
        print_json([faults.described(fault) for fault in faults.FAULTS.values()])
    else:
        print_faults(list(faults.FAULTS.values()))


@fault_app.command("inject")
def fault_inject(
    name: str,
    target: Annotated[str, typer.Option(help="Replica or workload; else the fault's usual one.")] = "",
    value: Annotated[str, typer.Option(help="Size; else the fault's usual one.")] = "",
    state: State = None,
) -> None:
    """Break something in the running estate."""
    root = _settings(state).state
    out.print(escape(guarded(lambda: faults.inject(faults.connect(root), name, target=target, value=value))))


@fault_app.command("clear")
def fault_clear(
    name: str,
    target: Annotated[str, typer.Option(help="Replica or workload; else the fault's usual one.")] = "",
    state: State = None,
) -> None:
    """Take a fault back by hand."""
    root = _settings(state).state
    out.print(escape(guarded(lambda: faults.clear(faults.connect(root), name, target=target))))


@switch_app.command("on")
def switch_on(
    why: Annotated[str, typer.Option(help="Why; kept with the switch.")] = "no reason given",
    by: Annotated[str, typer.Option(help="Who throws it.")] = "",
    state: State = None,
) -> None:
    """Forbid every automatic action, durably; works with control down."""
    layout = _layout(state)
    thrown = guarded(lambda: killswitch.throw(layout.kill_switch, by=by or getpass.getuser(), why=why, at=now()))
    out.print(escape(f"kill switch {thrown}"))


@switch_app.command("off")
def switch_off(state: State = None) -> None:
    """Allow automatic actions again."""
    layout = _layout(state)
    was_on = guarded(lambda: killswitch.release(layout.kill_switch))
    out.print("kill switch off" if was_on else "kill switch was off already")


@switch_app.command("status")
def switch_status(state: State = None, *, as_json: AsJson = False) -> None:
    """Say whether automatic actions are forbidden, by whom and why."""
    thrown = killswitch.read(_layout(state).kill_switch)
    if as_json:
        print_json({"on": thrown is not None, "thrown": thrown})
    else:
        out.print(escape("kill switch off" if thrown is None else f"kill switch {thrown}"))


@app.command(epilog=EXIT_CODES)
def drill(
    scenario: Annotated[str, typer.Argument(help="A scenario of drills/, or all.")] = "gateway-hang",
    folder: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path(".tapewatch/drills"),
    *,
    as_json: AsJson = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the estate's state of a run that passed.")] = False,
) -> NoReturn:
    """Run a whole incident on a fresh estate and prove every link of the chain."""
    from control.verbs_drill import run_drills

    passed = guarded(lambda: run_drills(scenario, folder, as_json=as_json, keep=keep))
    raise typer.Exit(DONE if passed else FAILED)


def main() -> None:
    """Run the terminal."""
    try:
        app()
    except KeyboardInterrupt:
        err.print("interrupted")
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
