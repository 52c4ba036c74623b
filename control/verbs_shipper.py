"""The verbs `logs ship` and `logs dead-letters`: logs to Elasticsearch by hand, and what it refused."""

from __future__ import annotations

import base64
import signal
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.markup import escape as markup
from rich.table import Table

from control.layout import Layout
from control.settings import Settings
from control.shipper import Shipper, retry_dead
from control.terminal import DONE, FAILED, AsJson, State, err, estate_of, guarded, out, print_json, settings_of
from kernel.adapters.clock import SystemClock
from monitor.adapters.shipper_files import DeadLetter, DeadLetters, LogTail
from monitor.shipping import IN_FLIGHT, Sink

_SHOWN = 120
Url = Annotated[str, typer.Option("--url", help="Elasticsearch (setting elastic_url).", show_default=False)]


class _Terminal:
    """`control.shipper.Told` for somebody who watches."""

    def counted(self, result: str, amount: int) -> None:
        """See `Told`: the sum is printed at the end."""

    def standing(self, backlog_bytes: int, lag_s: float, up: bool) -> None:  # noqa: FBT001 - the port's signature
        """See `Told`: the sum is printed at the end."""

    def note(self, name: str, severity: str, **fields: object) -> None:
        """See `Told`: troubles go to standard error."""
        if severity in {"warning", "error"}:
            told = ", ".join(f"{key} {value}" for key, value in fields.items() if value)
            err.print(markup(f"{name.replace('-', ' ')}: {told}"))


def ship(
    *,
    once: Annotated[bool, typer.Option("--once", help="Ship what is there, and end.")] = False,
    state: State = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Ship the estate's logs to Elasticsearch: each line once, offsets after acknowledgement (docs/shipping.md).

    Refused while another shipper of the same estate runs, and before `tapewatch elk setup`.
    """
    settings, layout = settings_of(state), guarded(lambda: estate_of(state))
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopped.append(number))

    def work() -> dict[str, Any]:
        sink = _sink(settings, url)
        sink.check()
        tail = LogTail(layout.log("any").parent, layout.shipper / "offsets.json")
        shipper = Shipper(tail, sink, _letters(layout), _Terminal(), SystemClock())
        try:
            shipper.run(lambda: bool(stopped), until_idle=once)
        finally:
            shipper.close()
        return {**vars(shipper.done), "left_bytes": tail.backlog_bytes}

    done = guarded(work)
    if as_json:
        print_json(done)
    else:
        out.print(", ".join(f"{name.replace('_', ' ')} {number}" for name, number in done.items()))
    raise typer.Exit(FAILED if done["lost"] else DONE)


def dead_letters(
    verb: Annotated[Literal["list", "retry", "show"], typer.Argument(help="list, retry, or show one whole.")] = "list",
    letter: Annotated[str, typer.Argument(help="With show: a letter's id.", show_default=False)] = "",
    *,
    state: State = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show the lines that Elasticsearch refused, with the reason, or send them once more."""
    settings, layout = settings_of(state), guarded(lambda: estate_of(state))
    letters = _letters(layout)
    if verb == "retry":
        sent, left = guarded(lambda: retry_dead(letters, _sink(settings, url)))
        if as_json:
            print_json({"sent": sent, "left": [{"id": key, "reason": reason} for key, reason in left]})
        else:
            out.print(f"sent {sent}, refused again {len(left)}")
            for key, reason in left:
                out.print(markup(f"  {key}: {reason}"), soft_wrap=True)
        raise typer.Exit(FAILED if left else DONE)
    found = guarded(letters.all)
    if verb == "show":
        one = next((each for each in found if each.id == letter), None)
        if one is None:
            err.print(f"[bold red]tapewatch:[/] dead letter {markup(letter or '(none named)')}: is not there; "
                      "`tapewatch logs dead-letters list` names those that are")  # fmt: skip
            raise typer.Exit(2)
        # The bytes as they were: who pipes them into a file has the line again.
        typer.echo(base64.b64decode(one.bytes), nl=False)
        return
    _list(found, as_json=as_json)


def _list(found: list[DeadLetter], *, as_json: bool) -> None:
    if as_json:
        print_json([msgspec.to_builtins(one) for one in found])
        return
    table = Table()
    for column in ("id", "at", "file", "offset", "bytes", "reason", "begins"):
        table.add_column(column, overflow="fold" if column == "reason" else "ellipsis")
    for one in found:
        data = one.piece().data
        begins = data[:_SHOWN].decode(errors="backslashreplace")
        begins = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in begins)
        table.add_row(one.id, one.at, one.path.rsplit("/", 1)[-1], str(one.offset), str(len(data)), markup(one.reason),
                      markup(begins))  # fmt: skip
    out.print(table if found else "no dead letters")


def _letters(layout: Layout) -> DeadLetters:
    return DeadLetters(layout.shipper / "dead-letters.jsonl")


def _sink(settings: Settings, url: str) -> Sink:
    # Here, not above: the client's library would cost every command of the terminal its start.
    from control.elastic_access import access_of
    from monitor.adapters.elastic_client import connect
    from monitor.adapters.shipper_elastic import ElasticSink

    client = connect(access_of(settings, url), timeout_s=30.0, connections_per_node=IN_FLIGHT)
    return ElasticSink(client, settings.environment)
