"""Processes for a bench: whole estates, single programs, and their end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent.parent.parent
START_S: Final = 60.0
STOP_S: Final = 20.0


@dataclass(frozen=True)
class Estate:
    """A running estate: its supervisor's process, its state directory, its addresses as `estate.json` tells them."""

    pid: int
    state: Path
    addresses: Mapping[str, Any]

    def secret(self, name: str) -> str:
        return (self.state / "secrets" / name).read_text().strip()

    def replica(self, workload: str, index: int = 0) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.addresses["workloads"][workload][index]
        return found


def skip(why: str) -> NoReturn:
    """End this bench with one sentence and well: what is not there stops none of the others."""
    print(f"skipped: {why}", flush=True)
    raise SystemExit(0)


def needs(*programs: str) -> None:
    """Skip the bench when one of these programs is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            skip(f"{program} is not installed; scripts/setup.sh installs it")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Yield a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tapewatch-bench-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@contextlib.contextmanager
def running(argv: Sequence[str], *, output: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the time of the block; SIGTERM, then SIGKILL, ends it."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(output.open("ab")) if output else subprocess.DEVNULL
        process = subprocess.Popen(argv, cwd=ROOT, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of ours and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def estate(**settings: object) -> Iterator[Estate]:
    """Run a whole estate on free ports in a directory of its own; `settings` are those of `control.settings`."""
    with folder() as home:
        state = home / "state"
        given = {f"TAPEWATCH_{key.upper()}": str(value) for key, value in settings.items()}
        output = home / "up.out"
        with output.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "cli", "up"],
                cwd=home,  # no tapewatch.toml of the working directory shall change the figures
                env={**os.environ, "PYTHONPATH": str(ROOT), **given, "TAPEWATCH_PORTS": "auto",
                     "TAPEWATCH_STATE": str(state)},
                stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                yield _up(process, state, output)
            finally:
                end(process)


def _up(process: subprocess.Popen[bytes], state: Path, output: Path) -> Estate:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, ValueError):
            addresses = json.loads((state / "estate.json").read_text())
            if addresses["phase"] == "up":
                return Estate(process.pid, state, addresses)
        time.sleep(0.1)
    raise SystemExit(f"the estate did not come up: {output.read_text(errors='replace')[-2000:]}")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(url: str, *, seconds: float = 20.0) -> None:
    """Return when `url` answers 200.

    Raises:
        SystemExit: it does not in time.
    """
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=1) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")
