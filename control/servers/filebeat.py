"""Filebeat: found, or built once from its Go module; Elastic's own sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec

from control.servers.store import Tell, cache, elapsed, publish, run, tell, work_place
from kernel.errors import InputError, PermanentError

MODULE: Final = "github.com/elastic/beats/v7"
VERSION: Final = "v7.17.0"
SUM: Final = "h1:7/azFM/4J8/HPl3iqGUbjBaZcE1PuRyBrPk2HMSYroM="
"""Go's own checksum of the module: a build of other sources is refused."""
_GO: Final = (1, 17)
_NEED_BYTES: Final = 3_000_000_000


class _Downloaded(msgspec.Struct, rename="pascal"):
    dir: str
    sum: str


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
    _check_go()
    target = _target()
    with work_place("filebeat", _NEED_BYTES, say) as work:
        if os.access(target, os.X_OK):
            return target
        say(f"building Filebeat {VERSION} from sources, once: two to four minutes on two cores, 55 MB in the end")
        began = time.monotonic()
        _build(work)
        publish(work / "filebeat", target)
    say(f"built {target} in {elapsed(began)}")
    return target


def _check_go() -> None:
    need = ".".join(map(str, _GO))
    get = f"install Go {need} or newer, or name a program with TAPEWATCH_FILEBEAT"
    try:
        said = subprocess.run(["go", "env", "GOVERSION"], check=False, capture_output=True, text=True).stdout
    except OSError as error:
        raise PermanentError(f"there is no program go, which builds Filebeat: {get}") from error
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _GO:
        raise PermanentError(f"go is {said.strip() or 'of an unknown version'}, too old to build Filebeat: {get}")


def _build(work: Path) -> None:
    """Build in a copy: what its go.mod replaces counts in the main module only."""
    env = {
        "GOCACHE": str(work / "go-build"), "GOMODCACHE": str(work / "go-mod"), "GOTMPDIR": str(work / "go-tmp"),
        "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local",
    }  # fmt: skip
    (work / "go-tmp").mkdir()
    log = work / "download.log"
    run(
        "fetching Filebeat's sources",
        ["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"],
        cwd=work,
        log=log,
        env=env,
    )
    text = log.read_text()
    got = msgspec.json.decode(text[text.index("{") :], type=_Downloaded)
    if got.sum != SUM:
        raise PermanentError(f"the sources of Filebeat {VERSION} are not those that were known: {got.sum} is not {SUM}")
    shutil.copytree(got.dir, work / "beats", symlinks=True)
    built = work / "build.log"
    run(
        "building Filebeat",
        ["go", "build", "-v", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags", "-s -w",
         "-o", str(work / "filebeat"), "./filebeat"],
        cwd=work / "beats", log=built, env=env,
        progress=lambda: f"{sum(' ' not in line for line in built.read_text(errors='replace').splitlines())} packages",
    )  # fmt: skip
