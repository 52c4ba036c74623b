"""What the terminal does with an exchange's files: find them, check them, replay them, compact them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from control.progress import Progress
from exchange.adapters.compaction import Compaction, compact
from exchange.adapters.journal_place import JournalPart, count_parts, name_of, noted, part_directory
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.listing_file import read_listing
from exchange.adapters.log_check import BadByte, LogCheck, check_log, is_log
from exchange.adapters.recovery import EnginePaths, SnapshotCheck, beside, check_snapshots, told_by
from exchange.adapters.verify import Verification, verify, verify_topic
from exchange.listing import Listing
from exchange.shards import instruments_of
from kernel.errors import InputError

INSTRUMENTS: Final = "instruments.json"


class FilesVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `exchange verify DIR` finds: all logs and snapshots that belong together."""

    logs: tuple[LogCheck, ...]
    snapshots: tuple[SnapshotCheck, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """What tells that the journal's end is missing, of all that stands beside it."""

    @property
    def bad(self) -> BadByte | None:
        """The first byte that is not as it was written, of the first log that has one."""
        return next((one.bad for one in self.logs if one.bad is not None), None)

    @property
    def sound(self) -> bool:
        """Whether every byte is as it was written, and all of them are there."""
        return self.bad is None and not self.missing and all(not one.wrong for one in self.snapshots)


def paths_of(directory: Path) -> EnginePaths:
    """Return where an engine's files are, given the journal, the directory around it, or an estate's.

    Raises:
        InputError: there is no journal there.
    """
    for journal in (directory, directory / "journal", directory / "exchange" / "journal"):
        if is_log(journal) or noted(journal) is not None:
            around, part = journal.absolute().parent, ""
            if count_parts(around):  # one of several engines
                around, part = around.parent, journal.absolute().name
            return EnginePaths(journal, around / "events" / part, around / "snapshots" / part)
        if count := count_parts(journal):
            names = ", ".join(part_directory(journal, place).name for place in range(count))
            raise InputError(str(journal), f"holds the journals of {count} engines", right=f"name one of {names} in it")
    raise InputError(str(directory), "there is no journal here", right="name a journal's directory, or an estate's")


def listing_for(directory: Path, given: Path | None) -> Listing:
    """Return what is traded, and by which conventions.

    They come from the file given, else from `instruments.json` beside the journal or above it.

    Raises:
        InputError: there is no such file, or it holds none.
    """
    if given is not None:
        return read_listing(given)
    found = _instruments_near(directory)
    if found is None:
        raise InputError(
            str(directory), f"no {INSTRUMENTS} lies there or above", right="name the file with --instruments"
        )
    return read_listing(found)


def _instruments_near(directory: Path) -> Path | None:
    here = directory.absolute()
    return next((path for each in (here, *here.parents[:3]) if (path := each / INSTRUMENTS).is_file()), None)


def check(directory: Path, given: Path | None = None) -> FilesVerdict:
    """Read everything there is and name the first byte that is not as it was written. Changes nothing.

    A log's own directory is checked alone; else its event log and snapshots are, too.

    Raises:
        InputError: there is no log there, or it cannot be read.
        PermanentError: it is of another format version.
    """
    if is_log(directory):
        return FilesVerdict(logs=(check_log(directory, Progress("checked", None)),))
    paths = paths_of(directory)
    logs, missing = _check_logs(paths)
    place = noted(paths.journal)
    notes = () if place is None else (f"the journal itself is in {name_of(paths.journal)}: `exchange replay` reads it",)
    instruments = given or _instruments_near(directory)
    if instruments is None:
        note = f"no {INSTRUMENTS} near: the snapshots were not read; --instruments names the file"
        unread = (note,) if any(paths.snapshots.glob("*.snapshot")) else ()
        return FilesVerdict(logs=logs, missing=missing, notes=(*notes, *unread))
    listing = read_listing(instruments)
    mine = listing.instruments
    if place is not None and place.partitions > 1:  # one of several engines knows its own symbols
        mine = instruments_of(mine, place.partition, place.partitions)
    snapshots = check_snapshots(paths.snapshots, mine, listing.venue)
    return FilesVerdict(logs=logs, missing=missing, snapshots=tuple(snapshots), notes=notes)


def _check_logs(paths: EnginePaths) -> tuple[tuple[LogCheck, ...], tuple[str, ...]]:
    """Check the journal and the event log; tell besides what goes back to records that the journal does not have.

    The journal is read last: an engine that runs writes to it before it writes anywhere else.
    """
    try:
        found = beside(paths)
    except OSError as error:
        raise InputError(str(error.filename), f"cannot be read: {error.strerror}") from error
    checked = [
        check_log(each, Progress(f"checked of {each.name}")) for each in (paths.events, paths.journal) if is_log(each)
    ]
    if not is_log(paths.journal) or checked[-1].bad is not None:
        return tuple(reversed(checked)), ()
    if len(checked) > 1 and checked[0].bad is None:
        found = (told_by(paths.events, checked[0].last_seq), *found)
    missing = (one.missing(checked[-1].last_seq) for one in found)
    return tuple(reversed(checked)), tuple(filter(None, missing))


def replay(directory: Path, given: Path | None, until: int | None) -> Verification:
    """Replay a journal up to a record.

    Raises:
        InputError: there is no journal there, or the instruments are not known.
        PermanentError: it is damaged, or ends before.
    """
    paths = paths_of(directory)
    listing = listing_for(directory, given)
    return verify(paths.journal, listing.instruments, until, listing.venue, Progress("replayed to", until))


def replay_topic(directory: Path | None, given: Path | None, place: KafkaPlace, until: int | None) -> Verification:
    """Replay a journal in Kafka up to a record, by the instruments that belong to its partition.

    Raises:
        InputError: the instruments are not known, or there is no such partition.
        PermanentError: it is damaged, or ends before.
        TemporaryError: no broker answers.
    """
    listing = listing_for(directory or Path.cwd(), given)
    mine = instruments_of(listing.instruments, place.partition, place.partitions)
    return verify_topic(place, mine, until, listing.venue, Progress("replayed to", until))


def shorten(directory: Path, given: Path | None) -> Compaction:
    """Compact a journal that no engine writes to.

    Raises:
        TapewatchError: there is none, an engine runs, or the disk refused.
    """
    paths, listing = paths_of(directory), listing_for(directory, given)
    if noted(paths.journal) is not None:
        right = "its topics are kept for ever, there is nothing to compact (docs/kafka.md)"
        raise InputError(name_of(paths.journal), "holds the journal", right=right)
    return compact(paths, listing.instruments, venue=listing.venue)


def compare_part(part: JournalPart, listing: Listing, live: Mapping[str, Any] | None) -> tuple[Verification, str]:
    """Replay one engine's journal; return what it says, and what is wrong when the engine holds something else.

    Raises:
        TapewatchError: the journal is damaged, or cannot be read.
    """
    found = verify(part.directory, listing.instruments, None, listing.venue)
    if live is None:
        return found, ""
    then = found
    if live["seq"] != found.last_seq:
        then = verify(part.directory, listing.instruments, live["seq"], listing.venue)
    if then.state_hash == live["state_hash"]:
        return found, ""
    return found, (
        f"at command {live['seq']} the journal replays to {then.state_hash[:12]}, "
        f"and the engine holds {live['state_hash'][:12]}"
    )
