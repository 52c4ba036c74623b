"""Servers that refuse to run as root: as whom they run when we are, and whether they may go where their files lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from kernel.errors import PermanentError

NOBODY: Final = 65_534


def as_nobody() -> list[str]:
    """Return what a command line begins with, so that it runs as nobody when we are root; else nothing."""
    if os.getuid() != 0:
        return []
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *ids, "--pdeathsig", "KILL", "--"]


def give(path: Path) -> None:
    """Make a file or directory nobody's when we are root."""
    if os.getuid() == 0:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def check_open(directory: Path, title: str, how: str = "") -> None:
    """Refuse a directory that nobody may not enter, where we are root; `how` says what else would help.

    Raises:
        PermanentError: it, or one above it, is closed to others.
    """
    if os.getuid() != 0:
        return
    for above in (directory, *directory.parents):
        if not above.stat().st_mode & 0o001:
            words = f"{above} is closed to others, and {title} does not run as root: take another directory"
            raise PermanentError(words + (f" ({how})" if how else ""))
