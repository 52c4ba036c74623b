"""The newest amtool: found, or built once from its Go module, to check the configuration for newer Alertmanagers."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec

from control.servers.store import Tell, cache, elapsed, publish, run, tell, work_place
from kernel.errors import PermanentError

MODULE: Final = "github.com/prometheus/alertmanager"
VERSION: Final = "v0.34.2"
SUM: Final = "h1:4oOnHs4J41X9n+7MucFjA3I5i5MtasjWTnIY27q5Qkw="
"""Go's own checksum of the module: a build of other sources is refused."""
_GO: Final = (1, 26)
_NEED_BYTES: Final = 1_500_000_000


class _Downloaded(msgspec.Struct, rename="pascal"):
    dir: str
    sum: str


def _target() -> Path:
    return cache() / f"amtool-{VERSION.removeprefix('v')}-{re.sub(r'[^A-Za-z0-9]', '', SUM)[2:12]}"


def find() -> Path | None:
    """Return the program in the cache; None when it is not built. The one on PATH is Debian's, and too old."""
    return _target() if os.access(_target(), os.X_OK) else None


def find_or_build(say: Tell | None = None) -> Path:
    """Return the program, building it first when there is none: one to three minutes on two cores.

    Raises:
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    found = find()
    if found is not None:
        return found
    say = say or tell
    _check_go()
    target = _target()
    with work_place("amtool", _NEED_BYTES, say) as work:
        if os.access(target, os.X_OK):
            return target
        say(f"building amtool {VERSION} from sources, once: one to three minutes on two cores, 30 MB in the end")
        began = time.monotonic()
        _build(work)
        publish(work / "amtool", target)
    say(f"built {target} in {elapsed(began)}")
    return target


def _check_go() -> None:
    get = f"install Go {'.'.join(map(str, _GO))} or newer"
    try:
        said = subprocess.run(["go", "env", "GOVERSION"], check=False, capture_output=True, text=True).stdout
    except OSError as error:
        raise PermanentError(f"there is no program go, which builds amtool: {get}") from error
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _GO:
        raise PermanentError(f"go is {said.strip() or 'of an unknown version'}, too old to build amtool: {get}")


def _build(work: Path) -> None:
    env = {
        "GOCACHE": str(work / "go-build"), "GOMODCACHE": str(work / "go-mod"), "GOTMPDIR": str(work / "go-tmp"),
        "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local",
    }  # fmt: skip
    (work / "go-tmp").mkdir()
    log = work / "download.log"
    run(
        "fetching amtool's sources",
        ["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"],
        cwd=work,
        log=log,
        env=env,
    )
    text = log.read_text()
    got = msgspec.json.decode(text[text.index("{") :], type=_Downloaded)
    if got.sum != SUM:
        raise PermanentError(f"the sources of amtool {VERSION} are not those that were known: {got.sum} is not {SUM}")
    built = work / "build.log"
    run(
        "building amtool",
        ["go", "build", "-v", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false",
         "-ldflags", f"-s -w -X github.com/prometheus/common/version.Version={VERSION.removeprefix('v')}",
         "-o", str(work / "amtool"), "./cmd/amtool"],
        cwd=Path(got.dir), log=built, env=env,
        progress=lambda: f"{sum(' ' not in line for line in built.read_text(errors='replace').splitlines())} packages",
    )  # fmt: skip
