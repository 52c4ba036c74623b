"""One process of the estate: started so that it cannot outlive us, stopped so that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from control.addresses import HOST
from kernel.errors import PermanentError
from kernel.time import Instant

TAIL_BYTES: Final = 8_192
ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
"""What our own programs are started with: the rooms are found whether or not the project is installed, and whatever
kills the interpreter is told in the replica's output."""


_STILL_OURS: Final = '[ "$PPID" = "$0" ] && exec "$@"'


@dataclass(frozen=True)
class Slot:
    """A replica's fixed identity: what is started, and on which port it answers."""

    id: str
    port: int
    argv: tuple[str, ...]
    output: Path
    env: Mapping[str, str] = field(default_factory=dict)
    revision: str = ""
    """Of a canary: what was deployed to this replica alone; empty: it is as its workload."""


def tied(argv: Sequence[str]) -> list[str]:
    """Return the command line by which a child of this process is started so that it dies with it, however that dies.

    The kernel ends the child when the *thread* that forked it ends. A parent that is killed between the fork and the
    child's wish to be told would never be missed, so the child looks once more whose it is before it begins.
    """
    return ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", _STILL_OURS, str(os.getpid()), *argv]


def now() -> Instant:
    """Return the present instant."""
    return Instant(time.time_ns())


async def probe(port: int, path: str, *, timeout_s: float) -> int | None:
    """Return the status code of a GET on this machine, or None when there was no answer in time.

    A bare socket: a client library would cost the estate more memory than all its probes together.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(request.encode())
            words = (await reader.readline()).split()
            return int(words[1]) if len(words) > 1 else None
    except (OSError, TimeoutError, ValueError):
        return None
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Child:
    """A replica and its present process, if any."""

    def __init__(self, slot: Slot, on_exit: Callable[[Child, int], None]) -> None:
        self.slot = slot
        self.usual = slot
        """What it runs when it is no canary."""
        self.uid = ""
        self.started_at: Instant | None = None
        self.ready = False
        self.was_ready = False
        """Whether the present process has been ready at all."""
        self.answered_s = 0.0
        """Monotonic time of the last answer to a probe, or of the start."""
        self.exit_code: int | None = None
        self.stopping = False
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._gone = asyncio.Event()
        self._output_from = 0

    @property
    def running(self) -> bool:
        """Whether the process lives (a stopped one does)."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """The process id while it lives."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process; it is killed by the kernel when the estate's process dies, however that happens.

        Must be called on the main thread: the kernel ties the signal to the thread that forked.

        Raises:
            PermanentError: the program, or setpriv, is not there.
        """
        assert not self.running, f"{self.slot.id} runs already"
        if shutil.which(self.slot.argv[0]) is None:
            raise PermanentError(
                f"{self.slot.id} cannot be started: there is no program {self.slot.argv[0]}; see `tapewatch doctor`"
            )
        self.slot.output.parent.mkdir(parents=True, exist_ok=True)
        with self.slot.output.open("ab") as output:
            self._output_from = output.tell()
            try:
                self._process = subprocess.Popen(
                    tied(self.slot.argv),
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    env={**os.environ, **self.slot.env},
                    start_new_session=True,  # Ctrl-C is for the estate, which stops its children in order
                )  # fmt: skip
            except OSError as error:
                raise PermanentError(
                    f"{self.slot.id} cannot be started: setpriv: {error.strerror}; see `tapewatch doctor`"
                ) from error
        self.uid = uuid.uuid4().hex[:12]
        self.started_at = now()
        self.answered_s = time.monotonic()
        self.ready = self.was_ready = self.stopping = False
        self.exit_code = None
        self._gone = asyncio.Event()
        descriptor = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(descriptor, self._reap, descriptor, self._process, self._gone)

    def _reap(self, descriptor: int, process: subprocess.Popen[bytes], gone: asyncio.Event) -> None:
        """Take note of the end: only here is a process reaped, so its id is never another's before we know."""
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self.exit_code = process.wait()
        self._process = None
        self.ready = False
        gone.set()
        self._on_exit(self, self.exit_code)

    def signal(self, number: int) -> bool:
        """Send a signal; False when there is no process."""
        pid = self.pid
        if pid is None:
            return False
        os.kill(pid, number)
        return True

    async def stop(self, grace_s: float) -> None:
        """End the process: SIGTERM, `grace_s` to finish, then SIGKILL.

        A process stopped by a signal is killed at once.
        """
        if not self.running:
            return
        gone = self._gone
        self.stopping = True
        self.ready = False
        if self.suspended():
            self.signal(signal.SIGKILL)  # it would never see the SIGTERM
        else:
            self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    await gone.wait()
            except TimeoutError:
                self.signal(signal.SIGKILL)
        await gone.wait()

    def suspended(self) -> bool:
        """Tell whether the process is stopped by a signal: it would see no SIGTERM."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    def last_words(self) -> str:
        """Return the last line the present process wrote, for error messages."""
        try:
            with self.slot.output.open("rb") as output:
                size = output.seek(0, os.SEEK_END)
                output.seek(max(self._output_from, size - TAIL_BYTES))
                lines = [line for line in output.read().decode(errors="replace").split("\n") if line.strip()]
        except OSError:
            return "(its output cannot be read)"
        return lines[-1].strip()[:300] if lines else "(it wrote nothing)"
