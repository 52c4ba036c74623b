"""Reading a log in files: its segments in order, held against the manifest. Changes nothing; the log may be in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from exchange import manifest as manifests
from exchange.adapters.log_holds import reading
from exchange.journal import (
    SEGMENT_HEAD_BYTES,
    CorruptError,
    Kind,
    Record,
    Scan,
    Torn,
    VersionError,
    read_segment_head,
)
from exchange.manifest import Manifest, Sealed
from kernel.errors import PermanentError

_SUFFIX: Final = ".log"
_DIGITS: Final = 20


class LogCorruptError(PermanentError):
    """A log whose records are damaged; names file and offset. Only a person may decide what to do."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(f"{path}: corrupt at byte {offset}: {what}; restore the file from a copy, nothing was changed")
        self.path = path
        self.offset = offset
        self.what = what


class Segment(NamedTuple):
    """One file of a log."""

    first_seq: int
    path: Path


def list_segments(directory: Path) -> list[Segment]:
    """Return a log's files in order; empty when there is no log."""
    if not directory.is_dir():
        return []
    names = (path for path in directory.iterdir() if path.suffix == _SUFFIX and path.stem.isdecimal())
    return sorted(Segment(int(path.stem), path) for path in names)


def segment_path(directory: Path, first_seq: int) -> Path:
    """Return the file of the segment that begins with record `first_seq`."""
    return directory / f"{first_seq:0{_DIGITS}d}{_SUFFIX}"


def read_manifest(directory: Path) -> Manifest | None:
    """Return a log's manifest; None when there is none.

    Raises:
        LogCorruptError: it is damaged.
        PermanentError: it is of another format version.
    """
    path = directory / manifests.NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    with naming(path):
        return manifests.load(data)


def read_records(directory: Path, from_seq: int = 1, *, kind: Kind = Kind.COMMANDS) -> Iterator[Record]:
    """Yield a log's records from `from_seq` on, and stop at a torn tail. Changes nothing; the log may be in use.

    Raises:
        LogCorruptError: a record before the tail is damaged or missing.
        PermanentError: the log begins after `from_seq`, or is of another format version.
    """
    yield from Reader(directory, from_seq, kind=kind)


class Reader:
    """A log's records from one on, for one iteration; afterwards `torn` tells of a tail that was being written.

    While it is iterated over nothing of the log is removed.
    """

    def __init__(self, directory: Path, from_seq: int = 1, *, kind: Kind = Kind.COMMANDS) -> None:
        self._directory = directory
        self._from_seq = from_seq
        self._kind = kind
        self.torn: Torn | None = None
        self.path: Path | None = None
        """The file that is being read."""

    def __iter__(self) -> Iterator[Record]:
        """Yield the records; see `read_records`."""
        with reading(self._directory):
            for path, scan, _ in self._scans():
                with naming(path):
                    for record in scan:
                        if record.seq >= self._from_seq:
                            yield record

    def batches(self, before: int | None = None) -> Iterator[list[bytes]]:
        """Yield what the records hold, many at a time, without those of segments that begin at `before` or later.

        The checksum that the manifest has of a whole finished segment stands for those of its records.
        """
        with reading(self._directory):
            for path, scan, checked in self._scans(before):
                with naming(path):
                    yield from since(self._from_seq, scan.next_seq, scan.batches(checked=checked))

    def _scans(self, before: int | None = None) -> Iterator[tuple[Path, Scan, bool]]:
        """Yield a scan of each segment, to be read to its end; true: the whole of it is what the manifest says."""
        manifest, segments = self._standing()
        sealed = {one.first_seq: one for one in manifest.sealed} if manifest is not None else {}
        if segments and self._from_seq < segments[0].first_seq:
            first = segments[0].first_seq
            raise PermanentError(f"{self._directory}: begins with record {first}; record {self._from_seq} is not there")
        start = max((index for index, one in enumerate(segments) if one.first_seq <= self._from_seq), default=0)
        following = segments[start].first_seq if segments else 0
        for index, segment in enumerate(segments[start:], start):
            if before is not None and segment.first_seq >= before:
                return
            if segment.first_seq != following:
                raise LogCorruptError(segment.path, 0, f"record {following} should begin here; a segment is missing")
            self.path = segment.path
            named = sealed.get(segment.first_seq)
            scan = self._begin(segment, named)
            if scan is not None:
                yield segment.path, scan, named is not None
                following = scan.next_seq
                self.torn = scan.torn
            if self.torn is not None and index + 1 < len(segments):
                raise LogCorruptError(segment.path, self.torn.offset, "the segment ends early, yet another follows")

    def _standing(self) -> tuple[Manifest | None, list[Segment]]:
        """Return manifest and segments as they stood at one moment, however busy the writer is."""
        while True:
            before = read_manifest(self._directory)
            segments = list_segments(self._directory)
            if read_manifest(self._directory) == before:
                return before, held_against_manifest(self._directory, self._kind, before, segments)

    def _begin(self, segment: Segment, sealed: Sealed | None) -> Scan | None:
        """Return a scan of a segment's records; None when not even its head was written."""
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:
            raise PermanentError(f"{segment.path}: removed by a compaction while it was being read") from None
        with naming(segment.path):
            self.torn = read_segment_head(data, self._kind, segment.first_seq)
            if self.torn is not None:
                return None
            scan = Scan(data, first_seq=segment.first_seq, offset=SEGMENT_HEAD_BYTES)
            if sealed is not None and (len(data), crc32(data)) != (sealed.size, sealed.crc32):
                for _ in scan:
                    pass  # damage within a record names itself
                raise CorruptError(min(scan.end, sealed.size), "not what was written here, says the manifest")
            return scan


def since(from_seq: int, seq: int, batches: Iterable[list[bytes]]) -> Iterator[list[bytes]]:
    """Yield what records from `from_seq` on hold, of batches that begin with record `seq`."""
    for payloads in batches:
        skipped = max(0, from_seq - seq)
        seq += len(payloads)
        if skipped < len(payloads):
            yield payloads[skipped:] if skipped else payloads


def held_against_manifest(
    directory: Path, kind: Kind, manifest: Manifest | None, segments: list[Segment]
) -> list[Segment]:
    """Return the segments that belong to the log.

    Whatever follows the segments that it names was begun after it was written; whatever lies before was removed.

    Raises:
        LogCorruptError: one that it names is missing, or one stands between that it does not name.
    """
    if manifest is None:
        return segments
    if manifest.kind is not kind:
        raise LogCorruptError(directory / manifests.NAME, 0, f"a log of kind {manifest.kind}; {kind} was asked for")
    present = [one for one in segments if one.first_seq > manifest.removed_to]
    for named, segment in zip(manifest.first_seqs, present, strict=False):
        if segment.first_seq > named:
            raise LogCorruptError(segment_path(directory, named), 0, "a segment is missing that the manifest names")
        if segment.first_seq < named:
            raise LogCorruptError(segment.path, 0, "a segment that the manifest does not name")
    if len(present) < len(manifest.first_seqs):
        missing = segment_path(directory, manifest.first_seqs[len(present)])
        raise LogCorruptError(missing, 0, "a segment is missing that the manifest names")
    return present


@contextmanager
def naming(path: Path, begins: int = 0) -> Iterator[None]:
    """Tell in which file what a scan found lies; `begins`: the byte of the file at which what was scanned begins."""
    try:
        yield
    except CorruptError as error:
        raise LogCorruptError(path, begins + error.offset, error.what) from error
    except VersionError as error:
        raise PermanentError(
            f"{path.parent}: this log was written in {error}; use the program that wrote it, or another directory"
        ) from error
