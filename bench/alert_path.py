"""Fault to webhook: the project's rules and routes against a bare Prometheus, Alertmanager and receiver, side by side.

    python bench/alert_path.py [SECONDS]

Both scrape the same toy gateways at one second and evaluate at one second; both have the rule `GatewayDown` with the
same `for`. A toy is stopped at a random moment (its port refuses), both webhooks are awaited, it is started again. Each
toy is a trial of its own, so the many scrape phases average out. Ours carries its whole rule set and a target for every
role, which answers with the metrics of the catalogue.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.parts.figures import percentile, spread, verdict
from bench.parts.monitoring import bare_alertmanager, bare_prometheus, our_alertmanager, our_prometheus
from bench.parts.plant import folder, free_ports
from bench.parts.sink import Sink, listening
from control.render import ALERTS, load_yaml
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role

TOYS = 24
RULE = "GatewayDown"
LOST_S = 20.0
GOAL = 1.1


class Toy:
    """An exporter that can be stopped."""

    def __init__(self, port: int, role: Role) -> None:
        self.port = port
        self._page = Exporter(role, process=False).render()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Refuse connections and cut those that are open, as the end of a process does."""
        assert self._server is not None, "only what runs can be stopped"
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(self._page)}\r\n\r\n"
        )
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head.encode() + self._page)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()


async def trial(name: str, toy: Toy, sinks: dict[str, Sink], took: dict[str, list[float]], end: float) -> None:
    """Break one toy again and again until `end`."""
    chance = random.Random(name)
    while time.monotonic() < end:
        await asyncio.sleep(chance.uniform(1.5, 3.5))  # any phase of scrape and evaluation
        for sink in sinks.values():
            sink.arrived.pop(("firing", name), None)
            sink.arrived.pop(("resolved", name), None)
        began = time.monotonic()
        await toy.stop()
        seen = {way: await _until(lambda sink=sink: sink.arrived.get(("firing", name))) for way, sink in sinks.items()}  # type: ignore[misc] # a default binds the loop's value
        for way, at in seen.items():
            took[way].append(at - began)
        await toy.start()
        for sink in sinks.values():
            await _until(lambda sink=sink: sink.arrived.get(("resolved", name)))  # type: ignore[misc] # as above


async def _until(look: Callable[[], float | None]) -> float:
    deadline = time.monotonic() + LOST_S
    while time.monotonic() < deadline:
        seen = look()
        if seen is not None:
            return seen
        await asyncio.sleep(0.02)
    raise SystemExit(f"a webhook did not arrive within {LOST_S:g} s")


def rule() -> dict[str, Any]:
    """Return the project's own rule, for the bare pair."""
    for path in sorted((ALERTS / "rules").glob("*.yml")):
        for group in load_yaml(path)["groups"]:
            for each in group["rules"]:
                if each.get("alert") == RULE:
                    found: dict[str, Any] = each
                    return found
    raise SystemExit(f"there is no rule {RULE}")


async def run(seconds: float) -> dict[str, list[float]]:
    toy_ports, others = free_ports(TOYS + len(Role) + 2), {}
    sink_port, bare_port = toy_ports.pop(), toy_ports.pop()
    for role in Role:
        port = toy_ports.pop()
        if role is not Role.GATEWAY:
            others[str(role)] = [(f"{role}-1", port)]
    gateways = [(f"gateway-{number}", port) for number, port in enumerate(toy_ports, 1)]
    toys = {name: Toy(port, Role.GATEWAY) for name, port in gateways}
    rest = [Toy(replicas[0][1], Role(role)) for role, replicas in others.items()]
    for toy in (*toys.values(), *rest):
        await toy.start()
    took: dict[str, list[float]] = {"ours": [], "bare": []}
    with folder() as home, listening(sink_port, "replica") as sink, listening(bare_port, "replica") as bare_sink:
        entered = asyncio.to_thread  # starting a server waits for it, and the toys must answer meanwhile
        ours_am, bare_am = our_alertmanager(home / "a", sink_port), bare_alertmanager(home / "b", bare_port)
        am, bare = await entered(ours_am.__enter__), await entered(bare_am.__enter__)
        ours_p = our_prometheus(home / "p", am, {**others, "gateway": gateways})
        bare_p = bare_prometheus(home / "q", bare, "gateway", gateways, rule())
        try:
            await entered(ours_p.__enter__)
            await entered(bare_p.__enter__)
            await asyncio.sleep(8.0)
            end = time.monotonic() + seconds
            sinks = {"ours": sink, "bare": bare_sink}
            await asyncio.gather(*(trial(name, toy, sinks, took, end) for name, toy in toys.items()))
        finally:
            for each in (ours_p, bare_p, ours_am, bare_am):
                await entered(each.__exit__, None, None, None)
    for toy in (*toys.values(), *rest):
        await toy.stop()
    return took


def main() -> None:
    took = asyncio.run(run(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
    for way, seconds in took.items():
        spread(f"fault to webhook, {way}", seconds)
    ratio = percentile(took["ours"], 0.5) / percentile(took["bare"], 0.5)
    verdict("fault to webhook, ratio of medians", f"{ratio:.3f}", f"{GOAL:g}", reached=ratio <= GOAL)


if __name__ == "__main__":
    main()
