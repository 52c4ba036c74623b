"""The verb `exchange notices`: what participants and operators were told, looked up and followed."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
import typer
from rich.markup import escape as markup

from control.databases import configured
from control.fault import Plant
from control.faults import connect
from control.letter_desk import ASKED
from control.terminal import AsJson, State, err, estate_of, guarded, out
from exchange.notices import SHOWN_MAX, Kept, Notice, NoticesStatus
from kernel.errors import InputError, TemporaryError
from kernel.time import to_rfc3339

POLL_S: Final = 0.5
LATE_S: Final = 30.0
"""From this age of the oldest notice that waits on, the verb says so."""


def notices(
    account: Annotated[str, typer.Option(help="Of this account alone.", show_default=False)] = "",
    most: Annotated[int, typer.Option("--most", "-n", min=0, max=SHOWN_MAX, help="The newest so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as they come, until Ctrl-C.")] = False,  # noqa: FBT002
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print notices in the order in which they were told; with --json one a line.

    They are read where they are kept, never from the queue: nobody's look takes a notice from another reader.
    """
    plant = guarded(lambda: _plant(state))
    told = guarded(lambda: _ask(plant, account, most=most if most or not follow else 1))
    last = told.notices[-1].number if told.notices else 0
    _print(told.notices if most else [], as_json=as_json)
    if not told.notices and not follow:
        err.print(f"no notices{f' of {markup(account)}' if account else ''} are kept")
    _warn(told)
    away = False
    while follow:
        time.sleep(POLL_S)
        more = guarded(lambda: _more(plant, account, last))  # noqa: B023 - it is carried out at once
        if isinstance(more, TemporaryError):
            if not away:
                err.print(f"[bold red]tapewatch:[/] {markup(str(more))}; waiting")
            away = True
            continue
        away = False
        _print(more.notices, as_json=as_json)
        last = more.notices[-1].number if more.notices else last


def line(notice: Notice) -> str:
    """Return a notice as a person reads it: when, whom it concerns, what, and the rest by name."""
    subject = notice.account or notice.symbol or "market"
    rest: dict[str, Any] = {
        name: value
        for name, value in msgspec.to_builtins(notice, enc_hook=str).items()
        if name not in {"id", "kind", "at", "account", "orders"} and not (name == "symbol" and value == subject)
    }
    if notice.until is not None:
        rest["until"] = to_rfc3339(notice.until)
    words = [f"{name}={value}" for name, value in rest.items()]
    if notice.orders:
        more = ",..." if notice.count is not None and notice.count > len(notice.orders) else ""
        words.append(f"orders={','.join(map(str, notice.orders))}{more}")
    return " ".join((to_rfc3339(notice.at), f"{subject:12}", f"{notice.kind:20}", *words))


def _plant(state: State) -> Plant:
    plant = connect(estate_of(state).root)
    config = configured(plant.layout, ASKED)
    if config is not None and config.rabbit is None:
        right = "`tapewatch up --estate distributed` has one"
        raise InputError(str(plant.layout.root), "runs without a broker of messages: nobody is told", right=right)
    return plant


def _ask(plant: Plant, account: str, *, most: int, after: int | None = None) -> NoticesStatus:
    asked: dict[str, object] = {"account": account, "most": most}
    if after is not None:
        asked["after"] = after
    return msgspec.convert(plant.role("GET", ASKED, f"/v1/notices?{urlencode(asked)}"), type=NoticesStatus)


def _more(plant: Plant, account: str, after: int) -> NoticesStatus | TemporaryError:
    """Return what was told since, or why it cannot be read now."""
    try:
        return _ask(plant, account, most=SHOWN_MAX, after=after)
    except TemporaryError as error:
        return error


def _print(kept: list[Kept], *, as_json: bool) -> None:
    for each in kept:
        if as_json:
            typer.echo(msgspec.json.encode({"number": each.number, **msgspec.to_builtins(each.notice)}).decode())
        else:
            out.print(markup(line(each.notice)), soft_wrap=True)


def _warn(told: NoticesStatus) -> None:
    """Say what is not shown yet."""
    if told.oldest_s > LATE_S:
        err.print(f"{told.waiting} notices are not told yet, the oldest for {told.oldest_s:.0f} s")
    if not told.keeper:
        err.print("the queue of notices is not read now: what is told meanwhile shows later")
