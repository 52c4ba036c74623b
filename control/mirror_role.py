"""The role `mirror`, wired: another region's journal into the brokers here, until an engine takes over."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control.config import KafkaAccess, RoleConfig
from control.layout import Layout
from control.process_facts import ProcessFacts
from exchange.adapters.http import HttpServer, common_routes, json_response, listen, read_secret
from exchange.adapters.kafka_mirror import Mirror
from exchange.adapters.kafka_topics import KafkaPlace
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_files import FileLog
from monitor.catalog import Role
from monitor.logs import EcsFormat

if TYPE_CHECKING:
    from collections.abc import Sequence


class MirrorStatus(msgspec.Struct, frozen=True):
    """What `/v1/mirror` answers."""

    sequence: int
    """The last command that is durable here."""
    connected: bool
    """Whether the other region's brokers answer."""
    lag: int | None
    """How many of its records are not here yet; None while that cannot be known."""


class MirrorInstruments:
    """`MirrorTelemetry` over an exporter. One thread writes, and what is read is one value each."""

    def __init__(self, exporter: Exporter) -> None:
        self._sequence = exporter.level("exchange_mirror_sequence")
        self._commands = exporter.count("exchange_mirror_commands_total")
        self._connected = exporter.level("exchange_mirror_source_connected")
        self._lag = exporter.level("exchange_mirror_lag_records")
        self.status = MirrorStatus(0, connected=False, lag=None)
        self._connected.set(0)

    def mirrored(self, seq: int, records: int) -> None:
        """See `MirrorTelemetry`."""
        self._sequence.set(seq)
        self._commands.add(records)
        self.status = msgspec.structs.replace(self.status, sequence=seq)

    def looked(self, *, connected: bool, lag: int | None) -> None:
        """See `MirrorTelemetry`. Of a source that does not answer the lag is not known, and no number is told."""
        self._connected.set(connected)
        if lag is None:
            self._lag.unset()
        else:
            self._lag.set(lag)
        self.status = msgspec.structs.replace(self.status, connected=connected, lag=lag)


def place_of(access: KafkaAccess) -> KafkaPlace:
    """Return what the adapters know a cluster by."""
    return msgspec.convert(msgspec.to_builtins(access), type=KafkaPlace)


async def serve(config: RoleConfig, stop: asyncio.Event) -> int:
    """Follow until `stop`; returns the exit code. Brokers that are away are waited for.

    Raises:
        PermanentError: it follows nobody, or the copy cannot go on (`exchange.adapters.kafka_mirror`).
    """
    if config.follows is None or config.kafka is None:
        raise PermanentError("a mirror needs the brokers of the other region and those here (setting follows)")
    layout, exporter = Layout(Path(config.state)), Exporter(Role.MIRROR)
    async with AsyncExitStack() as stack:
        secrets: Sequence[str] = [read_secret(layout.secret("admin"))]
        log = FileLog(
            layout.log(config.replica), EcsFormat(config.role, config.replica, secrets=secrets), SystemClock()
        )
        stack.callback(log.close)
        facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
        stack.callback(facts.cancel)
        told = MirrorInstruments(exporter)

        async def status(_: Request) -> Response:
            return json_response(told.status)

        def ready() -> tuple[bool, str]:
            seen = told.status
            where = f"{seen.sequence} commands are here"
            return True, f"{where}, the other region {'answers' if seen.connected else 'does not answer'}"

        routes = [*common_routes(exporter, ready), Route("/v1/mirror", status, methods=["GET"])]
        server = HttpServer(Starlette(routes=routes), listen(config.port, config.listen))
        await server.start()
        stack.push_async_callback(server.stop)
        await _run(Mirror(place_of(config.follows), place_of(config.kafka), told, log), stop)
    return 0


async def _run(mirror: Mirror, stop: asyncio.Event) -> None:
    """Let the mirror work in a thread until told to stop, or until it fails."""
    ending = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(mirror.run, ending))
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([waiting, work], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.set()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await work
