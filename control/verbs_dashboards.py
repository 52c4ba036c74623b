"""The verbs `dashboards`: Grafana's boards listed, generated, checked on live data, drawn as a page."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape as markup
from rich.table import Table

from control import faults
from control.addresses import write_atomically
from control.child import now
from control.terminal import DONE, EXIT_CODES, FAILED, AsJson, State, err, guarded, layout_of, out, print_json, starting
from kernel.errors import InputError, PermanentError
from kernel.time import DAY, MINUTE, Duration, parse_duration

app = typer.Typer(no_args_is_help=True, help="Grafana's boards.", epilog=EXIT_CODES)
QUESTION_TIMEOUT_S: Final = 20.0
SPAN_MAX: Final = Duration(7 * DAY)

Folder = Annotated[
    Path | None, typer.Option("--dir", help="Directory of the boards' files; else those of the product.")
]


def complete_board(incomplete: str) -> list[str]:
    """Offer the uids of the boards."""
    from monitor.adapters.boards.files import BOARDS

    return starting([board.uid for board in BOARDS], incomplete)


@app.command("list", epilog="Example: tapewatch dashboards list --json")
def list_(folder: Folder = None, *, as_json: AsJson = False) -> None:
    """Show the boards: uid, title, panels, questions, what each is for."""
    rows = guarded(lambda: [_facts(board) for board in _read(folder)])
    if as_json:
        print_json(rows)
        return
    table = Table()
    for column in ("uid", "title", "panels", "questions", "what for"):
        table.add_column(column)
    for row in rows:
        table.add_row(*(markup(str(row[key])) for key in ("uid", "title", "panels", "questions", "about")))
    out.print(table)


def _facts(board: Any) -> dict[str, Any]:
    return {
        "uid": board.uid, "title": board.value.get("title", ""), "panels": len(board.panels),
        "questions": sum(1 for _ in board.queries()), "about": board.value.get("description", ""),
        "file": str(board.path),
    }  # fmt: skip


def _read(folder: Path | None) -> list[Any]:
    from monitor.adapters.boards import files, reading

    return reading.read(folder or files.GRAFANA)


@app.command(epilog="Example: tapewatch dashboards generate --check")
def generate(
    folder: Folder = None,
    *,
    check_only: Annotated[bool, typer.Option("--check", help="Change nothing; fail when a file would.")] = False,
) -> None:
    """Write the boards' files from their specifications; what is up to date is left alone."""
    from monitor.adapters.boards import files

    target = folder or files.GRAFANA
    if not check_only:
        changed = guarded(lambda: files.write(target))
        out.print("nothing to do" if not changed else f"written: {', '.join(path.name for path in changed)}")
        return
    stale = files.drift(files.generated(), target)
    for name in stale:
        err.print(f"{markup(str(target / name))}:1: not what its specification says; run tapewatch dashboards generate")
    raise typer.Exit(FAILED if stale else DONE)


