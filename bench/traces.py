"""What traces cost the gateway and the engine: processor time an order, with and without, in one run.

    python bench/traces.py [ROUNDS]

Two plants of a gateway and an engine stand side by side. One builds spans (1 % and every reject, error and slow order)
and sends them by OTLP to a receiver that takes them; the other builds none. In each round both get the same number of
orders one after the other, in turns the one or the other first. What their processes spent of the processor, with all
their threads, is read from the kernel in nanoseconds; a figure is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench.orders import orders
from bench.parts.figures import percentile, verdict
from bench.parts.http import load
from bench.parts.plant import folder, running, wait_for
from bench.parts.role import role_config
from bench.ws_orders import run
from control.config import Tracing

GOAL = 0.03
SLOW_S = 30.0
"""On a busy machine thousands of orders under way are slow by the usual 0.25 s, and would all be kept."""
ROUNDS = 151
"""Many short ones: on a busy machine a round says little, and its neighbours are as busy."""
HTTP_ORDERS = 400
HTTP_CONNECTIONS = 16
SOCKET_S = 0.08
PER_FRAME, FRAMES = 100, 10
WARM = 15
ROLES = ("gateway", "engine")


class Plant(NamedTuple):
    """One gateway and its engine."""

    port: int
    token: str
    pids: dict[str, int]


class Receiver:
    """Takes spans by OTLP and forgets them; counts the requests."""

    def __init__(self) -> None:
        """Listen on a free port."""
        outer = self
        self.requests = 0

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                outer.requests += 1
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


def plant(state: Path, stack: ExitStack, tracing: Tracing | None) -> Plant:
    """Start a gateway and an engine."""
    configs = role_config(state, ("engine", "gateway"), gateway_capacity_per_s=1_000_000, tracing=tracing)
    pids = {
        name: stack.enter_context(running(config.argv, output=state / "bench.out")).pid
        for name, config in configs.items()
    }
    gateway = configs["gateway"]
    wait_for(f"http://127.0.0.1:{gateway.port}/health/ready")
    return Plant(gateway.port, gateway.secret("trade"), pids)


def spent_ns(pid: int) -> int:
    """Return what a process's threads spent of the processor; those that ended meanwhile are not counted."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def over_http(one: Plant, made: dict[str, Callable[[], bytes]]) -> int:
    """Send orders over HTTP; return how many."""
    requests: Iterator[bytes] = (made[one.token + str(one.port)]() for _ in iter(int, 1))
    seen = uvloop.run(load(one.port, islice(requests, HTTP_ORDERS), HTTP_CONNECTIONS))
    return len(seen.latencies)


def over_a_socket(one: Plant, _: dict[str, Callable[[], bytes]]) -> int:
    """Send orders over one WebSocket; return how many."""
    return uvloop.run(run(one.port, one.token, SOCKET_S, PER_FRAME, FRAMES, one.pids)).answers


def slice_of(one: Plant, send: Callable[[], int]) -> dict[str, float]:
    """Return nanoseconds of the processor an order, by role."""
    before = {role: spent_ns(one.pids[role]) for role in ROLES}
    count = send()
    return {role: (spent_ns(one.pids[role]) - before[role]) / count for role in ROLES}


def measure(name: str, plants: dict[str, Plant], send: Callable[[Plant], int], rounds: int) -> None:
    """Print what traces cost on one way in."""
    costs: dict[str, list[dict[str, float]]] = {"on": [], "off": []}
    for number in range(-WARM, rounds):
        for which in ("on", "off") if number % 2 else ("off", "on"):
            one = slice_of(plants[which], lambda one=plants[which]: send(one))  # type: ignore[misc]
            if number >= 0:
                costs[which].append(one)
    for role in ROLES:
        ratios = [on[role] / off[role] - 1 for on, off in zip(costs["on"], costs["off"], strict=True)]
        off_us = percentile([one[role] for one in costs["off"]], 0.5) / 1_000
        middle = percentile(ratios, 0.5)
        verdict(f"traces at the {role}, orders over {name}",
                f"{middle:+.1%} of {off_us:.1f} us an order (quarter to three quarters of the rounds "
                f"{percentile(ratios, 0.25):+.1%} to {percentile(ratios, 0.75):+.1%})",
                f"{GOAL:.0%}", reached=middle <= GOAL)  # fmt: skip


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    receiver = Receiver()
    with folder() as home, ExitStack() as stack:
        plants = {
            "on": plant(home / "on", stack, Tracing(url=receiver.url, share=0.01, slow_s=SLOW_S)),
            "off": plant(home / "off", stack, None),
        }
        made = {one.token + str(one.port): orders(one.token) for one in plants.values()}
        measure("HTTP", plants, lambda one: over_http(one, made), rounds)
        measure("a WebSocket", plants, lambda one: over_a_socket(one, made), rounds)
        print(f"the receiver was sent {receiver.requests} requests with spans")


if __name__ == "__main__":
    main()
