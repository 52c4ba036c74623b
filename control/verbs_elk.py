"""The verbs `elk`: set Elasticsearch up for our logs, look at it, keep it small, and say how large it must be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.markup import escape as markup
from rich.table import Table

from control import elk_node
from control.settings import load_settings
from control.terminal import DONE, EXIT_CODES, FAILED, AsJson, guarded, out, print_json
from kernel.errors import InputError, PermanentError, TapewatchError
from kernel.time import SECOND, Instant, parse_duration, to_rfc3339
from monitor.elk import sizing
from monitor.elk.files import files
from monitor.elk.pipelines import DEAD_LETTERS
from monitor.elk.retention import Limits, due

if TYPE_CHECKING:
    from control.servers.elastic_node import Node
    from monitor.adapters.elastic_admin import ElasticAdmin

ROOT: Final = Path(__file__).resolve().parent.parent
app = typer.Typer(no_args_is_help=True, help="Elasticsearch for the logs: set up, look, keep small.", epilog=EXIT_CODES)
Url = Annotated[str, typer.Option("--url", help="Elasticsearch (setting elastic_url).", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Directory = Annotated[Path, typer.Option("--state", help="Directory of the local node.")]


def admin_of(url: str, *, replicas: int | None = None, shards: int | None = None) -> ElasticAdmin:
    """Return the admin of the Elasticsearch meant: the one given, the setting's, or the local one that runs.

    Raises:
        TapewatchError: none is named, it cannot be reached, or it is too old.
    """
    from control.elastic_access import access_of
    from monitor.adapters.elastic_admin import ElasticAdmin
    from monitor.adapters.elastic_client import connect

    settings = load_settings()
    local = None if url or settings.elastic_url else elk_node.running(elk_node.DIRECTORY)
    admin = ElasticAdmin(connect(access_of(settings, local.url if local else url)), replicas=replicas, shards=shards)
    admin.version()
    return admin


@app.command("setup", epilog="Example: tapewatch elk setup --url http://127.0.0.1:19200 --replicas 0")
def setup(
    url: Url = "",
    replicas: Annotated[
        int | None,
        typer.Option(help="Copies of new indices, 0 for a single node; else as is, or 1.", min=0, max=10),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(help="Primary shards of new indices; else as is, or 1.", min=1, max=100)
    ] = None,
    *,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put pipelines, templates and, where there is such a thing, the lifecycle policy; say what changed."""
    changes = guarded(lambda: admin_of(url, replicas=replicas, shards=shards).setup(dry_run=dry_run))
    if as_json:
        print_json([asdict(change) for change in changes])
        return
    table = Table()
    for column in ("part", "name", "would be" if dry_run else ""):
        table.add_column(column)
    for change in changes:
        colour = "dim" if change.done == "same" else "green"
        table.add_row(change.kind, markup(change.name), f"[{colour}]{change.done.value}[/]")
    out.print(table)


@app.command("status", epilog="Example: tapewatch elk status --json")
def status(url: Url = "", *, as_json: AsJson = False) -> None:
    """Show the cluster, whether it is set up as this version wants, and each data stream; 1 when something is wrong."""
    found = guarded(lambda: _status(admin_of(url)))
    if as_json:
        print_json(found)
    else:
        _print_status(found)
    raise typer.Exit(FAILED if found["problems"] else DONE)


def _status(admin: ElasticAdmin) -> dict[str, Any]:
    health, streams = admin.health(), admin.streams()
    odd = [f"{one.kind} {one.name}" for one in admin.setup(dry_run=True) if one.done.value != "same"]
    problems = [f"{name} is not as this version wants it: run `tapewatch elk setup`" for name in odd]
    if health["status"] == "red":
        problems.append("the cluster is red: shards are missing, and what they hold cannot be found")
    for stream in streams:
        if any(index.read_only for index in stream.indices):
            problems.append(
                f"{stream.name} is read-only, as it is when the disk is nearly full: run `tapewatch elk rotate`"
            )
        if DEAD_LETTERS in stream.name and any(index.docs for index in stream.indices):
            problems.append(f"{stream.name} holds dead letters: records that could not be read")
    return {
        "version": admin.version(), "cluster": health["cluster_name"], "health": health["status"],
        "nodes": health["number_of_nodes"], "unassigned_shards": health["unassigned_shards"],
        "lifecycle": admin.has_lifecycle(), "problems": problems,
        "streams": [
            {
                "name": stream.name, "indices": len(stream.indices), "lifecycle": stream.lifecycle,
                "docs": sum(index.docs for index in stream.indices),
                "bytes": sum(index.bytes for index in stream.indices),
                "oldest": to_rfc3339(stream.indices[0].created_at),
                "read_only": any(index.read_only for index in stream.indices),
            }
            for stream in streams
        ],
    }  # fmt: skip


