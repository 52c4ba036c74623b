"""The verbs `exchange verify DIR`, `exchange replay`, `exchange compact`: an exchange's files, without an exchange."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.markup import escape as markup

from control.journal_desk import FilesVerdict, check, replay, replay_topic, shorten
from control.terminal import DONE, FAILED, AsJson, guarded, out, print_json
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.log_check import BadByte, LogCheck
from exchange.adapters.verify import Verification
from kernel.errors import InputError

Directory = Annotated[
    Path | None, typer.Argument(help="A journal's directory, the one around it, or an estate's.", show_default=False)
]
Written = Annotated[
    Path, typer.Argument(help="A journal's directory, the one around it, or an estate's.", show_default=False)
]
Instruments = Annotated[
    Path | None,
    typer.Option(
        help="JSON with the instruments; else instruments.json beside the journal or above.", show_default=False
    ),
]


Commands = Annotated[
    int | None,
    typer.Option(help="How many requests, with --offline; else 10,000, or the whole file.", show_default=False),
]
Told = Annotated[
    Path | None,
    typer.Option(
        help="Write JSON lines, with --offline: what each request caused, then books, orders, balances.",
        show_default=False,
    ),
]
Kafka = Annotated[
    str, typer.Option("--kafka", help="Brokers, host:port parted by commas: the journal there.", show_default=False)
]
Topic = Annotated[str, typer.Option(help="What the topics' names begin with, with --kafka.")]
Partition = Annotated[int, typer.Option(min=0, help="Whose journal, with --kafka: an engine has a partition.")]
Partitions = Annotated[int, typer.Option(min=1, help="How many the topic has, with --kafka.")]


def verify_kafka(directory: Path | None, instruments: Path | None, place: KafkaPlace, *, as_json: bool) -> NoReturn:
    """Read every message of a journal's partition, and replay it."""
    began = time.monotonic()
    found = guarded(lambda: replay_topic(directory, instruments, place, None))
    if as_json:
        print_json({"sound": True, **msgspec.to_builtins(found)})
    else:
        _print_replayed(found, time.monotonic() - began)
        out.print("[green]every message is as it was written[/]")
    raise typer.Exit(DONE)


def verify_files(directory: Path, instruments: Path | None, *, as_json: bool) -> NoReturn:
    """Read every byte of a journal's files and tell the first that is not as it was written."""
    verdict = guarded(lambda: check(directory, instruments))
    if as_json:
        print_json({"sound": verdict.sound, **msgspec.to_builtins(verdict)})
    else:
        _print_verdict(verdict)
    raise typer.Exit(DONE if verdict.sound else FAILED)


def _print_verdict(verdict: FilesVerdict) -> None:
    for log in verdict.logs:
        out.print(f"{log.kind:10}{markup(_log_words(log))}", soft_wrap=True)
        if log.torn_bytes and not verdict.missing:
            note = (
                f"{log.torn_bytes} bytes at the end are no whole record: cut short or being written, never acknowledged"
            )
            out.print(f"{'note':10}{note}", soft_wrap=True)
        if not log.manifest:
            out.print(f"{'note':10}there is no manifest: whether the end is missing cannot be told", soft_wrap=True)
        if log.bad is not None:
            told = f"{log.bad.path}: {_where(log.bad)}{log.bad.what}; everything before it is sound"
            out.print(f"[bold red]{'wrong':10}[/]{markup(told)}", soft_wrap=True)
    for snapshot in verdict.snapshots:
        if snapshot.wrong:
            out.print(f"[bold red]{'wrong':10}[/]{markup(f'{snapshot.path}: {snapshot.wrong}')}", soft_wrap=True)
        else:
            out.print(f"{'snapshot':10}{markup(snapshot.path)}: stands at record {snapshot.seq}", soft_wrap=True)
    for missing in verdict.missing:
        out.print(f"[bold red]{'wrong':10}[/]{markup(missing)}", soft_wrap=True)
    for note in verdict.notes:
        out.print(f"{'note':10}{markup(note)}", soft_wrap=True)
    if verdict.sound:
        whole = " up to there" if any(log.torn_bytes for log in verdict.logs) else ""
        out.print(f"[green]every byte{whole} is as it was written[/]")


def _where(bad: BadByte) -> str:
    if bad.exact:
        return f"byte {bad.offset}: "
    return f"the record that begins at byte {bad.offset}: " if bad.offset else ""  # 0: the file as a whole


def _log_words(log: LogCheck) -> str:
    records = f"records {log.first_seq} to {log.last_seq}" if log.records else "no records"
    return f"{log.directory}: {records} in {log.segments} segment{'s' * (log.segments != 1)}, {log.size:,} bytes"


def replay_journal(  # noqa: PLR0913 - the options of a verb
    directory: Directory = None,
    until: Annotated[
        int | None, typer.Option(help="The last record to apply; else the last there is.", show_default=False)
    ] = None,
    instruments: Instruments = None,
    kafka: Kafka = "",
    topic: Topic = "exchange",
    partition: Partition = 0,
    partitions: Partitions = 1,
    *,
    print_hash: Annotated[bool, typer.Option("--print-hash", help="Print the state's hash and nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replay a journal and tell the state it leads to: the same records, the same hash, on every machine.

    With --kafka from the first offset of a partition; the directory then only says where the instruments are. Changes
    nothing; an engine may write to the journal meanwhile. A compacted one is replayed from its oldest snapshot.
    """
    began = time.monotonic()
    place = KafkaPlace(bootstrap=kafka, topic=topic, partition=partition, partitions=partitions) if kafka else None
    found = guarded(lambda: _replayed(directory, instruments, until, place))
    taken_s = time.monotonic() - began
    if as_json:
        print_json({**msgspec.to_builtins(found), "seconds": round(taken_s, 3)})
        return
    if print_hash:
        typer.echo(found.state_hash)
        return
    _print_replayed(found, taken_s)


def _replayed(
    directory: Path | None, instruments: Path | None, until: int | None, place: KafkaPlace | None
) -> Verification:
    if place is not None:
        return replay_topic(directory, instruments, place, until)
    if directory is None:
        raise InputError("journal", "none is named", right="give its directory, or --kafka with its brokers")
    return replay(directory, instruments, until)


def _print_replayed(found: Verification, taken_s: float) -> None:
    begun = f" from the snapshot at record {found.from_snapshot}" if found.from_snapshot else ""
    rate = f", {found.records / taken_s:,.0f} a second" if taken_s > 0 and found.records else ""
    out.print(f"{'replayed':10}{found.records:,} records{begun} to {found.last_seq}{rate}", soft_wrap=True)
    out.print(f"{'state':10}{found.state_hash}", soft_wrap=True)
    if found.torn_bytes:
        out.print(f"{'note':10}{found.torn_bytes} bytes at the end are no whole record", soft_wrap=True)


def compact_journal(directory: Written, instruments: Instruments = None, *, as_json: AsJson = False) -> None:
    """Remove the part of a journal that every snapshot which can be used covers. No engine may run.

    Afterwards the journal cannot be replayed from its first record: `exchange verify` of an estate with a load says so.
    """
    done = guarded(lambda: shorten(directory, instruments))
    if as_json:
        print_json(done)
    elif done.removed:
        out.print(f"{done.removed:,} records removed; the journal begins with {done.first_seq}", soft_wrap=True)
    elif not done.covered:
        out.print("nothing removed: no snapshot covers anything", soft_wrap=True)
    else:
        out.print(
            f"nothing removed: no whole segment lies before record {done.covered}, where the oldest snapshot stands, "
            "or the event log ends before it",
            soft_wrap=True,
        )
