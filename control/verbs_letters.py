"""The verbs `exchange dead-letters`: what lies there in RabbitMQ and Kafka, put back or dropped by a person."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import typer
from rich.markup import escape as markup
from rich.table import Table

from control.letter_desk import LetterDesk, open_desk, secrets_of, shown
from control.terminal import (
    EXIT_CODES,
    REFUSED,
    AsJson,
    By,
    State,
    err,
    estate_of,
    exit_code,
    guarded,
    out,
    print_json,
    starting,
    who,
)
from exchange.letters import Deed, Letter
from kernel.adapters.clock import SystemClock
from kernel.time import to_rfc3339

app = typer.Typer(
    no_args_is_help=True,
    help="Messages that nobody could use, of RabbitMQ and Kafka: look at them, put them back, drop them.",
    epilog=EXIT_CODES,
)
SEARCHED: Final = 10_000
"""So many letters of each place are looked through for an id."""
Ids = Annotated[list[str], typer.Argument(help="Letters by their ids; `list` names them.", show_default=False)]


def complete_place(incomplete: str) -> list[str]:
    """Offer the queues of dead letters."""
    from exchange.adapters.rabbit_topology import TOPOLOGY

    return starting((queue.dead for queue in TOPOLOGY.queues), incomplete)


@app.command("list", epilog="Example: tapewatch exchange dead-letters list --in saga.cash.dead --json")
def list_letters(
    place: Annotated[
        str, typer.Option("--in", help="Of this queue, topic or partition alone.", autocompletion=complete_place)
    ] = "",
    most: Annotated[int, typer.Option(min=1, max=SEARCHED, help="The oldest so many of each place.")] = 100,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List dead letters; they stay. A broker that is away is told of on standard error, with exit code 4."""
    found, wrong = guarded(lambda: asyncio.run(_desk(state).look(most)))
    found = [each for each in found if not place or each.lies_in == place or each.lies_in.startswith(f"{place}/")]
    if as_json:
        print_json([_row(each) for each in found])
    elif found:
        out.print(_table(found))
    elif not wrong:
        out.print("no dead letters")
    for error in wrong:
        err.print(f"[bold red]tapewatch:[/] {markup(str(error))}")
    if wrong:
        raise typer.Exit(exit_code(wrong[0]))


@app.command("show", epilog="Example: tapewatch exchange dead-letters show rabbit-1a2b3c4d5e6f")
def show(
    letter: Annotated[str, typer.Argument(help="A letter's id; `list` names them.", show_default=False)],
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show one with its body, secrets blotted out; it stays."""
    one = guarded(lambda: asyncio.run(_desk(state).one(letter, SEARCHED)))
    body = shown(one.body, secrets_of(estate_of(state)))
    if as_json:
        print_json({**_row(one), "body": body})
        return
    for name, value in _row(one).items():
        out.print(f"{name.replace('_', ' '):12}{markup(_cell(value))}", soft_wrap=True)
    out.print(body, markup=False, soft_wrap=True)


@app.command("requeue", epilog="Example: tapewatch exchange dead-letters requeue rabbit-1a2b3c4d5e6f")
def requeue(ids: Ids, by: By = "", state: State = None, *, as_json: AsJson = False) -> None:
    """Put letters back to where they came from; each leaves the dead ones when its broker has confirmed it.

    When something breaks in between it may come twice, never not at all: whoever consumes has its effect once.
    """
    _settle(ids, Deed.REQUEUED, by, state, as_json=as_json)


@app.command("drop", epilog='Example: tapewatch exchange dead-letters drop rabbit-1a2b3c4d5e6f --yes --by "anna"')
def drop(
    ids: Ids,
    by: By = "",
    state: State = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="They are to go: nobody will carry them out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove letters for good; needs --yes. Who dropped what is kept in the state directory, with the letter."""
    if not yes:
        err.print("[bold red]tapewatch:[/] no consumer ever has a dropped letter again: say --yes")
        raise typer.Exit(REFUSED)
    _settle(ids, Deed.DROPPED, by, state, as_json=as_json)


def _settle(ids: list[str], deed: Deed, by: str, state: State, *, as_json: bool) -> None:
    done = guarded(lambda: asyncio.run(_desk(state).settle(ids, deed, who(by))))
    if as_json:
        print_json([_row(each) for each in done])
        return
    for each in done:
        where = f"to {each.came_from}" if deed is Deed.REQUEUED else f"from {each.lies_in}"
        out.print(markup(f"{each.id} {deed} {where}"), soft_wrap=True)


def _desk(state: State) -> LetterDesk:
    return open_desk(estate_of(state), SystemClock())


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id, "lies_in": letter.lies_in, "came_from": letter.came_from,
        "at": None if letter.at is None else to_rfc3339(letter.at), "key": letter.key, "why": letter.why,
        "deliveries": letter.deliveries, "copies": letter.copies, "bytes": len(letter.body),
    }  # fmt: skip


def _cell(value: object) -> str:
    text = "-" if value is None else str(value)
    return "".join(char if char.isprintable() else "?" for char in text)


def _table(letters: list[Letter]) -> Table:
    table = Table()
    for column in ("id", "lies in", "at", "key", "why", "deliveries", "bytes"):
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for each in letters:
        row = _row(each)
        twice = f" ({each.copies} copies)" if each.copies > 1 else ""
        cells = [_cell(row[name]) for name in ("lies_in", "at", "key", "why", "deliveries", "bytes")]
        cells[3] += twice
        table.add_row(each.id, *(markup(cell) for cell in cells))
    return table
