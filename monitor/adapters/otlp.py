"""Spans out by OTLP over HTTP: a `Sender` of `monitor.adapters.spans`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from monitor import traces
from monitor.adapters.spans import TIMEOUT_S, address, session
from monitor.traces import Span

_SCOPE: Final = InstrumentationScope("tapewatch")
_KINDS: Final = {
    traces.SpanKind.SERVER: SpanKind.SERVER,
    traces.SpanKind.INTERNAL: SpanKind.INTERNAL,
    traces.SpanKind.CONSUMER: SpanKind.CONSUMER,
}


class OtlpSender:
    """Sends spans to the OTLP receiver at `url` (such as `http://127.0.0.1:4318`) in the name of a service's replica.

    Raises:
        InputError: the address is none.
    """

    def __init__(self, url: str, service: str, replica: str) -> None:
        endpoint = address("otlp_url", url, "/v1/traces", example="http://127.0.0.1:4318")
        # The exporter logs each failure with a traceback; here a failure is a number.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=TIMEOUT_S, session=session())
        self._resource = Resource(
            {"service.name": service, "service.namespace": "exchange", "service.instance.id": replica}
        )

    def send(self, spans: Sequence[Span]) -> bool:
        """See `Sender`."""
        readable = [_readable(span, self._resource) for span in spans]
        return self._exporter.export(readable) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """See `Sender`."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


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
