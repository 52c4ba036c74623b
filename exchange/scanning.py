"""Finding whole records in bytes, the two ways: quick where it is compiled, and quick where it is not.

Compiled code reads a byte of `bytes` in a nanosecond and pays for each call; the sources pay for each byte and unpack a
whole head in one call. Both stop at the same place, which is all they say: `journal.Scan` tells what is wrong there.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from mypy_extensions import i64  # a machine word in compiled code, an `int` in sources

MAX_PAYLOAD_BYTES: Final = 1024 * 1024 * 1024
"""More than any record needs (the largest is the close of a session with very many orders)."""
HEAD_BYTES: Final = 20
"""Of a record; the last four are the checksum of those before."""
TAIL_BYTES: Final = 5
PREFIX: Final = b"TJ\x01\x00"
"""How every record begins: magic, version of the format, zero."""
END_MARK: Final = 0xA5

_PLAIN_BYTES: Final = 16
_OVERHEAD: Final = HEAD_BYTES + TAIL_BYTES
_PREFIX_WORD: Final = 0x544A0100
_HEAD: Final = struct.Struct(">4sIQI")
_TAIL: Final = struct.Struct(">IB")


def by_calls(data: bytes, offset: int, seq: int, most: int, found: list[bytes], *, checked: bool) -> int:
    """Put what up to `most` whole records from `offset` on hold into `found`; return where they end.

    `seq` is the number that the first must have. It stops before whatever is no whole record, for whatever reason.
    `checked`: the checksums of the records are not compared.
    """
    size, last = len(data), seq + most
    head, tail_of, crc = _HEAD.unpack_from, _TAIL.unpack_from, crc32
    while seq < last and offset + _OVERHEAD <= size:
        prefix, length, number, checksum = head(data, offset)
        body = offset + HEAD_BYTES
        tail = body + length
        if number != seq or prefix != PREFIX or tail + TAIL_BYTES > size or length > MAX_PAYLOAD_BYTES:
            break
        payload = data[body:tail]
        if not checked and (
            checksum != crc(data[offset : offset + _PLAIN_BYTES])
            or tail_of(data, tail) != (crc(payload, seq & 0xFFFFFFFF), END_MARK)
        ):
            break
        found.append(payload)
        offset = tail + TAIL_BYTES
        seq += 1
    return offset


def by_bytes(data: bytes, offset: int, seq: int, most: int, found: list[bytes], *, checked: bool) -> int:
    """Do what `by_calls` does, for compiled code."""
    at: i64 = offset
    size: i64 = len(data)
    number: i64 = seq
    last: i64 = number + most
    while number < last and at + _OVERHEAD <= size:
        length: i64 = _word(data, at + 4)
        body: i64 = at + HEAD_BYTES
        tail: i64 = body + length
        # The high word of the number first: a whole one of 64 bits would not fit into a signed machine word.
        if (
            _word(data, at + 8) != number >> 32
            or _word(data, at + 12) != number & 0xFFFFFFFF
            or _word(data, at) != _PREFIX_WORD
            or tail + TAIL_BYTES > size
            or length > MAX_PAYLOAD_BYTES
        ):
            break
        payload = data[body:tail]
        if not checked:
            of_head: i64 = crc32(data[at : at + _PLAIN_BYTES])
            of_payload: i64 = crc32(payload, number & 0xFFFFFFFF)
            if of_head != _word(data, at + 16) or of_payload != _word(data, tail) or data[tail + 4] != END_MARK:
                break
        found.append(payload)
        at = tail + TAIL_BYTES
        number += 1
    return at


def _word(data: bytes, at: i64) -> i64:
    """Return the 32 bits at a place, big-endian."""
    first: i64 = data[at]
    second: i64 = data[at + 1]
    third: i64 = data[at + 2]
    fourth: i64 = data[at + 3]
    return (first << 24) | (second << 16) | (third << 8) | fourth
