"""How far the segment that is written to is known to be whole, so that opening it need not look at each record.

The mark lies beside the manifest: the last record, size and checksum of the segment as they stood when some MiB more
had been appended. Nothing stands on it. It is not synced; one that is missing, damaged, or not about the bytes that are
there, is as if there were none, and every record is looked at.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from exchange.journal import SEGMENT_HEAD_BYTES
from exchange.manifest import Sealed

MARK_BYTES: Final = 1024 * 1024
"""Appended between two marks: what a start then looks at record by record takes a few milliseconds."""
_PIECE_BYTES: Final = 256 * 1024
"""Read at a time where nothing is kept: the same memory again and again, which the processor's cache holds."""
_NAME: Final = "mark"
_CRC_BYTES: Final = 4


def write_mark(directory: Path, stands: Sealed) -> None:
    """Say how the segment that is written to stands; a disk that refuses is left alone."""
    body = msgspec.msgpack.encode(stands)
    draft = directory / f"{_NAME}.draft"
    with contextlib.suppress(OSError):
        draft.write_bytes(body + crc32(body).to_bytes(_CRC_BYTES, "big"))
        draft.replace(directory / _NAME)


class Marked(NamedTuple):
    """What a mark is about."""

    stands: Sealed
    data: bytes
    """The bytes up to there, or no more of them than the head of the segment where they are not kept."""


def read_mark(directory: Path, first_seq: int, file: io.FileIO, *, keep: bool = False) -> Marked | None:
    """Return up to where a segment that begins with record `first_seq` is whole; None: not told.

    `file` is that segment, at its beginning; it is left behind the bytes that the mark is about, or at its beginning.
    """
    mark = _said(directory)
    if mark is None or mark.first_seq != first_seq or mark.size < SEGMENT_HEAD_BYTES:
        return None
    data = _read_whole(file, mark) if keep else _read_through(file, mark)
    if data is None:
        file.seek(0)
        return None
    return Marked(mark, data)


def _said(directory: Path) -> Sealed | None:
    try:
        found = (directory / _NAME).read_bytes()
        body = found[:-_CRC_BYTES]
        if crc32(body).to_bytes(_CRC_BYTES, "big") != found[-_CRC_BYTES:]:
            return None
        return msgspec.msgpack.decode(body, type=Sealed)
    except (OSError, msgspec.MsgspecError):
        return None


def _read_whole(file: io.FileIO, mark: Sealed) -> bytes | None:
    if mark.size > file.seek(0, io.SEEK_END):
        return None  # before so much memory is asked for
    file.seek(0)
    data = file.read(mark.size)
    return data if len(data) == mark.size and crc32(data) == mark.crc32 else None


def _read_through(file: io.FileIO, mark: Sealed) -> bytes | None:
    """Compare the checksum without keeping what is read; return the head."""
    piece = memoryview(bytearray(_PIECE_BYTES))
    left, found, head = mark.size, 0, b""
    while left:
        read = file.readinto(piece[: min(left, _PIECE_BYTES)])
        if not read:
            return None
        head = head or bytes(piece[:SEGMENT_HEAD_BYTES])
        found = crc32(piece[:read], found)
        left -= read
    return head if found == mark.crc32 else None
