"""How a record of the journal or of the event log becomes a message for others, and is read again.

    magic (2) | schema version (1) | kind (1) | sequence (8) | CRC-32 of these 12 and the payload (4) | payload

all numbers big-endian; the payload is the record's own, as `exchange.journal` encodes it. New fields of commands and
events have defaults and need no new version. A change that an older program would misread does; then this module still
reads all the versions before (`READABLE`), and the messages kept in `tests/exchange/golden` hold it to that.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple
from zlib import crc32

from exchange.journal import Kind
from kernel.errors import PermanentError

SCHEMA_VERSION: Final = 1
READABLE: Final = frozenset({1})
"""Versions this program understands."""

_MAGIC: Final = b"TM"
_PLAIN: Final = struct.Struct(">2sBBQ")
_HEAD: Final = struct.Struct(">2sBBQI")
OVERHEAD_BYTES: Final = _HEAD.size


class MessageError(PermanentError):
    """Bytes that are no message of ours. `what` says why, fit for a header."""

    def __init__(self, what: str) -> None:
        super().__init__(f"no message of this exchange: {what}")
        self.what = what


class SchemaError(MessageError):
    """A whole message of a version that this program does not read."""

    def __init__(self, version: int, seq: int = 0) -> None:
        super().__init__(f"schema version {version}; this program reads {', '.join(map(str, sorted(READABLE)))}")
        self.version = version
        self.seq = seq


class Message(NamedTuple):
    """A message as it was read."""

    version: int
    kind: Kind
    seq: int
    payload: bytes


def seal(kind: Kind, seq: int, payload: bytes) -> bytes:
    """Return a message that holds a record."""
    plain = _PLAIN.pack(_MAGIC, SCHEMA_VERSION, kind, seq)
    return b"".join((plain, crc32(payload, crc32(plain)).to_bytes(4, "big"), payload))


def unseal(data: bytes | None, kind: Kind) -> Message:
    """Return the record in a message.

    Raises:
        SchemaError: it is whole, and of another version.
        MessageError: it is damaged, of another kind, or not ours.
    """
    if data is None or len(data) < OVERHEAD_BYTES:
        raise MessageError(f"{0 if data is None else len(data)} bytes are too few")
    magic, version, found, seq, checksum = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise MessageError("it does not begin like one")
    payload = data[OVERHEAD_BYTES:]
    if checksum != crc32(payload, crc32(data[: _PLAIN.size])):
        raise MessageError("it does not fit its checksum")
    if version not in READABLE:
        raise SchemaError(version, seq)
    if found != kind:
        raise MessageError(f"it is of kind {found}, where {kind.value} was expected")
    return Message(version, kind, seq, payload)
