"""A program built by Go from a module whose checksum is known, with caches that go with the build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from control.servers.store import Tell, cache, elapsed, publish, run, tell, work_place
from kernel.errors import PermanentError


@dataclass(frozen=True)
class GoModule:
    """What is built, and of what."""

    title: str
    """What people call it, such as `Filebeat`."""
    module: str
    version: str
    sum: str
    """The checksum the module must have, as Go writes it."""
    package: str
    """The package of the program, such as `./cmd/amtool`."""
    go: tuple[int, int]
    """The oldest Go that builds it."""
    ldflags: str = "-s -w"
    copied: bool = False
    """Whether it is built in a copy: what its go.mod replaces counts in the main module only."""
    get: str = ""
    """How else it can be had, for errors."""
    need_bytes: int = 0
    """What its build takes of the disk."""
    takes: str = ""
    """How long its build takes and what is left of it, in words."""


class _Downloaded(msgspec.Struct, rename="pascal"):
    dir: str
    sum: str


def kept(wanted: GoModule) -> Path:
    """Return where the program is kept; other sources have another name."""
    marks = re.sub(r"[^A-Za-z0-9]", "", wanted.sum)[2:12]
    return cache() / f"{wanted.title.lower()}-{wanted.version.removeprefix('v')}-{marks}"


def built(wanted: GoModule, say: Tell | None = None) -> Path:
    """Return the program, building it first when it is not kept yet.

    Raises:
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    target = kept(wanted)
    if os.access(target, os.X_OK):
        return target
    say = say or tell
    check_go(wanted)
    with work_place(wanted.title.lower(), wanted.need_bytes, say) as work:
        if os.access(target, os.X_OK):
            return target
        say(f"building {wanted.title} {wanted.version} from sources, once: {wanted.takes}")
        began = time.monotonic()
        publish(build(wanted, work), target)
    say(f"built {target} in {elapsed(began)}")
    return target


def check_go(wanted: GoModule) -> None:
    """Look for a Go that builds it.

    Raises:
        PermanentError: there is none, or it is too old.
    """
    get = f"install Go {'.'.join(map(str, wanted.go))} or newer{wanted.get}"
    try:
        said = subprocess.run(["go", "env", "GOVERSION"], check=False, capture_output=True, text=True).stdout
    except OSError as error:
        raise PermanentError(f"there is no program go, which builds {wanted.title}: {get}") from error
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < wanted.go:
        raise PermanentError(f"go is {said.strip() or 'of an unknown version'}, too old to build {wanted.title}: {get}")


def build(wanted: GoModule, work: Path) -> Path:
    """Fetch and build below the directory `work`; return the program.

    Raises:
        PermanentError: the sources are not those that were known, or do not build; carries the last words.
    """
    env = {
        "GOCACHE": str(work / "go-build"), "GOMODCACHE": str(work / "go-mod"), "GOTMPDIR": str(work / "go-tmp"),
        "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local",
    }  # fmt: skip
    (work / "go-tmp").mkdir()
    sources, made, built = _fetch(wanted, work, env), work / "program", work / "build.log"
    run(
        f"building {wanted.title}",
        ["go", "build", "-v", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags", wanted.ldflags,
         "-o", str(made), wanted.package],
        cwd=sources, log=built, env=env,
        progress=lambda: f"{sum(' ' not in line for line in built.read_text(errors='replace').splitlines())} packages",
    )  # fmt: skip
    return made


def _fetch(wanted: GoModule, work: Path, env: dict[str, str]) -> Path:
    log = work / "download.log"
    argv = ["go", "mod", "download", "-json", f"{wanted.module}@{wanted.version}"]
    run(f"fetching {wanted.title}'s sources", argv, cwd=work, log=log, env=env)
    text = log.read_text()
    got = msgspec.json.decode(text[text.index("{") :], type=_Downloaded)
    if got.sum != wanted.sum:
        raise PermanentError(
            f"the sources of {wanted.title} {wanted.version} are not those that were known: "
            f"{got.sum} is not {wanted.sum}"
        )
    if not wanted.copied:
        return Path(got.dir)
    shutil.copytree(got.dir, work / "sources", symlinks=True)
    return work / "sources"
