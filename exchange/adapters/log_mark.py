"""How far the segment that is written to is known to be whole, so that opening it need not look at each record.

The mark lies beside the manifest: the last record, size and checksum of the segment as they stood when some MiB more
had been appended. Nothing stands on it. It is not synced; one that is missing, damaged, or not about the bytes that are
there, is as if there were none, and every record is looked at.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from exchange.manifest import Sealed

MARK_BYTES: Final = 1024 * 1024
"""Appended between two marks: what a start then looks at record by record takes a few milliseconds."""
_NAME: Final = "mark"
_CRC_BYTES: Final = 4


def write_mark(directory: Path, stands: Sealed) -> None:
    """Say how the segment that is written to stands; a disk that refuses is left alone."""
    body = msgspec.msgpack.encode(stands)
    draft = directory / f"{_NAME}.draft"
    with contextlib.suppress(OSError):
        draft.write_bytes(body + crc32(body).to_bytes(_CRC_BYTES, "big"))
        draft.replace(directory / _NAME)


def read_mark(directory: Path, first_seq: int, data: bytes) -> Sealed | None:
    """Return up to where the segment that begins with record `first_seq` and holds `data` is whole; None: not told."""
    try:
        found = (directory / _NAME).read_bytes()
        body = found[:-_CRC_BYTES]
        if crc32(body).to_bytes(_CRC_BYTES, "big") != found[-_CRC_BYTES:]:
            return None
        mark = msgspec.msgpack.decode(body, type=Sealed)
    except (OSError, msgspec.MsgspecError):
        return None
    fits = mark.first_seq == first_seq and mark.size <= len(data)
    return mark if fits and crc32(memoryview(data)[: mark.size]) == mark.crc32 else None