def _print_status(found: dict[str, Any]) -> None:
    kept = "lifecycle management" if found["lifecycle"] else "`tapewatch elk rotate` (no lifecycle management there)"
    for name, text in (
        ("cluster", f"{found['cluster']}, Elasticsearch {found['version']}, {found['nodes']} nodes"),
        ("health", f"{found['health']}, {found['unassigned_shards']} shards without a node"),
        ("retention", kept),
    ):
        out.print(f"{name:13}{markup(text)}", soft_wrap=True)
    table = Table()
    for column in ("data stream", "indices", "records", "primary MB", "oldest index", "retention"):
        table.add_column(column, justify="right" if column in {"indices", "records", "primary MB"} else "left")
    for stream in found["streams"]:
        table.add_row(
            markup(stream["name"]), str(stream["indices"]), f"{stream['docs']:,}", f"{stream['bytes'] / 1e6:.1f}",
            stream["oldest"], stream["lifecycle"] or "rotate",
        )  # fmt: skip
    out.print(table)
    for problem in found["problems"]:
        out.print(f"[bold yellow]problem[/]      {markup(problem)}", soft_wrap=True)


@app.command("rotate", epilog="Example: tapewatch elk rotate --keep 30d --max-gb 50 --dry-run")
def rotate(
    url: Url = "",
    keep: Annotated[str, typer.Option(help="Delete what was rolled so long ago.")] = "30d",
    max_age: Annotated[str, typer.Option(help="Roll the written index at this age.")] = "1d",
    max_gb: Annotated[float, typer.Option(help="Roll the written index at this size, in GB.", min=0.001)] = 50.0,
    max_docs: Annotated[
        int | None, typer.Option(help="Roll the written index at so many records.", min=1, show_default=False)
    ] = None,
    *,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete old indices of our data streams, then roll the written ones that are full; for a node without ILM.

    Never touches the written index, an index that is not ours, or a stream that a lifecycle policy has in hand.
    """
    limits = guarded(lambda: Limits(
        max_docs, round(max_gb * 1e9), round(_seconds("--max-age", max_age)), round(_seconds("--keep", keep))
    ))  # fmt: skip
    told = guarded(lambda: rotated(admin_of(url), limits, dry_run=dry_run))
    if as_json:
        print_json(told)
    else:
        _print_rotated(told, dry_run=dry_run)
    raise typer.Exit(FAILED if told["failed"] else DONE)


def rotated(admin: ElasticAdmin, limits: Limits, *, dry_run: bool) -> dict[str, Any]:
    """Delete and roll; one stream that fails does not keep the others. Deletion first: it frees a full disk."""
    from control.child import now

    streams = admin.streams()
    told: dict[str, Any] = {"deleted": [], "rolled": [], "left": [], "failed": []}
    for one in due(streams, limits.keep_s, Instant(now())):
        try:
            if not dry_run:
                admin.delete(one.index)
            told["deleted"].append({**asdict(one), "rolled_at": to_rfc3339(one.rolled_at)})
        except TapewatchError as error:
            told["failed"].append(str(error))
    for stream in streams:
        if stream.lifecycle:
            told["left"].append({"stream": stream.name, "lifecycle": stream.lifecycle})
            continue
        try:
            done = admin.roll(stream.name, limits, dry_run=dry_run)
        except TapewatchError as error:
            told["failed"].append(str(error))
            continue
        if done.rolled or (dry_run and done.why):
            told["rolled"].append(asdict(done))
    return told


def _print_rotated(told: dict[str, Any], *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for one in told["deleted"]:
        out.print(
            markup(f"{one['index']} {would}deleted: rolled at {one['rolled_at']}, {one['docs']:,} records"),
            soft_wrap=True,
        )
    for one in told["rolled"]:
        out.print(markup(f"{one['stream']} {would}rolled to {one['new']}: {', '.join(one['why'])}"), soft_wrap=True)
    for one in told["left"]:
        out.print(markup(f"{one['stream']} is left to the lifecycle policy {one['lifecycle']}"), soft_wrap=True)
    for sentence in told["failed"]:
        out.print(f"[bold red]failed[/] {markup(sentence)}", soft_wrap=True)
    if not any(told.values()):
        out.print("nothing is due")


def _seconds(option: str, text: str) -> float:
    try:
        length = parse_duration(text) / SECOND
    except ValueError as error:
        raise InputError(option, str(error)) from error
    if length < 1:
        raise InputError(option, f"{text} is too short", right="it should be a second at least")
    return length


@app.command(
    "size", epilog="Example: tapewatch elk size --events-per-s 20000 --bytes-per-event 450 --retention 30d --hot-days 3"
)
def size(  # noqa: PLR0913, PLR0917 - typer's way: an option is an argument
    events_per_s: Annotated[float, typer.Option("--events-per-s", help="Records a second, on average.")],
    bytes_per_event: Annotated[float, typer.Option("--bytes-per-event", help="Bytes of a record's JSON line.")] = 450.0,
    retention: Annotated[str, typer.Option(help="How long records are kept.")] = "30d",
    replicas: Annotated[int, typer.Option(help="Copies of each shard.")] = 1,
    hot_days: Annotated[float, typer.Option("--hot-days", help="Days on the fast nodes.")] = 3.0,
    warm_days: Annotated[float, typer.Option("--warm-days", help="Days on the warm nodes; the rest is cold.")] = 7.0,
    peak: Annotated[float, typer.Option(help="Peak rate in averages.")] = 3.0,
    hot_disk_gb: Annotated[float, typer.Option("--hot-disk-gb", help="Disk of a hot node.")] = 2_000.0,
    warm_disk_gb: Annotated[float, typer.Option("--warm-disk-gb", help="Disk of a warm node.")] = 8_000.0,
    cold_disk_gb: Annotated[float, typer.Option("--cold-disk-gb", help="Disk of a cold node.")] = 16_000.0,
    memory_gb: Annotated[float, typer.Option("--memory-gb", help="Memory of a data node.")] = 64.0,
    ingest_per_node: Annotated[
        float, typer.Option("--ingest-per-node", help="Records a second a node takes; measure yours.")
    ] = sizing.INGEST_A_NODE,
    stored_ratio: Annotated[
        float, typer.Option("--stored-ratio", help="Bytes on disk per byte of JSON.")
    ] = sizing.STORED_RATIO,
    shard_gb: Annotated[float, typer.Option("--shard-gb", help="Size at which a shard rolls, 10 to 50.")] = 30.0,
    *,
    as_json: AsJson = False,
) -> None:
    """Say how many nodes of each kind a load needs, and why."""

    def work() -> sizing.Plan:
        days = _seconds("--retention", retention) / 86_400
        load = sizing.Load(
            events_per_s, bytes_per_event, days, min(hot_days, days), max(0.0, min(warm_days, days - hot_days)),
            replicas, peak,
        )  # fmt: skip
        gb = sizing.GB
        return sizing.size(load, sizing.Machine(
            hot_disk_gb * gb, warm_disk_gb * gb, cold_disk_gb * gb, memory_gb * gb, ingest_per_node, stored_ratio,
            shard_gb * gb,
        ))  # fmt: skip

    plan = guarded(work)
    if as_json:
        print_json({**asdict(plan), "nodes": plan.nodes, "shards": plan.shards})
    else:
        _print_plan(plan)


def _print_plan(plan: sizing.Plan) -> None:
    gb = sizing.GB
    hours = plan.roll_every_s / 3_600
    rows = {
        "a day": f"{plan.raw_bytes_a_day / gb:,.1f} GB of JSON, {plan.stored_bytes_a_day / gb:,.1f} GB on disk a copy",
        "peak": f"{plan.peak_per_s:,.0f} records a second",
        "written index": f"{plan.primaries} primaries, rolls at {plan.shard_bytes / gb:.0f} GB, every {hours:,.1f} h",
        "heap": f"{plan.heap_bytes / gb:.0f} GB on data nodes, {plan.master_heap_bytes / gb:.0f} GB on masters",
    }
    for name, text in rows.items():
        out.print(f"{name:15}{text}", soft_wrap=True)
    table = Table()
    for column in ("nodes", "", "days", "TB with copies", "shards", "GB a node", "decided by"):
        table.add_column(column, justify="left" if column in {"nodes", "decided by"} else "right")
    for tier in plan.tiers:
        table.add_row(
            tier.name, str(tier.nodes), f"{tier.days:g}", f"{tier.bytes / gb / 1000:,.2f}", str(tier.shards),
            f"{tier.bytes_a_node / gb:,.0f}", tier.why,
        )  # fmt: skip
    table.add_row("master", str(plan.masters), "", "", "", "", "one of three may fail")
    table.add_row(
        "coordinating", str(plan.coordinating), "", "", "", "", "one of them may fail; one for ten data nodes"
    )
    table.add_row("together", str(plan.nodes), "", "", str(plan.shards), "", "")
    out.print(table)


@app.command("files", epilog="Example: tapewatch elk files --write elk")
def files_(
    folder: Annotated[
        Path | None, typer.Option("--write", help="Write them there; else list them.", show_default=False)
    ] = None,
) -> None:
    """List or write what is generated: templates, pipelines, policies, Logstash, Kibana, node roles."""
    if folder is None:
        for name, text in files().items():
            out.print(f"{name:50}{len(text.encode()):>8,} bytes")
        return
    for name in guarded(lambda: write(folder)):
        out.print(markup(f"wrote {folder / name}"), soft_wrap=True)


def write(folder: Path) -> list[str]:
    """Write the files that differ and return their names.

    Raises:
        PermanentError: the folder cannot be written.
    """
    changed = []
    for name, text in files().items():
        path = folder / name
        try:
            if path.is_file() and path.read_text() == text:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise PermanentError(f"{path} cannot be written: {error.strerror}") from error
        changed.append(name)
    return changed


@app.command("up", epilog="Example: tapewatch elk up --port 19200")
def up(
    state: Directory = elk_node.DIRECTORY,
    port: Annotated[int, typer.Option(help="Of HTTP, on loopback.", min=1024, max=65_535)] = elk_node.PORT,
    heap: Annotated[str, typer.Option(help="Of the Java machine.")] = "512m",
) -> None:
    """Run a local Elasticsearch, set up for our logs, until Ctrl-C; the first time it is fetched (921 MB)."""
    from control.servers import elastic

    home = guarded(lambda: elastic.find_or_fetch(named=load_settings().elasticsearch_home))
    guarded(lambda: elk_node.keep(home, state, _announce, port=port, heap=heap))
    out.print("stopped; its data stay in " + markup(str(state)))


def _announce(node: Node) -> None:
    admin_of(node.url, replicas=0).setup()
    out.print(markup(f"Elasticsearch is ready after {node.ready_s:.1f} s: {node.url}"), soft_wrap=True)
    out.print(markup(f"next         export TAPEWATCH_ELASTIC_URL={node.url}; tapewatch elk status"), soft_wrap=True)
    out.print("Ctrl-C stops it")


@app.command("down", epilog="Example: tapewatch elk down")
def down(state: Directory = elk_node.DIRECTORY) -> None:
    """Stop the local Elasticsearch that `up` runs elsewhere."""
    pid = guarded(lambda: elk_node.stop(state))
    out.print(markup(f"stopped (pid {pid}); its data stay in {state}"), soft_wrap=True)
