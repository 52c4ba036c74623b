"""The calls through which a log reaches the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """The five calls through which a log changes what is on the disk; tests give one that fails."""

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write some of `data` and return how many bytes it took, as `os.write`."""
        ...

    def fsync(self, fd: int) -> None:
        """Return when everything written to `fd` is durable, as `os.fsync`."""
        ...

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file, as `os.ftruncate`."""
        ...

    def replace(self, source: Path, target: Path) -> None:
        """Put a file in the place of another one, as `os.replace`."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file, as `os.unlink`; one that is gone already is no error."""
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

    def replace(self, source: Path, target: Path) -> None:
        """Put a file in the place of another one."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)
