"""One Elasticsearch node on loopback: started as a child, asked, stopped, and gone without a trace."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from control.addresses import HOST
from control.plan import free_ports
from control.servers.elastic import CURRENT, Release, java_home
from control.servers.local_server import LocalServer
from control.servers.unprivileged import as_nobody, check_open, give
from kernel.errors import PermanentError, TemporaryError

READY_WITHIN_S: Final = 120.0
HEAP: Final = "256m"
_DROPPED: Final = ("-Xlog:gc", "HeapDump", "UseG1GC", "-Xms", "-Xmx", "ErrorFile", "AlwaysPreTouch", "Xlog:gc")


class ElasticStatusError(PermanentError):
    """The node answered with an error: `code` (HTTP) and `body`."""

    def __init__(self, request: str, code: int, body: Any) -> None:
        super().__init__(f"{request} was answered {code}: {str(body)[:400]}")
        self.code = code
        self.body = body


class Node(LocalServer):
    """A single node. A context manager; its processes end with the thread that started them.

    With `password` its security is on (HTTP without TLS, user `elastic`).
    """

    title = "Elasticsearch"
    house = "elastic"
    ready_within_s = READY_WITHIN_S
    outputs = ("logs/start.out",)
    telling = ("ERROR", "xception")

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
        super().__init__(directory)
        self.home = home
        self._release, self._heap, self.password = release, heap, password
        ports = free_ports(2)
        self.port, self._transport = port or ports[0], ports[1]
        self.url = f"http://{HOST}:{self.port}"
        self._settings = dict(settings or {})

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

    def _prepare(self) -> None:
        self._java = java_home(self._release)
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
                give(path)
            for path in (self.directory, self.home):
                check_open(path, self.title, "XDG_CACHE_HOME moves the cache")

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

    def _launch(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        env = {
            **os.environ, "ES_PATH_CONF": str(self.directory / "conf"), "ES_TMPDIR": str(self.directory / "tmp"),
            # The launcher itself leaves files where Java keeps temporary ones; there they go with the node.
            "CLI_JAVA_OPTS": f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            "ES_JAVA_HOME": str(self._java), "JAVA_HOME": str(self._java), "HOME": str(self.directory),
        }  # fmt: skip
        if self.password and not (self.directory / "conf" / "elasticsearch.keystore").exists():
            self._keep_password(env)
        return self._child([*as_nobody(), str(self.home / "bin" / "elasticsearch")], output, env, self.home)

    def _keep_password(self, env: Mapping[str, str]) -> None:
        tool = [*as_nobody(), str(self.home / "bin" / "elasticsearch-keystore")]
        for argv, said in (([*tool, "create"], ""), ([*tool, "add", "-x", "bootstrap.password"], self.password)):
            done = subprocess.run(argv, cwd=self.home, env=env, input=said, check=False, capture_output=True, text=True)
            if done.returncode:
                raise PermanentError(f"the password cannot be kept: {(done.stderr or done.stdout).strip()[-300:]}")

    def _why_not(self) -> str:
        with contextlib.suppress(TemporaryError, ElasticStatusError):
            said = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s", timeout_s=5.0)
            if not said.get("timed_out", True):
                return ""
        return "its cluster is not whole"
