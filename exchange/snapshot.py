"""An engine's state as bytes: magic, version, checksum, then the state in MessagePack."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from exchange.engine import Engine, Frozen
from exchange.types import Instrument, Venue
from kernel.errors import PermanentError

VERSION: Final = 4
"""2 before symbols had a `continue_at`, 3 before a day kept the orders that it began with (`carried`): the same bytes
otherwise, so they are read, too, and have other hashes."""
_READ: Final = frozenset({2, 3, VERSION})
_MAGIC: Final = b"TWSNAP"
_HEAD: Final = struct.Struct(">6sH16s")
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Frozen)


class SnapshotError(PermanentError):
    """Bytes that are no snapshot this program can use."""


def dump(engine: Engine) -> bytes:
    """Write an engine's whole state."""
    body = _ENCODER.encode(engine.freeze())
    return _HEAD.pack(_MAGIC, VERSION, _checksum(VERSION, body)) + body


def load(data: bytes, instruments: Sequence[Instrument], venue: Venue | None = None) -> Engine:
    """Return an engine in the state that `dump` wrote; its `state_hash` is the same.

    Raises:
        SnapshotError: the bytes are damaged, no snapshot, or of another version.
        InputError: the snapshot belongs to other instruments or another venue.
    """
    if len(data) < _HEAD.size:
        raise SnapshotError(
            f"snapshot: {len(data)} bytes are too few for one; take an older snapshot or replay the journal"
        )
    magic, version, checksum = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if magic != _MAGIC:
        raise SnapshotError("snapshot: it does not begin like one; take an older snapshot or replay the journal")
    if checksum != _checksum(version, body):
        raise SnapshotError("snapshot: its checksum does not fit; take an older snapshot or replay the journal")
    if version not in _READ:
        raise SnapshotError(
            f"snapshot: it is of version {version}; this program reads version {VERSION}, replay the journal"
        )
    try:
        frozen = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"snapshot: its content does not fit this program ({error}); replay the journal") from error
    return Engine.thaw(frozen, instruments, venue)


def _checksum(version: int, body: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(version.to_bytes(2, "big"), digest_size=16)
    digest.update(body)
    return digest.digest()
