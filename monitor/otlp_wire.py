"""Spans as OTLP carries them: an `ExportTraceServiceRequest` in protocol buffers' wire format. Pure.

Source: `opentelemetry/proto/trace/v1/trace.proto` of OTLP 1 (stable: field numbers never change). Written here because
the library spends 40 us of the processor on a span, more than all else that traces cost (decision 0036); the tests read
what is written with the library's own classes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from monitor.traces import Span, SpanEvent, SpanKind, Value

_SCOPE: Final = "tapewatch"
_KINDS: Final = {SpanKind.INTERNAL: 1, SpanKind.SERVER: 2, SpanKind.PRODUCER: 4, SpanKind.CONSUMER: 5}
_TIMES: Final = struct.Struct("<BBBqBq")
_AT: Final = struct.Struct("<Bq")
_DOUBLE: Final = struct.Struct("<Bd")
_SAMPLED: Final = b"\x85\x01\x01\x00\x00\x00"
"""Field 16, `flags`: the W3C flag "sampled"."""
_ERROR: Final = 2
_MASK64: Final = (1 << 64) - 1
_SMALL: Final = tuple(bytes([number]) for number in range(128))


def encode(spans: Iterable[Span], service: str, replica: str) -> bytes:
    """Return the body of a `POST /v1/traces` of one service's spans."""
    resource = b"".join(
        _field(1, _pair(key, value))
        for key, value in (
            ("service.name", service), ("service.namespace", "exchange"), ("service.instance.id", replica)
        )
    )  # fmt: skip
    scope = _field(1, _field(1, _SCOPE.encode()))
    return _field(1, _field(1, resource) + _field(2, scope + _spans(spans)))


def _varint(number: int) -> bytes:
    """Return a number, negative ones as 64 bits in two's complement."""
    if 0 <= number < len(_SMALL):
        return _SMALL[number]
    number &= _MASK64
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    """Return a field of bytes, text or a message; its number is below 16."""
    return b"%c%b%b" % (number << 3 | 2, _varint(len(data)), data)


@lru_cache(maxsize=1024)
def _name(number: int, text: str) -> bytes:
    """Return a field of one of the few words that names and keys are."""
    return _field(number, text.encode("utf-8", "replace"))


def _pair(key: str, value: Value) -> bytes:
    """Return a `KeyValue`."""
    kind = type(value)
    if kind is int:
        told = b"\x18" + _varint(value)  # type: ignore[arg-type] # as its type says
    elif kind is bool:
        told = b"\x10\x01" if value else b"\x10\x00"
    elif kind is float:
        told = _DOUBLE.pack(0x21, value)
    else:
        data = str(value).encode("utf-8", "replace")
        told = b"\x0a" + _varint(len(data)) + data
    return b"%b\x12%b%b" % (_name(1, key), _varint(len(told)), told)


def _pairs(number: int, attributes: Mapping[str, Value]) -> bytes:
    tag = _SMALL[number << 3 | 2]
    parts: list[bytes] = []
    for key, value in attributes.items():
        pair = _pair(key, value)
        parts += (tag, _varint(len(pair)), pair)
    return b"".join(parts)


def _spans(spans: Iterable[Span]) -> bytes:
    parts: list[bytes] = []
    last: Mapping[str, Value] | None = None
    pairs = b""
    for span in spans:
        if span.attributes is not last:  # the parts of one order share theirs
            last, pairs = span.attributes, _pairs(9, span.attributes)
        told = _span(span, pairs)
        parts += (b"\x12", _varint(len(told)), told)
    return b"".join(parts)


def _span(span: Span, pairs: bytes) -> bytes:
    parts = [
        b"\x0a\x10", bytes.fromhex(span.trace_id), b"\x12\x08", bytes.fromhex(span.span_id),
        b"\x22\x08" + bytes.fromhex(span.parent_id) if span.parent_id else b"",
        _name(5, span.name), _TIMES.pack(0x30, _KINDS[span.kind], 0x39, span.start, 0x41, span.end), pairs,
    ]  # fmt: skip
    parts += [_field(11, _event(one)) for one in span.events]
    if span.error:
        parts.append(_field(15, _field(2, span.error.encode("utf-8", "replace")) + bytes((3 << 3, _ERROR))))
    parts.append(_SAMPLED)
    return b"".join(parts)


def _event(event: SpanEvent) -> bytes:
    return _AT.pack(0x09, event.at) + _name(2, event.name) + _pairs(3, event.attributes)
