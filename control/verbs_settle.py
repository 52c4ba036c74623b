"""The verbs `exchange settle`: where the saga of a trade stands, and a person's hand on one that is stuck."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final

import typer
from rich.markup import escape as markup
from rich.table import Table

from control import faults
from control.errors import NotFoundError, RefusedByRailError
from control.fault import Plant
from control.terminal import (
    EXIT_CODES,
    AsJson,
    By,
    State,
    err,
    estate_of,
    guarded,
    layout_of,
    out,
    print_json,
    starting,
    who,
)
from exchange.saga import WHO_MAX, WHY_LEAST, WHY_MAX, Deed
from kernel.errors import InputError, TapewatchError

app = typer.Typer(
    no_args_is_help=True,
    help="Settlement by sagas: how they stand, one of them step by step, and a hand on one that is stuck.",
    epilog=EXIT_CODES,
)
COORDINATOR: Final = "saga-coordinator-1"


def complete_trade(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the trades whose sagas are stuck."""
    try:
        plant = faults.connect(layout_of(ctx.params.get("state")).root)
        told = plant.role("GET", COORDINATOR, "/v1/sagas")
        return starting((str(one["trade_id"]) for one in told["stuck"]), incomplete)
    except (TapewatchError, typer.Exit):
        return []


Trade = Annotated[
    int, typer.Argument(min=1, help="A trade's id.", autocompletion=complete_trade, show_default=False, metavar="TRADE")
]
Why = Annotated[str, typer.Option("--why", help="The reason, which is kept with the saga.", show_default=False)]


@app.command("list", epilog="Example: tapewatch exchange settle list --json")
def list_sagas(state: State = None, *, as_json: AsJson = False) -> None:
    """Tell how the sagas stand, and name the first hundred that are stuck."""
    found: dict[str, Any] = guarded(lambda: _plant(state).role("GET", COORDINATOR, "/v1/sagas"))
    if as_json:
        print_json(found)
        return
    counted = ", ".join(f"{count} {name}" for name, count in sorted(found["states"].items())) or "none"
    out.print(markup(f"sagas     {counted} ({found['style']})"))
    for step, count in sorted(found["steps"].items()):
        out.print(markup(f"{count:>8}  at {step}"))
    if found["stuck"]:
        out.print(_table(("trade", "at", "waits for", "why", "refusal", "seconds"), [
            (one["trade_id"], one["step"], one["service"], one["reason"], one["refusal"], f"{one['for_s']:.0f}")
            for one in found["stuck"]
        ]))  # fmt: skip


@app.command("show", epilog="Example: tapewatch exchange settle show 4711 --json")
def show(trade: Trade, state: State = None, *, as_json: AsJson = False) -> None:
    """Show the saga of a trade: each step, who answered it and when, what every service did, what people did."""
    saga, services = guarded(lambda: _seen(_plant(state), trade))
    if as_json:
        print_json({"saga": saga, "services": services})
    else:
        _print(saga, services)


@app.command("retry", epilog='Example: tapewatch exchange settle retry 4711 --why "cash was mended" --by anna')
def retry(trade: Trade, why: Why = "", by: By = "", state: State = None, *, as_json: AsJson = False) -> None:
    """Ask what a saga waits for once more, now. A service that did it answers from memory: nothing is done twice.

    Without a coordinator every part says again what it says of this trade.
    """
    _do(Deed.RETRY, trade, why, by, state, as_json=as_json)


@app.command("compensate", epilog='Example: tapewatch exchange settle compensate 4711 --why "account closed" --by anna')
def compensate(trade: Trade, why: Why = "", by: By = "", state: State = None, *, as_json: AsJson = False) -> None:
    """Give a saga up: what was reserved is taken back, unless it is cleared by then, which the pivot decides.

    Refused when it ended, is cleared, or is being taken back already.
    """
    _do(Deed.COMPENSATE, trade, why, by, state, as_json=as_json)


def _do(deed: Deed, trade: int, why: str, by: str, state: State, *, as_json: bool) -> None:
    saga = guarded(lambda: _done(_plant(state), deed, trade, why, who(by)))
    if as_json:
        print_json(saga)
        return
    where = f"it stands at {saga['step']}" if saga["state"] == "open" else f"it is {saga['state']}"
    waits = f" and waits for {saga['waits_for']}" if saga["waits_for"] else ""
    out.print(markup(f"trade {trade}: {deed} by {who(by)} is written down; {where}{waits}"), soft_wrap=True)


