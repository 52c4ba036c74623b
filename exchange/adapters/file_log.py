"""A log in files: appended in groups, made durable by one fsync a group, read again in order.

Opening for writing takes the directory's lock, holds the files against the manifest, checks every record of the last
segment, cuts off a torn tail and refuses corruption. After a write or an fsync failed nothing is known about what
reached the disk: the log is poisoned and every later call raises. (Trying fsync again would report success for pages
the kernel has already given up.)
"""

from __future__ import annotations

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
from exchange.adapters.log_holds import LogHeldError, hold, unread
from exchange.adapters.log_mark import MARK_BYTES, Marked, read_mark, write_mark
from exchange.adapters.log_reading import (
    LogCorruptError,
    Reader,
    Segment,
    held_against_manifest,
    list_segments,
    naming,
    read_manifest,
    read_records,
    segment_path,
    since,
)
from exchange.journal import SEGMENT_HEAD_BYTES, Kind, Record, Scan, Torn, frames, read_segment_head, segment_head
from exchange.manifest import NOTHING, Keep, Manifest, Sealed
from kernel.errors import PermanentError

__all__ = [
    "FencedError", "FileLog", "LogCorruptError", "LogFailedError", "LogHeldError", "Reader", "Removed", "Repair",
    "Segment", "hold", "list_segments", "read_manifest", "read_records", "segment_path",
]  # fmt: skip

SEGMENT_BYTES: Final = 16 * 1024 * 1024
"""A segment is read as a whole to find a record in it: small enough for milliseconds, large enough for few files."""


class LogFailedError(PermanentError):
    """A write or an fsync failed, now or before; the log takes nothing more until it is opened again."""


class FencedError(LogFailedError):
    """Another engine has opened this journal: this one may not write any more."""


class Repair(NamedTuple):
    """What opening cut off."""

    path: Path
    offset: int
    size: int


class Kept:
    """What opening read of the segment that is written to, whole up to its end."""

    def __init__(self) -> None:
        self.marked = b""
        """Up to the mark: not taken apart before it is asked for, so that what a record holds is used at once."""
        self.batches: deque[list[bytes]] = deque()
        """What the records after it hold."""

    def taken(self, first_seq: int) -> Iterator[list[bytes]]:
        """Yield what the records hold, the first of them `first_seq`; what was yielded is kept no longer."""
        marked, self.marked = self.marked, b""
        if marked:
            yield from Scan(marked, first_seq=first_seq, offset=SEGMENT_HEAD_BYTES).batches(checked=True)
        while self.batches:
            yield self.batches.popleft()


class Removed(NamedTuple):
    """What a compaction removed."""

    records: int
    segments: int
    size: int
    """Bytes."""


