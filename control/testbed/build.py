"""The test bed's one binary: found, or built once from module sources and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kernel.errors import InputError, PermanentError

SOURCE: Final = Path(__file__).resolve().parent.parent.parent / "deploy" / "testbed"
_KEYED: Final = ("go.mod", "go.sum", "main.go")
"""What the binary is made of. How its simulated kubelets behave is read at each start."""
DISK_BYTES: Final = 3_600_000_000
"""Room for Go's caches while it is built; the binary keeps 140 MB of it."""
_PACKAGE: Final = re.compile(r"^[\w.-]+(/[\w.~-]+)*$")
_TAIL_LINES: Final = 12
_TELL_TTY_S: Final = 1.0
_TELL_PIPE_S: Final = 60.0


@dataclass(frozen=True)
class Recipe:
    """What is to be built: read from the sources, so that another version has another name."""

    kubernetes: str
    """Such as `v1.36.3`."""
    go: tuple[int, ...]
    """The oldest Go that builds it."""
    key: str

    @property
    def name(self) -> str:
        """The binary's file name."""
        return f"testbed-{self.kubernetes}-{self.key}"


def recipe(source: Path = SOURCE) -> Recipe:
    """Read what the sources ask for.

    Raises:
        PermanentError: they are not there, or are no such sources.
    """
    try:
        parts = [(source / name).read_bytes() for name in _KEYED]
    except OSError as error:
        raise PermanentError(f"the test bed's sources in {source} cannot be read: {error.strerror}") from error
    text = parts[0].decode(errors="replace")
    kubernetes = re.search(r"^\s*k8s\.io/kubernetes (v[\d.]+)$", text, re.MULTILINE)
    go = re.search(r"^go ([\d.]+)$", text, re.MULTILINE)
    if kubernetes is None or go is None:
        raise PermanentError(f"{source / 'go.mod'} names no k8s.io/kubernetes or no version of Go")
    key = hashlib.sha256(b"".join(parts)).hexdigest()[:12]
    return Recipe(kubernetes[1], tuple(map(int, go[1].split("."))), key)


