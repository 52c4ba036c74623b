"""The life of a server that keeps traces in memory: a directory of its own, asked for its health, ended in order."""

from __future__ import annotations

import http.client
import subprocess
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO, ClassVar, Final

from control.addresses import HOST
from control.servers.local_server import LocalServer

_OK: Final = 200


class TraceServer(LocalServer):
    """One server. A context manager; it ends with the thread that started it, and its traces with it."""

    health_path: ClassVar[str]
    grace_s = 10.0

    def __init__(self, health_port: int) -> None:
        """Nothing is started before `start`."""
        super().__init__(None)
        self._health_port: Final = health_port

    @abstractmethod
    def _argv(self, directory: Path) -> Sequence[str]:
        """Return how it is started; what it needs besides is written into `directory`."""

    def close(self) -> None:
        """End it; what it kept is gone."""
        self.stop()
        super().close()

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

    def _prepare(self) -> None:
        self._words = self._argv(self.directory)

    def _launch(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return self._child(self._words, output)

    def _why_not(self) -> str:
        return "" if self.healthy() else "its health page does not say so"
