"""The verbs `servers`: the real servers that tests and local trials need, found or had once."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape as markup
from rich.table import Table

from control.servers import elastic, filebeat, jaeger, kafka, postgres, rabbit, zipkin
from control.servers.store import cache
from control.settings import Settings, load_settings
from control.terminal import EXIT_CODES, AsJson, guarded, out, print_json
from kernel.errors import InputError

app = typer.Typer(
    no_args_is_help=True, help="Real servers for tests and local trials: found, or had once.", epilog=EXIT_CODES
)


@dataclass(frozen=True)
class Server:
    """One server that can be had."""

    name: str
    what: str
    find: Callable[[Settings], Path | None]
    get: Callable[[Settings], Path]
    asked_for: bool = False
    """Whether it is had only when asked for: by its name, or with `--all`."""


def known() -> tuple[Server, ...]:
    """Return the servers in the order in which they are had: what takes no cores first."""
    plain = (
        Server(
            "elasticsearch", f"Elasticsearch {elastic.CURRENT.version}: keeps logs (921 MB fetched, 122 MB kept)",
            lambda settings: elastic.find(named=settings.elasticsearch_home),
            lambda settings: elastic.find_or_fetch(named=settings.elasticsearch_home),
        ),
        Server(
            "kafka", f"Kafka {kafka.VERSION}: the journal on brokers (60 MB fetched, 45 MB kept)",
            lambda settings: kafka.find(settings.kafka_home),
            lambda settings: kafka.find_or_fetch(settings.kafka_home),
        ),
        Server(
            "filebeat", f"Filebeat {filebeat.VERSION.removeprefix('v')}: shipper (two to four minutes)",
            lambda settings: filebeat.find(settings.filebeat),
            lambda settings: filebeat.find_or_build(settings.filebeat),
        ),
        Server(
            "elasticsearch-6", f"Elasticsearch {elastic.LIFECYCLE.version}: proves the lifecycle policy (149 MB)",
            lambda _: elastic.find(elastic.LIFECYCLE),
            lambda _: elastic.find_or_fetch(elastic.LIFECYCLE),
            asked_for=True,
        ),
        Server(
            "zipkin", f"Zipkin {zipkin.VERSION}: keeps traces, with a page (86 MB)",
            lambda settings: zipkin.find(settings.zipkin),
            lambda settings: zipkin.find_or_fetch(settings.zipkin),
        ),
        Server(
            "jaeger", f"Jaeger {jaeger.VERSION.removeprefix('v')}: keeps traces by OTLP (about eight minutes)",
            lambda settings: jaeger.find(settings.jaeger),
            lambda settings: jaeger.find_or_build(settings.jaeger),
            asked_for=True,
        ),
        Server(
            "postgres", "PostgreSQL: keeps the ledger and incidents (Debian's: make setup in CI, else apt-get)",
            lambda settings: postgres.find(settings.postgres),
            lambda settings: postgres.found(settings.postgres),
            asked_for=True,
        ),
        Server(
            "rabbitmq", "RabbitMQ: messages between services (Debian's: make setup in CI, else apt-get)",
            lambda settings: rabbit.find(settings.rabbitmq),
            lambda settings: rabbit.found(settings.rabbitmq),
            asked_for=True,
        ),
    )  # fmt: skip
    return (*plain, *_amtool())


def _amtool() -> tuple[Server, ...]:
    try:
        room = importlib.import_module("control.servers.amtool")
    except ModuleNotFoundError as error:
        if error.name != "control.servers.amtool":
            raise
        return ()
    return (Server("amtool", "the newest amtool: checks the modern routing (two minutes)",
                   lambda _: room.find(), lambda _: room.find_or_build()),)  # fmt: skip


def complete_server(incomplete: str) -> list[str]:
    """Offer the names of the servers."""
    return [server.name for server in known() if server.name.startswith(incomplete)]


@app.command("list", epilog="Example: tapewatch servers list --json")
def list_(*, as_json: AsJson = False) -> None:
    """Show the servers that can be had, and where those are that are there."""
    settings = guarded(load_settings)
    found = guarded(lambda: [(server, server.find(settings)) for server in known()])
    if as_json:
        print_json([
            {"name": server.name, "what": server.what, "path": str(path) if path else None,
             "asked_for": server.asked_for}
            for server, path in found
        ])  # fmt: skip
        return
    table = Table()
    for column in ("server", "", "what", "where"):
        table.add_column(column)
    for server, path in found:
        mark = "[green]there[/]" if path else "on demand" if server.asked_for else "[yellow]missing[/]"
        table.add_row(server.name, mark, markup(server.what), markup(str(path or "")))
    out.print(table)
    out.print(markup(f"kept in {cache()}; `tapewatch servers build` has what is missing"), soft_wrap=True)


@app.command("build", epilog="Example: tapewatch servers build elasticsearch filebeat")
def build(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Which; else all that the tests need.", autocompletion=complete_server, show_default=False),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also those that only long tests need.")] = False,
) -> None:
    """Fetch or build the servers that are missing, one after another, and print their paths."""
    settings = guarded(load_settings)
    for server in guarded(lambda: _chosen(names or [], everything=everything)):
        path = guarded(lambda server=server: server.get(settings))  # type: ignore[misc]
        typer.echo(f"{server.name} {path}")


def _chosen(names: list[str], *, everything: bool) -> list[Server]:
    servers = {server.name: server for server in known()}
    for name in names:
        if name not in servers:
            raise InputError(f"server {name}", "is not known", right=f"known are {', '.join(servers)}")
    if names:
        return [servers[name] for name in names]
    return [server for server in servers.values() if everything or not server.asked_for]
