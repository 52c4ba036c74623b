"""The verbs `region`: how far this region's copy of another one's journal is, and taking over from it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from control import faults
from control.calls import call
from control.fault import Plant
from control.terminal import EXIT_CODES, AsJson, By, State, escape, guarded, out, print_json, settings_of, who
from kernel.errors import PermanentError
from kernel.time import Instant, to_rfc3339

app = typer.Typer(
    no_args_is_help=True, help="A second region: follow another one's journal, and take over.", epilog=EXIT_CODES
)
TAKE_OVER_WITHIN_S = 300.0


@app.command(epilog="Example: tapewatch region status --state /srv/region-b --json")
def status(state: State = None, *, as_json: AsJson = False) -> None:
    """Say how many of the other region's commands are durable here, and whether it answers."""
    root = settings_of(state).state
    seen = guarded(lambda: _mirror(faults.connect(root)))
    if as_json:
        print_json(seen)
        return
    lag = "unknown" if seen["lag"] is None else str(seen["lag"])
    out.print(f"{seen['sequence']} commands are durable here")
    out.print(f"the other region {'answers' if seen['connected'] else 'does not answer'}; records not here yet: {lag}")


@app.command("take-over", epilog="Example: tapewatch region take-over --state /srv/region-b --by ana")
def take_over(
    state: State = None,
    by: By = "",
    *,
    even_so: Annotated[
        bool, typer.Option("--even-so", help="Also while the other region answers: two may then trade the same books.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Trade in this region from now on; refused while the other one answers. It cannot be taken back."""
    root = settings_of(state).state
    taken = guarded(lambda: _take_over(faults.connect(root), who(by), even_so=even_so))
    if as_json:
        print_json(taken)
        return
    out.print(
        escape(
            f"{taken['by']} had this region take over at {to_rfc3339(Instant(taken['at']))}, after command "
            f"{taken['sequence']}; it trades"
        ),
        soft_wrap=True,
    )


def _mirror(plant: Plant) -> dict[str, Any]:
    there = plant.addresses.workloads.get("mirror", ())
    if not there:
        raise PermanentError("this estate follows no other region (setting follows), or has taken over already")
    found: dict[str, Any] = call("GET", f"{there[0].url}/v1/mirror")
    return found


def _take_over(plant: Plant, by: str, *, even_so: bool) -> dict[str, Any]:
    body = {"by": by, "even_so": even_so}
    url = f"{plant.addresses.estate}/v1/take-over"
    taken: dict[str, Any] = call("POST", url, token=plant.admin, body=body, timeout_s=TAKE_OVER_WITHIN_S)
    return taken
