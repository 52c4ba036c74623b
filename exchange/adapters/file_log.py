"""A log in files: appended in groups, made durable by one fsync a group, read again in order.

Opening for writing takes the directory's lock, checks every record of the last segment, cuts off a torn tail and
refuses corruption. After a write or an fsync failed nothing is known about what reached the disk: the log is poisoned
and every later call raises. (Trying fsync again would report success for pages the kernel has already given up.)
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from exchange.journal import (
    CorruptError,
    Kind,
    Record,
    Scan,
    Torn,
    VersionError,
    frame,
    read_segment_head,
    segment_head,
)
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


class Disk(Protocol):
    """The three calls through which a log reaches the disk; tests give one that fails."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write some of `data` and return how many bytes it took, as `os.write`."""
        ...

    def fsync(self, fd: int) -> None:
        """Return when everything written to `fd` is durable, as `os.fsync`."""
        ...

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file, as `os.ftruncate`."""
        ...


class OsDisk:
    """The operating system's disk."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write some of `data`."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """Make a file durable."""
        os.fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(fd, size)


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
    ) -> None:
        """Open the log, or begin it with record `first_seq`.

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
        self._next_seq = first_seq
        self._synced_seq = first_seq - 1
        self.repaired: Repair | None = None
        """What opening cut off; None when the last record was whole."""
        self._lock_fd = -1
        try:
            with self._poisoning("open"):
                directory.mkdir(parents=True, exist_ok=True)
                self._lock_fd = _lock(directory)
                self._open_last()
        except BaseException:
            self.close()
            raise

    # --- writing ---------------------------------------------------------------------------------------------------

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
            data = b"".join(frame(seq, payload) for seq, payload in enumerate(payloads, self._next_seq))
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
        view = memoryview(data)
        while view:
            written = self._disk.write(self._fd, view)
            if written <= 0:
                raise OSError(0, "the disk took no bytes")
            view = view[written:]
        self._size += len(data)

    def _roll(self) -> None:
        with self._file_lock:
            # What stands in the old file must be durable before anything after it can be.
            self._disk.fsync(self._fd)
            self._synced_seq = self.last_seq
            self._begin_segment()

    def _begin_segment(self) -> None:
        path = self.directory / f"{self._next_seq:0{_DIGITS}d}{_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        self._size = 0
        self._write(segment_head(self._kind, self._next_seq))
        self._disk.fsync(fd)
        self._sync_directory()

    def _sync_directory(self) -> None:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._disk.fsync(fd)
        finally:
            os.close(fd)

    def _open_last(self) -> None:
        segments = list_segments(self.directory)
        if not segments:
            self._begin_segment()
            return
        last = segments[-1]
        self._next_seq = last.first_seq
        self._synced_seq = last.first_seq - 1
        data = last.path.read_bytes()
        torn = self._survey(last, data)
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
        # The records may have been written and never synced; whoever replays them will call them durable.
        self._disk.fsync(self._fd)
        self._sync_directory()
        self._synced_seq = self.last_seq

    def _survey(self, segment: Segment, data: bytes) -> Torn | None:
        with _naming(segment.path):
            head = read_segment_head(data, self._kind, segment.first_seq)
            if head is not None:
                return head
            scan = Scan(data, first_seq=segment.first_seq, offset=len(segment_head(self._kind, 0)))
            for record in scan:
                self._next_seq = record.seq + 1
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

    def __iter__(self) -> Iterator[Record]:
        """Yield the records; see `read_records`."""
        segments = list_segments(self._directory)
        if segments and self._from_seq < segments[0].first_seq:
            first = segments[0].first_seq
            raise PermanentError(f"{self._directory}: begins with record {first}; record {self._from_seq} is not there")
        start = max((index for index, one in enumerate(segments) if one.first_seq <= self._from_seq), default=0)
        following = segments[start].first_seq if segments else 0
        for index, segment in enumerate(segments[start:], start):
            if segment.first_seq != following:
                raise LogCorruptError(segment.path, 0, f"record {following} should begin here; a segment is missing")
            for record in self._segment(segment):
                following = record.seq + 1
                if record.seq >= self._from_seq:
                    yield record
            if self.torn is not None and index + 1 < len(segments):
                raise LogCorruptError(segment.path, self.torn.offset, "the segment ends early, yet another follows")

    def _segment(self, segment: Segment) -> Iterator[Record]:
        data = segment.path.read_bytes()
        with _naming(segment.path):
            self.torn = read_segment_head(data, self._kind, segment.first_seq)
            if self.torn is not None:
                return
            scan = Scan(data, first_seq=segment.first_seq, offset=len(segment_head(self._kind, 0)))
            yield from scan
            self.torn = scan.torn


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


def _lock(directory: Path) -> int:
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
