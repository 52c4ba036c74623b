"""Log records in the Elastic Common Schema: one event in, one line of JSON out.

Rules of the line:
  1. A field is ECS's own, or stands under `exchange.` or `tapewatch.`; nothing else appears at the top.
  2. One record is one line, whatever its values hold; readers split on the byte 0x0A only.
  3. Secrets never appear: not under a telling name, not as a bearer token, not as one of the values known to be secret.
  4. A record that cannot be encoded is still a record: its values are shown as text, cut to a bound.

We format ourselves: the published library stamps ECS 1.6 and costs several times a plain log call.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from kernel.time import MICROSECOND, SECOND, Instant, to_rfc3339

ECS_VERSION: Final = "9.4.0"
REDACTED: Final = "[redacted]"
MAX_LINE_BYTES: Final = 16_384
"""Filebeat's own bound for a line; what is longer loses its fields, not its place."""
MAX_NAMES: Final = 1_024
_LONGEST_NAME: Final = 1_000
MIN_SECRET_LENGTH: Final = 8
"""A shorter secret would blot out ordinary words; secrets of the estate have 32 characters and more."""

ECS_FIELDS: Final[Mapping[str, str]] = {
    "account": "user.id",
    "client_ip": "client.ip",
    "duration_ns": "event.duration",
    "error": "error.message",
    "error_type": "error.type",
    "host": "host.name",
    "method": "http.request.method",
    "path": "url.path",
    "pid": "process.pid",
    "port": "server.port",
    "reason": "event.reason",
    "request_id": "http.request.id",
    "span_id": "span.id",
    "stack": "error.stack_trace",
    "status": "http.response.status_code",
    "trace_id": "trace.id",
    "url": "url.full",
    "version": "service.version",
}
"""Our field names that ECS has its own for; any other stands under the component's prefix."""

LEVELS: Final = frozenset({"debug", "info", "warning", "error", "critical"})
_TELLING: Final = re.compile(r"token|secret|passw|authori[sz]ation|credential|api_?key|cookie|bearer", re.IGNORECASE)
_BEARER: Final = re.compile(rb"([Bb]earer\s+)[\w.~+/=-]+")
_NESTED: Final = (dict, list, tuple)
_UNSAFE_NAME: Final = re.compile(r"[^a-z0-9_.]+")
_OBEYED: Final = re.compile(rb"\xe2\x80[\xa8\xa9]|\xc2[\x80-\x9f]|\x7f")
"""UTF-8 of what some reader takes for a line break or a terminal obeys; JSON itself escapes what is below a blank."""


class EcsFormat:
    """Writes the records of one process."""

    def __init__(self, role: str, replica: str, *, prefix: str = "exchange", secrets: Collection[str] = ()) -> None:
        """Format for `replica` of `role`; fields ECS does not know stand under `prefix`.

        Raises:
            ValueError: a secret is too short to be told from ordinary words.
        """
        short = [len(secret) for secret in secrets if len(secret) < MIN_SECRET_LENGTH]
        if short:
            raise ValueError(f"a secret of {short[0]} characters cannot be redacted; {MIN_SECRET_LENGTH} are needed")
        self._prefix = prefix
        # As they stand inside a JSON string; the longest first, lest a part of one hides the rest.
        self._secrets = sorted((msgspec.json.encode(secret)[1:-1] for secret in secrets), key=len, reverse=True)
        self._names: dict[str, str] = {}
        constant = {
            "ecs.version": ECS_VERSION,
            "service.name": role,
            "service.node.name": replica,
            "event.dataset": f"{prefix}.{role}",
        }
        self._constant: bytes = b"," + _ENCODER.encode(constant)[1:-1]
        self._heads: dict[tuple[str, str], bytes] = {}
        self._second = -1
        self._stamp = b""

    def line(self, at: Instant, name: str, severity: str, fields: Mapping[str, object]) -> bytes:
        """Return the record of one event as a line that ends in a line feed. Never raises."""
        second, rest = divmod(at, SECOND)
        if second != self._second:  # the calendar is asked once a second, not once a record
            self._stamp = b'{"@timestamp":"' + to_rfc3339(second * SECOND)[:20].encode()
            self._second = second
        head = self._heads.get((name, severity)) or self._head(name, severity)
        start = b"%b%06dZ%b" % (self._stamp, rest // MICROSECOND, head)
        if not fields:
            return self._redacted(start + b"}") + b"\n"
        names = self._names
        record: dict[str, object] = {}
        hidden = False
        for field, value in fields.items():
            key = names.get(field) or self._name(field)
            if key[-1] == "\0":
                hidden = True
                record[key] = REDACTED
            else:
                record[key] = _nested(value) if isinstance(value, _NESTED) else value
        if hidden:
            record = {key.rstrip("\0"): value for key, value in record.items()}
        return self._seal(start, record)

    def _head(self, name: str, severity: str) -> bytes:
        """Return what follows the time in every record of one event and severity."""
        told = {
            "log.level": severity if severity in LEVELS else "info",
            "message": name[:_LONGEST_NAME].replace("-", " "),
            "event.action": name[:_LONGEST_NAME],
        }
        try:
            encoded = _ENCODER.encode(told)
        except (UnicodeError, TypeError):
            encoded = _ENCODER.encode({key: _shown(value) for key, value in told.items()})
        head = b'",' + encoded[1:-1] + self._constant
        if len(self._heads) < MAX_NAMES:
            self._heads[name, severity] = head
        return head

    def _seal(self, start: bytes, record: dict[str, object]) -> bytes:
        try:
            told = _ENCODER.encode(record)
        except (TypeError, ValueError, UnicodeError, RecursionError, OverflowError, RuntimeError):
            told = _ENCODER.encode({_shown(key): _shown(value) for key, value in record.items()})
        line = start + b"," + told[1:]
        if len(line) > MAX_LINE_BYTES:
            line = start + b',"%b.cut_bytes":%d}' % (self._prefix.encode(), len(line))
        return self._redacted(line) + b"\n"

    def _redacted(self, line: bytes) -> bytes:
        for secret in self._secrets:
            if secret in line:
                line = line.replace(secret, REDACTED.encode())
        if b"earer" in line:
            line = _BEARER.sub(rb"\1" + REDACTED.encode(), line)
        if not line.isascii() or b"\x7f" in line:
            line = _OBEYED.sub(_escaped, line)
        return line

    def _name(self, field: str) -> str:
        """Return where a field stands. A name that tells of a secret ends in NUL, which no sound name does."""
        key = ECS_FIELDS.get(field)
        if key is None:
            key = f"{self._prefix}.{_UNSAFE_NAME.sub('_', field.lower())[:64]}"
            if _TELLING.search(field):
                key += "\0"
        if len(self._names) < MAX_NAMES:
            self._names[field] = key
        return key


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(found[0].decode())


def _nested(value: object) -> object:
    """Return a nested value masked; one that another thread changes meanwhile, or that has no end, is only named."""
    try:
        return masked(value)
    except (RuntimeError, RecursionError) as error:
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def masked(value: object) -> object:
    """Return a nested value with what stands under telling names blotted out."""
    if isinstance(value, dict):
        return {str(key): REDACTED if _TELLING.search(str(key)) else masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner) for inner in value]
    return value


def _shown(value: object) -> str:
    """Return any value as bounded text that can be encoded."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:  # noqa: BLE001 - a broken __repr__ must not cost the record
        text = f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
    return text[:1_000].encode(errors="backslashreplace").decode()


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_shown)