@app.command(epilog="Example: tapewatch dashboards check --own")
def check(
    folder: Folder = None,
    state: State = None,
    *,
    static: Annotated[bool, typer.Option("--static", help="Ask no Prometheus.")] = False,
    own: Annotated[bool, typer.Option("--own", help="Start an estate for it, with one incident, and stop it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hold the boards to their rules, and ask every question of them on a live Prometheus.

    A question that finds nothing is dead, unless dashboards/silent.yml says why its series may be silent.
    """
    found, verdicts = guarded(lambda: _check(folder, state, static=static, own=own))
    dead = [verdict.sentence() for verdict in verdicts if verdict.dead]
    told = {
        "findings": [*found, *dead], "questions": len(verdicts), "answered": sum(one.series > 0 for one in verdicts),
        "excused": sum(1 for one in verdicts if not one.series and not one.dead), "dead": len(dead),
    }  # fmt: skip
    if as_json:
        print_json(told)
    else:
        for sentence in told["findings"]:
            err.print(markup(sentence), soft_wrap=True)
        asked = (
            f"; of {told['questions']} questions {told['answered']} are answered, {told['excused']} silent for a "
            f"declared reason, {told['dead']} dead"
        )
        out.print(f"{len(found)} findings in the files{'' if static else asked}", soft_wrap=True)
    raise typer.Exit(FAILED if told["findings"] else DONE)


def _check(folder: Path | None, state: Path | None, *, static: bool, own: bool) -> tuple[list[str], list[Any]]:
    from control.review import recorded
    from monitor.adapters.boards import live, rules

    boards = _read(folder)
    silent = live.excuses()
    found = rules.findings(boards, recorded())
    if folder is None:
        found += [f"{live.SILENT}: {series} is declared silent, but no board asks for it"
                  for series in live.idle_excuses(boards, silent)]  # fmt: skip
    if static:
        return found, []
    if not own:
        addresses = faults.connect(layout_of(state).root).addresses
        return found, _ask(boards, addresses.prometheus, live.excuses(estate=addresses.place))
    from control.board_bed import own_estate

    with tempfile.TemporaryDirectory() as home, own_estate(Path(home)) as plant:
        return found, _ask(boards, plant.addresses.prometheus, silent)


def _ask(boards: Sequence[Any], prometheus: str, silent: dict[str, str]) -> list[Any]:
    from monitor.adapters.boards import live
    from monitor.adapters.prometheus_api import PrometheusApi

    async def ask() -> list[live.Verdict]:
        async with PrometheusApi(prometheus, timeout_s=QUESTION_TIMEOUT_S) as metrics:
            return await live.ask_all(boards, metrics, now(), silent)

    return asyncio.run(ask())


def _chosen(boards: list[Any], names: Sequence[str]) -> list[Any]:
    known = {board.uid: board for board in boards} | {board.uid.removeprefix("tapewatch-"): board for board in boards}
    for name in names:
        if name not in known:
            raise InputError(f"board {name}", "is not known", right=f"known are {', '.join(b.uid for b in boards)}")
    return [known[name] for name in names] or boards


@app.command(epilog="Example: tapewatch dashboards preview overview --to /tmp/boards --last 15m")
def preview(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Which boards; else all.", autocompletion=complete_board, show_default=False),
    ] = None,
    to: Annotated[Path, typer.Option(help="Directory for the pages.")] = Path("boards"),
    last: Annotated[str, typer.Option(help="How far back they show.")] = "15m",
    folder: Folder = None,
    state: State = None,
) -> None:
    """Draw boards from their files and live data as pages that need nothing else."""
    for path in guarded(lambda: _preview(names or [], to, last, folder, state)):
        typer.echo(str(path))


def _preview(names: list[str], to: Path, last: str, folder: Path | None, state: Path | None) -> list[Path]:
    from monitor.adapters.boards.gathering import Scene, scene
    from monitor.adapters.boards.page import to_html
    from monitor.adapters.prometheus_api import PrometheusApi

    span = _span(last)
    boards = _read(folder)
    chosen = _chosen(boards, names)
    prometheus = faults.connect(layout_of(state).root).addresses.prometheus

    async def gather() -> list[Scene]:
        async with PrometheusApi(prometheus, timeout_s=QUESTION_TIMEOUT_S) as metrics:
            return [await scene(board, metrics, now(), span) for board in chosen]

    links = [(board.uid, str(board.value.get("title", ""))) for board in chosen]
    paths = []
    for one in asyncio.run(gather()):
        path = to / f"{one.board.uid}.html"
        try:
            write_atomically(path, to_html(one, links).encode())
        except OSError as error:
            raise PermanentError(f"{path} cannot be written: {os.strerror(error.errno or 0)}") from error
        paths.append(path)
    return paths


def _span(last: str) -> Duration:
    try:
        span = parse_duration(last)
    except ValueError as error:
        raise InputError("--last", str(error), right="give one such as 15m or 6h") from error
    if not MINUTE <= span <= SPAN_MAX:
        raise InputError("--last", f"is {last}", right="give at least 1m, at most 7d")
    return span
