"""HTTP orders through one gateway to a durable answer, against a bare uvicorn that echoes the same body.

    python bench/orders.py [SECONDS] [CONNECTIONS]

Both are measured in one run on one machine by the same client, one after the other. The journal is synced for every
answer.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvloop

from bench.parts.figures import percentile, verdict
from bench.parts.http import Measured, load, post, until
from bench.parts.plant import folder, free_ports, running, wait_for
from bench.parts.role import role_config

ECHO = """
import sys, uvicorn
async def app(scope, receive, send):
    body = (await receive()).get("body", b"")
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False, lifespan="off",
            http="httptools", loop="uvloop", ws="none", server_header=False, date_header=False)
"""
PATH = "/v1/orders"
GOAL_PER_S, GOAL_MS = 8_000, 15


def orders(token: str, sender: str = "b") -> Callable[[], bytes]:
    """Return a maker of requests: both sides, forty price levels, one in ten crosses; ids are apart by `sender`."""
    numbers = itertools.count(time.time_ns())

    def make() -> bytes:
        number = next(numbers)
        side, away = ("buy", -1) if number % 2 else ("sell", 1)
        price = 10_000 + away * (1 + number % 40) + (2 if number % 10 == 0 else 0)
        body = (
            f'{{"account":"bench","client_id":"{sender}{number}","symbol":"S1","side":"{side}",'
            f'"quantity":{1 + number % 9},"price":{price}}}'
        )
        return post(PATH, body.encode(), token)

    return make


def start(state: Path, stack: ExitStack) -> tuple[int, int, str]:
    """Start echo, engine and gateway; return the ports of echo and gateway, and the token."""
    (echo,) = free_ports(1)
    stack.enter_context(running([sys.executable, "-c", ECHO, str(echo)]))
    configs = role_config(state, ("engine", "gateway"), gateway_capacity_per_s=100_000)
    for config in configs.values():
        stack.enter_context(running(config.argv, output=state / "bench.out"))
    gateway = configs["gateway"].port
    wait_for(f"http://127.0.0.1:{gateway}/health/ready")
    wait_for(f"http://127.0.0.1:{echo}/")
    return echo, gateway, configs["gateway"].secret("trade")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    with folder() as state, ExitStack() as stack:
        echo, gateway, token = start(state, stack)
        make = orders(token)

        def run(port: int, for_s: float) -> Measured:
            return uvloop.run(load(port, until(time.perf_counter() + for_s, make), connections))

        run(gateway, 1.0)  # warms up
        bare, durable = run(echo, seconds), run(gateway, seconds)
    bare.line("bare uvicorn, echo")
    durable.line("order to durable answer")
    print(f"ratio orders / echo: {durable.rate / bare.rate:.2f}   ({connections} connections, {seconds:.0f} s each)")
    p99 = percentile(durable.latencies, 0.99) * 1000
    verdict("orders through one gateway", f"{durable.rate:,.0f}/s, p99 {p99:.1f} ms",
            f"{GOAL_PER_S:,}/s, p99 {GOAL_MS} ms",
            reached=durable.rate >= GOAL_PER_S and p99 <= GOAL_MS)  # fmt: skip


if __name__ == "__main__":
    main()
