"""Single roles of an estate, without the estate: their configuration, secrets and command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.parts.plant import free_ports
from control.config import RoleConfig, Tracing, save_config
from control.layout import Layout
from exchange.types import Instrument, Symbol, Ticks


@dataclass(frozen=True)
class Role:
    """How to start one role, and where it will answer."""

    argv: tuple[str, ...]
    port: int
    layout: Layout

    def secret(self, name: str) -> str:
        return self.layout.secret(name).read_text()


def instruments(count: int) -> tuple[Instrument, ...]:
    """Return `S1`, `S2`, … at 10,000 ticks with a wide band."""
    return tuple(Instrument(Symbol(f"S{number}"), Ticks(10_000), Ticks(2_000)) for number in range(1, count + 1))


def role_config(
    state: Path,
    roles: Sequence[str],
    *,
    symbols: int = 1,
    gateway_capacity_per_s: int = 400,
    tracing: Tracing | None = None,
) -> dict[str, Role]:
    """Write what these roles need below `state`; whatever else they would talk to is not there."""
    layout = Layout(state)
    layout.secret("x").parent.mkdir(parents=True)
    for name in ("admin", "trade", "webhook", "timeline"):
        layout.secret(name).write_text(f"{name}-secret-of-the-bench")
    engine, stream, feed, settlement, supervisor, control, prometheus, alertmanager, gateway = free_ports(9)
    ports = {"engine": engine, "gateway": gateway, "control": control, "market-data": feed, "settlement": settlement}
    made: dict[str, Role] = {}
    for role in roles:
        config = RoleConfig(
            role=role, replica=f"{role}-1", state=str(state), port=ports[role],
            engine_http_port=engine, engine_stream_port=stream, market_data_port=feed, settlement_port=settlement,
            estate_port=supervisor, control_port=control,
            prometheus_url=f"http://127.0.0.1:{prometheus}", alertmanager_url=f"http://127.0.0.1:{alertmanager}",
            instruments=instruments(symbols), gateway_capacity_per_s=gateway_capacity_per_s, tracing=tracing,
        )  # fmt: skip
        path = layout.config(config.replica)
        save_config(config, path)
        made[role] = Role((sys.executable, "-m", "control.roles", str(path)), ports[role], layout)
    return made
