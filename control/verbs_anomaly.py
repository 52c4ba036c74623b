"""The verbs `anomaly`: score recorded series, say why in words, look back, and measure."""

from __future__ import annotations

import csv
import functools
import io
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.table import Table

from control.child import now
from control.terminal import (
    DONE,
    EXIT_CODES,
    FAILED,
    USAGE,
    AsJson,
    State,
    err,
    escape,
    guarded,
    layout_of,
    out,
    print_json,
)
from kernel.errors import InputError, PermanentError, TapewatchError
from kernel.time import DAY, HOUR, Duration, Instant, parse_duration, to_rfc3339

if TYPE_CHECKING:  # they load compiled code, which the terminal's other verbs need not wait for
    from anomaly.contributions import Contribution
    from control.series_backtest import Backtest, Past
    from control.series_scoring import FileReport
    from control.series_story import Series, Told
    from control.yardstick import Contestant

ANOMALY = typer.Typer(
    no_args_is_help=True, help="Find what is unusual in series, and say why in words.", epilog=EXIT_CODES
)
SCORED: Final = "Exit codes: 0 all scored, 1 some rows or files were not, 2 wrong usage."
LEFT_ASIDE_WORDS: Final = {
    "duplicate": "with the time of the row before",
    "backward": "with a time before that of a row before",
}
_SAY_EVERY_S: Final = 5.0
_COUNTED: Final = 1_000_000
"""Beyond one row in so many a rarity is a guess about a tail."""
_ROUND: Final = 300
"""Rows on each side of the one asked for, in a picture."""

Jobs = Annotated[int | None, typer.Option(min=1, help="Processes at once; else one a core.", show_default=False)]
Plot = Annotated[Path | None, typer.Option(help="Draw it: a file in .svg or .png.", show_default=False)]


@ANOMALY.command("score", epilog=f"Example: tapewatch anomaly score recorded scores. {SCORED}")
def score(
    in_dir: Annotated[Path, typer.Argument(help="Folder of series: .csv or .csv.gz with time and value, nested.")],
    out_dir: Annotated[Path, typer.Argument(help="Folder of results under the same names.")],
    jobs: Jobs = None,
    causes: Annotated[
        Path | None,
        typer.Option(
            help="Of files with several columns: name those behind each alert, in this CSV.", show_default=False
        ),
    ] = None,
    *,
    as_json: AsJson = False,
) -> NoReturn:
    """Score every row of every series in a folder: time, score (0 to 1, from 0.5 on unusual), alert (1 pages).

    A row's score depends on it and the rows before it alone. What cannot be scored is said, by file and line, on
    standard error, and the rest goes on.
    """
    from control.series_scoring import score_folder

    begun = time.monotonic()
    reports: list[FileReport] = []
    said = _Progress()

    def done(report: FileReport) -> None:
        reports.append(report)
        for sentence in report.sentences():
            err.print(f"[yellow]{escape(sentence)}[/]")
        said.of(len(reports), sum(one.rows for one in reports))

    work = jobs or os.cpu_count() or 1
    found = guarded(lambda: score_folder(in_dir, out_dir, jobs=work, with_causes=causes is not None, done=done))
    if causes is not None:
        guarded(lambda: _write_causes(causes, found))
    whole = all(report.whole for report in found)
    summary = _summary(found, time.monotonic() - begun)
    if as_json:
        print_json(summary)
    else:
        out.print(
            f"{summary['files_scored']} of {len(found)} series, {summary['rows_scored']:,} of {summary['rows']:,} rows "
            f"scored, {summary['alerts']:,} alerts, {summary['seconds']:.1f} s: {escape(str(out_dir))}",
            soft_wrap=True,
        )
        for kind, one in summary["left_aside"].items():
            rows = "one row was" if one["rows"] == 1 else f"{one['rows']:,} rows were"
            out.print(
                f"{rows} left aside, {LEFT_ASIDE_WORDS[kind]}, first {escape(one['first'])}; "
                "the result has no score of its own there, and no alert",
                soft_wrap=True,
            )
    raise typer.Exit(DONE if whole else FAILED)


