"""Orders a second by copies of a part: gateways from one to four, partitions from one to eight; what bounds each.

    python bench/copies.py [SECONDS] [--draw]

Gateways: one engine that keeps its journal in files, so many gateways before it, and processes that send HTTP orders
over the same number of connections each time; one gateway is the reference in the same run. `--draw` measures
partitions as well, as `partitions.py` does, and writes `bench/copies.svg`. The dashed line is what the cores could do
if they did nothing else: where the seen rate comes near it the machine is the bound, where it stays away something
that is not copied.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import msgspec
import psutil

from bench.orders import orders
from bench.partitions import measure
from bench.parts.http import Measured, load, until
from bench.parts.plant import ROOT, folder, free_ports, running, wait_for
from bench.parts.role import role_config
from bench.parts.steps import Step, draw, processor_s
from control.config import load_config, save_config
from control.servers.kafka import find
from control.servers.kafka_cluster import Cluster
from control.settings import load_settings

PLOT: Final = ROOT / "bench" / "copies.svg"
GATEWAYS: Final = (1, 2, 3, 4)
PARTITIONS: Final = (1, 2, 4, 8)
CONNECTIONS: Final = 96
"""Over all gateways together, whatever their number."""
SENDERS: Final = 2
COUNT: Final = 40_000


def _send(lane: int, port: int, token: str, seconds: float, connections: int) -> tuple[int, float, float]:
    """Send orders from a process of its own; return answers, seconds and seconds of the processor."""
    import uvloop

    before = time.process_time()
    seen: Measured = uvloop.run(
        load(port, until(time.perf_counter() + seconds, orders(token, f"lane{lane}-")), connections)
    )
    assert set(seen.statuses) <= {"200", "201", "202"}, seen.statuses
    return len(seen.latencies), seen.seconds, time.process_time() - before


def _start(state: Path, gateways: int, stack: ExitStack) -> tuple[list[int], int, list[int], str]:
    """Start an engine and its gateways; return the gateways' processes, the engine's, the ports, and the token."""
    roles = role_config(state, ("engine", "gateway"), gateway_capacity_per_s=100_000)
    engine = stack.enter_context(running(roles["engine"].argv, output=state / "bench.out"))
    layout, first = roles["gateway"].layout, load_config(roles["gateway"].layout.config("gateway-1"))
    ports = [first.port, *free_ports(gateways - 1)]
    pids: list[int] = []
    for number, port in enumerate(ports, 1):
        path = layout.config(f"gateway-{number}")
        save_config(msgspec.structs.replace(first, replica=f"gateway-{number}", port=port), path)
        argv = (sys.executable, "-m", "control.roles", str(path))
        pids.append(stack.enter_context(running(argv, output=state / "bench.out")).pid)
    for port in ports:
        wait_for(f"http://127.0.0.1:{port}/health/ready")
    return pids, engine.pid, ports, roles["gateway"].secret("trade")


def gateways_step(gateways: int, seconds: float) -> Step:
    """Measure so many gateways before one engine."""
    with folder() as state, ExitStack() as stack:
        pids, engine, ports, token = _start(state, gateways, stack)
        lanes = max(SENDERS, gateways)
        with get_context("spawn").Pool(lanes) as pool:
            each = CONNECTIONS // lanes

            def run(for_s: float) -> list[tuple[int, float, float]]:
                return pool.starmap(
                    _send, [(lane, ports[lane % gateways], token, for_s, each) for lane in range(lanes)]
                )

            run(1.0)  # warms up
            before = processor_s(pids), processor_s([engine])
            told = run(seconds)
            used = processor_s(pids) - before[0], processor_s([engine]) - before[1], sum(one[2] for one in told)
    count = sum(one[0] for one in told)
    shares = {name: took / count * 1e6 for name, took in zip(("gateways", "engine", "senders"), used, strict=True)}
    return Step(gateways, count / max(one[1] for one in told), shares)


def main() -> None:
    given = [word for word in sys.argv[1:] if word != "--draw"]
    seconds = float(given[0]) if given else 6.0
    print(f"{psutil.cpu_count()} cores, load average {psutil.getloadavg()[0]:.1f}", flush=True)
    before: list[Step] = []
    for gateways in GATEWAYS:
        step = gateways_step(gateways, seconds)
        print(step.sentence("gateways", before[0].rate if before else 0.0), flush=True)
        before.append(step)
    if "--draw" not in sys.argv:
        return
    panels = [("HTTP orders by gateways, one engine", "gateways", before)]
    home = find(load_settings().kafka_home)
    if home is None:
        print("partitions: left out, Kafka is not there (`make servers`)")
    else:
        with Cluster(home, brokers=3) as cluster:
            panels.append(("Orders by partitions of Kafka", "partitions", measure(cluster, COUNT, PARTITIONS)))
    draw(PLOT, panels)
    print(f"drawn: {PLOT}")


if __name__ == "__main__":
    main()
