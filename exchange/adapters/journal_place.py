"""Where the journal of a directory is: in its own files, or, as a note in it says, in a partition of Kafka.

Whoever is told of a journal is told of a directory. An engine whose journal is in Kafka keeps a note of it there, so
that nobody else needs to be told, and so that snapshots and event log beside it are never taken for another journal's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from exchange.adapters.file_log import list_segments, read_records
from exchange.adapters.kafka_place import KafkaPlace
from exchange.journal import Record
from exchange.shards import instruments_of
from exchange.types import Instrument
from kernel.errors import PermanentError

NOTE: Final = "kafka.json"
_PART: Final = "engine-"
"""What the name of an engine's directory begins with where several share a journal; its number from 1 follows."""


class JournalPart(msgspec.Struct, frozen=True):
    """The journal of one engine: of the only one, or of one of several."""

    name: str
    """Such as `engine-2`."""
    directory: Path
    partition: int = 0
    partitions: int = 1

    def instruments(self, every: Sequence[Instrument]) -> tuple[Instrument, ...]:
        """Return what its engine trades, of everything that is traded.

        Raises:
            InputError: nothing falls into it.
        """
        return tuple(every) if self.partitions == 1 else instruments_of(every, self.partition, self.partitions)


def part_directory(journal: Path, partition: int) -> Path:
    """Return where the engine of a partition keeps what belongs to it, below a directory that several share."""
    return journal / f"{_PART}{partition + 1}"


def parts_of(journal: Path) -> tuple[JournalPart, ...]:
    """Return the journals of all engines of a directory, in the order of their partitions; it alone is one engine's.

    Raises:
        PermanentError: the note in it cannot be read.
    """
    count = count_parts(journal)
    if not count:
        place = noted(journal)
        alone = JournalPart(f"{_PART}1", journal)
        if place is None:
            return (alone,)
        return (msgspec.structs.replace(alone, partition=place.partition, partitions=place.partitions),)
    return tuple(
        JournalPart(f"{_PART}{number + 1}", part_directory(journal, number), number, count) for number in range(count)
    )


def count_parts(journal: Path) -> int:
    """Return how many engines share a directory; 0: it is one engine's own, or nobody's yet."""
    count = 0
    while part_directory(journal, count).is_dir():
        count += 1
    return count


def noted(directory: Path) -> KafkaPlace | None:
    """Return where in Kafka the journal of a directory is; None: it is in its files.

    Raises:
        PermanentError: the note cannot be read.
    """
    path = directory / NOTE
    try:
        return msgspec.json.decode(path.read_bytes(), type=KafkaPlace)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise PermanentError(f"{path}: cannot be read ({error}): it says where in Kafka the journal is") from error


def note(directory: Path, place: KafkaPlace) -> None:
    """Say that the journal of a directory is at `place`, which names its cluster.

    Raises:
        PermanentError: it is elsewhere, or cannot be noted.
    """
    before = noted(directory)
    if before is None and list_segments(directory):
        raise PermanentError(
            f"{directory}: holds a journal in files, which does not go on in Kafka; take another state directory"
        )
    if before is not None and _identity(before) != _identity(place):
        raise PermanentError(
            f"{directory}: belongs to the journal {_words(before)}, not to {_words(place)}; take another state "
            "directory"
        )
    if before == place:
        return
    draft = directory / f"{NOTE}.draft"
    try:
        with draft.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(place), indent=2))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(directory / NOTE)
    except OSError as error:
        raise PermanentError(f"{directory}: cannot note where the journal is: {error}") from error


def need_files(directory: Path) -> None:
    """Refuse a directory whose journal is not in files.

    Raises:
        PermanentError: it is in Kafka.
    """
    place = noted(directory)
    if place is not None:
        raise PermanentError(
            f"{directory}: the journal is in Kafka, {_words(place)}: set TAPEWATCH_JOURNAL=kafka, or take another "
            "state directory"
        )


def name_of(directory: Path) -> str:
    """Return where the journal of a directory is, for people.

    Raises:
        PermanentError: its note cannot be read.
    """
    count = count_parts(directory)
    place = noted(part_directory(directory, 0) if count else directory)
    if place is not None and count:
        return f"Kafka, {place.commands}, {count} partitions, cluster {place.cluster_id}"
    return str(directory) if place is None else f"Kafka, {_words(place)}"


def journal_records(directory: Path, from_seq: int = 1) -> Iterator[Record]:
    """Yield the records from `from_seq` on of the journal of a directory, wherever it is. Changes nothing.

    Raises:
        PermanentError: it is damaged, of another version, or begins later.
        TemporaryError: it is in Kafka, and no broker answers.
    """
    place = noted(directory)
    if place is None:
        return read_records(directory, from_seq)
    from exchange.adapters.kafka_log import read_journal

    return read_journal(place, from_seq)


def _identity(place: KafkaPlace) -> tuple[str, str, int, int]:
    return place.cluster_id, place.topic, place.partition, place.partitions


def _words(place: KafkaPlace) -> str:
    return f"{place.commands}, partition {place.partition} of {place.partitions}, cluster {place.cluster_id}"
