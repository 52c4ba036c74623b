"""Replaying a journal from its first record to prove what state it leads to; the engine may be writing to it meanwhile.

    python -m exchange.adapters.verify JOURNAL_DIRECTORY --instruments FILE [--until SEQUENCE]

`FILE` is JSON: a list of instruments, or an object with them under `instruments`, and a `venue` beside them where it
keeps other conventions than the default (such as a role's configuration).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from exchange.adapters.file_log import Reader
from exchange.adapters.listing_file import read_listing
from exchange.engine import Engine
from exchange.journal import decode_command
from exchange.types import Instrument, Venue
from kernel.errors import InputError, PermanentError, TapewatchError


class Verification(msgspec.Struct, frozen=True):
    """What a journal says."""

    records: int
    last_seq: int
    state_hash: str
    torn_bytes: int
    """Bytes of a record that was cut short, or is being written; 0 when the replay stopped before the end."""


def verify(
    journal: Path, instruments: Sequence[Instrument], until: int | None = None, venue: Venue | None = None
) -> Verification:
    """Replay a journal up to and including record `until` (None: to its end). Changes nothing.

    Raises:
        PermanentError: the journal is damaged, of another version, not there, or ends before `until`.
    """
    engine = Engine(instruments, venue)
    if not journal.is_dir():
        raise InputError(str(journal), "there is no journal here", right="name the directory of one")
    reader = Reader(journal)
    if until is None or until > 0:
        for record in reader:
            try:
                engine.apply(decode_command(record.payload))
            except msgspec.MsgspecError as error:
                raise PermanentError(
                    f"{journal}: record {record.seq} holds no command of this program: {error}"
                ) from error
            if record.seq == until:
                break
    if until is not None and engine.sequence < until:
        raise PermanentError(f"{journal}: the journal ends at record {engine.sequence}, before {until}")
    torn = reader.torn.size if reader.torn is not None else 0
    return Verification(engine.sequence, engine.sequence, engine.state_hash(), torn)


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
