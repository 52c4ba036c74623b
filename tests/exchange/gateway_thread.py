"""A gateway with its engine on a loop of its own thread, for those who call it from outside any loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exchange.adapters.gateway import Gateway
from exchange.adapters.http import HttpServer, listen
from exchange.listing import Listing
from exchange.recording import RecordingExposition, RecordingGateway, RecordingLog
from tests.exchange.plant import INSTRUMENTS, client_of, engine


class InThread:
    """Where it answers, and what it told."""

    def __init__(self) -> None:
        self.url, self.log, self.telemetry = "", RecordingLog(), RecordingGateway()
        self.commands = 0


@contextmanager
def gateway_in_thread(root: Path, secret: str = "trade-secret") -> Iterator[InThread]:
    told, up, stop = InThread(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with engine(root) as running, client_of(running.port) as client:
            app = Gateway(
                client, told.telemetry, RecordingExposition(), replica="gateway-1", trade_secret=secret,
                capacity_per_s=1e6, log=told.log, listing=Listing(INSTRUMENTS),
            )  # fmt: skip
            server = HttpServer(app, listen(0), sockets=True)
            await server.start()
            told.url = f"http://127.0.0.1:{server.port}"
            up.set()
            await stop.wait()
            told.commands = running.telemetry.commands
            await app.stop()
            await server.stop()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="gateway")
    thread.start()
    try:
        assert up.wait(10), "the gateway did not start"
        yield told
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
