"""A process's log file: JSON lines, written by a thread of their own so that no event waits for a disk.

`event` costs a tuple and an append. A full queue drops the record and counts it; a full or broken disk loses records
and counts them, and the process goes on. Both counts are written to the file as soon as it takes records again.
A file that was renamed or deleted by somebody else (logrotate) is left, and a new one is begun.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from pathlib import Path
from typing import Final

from kernel.time import DAY, Clock, Duration, Instant
from monitor.logs import LEVELS, EcsFormat

CAPACITY: Final = 20_000
"""Records that may wait: half a second of what the writer formats."""
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_AGE: Final = DAY
"""A file of a quiet process is rotated all the same, so that retention by age has something to delete."""
_BATCH: Final = 512
_IDLE_S: Final = 0.2


class FileLog:
    """`exchange.ports.Log` over a file that is rotated by size and age."""

    def __init__(
        self,
        path: Path,
        form: EcsFormat,
        clock: Clock,
        *,
        capacity: int = CAPACITY,
        max_bytes: int = MAX_BYTES,
        max_age: Duration = MAX_AGE,
        keep: int = 3,
    ) -> None:
        """Write to `path`; beyond `max_bytes` or `max_age` it becomes `path.1`, and `keep` of those stay."""
        self._path = path
        self._form = form
        self._clock = clock
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._keep = keep
        self._waiting: deque[tuple[Instant, str, str, dict[str, object]]] = deque()
        self._put, self._now = self._waiting.append, clock.now
        self._wake = threading.Event()
        self._asleep = True
        self._stop = False
        self._file: int | None = None
        self._place = (0, 0)
        self._size = 0
        self._since = Instant(0)
        self.written = dict.fromkeys(sorted(LEVELS), 0)
        """Records in the file, by severity."""
        self.dropped = 0
        """Records lost because the queue was full, or because the process ended before they were written."""
        self.failed = 0
        """Records lost because the file could not be written."""
        self._told = 0
        self._thread = threading.Thread(target=self._run, name=f"log-{path.stem}", daemon=True)
        self._thread.start()

    def event(self, name: str, /, *, severity: str = "info", **fields: object) -> None:
        """See `exchange.ports.Log`. Never blocks and never raises."""
        if len(self._waiting) >= self._capacity:
            self.dropped += 1
            return
        self._put((self._now(), name, severity, fields))
        if self._asleep:
            self._asleep = False
            self._wake.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, for at most `timeout_s`, and close the file; what a hanging disk left is counted."""
        self._stop = True
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def _run(self) -> None:
        while True:
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            while self._waiting:
                self._write_batch()
            self._asleep = True  # a record put in before this is seen waits for `_IDLE_S` at most
            if self._stop:
                break
        self._forget_file()

    def _write_batch(self) -> None:
        batch = []
        with contextlib.suppress(IndexError):  # `close` empties the queue when it has waited long enough
            batch += [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        lost = self.dropped + self.failed
        lines = [self._form.line(*record) for record in batch]
        severities = [record[2] for record in batch]
        if lost > self._told:
            told = {"dropped": self.dropped, "failed": self.failed}
            lines.append(self._form.line(self._clock.now(), "log-records-lost", "warning", told))
            severities.append("warning")
        whole = self._append(lines)
        for severity in severities[:whole]:
            self.written[severity if severity in LEVELS else "info"] += 1
        if whole < len(lines):
            self.failed += max(0, len(batch) - whole)
            self._forget_file()
        else:
            self._told = max(self._told, lost)
            self._rotate_if_due()

    def _append(self, lines: list[bytes]) -> int:
        """Append lines; return how many of them stand whole in the file."""
        done = 0
        begin = b""
        try:
            begin = self._open()
            data = begin + b"".join(lines)
            assert self._file is not None
            view = memoryview(data)
            while done < len(data):
                done += os.write(self._file, view[done:])
        except OSError:
            return self._keep_whole(lines, done - len(begin))
        self._size += len(data)
        return len(lines)

    def _keep_whole(self, lines: list[bytes], done: int) -> int:
        """Return how many lines are among the first `done` bytes, and cut off the torn one: others read this file."""
        whole, end = 0, 0
        while whole < len(lines) and end + len(lines[whole]) <= done:
            end += len(lines[whole])
            whole += 1
        if self._file is not None and done > end:
            with contextlib.suppress(OSError):  # else the next one to open the file ends the torn line
                os.ftruncate(self._file, os.fstat(self._file).st_size - (done - end))
        return whole

    def _open(self) -> bytes:
        """Have the file open that stands at the path now; return what must be written first to end a torn line."""
        if self._file is not None:
            try:
                there = self._path.stat()
            except FileNotFoundError:
                self._forget_file()
            else:
                if (there.st_dev, there.st_ino) == self._place:
                    return b""
                self._forget_file()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Never wait for somebody to read: what stands at the path may be a pipe.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._file = os.open(self._path, flags, 0o640)
        status = os.fstat(self._file)
        self._place, self._size = (status.st_dev, status.st_ino), status.st_size
        self._since = self._clock.now()
        # A process killed in mid-write left a torn line; the next record must not be glued to it.
        return b"" if not self._size or self._ends_whole() else b"\n"

    def _ends_whole(self) -> bool:
        try:
            with self._path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) == b"\n"
        except OSError:  # not ours to read: an empty line harms nobody, a torn one does
            return False

    def _rotate_if_due(self) -> None:
        old = self._size > 0 and self._clock.now() - self._since >= self._max_age
        if self._size < self._max_bytes and not old:
            return
        self._forget_file()
        with contextlib.suppress(OSError):  # a directory that forbids it: the file grows on, no record is lost
            for number in range(self._keep, 0, -1):
                older = self._path.with_name(f"{self._path.name}.{number}")
                newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
                if newer.exists():
                    newer.replace(older)

    def _forget_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None
