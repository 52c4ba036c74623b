"""A fast HTTP/1.1 client without pipelining: so many connections, one request at a time on each."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from bench.parts.figures import percentile


@dataclass
class Measured:
    """What a load saw: seconds of each answer, how often each status came, how long it all took."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def line(self, name: str) -> None:
        """Print rate and distribution."""
        p50, p99, p999 = (percentile(self.latencies, part) * 1000 for part in (0.5, 0.99, 0.999))
        told = " ".join(f"{status}:{count}" for status, count in sorted(self.statuses.items()))
        print(
            f"{name:<42}{self.rate:8.0f}/s  p50 {p50:7.2f}   p99 {p99:7.2f}   p99.9 {p999:7.2f} ms   {told}", flush=True
        )


def post(path: str, body: bytes, token: str = "") -> bytes:
    """Return a POST of JSON as it goes over the wire."""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{bearer}Content-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request, until there is none."""

    def __init__(self, requests: Iterator[bytes], every_s: float, seen: Measured) -> None:
        self._requests, self._every_s, self._seen = requests, every_s, seen
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._buffer = b""
        self._started = self._intended = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class: it is none by inheritance
        self._intended = time.perf_counter()
        self._send()

    def _send(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            return
        self._started = self._intended if self._every_s else time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int((head.lower().partition(b"content-length:")[2] or b"0").split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._buffer = b""
        now = time.perf_counter()
        self._seen.latencies.append(now - self._started)
        self._seen.statuses[head[9:12].decode()] += 1
        self._intended += self._every_s
        if self._every_s and self._intended > now:
            asyncio.get_running_loop().call_later(self._intended - now, self._send)
        else:
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, requests: Iterator[bytes], connections: int, *, rate: float = 0.0) -> Measured:
    """Send all requests over so many connections.

    With `rate` (requests a second over all connections) the times of sending are fixed beforehand and latency counts
    from the intended time, so that a slow server cannot hide behind a client that waits.
    """
    seen = Measured()
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    every_s = connections / rate if rate else 0.0
    clients: list[_Connection] = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: _Connection(requests, every_s, seen), "127.0.0.1", port)
        clients.append(client)
        if every_s:
            await asyncio.sleep(every_s / connections)
    await asyncio.gather(*(client.done for client in clients))
    seen.seconds = time.perf_counter() - began
    return seen


def until(deadline: float, make: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield requests until `deadline` (`time.perf_counter`)."""
    while time.perf_counter() < deadline:
        yield make()
