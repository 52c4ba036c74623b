"""What the detectors' process keeps over a restart: one file, renamed into place whole, checked when it is read.

A magic word, the length of a JSON head, the head (seats, pages, how far answers of people are taken in) and the state
of the fleet as it gave it. A checksum in the head guards the rest: a file that is cut short or of another list of
series is no state, and the process begins anew from Prometheus's history.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from control.addresses import write_atomically
from control.anomaly_lasting import LastingKept
from kernel.time import Instant
from monitor.watched import Watched

MAGIC: Final = b"TWANOM01"
MAX_BYTES: Final = 256 * 1024 * 1024
_LENGTH: Final = struct.Struct("<I")


class Seat(msgspec.Struct, kw_only=True):
    """A series' place in the fleet, and where its alert stands."""

    index: int
    series: str
    item: str
    service: str
    seen_at: Instant
    """Its last reading."""
    begun: Instant = Instant(0)
    """Its first reading, and the first after its past was forgotten."""
    patience: float = 1.0
    """How many times farther than usual it must depart: doubled by each answer that it was a false alarm."""
    due_until: Instant = Instant(0)
    """The detector asked for attention and nobody was told: until then a row that matters tells."""
    paging: bool = False
    """An episode goes on that has."""
    hold_until: Instant = Instant(0)
    page: str = ""
    """The id of its last page."""
    usual: float | None = None
    """Its mean over the last rows; None before the first."""
    rows: int = 0
    """Readings that went into it, up to `anomaly_watch.USUAL_ROWS`."""
    newest: LastingKept | None = None
    """Its newest readings and what lasts of it; set when it is kept."""


class Page(msgspec.Struct, kw_only=True):
    """A time that a series asked for attention."""

    id: str
    at: Instant
    series: str
    item: str
    service: str
    channel: str
    value: float | None
    """None: the reading was missed."""
    low: float | None
    high: float | None
    sentence: str
    answer: str = ""
    """What people said of it: `false`, `true` or nothing yet."""


class Life(msgspec.Struct, frozen=True):
    """A replica's present life: its job, the version that runs and when the process began, in seconds of the epoch."""

    job: str
    build: str = ""
    since: float = 0.0


class Kept(msgspec.Struct, kw_only=True):
    """All of it."""

    at: Instant
    seats: list[Seat]
    lives: dict[str, Life]
    pages: list[Page]
    answered: int
    fleet: bytes


class _Head(msgspec.Struct, kw_only=True):
    list_of: str
    """The digest of the list of series."""
    crc: int
    at: Instant
    seats: list[Seat]
    lives: dict[str, Life]
    pages: list[Page]
    answered: int


def digest_of(watched: Sequence[Watched], step_s: int, window_s: int) -> str:
    """Return what a state belongs to: the questions, their bounds and their pace. Reasons and units may change."""
    asked = [(one.id, one.query, one.by, one.most, step_s, window_s) for one in watched]
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()


def encode(kept: Kept, digest: str) -> bytes:
    """Return the file's content."""
    head = msgspec.json.encode(
        _Head(
            list_of=digest, crc=zlib.crc32(kept.fleet), at=kept.at, seats=kept.seats, lives=kept.lives,
            pages=kept.pages, answered=kept.answered,
        )
    )  # fmt: skip
    return b"".join((MAGIC, _LENGTH.pack(len(head)), head, kept.fleet))


def decode(data: bytes, digest: str | None) -> Kept:
    """Return what a file's content says.

    Args:
        data: the content.
        digest: what it must belong to; None: whatever it belongs to.

    Raises:
        ValueError: it is no state, is damaged, or belongs to another list of series; says which.
    """
    start = len(MAGIC) + _LENGTH.size
    if len(data) < start or data[: len(MAGIC)] != MAGIC:
        raise ValueError("it is no state of the detectors of this version")
    (length,) = _LENGTH.unpack(data[len(MAGIC) : start])
    try:
        head = msgspec.json.decode(data[start : start + length], type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"its head is damaged: {error}") from error
    fleet = data[start + length :]
    if zlib.crc32(fleet) != head.crc:
        raise ValueError("it is damaged: the checksum differs")
    if digest is not None and head.list_of != digest:
        raise ValueError("it belongs to another list of series or another pace")
    return Kept(
        at=head.at, seats=head.seats, lives=head.lives, pages=head.pages, answered=head.answered, fleet=fleet
    )  # fmt: skip


def load_kept(path: Path, digest: str | None) -> Kept | None:
    """Read a state; None when there is none.

    Raises:
        ValueError: there is one that cannot be used; says why.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
    return decode(data, digest)


def peek(path: Path) -> Kept | None:
    """Read a state for the terminal; None when there is none that can be read."""
    try:
        return load_kept(path, None)
    except ValueError:
        return None


def save_kept(path: Path, data: bytes) -> None:
    """Put a state in place.

    Raises:
        OSError: the disk is full or read-only; what was there before stays.
    """
    write_atomically(path, data, mode=0o600)
