"""Spans on their way to a trace store, sent from a thread: a slow or dead store costs spans, never orders.

Which store it is, a `Sender` knows: `otlp` for whatever takes OpenTelemetry's protocol, `zipkin` for Zipkin.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

import requests

from exchange.tracing import Answered, Committed, Handled
from kernel.errors import InputError
from monitor import traces
from monitor.traces import Policy, Span

CAPACITY: Final = 8_192
"""Spans that may wait, about ten megabytes; what comes on top is counted as dropped."""
TIMEOUT_S: Final = 5.0
_BATCH: Final = 512
_IDLE_S: Final = 0.5
Told = Callable[[str, int], None]
"""Told what became of how many spans: exported, dropped or failed. Called from any thread."""


class Sender(Protocol):
    """Brings spans to one store."""

    def send(self, spans: Sequence[Span]) -> bool:
        """Send finished spans once, within `TIMEOUT_S`; tell whether the store took them. Never raises."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


def address(setting: str, url: str, path: str, *, example: str) -> str:
    """Return where to post: `url` with `path` behind it, unless it ends so already.

    Raises:
        InputError: `url` is no address of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(setting, f"{url!r} is no address", right=f"give one such as {example}")
    return url.rstrip("/") + ("" if parts.path.endswith(path) else path)


def session() -> requests.Session:
    """Return a session that goes straight to its address; a proxy of the surroundings would be asked for loopback."""
    made = requests.Session()
    made.trust_env = False
    return made


class SpanQueue:
    """Spans on their way to one trace store."""

    def __init__(self, sender: Sender, told: Told, *, capacity: int = CAPACITY) -> None:
        self._sender = sender
        self._told = told
        self._capacity = capacity
        self._waiting: deque[Span] = deque()
        self._wake = threading.Event()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def offer(self, spans: Iterable[Span]) -> None:
        """Take finished spans. Never blocks; what finds no room is dropped and counted."""
        dropped = 0
        for span in spans:
            if len(self._waiting) >= self._capacity:
                dropped += 1
            else:
                self._waiting.append(span)
        if dropped:
            self._told("dropped", dropped)
        if len(self._waiting) >= _BATCH:
            self._wake.set()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, for at most `timeout_s`."""
        self._stop = True
        self._wake.set()
        self._thread.join(timeout_s)
        self._sender.close()

    def _run(self) -> None:
        while True:
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            while batch := [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]:
                self._told("exported" if self._sender.send(batch) else "failed", len(batch))
            if self._stop:
                return


class SpanTracer:
    """`exchange.tracing.Tracer` that builds the spans of the orders that are kept and sends them to every store."""

    def __init__(self, queues: Sequence[SpanQueue], policy: Policy) -> None:
        self._queues = tuple(queues)
        self._policy = policy

    def answered(self, one: Answered) -> None:
        """See `Tracer`."""
        self._offer(traces.request_spans(one, self._policy))

    def committed(self, one: Committed) -> None:
        """See `Tracer`."""
        self._offer(traces.commit_spans(one, self._policy))

    def published(self, one: Handled) -> None:
        """See `Tracer`."""
        self._offer(traces.publish_spans(one, self._policy))

    def settled(self, one: Handled) -> None:
        """See `Tracer`."""
        self._offer(traces.settle_spans(one, self._policy))

    def _offer(self, spans: Iterable[Span]) -> None:
        built = tuple(spans)
        for queue in self._queues:
            queue.offer(built)
