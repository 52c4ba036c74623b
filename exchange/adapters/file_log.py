"""A log in files: appended in groups, made durable by one fsync a group, read again in order.

Opening for writing takes the directory's lock, holds the files against the manifest, checks every record of the last
segment, cuts off a torn tail and refuses corruption. After a write or an fsync failed nothing is known about what
reached the disk: the log is poisoned and every later call raises. (Trying fsync again would report success for pages
the kernel has already given up.)
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self
from zlib import crc32

from exchange import manifest as manifests
from exchange.adapters.disk import Disk, OsDisk
from exchange.journal import (
    SEGMENT_HEAD_BYTES,
    CorruptError,
    Kind,
    Record,
    Scan,
    Torn,
    VersionError,
    frames,
    read_segment_head,
    segment_head,
)
from exchange.manifest import Manifest, Sealed
from kernel.errors import PermanentError, TemporaryError

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment is read as a whole to find a record in it: small enough for milliseconds, large enough for few files."""

_SUFFIX: Final = ".log"
_DIGITS: Final = 20


class LogCorruptError(PermanentError):
    """A log whose records are damaged; names file and offset. Only a person may decide what to do."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(f"{path}: corrupt at byte {offset}: {what}; restore the file from a copy, nothing was changed")
        self.path = path
        self.offset = offset
        self.what = what


class LogHeldError(TemporaryError):
    """Another process writes to this log."""


class LogFailedError(PermanentError):
    """A write or an fsync failed, now or before; the log takes nothing more until it is opened again."""


class FencedError(LogFailedError):
    """Another engine has opened this journal: this one may not write any more."""


class Repair(NamedTuple):
    """What opening cut off."""

    path: Path
    offset: int
    size: int


class FileLog:
    """One writer's log of consecutive records.

    `append` and `sync` may be called from two threads; several appends at once may not.
    """

    def __init__(
        self,
        directory: Path,
        kind: Kind = Kind.COMMANDS,
        *,
        first_seq: int = 1,
        segment_bytes: int = SEGMENT_BYTES,
        disk: Disk | None = None,
        keep: bool = False,
    ) -> None:
        """Open the log, or begin it with record `first_seq`.

        `keep`: what the check of the last segment reads stays in memory until `payloads` gives it out or something is
        appended; so that a replay does not read and check it again.

        Raises:
            LogHeldError: another process has it open for writing.
            LogCorruptError: the last segment is damaged.
            PermanentError: the directory is of another format version.
            LogFailedError: repairing or beginning it failed on the disk.
        """
        self.directory: Final = directory
        self._kind: Final = kind
        self._segment_bytes: Final = segment_bytes
        self._disk: Final[Disk] = disk if disk is not None else OsDisk()
        self._failure: str | None = None
        # Held while a file is synced or changed for the next: so that no sync meets a closed file.
        self._file_lock: Final = threading.Lock()
        self._fd = -1
        self._size = 0
        self._crc32 = 0
        self._open_seq = first_seq
        self._removed_to = first_seq - 1
        self._sealed: list[Sealed] = []
        self._next_seq = first_seq
        self._synced_seq = first_seq - 1
        self.repaired: Repair | None = None
        """What opening cut off; None when the last record was whole."""
        self._keep: Final = keep
        self._kept: deque[list[bytes]] | None = None
        self._lock_fd = -1
        try:
            with self._poisoning("open"):
                directory.mkdir(parents=True, exist_ok=True)
                self._lock_fd = hold(directory)
                self._open_last()
        except BaseException:
            self.close()
            raise

    # --- writing ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return str(self.directory)

    @property
    def first_seq(self) -> int:
        """The oldest record that is still here, or the first there will be."""
        return self._removed_to + 1

    @property
    def last_seq(self) -> int:
        """The last record appended, durable or not; one less than the first when there is none."""
        return self._next_seq - 1

    @property
    def synced_seq(self) -> int:
        """The last record known to be durable."""
        return self._synced_seq

    @property
    def failed(self) -> bool:
        """Whether the log is poisoned."""
        return self._failure is not None

    def append(self, payloads: Sequence[bytes]) -> int:
        """Write records without waiting for the disk; return the sequence number of the last.

        Raises:
            LogFailedError: the disk refused, now or before. Some of the records may be there when it is opened again.
        """
        self._check()
        with self._poisoning("append"):
            if self._size >= self._segment_bytes:
                self._roll()
            data = frames(self._next_seq, payloads)
            self._kept = None
            self._write(data)
            self._next_seq += len(payloads)
        return self.last_seq

    def sync(self) -> int:
        """Wait until everything appended before this call is durable; return the last such sequence number.

        Raises:
            LogFailedError: the disk refused, now or before.
        """
        self._check()
        upto = self.last_seq
        with self._file_lock, self._poisoning("fsync"):
            self._disk.fsync(self._fd)
            self._synced_seq = max(self._synced_seq, upto)
        return upto

    def compact(self, covered: int) -> int:
        """Remove the segments that hold nothing after record `covered`; return how many records went.

        The segment that is written to always stays. The caller knows that a snapshot covers them.

        Raises:
            LogFailedError: the disk refused, now or before. What is left is whole.
        """
        self._check()
        with self._file_lock, self._poisoning("compact"):
            before = self._removed_to
            gone = [one for one in self._sealed if one.last_seq <= covered]
            if not gone:
                return 0
            self._sealed = self._sealed[len(gone) :]
            self._removed_to = gone[-1].last_seq
            self._write_manifest()
            for one in gone:
                segment_path(self.directory, one.first_seq).unlink(missing_ok=True)
            self._sync_directory()
            return self._removed_to - before

    def close(self) -> None:
        """Give the files and the lock back. Does not sync."""
        with self._file_lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1
            self._failure = self._failure or "it was closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- reading ---------------------------------------------------------------------------------------------------

    def replay(self, from_seq: int = 1) -> Iterator[Record]:
        """Yield the records from `from_seq` on, also those not yet durable; see `read_records`."""
        return read_records(self.directory, from_seq, kind=self._kind)

    def payloads(self, from_seq: int = 1) -> Iterator[Sequence[bytes]]:
        """Yield what the records from `from_seq` on hold, many at a time; what opening kept is given out once."""
        kept, self._kept = self._kept, None
        before = None if kept is None else self._open_seq
        if before is None or from_seq < before:
            yield from Reader(self.directory, from_seq, kind=self._kind).batches(before)
        if kept is None or before is None:
            return
        seq = before
        while kept:
            batch = kept.popleft()
            skipped = max(0, from_seq - seq)
            seq += len(batch)
            if skipped < len(batch):
                yield batch[skipped:] if skipped else batch

    # --- within ----------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failure is not None:
            raise LogFailedError(f"{self.directory}: the log takes nothing more: {self._failure}")

    @contextmanager
    def _poisoning(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = f"{what} failed: {error.strerror or error}"
            raise LogFailedError(f"{self.directory}: {self._failure}; the log takes nothing more") from error

    def _write(self, data: bytes) -> None:
        self._write_to(self._fd, data)
        self._size += len(data)
        self._crc32 = crc32(data, self._crc32)

    def _write_to(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._disk.write(fd, view)
            if written <= 0:
                raise OSError(0, "the disk took no bytes")
            view = view[written:]

    def _roll(self) -> None:
        with self._file_lock:
            # What stands in the old file must be durable before anything after it can be.
            self._disk.fsync(self._fd)
            self._synced_seq = self.last_seq
            self._sealed.append(Sealed(self._open_seq, self.last_seq, self._size, self._crc32))
            self._begin_segment()

    def _begin_segment(self) -> None:
        path = segment_path(self.directory, self._next_seq)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = self._crc32 = 0
        self._open_seq = self._next_seq
        self._write(segment_head(self._kind, self._next_seq))
        self._disk.fsync(fd)
        self._sync_directory()
        self._write_manifest()

    def _manifest(self) -> Manifest:
        return Manifest(
            kind=self._kind, removed_to=self._removed_to, sealed=tuple(self._sealed), open_seq=self._open_seq
        )

    def _write_manifest(self) -> None:
        draft = self.directory / f"{manifests.NAME}.draft"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            self._write_to(fd, manifests.dump(self._manifest()))
            self._disk.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(self.directory / manifests.NAME)
        self._sync_directory()

    def _sync_directory(self) -> None:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._disk.fsync(fd)
        finally:
            os.close(fd)

    def _open_last(self) -> None:
        manifest = read_manifest(self.directory)
        segments = _held_against_manifest(self.directory, self._kind, manifest, list_segments(self.directory))
        if not segments:
            self._begin_segment()
            return
        self._removed_to = segments[0].first_seq - 1
        self._sealed = list(manifest.sealed) if manifest is not None else []
        self._check_sizes(segments)
        for segment in segments[len(self._sealed) : -1]:
            self._seal_unnamed(segment)
        self._open_segment(segments[-1])
        if self._fd >= 0 and self._manifest() != manifest:
            self._write_manifest()
        self._drop_removed()

    def _open_segment(self, last: Segment) -> None:
        self._follows(last)
        self._open_seq = self._next_seq = last.first_seq
        self._synced_seq = last.first_seq - 1
        data = last.path.read_bytes()
        self._kept = deque() if self._keep else None
        torn = self._survey(last, data, self._kept)
        if torn is not None and torn.offset == 0:
            self.repaired = Repair(last.path, 0, torn.size)
            self._begin_segment()
            return
        self._fd = os.open(last.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = len(data)
        if torn is not None:
            self.repaired = Repair(last.path, torn.offset, torn.size)
            self._disk.truncate(self._fd, torn.offset)
            self._size = torn.offset
        self._crc32 = crc32(memoryview(data)[: self._size])
        # The records may have been written and never synced; whoever replays them will call them durable.
        self._disk.fsync(self._fd)
        self._sync_directory()
        self._synced_seq = self.last_seq

    def _check_sizes(self, segments: Sequence[Segment]) -> None:
        """Tell a sealed file that was cut or grew without reading it."""
        for segment, sealed in zip(segments, self._sealed, strict=False):
            size = segment.path.stat().st_size
            if size != sealed.size:
                raise LogCorruptError(
                    segment.path, min(size, sealed.size), f"{size} bytes, of {sealed.size} when it was finished"
                )

    def _seal_unnamed(self, segment: Segment) -> None:
        """Take in a segment that is finished and not yet named so: the writer was stopped between the two."""
        data = segment.path.read_bytes()
        self._follows(segment)
        self._next_seq = segment.first_seq
        torn = self._survey(segment, data)
        if torn is not None:
            raise LogCorruptError(segment.path, torn.offset, "the segment ends early, yet another follows")
        self._sealed.append(Sealed(segment.first_seq, self.last_seq, len(data), crc32(data)))

    def _follows(self, segment: Segment) -> None:
        following = (self._sealed[-1].last_seq if self._sealed else self._removed_to) + 1
        if segment.first_seq != following:
            raise LogCorruptError(segment.path, 0, f"record {following} should begin here; a segment is missing")

    def _drop_removed(self) -> None:
        """Finish a compaction that was stopped between naming and removing."""
        for segment in list_segments(self.directory):
            if segment.first_seq <= self._removed_to:
                segment.path.unlink(missing_ok=True)

    def _survey(self, segment: Segment, data: bytes, kept: deque[list[bytes]] | None = None) -> Torn | None:
        with _naming(segment.path):
            head = read_segment_head(data, self._kind, segment.first_seq)
            if head is not None:
                return head
            scan = Scan(data, first_seq=segment.first_seq, offset=SEGMENT_HEAD_BYTES)
            for payloads in scan.batches():
                self._next_seq = scan.next_seq
                if kept is not None:
                    kept.append(payloads)
            return scan.torn


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
    with _naming(path):
        return manifests.load(data)


def read_records(directory: Path, from_seq: int = 1, *, kind: Kind = Kind.COMMANDS) -> Iterator[Record]:
    """Yield a log's records from `from_seq` on, and stop at a torn tail. Changes nothing; the log may be in use.

    Raises:
        LogCorruptError: a record before the tail is damaged or missing.
        PermanentError: the log begins after `from_seq`, or is of another format version.
    """
    yield from Reader(directory, from_seq, kind=kind)


class Reader:
    """A log's records from one on, for one iteration; afterwards `torn` tells of a tail that was being written."""

    def __init__(self, directory: Path, from_seq: int = 1, *, kind: Kind = Kind.COMMANDS) -> None:
        self._directory = directory
        self._from_seq = from_seq
        self._kind = kind
        self.torn: Torn | None = None
        self.path: Path | None = None
        """The file that is being read."""

    def __iter__(self) -> Iterator[Record]:
        """Yield the records; see `read_records`."""
        for path, scan, _ in self._scans():
            with _naming(path):
                for record in scan:
                    if record.seq >= self._from_seq:
                        yield record

    def batches(self, before: int | None = None) -> Iterator[list[bytes]]:
        """Yield what the records hold, many at a time, without those of segments that begin at `before` or later.

        The checksum that the manifest has of a whole finished segment stands for those of its records.
        """
        for path, scan, checked in self._scans(before):
            seq = scan.next_seq
            with _naming(path):
                for payloads in scan.batches(checked=checked):
                    skipped = max(0, self._from_seq - seq)
                    seq += len(payloads)
                    if skipped < len(payloads):
                        yield payloads[skipped:] if skipped else payloads

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
                return before, _held_against_manifest(self._directory, self._kind, before, segments)

    def _begin(self, segment: Segment, sealed: Sealed | None) -> Scan | None:
        """Return a scan of a segment's records; None when not even its head was written."""
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:
            raise PermanentError(f"{segment.path}: removed by a compaction while it was being read") from None
        with _naming(segment.path):
            self.torn = read_segment_head(data, self._kind, segment.first_seq)
            if self.torn is not None:
                return None
            scan = Scan(data, first_seq=segment.first_seq, offset=SEGMENT_HEAD_BYTES)
            if sealed is not None and (len(data), crc32(data)) != (sealed.size, sealed.crc32):
                for _ in scan:
                    pass  # damage within a record names itself
                raise CorruptError(min(scan.end, sealed.size), "not what was written here, says the manifest")
            return scan


def _held_against_manifest(
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
def _naming(path: Path) -> Iterator[None]:
    """Tell in which file what a scan found lies."""
    try:
        yield
    except CorruptError as error:
        raise LogCorruptError(path, error.offset, error.what) from error
    except VersionError as error:
        raise PermanentError(
            f"{path.parent}: this log was written in {error}; use the program that wrote it, or another directory"
        ) from error


def hold(directory: Path) -> int:
    """Take a directory for this process until the descriptor that is returned is closed.

    Raises:
        LogHeldError: another process has it.
    """
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise LogHeldError(f"{directory}: process {holder} writes to this log; stop it first") from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
