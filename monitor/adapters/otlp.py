"""Spans out by OTLP over HTTP, from a thread of their own: a slow or dead trace store costs spans, never orders."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from exchange.tracing import Answered, Committed, Handled
from kernel.errors import InputError
from monitor import traces
from monitor.traces import Policy, Span

CAPACITY: Final = 8_192
"""Spans that may wait, about ten megabytes; what comes on top is counted as dropped."""
_BATCH: Final = 512
_IDLE_S: Final = 0.5
TIMEOUT_S: Final = 5.0
_SCOPE: Final = InstrumentationScope("tapewatch")
_KINDS: Final = {
    traces.SpanKind.SERVER: SpanKind.SERVER,
    traces.SpanKind.INTERNAL: SpanKind.INTERNAL,
    traces.SpanKind.CONSUMER: SpanKind.CONSUMER,
}
Told = Callable[[str, int], None]
"""Told what became of how many spans: exported, dropped or failed. Called from any thread."""


class SpanQueue:
    """Spans on their way to a trace store."""

    def __init__(self, url: str, service: str, replica: str, told: Told, *, capacity: int = CAPACITY) -> None:
        """Send to the OTLP receiver at `url` (such as `http://127.0.0.1:4318`) in the name of a service's replica.

        Raises:
            InputError: the address is none.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InputError("otlp_url", f"{url!r} is no address", right="give one such as http://127.0.0.1:4318")
        # The exporter logs each failure with a traceback; here a failure is a number.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        session = requests.Session()
        session.trust_env = False  # a proxy of the surroundings would be asked for loopback, too
        endpoint = url.rstrip("/") + ("" if parts.path.endswith("/v1/traces") else "/v1/traces")
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT_S, session=session)
        self._resource = Resource(
            {"service.name": service, "service.namespace": "exchange", "service.instance.id": replica}
        )
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
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        while True:
            self._wake.wait(_IDLE_S)
            self._wake.clear()
            while batch := list(self._take()):
                sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
                self._told("exported" if sent else "failed", len(batch))
            if self._stop:
                return

    def _take(self) -> Iterator[ReadableSpan]:
        for _ in range(min(len(self._waiting), _BATCH)):
            yield _readable(self._waiting.popleft(), self._resource)


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    trace_id, flags = int(span.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)
    parent = (
        SpanContext(trace_id, int(span.parent_id, 16), is_remote=True, trace_flags=flags) if span.parent_id else None
    )
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=flags),
        parent=parent,
        resource=resource,
        attributes=dict(span.attributes),
        events=[Event(one.name, dict(one.attributes), one.at) for one in span.events],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=span.start,
        end_time=span.end,
        instrumentation_scope=_SCOPE,
    )


class SpanTracer:
    """`exchange.tracing.Tracer` that builds the spans of the orders that are kept and sends them off."""

    def __init__(self, queue: SpanQueue, policy: Policy) -> None:
        self._queue = queue
        self._policy = policy

    def answered(self, one: Answered) -> None:
        """See `Tracer`."""
        self._queue.offer(traces.request_spans(one, self._policy))

    def committed(self, one: Committed) -> None:
        """See `Tracer`."""
        self._queue.offer(traces.commit_spans(one, self._policy))

    def published(self, one: Handled) -> None:
        """See `Tracer`."""
        self._queue.offer(traces.publish_spans(one, self._policy))

    def settled(self, one: Handled) -> None:
        """See `Tracer`."""
        self._queue.offer(traces.settle_spans(one, self._policy))
