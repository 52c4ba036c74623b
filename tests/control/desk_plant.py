"""A control process as it is wired for real, in this process and over real HTTP; no exchange stands behind it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.addresses import Addresses, save_addresses, url_of
from control.child import now
from control.config import ControlTuning, RoleConfig
from control.layout import STATE_VERSION, Layout
from control.plan import free_ports
from control.service import wire
from control.state_dir import StateDir
from exchange.adapters.http import HttpServer, listen

FIRES = "2026-03-02T09:30:00Z"
NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class DeskPlant:
    """Where it lies and where it answers."""

    layout: Layout
    url: str
    nobody: str
    """An address where nothing answers."""

    def secret(self, name: str) -> str:
        return self.layout.secret(name).read_text()

    def bearer(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret(name)}"}


@contextlib.asynccontextmanager
async def desk_plant(root: Path, *, library: Path | None = None, deadman_s: float = 3600.0) -> AsyncIterator[DeskPlant]:
    """Hold a state directory as an estate does, and run control in it."""
    control, nobody = free_ports(2)
    state = StateDir(root)
    try:
        instruments = state.fill(symbols=2, seed=1).instruments
        layout, dead = state.layout, url_of(nobody)
        save_addresses(
            Addresses(
                version=STATE_VERSION, phase="up", pid=1, started_at=now(), state=str(layout.root), estate=dead,
                control=url_of(control), prometheus=dead, alertmanager=dead, market_data=dead, settlement=dead,
                engine=dead, load=dead, engine_stream_port=nobody, faults_allowed=False, workloads={},
            ),
            layout.addresses,
        )  # fmt: skip
        config = RoleConfig(
            role="control", replica="control-1", state=str(layout.root), port=control, engine_http_port=nobody,
            engine_stream_port=nobody, market_data_port=nobody, settlement_port=nobody, estate_port=nobody,
            control_port=control, prometheus_url=dead, alertmanager_url=dead, instruments=instruments,
            tuning=ControlTuning(deadman_s=deadman_s, library=str(library or "")),
        )  # fmt: skip
        async with AsyncExitStack() as stack:
            loop, app = await wire(config, layout, stack)
            server = HttpServer(app, listen(control))
            await server.start()
            turning = asyncio.create_task(loop.run())
            try:
                yield DeskPlant(layout, url_of(control), dead)
            finally:
                await server.stop()
                turning.cancel()
                await asyncio.gather(turning, return_exceptions=True)
                await loop.stop()
    finally:
        state.release()


def alert(**changes: Any) -> dict[str, Any]:
    """Return one alert of a notification."""
    return {
        "status": "firing",
        "labels": {"alertname": "GatewayDown", "service": "gateway", "replica": "gateway-1", "severity": "critical"},
        "annotations": {"summary": "Gateway gateway-1 does not answer"},
        "startsAt": FIRES,
        "endsAt": NEVER,
        "generatorURL": "http://prometheus/graph?g0",
        "fingerprint": "00c0ffee",
        **changes,
    }


def notification(*alerts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return what Alertmanager posts."""
    return {
        "version": "4", "groupKey": '{}:{service="gateway"}', "truncatedAlerts": 0, "status": "firing",
        "receiver": "control", "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
        "externalURL": "http://alertmanager", "alerts": list(alerts or (alert(),)), **changes,
    }  # fmt: skip
