"""One real server under the estate's care: `python -m control.serverhost CONFIG.json`.

The server is this process's child and dies with it; when the server ends by itself, so does this process, with the
server's last words. So a supervisor that knows nothing of brokers and databases sees a replica that lives, is ready by
the server's own protocol, tells metrics, or is gone; whether it is started again is for runbooks to decide.

Exit codes: 0 stopped when asked, 1 the server cannot start or ended (one sentence on standard error), 78 the
configuration is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import psutil

from control.servers.hosted import Hosted, ServerConfig, Telling, hosted, load_server_config
from kernel.adapters.clock import SystemClock
from kernel.errors import TapewatchError
from monitor.catalog import Role

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from exchange.adapters.http import Faults
    from monitor.adapters.exporter import Exporter
    from monitor.adapters.log_files import FileLog

KILL: Final = "server-kill"
"""A fault that acts once: the server's processes are killed, as by the kernel or a power cut."""
STALL: Final = "server-stall"
"""A fault that lasts: the server's processes stand still (SIGSTOP), their ports stay open."""
SLOW: Final = "server-slow"
"""A fault that lasts: the server's processes stand still for 0.4 s of every 0.5 s, as behind a slow disk."""
SERVER_FAULTS: Final = frozenset({KILL, STALL, SLOW})
CONFIG_REFUSED: Final = 78
"""EX_CONFIG of sysexits.h."""
_LOOK_S: Final = 0.1
_SLOW_TURNS: Final = 5
"""Of so many looks a slow server stands still at all but one."""
_OBSERVE_S: Final = 1.0
DISK_FULL_BYTES: Final = 16 * 1024 * 1024
"""No server here can write its files in less."""
_USAGE: Final = "usage: python -m control.serverhost CONFIG.json"
_T = TypeVar("_T")