class _Progress:
    """Says on standard error how far a long run is, every few seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _SAY_EVERY_S

    def of(self, files: int, rows: int) -> None:
        if time.monotonic() >= self._next:
            err.print(f"{files} series, {rows:,} rows so far")
            self._next = time.monotonic() + _SAY_EVERY_S


def _summary(found: Sequence[FileReport], taken_s: float) -> dict[str, Any]:
    return {
        "files": len(found), "files_scored": sum(not one.error for one in found),
        "rows": sum(one.rows for one in found), "rows_scored": sum(one.scored for one in found),
        "alerts": sum(one.alerts for one in found), "seconds": round(taken_s, 3), "left_aside": _left_aside(found),
        "series": [
            {
                "name": one.name, "columns": one.columns, "rows": one.rows, "scored": one.scored, "alerts": one.alerts,
                "left_aside": _left_aside([one]), "troubles": one.sentences(),
            }
            for one in found
        ],
    }  # fmt: skip


def _left_aside(found: Sequence[FileReport]) -> dict[str, dict[str, Any]]:
    """Return by verdict how many rows have no score of their own, and `file:line` of the first."""
    told: dict[str, dict[str, Any]] = {}
    for report in found:
        for kind, note in report.left_aside.items():
            one = told.setdefault(kind, {"rows": 0, "first": f"{report.name}:{note.line}"})
            one["rows"] += note.rows
    return told


def _write_causes(path: Path, found: Sequence[FileReport]) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("series", "line", "timestamp", "score", "rank", "column"))
    for report in found:
        for one in report.causes:
            rows.writerow((report.name, one.line, one.stamp, f"{one.score:.6f}", one.rank, one.column))
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text.getvalue())
        part.replace(path)
    except OSError as error:
        raise PermanentError(f"{path}: cannot be written: {error.strerror}") from error


@ANOMALY.command("explain", epilog="Example: tapewatch anomaly explain orders.csv --at 2026-03-02T09:30:00Z")
def explain(
    file: Annotated[Path, typer.Argument(help="A series: .csv or .csv.gz with time and value.")],
    at: Annotated[
        str,
        typer.Option(help="This time, or so long before the file's newest, instead of every page.", show_default=False),
    ] = "",
    plot: Plot = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Say in words why a series pages, and when; or what is thought of it at one time."""
    from control.series_plot import draw
    from control.series_story import at_rows, load, rows_at, tell

    series, troubles = guarded(lambda: load(file))
    for trouble in troubles:
        err.print(f"[yellow]{escape(trouble)}[/]")
    story = tell(series)
    told: Sequence[Told] = story.pages
    first, last = 0, len(series.at)
    if at:
        rows = guarded(lambda: rows_at(series, _instant(at, lambda: Instant(int(series.at.max())))))
        told = at_rows(series, rows)
        first, last = max(0, rows[0] - _ROUND), min(last, rows[0] + _ROUND + 1)
    if plot is not None:
        guarded(lambda: draw(story, plot, first=first, last=last))
    if as_json:
        print_json({"series": file.name, "rows": len(series.at), "told": [_facts(one, series) for one in told]})
        return
    for one in told:
        _print_told(one, series)
    if not told:
        out.print(f"nothing in {len(series.at):,} rows pages")
    if plot is not None:
        out.print(f"drawn: {escape(str(plot))}", soft_wrap=True)


def _instant(text: str, end: Callable[[], Instant]) -> Instant:
    """Read a time as files write it, or a length of time such as 6h, which counts back from `end`."""
    from control.series_stamps import UNREADABLE, stamp_of

    try:
        ago = parse_duration(text)
    except ValueError:
        pass
    else:
        return Instant(end() - ago)
    at = stamp_of(text.encode())
    if at == UNREADABLE:
        raise InputError(text, "is no time", right="write it as 2026-03-02T09:30:00Z, or how long ago, such as 6h")
    return Instant(at)


