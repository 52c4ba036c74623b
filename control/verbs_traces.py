"""The verbs `traces`: a Zipkin for trials, and what became of one order, process by process."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape as markup
from rich.table import Table

from control.databases import configured
from control.servers import zipkin as zipkin_server
from control.settings import load_settings
from control.terminal import EXIT_CODES, AsJson, State, guarded, layout_of, out, print_json, settings_of
from control.trace_view import milliseconds, rows
from kernel.errors import InputError, PermanentError
from kernel.trace import order_trace_id
from monitor.zipkin_json import ReadSpan

PORT: Final = 19411
"""Of the Zipkin of `traces up`."""
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
app = typer.Typer(
    no_args_is_help=True, help="Traces of orders: a Zipkin for trials, one order's way.", epilog=EXIT_CODES
)


@app.command("up", epilog="Example: tapewatch traces up; then TAPEWATCH_ZIPKIN_URL=http://127.0.0.1:19411 tapewatch up")
def up(port: Annotated[int, typer.Option(help="Where it answers.", min=1, max=65535)] = PORT) -> None:
    """Run a Zipkin here until interrupted; fetched once (86 MB). What it keeps is gone at its end."""
    jar = guarded(lambda: zipkin_server.find_or_fetch(load_settings().zipkin))
    guarded(lambda: _run(zipkin_server.Zipkin(jar, port=port)))


def _run(server: zipkin_server.Zipkin) -> None:
    previous = signal.signal(signal.SIGTERM, _interrupted)
    try:
        with server:
            out.print(f"Zipkin answers at {server.url} after {server.ready_s:.1f} s; Ctrl-C ends it", soft_wrap=True)
            out.print(f"send spans there: TAPEWATCH_ZIPKIN_URL={server.url} tapewatch up", soft_wrap=True)
            while server.pid is not None:
                time.sleep(0.5)
            raise PermanentError(f"Zipkin ended: {server.last_words()}")
    except KeyboardInterrupt:
        out.print("Zipkin is stopped")
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


@app.command("show", epilog="Example: tapewatch traces show load-7 load-7-000123 --url http://127.0.0.1:19411")
def show(
    names: Annotated[list[str], typer.Argument(help="ACCOUNT CLIENT_ID, or a trace id of 32 hexadecimal digits.")],
    url: Annotated[
        str, typer.Option("--url", help="Zipkin (setting zipkin_url, else the estate's).", show_default=False)
    ] = "",
    jaeger: Annotated[str, typer.Option("--jaeger", help="Ask the Jaeger there instead.", show_default=False)] = "",
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what each process did with one order, and when; 1 when the store does not know the trace.

    A client that sent a `traceparent` knows its trace id; without one it follows from account and client id. Only a
    share of the orders is kept (setting trace_share), besides every reject, error and slow one.
    """
    trace_id = guarded(lambda: _trace_id(names))
    where = jaeger or url or settings_of(state).zipkin_url or _of_estate(state) or f"http://127.0.0.1:{PORT}"
    spans = guarded(lambda: _fetched(trace_id, where, of_jaeger=bool(jaeger)))
    if not spans:
        guarded(lambda: _unknown(trace_id, where))
    found = rows(spans)
    if as_json:
        print_json({"trace_id": trace_id, "spans": [row._asdict() for row in found]})
        return
    table = Table(title=f"trace {trace_id}", title_justify="left")
    table.add_column("span")
    table.add_column("service")
    for column in ("after", "took"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in found:
        table.add_row(
            "  " * row.depth + markup(row.name), markup(row.service), milliseconds(row.after_us),
            milliseconds(row.took_us), f"[red]{markup(row.error)}[/]" if row.error else "",
        )  # fmt: skip
    out.print(table)


def _of_estate(state: Path | None) -> str:
    """Return the Zipkin that the estate's gateways send to; empty where they send to none, or never started."""
    told = guarded(lambda: configured(layout_of(state), "gateway-1"))
    return told.tracing.zipkin_url if told is not None and told.tracing is not None else ""


def _fetched(trace_id: str, where: str, *, of_jaeger: bool) -> tuple[ReadSpan, ...]:
    if of_jaeger:
        from monitor.adapters import jaeger

        return jaeger.fetch_trace(where, trace_id)
    from monitor.adapters import zipkin

    return zipkin.fetch_trace(where, trace_id)


def _unknown(trace_id: str, where: str) -> None:
    raise PermanentError(
        f"{where} does not know trace {trace_id}: the order is none of those that are kept (setting trace_share), its "
        "spans are on their way (a second), or no process sends them there (settings zipkin_url and otlp_url)"
    )


def _trace_id(names: list[str]) -> str:
    match names:
        case [one] if _TRACE_ID.fullmatch(one):
            return one
        case [account, client_id]:
            return order_trace_id(account, client_id)
        case _:
            raise InputError(
                "traces show", f"{' '.join(names)!r} names no trace",
                right="give an account and a client id, or 32 hexadecimal digits",
            )  # fmt: skip