def _done(plant: Plant, deed: Deed, trade: int, why: str, by: str) -> dict[str, Any]:
    """Do it, and return how the saga stands then.

    Raises:
        InputError: no reason is given.
        NotFoundError: there is no such saga.
        RefusedByRailError: it cannot be done where the saga stands.
    """
    if not WHY_LEAST <= len(why.strip()) <= WHY_MAX:
        raise InputError("why", "a reason is kept with the saga", right='give one, such as --why "cash was mended"')
    wish = {"by": by[:WHO_MAX], "why": why.strip()}
    saga: dict[str, Any] = plant.role("POST", COORDINATOR, f"/v1/sagas/{trade}/{deed}", wish)
    if deed is Deed.RETRY and saga["style"] == "choreographed":
        for replica in _services(plant):
            try:
                plant.role("POST", replica, f"/v1/sagas/{trade}/{deed}", wish)
            except (RefusedByRailError, NotFoundError):
                continue  # it says nothing of this trade
            except TapewatchError as error:  # what is stuck waits for it, perhaps: the others were asked
                err.print(f"[bold red]tapewatch:[/] {markup(str(error))}")
    return saga


def _seen(plant: Plant, trade: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what who begins sagas knows of one, and what each service does; one that does not answer says so."""
    saga: dict[str, Any] = plant.role("GET", COORDINATOR, f"/v1/sagas/{trade}")
    services: dict[str, Any] = {}
    for replica in _services(plant):
        try:
            services[replica] = plant.role("GET", replica, f"/v1/sagas/{trade}")
        except NotFoundError:
            continue
        except TapewatchError as error:
            services[replica] = {"error": str(error)}
    return saga, services


def _plant(state: State) -> Plant:
    """Return the estate that runs.

    Raises:
        TemporaryError: none does.
        InputError: it settles without sagas.
    """
    layout = estate_of(state)
    plant = faults.connect(layout.root)
    if not plant.addresses.workloads.get("saga"):
        raise InputError(
            str(layout.root), "settles without sagas", right="`tapewatch up --estate distributed` has them"
        )
    return plant


def _services(plant: Plant) -> list[str]:
    return [one.id for one in plant.addresses.workloads["saga"] if one.id != COORDINATOR]


# --- showing it ----------------------------------------------------------------------------------------------------


def _print(saga: Mapping[str, Any], services: Mapping[str, Any]) -> None:
    it = saga["instruction"]
    if it is not None:
        what = f"{it['lots']} lots of {it['asset']} for {_money(it['cost'])}, {it['seller']} to {it['buyer']}"
        out.print(markup(f"{'trade':10}{saga['trade_id']}: {what}"), soft_wrap=True)
    for name in ("state", "style", "traded", "begun", "ended", "step", "waits_for", "since", "stuck", "refusal"):
        if saga[name]:
            out.print(markup(f"{name.replace('_', ' '):10}{saga[name]}"), soft_wrap=True)
    if saga["asked"]:
        out.print(markup(f"{'asked':10}{saga['asked']} times since this process began, last {saga['asked_last']}"))
    if saga["steps"]:
        columns = ("step", "service", "since", "answered", "verdict", "reason")
        out.print(_table(columns, [tuple(one[name] for name in columns) for one in saga["steps"]]))
    for replica, told in services.items():
        _print_service(replica, told)
    for one in saga["deeds"]:
        out.print(markup(f"{one['at']}  {one['deed']} by {one['who']}: {one['why']}"), soft_wrap=True)


def _print_service(replica: str, told: Mapping[str, Any]) -> None:
    if "error" in told:
        out.print(markup(f"{replica}: {told['error']}"), soft_wrap=True)
        return
    did = ", ".join(f"{one['step']} {one['verdict']} {one['reason']}".strip() for one in told["steps"]) or "nothing"
    says = f"; says {told['step']}, waits for {told['waits_for'] or 'an end'}" if told["step"] else ""
    out.print(markup(f"{replica}: {did}{says}"), soft_wrap=True)
    for one in told["moves"]:
        amount = _money(one["amount"]) if one["asset"].startswith("$") else f"{one['amount']} {one['asset']}"
        out.print(markup(f"    {one['step']}: {amount} from {one['giver']} to {one['taker']}"), soft_wrap=True)


def _money(millionths: int) -> str:
    return f"{Decimal(millionths).scaleb(-6):.6f}"


def _table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(markup(str(cell)) for cell in row))
    return table
