"""Who has a log: one process that writes to it, and whoever is reading it while a compaction would remove from it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel.errors import TemporaryError


class LogHeldError(TemporaryError):
    """Another process writes to this log."""


class LogReadError(TemporaryError):
    """Somebody reads this log: nothing of it may go now."""


def hold(directory: Path) -> int:
    """Take a directory for this process until the descriptor that is returned is closed.

    Raises:
        LogHeldError: another process has it.
    """
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


@contextmanager
def reading(directory: Path) -> Iterator[None]:
    """Let no compaction name what goes while a log is read; waits for one that is just doing so.

    Where the directory cannot be held so, the log is read all the same: a file that is gone is then told as such.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


@contextmanager
def unread(directory: Path) -> Iterator[None]:
    """Let nobody begin to read a log for the moment in which a compaction names what goes.

    Raises:
        LogReadError: somebody reads it, and is not waited for; or the file system cannot tell.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LogReadError(f"{directory}: somebody is reading it; nothing was removed") from error
        yield
    finally:
        os.close(fd)
