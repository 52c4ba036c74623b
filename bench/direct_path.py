"""The direct path of kill-switch-class alerts: the watchdog's post to Alertmanager until the webhook arrives.

    python bench/direct_path.py [TIMES]

The post is made with the watchdog's own client and labels, one symbol after the other, to an Alertmanager with the
project's routes and, in turn, to one with a single route and no wait. Both tell the same receiver in this process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from bench.parts.figures import percentile, spread, verdict
from bench.parts.monitoring import bare_alertmanager, our_alertmanager
from bench.parts.plant import folder, free_ports
from bench.parts.sink import Sink, listening
from kernel.time import Instant
from monitor.adapters.alertmanager_api import AlertmanagerApi
from monitor.direct_alerts import sequence_gap

APART_S = 0.05
LOST_S = 5.0
GOAL_S = 0.020


async def post(times: int, ways: dict[str, tuple[int, Sink]]) -> dict[str, list[float]]:
    """Post `times` alerts each way in turn; return the seconds until each webhook."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    clients = {name: AlertmanagerApi(f"http://127.0.0.1:{port}") for name, (port, _) in ways.items()}
    for number in range(times):
        for name, (_, sink) in ways.items():
            symbol = f"S{number}"
            began = time.monotonic()
            await clients[name].post([sequence_gap(symbol, Instant(time.time_ns()))])
            arrived = await _until(lambda sink=sink, symbol=symbol: sink.arrived.get(("firing", symbol)))  # type: ignore[misc] # defaults bind the loop's values
            if number:  # the first one opens connections on both sides
                took[name].append(arrived - began)
            await asyncio.sleep(APART_S)
    for client in clients.values():
        await client.close()
    return took


async def _until(look: Callable[[], float | None]) -> float:
    deadline = time.monotonic() + LOST_S
    while time.monotonic() < deadline:
        seen = look()
        if seen is not None:
            return seen
        await asyncio.sleep(0.002)
    raise SystemExit(f"a webhook did not arrive within {LOST_S:g} s")


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    ports = free_ports(2)
    with (
        folder() as home,
        listening(ports[0], "symbol") as sink,
        listening(ports[1], "symbol") as bare_sink,
        our_alertmanager(home / "ours", ports[0]) as ours,
        bare_alertmanager(home / "bare", ports[1]) as bare,
    ):
        took = asyncio.run(post(times, {"our routes": (ours, sink), "one route": (bare, bare_sink)}))
    for name, seconds in took.items():
        spread(f"post to webhook, {name}", seconds)
    ours_s, bare_s = (percentile(seconds, 0.5) for seconds in took.values())
    p90, worst = percentile(took["our routes"], 0.9), max(took["our routes"])
    print(f"ratio of medians, our routes / one route: {ours_s / bare_s:.2f}")
    verdict("direct path", f"p90 {p90 * 1000:.1f} ms, max {worst * 1000:.1f} ms", "p90 20 ms", reached=p90 <= GOAL_S)


if __name__ == "__main__":
    main()
