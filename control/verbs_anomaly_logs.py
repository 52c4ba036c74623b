"""The verbs over kinds of log lines: `logs templates` over a store, `anomaly logs` over a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from control import log_desk
from control.child import now
from control.log_lines import plain
from control.terminal import AsJson, State, err, escape, guarded, out, print_json
from kernel.errors import InputError
from kernel.time import MINUTE, SECOND, Duration, Instant, parse_duration, to_rfc3339, to_seconds
from monitor.adapters.lucene import parse

if TYPE_CHECKING:  # they load compiled code, which the terminal's other verbs need not wait for
    from anomaly.log_rates import Bucket, Finding, LogWatcher
    from anomaly.templates import Template

SHOWN: Final = 40
_BUCKET_MAX: Final = Duration(24 * 60 * MINUTE)
TEMPLATES: Final = "Example: tapewatch logs templates --since 2h 'service.name:gateway'"
LOGS: Final = "Example: tapewatch anomaly logs access.log scores.csv --bucket 10s"


def templates(
    query: Annotated[str, typer.Argument(help="Only records that match; empty: every record.")] = "",
    since: Annotated[str, typer.Option(help="So long ago, such as 2h, or a time.")] = "1h",
    until: Annotated[str, typer.Option(help="Up to so long ago, or a time; else now.", show_default=False)] = "",
    store: Annotated[str, typer.Option("--store", help="local files, or elastic.")] = "local",
    limit: Annotated[int, typer.Option(help="Kinds at most.", min=1, max=1_000)] = SHOWN,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show the kinds of lines that the log is made of, the unusual first: how many, since when, how often."""
    from control.log_kinds import bucket_for, feed
    from control.verbs_logs import open_for

    asked = guarded(lambda: parse(query))
    span = guarded(lambda: log_desk.span_of(since, until, now()))
    watcher = _watcher(bucket_for(span))
    with open_for(store, state, span.start) as found:
        buckets = guarded(lambda: feed(watcher, found, span, asked)) + watcher.advance(span.end, alive=True)
    rows = _ranked(watcher, buckets, to_seconds(span.end - span.start) / 60)
    if as_json:
        print_json(rows[:limit])
        return
    if not rows:
        err.print("no record in that time")
        return
    _print_rows(rows[:limit])
    if len(rows) > limit:
        err.print(f"{len(rows) - limit} kinds more; --limit shows more")


def logs(
    file: Annotated[Path, typer.Argument(help="A log: lines of text or of JSON objects, plain or .gz.")],
    output: Annotated[Path, typer.Argument(metavar="OUT.csv", help="timestamp, score, alert of every bucket.")],
    bucket: Annotated[str, typer.Option(help="Length of a bucket, such as 10s or 1m.")] = "1m",
    *,
    as_json: AsJson = False,
) -> None:
    """Score a recorded log: kinds of lines that come more or less often than expected, and kinds never seen.

    A bucket's row stands at its end and depends on the lines up to there alone.
    """
    from anomaly.masking import text_of
    from control.log_kinds import Reading, file_lines, nothing_read

    length = guarded(lambda: _length(bucket))
    reading, watcher = Reading(), _watcher(length)
    buckets: list[Bucket] = []

    def read() -> None:
        for line, at in file_lines(file, reading):
            buckets.extend(watcher.add(text_of(line), at))
        buckets.extend(watcher.finish())
        if not buckets:
            raise nothing_read(file, reading)

    guarded(read)
    guarded(lambda: _write(output, buckets))
    found = [one for bucket_ in buckets for one in bucket_.findings if one.alert]
    if as_json:
        print_json({
            "lines": reading.lines, "without_time": reading.without_time, "continued": reading.continued,
            "backward": reading.backward, "buckets": len(buckets), "templates": len(watcher.templates),
            "findings": [_finding(one) for one in found],
        })  # fmt: skip
        return
    for one in found[:SHOWN]:
        out.print(f"[dim]{to_rfc3339(one.at)[:19]}Z[/] {one.score:.2f} {escape(plain(one.sentence))}", soft_wrap=True)
    if len(found) > SHOWN:
        err.print(f"{len(found) - SHOWN} findings more; --json has all")
    for count, what in (
        (reading.without_time, "lines before the first with a time were left out"),
        (reading.continued, "lines without a time stand at that of the line before"),
        (reading.backward, "lines step back in time and count where they come"),
    ):
        if count:
            err.print(f"{count:,} {what}")
    out.print(
        f"{reading.lines:,} lines of {len(watcher.templates)} kinds in {len(buckets):,} buckets, "
        f"{sum(one.alert for one in buckets)} alerts: {escape(str(output))}"
    )


