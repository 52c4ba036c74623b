"""The verbs `page`: prove the way to a person, and see what became of every page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any, Final, NoReturn
from urllib.parse import quote, urlencode

import typer
from rich.markup import escape as markup
from rich.table import Table

from control import faults
from control.calls import call
from control.fault import Plant
from control.terminal import (
    DONE,
    EXIT_CODES,
    FAILED,
    AsJson,
    By,
    State,
    guarded,
    out,
    print_json,
    settings_of,
    starting,
    who,
)
from incidents.paging.channels import CHANNELS
from incidents.paging.outbox import OVER, Phase
from kernel.errors import InputError, TemporaryError

ASK_EVERY_S: Final = 0.25
_COLORS: Final = {"delivered": "green", "accepted": "green", "failed": "bold red", "unconfirmed": "red"}
_MEANING: Final = {
    Phase.DELIVERED: "the provider says that it was delivered",
    Phase.ACCEPTED: "the provider has it, and gives no receipts: look whether it is there",
    Phase.FAILED: "it did not arrive",
    Phase.UNCONFIRMED: "the provider has it, and its receipt never came",
    Phase.SENT: "the provider has it; its receipt has not come yet",
    Phase.WAITING: "it waits for its next try",
    Phase.TRYING: "it is being sent",
}

app = typer.Typer(no_args_is_help=True, help="Pages to people: test a channel, see the outbox.", epilog=EXIT_CODES)


def complete_channel(incomplete: str) -> list[str]:
    """Offer the names of the channels."""
    return starting(CHANNELS, incomplete)


def complete_phase(incomplete: str) -> list[str]:
    """Offer where a page may stand."""
    return starting(Phase, incomplete)


@app.command("test", epilog="Example: tapewatch page test sms --to +4930123456")
def send_test(
    channel: Annotated[str, typer.Argument(help="Such as sms.", autocompletion=complete_channel, show_default=False)],
    to: Annotated[
        str, typer.Option("--to", help="One of the people of the bridge's file; else the default ones.")
    ] = "",
    wait_s: Annotated[
        float, typer.Option("--wait", help="How long to wait for the receipt, in seconds.", min=1, max=600)
    ] = 60,
    by: By = "",
    state: State = None,
    *,
    as_json: AsJson = False,
) -> NoReturn:
    """Send a harmless page, wait for its receipt, and say what was seen. Fails unless delivered or accepted."""
    root = settings_of(state).state
    seen = guarded(lambda: _send(root_plant(root), channel, to, who(by), wait_s))
    good = all(one["phase"] in {Phase.DELIVERED, Phase.ACCEPTED} for one in seen)
    if as_json:
        print_json(seen)
    else:
        for one in seen:
            reason = f" ({one['reason']})" if one["reason"] else ""
            color, tries = (
                _COLORS.get(one["phase"], "yellow"),
                f"{one['tries']} tries" if one["tries"] != 1 else "1 try",
            )
            place = f"{one['channel']} {one['to']}".rstrip()
            told = f"{_MEANING[Phase(one['phase'])]}{reason}, after {tries}"
            out.print(f"[{color}]{one['phase']}[/]  {markup(place)}: {markup(told)}", soft_wrap=True)
    raise typer.Exit(DONE if good else FAILED)


@app.command("list", epilog="Example: tapewatch page list --phase failed --json")
def list_(
    phase: Annotated[str, typer.Option("--phase", help="Only those.", autocompletion=complete_phase)] = "",
    limit: Annotated[int, typer.Option("--limit", help="The newest so many.", min=1, max=1000)] = 50,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the outbox, newest first: what waits, what was delivered, what failed and why."""
    root = settings_of(state).state
    listed = guarded(lambda: _list(root_plant(root), phase, limit))
    if as_json:
        print_json(listed)
        return
    if not listed:
        out.print("no pages" + (f" that are {phase}" if phase else ""))
        return
    table = Table()
    for column in ("page", "taken", "channel", "to", "stands", "tries", "what", "why"):
        table.add_column(column, overflow="fold")
    for one in listed:
        color = _COLORS.get(one["phase"], "yellow")
        why = one["reason"] + (f" → {one['escalated_to']}" if one["escalated_to"] else "")
        table.add_row(
            one["id"][:12], one["taken_at"][:19].replace("T", " "), one["channel"], markup(one["to"]),
            f"[{color}]{one['phase']}[/]", str(one["tries"]), markup(one["title"]), markup(why),
        )  # fmt: skip
    out.print(table)


