"""The verbs `db`: tables of the ledger, the sagas and the incident store, from one revision to the next and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.markup import escape as markup

from control.databases import KINDS, configured, given, opened, password_of, read_password, revisions, status
from control.layout import Layout
from control.settings import load_settings
from control.terminal import EXIT_CODES, AsJson, State, guarded, out, print_json
from control.verbs_pair import fail_over, pair
from kernel.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    help="Databases of ledger, sagas and incident store: lay their tables, bring them forward, take them back.",
    epilog=EXIT_CODES,
)


def complete_kind(incomplete: str) -> list[str]:
    """Offer the kinds of databases."""
    return [kind for kind in KINDS if kind.startswith(incomplete)]


app.command("pair", epilog="Example: tapewatch db pair --json")(pair)
app.command("fail-over", epilog="Example: tapewatch db fail-over --from postgres-1 --dry-run")(fail_over)

Kind = Annotated[
    str, typer.Argument(help="`ledger`, `saga` or `store` (signals, incidents, runs).", autocompletion=complete_kind)
]
Url = Annotated[
    str,
    typer.Option(
        help="Its URL; else setting ledger_url, saga_url or store_url, else the state's own.", show_default=False
    ),
]
PasswordFile = Annotated[Path | None, typer.Option(help="File whose first line is the password.", show_default=False)]


_KEPT_BY: Final = {"ledger": "settlement-1", "saga": "saga-coordinator-1"}
"""Whose configuration says where an estate keeps a kind of database."""


@app.command("status", epilog="Example: tapewatch db status ledger --url postgresql+psycopg://tapewatch@db/ledger")
def status_(
    kind: Kind, *, url: Url = "", password_file: PasswordFile = None, state: State = None, as_json: AsJson = False
) -> None:
    """Tell which revision a database is of, and which this program reads."""
    _print(guarded(lambda: status(*_place(kind, url, password_file, state))), as_json=as_json)


@app.command("upgrade", epilog="Example: tapewatch db upgrade ledger --url postgresql+psycopg://tapewatch@db/ledger")
def upgrade(
    kind: Kind,
    *,
    url: Url = "",
    password_file: PasswordFile = None,
    to: Annotated[str, typer.Option(help="A revision; `head` is this program's.")] = "head",
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Lay the tables, or bring them forward; what they hold is kept. All or nothing."""
    place = guarded(lambda: _place(kind, url, password_file, state))
    guarded(lambda: _change(*place, lambda connection: revisions(kind).upgrade(connection, to)))
    _print(guarded(lambda: status(*place)), as_json=as_json)


@app.command(
    "downgrade", epilog="Example: tapewatch db downgrade ledger --to r0001 --url sqlite:////path/ledger.sqlite"
)
def downgrade(
    kind: Kind,
    *,
    to: Annotated[str, typer.Option(help="A revision; `base` drops every table.", show_default=False)],
    url: Url = "",
    password_file: PasswordFile = None,
    drop: Annotated[bool, typer.Option("--drop", help="With `--to base`: yes, drop all that is kept.")] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Take the tables back to an earlier revision, for an earlier program; what they hold is kept. All or nothing."""
    guarded(lambda: _meant(to, drop=drop))
    place = guarded(lambda: _place(kind, url, password_file, state))
    guarded(lambda: _change(*place, lambda connection: revisions(kind).downgrade(connection, to)))
    _print(guarded(lambda: status(*place)), as_json=as_json)


@app.command("failover-drill", epilog="Example: tapewatch db failover-drill --asynchronous --cut-off 1 --json")
def failover_drill(
    *,
    asynchronous: Annotated[
        bool, typer.Option("--asynchronous", help="Commits do not wait for the stand-by: some may be lost.")
    ] = False,
    trades: Annotated[int, typer.Option(min=1, max=1_000_000, help="To settle before the kill.")] = 500,
    cut_off: Annotated[
        float, typer.Option(min=0, max=60, help="Seconds before the kill in which the stand-by receives nothing.")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Kill one of two PostgreSQL servers of its own under load, promote the other; measure what is lost, how long."""
    from control.failover import fail_over
    from control.servers.postgres import found

    if cut_off and not asynchronous:
        guarded(lambda: _refuse_cut_off(cut_off))
    programs = guarded(lambda: found(load_settings().postgres))
    told = guarded(lambda: fail_over(programs, synchronous=not asynchronous, before=trades, cut_off_s=cut_off))
    if as_json:
        print_json(msgspec.to_builtins(told) | {"wrong": told.wrong})
    else:
        kind = "synchronous" if told.synchronous else "asynchronous"
        end = f"{told.missing} trades missing, {told.twice} twice, {told.settled_again} settled again"
        lines = (
            ("stand-by", kind + (f", cut off for the last {told.cut_off_s:g} s" if told.cut_off_s else "")),
            ("RPO", f"{told.lost} of {told.acknowledged} acknowledged trades, {told.lost_s:.3f} s"),
            ("RTO", f"{told.recovery_s:.3f} s, of which the promotion took {told.promote_s:.3f} s"),
            ("in the end", f"{end}, money off zero by {told.imbalance}"),
            ("old server", "fenced: it takes no write" if told.fenced else "NOT fenced"),
        )  # fmt: skip
        for name, text in lines:
            out.print(f"{name:12}{markup(text)}", soft_wrap=True)
    for problem in told.wrong:
        typer.echo(problem, err=True)
    if told.wrong:
        raise typer.Exit(1)


def _refuse_cut_off(seconds: float) -> None:
    raise InputError(
        f"--cut-off {seconds:g}", "commits that wait for the stand-by stand still without it",
        right="use it with --asynchronous",
    )  # fmt: skip


def _meant(to: str, *, drop: bool) -> None:
    if to == "base" and not drop:
        raise InputError("--to base", "drops every table and all that is kept", right="add --drop if that is meant")


def _place(kind: str, url: str, password_file: Path | None, state: Path | None) -> tuple[str, str, str]:
    """Return URL, kind and password of the database that is meant."""
    revisions(kind)
    settings = load_settings(state=state)
    if not url:
        url, file = given(settings, kind)
        password_file = password_file or file
    layout = Layout(settings.state)
    if not url and kind in _KEPT_BY and (role := configured(layout, _KEPT_BY[kind])) and role.ledger is not None:
        # The estate keeps it elsewhere, in its own PostgreSQL.
        word = password_of(role.ledger) if password_file is None else read_password(password_file)
        return role.ledger.url, kind, word
    if not url:
        from kernel.adapters.database import sqlite_url

        places = {"ledger": layout.ledger, "saga": layout.saga("coordinator"), "store": layout.incidents}
        url = sqlite_url(places[kind])
    return url, kind, read_password(password_file) if password_file is not None else ""


def _change(url: str, kind: str, password: str, work: Callable[[Any], None]) -> None:
    with opened(url, kind, password) as (connection, _):
        work(connection)


def _print(told: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    found = told["revision"] or "none: it is empty"
    word = "this program's" if told["current"] else f"this program reads {told['head']}"
    out.print(markup(f"{told['database']} at {told['address']}: revision {found} ({word})"), soft_wrap=True)
