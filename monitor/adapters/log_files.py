"""A process's log file: JSON lines, written by a thread of their own so that no event waits for a disk.

`event` costs a tuple and an append. A full queue drops the record and counts it; a full or broken disk loses records
and counts them, and the process goes on. Both counts are written to the file as soon as it takes records again.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path
from typing import Final

from kernel.time import Clock, Instant
from monitor.logs import EcsFormat

CAPACITY: Final = 20_000
"""Records that may wait: half a second of what the writer formats."""
MAX_BYTES: Final = 64 * 1024 * 1024
_BATCH: Final = 512
_IDLE_S: Final = 0.2


class FileLog:
    """`exchange.ports.Log` over a file that is rotated by size."""

    def __init__(
        self,
        path: Path,
        form: EcsFormat,
        clock: Clock,
        *,
        capacity: int = CAPACITY,
        max_bytes: int = MAX_BYTES,
        keep: int = 3,
    ) -> None:
        """Write to `path`; when it exceeds `max_bytes` it becomes `path.1`, and `keep` of those stay."""
        self._path = path
        self._form = form
        self._clock = clock
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._keep = keep
        self._waiting: deque[tuple[Instant, str, str, dict[str, object]]] = deque()
        self._wake = threading.Event()
        self._stop = False
        self._file: int | None = None
        self._size = 0
        self.dropped = 0
        """Records lost because the queue was full."""
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
        self._waiting.append((self._clock.now(), name, severity, fields))
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, for at most `timeout_s`, and close the file."""
        self._stop = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            while self._waiting:
                self._write_batch()
            if self._stop:
                break
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        lost = self.dropped + self.failed
        lines = [self._form.line(*record) for record in batch]
        if lost > self._told:
            told = {"dropped": self.dropped, "failed": self.failed}
            lines.append(self._form.line(self._clock.now(), "log-records-lost", "warning", told))
        try:
            self._append(b"".join(lines))
            self._told = lost
        except OSError:
            self.failed += len(batch)
            self._forget_file()

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._size = os.fstat(self._file).st_size
            if self._size and self._size == os.lseek(self._file, 0, os.SEEK_END) and not self._ends_whole():
                # A process killed in mid-write left a torn line; the next record must not be glued to it.
                data = b"\n" + data
        view = memoryview(data)
        while view:
            written = os.write(self._file, view)
            self._size += written
            view = view[written:]
        if self._size >= self._max_bytes:
            self._rotate()

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _rotate(self) -> None:
        self._forget_file()
        for number in range(self._keep, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)

    def _forget_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