class ServerHost:
    """The life of one server, seen from outside."""

    def __init__(self, server: Hosted, config: ServerConfig, exporter: Exporter, log: FileLog, faults: Faults) -> None:
        self._server: Final = server
        self._config: Final = config
        self._exporter: Final = exporter
        self._log: Final = log
        self._faults: Final = faults
        # The kernel ends a child with the thread that forked it: this one starts the server and lives on.
        self._life: Final = ThreadPoolExecutor(1, thread_name_prefix="server")
        self._eyes: Final = ThreadPoolExecutor(1, thread_name_prefix="observe")
        self._ready = (False, "the server is being started")
        self._stalled = False
        self._turn = 0

    def ready(self) -> tuple[bool, str]:
        """Tell what was last seen of the server's readiness."""
        return self._ready

    async def run(self, stop: asyncio.Event) -> int:
        """Start the server, watch it until it is to stop or ends by itself; return the exit code."""
        name, starting = self._config.replica, asyncio.ensure_future(self._call(self._life, self._server.start))
        observing: asyncio.Task[None] | None = None
        try:
            await _first(starting, stop)
            if stop.is_set():
                return 0
            await starting
            self._log.event("server-started", server=name)
            observing = asyncio.create_task(self._observe(), name="observe")
            while not stop.is_set():
                if words := await self._call(self._life, self._server.ended):
                    words += _full_disk(self._config)
                    self._log.event("server-ended", severity="error", server=name, why=words)
                    return _say(f"{name}: {words}", 1)
                self._act()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await stop.wait()
            return 0
        finally:
            if observing is not None:
                observing.cancel()
            self._ready = (False, "the server is being stopped")
            if self._stalled:
                self._signal(signal.SIGCONT)
            await asyncio.gather(starting, return_exceptions=True)
            await self._call(self._life, self._server.stop)
            self._log.event("server-stopped", server=name)
            for pool in (self._life, self._eyes):
                pool.shutdown(wait=False, cancel_futures=True)

    async def _observe(self) -> None:
        """Look at the server about once a second. What fails is told as not ready, never as the end of the host."""
        while True:
            try:
                now_ready = await self._call(self._eyes, self._server.ready)
                await self._call(self._eyes, lambda: self._server.observe(self._exporter))
            except Exception as error:  # noqa: BLE001 - a client library's errors are of many kinds, and all mean this
                now_ready = (False, f"it cannot be looked at: {error}")
            if now_ready[0] != self._ready[0]:
                word = "server-ready" if now_ready[0] else "server-not-ready"
                self._log.event(word, severity="info" if now_ready[0] else "warning",
                                server=self._config.replica, why=now_ready[1])  # fmt: skip
            self._ready = now_ready
            await asyncio.sleep(_OBSERVE_S if now_ready[0] else _LOOK_S)

    def _act(self) -> None:
        if self._faults.active(KILL):
            self._faults.take(KILL)
            self._signal(signal.SIGKILL)
        self._turn = (self._turn + 1) % _SLOW_TURNS
        stall = self._faults.active(STALL) or (self._faults.active(SLOW) and self._turn > 0)
        if stall != self._stalled:
            self._signal(signal.SIGSTOP if stall else signal.SIGCONT)
            self._stalled = stall

    @staticmethod
    def _signal(number: signal.Signals) -> None:
        """Send a signal to every process of the server: all that descend from this one."""
        for child in psutil.Process(os.getpid()).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.send_signal(number)

    @staticmethod
    async def _call(pool: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


async def _first(work: asyncio.Future[None], stop: asyncio.Event) -> None:
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def serve(config: ServerConfig, stop: asyncio.Event) -> int:
    """Host a server until told to stop; return the exit code.

    Raises:
        TapewatchError: it cannot be started.
    """
    from starlette.applications import Starlette

    from control.process_facts import ProcessFacts
    from exchange.adapters.http import Faults, HttpServer, common_routes, listen
    from monitor.adapters.exporter import Exporter
    from monitor.adapters.log_files import FileLog
    from monitor.logs import EcsFormat

    exporter, admin = Exporter(Role(config.service)), config.secret("admin")
    async with AsyncExitStack() as stack:
        path = config.layout.log(config.replica)
        path.parent.mkdir(parents=True, exist_ok=True)
        log = FileLog(path, EcsFormat(config.service, config.replica, secrets=_secrets(config)), SystemClock())
        stack.callback(log.close)
        facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
        stack.callback(facts.cancel)
        server = hosted(config)
        if isinstance(server, Telling):
            server.log_to(log)
        faults = Faults(SERVER_FAULTS, allowed=config.faults_allowed)
        host = ServerHost(server, config, exporter, log, faults)
        routes: list[BaseRoute] = [
            *common_routes(exporter, host.ready), *faults.routes(admin), *server.routes(admin),
        ]  # fmt: skip
        http = HttpServer(Starlette(routes=routes), listen(config.port))
        await http.start()
        stack.push_async_callback(http.stop)
        return await host.run(stop)


def _secrets(config: ServerConfig) -> list[str]:
    """Return what must never stand in the log: every short text in the directory of secrets."""
    directory = config.layout.secret("x").parent
    return [path.read_text().strip() for path in directory.iterdir() if path.is_file() and "." not in path.name]


def main(arguments: Sequence[str]) -> int:
    """Host the server that a configuration names until told to stop; return the exit code."""
    if len(arguments) != 1:
        return _say(_USAGE, 2)
    try:
        config = load_server_config(Path(arguments[0]))
    except OSError as error:
        return _say(f"{arguments[0]}: cannot read the configuration ({error.strerror})", CONFIG_REFUSED)
    except msgspec.DecodeError as error:
        return _say(f"{arguments[0]}: no configuration of this version ({error})", CONFIG_REFUSED)
    try:
        return asyncio.run(_until_told(config))
    except (TapewatchError, OSError) as error:
        return _say(f"{config.replica}: {error}{_full_disk(config)}", 1)


def _full_disk(config: ServerConfig) -> str:
    """Say that the disk is full when it is: a server it ends may speak of anything else."""
    free = shutil.disk_usage(config.layout.root).free
    if free >= DISK_FULL_BYTES:
        return ""
    return f"; the disk of {config.layout.root} is full ({free // 1024**2} MiB left)"


async def _until_told(config: ServerConfig) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await serve(config, stop)


def _say(sentence: str, code: int) -> int:
    """Write one line: whoever asks for last words reads the last line, and client libraries speak in several."""
    sys.stderr.write(" ".join(sentence.split()) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
