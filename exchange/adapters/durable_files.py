"""Whole files beside a journal, replaced at once and durably: snapshots, markers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_PIECE_BYTES: Final = 1024 * 1024
"""A file reaches the disk in pieces, so that no sync of the journal waits for the whole of it."""
_DRAFT: Final = ".draft"


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file at once; what cannot be written whole leaves nothing: the journal needs the room.

    Raises:
        OSError: the disk refused; what stood there stands.
    """
    draft = path.with_name(path.name + _DRAFT)
    try:
        with draft.open("wb") as file:
            for start in range(0, len(data), _PIECE_BYTES):
                file.write(data[start : start + _PIECE_BYTES])
                file.flush()
                os.fdatasync(file.fileno())
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def drop_drafts(directory: Path) -> None:
    """Remove what a killed process was writing: each may be as large as the whole state."""
    for path in directory.glob(f"*{_DRAFT}"):
        path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Return once what was made, renamed or removed in a directory is durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
