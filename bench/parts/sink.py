"""A webhook receiver that notes when each alert first arrived."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


class Sink(ThreadingHTTPServer):
    """Arrivals by the alert's status and the value of one of its labels (seconds of `time.monotonic`)."""

    daemon_threads = True

    def __init__(self, port: int, label: str) -> None:
        super().__init__(("127.0.0.1", port), _Webhook)
        self.label = label
        self.arrived: dict[tuple[str, str], float] = {}
        """The latest first arrival; whoever wants the next one takes the entry out."""

    def note(self, alerts: list[dict[str, Any]], at: float) -> None:
        for alert in alerts:
            self.arrived.setdefault((alert["status"], alert["labels"].get(self.label, "")), at)


class _Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        at = time.monotonic()
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        cast(Sink, self.server).note(body["alerts"], at)
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def listening(port: int, label: str) -> Iterator[Sink]:
    """Receive webhooks on `port` for the time of the block."""
    with Sink(port, label) as sink:
        thread = threading.Thread(target=sink.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield sink
        finally:
            sink.shutdown()
            thread.join()
