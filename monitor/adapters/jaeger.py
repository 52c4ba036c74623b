"""One trace from Jaeger's query API (`GET /api/traces/{id}`), as the spans that Zipkin gives."""

from __future__ import annotations

from typing import Final

import msgspec
import requests

from kernel.errors import PermanentError, TemporaryError
from monitor.adapters.spans import TIMEOUT_S, address, session
from monitor.zipkin_json import ReadEndpoint, ReadSpan

_NOT_FOUND: Final = 404
EXAMPLE: Final = "http://127.0.0.1:16686"


class _Tag(msgspec.Struct):
    key: str
    value: str | int | float | bool | None = None


class _Reference(msgspec.Struct, rename="camel"):
    ref_type: str = ""
    span_id: str = msgspec.field(default="", name="spanID")


class _Span(msgspec.Struct, rename="camel"):
    trace_id: str = msgspec.field(name="traceID")
    span_id: str = msgspec.field(name="spanID")
    operation_name: str = ""
    references: list[_Reference] = []
    start_time: int = 0
    """Microseconds since 1970."""
    duration: int = 0
    """Microseconds."""
    tags: list[_Tag] = []
    process_id: str = msgspec.field(default="", name="processID")


class _Process(msgspec.Struct, rename="camel"):
    service_name: str = ""


class _Trace(msgspec.Struct):
    spans: list[_Span] = []
    processes: dict[str, _Process] = {}


class _Answer(msgspec.Struct):
    data: list[_Trace] | None = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def decode(body: bytes) -> tuple[tuple[ReadSpan, ...], ...]:
    """Return the traces of an answer of Jaeger's, each with its spans by their start.

    Raises:
        ValueError: it is none.
    """
    return tuple(_read(trace) for trace in _decode(body).data or ())


def _read(trace: _Trace) -> tuple[ReadSpan, ...]:
    found = [_span(one, trace) for one in trace.spans]
    return tuple(sorted(found, key=lambda span: (span.timestamp, span.id)))


def _span(one: _Span, trace: _Trace) -> ReadSpan:
    process = trace.processes.get(one.process_id)
    tags = {tag.key: _text(tag.value) for tag in one.tags}
    if "otel.status_description" in tags:
        tags["error"] = tags["otel.status_description"]  # the tag of that name says only that there was one
    return ReadSpan(
        id=one.span_id, trace_id=one.trace_id, name=one.operation_name, timestamp=one.start_time, duration=one.duration,
        parent_id=next((above.span_id for above in one.references if above.ref_type == "CHILD_OF"), None),
        kind=tags.pop("span.kind", None), tags=tags,
        local_endpoint=None if process is None else ReadEndpoint(process.service_name),
    )  # fmt: skip


def _text(value: object) -> str:
    """Return a tag's value as Zipkin has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def fetch_trace(url: str, trace_id: str) -> tuple[ReadSpan, ...]:
    """Return the spans of a trace by their start; none when Jaeger does not know it (yet).

    Raises:
        InputError: `url` is no address.
        TemporaryError: there was no answer.
        PermanentError: the answer is none of Jaeger's.
    """
    where = address("jaeger", url, f"/api/traces/{trace_id}", example=EXAMPLE)
    with session() as asking:
        try:
            answer = asking.get(where, timeout=TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise TemporaryError(f"{url} has no answer: {type(error).__name__}; is a Jaeger there?") from error
    if answer.status_code == _NOT_FOUND:
        return ()
    if not answer.ok or answer.is_redirect:
        raise PermanentError(f"{where} was answered {answer.status_code}: {answer.text[:200]}")
    try:
        found = decode(answer.content)
    except ValueError as error:
        raise PermanentError(f"{where}: this is no answer of Jaeger's: {error}") from error
    return found[0] if found else ()
