"""The life of a server that keeps traces in memory: started in a directory of its own, asked for its health, ended."""

from __future__ import annotations

import http.client
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from control.addresses import HOST
from control.child import tied
from kernel.errors import PermanentError, TemporaryError

_STEP_S: Final = 0.1
_GRACE_S: Final = 10.0
_OK: Final = 200
_TAIL_LINES: Final = 6


class TraceServer(ABC):
    """One server. A context manager; it ends with the thread that started it, and its traces with it."""

    title: ClassVar[str]
    ready_within_s: ClassVar[float]
    health_path: ClassVar[str]

    def __init__(self, health_port: int) -> None:
        """Nothing is started before `start`."""
        self.ready_s = 0.0
        """Seconds from the start to ready."""
        self._health_port: Final = health_port
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()

    @abstractmethod
    def _argv(self, directory: Path) -> Sequence[str]:
        """Return how it is started; what it needs besides is written into `directory`."""

    def _telling(self, lines: list[str]) -> list[str]:
        """Return the lines that tell why it ended; all when none stands out."""
        return lines

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.close()

    @property
    def pid(self) -> int | None:
        """Its process; None when it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, within_s: float | None = None) -> Self:
        """Start it; returns when it takes spans, which may take its kind's usual time when none is given.

        Raises:
            PermanentError: what it runs on is missing, or the server ended; carries its last words.
            TemporaryError: it was not ready in time.
        """
        assert self._process is None, "it runs already"
        began = time.monotonic()
        self._directory = Path(tempfile.mkdtemp(prefix=f"tapewatch-{self.title.lower()}-"))
        try:
            argv = self._argv(self._directory)
            with (self._directory / "out.log").open("wb") as output:
                self._process = subprocess.Popen(
                    tied(argv), cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            self._wait(began + (self.ready_within_s if within_s is None else within_s))
        except BaseException:
            self.close()
            raise
        self.ready_s = time.monotonic() - began
        return self

    def close(self) -> None:
        """End it; what it kept is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._directory.name:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = Path()

    def healthy(self) -> bool:
        """Tell whether its health page says so."""
        connection = http.client.HTTPConnection(HOST, self._health_port, timeout=2)
        try:
            connection.request("GET", self.health_path)
            return connection.getresponse().status == _OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def last_words(self) -> str:
        """Return what it wrote last, for error messages."""
        try:
            lines = (self._directory / "out.log").read_text(errors="replace").splitlines()
        except OSError:
            return "(its output cannot be read)"
        return " / ".join((self._telling(lines) or lines)[-_TAIL_LINES:])[:600] or "(it wrote nothing)"

    def _wait(self, until: float) -> None:
        assert self._process is not None
        while time.monotonic() < until:
            if self._process.poll() is not None:
                code = self._process.returncode
                raise PermanentError(f"{self.title} ended with exit code {code}: {self.last_words()}")
            if self.healthy():
                return
            time.sleep(_STEP_S)
        raise TemporaryError(f"{self.title} was not ready in time: {self.last_words()}")
