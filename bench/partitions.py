"""Durable acknowledgements a second of engines on Kafka, from one partition to eight, and what bounds them.

    python bench/partitions.py [COMMANDS] [PARTITIONS ...]

Three brokers on loopback, an engine's process for each partition (`control.roles`, as an estate starts it), and the
gateways' router in this process: so many new orders wait at any time for each engine, each answer sends the next. The
reference is one partition in the same run. Where the processor time went is told for brokers, engines and this
process; on one machine they share it, so that more partitions help only while it has some left. `bench/copies.py`
draws it.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
import uvloop

from bench.parts.figures import percentile
from bench.parts.steps import Step, processor_s
from control.config import KafkaAccess, RoleConfig, save_config
from control.layout import Layout
from control.plan import free_ports
from control.servers.kafka import find
from control.servers.kafka_cluster import Cluster
from control.settings import load_settings
from control.state_dir import generate_instruments
from exchange.adapters.engine_client import AnswerLostError, EngineClient, EngineReply
from exchange.adapters.engine_router import EngineRouter
from exchange.commands import Limit, PlaceOrder
from exchange.protocol import Answer, Refused
from exchange.shards import instruments_of
from exchange.types import AccountId, ClientId, Instrument, Lots, Side, Ticks

WAITING = 256
"""Orders that wait for each engine at any time."""
SEED = 7
PATIENCE_S = 240.0
"""A machine that cannot do it in so long has nothing to say."""


def start_engine(
    root: Path, instruments: Sequence[Instrument], cluster: Cluster, partition: int, partitions: int
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a partition's engine; return it and the port of its commands."""
    layout, (http, stream) = Layout(root), free_ports(2)
    layout.secret("admin").parent.mkdir(parents=True)
    layout.secret("admin").write_text("secret-of-the-bench")
    access = KafkaAccess(
        bootstrap=cluster.bootstrap, topic=f"bench{partitions}", partition=partition, partitions=partitions
    )
    config = RoleConfig(
        role="engine", replica="engine-1", state=str(root), port=http, engine_http_port=http, engine_stream_port=stream,
        market_data_port=1, settlement_port=1, estate_port=1, control_port=1, prometheus_url="", alertmanager_url="",
        instruments=instruments_of(instruments, partition, partitions), kafka=access,
    )  # fmt: skip
    save_config(config, layout.config("engine-1"))
    return subprocess.Popen([sys.executable, "-m", "control.roles", str(layout.config("engine-1"))]), stream


async def drive(
    clients: Sequence[EngineClient], instruments: Sequence[Instrument], count: int
) -> tuple[float, list[float]]:
    """Send `count` orders over all symbols; return the seconds it took, and how long each waited."""
    router, latencies, finished = EngineRouter(clients), list[float](), asyncio.Event()
    symbols = itertools.cycle(instruments)
    numbers = iter(range(count))

    def send() -> None:
        number, one = next(numbers, None), next(symbols)
        if number is None:
            return
        side = Side.BUY if number & 1 else Side.SELL
        price = Ticks(one.reference + (-5 if side is Side.BUY else 5) - number % 3)
        order = PlaceOrder(AccountId(f"m{number % 8}"), ClientId(f"o{number}"), one.symbol, side, Lots(5), Limit(price))
        began = time.perf_counter()

        def answered(reply: EngineReply | AnswerLostError) -> None:
            assert isinstance(reply, Answer), reply
            latencies.append(time.perf_counter() - began)
            send()
            if len(latencies) == count:
                finished.set()

        router.send(order, "", answered)

    began = time.perf_counter()
    for _ in range(WAITING * len(clients)):
        send()
    await finished.wait()
    return time.perf_counter() - began, latencies


async def connected(
    ports: Sequence[int], instruments: Sequence[Instrument], count: int, begin: Callable[[], None]
) -> tuple[float, list[float]]:
    """Connect to every engine, wait until each takes orders, say so by `begin`, and drive them."""
    there = asyncio.Queue[bool]()
    clients = [EngineClient(port, there.put_nowait) for port in ports]
    running = [asyncio.create_task(client.run()) for client in clients]
    try:
        async with asyncio.timeout(PATIENCE_S):
            for _ in clients:
                await there.get()
            for client in clients:
                while isinstance(await client.look_up(AccountId("x"), ClientId("x"), PATIENCE_S), Refused):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)  # another process: there is no event to wait for
            begin()
            return await drive(clients, instruments, count)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def run(cluster: Cluster, partitions: int, count: int) -> tuple[Step, list[float]]:
    """Measure so many partitions; return what they did, and how long each order waited, in seconds."""
    instruments = generate_instruments(8 * 8, SEED)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tapewatch-partitions-")))
        engines = []
        for partition in range(partitions):
            process, port = start_engine(root / str(partition), instruments, cluster, partition, partitions)
            stack.callback(process.wait)
            stack.callback(process.kill)
            engines.append((process.pid, port))
        pids, brokers = [pid for pid, _ in engines], list(cluster.pids.values())
        before: list[float] = []

        def spent() -> list[float]:
            return [processor_s(pids), processor_s(brokers), time.process_time()]

        seconds, latencies = uvloop.run(
            connected([port for _, port in engines], instruments, count, lambda: before.extend(spent()))
        )
        used = [now - then for now, then in zip(spent(), before, strict=True)]
    shares = {name: took / count * 1e6 for name, took in zip(("engines", "brokers", "driver"), used, strict=True)}
    return Step(partitions, count / seconds, shares), latencies


def measure(cluster: Cluster, count: int, numbers: Sequence[int]) -> list[Step]:
    """Measure every number of partitions, and print as it goes."""
    steps: list[Step] = []
    for partitions in numbers:
        step, latencies = run(cluster, partitions, count)
        waits = f"   p50 {percentile(latencies, 0.5) * 1e3:.1f}, p99 {percentile(latencies, 0.99) * 1e3:.1f} ms"
        print(step.sentence("partitions", steps[0].rate if steps else 0.0) + waits, flush=True)
        steps.append(step)
    return steps


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    numbers = [int(word) for word in sys.argv[2:]] or [1, 2, 4, 8]
    home = find(load_settings().kafka_home)
    if home is None:
        print("partitions: left out, Kafka is not there (`make servers`)")
        return
    print(f"{count:,} orders, {psutil.cpu_count()} cores, load average {psutil.getloadavg()[0]:.1f}")
    with Cluster(home, brokers=3) as cluster:
        measure(cluster, count, numbers)


if __name__ == "__main__":
    main()
