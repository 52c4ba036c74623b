"""Pipelined orders over one WebSocket to a durable answer, against a bare WebSocket that echoes the same frames.

    python bench/ws_orders.py [SECONDS] [ORDERS A FRAME] [FRAMES UNDER WAY]

Both are measured in one run on one machine by the same client, one after the other. Beside the rate stands what the
servers' processes spent of the processor: on a busy machine that is what can be compared. The journal is synced for
every answer.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

import psutil
import uvloop

from bench.parts.figures import verdict
from bench.parts.plant import folder, free_ports, running, wait_for
from bench.parts.role import role_config

ECHO = """
import sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False, lifespan="off",
            http="httptools", loop="uvloop", ws="websockets-sansio", ws_per_message_deflate=False,
            ws_ping_interval=None, server_header=False, date_header=False)
"""
PATH = "/v1/ws/orders"


@dataclass
class Seen:
    """What came of a run."""

    answers: int
    seconds: float
    spent_s: dict[str, float]
    """Seconds of the processor, by process."""
    refused: int

    @property
    def rate(self) -> float:
        return self.answers / self.seconds

    def per_spent(self, name: str) -> float:
        """Answers for a second of one process's processor time."""
        return self.answers / self.spent_s[name]

    def line(self, name: str) -> None:
        spent = "   ".join(f"{process} {self.per_spent(process):9,.0f} a CPU second" for process in self.spent_s)
        print(f"{name:<34}{self.rate:9,.0f}/s   {spent}   not 201: {self.refused}", flush=True)


def order_frames(per_frame: int) -> list[bytes]:
    """Return ten thousand orders as frames: both sides, forty price levels, one in ten crosses."""
    frames, start = [], time.time_ns()
    for first in range(0, 10_000, per_frame):
        orders = []
        for number in range(start + first, start + first + per_frame):
            side, away = ("buy", -1) if number % 2 else ("sell", 1)
            price = 10_000 + away * (1 + number % 40) + (2 if number % 10 == 0 else 0)
            orders.append(
                f'{{"op":"place","id":{number % 10**9},"account":"bench","client_id":"w{number}","symbol":"S1",'
                f'"side":"{side}","quantity":{1 + number % 9},"price":{price}}}'
            )
        frames.append(_frame(f"[{','.join(orders)}]".encode() if per_frame > 1 else orders[0].encode()))
    return frames


def _frame(payload: bytes) -> bytes:
    """Return a text frame of a client; a mask of noughts is a mask, and costs the server the same."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return b"\x81" + size + b"\0\0\0\0" + payload


class _Client(asyncio.Protocol):
    """Sends frames as long as fewer than `window` are unanswered; counts the answers in what comes back."""

    def __init__(self, port: int, token: str, frames: list[bytes], per_frame: int, window: int) -> None:
        self._hello = (
            f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        ).encode()
        self._frames, self._per_frame, self._window = frames, per_frame, window
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent = self.answers = self.created = 0
        self.until = float("inf")
        self._tail = b""
        self._next = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        if not self.open.done():
            head, found, data = (self._tail + data).partition(b"\r\n\r\n")
            if not found:
                self._tail = head
                return
            assert b" 101 " in head, head
            self._tail = b""
            self.open.set_result(None)
        # Marks may lie across two reads: the last few bytes are looked at again, whole marks in them are not.
        data = self._tail + data
        self.answers += data.count(b'"id":')
        self.created += data.count(b'"status":201')
        cut = max(data.rfind(b'"id":') + 5, data.rfind(b'"status":201') + 12, len(data) - 11)
        self._tail = data[cut:]
        self.pump()

    def pump(self) -> None:
        unsent = []
        room = self._window * self._per_frame
        while self.sent - self.answers < room and time.perf_counter() < self.until:
            unsent.append(self._frames[self._next])
            self._next += 1
            self.sent += self._per_frame
            if self._next == len(self._frames):
                self._next = 0
                self._frames = order_frames(self._per_frame)
        if unsent:
            self._transport.write(b"".join(unsent))
        elif self.answers >= self.sent and not self.done.done():
            self.done.set_result(None)


async def run(port: int, token: str, seconds: float, per_frame: int, window: int, pids: dict[str, int]) -> Seen:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        lambda: _Client(port, token, order_frames(per_frame), per_frame, window), "127.0.0.1", port
    )
    await client.open
    spent = {name: _spent(pid) for name, pid in pids.items()}
    started = time.perf_counter()
    client.until = started + seconds
    client.pump()
    async with asyncio.timeout(seconds + 30):
        await client.done
    took = time.perf_counter() - started
    used = {name: _spent(pid) - spent[name] for name, pid in pids.items()}
    return Seen(client.answers, took, used, client.answers - client.created)


def _spent(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 6.0
    per_frame = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    window = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    with folder() as state, ExitStack() as stack:
        (echo,) = free_ports(1)
        bare_process = stack.enter_context(running([sys.executable, "-c", ECHO, str(echo)]))
        configs = role_config(state, ("engine", "gateway"), gateway_capacity_per_s=1_000_000)
        pids = {
            name: stack.enter_context(running(config.argv, output=state / "bench.out")).pid
            for name, config in configs.items()
        }
        port, token = configs["gateway"].port, configs["gateway"].secret("trade")
        wait_for(f"http://127.0.0.1:{port}/health/ready")
        wait_for(f"http://127.0.0.1:{echo}/")
        uvloop.run(run(port, token, 1.0, per_frame, window, pids))  # warms up
        bare = uvloop.run(run(echo, token, seconds, per_frame, window, {"echo": bare_process.pid}))
        durable = uvloop.run(run(port, token, seconds, per_frame, window, pids))
        single = uvloop.run(run(port, token, seconds, 1, window * per_frame, pids))
    bare.line("bare WebSocket, echo")
    durable.line("order to durable answer")
    single.line("the same, one order a frame")
    print(f"ratio orders / echo: {durable.rate / bare.rate:.2f}   ({per_frame} orders a frame, {window} under way)")
    gateway = durable.per_spent("gateway")
    verdict("pipelined orders a CPU second of a gateway", f"{gateway:,.0f}", "100,000", reached=gateway >= 100_000)


if __name__ == "__main__":
    main()
