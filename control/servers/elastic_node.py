"""One Elasticsearch node on loopback: started as a child, asked, stopped, and gone without a trace."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from control.addresses import HOST
from control.child import tied
from control.plan import free_ports
from control.servers.elastic import CURRENT, Release, java_home
from kernel.errors import PermanentError, TemporaryError

READY_WITHIN_S: Final = 120.0
NOBODY: Final = 65_534
"""Who runs it when we are root: the server refuses to."""
HEAP: Final = "256m"
_STEP_S: Final = 0.1
_TAIL_LINES: Final = 8
_DROPPED: Final = ("-Xlog:gc", "HeapDump", "UseG1GC", "-Xms", "-Xmx", "ErrorFile", "AlwaysPreTouch", "Xlog:gc")


class ElasticStatusError(PermanentError):
    """The node answered with an error: `code` (HTTP) and `body`."""

    def __init__(self, request: str, code: int, body: Any) -> None:
        super().__init__(f"{request} was answered {code}: {str(body)[:400]}")
        self.code = code
        self.body = body


class Node:
    """A single node. A context manager; its processes end with the thread that started them.

    With `password` its security is on (HTTP without TLS, user `elastic`).
    """

    def __init__(
        self,
        home: Path,
        directory: Path | None = None,
        *,
        release: Release = CURRENT,
        heap: str = HEAP,
        password: str = "",
        port: int = 0,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Take ports; nothing is written before `start`.

        Args:
            home: the server's directory, of `control.servers.elastic`.
            directory: where its data and logs lie; None for one of its own that is removed at the end. Every directory
                above it must be open to others when we are root.
            release: what `home` holds.
            heap: of the Java machine, such as `256m`.
            password: of the user `elastic`; empty: security is off.
            port: of HTTP; 0 for a free one.
            settings: further settings of elasticsearch.yml by dotted name; they come before ours.
        """
        self.home = home
        self._lasting = directory is not None
        self.directory = directory.absolute() if directory is not None else Path()
        self._release, self._heap, self.password = release, heap, password
        ports = free_ports(2)
        self.port, self._transport = port or ports[0], ports[1]
        self.url = f"http://{HOST}:{self.port}"
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.ready_s = 0.0
        """Seconds from the start to ready."""

    # --- its life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and remove a directory of its own."""
        self.close()

    def start(self, within_s: float = READY_WITHIN_S) -> Self:
        """Start it, anew on the same data if it ran before; returns when it takes documents.

        Raises:
            PermanentError: Java is missing, or the node ended; carries its last words.
            TemporaryError: it was not ready in time.
        """
        assert self._process is None, "the node runs already"
        began = time.monotonic()
        java = java_home(self._release)
        if not self._lasting and not self.directory.name:
            self.directory = Path(tempfile.mkdtemp(prefix="tapewatch-elastic-"))
        try:
            self._write_files()
            self._spawn(java)
            self._wait(began + within_s)
        except BaseException:
            self.close()
            raise
        self.ready_s = time.monotonic() - began
        return self

    def stop(self) -> None:
        """End it in order; its data stay."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would; its data stay."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End it at once and remove its directory, if that is one of its own."""
        self.kill()
        if not self._lasting and self.directory.name:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = Path()

    @property
    def pids(self) -> list[int]:
        """Its processes: the launcher and the server."""
        if self._process is None or self._process.poll() is not None:
            return []
        with contextlib.suppress(psutil.Error):
            launcher = psutil.Process(self._process.pid)
            return [launcher.pid, *(child.pid for child in launcher.children(recursive=True))]
        return []

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        whole = [one for pid in self.pids for one in _processes(pid)]
        for one in whole if number == signal.SIGKILL else whole[:1]:
            with contextlib.suppress(psutil.Error):
                one.send_signal(number)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _, alive = psutil.wait_procs(whole, timeout=30)
        for one in alive:
            with contextlib.suppress(psutil.Error):
                one.kill()
        self._process = None

    # --- asking -----------------------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: object = None, *, timeout_s: float = 30.0, user: str = "elastic"
    ) -> Any:
        """Ask the node once and return what it answered; lines (a bulk) are given as text or bytes.

        Raises:
            ElasticStatusError: it answered with an error.
            TemporaryError: it did not answer.
        """
        raw = body if isinstance(body, str | bytes) else None if body is None else json.dumps(body)
        kind = "application/x-ndjson" if isinstance(body, str | bytes) else "application/json"
        headers = {"Content-Type": kind} if raw is not None else {}
        if self.password:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{self.password}".encode()).decode()
        connection = http.client.HTTPConnection(HOST, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, raw, headers)
            response = connection.getresponse()
            code, data = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise TemporaryError(f"{method} {path} has no answer: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()
        try:
            said: Any = json.loads(data) if data else {}
        except ValueError:
            said = data.decode(errors="replace")
        if code >= 400:  # noqa: PLR2004 - HTTP's own number
            raise ElasticStatusError(f"{method} {path}", code, said)
        return said

    # --- starting ---------------------------------------------------------------------------------------------------

    def _write_files(self) -> None:
        conf = self.directory / "conf"
        for name in ("conf", "data", "logs", "tmp"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(self.home / "config" / "log4j2.properties", conf)
        given = (self.home / "config" / "jvm.options").read_text().splitlines()
        small = [f"-Xms{self._heap}", f"-Xmx{self._heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                 "-XX:-AlwaysPreTouch", f"-XX:ErrorFile={self.directory / 'logs' / 'hs_err_pid%p.log'}"]  # fmt: skip
        kept = [line for line in given if not any(word in line for word in _DROPPED)]
        (conf / "jvm.options").write_text("\n".join([*kept, *small]) + "\n")
        lines = [f"{name}: {json.dumps(value)}" for name, value in self._yml().items()]
        (conf / "elasticsearch.yml").write_text("\n".join(lines) + "\n")
        if os.getuid() == 0:
            self.directory.chmod(0o755)
            for path in (self.directory, *self.directory.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
            _check_open(self.directory)
            _check_open(self.home)

    def _yml(self) -> dict[str, object]:
        modern = self._release.major >= 7  # noqa: PLR2004 - the first with these names
        transport = "transport.port" if modern else "transport.tcp.port"
        ours: dict[str, object] = {
            "cluster.name": "tapewatch", "node.name": "n1", "network.host": HOST, "http.port": self.port,
            transport: self._transport, "discovery.type": "single-node",
            "path.data": str(self.directory / "data"), "path.logs": str(self.directory / "logs"),
            "cluster.routing.allocation.disk.threshold_enabled": False,
        }  # fmt: skip
        if modern:
            ours |= {
                "xpack.security.enabled": bool(self.password), "xpack.security.http.ssl.enabled": False,
                "xpack.security.transport.ssl.enabled": False, "xpack.security.enrollment.enabled": False,
            }  # fmt: skip
        else:
            ours |= {f"xpack.{part}.enabled": False for part in ("ml", "watcher", "monitoring", "security")}
        merged = ours | self._settings
        return {name: value for name, value in merged.items() if value is not None}

    def _spawn(self, java: Path) -> None:
        env = {
            **os.environ, "ES_PATH_CONF": str(self.directory / "conf"), "ES_TMPDIR": str(self.directory / "tmp"),
            # The launcher itself leaves files where Java keeps temporary ones; there they go with the node.
            "CLI_JAVA_OPTS": f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            "ES_JAVA_HOME": str(java), "JAVA_HOME": str(java), "HOME": str(self.directory),
        }  # fmt: skip
        log = self.directory / "logs" / "start.out"
        if self.password and not (self.directory / "conf" / "elasticsearch.keystore").exists():
            self._keep_password(env)
        with log.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    [*tied(_as_other()), str(self.home / "bin" / "elasticsearch")],
                    cwd=self.home, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise PermanentError(f"Elasticsearch cannot be started: setpriv: {error.strerror}") from error

    def _keep_password(self, env: Mapping[str, str]) -> None:
        tool = [*_as_other(), str(self.home / "bin" / "elasticsearch-keystore")]
        for argv, said in (([*tool, "create"], ""), ([*tool, "add", "-x", "bootstrap.password"], self.password)):
            done = subprocess.run(argv, cwd=self.home, env=env, input=said, check=False, capture_output=True, text=True)
            if done.returncode:
                raise PermanentError(f"the password cannot be kept: {(done.stderr or done.stdout).strip()[-300:]}")

    def _wait(self, until: float) -> None:
        assert self._process is not None
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise PermanentError(
                    f"Elasticsearch ended with exit code {self._process.returncode}: {self.last_words()}"
                )
            with contextlib.suppress(TemporaryError, ElasticStatusError):
                said = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s", timeout_s=5.0)
                if not said.get("timed_out", True):
                    return
            time.sleep(_STEP_S)
        raise TemporaryError(f"Elasticsearch was not ready in time: {self.last_words()}")

    def last_words(self) -> str:
        """Return what the node wrote last, for error messages."""
        try:
            lines = (self.directory / "logs" / "start.out").read_text(errors="replace").splitlines()
        except OSError:
            return "(its output cannot be read)"
        telling = [line for line in lines if "ERROR" in line or "xception" in line] or lines
        return " / ".join(telling[-_TAIL_LINES:])[:800] or "(it wrote nothing)"


def _as_other() -> list[str]:
    if os.getuid() != 0:
        return []
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *ids, "--pdeathsig", "KILL", "--"]


def _processes(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.Error:
        return []


def _check_open(directory: Path) -> None:
    for above in (directory, *directory.parents):
        if not above.stat().st_mode & 0o001:
            raise PermanentError(
                f"{above} is closed to others, and Elasticsearch does not run as root: take another directory"
                " (XDG_CACHE_HOME moves the cache)"
            )
