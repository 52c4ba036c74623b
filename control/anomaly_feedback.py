"""What people say of pages: lines appended to a file, taken in by the detectors' process in their order, each once.

The file is the truth, so that an answer counts whether or not the process runs at the moment. How far it was taken in
stands in the process's own state, beside what it learnt of it: after a crash both go on together.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from kernel.errors import InputError, PermanentError
from kernel.time import Instant

MAX_LINE_BYTES: Final = 4_096


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    at: Instant
    by: str
    what: str
    """The id of a page, or of a series as `anomaly watch` shows it."""
    false_alarm: bool
    about: str = ""
    """What the person named, where that was an incident."""


def append(path: Path, said: Said) -> None:
    """Write an answer down, durably.

    Raises:
        InputError: it is longer than a line may be.
        PermanentError: the file cannot be written.
    """
    line = msgspec.json.encode(said) + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise InputError(said.what[:40], f"{len(line)} bytes", right=f"at most {MAX_LINE_BYTES} are kept")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PermanentError(f"{path}: the answer cannot be kept ({error.strerror})") from error


def after(path: Path, taken: int) -> tuple[list[Said | None], int]:
    """Return the whole lines beyond the first `taken` bytes and where they end; None for a line that says nothing."""
    try:
        with path.open("rb") as file:
            file.seek(taken)
            data = file.read()
    except OSError:
        return [], taken
    whole, _, _ = data.rpartition(b"\n")
    if not whole:
        return [], taken
    return [_said(line) for line in whole.split(b"\n") if line.strip()], taken + len(whole) + 1


def _said(line: bytes) -> Said | None:
    try:
        return msgspec.json.decode(line, type=Said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
