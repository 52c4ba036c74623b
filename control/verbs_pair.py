"""The verbs `db pair` and `db fail-over`: the two PostgreSQL servers of a distributed estate, for a person's hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.markup import escape as markup

from control import faults
from control.layout import Layout
from control.terminal import AsJson, State, estate_of, guarded, layout_of, out, print_json
from kernel.errors import InputError
from runbooks.adapters.local import LocalWorkloads
from runbooks.changes import FailOver
from runbooks.ports import Effect

WORKLOAD = "postgres"
Primary = Annotated[str, typer.Option("--from", help="Who takes writes no longer, such as postgres-1.")]


def pair(*, state: State = None, as_json: AsJson = False) -> None:
    """Tell which server is named the primary, and whether the other one is known to hold everything."""
    from control.servers.postgres_pair import Pair

    record = guarded(lambda: Pair(_begun(estate_of(state)), f"{WORKLOAD}-1").read())
    if as_json:
        print_json(msgspec.to_builtins(record))
        return
    holds = "holds everything that was acknowledged" if record.synchronous else "is NOT known to hold everything"
    out.print(f"{markup(record.primary)} is the primary of term {record.term}; the other one {holds}", soft_wrap=True)


def _begun(layout: Layout) -> Path:
    if not layout.postgres_pair.exists():
        right = "it is begun by `tapewatch up --estate distributed`"
        raise InputError(str(layout.root), "has no pair of PostgreSQL servers", right=right)
    return layout.postgres_pair


def fail_over(
    *,
    old: Primary,
    key: Annotated[str, typer.Option(help="Names this one: asked again with it, nothing is done twice.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; touch nothing.")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Let the stand-by take over, in health too; refused when it may lack what was acknowledged.

    The old primary is ended and stays down; its alert's runbook (or `runbook run`) starts it again as the stand-by.
    """
    told = guarded(lambda: asyncio.run(_ask(state, FailOver(WORKLOAD, old), key, dry_run=dry_run)))
    if isinstance(told, list):
        for line in told:
            out.print(markup(line), soft_wrap=True)
        return
    if as_json:
        print_json(msgspec.to_builtins(told))
        return
    again = " (it was, before)" if told.repeated else ""
    out.print(f"{markup(told.after['primary'])} takes writes, term {markup(told.after['term'])}{again}", soft_wrap=True)


async def _ask(state: State, change: FailOver, key: str, *, dry_run: bool) -> list[str] | Effect:
    plant = faults.connect(layout_of(state).root)
    workloads = LocalWorkloads(plant.addresses.estate, plant.admin, by="person")
    try:
        if dry_run:
            return list(await workloads.rehearse(change))
        status = await workloads.status(change.workload)
        key = key or f"person/{change.replica}/{status.generation}"
        return await workloads.change(change, key=key, generation=status.generation)
    finally:
        await workloads.close()
