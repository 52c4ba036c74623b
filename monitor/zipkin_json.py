"""Spans as Zipkin reads and gives them: version 2 of its JSON. Pure.

Source: the format is Zipkin's `POST /api/v2/spans`; how OpenTelemetry's words are put into it is its specification's
page "OpenTelemetry to Zipkin transformation". Written here because OpenTelemetry ends its own exporters for Zipkin in
December 2026 (decision 0029).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from monitor.traces import Span, SpanEvent, SpanKind, Value

_MICROSECOND: Final = 1_000
_KINDS: Final = {
    SpanKind.SERVER: "SERVER",
    SpanKind.CONSUMER: "CONSUMER",
    SpanKind.PRODUCER: "PRODUCER",
    SpanKind.INTERNAL: None,
}
_encode: Final = msgspec.json.Encoder().encode


class ReadSpan(msgspec.Struct, frozen=True, rename="camel"):
    """A span as Zipkin gives it; times in microseconds."""

    id: str
    trace_id: str
    name: str = ""
    timestamp: int = 0
    duration: int = 0
    parent_id: str | None = None
    kind: str | None = None
    local_endpoint: ReadEndpoint | None = None
    tags: dict[str, str] = {}

    @property
    def service(self) -> str:
        """Which service made it; empty when it is not said."""
        return self.local_endpoint.service_name if self.local_endpoint is not None else ""


class ReadEndpoint(msgspec.Struct, frozen=True, rename="camel"):
    """Who made a span."""

    service_name: str = ""


class _Annotation(msgspec.Struct, rename="camel"):
    timestamp: int
    value: str


class _Endpoint(msgspec.Struct, rename="camel"):
    service_name: str


class _ZipkinSpan(msgspec.Struct, rename="camel", omit_defaults=True):
    id: str
    trace_id: str
    name: str
    timestamp: int
    """Microseconds since 1970."""
    duration: int
    """Microseconds, at least one: Zipkin takes zero for "not known"."""
    local_endpoint: _Endpoint
    tags: dict[str, str]
    parent_id: str | None = None
    kind: str | None = None
    annotations: list[_Annotation] = []


def encode(spans: Iterable[Span], service: str, replica: str) -> bytes:
    """Return the body of a `POST /api/v2/spans` of one service's spans.

    Times are rounded down to Zipkin's microseconds, a span's end as well as its start, so that a child never sticks out
    of its parent by rounding.
    """
    return _encode([_span(span, service, replica) for span in spans])


def decode(body: bytes) -> tuple[ReadSpan, ...]:
    """Return the spans of an answer of Zipkin's, by their start.

    Raises:
        ValueError: it is none.
    """
    return tuple(sorted(msgspec.json.decode(body, type=list[ReadSpan]), key=lambda span: (span.timestamp, span.id)))


def _span(span: Span, service: str, replica: str) -> _ZipkinSpan:
    start = span.start // _MICROSECOND
    tags = {name: _text(value) for name, value in span.attributes.items()}
    tags["service.instance.id"] = replica
    if span.error:
        # Both: Zipkin's page paints a span red by the tag "error", the status is what OpenTelemetry's tools look for.
        tags["otel.status_code"], tags["error"] = "ERROR", span.error
    return _ZipkinSpan(
        id=span.span_id,
        trace_id=span.trace_id,
        name=span.name,
        timestamp=start,
        duration=max(1, span.end // _MICROSECOND - start),
        local_endpoint=_Endpoint(service),
        tags=tags,
        parent_id=span.parent_id or None,
        kind=_KINDS[span.kind],
        annotations=[_annotation(event) for event in span.events],
    )


def _annotation(event: SpanEvent) -> _Annotation:
    told = f"{event.name}: {_encode(dict(event.attributes)).decode()}" if event.attributes else event.name
    return _Annotation(event.at // _MICROSECOND, told)


def _text(value: Value) -> str:
    """Return a tag's value: Zipkin keeps text only."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
