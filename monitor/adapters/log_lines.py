"""Reading what a directory of log files has gained: rotated, torn, broken and vanished files included.

A file is known by its inode and its first bytes, so that a renamed one is not read twice and a new one in the place of
an old one is read from its start. A line without its line feed is left for the next look: it may still be written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import msgspec

from monitor.log_fields import Record, flatten

MAX_LINE: Final = 65_536
"""Bytes of a line; our own processes write at most 16,384."""
_BLOCK: Final = 1 << 20
_HEAD: Final = 64


@dataclass
class Losses:
    """Lines that are no records, by reason."""

    broken: int = 0
    """No JSON object, or without a time."""
    too_long: int = 0
    """Longer than `MAX_LINE`."""
    unreadable: int = 0
    """Times a file could not be read."""


@dataclass
class _Cursor:
    head: bytes
    offset: int = 0
    skipping: bool = False


class LogLines:
    """The lines of all files `*.jsonl` and `*.jsonl.N` of a directory, each once."""

    def __init__(self, source: Path, losses: Losses) -> None:
        """Read below `source`, or `source` itself when it is a file."""
        self._source = source
        self._losses = losses
        self._cursors: dict[tuple[int, int], _Cursor] = {}

    def new(self, *, since_s: float = 0.0) -> Iterator[bytes]:
        """Yield the whole lines not yielded before; files not written to since `since_s` (epoch) are passed over."""
        there = set()
        for path in self._paths():
            try:
                with path.open("rb", buffering=0) as file:
                    status = os.fstat(file.fileno())
                    key = (status.st_dev, status.st_ino)
                    there.add(key)
                    cursor = self._cursor(key, file.read(_HEAD), status.st_size)
                    if status.st_mtime < since_s:
                        cursor.offset = status.st_size
                    if status.st_size > cursor.offset:
                        file.seek(cursor.offset)
                        yield from self._lines(file, cursor)
            except OSError:  # vanished between two looks, or not ours to read
                self._losses.unreadable += 1
        for gone in self._cursors.keys() - there:
            del self._cursors[gone]

    def whole(self, path: Path) -> Iterator[bytes]:
        """Yield every line of one file, the last one even without its line feed."""
        with path.open("rb", buffering=0) as file:
            cursor = _Cursor(b"")
            yield from self._lines(file, cursor)
            file.seek(cursor.offset)
            if rest := file.read(MAX_LINE):
                yield rest

    def _paths(self) -> list[Path]:
        if self._source.is_file():
            return [self._source]
        try:
            return sorted(
                path for path in self._source.iterdir() if ".jsonl" in path.name and not path.name.startswith(".")
            )
        except OSError:
            self._losses.unreadable += 1
            return []

    def _cursor(self, key: tuple[int, int], head: bytes, size: int) -> _Cursor:
        known = self._cursors.get(key)
        if known is None or size < known.offset or not head.startswith(known.head):
            known = self._cursors[key] = _Cursor(head)
        known.head = head
        return known

    def _lines(self, file: FileIO, cursor: _Cursor) -> Iterator[bytes]:
        rest = b""
        while block := file.read(_BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                cursor.offset += len(line) + 1
                if cursor.skipping:  # the end of a line whose beginning was passed over
                    cursor.skipping = False
                elif len(line) > MAX_LINE:
                    self._losses.too_long += 1
                elif line:
                    yield line
            if len(rest) > MAX_LINE:
                cursor.offset += len(rest)
                self._losses.too_long += not cursor.skipping
                cursor.skipping, rest = True, b""


def record_of(line: bytes) -> Record | None:
    """Return the flat record that a line holds; broken UTF-8 is shown as such. None when it holds none."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = msgspec.json.decode(line.decode("utf-8", "replace"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
    return flatten(value) if isinstance(value, dict) else None
