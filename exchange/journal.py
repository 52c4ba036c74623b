"""How commands and events become bytes in a file, and how damage is told from an interrupted write.

A segment is a head and then records. A record is

    magic (2) | format version (1) | zero (1) | length (4) | sequence (8) | CRC-32 of these 16 (4)
    payload (length)
    CRC-32 of sequence and payload (4) | end mark (1, never zero)

all numbers big-endian. The head of a record has a checksum of its own, so its length can be trusted:
  - a file that ends before the record does was cut short while it was written: **torn**, never acknowledged;
  - all else that does not fit is **corruption**: somebody's acknowledged command is at stake, so nothing is repaired.
A file may have been made longer than what was written: a record that ends in nothing but zero bytes up to the end of
the file is torn too. The end mark makes that safe, as no whole record can end in a zero byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from exchange import scanning
from exchange.commands import Sequenced
from exchange.events import Happened
from exchange.scanning import MAX_PAYLOAD_BYTES
from kernel.errors import PermanentError

FORMAT_VERSION: Final = 1

BATCH: Final = 512
"""How many records are read at a time: what they hold stays in the processor's cache until it is used."""

_MAGIC: Final = b"TJ"
_HEAD: Final = struct.Struct(">2sBBIQI")
_HEAD_PLAIN: Final = struct.Struct(">2sBBIQ")
_TAIL: Final = struct.Struct(">IB")
_END: Final = scanning.END_MARK
_PREFIX: Final = scanning.PREFIX

_SEGMENT_MAGIC: Final = b"TAPEWTCH"
_SEGMENT_HEAD: Final = struct.Struct(">8sHHQIB")
_SEGMENT_PLAIN: Final = struct.Struct(">8sHHQ")
SEGMENT_HEAD_BYTES: Final = _SEGMENT_HEAD.size
RECORD_OVERHEAD_BYTES: Final = _HEAD.size + _TAIL.size

_COMPILED: Final = not (scanning.__file__ or "").endswith(".py")
_whole_records: Final = scanning.by_bytes if _COMPILED else scanning.by_calls

_ENCODER: Final = msgspec.msgpack.Encoder()

decode_command: Final[Callable[[bytes], Sequenced]] = msgspec.msgpack.Decoder(Sequenced).decode
"""Returns the command of a record; raises `msgspec.DecodeError` when the payload holds no command of this version.

No function of its own: a recovery calls it for each record, and a call more is a thirtieth of all it does.
"""
decode_events: Final[Callable[[bytes], Happened]] = msgspec.msgpack.Decoder(Happened).decode
"""Returns the events of a record; raises `msgspec.DecodeError` when the payload holds no events of this version."""


class Kind(IntEnum):
    """What the records of a segment hold."""

    COMMANDS = 1
    EVENTS = 2


class RecordTooLargeError(PermanentError):
    """What one command caused is more than a record can hold."""


class CorruptError(PermanentError):
    """Bytes which were not written like this. `offset` counts from the start of what was scanned."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"corrupt at byte {offset}: {what}")
        self.offset = offset
        self.what = what


class VersionError(PermanentError):
    """A whole segment of another format version."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format version {version}; this program reads version {FORMAT_VERSION}")
        self.version = version


class Record(NamedTuple):
    """One record as it was read."""

    seq: int
    payload: bytes
    end: int
    """Where the next record begins."""


class Torn(NamedTuple):
    """A write that was cut short: everything from `offset` on, `size` bytes, was never acknowledged."""

    offset: int
    size: int


def encode_command(item: Sequenced) -> bytes:
    """Return the payload of a record of `Kind.COMMANDS`."""
    return _ENCODER.encode(item)


def encode_events(item: Happened) -> bytes:
    """Return the payload of a record of `Kind.EVENTS`."""
    return _ENCODER.encode(item)


def frame(seq: int, payload: bytes) -> bytes:
    """Return a whole record.

    Raises:
        RecordTooLargeError: the payload is larger than `MAX_PAYLOAD_BYTES`.
    """
    return frames(seq, (payload,))


def frames(first_seq: int, payloads: Sequence[bytes]) -> bytes:
    """Return whole records, one behind the other, the first with the number `first_seq`.

    Raises:
        RecordTooLargeError: a payload is larger than `MAX_PAYLOAD_BYTES`.
    """
    parts: list[bytes] = []
    pack_head, pack_tail = _HEAD_PLAIN.pack, _TAIL.pack
    for seq, payload in enumerate(payloads, first_seq):
        length = len(payload)
        if length > MAX_PAYLOAD_BYTES:
            raise RecordTooLargeError(f"record {seq} holds {length} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")
        plain = pack_head(_MAGIC, FORMAT_VERSION, 0, length, seq)
        tail = pack_tail(crc32(payload, seq & 0xFFFFFFFF), _END)
        parts += (plain, crc32(plain).to_bytes(4, "big"), payload, tail)
    return b"".join(parts)


def segment_head(kind: Kind, first_seq: int) -> bytes:
    """Return the head of a segment whose first record will be `first_seq`."""
    plain = _SEGMENT_PLAIN.pack(_SEGMENT_MAGIC, FORMAT_VERSION, kind, first_seq)
    return plain + _TAIL.pack(crc32(plain), _END)


