"""The calls through which a log reaches the disk."""

from __future__ import annotations

import os
from typing import Protocol


class Disk(Protocol):
    """The three calls through which a log reaches the disk; tests give one that fails."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write some of `data` and return how many bytes it took, as `os.write`."""
        ...

    def fsync(self, fd: int) -> None:
        """Return when everything written to `fd` is durable, as `os.fsync`."""
        ...

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file, as `os.ftruncate`."""
        ...


class OsDisk:
    """The operating system's disk."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write some of `data`."""
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        """Make a file durable."""
        os.fsync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(fd, size)
