"""The role `shipper`, wired: the estate's logs to Elasticsearch, for estates without a shipper of their own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from control.config import RoleConfig
from control.elastic_access import access_of
from control.layout import Layout
from control.process_facts import ProcessFacts
from control.settings import load_settings
from control.shipper import Shipper
from exchange.adapters.http import HttpServer, common_routes, listen, read_secret
from exchange.ports import Log
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError
from monitor.adapters.elastic_client import Access, connect
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_files import FileLog
from monitor.adapters.shipper_elastic import ElasticSink
from monitor.adapters.shipper_files import DeadLetters, LogTail
from monitor.catalog import Role
from monitor.logs import EcsFormat
from monitor.shipping import IN_FLIGHT

REQUEST_S: Final = 30.0
_LOG_SECRETS: Final = ("admin", "webhook", "trade")


async def serve(config: RoleConfig, stop: asyncio.Event) -> int:
    """Ship until `stop`; returns the exit code. A server that is down or not set up is waited for.

    Raises:
        TapewatchError: it cannot start.
    """
    access = _access(config)
    layout, clock, exporter = Layout(Path(config.state)), SystemClock(), Exporter(Role.SHIPPER)
    async with AsyncExitStack() as stack:
        listener = listen(config.port, config.listen)
        stack.callback(listener.close)
        secrets = [read_secret(layout.secret(name)) for name in _LOG_SECRETS if layout.secret(name).exists()]
        more = [secret for secret in (access.password, access.api_key) if len(secret) >= 8]  # noqa: PLR2004 - EcsFormat's
        log = FileLog(layout.log(config.replica), EcsFormat(config.role, config.replica, secrets=secrets + more), clock)
        stack.callback(log.close)
        facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
        stack.callback(facts.cancel)
        client = connect(access, timeout_s=REQUEST_S, connections_per_node=IN_FLIGHT)
        stack.callback(client.close)
        assert config.shipping is not None
        shipper = Shipper(
            LogTail(layout.log(config.replica).parent, layout.shipper / "offsets.json"),
            ElasticSink(client, config.shipping.environment), DeadLetters(layout.shipper / "dead-letters.jsonl"),
            ShipperTelemetry(exporter, log), clock,
        )  # fmt: skip

        def ready() -> tuple[bool, str]:
            return True, shipper.why or "Elasticsearch takes what is sent"

        server = HttpServer(Starlette(routes=common_routes(exporter, ready)), listener)
        await server.start()
        stack.push_async_callback(server.stop)
        log.event("shipper-started", url=access.url.rsplit("@", 1)[-1])  # a URL may hold a password before the @
        await _run(shipper, stop)
    return 0


async def _run(shipper: Shipper, stop: asyncio.Event) -> None:
    """Let the shipper work in a thread until told to stop, or until it fails."""
    ending = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(shipper.run, ending.is_set))
    told = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([told, work], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ending.set()
        told.cancel()
        await work
        await asyncio.to_thread(shipper.close)


def _access(config: RoleConfig) -> Access:
    if config.shipping is None:
        raise PermanentError("the shipper is told of no Elasticsearch; its configuration needs `shipping`")
    told = config.shipping
    files = {
        name: Path(path) if path else None
        for name, path in (
            ("elastic_password_file", told.password_file), ("elastic_api_key_file", told.api_key_file),
            ("elastic_ca_file", told.ca_file),
        )
    }  # fmt: skip
    return access_of(load_settings(elastic_url=told.url, elastic_user=told.user or None, **files))


class ShipperTelemetry:
    """`control.shipper.Told` over the catalogue's cells and the role's own log."""

    def __init__(self, exporter: Exporter, log: Log) -> None:
        """Tell through both; called from the shipper's thread alone."""
        self._exporter, self._log = exporter, log

    def counted(self, result: str, amount: int) -> None:
        """See `Told`."""
        self._exporter.count("tapewatch_shipper_events_total", result).add(amount)

    def standing(self, backlog_bytes: int, lag_s: float, up: bool) -> None:  # noqa: FBT001 - the port's signature
        """See `Told`."""
        self._exporter.level("tapewatch_shipper_backlog_bytes").set(backlog_bytes)
        self._exporter.level("tapewatch_shipper_lag_seconds").set(lag_s)
        self._exporter.level("tapewatch_shipper_up").set(int(up))

    def note(self, name: str, severity: str, **fields: object) -> None:
        """See `Told`."""
        self._log.event(name, severity=severity, **fields)
