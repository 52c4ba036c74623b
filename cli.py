"""The terminal of Tapewatch: parse, call control, print, exit code. No logic."""

from __future__ import annotations

import asyncio
import contextlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from control import doctor as doctor_room
from control import (
    faults,
    killswitch,
    verbs_alerts,
    verbs_anomaly,
    verbs_anomaly_live,
    verbs_anomaly_logs,
    verbs_bench,
    verbs_dashboards,
    verbs_db,
    verbs_edge,
    verbs_elk,
    verbs_exchange,
    verbs_incident,
    verbs_kube,
    verbs_letters,
    verbs_logs,
    verbs_market,
    verbs_notices,
    verbs_page,
    verbs_region,
    verbs_review,
    verbs_runbook,
    verbs_servers,
    verbs_settle,
    verbs_shipper,
    verbs_slo,
    verbs_token,
    verbs_traces,
)
from control.child import now
from control.settings import load_settings
from control.terminal import (
    DONE,
    EXIT_CODES,
    FAILED,
    AsJson,
    By,
    State,
    err,
    escape,
    estate_of,
    guarded,
    out,
    print_checks,
    print_faults,
    print_json,
    print_status,
    settings_of,
    starting,
    status_of,
    who,
)
from kernel.errors import TapewatchError

if TYPE_CHECKING:
    from control.estate import Estate

app = typer.Typer(name="tapewatch", no_args_is_help=True, pretty_exceptions_enable=False, epilog=EXIT_CODES)
fault_app = typer.Typer(no_args_is_help=True, help="Break something on purpose, and mend it.", epilog=EXIT_CODES)
switch_app = typer.Typer(no_args_is_help=True, help="Forbid or allow every automatic action.", epilog=EXIT_CODES)
app.add_typer(fault_app, name="fault")
app.add_typer(switch_app, name="kill-switch")

app.add_typer(verbs_incident.app, name="incident")
app.add_typer(verbs_runbook.app, name="runbook")
verbs_exchange.app.command("status", epilog="Example: tapewatch exchange status --json")(verbs_market.status)
verbs_exchange.app.command("halt", epilog='Example: tapewatch exchange halt --market --why "a wrong tick size"')(
    verbs_market.halt
)
verbs_exchange.app.command("resume", epilog="Example: tapewatch exchange resume --market")(verbs_market.resume)
verbs_exchange.app.command("phase", epilog="Example: tapewatch exchange phase closing_auction --market")(
    verbs_market.phase
)
verbs_exchange.app.command("fund", epilog="Example: tapewatch exchange fund ann '$cash' 5000000000")(verbs_market.fund)
verbs_exchange.app.command("disable", epilog='Example: tapewatch exchange disable ann --why "a runaway program"')(
    verbs_market.disable
)
verbs_exchange.app.command("enable", epilog="Example: tapewatch exchange enable ann")(verbs_market.enable)
verbs_exchange.app.command("bench", epilog="Example: tapewatch exchange bench --flow crash --json")(verbs_bench.bench)
verbs_exchange.app.add_typer(verbs_token.app, name="token")
verbs_exchange.app.add_typer(verbs_letters.app, name="dead-letters")
verbs_exchange.app.command("notices", epilog="Example: tapewatch exchange notices --account ann --follow")(
    verbs_notices.notices
)
verbs_exchange.app.add_typer(verbs_settle.app, name="settle")
app.add_typer(verbs_exchange.app, name="exchange")
app.add_typer(verbs_db.app, name="db")
app.add_typer(verbs_edge.app, name="edge")
app.add_typer(verbs_kube.app, name="kube")
verbs_logs.app.command("ship", epilog="Example: tapewatch logs ship --once")(verbs_shipper.ship)
verbs_logs.app.command("dead-letters", epilog="Example: tapewatch logs dead-letters retry")(verbs_shipper.dead_letters)
verbs_logs.app.command("templates", epilog=verbs_anomaly_logs.TEMPLATES)(verbs_anomaly_logs.templates)
app.add_typer(verbs_logs.app, name="logs")
app.add_typer(verbs_page.app, name="page")
app.add_typer(verbs_region.app, name="region")
app.add_typer(verbs_servers.app, name="servers")
verbs_alerts.app.command("report", epilog="Example: tapewatch alerts report --since 12h")(verbs_review.report)
app.add_typer(verbs_alerts.app, name="alerts")
verbs_anomaly.ANOMALY.command("watch", epilog="Example: tapewatch anomaly watch --service gateway")(
    verbs_anomaly_live.watch
)
verbs_anomaly.ANOMALY.command(
    "feedback", epilog="Example: tapewatch anomaly feedback gateway-latency/gateway-1 --false"
)(verbs_anomaly_live.feedback)
verbs_anomaly.ANOMALY.command("logs", epilog=verbs_anomaly_logs.LOGS)(verbs_anomaly_logs.logs)
app.add_typer(verbs_anomaly.ANOMALY, name="anomaly")
app.add_typer(verbs_dashboards.app, name="dashboards")
app.add_typer(verbs_elk.app, name="elk")
app.add_typer(verbs_slo.app, name="slo")
app.add_typer(verbs_traces.app, name="traces")


