"""The account of a load from its files: `layout.load` against `layout.journal`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from exchange.accounting import Account, LoadLine, Replayed, replayed, together
from exchange.accounting import account as account_of
from exchange.adapters.journal_place import JournalPart, journal_records, parts_of
from exchange.engine import Engine
from exchange.journal import decode_command
from exchange.types import Instrument, Venue
from kernel.errors import InputError


def account(load: Path, journal: Path, instruments: Sequence[Instrument], venue: Venue | None = None) -> Account:
    """Account for every request in the logs below `load`; the journal is only read and may be in use.

    A journal that several engines share is read whole: each one's own.

    Raises:
        InputError: a line of a log is damaged.
        PermanentError: the journal is damaged or of another version.
    """
    # The lines first: what was answered before they were read is in the journal that is read after.
    lines = [line for path in sorted(load.glob("*.jsonl")) for line in _lines(path)]
    return account_of(lines, together([_replayed(part, instruments, venue) for part in parts_of(journal)]))


def _replayed(part: JournalPart, instruments: Sequence[Instrument], venue: Venue | None) -> Replayed:
    items = (decode_command(record.payload) for record in journal_records(part.directory))
    return replayed(Engine(part.instruments(instruments), venue), items, part.partition)


def _lines(path: Path) -> Iterator[LoadLine]:
    decoder = msgspec.json.Decoder(LoadLine)
    data = path.read_bytes().split(b"\n")
    for number, line in enumerate(data[:-1], 1):  # what follows the last line feed is still being written
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError as error:
            raise InputError(f"{path}:{number}", f"no line of a load's log: {error}") from error
