"""The role `bridge`, wired: pages to people over providers that Alertmanager does not speak to, and their receipts."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from control.bridge import Bridge, BridgeParts, OutboxThread
from control.bridge_alarm import SHOWN_FOR, LostPages
from control.bridge_api import BridgeDoors, bridge_app
from control.bridge_config import load_bridge
from control.bridge_telemetry import BridgeInstruments
from control.config import RoleConfig
from control.layout import Layout
from control.process_facts import ProcessFacts
from exchange.adapters.http import HttpServer, listen, read_secret
from incidents.adapters.page_outbox import PageOutbox
from incidents.adapters.pager_http import PagerHttp
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError
from kernel.time import Instant
from monitor.adapters.alertmanager_api import AlertmanagerApi
from monitor.adapters.exporter import Exporter
from monitor.adapters.log_files import FileLog
from monitor.catalog import Role
from monitor.logs import EcsFormat

_LOG_SECRETS: Final = ("admin", "webhook")


async def serve(config: RoleConfig, stop: asyncio.Event) -> int:
    """Deliver pages until `stop`; returns the exit code.

    Raises:
        TapewatchError: it cannot start.
    """
    if not config.bridge:
        raise PermanentError("the bridge is told of no file; its configuration needs `bridge`")
    layout, clock, file = Layout(Path(config.state)), SystemClock(), load_bridge(Path(config.bridge))
    exporter = Exporter(Role.BRIDGE)
    telemetry = BridgeInstruments(exporter, file.channels)
    async with AsyncExitStack() as stack:
        listener = listen(config.port, config.listen)
        stack.callback(listener.close)
        log = _log(config, layout, file.secrets, clock)
        stack.callback(log.close)
        facts = asyncio.create_task(ProcessFacts(exporter, log).run(), name="process facts")
        stack.callback(facts.cancel)
        outbox = OutboxThread(PageOutbox(layout.pages))
        stack.push_async_callback(outbox.close)
        http = PagerHttp(timeout_s=file.timeout_s, loopback=file.loopback)
        stack.push_async_callback(http.close)
        alerts = await stack.enter_async_context(AlertmanagerApi(config.alertmanager_url))
        lost = LostPages(alerts, log, clock)
        bridge = Bridge(BridgeParts(file, outbox, http, telemetry, log, clock, lost.lost))
        webhook, admin = (read_secret(layout.secret(name)) for name in ("webhook", "admin"))
        doors = BridgeDoors(bridge, file, outbox, exporter, clock, webhook, admin)
        server = HttpServer(bridge_app(doors), listener)
        await server.start()
        stack.push_async_callback(server.stop)
        for one in await outbox.call(PageOutbox.lost_since, Instant(clock.now() - SHOWN_FOR)):
            if not one.page.test:
                lost.lost(one)
        await bridge.load()
        log.event("bridge-started", channels=list(file.channels))
        await _until(stop, bridge.run(), lost.run())
        await bridge.stop()
    return 0


async def _until(stop: asyncio.Event, *work: Coroutine[object, object, None]) -> None:
    """Work until told to stop, or until one part fails: half a bridge is worse than none."""
    tasks = [asyncio.create_task(one) for one in work]
    told = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in (told, *tasks):
        task.cancel()
    await asyncio.gather(told, *tasks, return_exceptions=True)
    for task in done - {told}:
        task.result()


def _log(config: RoleConfig, layout: Layout, more: tuple[str, ...], clock: SystemClock) -> FileLog:
    secrets = [read_secret(layout.secret(name)) for name in _LOG_SECRETS] + list(more)
    path = layout.log(config.replica)
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLog(path, EcsFormat(config.role, config.replica, secrets=secrets), clock)