@app.command("show", epilog="Example: tapewatch page show 0123456789abcdef0123")
def show(
    page: Annotated[str, typer.Argument(help="A page's id, or its beginning.", show_default=False)],
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show everything that was noted of a page: tries, answers, receipts, escalation."""
    root = settings_of(state).state
    one = guarded(lambda: _one(root_plant(root), page))
    if as_json:
        print_json(one)
        return
    out.print(
        f"{markup(one['title'])}\n{one['channel']} {markup(one['to'])}: {_MEANING[Phase(one['phase'])]}", soft_wrap=True
    )
    for note in one["notes"]:
        rest = {
            key: value for key, value in note.items() if key not in {"kind", "at", "id"} and value not in ("", None)
        }
        told = ", ".join(f"{key} {_plain(value)}" for key, value in rest.items())
        out.print(f"  {note['at'][11:23]}  {note['kind']:10}{markup(told)}", soft_wrap=True)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(str(part) for part in value.values() if part not in ("", None))
    return str(value)


def root_plant(root: Any) -> tuple[Plant, str]:
    """Return the estate and where its bridge is.

    Raises:
        TemporaryError: no estate runs, or its bridge does not.
        InputError: it runs without a bridge.
    """
    plant = faults.connect(root)
    replicas = plant.addresses.workloads.get("bridge", ())
    if not replicas:
        raise InputError(
            "bridge",
            "this estate was started without one",
            right="stop it, name the bridge's file in TAPEWATCH_BRIDGE, and start it again (docs/receivers.md)",
        )
    return plant, replicas[0].url


def _send(where: tuple[Plant, str], channel: str, to: str, by: str, wait_s: float) -> list[dict[str, Any]]:
    plant, url = where
    if channel not in CHANNELS:
        raise InputError("channel", f"{channel[:40]!r} is none", right=f"there are {', '.join(CHANNELS)}")
    answer = call("POST", f"{url}/v1/test/{channel}", token=plant.admin, body={"by": by, "to": to})
    until_s = time.monotonic() + wait_s
    while True:
        seen = [call("GET", f"{url}/v1/deliveries/{one}", token=plant.admin) for one in answer["deliveries"]]
        if all(Phase(one["phase"]) in OVER for one in seen) or time.monotonic() > until_s:
            return seen
        time.sleep(ASK_EVERY_S)


def _list(where: tuple[Plant, str], phase: str, limit: int) -> Sequence[dict[str, Any]]:
    plant, url = where
    if phase and phase not in set(Phase):
        raise InputError("--phase", f"{phase[:40]!r} is none", right=f"there are {', '.join(Phase)}")
    listed: list[dict[str, Any]] = call(
        "GET", f"{url}/v1/pages?{urlencode({'phase': phase, 'limit': limit})}", token=plant.admin
    )
    return listed


def _one(where: tuple[Plant, str], page: str) -> dict[str, Any]:
    plant, url = where
    found = [one["id"] for one in _list(where, "", 1000) if one["id"].startswith(page)]
    if len(found) > 1:
        raise InputError("page", f"{page[:40]!r} begins {len(found)} ids", right="write more of it")
    seen = call("GET", f"{url}/v1/deliveries/{quote(found[0] if found else page, safe='')}", token=plant.admin)
    if not isinstance(seen, dict):
        raise TemporaryError("the bridge answered no page")
    return seen
