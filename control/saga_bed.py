"""The five parts of settlement by sagas as processes on a broker and databases that are given, for tests and benches.

The trades come from a stream of this process, which speaks as the engine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from control.addresses import HOST
from control.child import tied
from control.config import DatabaseAccess, RabbitAccess, RoleConfig, SagaTuning, save_config
from control.layout import Layout
from control.plan import free_ports
from control.servers.catalogue import SAGA_PARTS
from exchange.events import Happened
from exchange.protocol import MAX_REPLY_BYTES, FrameReader, Heartbeat, Stream, Subscribe, frame, read_request
from exchange.saga_messages import Style
from exchange.types import Instrument
from kernel.errors import PermanentError
from kernel.time import Instant

READY_WITHIN_S: Final = 60.0
TOGETHER: Final = 256
_STEP_S: Final = 0.05
_HEARTBEAT_S: Final = 0.2


class TradeStream:
    """An event stream that is added to by hand."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        self._happened: list[Happened] = []
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> None:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._serve, HOST, port)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    def add(self, happened: Sequence[Happened]) -> None:
        """Let something happen; numbers go on from 1 without gaps."""
        self._happened.extend(happened)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            frames = FrameReader(MAX_REPLY_BYTES)
            bodies = list(frames.feed(await reader.read(65_536)))
            request = read_request(bodies[0])
            assert isinstance(request, Subscribe)
            assert request.from_seq is not None, "settlement says where it goes on"
            place, told = request.from_seq - 1, 0.0
            while not reader.at_eof():
                part = tuple(self._happened[place : place + TOGETHER])
                if part:
                    writer.write(frame(Stream(part)))
                    place += len(part)
                elif time.monotonic() - told > _HEARTBEAT_S:
                    told = time.monotonic()
                    writer.write(frame(Heartbeat(place, Instant(time.time_ns()))))
                await writer.drain()
                await asyncio.sleep(0 if part else 0.005)
        writer.close()


class SagaBed:
    """Five processes. Use as a context manager; nothing is started before `start`."""

    def __init__(
        self,
        directory: Path,
        style: Style,
        instruments: Sequence[Instrument],
        *,
        rabbit: str,
        password: str,
        database: str = "",
        faults_allowed: bool = False,
    ) -> None:
        """Write what each process is told.

        Args:
            directory: the state; books are SQLite files below it unless `database` is given.
            style: who knows what comes next.
            instruments: whose trades are settled.
            rabbit: address of the broker and virtual host, as `RabbitAccess.url`.
            password: of the broker's user.
            database: URL of a database that has the kind `saga`.
            faults_allowed: whether the parts accept faults.
        """
        self._layout: Final = Layout(directory)
        self.stream_port, *ports = free_ports(1 + len(SAGA_PARTS))
        self.ports: Final[Mapping[str, int]] = dict(zip(SAGA_PARTS, ports, strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._layout.secret("admin").parent.mkdir(parents=True, exist_ok=True)
        self.admin: Final = secrets.token_urlsafe(24)
        for name, word in (("admin", self.admin), ("rabbitmq", password)):
            self._layout.secret(name).touch(mode=0o600)
            self._layout.secret(name).write_text(word + "\n")
        for replica, part in SAGA_PARTS.items():
            config = RoleConfig(
                role="saga", replica=replica, state=str(directory), port=self.ports[replica],
                engine_http_port=1, engine_stream_port=self.stream_port, market_data_port=1, settlement_port=1,
                estate_port=1, control_port=1, prometheus_url="", alertmanager_url="", instruments=tuple(instruments),
                rabbit=RabbitAccess(url=rabbit, password_file=str(self._layout.secret("rabbitmq"))),
                saga=SagaTuning(part=part, style=style.value),
                ledger=DatabaseAccess(url=database) if database else None,
                faults_allowed=faults_allowed,
            )  # fmt: skip
            save_config(config, self._layout.config(replica))

    def __enter__(self) -> Self:
        """Return the bed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process."""
        for name in list(self._processes):
            self.kill(name)

    def start(self, *names: str) -> None:
        """Start these replicas, or all."""
        for name in names or tuple(SAGA_PARTS):
            output = self._layout.output(name)
            output.parent.mkdir(parents=True, exist_ok=True)
            with output.open("ab") as file:
                argv = tied([sys.executable, "-m", "control.roles", str(self._layout.config(name))])
                self._processes[name] = subprocess.Popen(argv, stdout=file, stderr=file)

    def kill(self, name: str) -> None:
        """End a replica as kill -9 does."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def wait_ready(self, *names: str, within_s: float = READY_WITHIN_S) -> None:
        """Return when these replicas, or all, are ready.

        Raises:
            PermanentError: one is not, in time; says what it wrote last.
        """
        until = time.monotonic() + within_s
        for name in names or tuple(SAGA_PARTS):
            while not self._is_ready(name):
                if time.monotonic() > until or self._processes[name].poll() is not None:
                    raise PermanentError(f"{name} is not ready: {self.last_words(name)}")
                time.sleep(_STEP_S)

    def ask(self, name: str, path: str = "/v1/sagas") -> Any:
        """Return what a replica answers, None when it does not."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.ports[name]}{path}", timeout=5) as answer:
                body = answer.read()
        except (OSError, urllib.error.HTTPError):
            return None
        return json.loads(body) if path.startswith("/v1") else body.decode()

    def told(self) -> dict[str, Any]:
        """Return what every replica says of its sagas, or wrote last."""
        return {name: self.ask(name) or self.last_words(name) for name in SAGA_PARTS}

    def last_words(self, name: str) -> str:
        """Return the end of what a replica wrote."""
        path = self._layout.output(name)
        return path.read_text(errors="replace")[-500:] if path.exists() else ""

    def _is_ready(self, name: str) -> bool:
        return self.ask(name, "/health/ready") is not None