def complete_fault(incomplete: str) -> list[str]:
    """Offer the names of the faults."""
    return starting([*faults.FAULTS, *faults.catalog("kubernetes")], incomplete)


def complete_scenario(incomplete: str) -> list[str]:
    """Offer the names of the scenarios."""
    from control.scenario import known

    return starting([*known("local"), *known("distributed"), *known("kubernetes"), "all", "alerts"], incomplete)


FaultName = Annotated[str, typer.Argument(help="Such as gateway-hang.", autocompletion=complete_fault)]
On = Annotated[
    str | None,
    typer.Option("--on", help="What runs the exchange: local or kubernetes (setting on).", show_default=False),
]
Kept = Annotated[
    str | None,
    typer.Option("--estate", help="What keeps it: embedded or distributed (setting estate).", show_default=False),
]
Scenario = Annotated[
    str, typer.Argument(help="A scenario of drills/, all, or alerts.", autocompletion=complete_scenario)
]


def _version(asked: bool) -> None:
    if asked:
        out.print(f"tapewatch {version('tapewatch')}")
        raise typer.Exit(DONE)


@app.callback()
def tapewatch(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run, watch and mend a stock exchange: each remedy is proven or undone."""


@app.command(epilog=EXIT_CODES)
def up(
    state: State = None,
    on: On = None,
    estate: Kept = None,
    context: Annotated[
        str,
        typer.Option(help="Of another cluster: say whether it can be reached and what it needs.", show_default=False),
    ] = "",
) -> None:
    """Run the estate here until Ctrl-C.

    `--on kubernetes` runs the exchange as the pods of a test bed; `--estate distributed` runs it on
    Kafka, PostgreSQL and RabbitMQ.
    """
    from control.estate import run  # with its servers it takes a quarter of a second that no other verb should wait

    guarded(lambda: verbs_kube.refuse_context(context))
    settings = guarded(lambda: verbs_kube.with_binary(load_settings(state=state, on=on, estate=estate)))
    guarded(lambda: asyncio.run(run(settings, _say, _announce)))


def _though_nobody_reads() -> contextlib.suppress:
    """Return what lets words go unread: the terminal went away, and what is under way is the more worth finishing.

    Of a pipe that nobody reads any more Rich would make an end of the program.
    """
    return contextlib.suppress(OSError, SystemExit)


def _say(text: str) -> None:
    with _though_nobody_reads():
        out.print(escape(text))


def _announce(estate: Estate) -> None:
    found = guarded(lambda: status_of_estate(estate))
    with _though_nobody_reads():
        print_status(found)
        out.print("Ctrl-C stops it; `tapewatch fault list` shows what can be broken")


def status_of_estate(estate: Estate) -> dict[str, object]:
    """Return the status from within the estate's own process."""
    return status_of(faults.connect(estate.layout.root), estate.supervisor.all())


@app.command(epilog=EXIT_CODES)
def down(state: State = None) -> None:
    """Stop the estate that runs elsewhere, in order, and wait for it."""
    root = settings_of(state).state
    guarded(lambda: faults.stop_and_wait(faults.connect(root)))
    out.print("stopped")


@app.command(epilog=EXIT_CODES)
def status(state: State = None, *, as_json: AsJson = False) -> None:
    """Show every workload, its replicas and the addresses."""
    root = settings_of(state).state
    found = guarded(lambda: status_of(faults.connect(root)))
    if as_json:
        print_json(found)
    else:
        print_status(found)


@app.command(epilog=EXIT_CODES)
def doctor(state: State = None, estate: Kept = None, *, as_json: AsJson = False) -> NoReturn:
    """Say what is missing on this machine and how to get it."""
    settings = guarded(lambda: load_settings(state=state, estate=estate))
    checks = doctor_room.examine(settings)
    if as_json:
        print_json(checks)
    else:
        print_checks(checks, estate=settings.estate)
    raise typer.Exit(DONE if all(check.ok for check in checks) else FAILED)


@fault_app.command("list")
def fault_list(on: On = None, estate: Kept = None, state: State = None, *, as_json: AsJson = False) -> None:
    """Show what can be broken, and in a running estate what its processes suffer now."""
    settings = guarded(lambda: load_settings(on=on, estate=estate, state=state))
    place, active = settings.place, dict[str, dict[str, str]]()
    with contextlib.suppress(TapewatchError):  # where no estate runs nothing is broken
        plant = faults.connect(settings.state)
        active = faults.active(plant)
        place = place if on or estate else plant.addresses.place
    known = faults.catalog(place)
    if as_json:
        print_json([{**faults.described(fault), "now": active.get(fault.name, {})} for fault in known.values()])
    else:
        print_faults(list(known.values()), active)


@fault_app.command("inject")
def fault_inject(
    name: FaultName,
    target: Annotated[str, typer.Option(help="Replica or workload, of signal an alert; else the usual one.")] = "",
    value: Annotated[str, typer.Option(help="Size; else the fault's usual one.")] = "",
    state: State = None,
) -> None:
    """Break something in the running estate."""
    root = settings_of(state).state
    out.print(escape(guarded(lambda: faults.inject(faults.connect(root), name, target=target, value=value))))


@fault_app.command("clear")
def fault_clear(
    name: FaultName,
    target: Annotated[str, typer.Option(help="Replica or workload; else the fault's usual one.")] = "",
    state: State = None,
) -> None:
    """Take a fault back by hand."""
    root = settings_of(state).state
    out.print(escape(guarded(lambda: faults.clear(faults.connect(root), name, target=target))))


@switch_app.command("on")
def switch_on(
    why: Annotated[str, typer.Option(help="Why; kept with the switch.")] = "no reason given",
    by: By = "",
    state: State = None,
) -> None:
    """Forbid every automatic action, durably; works with control down."""
    layout = guarded(lambda: estate_of(state))
    already = killswitch.read(layout.kill_switch)
    thrown = guarded(lambda: killswitch.throw(layout.kill_switch, by=who(by), why=why, at=now()))
    told = f"kill switch was on already: {thrown}" if already is not None else f"kill switch {thrown}"
    out.print(escape(f"{told} ({layout.root})"), soft_wrap=True)


@switch_app.command("off")
def switch_off(state: State = None) -> None:
    """Allow automatic actions again."""
    layout = guarded(lambda: estate_of(state))
    was_on = guarded(lambda: killswitch.release(layout.kill_switch))
    told = "kill switch off" if was_on else "kill switch was off already"
    out.print(escape(f"{told} ({layout.root})"), soft_wrap=True)


@switch_app.command("status")
def switch_status(state: State = None, *, as_json: AsJson = False) -> None:
    """Say whether automatic actions are forbidden, by whom and why."""
    layout = guarded(lambda: estate_of(state))
    thrown = killswitch.read(layout.kill_switch)
    if as_json:
        print_json({"on": thrown is not None, "thrown": thrown, "state": str(layout.root)})
    else:
        told = "kill switch off" if thrown is None else f"kill switch {thrown}"
        out.print(escape(f"{told} ({layout.root})"), soft_wrap=True)


@app.command(epilog=EXIT_CODES)
def drill(  # noqa: PLR0913 - a verb's options
    scenario: Scenario = "",
    on: On = None,
    estate: Kept = None,
    folder: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path(".tapewatch/drills"),
    *,
    as_json: AsJson = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the estate's state of a run that passed.")] = False,
    times: Annotated[int, typer.Option(min=1, max=100, help="Run everything so many times in a row.")] = 1,
    every: Annotated[bool, typer.Option("--every", help="With alerts: every alert, not one of each family.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="With alerts: an alert or a family; may be repeated.", show_default=False)
    ] = None,
) -> NoReturn:
    """Run a whole incident on a fresh estate and prove every link of the chain (gateway-hang; on kubernetes pod-hang).

    `--on kubernetes` starts a cluster of its own; the first time it is built, which takes minutes. `drill alerts` fires
    alerts from the series of their own tests on real servers, and follows each to its receivers and back to resolved.
    """
    from control.verbs_drill import run_drills

    passed = guarded(
        lambda: run_drills(
            scenario,
            folder,
            guarded(lambda: load_settings(on=on, estate=estate)),
            as_json=as_json,
            keep=keep,
            times=times,
            every=every,
            only=only or (),
        )
    )
    raise typer.Exit(DONE if passed else FAILED)


app.command(epilog="Example: tapewatch postmortem INC-20260302-0001 --md")(verbs_incident.postmortem)
app.command(epilog="Example: tapewatch approve RUN --by anna --plan 0123456789ab")(verbs_runbook.approve)
app.command(epilog='Example: tapewatch deny RUN --by anna --why "the rack is being moved"')(verbs_runbook.deny)


def main() -> None:
    """Run the terminal."""
    try:
        app()
    except KeyboardInterrupt:
        err.print("interrupted")
        raise SystemExit(FAILED) from None


if __name__ == "__main__":
    main()
