"""Replaying a journal from its first record to prove what state it leads to; the engine may be writing to it meanwhile.

    python -m exchange.adapters.verify JOURNAL_DIRECTORY --instruments FILE [--until SEQUENCE]

`FILE` is JSON: a list of instruments, or an object with them under `instruments`, and a `venue` beside them where it
keeps other conventions than the default (such as a role's configuration).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from exchange.adapters.journal_place import noted
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.listing_file import read_listing
from exchange.adapters.log_holds import reading
from exchange.adapters.log_reading import Reader, read_manifest
from exchange.adapters.recovery import engine_before
from exchange.engine import Engine
from exchange.journal import Record, decode_command
from exchange.shards import instruments_of
from exchange.types import Instrument, Venue
from kernel.errors import InputError, PermanentError, TapewatchError

_PROGRESS_EVERY: Final = 10_000


class Verification(msgspec.Struct, frozen=True):
    """What a journal says."""

    records: int
    last_seq: int
    state_hash: str
    torn_bytes: int
    """Bytes of a record that was cut short, or is being written; 0 when the replay stopped before the end."""
    from_snapshot: int = 0
    """Where the snapshot stands from which the replay began; 0: it began with nothing."""


def verify(
    journal: Path,
    instruments: Sequence[Instrument],
    until: int | None = None,
    venue: Venue | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Replay a journal up to and including record `until` (None: to its end). Changes nothing.

    One whose directory says that it is in Kafka is read there, by those of the instruments that its partition has. A
    journal that was compacted is replayed from the oldest snapshot beside it (`../snapshots`). `progress` is told the
    sequence number now and then.

    Raises:
        PermanentError: the journal is damaged, of another version, not there, or ends before `until`.
        TemporaryError: it is in Kafka, and no broker answers.
    """
    if not journal.is_dir():
        raise InputError(str(journal), "there is no journal here", right="name the directory of one")
    place = noted(journal)
    if place is not None:
        mine = instruments if place.partitions == 1 else instruments_of(instruments, place.partition, place.partitions)
        return verify_topic(place, mine, until, venue, progress)
    _refuse_before_the_first(until)
    try:
        # From the first look on: nothing may go between choosing a snapshot and reading on from it.
        with reading(journal):
            manifest = read_manifest(journal)
            engine = Engine(instruments, venue)
            if manifest is not None and manifest.removed_to > 0:
                engine = engine_before(journal.parent / "snapshots", instruments, manifest.removed_to + 1, until, venue)
            begun = engine.sequence
            reader = Reader(journal, begun + 1)
            _apply(engine, reader, str(journal), until, progress)
    except OSError as error:
        raise PermanentError(f"{error.filename or journal}: cannot be read: {error.strerror}") from error
    torn = reader.torn.size if reader.torn is not None else 0
    return Verification(engine.sequence - begun, engine.sequence, engine.state_hash(), torn, begun)


def verify_topic(
    place: KafkaPlace,
    instruments: Sequence[Instrument],
    until: int | None = None,
    venue: Venue | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Replay a journal in Kafka from its first record. Changes nothing, the engine may be writing to it.

    Raises:
        PermanentError: it is damaged, of another version, or ends before `until`.
        TemporaryError: no broker answers.
    """
    from exchange.adapters.kafka_log import read_journal  # its client is not loaded where no journal is in Kafka

    _refuse_before_the_first(until)
    engine = Engine(instruments, venue)
    _apply(engine, read_journal(place), f"{place.commands}, partition {place.partition}", until, progress)
    return Verification(engine.sequence, engine.sequence, engine.state_hash(), 0)


def _refuse_before_the_first(until: int | None) -> None:
    if until is not None and until < 0:
        raise InputError("until", f"is {until}", right="records are numbered from 1")


def _apply(
    engine: Engine, records: Iterable[Record], name: str, until: int | None, progress: Callable[[int], None]
) -> None:
    """Let an engine carry out records up to `until`; every one when that is None."""
    if until is None or until > engine.sequence:
        for record in records:
            try:
                engine.apply(decode_command(record.payload))
            except msgspec.MsgspecError as error:
                raise PermanentError(
                    f"{name}: record {record.seq} holds no command of this program: {error}"
                ) from error
            if record.seq == until:
                break
            if not record.seq % _PROGRESS_EVERY:
                progress(record.seq)
    if until is not None and engine.sequence < until:
        raise PermanentError(f"{name}: the journal ends at record {engine.sequence}, before {until}")


def read_instruments(path: Path) -> tuple[Instrument, ...]:
    """Read instruments from a JSON file.

    Raises:
        InputError: the file cannot be read, holds none, or such as contradict themselves.
    """
    return read_listing(path).instruments


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify the journal named on the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m exchange.adapters.verify", description="Replay a journal.")
    parser.add_argument("journal", type=Path, help="the journal's directory")
    parser.add_argument("--instruments", type=Path, required=True, help="a JSON file with the instruments")
    parser.add_argument("--until", type=int, default=None, help="the last record to apply (default: the last there is)")
    given = parser.parse_args(arguments)
    try:
        listing = read_listing(given.instruments)
        found = verify(given.journal, listing.instruments, given.until, listing.venue)
    except TapewatchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
