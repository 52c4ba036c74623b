"""The kill switch: a durable file that forbids every automatic action while it is there.

Rule 1: it works without any process of ours, so that a person can throw it when control is down.
Rule 2: a file that cannot be read counts as thrown, because not acting is the safe side.
Rule 3: it is read anew between every decision and its effect; nobody keeps a copy.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from control.addresses import write_atomically
from kernel.errors import PermanentError
from kernel.time import Instant, to_rfc3339


class Thrown(msgspec.Struct, frozen=True):
    """Who forbade automatic actions, why and when."""

    by: str
    why: str
    at: Instant

    def __str__(self) -> str:
        return f"on since {to_rfc3339(self.at)}, thrown by {self.by}: {self.why}"


def read(path: Path) -> Thrown | None:
    """Return why automatic actions are forbidden, or None when they are allowed.

    Only a missing file in a readable directory allows them.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if path.parent.is_dir():
            return None
        return Thrown("nobody", f"the state directory {path.parent} is gone", Instant(0))
    except OSError as error:
        return Thrown("nobody", f"{path} cannot be read ({error.strerror}), which counts as thrown", Instant(0))
    try:
        return msgspec.json.decode(data, type=Thrown)
    except msgspec.DecodeError:
        return Thrown("nobody", f"{path} is not readable as JSON, which counts as thrown", Instant(0))


def throw(path: Path, *, by: str, why: str, at: Instant) -> Thrown:
    """Forbid automatic actions; durable when this returns.

    Throwing it again keeps the first reason.

    Raises:
        PermanentError: the file cannot be written.
    """
    already = read(path)
    if already is not None and path.exists():
        return already
    thrown = Thrown(by, why, at)
    try:
        write_atomically(path, msgspec.json.encode(thrown) + b"\n")
    except OSError as error:
        # A full disk often still has room for a name. By rule 2 an empty file is a thrown switch; only the why is lost.
        try:
            path.touch()
            _sync_directory(path.parent)
        except OSError:
            raise PermanentError(f"the kill switch could not be thrown: {path}: {error.strerror}") from error
    return thrown


def release(path: Path) -> bool:
    """Allow automatic actions again; durable when this returns. False when they were allowed already.

    Raises:
        PermanentError: the file cannot be removed.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PermanentError(f"the kill switch could not be released: {path}: {error.strerror}") from error
    _sync_directory(path.parent)
    return True


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