class FileLog:
    """One writer's log of consecutive records.

    `append`, `sync` and `compact` may be called from three threads; several appends at once may not. Neither of the
    first two waits for a compaction.
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
        # Held while the manifest changes: by whoever begins a segment, or by a compaction.
        self._manifest_lock: Final = threading.Lock()
        self._fd = -1
        self._size = 0
        self._crc32 = 0
        self._mark_bytes = MARK_BYTES
        self._marked = 0
        """How much of the segment the mark is about, in bytes."""
        self._open_seq = first_seq
        self._removed_to = first_seq - 1
        self._sealed: list[Sealed] = []
        self._next_seq = first_seq
        self._synced_seq = first_seq - 1
        self.repaired: Repair | None = None
        """What opening cut off; None when the last record was whole."""
        self._keep: Final = keep
        self._kept: Kept | None = None
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
            # A compaction is not waited for: the segment grows by what comes meanwhile, and the next append ends it.
            if self._size >= self._segment_bytes and self._manifest_lock.acquire(blocking=False):
                try:
                    self._roll()
                finally:
                    self._manifest_lock.release()
            data = frames(self._next_seq, payloads)
            self._kept = None
            self._write(data)
            self._next_seq += len(payloads)
            if self._size - self._marked >= self._mark_bytes:
                self._marked = self._size
                write_mark(self.directory, Sealed(self._open_seq, self.last_seq, self._size, self._crc32))
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

    def removable(self, covered: int, keep: Keep = NOTHING, now: int = 0) -> tuple[Sealed, ...]:
        """Return the segments, oldest first, that hold nothing after record `covered` and that `keep` lets go at `now`.

        The segment that is written to is never among them.
        """
        sealed = tuple(self._sealed)
        left = self._size + sum(one.size for one in sealed)
        gone: list[Sealed] = []
        for one in sealed:
            left -= one.size
            if one.last_seq > covered or left < keep.size or (keep.age and now < self._last_write(one) + keep.age):
                break
            gone.append(one)
        return tuple(gone)

    def compact(self, covered: int, keep: Keep = NOTHING, now: int = 0) -> Removed:
        """Remove the segments that are `removable`. The caller knows that a snapshot covers them.

        First the manifest ceases to name them, durably, then the files go. Stopped at any point, what is left is whole,
        and opening it removes the rest.

        Raises:
            LogReadError: somebody reads the log; nothing was removed.
            LogFailedError: the disk refused the manifest, now or before: the log takes nothing more.
            OSError: a file cannot be removed. The log goes on without it; opening it tries again.
        """
        with self._manifest_lock:
            self._check()
            gone = self.removable(covered, keep, now)
            if not gone:
                return Removed(0, 0, 0)
            before, rest, to = self._removed_to, self._sealed[len(gone) :], gone[-1].last_seq
            with unread(self.directory), self._poisoning("compact"):
                self._write_manifest(
                    Manifest(kind=self._kind, removed_to=to, sealed=tuple(rest), open_seq=self._open_seq)
                )
            self._sealed, self._removed_to = rest, to
        for one in gone:
            self._disk.remove(segment_path(self.directory, one.first_seq))
        return Removed(to - before, len(gone), sum(one.size for one in gone))

    def _last_write(self, sealed: Sealed) -> int:
        try:
            return segment_path(self.directory, sealed.first_seq).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Give the files and the lock back. Does not sync. Waits for a compaction that is writing the manifest."""
        with self._manifest_lock, self._file_lock:
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

    def payloads(self, from_seq: int = 1) -> Iterator[list[bytes]]:
        """Yield what the records from `from_seq` on hold, many at a time; what opening kept is given out once."""
        kept, self._kept = self._kept, None
        before = None if kept is None else self._open_seq
        if before is None or from_seq < before:
            yield from Reader(self.directory, from_seq, kind=self._kind).batches(before)
        if kept is not None and before is not None:
            yield from since(from_seq, before, kept.taken(before))

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
        self._size = self._crc32 = self._marked = 0
        self._open_seq = self._next_seq
        self._write(segment_head(self._kind, self._next_seq))
        self._disk.fsync(fd)
        self._sync_directory()
        self._write_manifest(self._manifest())

    def _manifest(self) -> Manifest:
        return Manifest(
            kind=self._kind, removed_to=self._removed_to, sealed=tuple(self._sealed), open_seq=self._open_seq
        )

    def _write_manifest(self, manifest: Manifest) -> None:
        draft = self.directory / f"{manifests.NAME}.draft"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            self._write_to(fd, manifests.dump(manifest))
            self._disk.fsync(fd)
        finally:
            os.close(fd)
        self._disk.replace(draft, self.directory / manifests.NAME)
        self._sync_directory()

    def _sync_directory(self) -> None:
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._disk.fsync(fd)
        finally:
            os.close(fd)

    def _open_last(self) -> None:
        manifest = read_manifest(self.directory)
        segments = held_against_manifest(self.directory, self._kind, manifest, list_segments(self.directory))
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
            self._write_manifest(self._manifest())
        self._drop_removed()

    def _open_segment(self, last: Segment) -> None:
        self._follows(last)
        self._open_seq = self._next_seq = last.first_seq
        self._synced_seq = last.first_seq - 1
        with last.path.open("rb", buffering=0) as file:
            marked = read_mark(self.directory, last.first_seq, file, keep=self._keep)
            data = file.readall()
        self._kept = Kept() if self._keep else None
        torn = self._survey(last, data, marked, self._kept)
        if torn is not None and torn.offset == 0:
            self.repaired = Repair(last.path, 0, torn.size)
            self._begin_segment()
            return
        self._fd = os.open(last.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._marked, known = (0, 0) if marked is None else (marked.stands.size, marked.stands.crc32)
        self._size = self._marked + len(data)
        if torn is not None:
            self.repaired = Repair(last.path, torn.offset, torn.size)
            self._disk.truncate(self._fd, torn.offset)
            self._size = torn.offset
        self._crc32 = crc32(memoryview(data)[: self._size - self._marked], known)
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
                self._disk.remove(segment.path)

    def _survey(
        self, segment: Segment, data: bytes, marked: Marked | None = None, kept: Kept | None = None
    ) -> Torn | None:
        """Look at every record of `data`, all of the segment or what follows the mark; keep what they hold."""
        begins, offset = 0, SEGMENT_HEAD_BYTES
        with naming(segment.path):
            head = read_segment_head(data if marked is None else marked.data, self._kind, segment.first_seq)
        if head is not None:
            return head
        if marked is not None:
            begins, offset, self._next_seq = marked.stands.size, 0, marked.stands.last_seq + 1
            if kept is not None:
                kept.marked = marked.data
        with naming(segment.path, begins):
            scan = Scan(data, first_seq=self._next_seq, offset=offset)
            for payloads in scan.batches():
                self._next_seq = scan.next_seq
                if kept is not None:
                    kept.batches.append(payloads)
        return None if scan.torn is None else Torn(begins + scan.torn.offset, scan.torn.size)