def _facts(told: Told, series: Series) -> dict[str, Any]:
    from control.series_story import LEFT_ASIDE

    range_of = told.score.finding or told.score  # as in the words: of a finding, the range that was left
    return {
        "at": to_rfc3339(told.at), "row": told.row + 1, "score": told.score.score, "alert": told.score.alert,
        "channel": told.score.channel.name.lower(), "verdict": told.score.verdict.name.lower(),
        "low": _finite(range_of.low), "high": _finite(range_of.high), "sentence": told.sentence,
        "columns": list(told.blamed) if len(series.columns) > 1 else [], "left_aside": told.score.verdict in LEFT_ASIDE,
        "contributions": [
            {
                "channel": one.channel, "value": _finite(one.value), "record_low": _finite(one.low),
                "record_high": _finite(one.high), "beyond": _finite(one.beyond), "one_in": _finite(one.one_in),
                "votes": one.votes, "why": one.why,
            }
            for one in told.contributions
        ],
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # NaN is no JSON


def _print_told(told: Told, series: Series) -> None:
    from control.series_story import CHANNELS, LEFT_ASIDE, VERDICTS
    from incidents.plot import figure

    colour = "bold red" if told.score.alert else "yellow" if told.score.finding is not None else "green"
    out.print(f"[{colour}]{to_rfc3339(told.at)[:19]}Z[/]  {escape(told.sentence)}", soft_wrap=True)
    if told.score.verdict in LEFT_ASIDE:
        out.print(f"  score     none of its own, the result has {told.score.score:.3f}; row {told.row + 1:,}")
        return
    # Of a finding the range that was left; else what the last rows lead one to expect.
    range_of = told.score.finding or told.score
    expected = "none told"
    if math.isfinite(range_of.low):
        expected = f"{figure(range_of.low)} to {figure(range_of.high)}"
    out.print(
        f"  score     {told.score.score:.3f}, {'pages' if told.score.alert else 'does not page'}; row {told.row + 1:,}"
    )
    out.print(f"  expected  {expected}")
    out.print(f"  why       {CHANNELS[told.score.channel]} ({VERDICTS[told.score.verdict]})", soft_wrap=True)
    if len(series.columns) > 1 and told.blamed:
        out.print(f"  columns   {escape(', '.join(told.blamed))}", soft_wrap=True)
    _print_contributions(told.contributions)


def _print_contributions(each: Sequence[Contribution]) -> None:
    """Print what each channel gave: its statistic, the record, how far beyond in usual ranges, how rare, its vote."""
    from incidents.plot import figure

    if not each:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title, side in (
        ("  channel", "left"), ("value", "right"), ("record", "right"), ("beyond", "right"), ("one in", "right"),
        ("votes", "left"),
    ):  # fmt: skip
        table.add_column(title, justify="right" if side == "right" else "left", no_wrap=title != "votes")
    for one in each:
        record = f"{figure(one.low)} to {figure(one.high)}" if math.isfinite(one.low) else f"to {figure(one.high)}"
        vote = "-" if one.votes is None else "[bold]yes[/]" if one.votes else "no"
        table.add_row(
            f"  {one.channel}", figure(one.value) if math.isfinite(one.value) else "-",
            record if math.isfinite(one.high) else "-", f"{one.beyond:+.2f}" if math.isfinite(one.beyond) else "-",
            _rarity(one.one_in), f"{vote}: {one.why}",
        )  # fmt: skip
    out.print(table)


def _rarity(one_in: float) -> str:
    if not math.isfinite(one_in):
        return "-"
    return f"{one_in:,.0f}" if one_in <= _COUNTED else f"over {_COUNTED:,}"


@ANOMALY.command(
    "backtest", epilog="Example: tapewatch anomaly backtest --from 24h --query 'sum(rate(orders_total[1m]))'"
)
def backtest(  # noqa: PLR0913, PLR0917 - the options of a verb
    folder: Annotated[Path | None, typer.Argument(help="Folder of series; else a Prometheus is asked.")] = None,
    since: Annotated[
        str,
        typer.Option(
            "--from",
            help="From this time, or so long (24h) before now, of files before their newest time. "
            "Else 24h before now, or a file's beginning.",
            show_default=False,
        ),
    ] = "",
    until: Annotated[
        str,
        typer.Option("--to", help="To this time, counted as --from; else now, or a file's end.", show_default=False),
    ] = "",
    prometheus: Annotated[
        str, typer.Option(help="Address of a Prometheus; else that of the running estate.", show_default=False)
    ] = "",
    query: Annotated[
        list[str] | None, typer.Option(help="PromQL; may be repeated. Else what is watched.", show_default=False)
    ] = None,
    step: Annotated[str, typer.Option(help="Time between readings of a Prometheus.")] = "1m",
    plots: Annotated[Path | None, typer.Option(help="Draw each series that pages, in this folder.")] = None,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> NoReturn:
    """Tell what would have paged: how often a day, with which sentence, and how much of the budget that would be."""
    from control.series_backtest import from_folder, from_prometheus, look_back

    if folder is not None and (query or prometheus):
        err.print("[bold red]tapewatch:[/] a folder is read or a Prometheus is asked, not both; leave one out")
        raise typer.Exit(USAGE)
    newest = _end_of(folder)
    start = guarded(lambda: _instant(since, newest)) if since else None
    end = guarded(lambda: _instant(until, newest)) if until else None
    if start is not None and end is not None and start >= end:
        err.print("[bold red]tapewatch:[/] --from lies after --to")
        raise typer.Exit(USAGE)

    def past() -> Past:
        if folder is not None:
            return from_folder(folder)
        spacing = _duration(step)
        url = prometheus or _estate_prometheus(state)
        begin, finish = start or Instant(now() - DAY), end or Instant(now())
        return from_prometheus(url, list(query or ()), begin, finish, spacing)

    found = guarded(past)
    told = guarded(lambda: look_back(found, start, end, plots=plots))
    for trouble in found.troubles:  # of files they are known only when all are read
        err.print(f"[yellow]{escape(trouble)}[/]")
    if as_json:
        print_json(told.facts())
    else:
        _print_backtest(told)
    raise typer.Exit(FAILED if found.troubles or not told.lines else DONE)


def _end_of(folder: Path | None) -> Callable[[], Instant]:
    """Return what tells the time that a length of time counts back from: now, or the newest of a folder, said once."""
    from control.series_backtest import newest_in

    @functools.cache
    def newest() -> Instant:
        if folder is None:
            return Instant(now())
        found = newest_in(folder)
        err.print(f"counted back from {to_rfc3339(found)[:19]}Z, the newest time in {escape(str(folder))}")
        return found

    return newest


def _duration(text: str) -> Duration:
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise InputError("--step", str(error)) from None
    if not 0 < found <= HOUR * 24:
        raise InputError("--step", f"{text} is no time between readings", right="between 1s and 1d")
    return found


def _estate_prometheus(state: Path | None) -> str:
    from control.addresses import load_addresses

    try:
        return load_addresses(layout_of(state).addresses).prometheus
    except TapewatchError as error:
        raise InputError("--prometheus", f"is not given, and no estate runs here ({error})") from error


def _print_backtest(told: Backtest) -> None:
    table = Table()
    for column in ("series", "days", "rows", "pages", "a day", "budget used"):
        table.add_column(column, justify="left" if column == "series" else "right")
    for line in sorted(told.lines, key=lambda one: -one.pages):
        used = f"{line.used:.0%}"
        table.add_row(
            escape(line.name), f"{line.days:.2f}", f"{line.rows:,}", f"{line.pages}",
            "-" if line.days <= 0 else f"{line.pages / line.days:.2f}", f"[red]{used}[/]" if line.used > 1 else used,
        )  # fmt: skip
    out.print(table)
    for name, one in told.pages:
        out.print(f"{to_rfc3339(one.at)[:19]}Z  [bold]{escape(name)}[/]: {escape(one.sentence)}", soft_wrap=True)
    out.print(told.verdict(), soft_wrap=True)


@ANOMALY.command("bench", epilog="Example: tapewatch anomaly bench --with ewma --whole")
def bench(
    others: Annotated[
        list[str] | None,
        typer.Option("--with", help="Beside ours: a baseline, or all; may be repeated.", show_default=False),
    ] = None,
    jobs: Jobs = None,
    *,
    whole: Annotated[bool, typer.Option("--whole", help="With the figures that rank; takes minutes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score our detectors and well-known ones on labelled series, at the one fixed threshold.

    The series are no part of Tapewatch: TAPEWATCH_ANOMALY_DATA names their folder, else shared/data/nab is looked for
    beside the project.
    """
    from control.yardstick import find_yard
    from control.yardstick_contest import Contest
    from control.yardstick_table import detectors

    contestants = guarded(lambda: _contestants(others or ()))
    yard = guarded(find_yard)
    contest = guarded(lambda: Contest(yard, jobs=jobs or os.cpu_count() or 1, say=lambda text: err.print(escape(text))))
    outputs = {one.name: contest.outputs(one) for one in contestants}
    told: dict[str, Any] = {}
    for group in yard.groups():
        rows = [contest.row(name, found, group, whole=whole) for name, found in outputs.items()]
        told[group] = {row.name: {**row.figures, "us_per_row": row.us_per_row} for row in rows}
        if not as_json:
            out.print(f"[bold]{group}[/]")
            typer.echo(detectors(rows))
    if as_json:
        print_json(_without_nan(told))


def _contestants(others: Sequence[str]) -> list[Contestant]:
    from anomaly.baselines import BASELINES
    from control.series_joint import alone, ours
    from control.yardstick import Contestant

    unknown = [name for name in others if name not in {*BASELINES, "all"}]
    if unknown:
        raise InputError(f"--with {unknown[0]}", "is no baseline", right=f"known are all, {', '.join(BASELINES)}")
    names = list(BASELINES) if "all" in others else list(dict.fromkeys(others))
    return [
        Contestant("tapewatch", ours),
        *(Contestant(name, functools.partial(alone, BASELINES[name])) for name in names),
    ]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