def _watcher(bucket: Duration) -> LogWatcher:
    from anomaly.fleet import Fleet
    from anomaly.log_rates import LogWatcher

    return LogWatcher(Fleet, bucket=bucket)


def _length(text: str) -> Duration:
    try:
        length = parse_duration(text)
    except ValueError as error:
        raise InputError("--bucket", str(error), right="such as 10s or 1m") from error
    if not SECOND <= length <= _BUCKET_MAX:
        raise InputError("--bucket", f"is {text[:20]}", right="1s to 24h")
    return length


def _write(path: Path, buckets: list[Bucket]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("timestamp", "score", "alert"))
            rows.writerows((_stamp(one.at), f"{one.score:.6g}", int(one.alert)) for one in buckets)
    except OSError as error:
        raise InputError(str(path), f"cannot be written ({error.strerror})", right="another file") from error


def _stamp(at: Instant) -> str:
    return to_rfc3339(at)[:19].replace("T", " ")


def _ranked(watcher: LogWatcher, buckets: list[Bucket], minutes: float) -> list[dict[str, object]]:
    """Return the kinds as rows, the unusual first, then by number."""
    strongest: dict[str, Finding] = {}
    for one in (found for bucket in buckets for found in bucket.findings):
        if one.template not in strongest or one.score > strongest[one.template].score:
            strongest[one.template] = one
    rows = [_row(one, strongest.get(one.id), minutes) for one in watcher.templates.all()]
    return sorted(rows, key=lambda row: (-float(str(row["score"])), -int(str(row["count"])), str(row["id"])))


def _row(one: Template, found: Finding | None, minutes: float) -> dict[str, object]:
    rate = one.count / max(minutes, 1 / 60)
    return {
        "id": one.id, "template": one.text, "count": one.count, "per_minute": round(rate, 3),
        "first_seen": to_rfc3339(one.first_at), "last_seen": to_rfc3339(one.last_at), "example": one.example,
        "score": round(found.score, 3) if found else 0.0, "alert": bool(found and found.alert),
        "why": found.sentence if found else "",
    }  # fmt: skip


def _finding(one: Finding) -> dict[str, object]:
    return {
        "at": to_rfc3339(one.at), "why": str(one.why), "template": one.template, "text": one.text,
        "example": one.example, "score": round(one.score, 3), "sentence": one.sentence,
    }  # fmt: skip


def _print_rows(rows: list[dict[str, object]]) -> None:
    table = Table()
    for column in ("score", "lines", "a minute", "first seen (UTC)", "kind", "such as"):
        table.add_column(column, justify="right" if column in {"score", "lines", "a minute"} else "left")
    for row in rows:
        score = float(str(row["score"]))
        colour = "bold red" if row["alert"] else "yellow" if score else "dim"
        table.add_row(
            f"[{colour}]{score:.2f}[/]", f"{row['count']:,}", f"{row['per_minute']:g}", str(row["first_seen"])[:19],
            escape(plain(row["template"])), escape(plain(row["example"])),
        )  # fmt: skip
    out.print(table)
    for row in rows:
        if row["why"]:
            out.print(escape(plain(row["why"])), soft_wrap=True)
