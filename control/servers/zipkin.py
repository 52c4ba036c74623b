"""Zipkin: found, or fetched once as a Maven artefact; a child on loopback with its page, traces in memory."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from control.addresses import HOST
from control.child import tied
from control.plan import free_ports
from control.servers.store import SOURCE, Tell, cache, elapsed, publish, run, size_of, tell, work_place
from kernel.errors import InputError, PermanentError, TemporaryError

VERSION: Final = "3.6.1"
POM: Final = "zipkin.xml"
SHA256: Final = "981b1de6139b4f8f787a909c308028732f9713ae5284353d2a5aa404d1094775"
"""Of the server's jar: what was fetched is what its makers published."""
_FETCHED_BYTES: Final = 90_000_000
READY_WITHIN_S: Final = 60.0
MAX_SPANS: Final = 100_000
"""How many spans it keeps; then the oldest traces go."""
_STEP_S: Final = 0.1
_GRACE_S: Final = 10.0
_OK: Final = 200


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


class Zipkin:
    """One Zipkin. A context manager; it ends with the thread that started it, and its traces with it."""

    def __init__(self, jar: Path, *, port: int = 0) -> None:
        """Take a port (0: a free one); nothing is started before `start`."""
        self.port = port or free_ports(1)[0]
        self.url = f"http://{HOST}:{self.port}"
        self.ready_s = 0.0
        """Seconds from the start to ready."""
        self._jar = jar
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()

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

    def start(self, within_s: float = READY_WITHIN_S) -> Self:
        """Start it; returns when it takes spans.

        Raises:
            PermanentError: Java is missing, or the server ended; carries its last words.
            TemporaryError: it was not ready in time.
        """
        assert self._process is None, "it runs already"
        began = time.monotonic()
        self._directory = Path(tempfile.mkdtemp(prefix="tapewatch-zipkin-"))
        # By default it listens on every interface; all that is said to it here keeps it on loopback.
        argv = [
            _java(), "-Xms64m", "-Xmx160m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Djava.io.tmpdir={self._directory}", "-jar", str(self._jar),
            f"--armeria.ports[0].ip={HOST}", f"--armeria.ports[0].port={self.port}",
            "--armeria.ports[0].protocols[0]=http",
            "--zipkin.storage.type=mem", f"--zipkin.storage.mem.max-spans={MAX_SPANS}",
        ]  # fmt: skip
        try:
            with (self._directory / "out.log").open("wb") as output:
                self._process = subprocess.Popen(
                    tied(argv), cwd=self._directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            self._wait(began + within_s)
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

    def _wait(self, until: float) -> None:
        assert self._process is not None
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise PermanentError(f"Zipkin ended with exit code {self._process.returncode}: {self.last_words()}")
            if self.healthy():
                return
            time.sleep(_STEP_S)
        raise TemporaryError(f"Zipkin was not ready in time: {self.last_words()}")

    def healthy(self) -> bool:
        """Tell whether its health page says so."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/health")
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
        telling = [line for line in lines if "ERROR" in line or "xception" in line or "rror:" in line] or lines
        return " / ".join(telling[-6:])[:600] or "(it wrote nothing)"
