"""Where servers that were fetched or built are kept: one cache, a lock for each, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kernel.errors import PermanentError

SOURCE: Final = Path(__file__).resolve().parent.parent.parent / "deploy" / "servers"
"""What they are fetched by: POMs, no lists of hosts."""
_TAIL_LINES: Final = 12
_TELL_TTY_S: Final = 1.0
_TELL_PIPE_S: Final = 30.0
Tell = Callable[[str], None]


def cache() -> Path:
    """Return where servers are kept.

    Root keeps them where others may read: a server that refuses to run as root runs as somebody whom the home of root
    is closed to.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base:
        return Path(base) / "tapewatch" / "servers"
    if os.getuid() == 0:
        return Path("/var/cache/tapewatch/servers")
    return Path.home() / ".cache" / "tapewatch" / "servers"


def tell(text: str) -> None:
    """Say how far a fetch or a build is, on standard error."""
    sys.stderr.write(f"servers: {text}\n")
    sys.stderr.flush()


@contextmanager
def work_place(name: str, need_bytes: int, say: Tell) -> Iterator[Path]:
    """Hold the lock of one server and lend an empty directory for the work; it is gone in the end.

    Raises:
        PermanentError: the cache cannot be written, or lacks `need_bytes`.
    """
    try:
        cache().mkdir(parents=True, exist_ok=True)
        descriptor = os.open(cache() / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise PermanentError(f"the cache {cache()} cannot be written: {error.strerror}") from error
    work, held = cache() / f"{name}.work", False
    try:
        began, told = time.monotonic(), 0.0
        while not _try_lock(descriptor):
            waited = time.monotonic() - began
            if not told or waited - told >= _TELL_PIPE_S:
                say(f"another process fetches {name}; waiting for that ({elapsed(began)})")
                told = max(waited, 0.001)
            time.sleep(0.2)
        held = True
        shutil.rmtree(work, ignore_errors=True)  # of one that was killed
        free = shutil.disk_usage(cache()).free
        if free < need_bytes:
            raise PermanentError(
                f"no room for {name}: {free / 1e9:.1f} GB are free in {cache()}, {need_bytes / 1e9:.1f} GB are needed "
                "meanwhile; free some, or set XDG_CACHE_HOME"
            )
        work.mkdir()
        yield work
    finally:
        if held:  # who gave up waiting leaves the other's work alone
            shutil.rmtree(work, ignore_errors=True)
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def publish(made: Path, target: Path) -> None:
    """Put what was made in its place, whole: it is renamed, never written there."""
    part = target.with_name(f"{target.name}.part")
    if part.is_dir():
        shutil.rmtree(part)
    made.rename(part)
    part.rename(target)


def run(
    what: str,
    argv: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    env: Mapping[str, str] | None = None,
    progress: Callable[[], str] | None = None,
) -> None:
    """Run one step of a fetch or a build, niced, ended with us; tell how far it is.

    Raises:
        PermanentError: it cannot be started or failed; carries its last words.
    """
    command = ["setpriv", "--pdeathsig", "KILL", "--", "nice", "-n", "5", *argv]
    with log.open("wb") as output:
        try:
            process: subprocess.Popen[Any] = subprocess.Popen(
                command, cwd=cwd, env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        except OSError as error:
            raise PermanentError(f"{what} cannot be started: setpriv: {error.strerror}") from error
        try:
            _watch(what, process, progress or (lambda: ""))
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = "\n  ".join(lines[-_TAIL_LINES:]) or "it said nothing"
        raise PermanentError(f"{what} failed (exit code {process.returncode}); its last words:\n  {last}")


def _watch(what: str, process: subprocess.Popen[Any], progress: Callable[[], str]) -> None:
    began, person = time.monotonic(), sys.stderr.isatty()
    shown = False
    while True:
        try:
            process.wait(_TELL_TTY_S if person else _TELL_PIPE_S)
        except subprocess.TimeoutExpired:
            far = progress()
            line = f"servers: {what}: {elapsed(began)}" + (f", {far}" if far else "")
            sys.stderr.write(f"\r{line} " if person else f"{line}\n")
            sys.stderr.flush()
            shown = True
        else:
            if person and shown:
                sys.stderr.write("\n")
            return


def size_of(directory: Path) -> int:
    """Return how many bytes lie below a directory that is being filled."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(root) / name).lstat().st_size
            except OSError:  # renamed meanwhile
                continue
    return total


def elapsed(began: float) -> str:
    """Return the time since a monotonic moment as minutes and seconds."""
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    return f"{minutes}:{seconds:02}"
