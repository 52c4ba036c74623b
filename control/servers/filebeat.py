"""Filebeat: found, or built once from its Go module; Elastic's own sources."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Final

from control.servers.go_module import GoModule, build, check_go
from control.servers.store import Tell, cache, elapsed, publish, tell, work_place
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
)
_NEED_BYTES: Final = 3_000_000_000


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
    path = _target()
    return path if os.access(path, os.X_OK) else None


def _target() -> Path:
    return cache() / f"filebeat-{VERSION.removeprefix('v')}-{re.sub(r'[^A-Za-z0-9]', '', SUM)[2:12]}"


def find_or_build(named: str = "", say: Tell | None = None) -> Path:
    """Return the program, building it first when there is none: two to four minutes on two cores.

    Raises:
        InputError: the one named is no program.
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    found = find(named)
    if found is not None:
        return found
    say = say or tell
    check_go(_MODULE)
    target = _target()
    with work_place("filebeat", _NEED_BYTES, say) as work:
        if os.access(target, os.X_OK):
            return target
        say(f"building Filebeat {VERSION} from sources, once: two to four minutes on two cores, 55 MB in the end")
        began = time.monotonic()
        publish(build(_MODULE, work), target)
    say(f"built {target} in {elapsed(began)}")
    return target
