"""The verb `exchange bench`: how fast the engine, its journal and its recovery are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape as markup
from rich.table import Table

from control import load_desk
from control.engine_bench import BenchReport, Speed, run
from control.terminal import AsJson, err, escape, guarded, out, print_json


def bench(
    commands: Annotated[int, typer.Option(help="How many commands.")] = 100_000,
    flow: Annotated[
        str, typer.Option(help="calm, open-rush, crash or news.", autocompletion=load_desk.complete_flow)
    ] = "calm",
    seed: Annotated[int, typer.Option(help="The same seed, the same commands.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="How often the engine is measured.")] = 3,
    directory: Annotated[
        Path | None,
        typer.Option(
            help="Where the journal is written for a while; else the temporary directory.", show_default=False
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Measure the engine, group commits of several sizes and recovery in this process, beside a plain loop."""
    found = guarded(
        lambda: run(flow, seed, commands, rounds=rounds, directory=directory, say=lambda text: err.print(escape(text)))
    )
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: BenchReport) -> None:
    out.print(
        f"{found.commands:,} commands of the flow {found.flow}, seed {found.seed}; reference "
        f"{found.reference_steps_per_s:,.0f} steps a second; journal in {markup(found.directory)}",
        soft_wrap=True,
    )
    table = Table()
    out.print("journal and pauses on the wall, the rest in seconds of processor time")
    for column in ("what", "a second", "of the reference", "p50 us", "p99 us", "p99.9 us", "worst us"):
        table.add_column(column, justify="left" if column == "what" else "right", no_wrap=True)
    one = found.command
    each = (f"{us:,.1f}" for us in (one.p50_us, one.p99_us, one.p999_us, one.worst_us))
    table.add_row("engine, one command", *_figures(found.engine), *each)
    for batch in found.journal:
        one = batch.commit
        table.add_row(f"journal, {batch.size} a sync", *_figures(batch.speed),
                      *(f"{us:,.0f}" for us in (one.p50_us, one.p99_us, one.p999_us, one.worst_us)))  # fmt: skip
    table.add_row("replay", *_figures(found.replay))
    table.add_row("recovery", *_figures(found.recovery))
    out.print(table)
    slowest, fastest = min(found.engine_rounds_per_s), max(found.engine_rounds_per_s)
    out.print(f"engine in {len(found.engine_rounds_per_s)} rounds: {slowest:,.0f} to {fastest:,.0f} a second")
    out.print(f"garbage collector: {found.collections} runs, the longest {found.worst_collection_ms:.1f} ms")


def _figures(speed: Speed) -> tuple[str, str]:
    return f"{speed.per_s:,.0f}", f"{speed.ratio:.3f}"
