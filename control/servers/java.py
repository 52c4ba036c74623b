"""The Java that a server runs on: found, and new enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kernel.errors import PermanentError

DEBIAN: Final = "openjdk-17-jre-headless"
OLDEST: Final = 17
NO_NEWEST: Final = 99


def java(title: str, *, oldest: int = OLDEST, newest: int = NO_NEWEST, named_by: Sequence[str] = ("JAVA_HOME",)) -> str:
    """Return the program that runs `title`: below the directory that a variable names, else the one on PATH.

    Raises:
        PermanentError: there is none, or it is too old or too new; says what to install.
    """
    need = f"Java {oldest} or newer" if newest == NO_NEWEST else f"Java {oldest} to {newest}"
    get = f"install {need} (Debian: {DEBIAN}), or name its directory with {named_by[0]}"
    named = next((found for name in named_by if (found := os.environ.get(name))), "")
    program = str(Path(named) / "bin" / "java") if named else shutil.which("java")
    if program is None or not os.access(program, os.X_OK):
        raise PermanentError(f"there is no program {program or 'java'}, which runs {title}: {get}")
    said = subprocess.run([program, "-version"], check=False, capture_output=True, text=True).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if version is None or not oldest <= int(version[1]) <= newest:
        what = f"Java {version[1]}" if version else f"Java of no known version ({said.strip()[:80]})"
        raise PermanentError(f"{program} is {what}, which {title} does not run on: {get}")
    return program