def cache() -> Path:
    """Return where binaries are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "tapewatch" / "testbed"


def find(named: str = "") -> Path | None:
    """Return the binary: the one `named` (setting testbed), else the one in the cache; None when it is not built.

    Raises:
        InputError: the one named is no program.
    """
    if named:
        path = Path(named).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise InputError(
                f"setting testbed (TAPEWATCH_TESTBED): {named}", "is no program", right="leave it out to have one built"
            )
        return path
    path = cache() / recipe().name
    return path if os.access(path, os.X_OK) else None


def find_or_build(named: str = "", tell: Callable[[str], None] | None = None) -> Path:
    """Return the binary, building it first when there is none; that takes minutes and tells of itself.

    Raises:
        InputError: the one named is no program.
        PermanentError: it cannot be built; says what to install, or the build's last words.
    """
    found = find(named)
    if found is not None:
        return found
    tell = tell or _tell
    wanted = recipe()
    target = cache() / wanted.name
    _check_go(wanted)
    with _locked(tell):
        if os.access(target, os.X_OK):
            return target
        _check_disk()
        tell(
            f"building the test bed (Kubernetes {wanted.kubernetes}) from sources, once: "
            "6 to 12 minutes on two cores, 3.3 GB of disk meanwhile, 140 MB in the end"
        )
        began = time.monotonic()
        _build(wanted, target)
        for name in ("go-build", "go-mod", "go-tmp"):
            shutil.rmtree(cache() / name, ignore_errors=True)
        tell(f"built {target} in {_elapsed(began)}")
    return target


def _tell(text: str) -> None:
    sys.stderr.write(f"test bed: {text}\n")
    sys.stderr.flush()


# --- what must be there first --------------------------------------------------------------------------------------


def _check_go(wanted: Recipe) -> None:
    need = ".".join(map(str, wanted.go))
    get = f"install Go {need} or newer, or name a binary with TAPEWATCH_TESTBED"
    try:
        done = subprocess.run(
            ["go", "env", "GOVERSION"], check=False, capture_output=True, text=True, env=_environment()
        )
    except OSError as error:
        raise PermanentError(f"there is no program go, which builds the test bed: {get}") from error
    found = re.match(r"go(\d+(?:\.\d+)*)", done.stdout)
    if found is None:
        raise PermanentError(f"go does not tell its version ({done.stderr.strip() or done.stdout.strip()}): {get}")
    if tuple(map(int, found[1].split("."))) < wanted.go:
        raise PermanentError(f"go is {found[1]}, too old to build the test bed: {get}")


def _check_disk() -> None:
    if (cache() / "go-build").exists():
        return  # an interrupted build goes on, and has part of its room already
    free = shutil.disk_usage(cache()).free
    if free < DISK_BYTES:
        raise PermanentError(_no_room(f"{free / 1e9:.1f} GB are free"))


def _no_room(found: str) -> str:
    return f"no room to build the test bed: {found} in {cache()}, it needs 3.6 GB; free some, or set XDG_CACHE_HOME"


@contextmanager
def _locked(tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the cache's lock: two builds at once would only fight for the cores."""
    try:
        cache().mkdir(parents=True, exist_ok=True)
        descriptor = os.open(cache() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise PermanentError(f"the cache {cache()} cannot be written: {error.strerror}") from error
    try:
        began, told = time.monotonic(), 0.0
        while not _try_lock(descriptor):
            waited = time.monotonic() - began
            if not told or waited - told >= _TELL_PIPE_S:
                tell(f"another process builds it; waiting for that ({_elapsed(began)})")
                told = max(waited, 0.001)
            time.sleep(0.5)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


# --- the build ------------------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    """Go's surroundings: caches of its own, that outlast an interruption and end with success; no other toolchain."""
    here = cache()
    own = {
        "GOCACHE": str(here / "go-build"), "GOMODCACHE": str(here / "go-mod"), "GOTMPDIR": str(here / "go-tmp"),
        "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local",
    }  # fmt: skip
    return {**os.environ, **own}


def command(wanted: Recipe, part: Path) -> list[str]:
    """Return the build's command line. Neither debug information nor cgo: a fifth less work, and it runs anywhere."""
    version = "k8s.io/component-base/version"
    minor = wanted.kubernetes.split(".")[1]
    told = f"-X {version}.gitVersion={wanted.kubernetes} -X {version}.gitMajor=1 -X {version}.gitMinor={minor}"
    return [
        "go", "build", "-v", "-trimpath", "-buildvcs=false", "-mod=readonly", "-tags", "grpcnotrace,notest",
        "-gcflags=all=-dwarf=false", "-ldflags", f"-s -w {told} -X {version}.gitTreeState=clean",
        "-o", str(part), ".",
    ]  # fmt: skip


def _build(wanted: Recipe, target: Path) -> None:
    """Build beside the target and rename: half a binary is never found.

    Raises:
        PermanentError: the build failed; carries its last words.
    """
    (cache() / "go-tmp").mkdir(exist_ok=True)
    part, log = target.with_name(f"{target.name}.part"), cache() / "build.log"
    argv = ["setpriv", "--pdeathsig", "KILL", "--", "nice", "-n", "5", *command(wanted, part)]
    with log.open("wb") as output:
        try:
            process: subprocess.Popen[Any] = subprocess.Popen(
                argv, cwd=SOURCE, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        except OSError as error:
            raise PermanentError(f"the build cannot be started: setpriv: {error.strerror}") from error
        try:
            _watch(process, log)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        raise PermanentError(_failure(log))
    part.replace(target)


def _watch(process: subprocess.Popen[Any], log: Path) -> None:
    """Wait for the build; show how far it is, each second to a person and each minute to a file."""
    began, person = time.monotonic(), sys.stderr.isatty()
    while True:
        try:
            process.wait(_TELL_TTY_S if person else _TELL_PIPE_S)
        except subprocess.TimeoutExpired:
            done = sum(bool(_PACKAGE.match(line)) for line in log.read_text(errors="replace").splitlines())
            line = f"test bed: {_elapsed(began)}, {done} packages compiled"
            sys.stderr.write(f"\r{line} " if person else f"{line}\n")
            sys.stderr.flush()
        else:
            if person:
                sys.stderr.write("\n")
            return


def _failure(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line and not _PACKAGE.match(line)]
    if any("no space left on device" in line for line in lines):
        return _no_room("no space left on device")
    last = "\n  ".join(line for line in lines[-_TAIL_LINES:]) or "it said nothing"
    return f"the test bed could not be built; the build's last words ({log}):\n  {last}"


def _elapsed(began: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    return f"{minutes}:{seconds:02}"
