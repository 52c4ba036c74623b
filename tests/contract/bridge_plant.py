"""A whole bridge in one process beside the sinks: its own store, its own port, every channel configured."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from control.bridge import Bridge, BridgeParts, OutboxThread
from control.bridge_api import BridgeDoors, bridge_app
from control.bridge_config import load_bridge
from control.bridge_telemetry import BridgeInstruments
from exchange.adapters.http import HttpServer, listen
from incidents.adapters.page_outbox import PageOutbox
from incidents.adapters.pager_http import PagerHttp
from incidents.paging.outbox import OVER, Delivery
from kernel.adapters.clock import SystemClock
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role
from tests.contract.sinks import (
    ACCOUNT,
    GENIE_KEY,
    PATHS,
    ROUTING_KEY,
    SLACK_CHANNEL,
    SLACK_TOKEN,
    TWILIO_TOKEN,
    Sinks,
)

WEBHOOK = {"Authorization": "Bearer webhook-secret"}
ADMIN = {"Authorization": "Bearer admin-secret"}
PERSON = "+4930123456"
IMPATIENT = {
    "first_wait_s": 0.05, "wait_s_max": 0.2, "give_up_s": 30.0, "unconfirmed_s": 30.0, "escalate_s": 30.0,
    "timeout_s": 0.4, "poll_first_s": 0.02,
}  # fmt: skip


def bridge_file(folder: Path, url: str, public_url: str = "", **changes: Any) -> Path:
    """Write a bridge's file for every channel, and its secrets."""
    secrets = {
        "teams-url": url + PATHS["teams"], "zenduty-url": url + PATHS["zenduty"], "twilio-token": TWILIO_TOKEN,
        "genie-key": GENIE_KEY, "routing-key": ROUTING_KEY, "slack-token": SLACK_TOKEN,
    }  # fmt: skip
    for name, text in secrets.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    twilio = {
        "url": url, "account": ACCOUNT, "secret_file": "twilio-token", "sender": "+12025550100",
        "to": {"default": [PERSON]},
    }  # fmt: skip
    patience = IMPATIENT | changes.pop("patience", {})
    told = {
        "loopback": True, "public_url": public_url, "patience": patience,
        "channels": {
            "teams": {"url_file": "teams-url"}, "zenduty": {"url_file": "zenduty-url"}, "sms": twilio, "call": twilio,
            "opsgenie": {"url": url, "secret_file": "genie-key"},
            "pagerduty": {"url": url, "secret_file": "routing-key"},
            "slack": {"url": url, "secret_file": "slack-token", "to": {"default": [SLACK_CHANNEL]}},
        },
        **changes,
    }  # fmt: skip
    path = folder / "bridge.yml"
    path.write_text(yaml.safe_dump(told))
    return path


class Cell:
    def __init__(self, numbers: Counter[str], key: str) -> None:
        self._numbers, self._key = numbers, key

    def add(self, amount: float = 1) -> None:
        self._numbers[self._key] += amount  # type: ignore[assignment]

    def set(self, value: float) -> None:
        self._numbers[self._key] = value  # type: ignore[assignment]

    def observe(self, value: float) -> None:
        self._numbers[self._key] += 1


class Numbers:
    """A meter that keeps plain numbers."""

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()

    def count(self, name: str, *labels: str) -> Cell:
        return Cell(self.numbers, " ".join([name, *labels]))

    level = spread = count


class Events:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def event(self, name: str, /, *, severity: str = "info", **fields: object) -> None:
        self.events.append((name, fields))


