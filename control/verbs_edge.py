"""The verbs `edge`: the load balancer before the gateways, for a person's hand."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from control import faults
from control.fault import Plant
from control.terminal import EXIT_CODES, AsJson, State, escape, guarded, out, print_json, settings_of
from kernel.errors import PermanentError
from kernel.time import Instant, to_rfc3339

app = typer.Typer(no_args_is_help=True, help="The load balancer before the gateways.", epilog=EXIT_CODES)
EDGE = "edge"


@app.callback()
def _group() -> None:
    """The load balancer before the gateways."""


@app.command(epilog="Example: tapewatch edge renew --json")
def renew(
    state: State = None,
    *,
    replica: Annotated[str, typer.Option(help="Which one.")] = "edge-1",
    as_json: AsJson = False,
) -> None:
    """Show a new certificate now: the one that lies in the place of `edge/edge.pem`, or a new one of the state's own.

    Connections that are open stay. What the balancer's own check refuses is not shown, and the one before stays.
    """
    root = settings_of(state).state
    told = guarded(lambda: _renew(faults.connect(root), replica))
    if as_json:
        print_json(told)
        return
    ends = to_rfc3339(Instant(int(told["not_after"]) * 1_000_000_000))
    whose = "a new one of the state's own" if told["issued"] else "the one that was put there"
    out.print(escape(f"{replica} shows {whose}, serial {told['serial']}, until {ends}"), soft_wrap=True)


def _renew(plant: Plant, replica: str) -> dict[str, Any]:
    if not plant.addresses.workloads.get(EDGE):
        raise PermanentError("this estate runs no edge (settings estate and services)")
    told: dict[str, Any] = plant.role("POST", replica, "/admin/renew", {})
    return told
