"""Zipkin: found, or fetched once as a Maven artefact; a child on loopback with its page, traces in memory."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from control.addresses import HOST
from control.plan import free_ports
from control.servers.store import SOURCE, Tell, cache, elapsed, publish, run, size_of, tell, work_place
from control.servers.trace_server import TraceServer
from kernel.errors import InputError, PermanentError

VERSION: Final = "3.6.1"
POM: Final = "zipkin.xml"
SHA256: Final = "981b1de6139b4f8f787a909c308028732f9713ae5284353d2a5aa404d1094775"
"""Of the server's jar: what was fetched is what its makers published."""
_FETCHED_BYTES: Final = 90_000_000
READY_WITHIN_S: Final = 60.0
MAX_SPANS: Final = 100_000
"""How many spans it keeps; then the oldest traces go."""


def find(named: str = "") -> Path | None:
    """Return the server's jar: the one `named` (setting zipkin), else the one in the cache; or None.

    Raises:
        InputError: the one named is no file.
    """
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise InputError(
                f"setting zipkin (TAPEWATCH_ZIPKIN): {named}", "is no file", right="leave it out to have one fetched"
            )
        return path
    path = cache() / f"zipkin-{VERSION}-{SHA256[:12]}" / "zipkin.jar"
    return path if path.is_file() else None


def find_or_fetch(named: str = "", say: Tell | None = None) -> Path:
    """Return the server's jar, fetching it first when there is none.

    Raises:
        InputError: the one named is no file.
        PermanentError: it cannot be fetched; says what to install, or Maven's last words.
    """
    found = find(named)
    if found is not None:
        return found
    say = say or tell
    if shutil.which("mvn") is None:
        raise PermanentError(
            f"there is no program mvn, which fetches Zipkin {VERSION}: install Maven (Debian: maven), or name its jar "
            "with TAPEWATCH_ZIPKIN"
        )
    target = cache() / f"zipkin-{VERSION}-{SHA256[:12]}"
    with work_place(f"zipkin-{VERSION}", 2 * _FETCHED_BYTES, say) as work:
        if target.is_dir():
            return target / "zipkin.jar"
        say(f"fetching Zipkin {VERSION}, once: {_FETCHED_BYTES / 1e6:.0f} MB")
        began = time.monotonic()
        shutil.copy(SOURCE / POM, work / "pom.xml")
        repository, out = work / "maven", work / "out"
        run(
            f"fetching Zipkin {VERSION}",
            ["mvn", "-B", "-q", "-C", "-f", "pom.xml", f"-Dmaven.repo.local={repository}", f"-Dout={out}",
             "generate-resources"],
            cwd=work, log=work / "maven.log",
            progress=lambda: f"{size_of(repository) / 1e6:.0f} of {_FETCHED_BYTES / 1e6:.0f} MB",
        )  # fmt: skip
        if hashlib.sha256((out / "zipkin.jar").read_bytes()).hexdigest() != SHA256:
            raise PermanentError(f"what was fetched as Zipkin {VERSION} is something else: zipkin.jar differs")
        publish(out, target)
    say(f"Zipkin {VERSION} is in {target} after {elapsed(began)}")
    return target / "zipkin.jar"


def _java() -> str:
    named = os.environ.get("JAVA_HOME")
    program = str(Path(named) / "bin" / "java") if named else shutil.which("java")
    if program is None or not os.access(program, os.X_OK):
        raise PermanentError(
            f"there is no program {program or 'java'}, which runs Zipkin: install Java 17 or newer (Debian: "
            "openjdk-17-jre-headless), or name its directory with JAVA_HOME"
        )
    return program


class Zipkin(TraceServer):
    """One Zipkin, with its page."""

    title = "Zipkin"
    ready_within_s = READY_WITHIN_S
    health_path = "/health"

    def __init__(self, jar: Path, *, port: int = 0) -> None:
        """Take a port (0: a free one); nothing is started before `start`."""
        self.port = port or free_ports(1)[0]
        self.url = f"http://{HOST}:{self.port}"
        super().__init__(self.port)
        self._jar = jar

    def _argv(self, directory: Path) -> Sequence[str]:
        # By default it listens on every interface; all that is said to it here keeps it on loopback.
        return (
            _java(), "-Xms64m", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Djava.io.tmpdir={directory}", "-jar", str(self._jar),
            f"--armeria.ports[0].ip={HOST}", f"--armeria.ports[0].port={self.port}",
            "--armeria.ports[0].protocols[0]=http",
            "--zipkin.storage.type=mem", f"--zipkin.storage.mem.max-spans={MAX_SPANS}",
        )  # fmt: skip

    def _telling(self, lines: list[str]) -> list[str]:
        return [line for line in lines if "ERROR" in line or "xception" in line or "rror:" in line]
