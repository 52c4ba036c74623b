"""Reading all there is of a log, and naming the first byte that is not as it was written. Changes nothing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from exchange.adapters.log_holds import reading
from exchange.adapters.log_reading import LogCorruptError, Reader, list_segments, read_manifest
from exchange.journal import (
    RECORD_OVERHEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    CorruptError,
    Kind,
    Scan,
    decode_command,
    decode_events,
    read_segment_head,
)
from exchange.manifest import NAME
from exchange.scanning import MAX_PAYLOAD_BYTES
from kernel.errors import InputError, PermanentError

_SEARCHED_BYTES: Final = 4096
"""The largest record in which the flipped bit is looked for: every bit of it is tried."""
_PROGRESS_EVERY: Final = 10_000
_KIND: Final = struct.Struct(">8sHH")
_LENGTH: Final = struct.Struct(">4xI")


class BadByte(msgspec.Struct, frozen=True):
    """The first byte that is not as it was written."""

    path: str
    offset: int
    """From the start of the file; exact when one bit was flipped, else where the damaged record begins."""
    exact: bool
    what: str


class LogCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What there is of a log."""

    directory: str
    kind: str
    """`commands` or `events`."""
    segments: int
    size: int
    """Bytes of all segments."""
    first_seq: int
    last_seq: int
    records: int
    torn_bytes: int = 0
    """Bytes after the last whole record: being written, or cut short; never acknowledged."""
    manifest: bool
    """False: a log of an older program, which cannot tell a missing end."""
    bad: BadByte | None = None


def is_log(directory: Path) -> bool:
    """Tell whether a directory holds a log."""
    return directory.is_dir() and bool(list_segments(directory) or (directory / NAME).exists())


def check_log(directory: Path, progress: Callable[[int], None] = lambda _: None) -> LogCheck:
    """Read every byte of a log; the log may be in use. `progress` is told the sequence number now and then.

    Raises:
        InputError: there is no log in this directory, or it cannot be read.
        PermanentError: it is of another format version.
    """
    if not is_log(directory):
        raise InputError(str(directory), "there is no log here", right="name the directory that holds the segments")
    with reading(directory):  # nothing may go between reading the manifest and what it names
        return _check(directory, progress)


def _check(directory: Path, progress: Callable[[int], None]) -> LogCheck:
    segments = list_segments(directory)
    kind = Kind.COMMANDS
    bad: BadByte | None = None
    first = segments[0].first_seq if segments else 1
    last, records, torn = first - 1, 0, 0
    named = True
    try:
        manifest = read_manifest(directory)
        named = manifest is not None
        kind = manifest.kind if manifest is not None else _kind_of(segments[0].path)
        if manifest is not None:
            first, last = manifest.removed_to + 1, manifest.removed_to
        reader = Reader(directory, first, kind=kind)
        for record in reader:
            _decode(kind, record.payload, reader.path or directory, record.end)
            last, records = record.seq, records + 1
            if not records % _PROGRESS_EVERY:
                progress(last)
        torn = reader.torn.size if reader.torn is not None else 0
    except LogCorruptError as error:
        bad = _bad_byte(error, kind)
    except OSError as error:
        raise InputError(str(error.filename or directory), f"cannot be read: {error.strerror}") from error
    return LogCheck(
        directory=str(directory), kind=kind.name.lower(), segments=len(segments),
        size=sum(_size(one.path) for one in segments), first_seq=first, last_seq=last, records=records,
        torn_bytes=torn, manifest=named, bad=bad,
    )  # fmt: skip


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _kind_of(path: Path) -> Kind:
    """Guess what a log without a manifest holds; a wrong guess is found by reading."""
    head = path.read_bytes()[: _KIND.size]
    if len(head) == _KIND.size and _KIND.unpack(head)[2] == Kind.EVENTS:
        return Kind.EVENTS
    return Kind.COMMANDS


def _decode(kind: Kind, payload: bytes, path: Path, end: int) -> None:
    """Check that a record which is whole holds something this program can read."""
    try:
        if kind is Kind.COMMANDS:
            decode_command(payload)
        else:
            decode_events(payload)
    except msgspec.MsgspecError as error:
        begins = end - len(payload) - RECORD_OVERHEAD_BYTES
        raise LogCorruptError(path, begins, f"a whole record that this program cannot read: {error}") from error


def _bad_byte(error: LogCorruptError, kind: Kind) -> BadByte:
    exact = _flipped(error.path, error.offset, kind)
    if exact is None:
        return BadByte(str(error.path), error.offset, exact=False, what=error.what)
    return BadByte(str(error.path), exact, exact=True, what=error.what)


def _flipped(path: Path, offset: int, kind: Kind) -> int | None:
    """Return the byte whose change by one bit makes the record at `offset`, or the head of the file, whole again."""
    if path.name == NAME:
        return _first(_try_manifest, bytearray(path.read_bytes()), range(_size(path)))
    if not path.stem.isdecimal():
        return None
    first_seq = int(path.stem)
    try:
        data = bytearray(path.read_bytes())
    except OSError:
        return None
    if offset == 0:
        span = range(min(SEGMENT_HEAD_BYTES, len(data)))
        return _first(lambda tried: read_segment_head(tried, kind, first_seq) is None, data, span)
    seq = _seq_at(data, first_seq, offset)
    rest = data[offset : offset + _SEARCHED_BYTES + RECORD_OVERHEAD_BYTES]
    found = _first(lambda tried: _is_record(tried, seq), rest, range(len(rest)))
    return None if found is None else offset + found


def _seq_at(data: bytearray, first_seq: int, offset: int) -> int:
    seq = first_seq
    scan = Scan(bytes(data[:offset]), first_seq=first_seq, offset=SEGMENT_HEAD_BYTES)
    for record in scan:
        seq = record.seq + 1
    return seq


def _is_record(data: bytes | bytearray, seq: int) -> bool:
    """Tell whether a whole record begins here."""
    if len(data) < RECORD_OVERHEAD_BYTES:
        return False
    (length,) = _LENGTH.unpack_from(data)
    if length > min(MAX_PAYLOAD_BYTES, len(data) - RECORD_OVERHEAD_BYTES):
        return False
    try:
        return any(True for _ in Scan(bytes(data[: length + RECORD_OVERHEAD_BYTES]), first_seq=seq))
    except CorruptError:
        return False


def _try_manifest(data: bytes | bytearray) -> bool:
    body, _, rest = bytes(data).partition(b"\n")
    return rest == f"{crc32(body):08x}\n".encode()


def _first(is_whole: Callable[[bytes], bool], data: bytearray, places: range) -> int | None:
    """Flip one bit after the other; return the first place where that makes it whole."""
    for place in places:
        for bit in range(8):
            data[place] ^= 1 << bit
            try:
                if is_whole(bytes(data)):
                    return place
            except PermanentError:
                pass
            data[place] ^= 1 << bit
    return None