class BridgePlant:
    def __init__(self, sinks: Sinks, bridge: Bridge, outbox: OutboxThread, url: str) -> None:
        self.sinks, self.bridge, self.outbox, self.url = sinks, bridge, outbox, url
        self.numbers: Counter[str] = Counter()
        self.log = Events()
        self.lost: list[Delivery] = []

    async def post(self, path: str, body: Any, headers: dict[str, str] = WEBHOOK) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(
                self.url + path, data=io.BytesIO(data), headers={"Content-Type": "application/json"}
            ) as response,
        ):
            return response.status, json.loads(await response.read() or b"null")

    async def get(self, path: str) -> Any:
        async with aiohttp.ClientSession(headers=ADMIN) as session, session.get(self.url + path) as response:
            return json.loads(await response.read())

    async def page(self, channel: str, **changes: Any) -> str:
        """Hand a page over as Alertmanager does; returns the delivery's id."""
        status, answer = await self.post(f"/v1/pages/{channel}", webhook(**changes))
        assert status == 202, answer
        (delivery,) = answer["deliveries"]
        return str(delivery)

    async def delivery(self, delivery: str) -> Delivery:
        found = await self.outbox.call(PageOutbox.get, delivery)
        assert found is not None
        return found

    async def until(
        self, delivery: str, condition: Callable[[Delivery], bool] = lambda one: one.phase in OVER
    ) -> Delivery:
        """Return the delivery once the condition holds; the end of one also for the bridge, which tells it later."""
        async with asyncio.timeout(60):
            while True:
                kept, known = await self.delivery(delivery), self.bridge._open.get(delivery)
                if condition(kept) and (not kept.over or known is None or known.over):
                    return kept
                await asyncio.sleep(0.02)


def alert(**changes: Any) -> dict[str, Any]:
    labels = {
        "alertname": "GatewayDown", "severity": "critical", "level": "1", "team": "trading", "service": "gateway",
    }  # fmt: skip
    return {
        "status": "firing", "labels": labels, "startsAt": "2026-03-02T09:30:00Z", "endsAt": "0001-01-01T00:00:00Z",
        "annotations": {
            "summary": "Gateway gateway-1 does not answer", "description": "No scrape of it succeeded.",
            "runbook_url": "https://tapewatch.example/docs/alerts.md#gatewaydown",
            "dashboard": "https://tapewatch.example/dashboards/tapewatch-gateway",
        },
        "generatorURL": "", "fingerprint": "0123456789abcdef", **changes,
    }  # fmt: skip


def webhook(*alerts: dict[str, Any], key: str = '{}:{alertname="GatewayDown"}', **changes: Any) -> dict[str, Any]:
    told = list(alerts) or [alert()]
    firing = any(one["status"] == "firing" for one in told)
    return {
        "version": "4", "groupKey": key, "truncatedAlerts": 0, "status": "firing" if firing else "resolved",
        "receiver": "bridge", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "",
        "alerts": told, **changes,
    }  # fmt: skip


@contextlib.asynccontextmanager
async def bridge_plant(
    folder: Path, sinks: Sinks, *, callbacks: bool = False, **changes: Any
) -> AsyncIterator[BridgePlant]:
    listener = listen(0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = load_bridge(bridge_file(folder, sinks.url, url if callbacks else "", **changes))
    meter, clock = Numbers(), SystemClock()
    outbox = OutboxThread(PageOutbox(folder / "pages.sqlite"))
    http = PagerHttp(timeout_s=config.timeout_s, loopback=config.loopback)
    lost: list[Delivery] = []
    log = Events()
    telemetry = BridgeInstruments(meter, config.channels)  # type: ignore[arg-type]
    bridge = Bridge(BridgeParts(config, outbox, http, telemetry, log, clock, lost.append))
    doors = BridgeDoors(
        bridge, config, outbox, Exporter(Role.BRIDGE, process=False), clock, "webhook-secret", "admin-secret"
    )
    server = HttpServer(bridge_app(doors), listener)
    await server.start()
    await bridge.load()
    running = asyncio.create_task(bridge.run())
    plant = BridgePlant(sinks, bridge, outbox, url)
    plant.numbers, plant.log, plant.lost = meter.numbers, log, lost
    try:
        yield plant
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await bridge.stop()
        await server.stop()
        await http.close()
        await outbox.close()
