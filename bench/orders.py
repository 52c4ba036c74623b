"""HTTP orders through one gateway to a durable answer, against a bare uvicorn that echoes the same body.

    python bench/orders.py [SECONDS] [CONNECTIONS]

Prints orders a second and latency percentiles of both, measured one after the other in one run on one machine by the
same client (a pipeline-free HTTP/1.1 client, CONNECTIONS at a time), and their ratio. The journal is synced for every
answer.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from control.config import RoleConfig, save_config  # noqa: E402 - the path is set first: this is a script
from exchange.types import Instrument, Symbol, Ticks  # noqa: E402 - as above

ECHO = """
import sys, uvicorn
async def app(scope, receive, send):
    body = (await receive())["body"]
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 201, "headers": head})
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False, lifespan="off",
            http="httptools", loop="uvloop", ws="none", server_header=False, date_header=False)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


class Client(asyncio.Protocol):
    """One connection: a request, its answer, the next request, until the time is over."""

    def __init__(
        self, ids: itertools.count[int], until: float, latencies: list[float], statuses: dict[bytes, int]
    ) -> None:
        self.ids, self.until, self.latencies, self.statuses = ids, until, latencies, statuses
        self.done = asyncio.get_running_loop().create_future()
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment] # a TCP transport is one
        self.send()

    def send(self) -> None:
        number = next(self.ids)
        side = "buy" if number % 2 else "sell"
        price = 10_000 + (-1 - number % 40 if number % 2 else 1 + number % 40) + (2 if number % 10 == 0 else 0)
        body = (
            f'{{"account":"bench","client_id":"b{number}","symbol":"AAA","side":"{side}",'
            f'"quantity":{1 + number % 9},"price":{price}}}'
        )
        self.started = time.perf_counter()
        self.transport.write(
            b"POST /v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer trade-secret\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body.encode())
        )

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self.buffer = b""
        now = time.perf_counter()
        self.latencies.append(now - self.started)
        status = head[9:12]
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if now < self.until:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def measure(port: int, seconds: float, connections: int) -> tuple[float, list[float], dict[bytes, int]]:
    latencies: list[float] = []
    statuses: dict[bytes, int] = {}
    ids, started = itertools.count(time.time_ns()), time.perf_counter()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(
            lambda: Client(ids, started + seconds, latencies, statuses), "127.0.0.1", port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    return len(latencies) / (time.perf_counter() - started), sorted(latencies), statuses


def percentile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))] * 1000


def report(name: str, rate: float, latencies: list[float], statuses: dict[bytes, int]) -> None:
    told = " ".join(f"{code.decode()}:{count}" for code, count in sorted(statuses.items()))
    print(
        f"{name:<26}{rate:8.0f}/s  p50 {percentile(latencies, 0.5):6.2f} ms   p99 {percentile(latencies, 0.99):6.2f} ms"
        f"   p99.9 {percentile(latencies, 0.999):6.2f} ms   {told}"
    )


def configurations(state: Path) -> tuple[Path, Path, int]:
    (state / "secrets").mkdir(parents=True)
    for name in ("admin", "trade"):
        (state / "secrets" / name).write_text(f"{name}-secret")
    ports = [free_port() for _ in range(6)]
    gateway = free_port()
    paths = []
    for role, port in (("engine", ports[0]), ("gateway", gateway)):
        config = RoleConfig(
            role=role, replica=role, state=str(state), port=port, prometheus_url="", alertmanager_url="",
            instruments=(Instrument(Symbol("AAA"), Ticks(10_000), Ticks(2_000)),),
            gateway_capacity_per_s=1_000_000,
            engine_http_port=ports[0], engine_stream_port=ports[1], market_data_port=ports[2],
            settlement_port=ports[3], estate_port=ports[4], control_port=ports[5],
        )  # fmt: skip
        path = state / "config" / f"{role}.json"
        save_config(config, path)
        paths.append(path)
    return paths[0], paths[1], gateway


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    with tempfile.TemporaryDirectory() as folder:
        engine_config, gateway_config, gateway_port = configurations(Path(folder))
        echo_port = free_port()
        started = [subprocess.Popen([sys.executable, "-c", ECHO, str(echo_port)])]
        started += [
            subprocess.Popen([sys.executable, "-m", "control.roles", str(path)], cwd=ROOT)
            for path in (engine_config, gateway_config)
        ]
        try:
            for port in (echo_port, gateway_port):
                wait_for(port)
            time.sleep(1.0)
            uvloop.run(measure(gateway_port, 1.0, connections))  # warms up
            bare = uvloop.run(measure(echo_port, seconds, connections))
            orders = uvloop.run(measure(gateway_port, seconds, connections))
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait(10)
    report("bare uvicorn, echo", *bare)
    report("order to durable answer", *orders)
    print(f"ratio orders / echo: {orders[0] / bare[0]:.2f}   ({connections} connections, {seconds:.0f} s each)")


if __name__ == "__main__":
    main()