def read_segment_head(data: bytes | memoryview, kind: Kind, first_seq: int) -> Torn | None:
    """Check the head of a segment; return `Torn` when its writing was cut short.

    Raises:
        VersionError: the segment is whole, but of another version.
        CorruptError: the head is damaged, or of another kind or place than asked for.
    """
    expected = segment_head(kind, first_seq)
    if bytes(data[:SEGMENT_HEAD_BYTES]) == expected:
        return None
    written = bytes(data[:SEGMENT_HEAD_BYTES])
    if len(written) == SEGMENT_HEAD_BYTES and written[-1] == _END:
        magic, version, found_kind, found_seq, checksum, _ = _SEGMENT_HEAD.unpack(written)
        if magic != _SEGMENT_MAGIC or checksum != crc32(written[: _SEGMENT_PLAIN.size]):
            raise CorruptError(0, "the head of the segment is damaged")
        if version != FORMAT_VERSION:
            raise VersionError(version)
        raise CorruptError(
            0, f"a segment of kind {found_kind} from {found_seq} stands where {kind} from {first_seq} should"
        )
    if expected.startswith(_written(data, 0)):
        return Torn(0, len(data))
    raise CorruptError(0, "the head of the segment is damaged")


def in_batches(records: Iterable[Record]) -> Iterator[list[bytes]]:
    """Yield what records hold, many at a time."""
    payloads: list[bytes] = []
    for record in records:
        payloads.append(record.payload)
        if len(payloads) == BATCH:
            yield payloads
            payloads = []
    if payloads:
        yield payloads


class Scan:
    """The records of a stretch of bytes, one after the other.

    Iterate over it; afterwards `torn` tells of an interrupted write at the end (None: the last record is whole) and
    `end` is where the whole records end. Iteration raises `CorruptError` when anything else does not fit.
    """

    def __init__(self, data: bytes | memoryview, *, first_seq: int, offset: int = 0) -> None:
        # Slices of bytes are copied once and are quicker to make than views; records are small.
        self._data = bytes(data)
        self._next_seq = first_seq
        self.end = offset
        self.torn: Torn | None = None

    @property
    def next_seq(self) -> int:
        """The number of the record that comes next."""
        return self._next_seq

    def __iter__(self) -> Iterator[Record]:
        """Yield the records from where the last iteration stopped."""
        offset, seq = self.end, self._next_seq
        for payloads in self.batches():
            for payload in payloads:
                self.end = offset = offset + len(payload) + RECORD_OVERHEAD_BYTES
                record = Record(seq, payload, offset)
                self._next_seq = seq = seq + 1
                yield record

    def batches(self, *, most: int = BATCH, checked: bool = False) -> Iterator[list[bytes]]:
        """Yield what the records hold, up to `most` at a time, from where the last iteration stopped.

        `checked`: a checksum over all the bytes was compared, those of the records need not be.
        """
        while True:
            payloads: list[bytes] = []
            self.end = _whole_records(self._data, self.end, self._next_seq, most, payloads, checked=checked)
            self._next_seq += len(payloads)
            if payloads:
                yield payloads
            if len(payloads) < most:
                break
        if self.end < len(self._data):
            self._judge(self.end, self._next_seq)

    def _judge(self, offset: int, seq: int) -> None:
        """Tell what is wrong with the bytes from `offset` on, where no whole record stands."""
        data = self._data
        body = offset + _HEAD.size
        if body > len(data):
            self._cut_short(offset)
            return
        magic, version, zero, length, found, checksum = _HEAD.unpack_from(data, offset)
        if checksum != crc32(data[offset : offset + _HEAD_PLAIN.size]):
            self._doubt(offset, body, "the head of a record does not fit its checksum")
            return
        if magic != _MAGIC or version != FORMAT_VERSION or zero:
            raise CorruptError(offset, "no record of this format begins here")
        if found != seq:
            raise CorruptError(offset, f"record {found} stands where {seq} should")
        if length > MAX_PAYLOAD_BYTES:
            raise CorruptError(offset, f"a record claims {length} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")
        end = body + length + _TAIL.size
        if end > len(data):
            self._cut_short(offset)
        else:
            self._doubt(offset, end, f"record {seq} does not fit its checksum")

    def _cut_short(self, offset: int) -> None:
        """The file ends within a record: torn, if what is there is the beginning of one."""
        head = bytes(_written(self._data, offset))[: len(_PREFIX)]
        if not _PREFIX.startswith(head):
            raise CorruptError(offset, "no record of this format begins here")
        self.torn = Torn(offset, len(self._data) - offset)

    def _doubt(self, offset: int, end: int, what: str) -> None:
        """A checksum fails: torn, if the rest of the file was never written; else corrupt."""
        if offset + len(_written(self._data, offset)) >= end:
            raise CorruptError(offset, what)
        self._cut_short(offset)


def _written(data: bytes | memoryview, offset: int) -> bytes:
    """Return the bytes from `offset` on without the zero bytes at the end of the file."""
    return bytes(data[offset:]).rstrip(b"\0")
