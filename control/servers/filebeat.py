"""Filebeat: found, or built once from its Go module; Elastic's own sources."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from control.servers.go_module import GoModule, built, kept
from control.servers.store import Tell
from kernel.errors import InputError

MODULE: Final = "github.com/elastic/beats/v7"
VERSION: Final = "v7.17.0"
SUM: Final = "h1:7/azFM/4J8/HPl3iqGUbjBaZcE1PuRyBrPk2HMSYroM="
"""Go's own checksum of the module: a build of other sources is refused."""
_MODULE: Final = GoModule(
    title="Filebeat",
    module=MODULE,
    version=VERSION,
    sum=SUM,
    package="./filebeat",
    go=(1, 17),
    copied=True,
    get=", or name a program with TAPEWATCH_FILEBEAT",
    need_bytes=3_000_000_000,
    takes="two to four minutes on two cores, 55 MB in the end",
)


def find(named: str = "") -> Path | None:
    """Return the program: the one `named` (setting filebeat), the one on PATH, else the one in the cache; or None.

    Raises:
        InputError: the one named is no program.
    """
    if named:
        path = Path(named).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise InputError(
                f"setting filebeat (TAPEWATCH_FILEBEAT): {named}",
                "is no program",
                right="leave it out to have one built",
            )
        return path
    program = shutil.which("filebeat")
    if program is not None:
        return Path(program)
    path = kept(_MODULE)
    return path if os.access(path, os.X_OK) else None


def find_or_build(named: str = "", say: Tell | None = None) -> Path:
    """Return the program, building it first when there is none: two to four minutes on two cores.

    Raises:
        InputError: the one named is no program.
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    return find(named) or built(_MODULE, say)
