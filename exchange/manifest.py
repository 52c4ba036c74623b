"""What a log says of its own files: which segments there are, how each ended, and what was removed on purpose.

Records tell damage within a segment; only the manifest tells a segment that is gone from one that never was. It is one
line of JSON and its CRC-32 as eight hexadecimal digits, and is replaced as a whole whenever a segment begins or is
removed. A segment exists before the manifest names it, and is removed after the manifest ceased to: so what is named
and not there is lost, always.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

import msgspec

from exchange.journal import FORMAT_VERSION, CorruptError, Kind, VersionError

NAME: Final = "manifest"
_DIGITS: Final = 8


class Sealed(msgspec.Struct, frozen=True):
    """A segment that nothing is added to any more."""

    first_seq: int
    last_seq: int
    size: int
    """Bytes."""
    crc32: int
    """Over the whole file."""


class Keep(msgspec.Struct, frozen=True):
    """What a compaction leaves although it could go: whatever either member keeps stays."""

    size: int = 0
    """At least so many bytes of the newest segments; 0: no bound."""
    age: int = 0
    """Segments that were written to within so many nanoseconds; 0: no bound."""


NOTHING: Final = Keep()
"""Everything that may go goes."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The segments of a log, oldest first."""

    version: int = FORMAT_VERSION
    kind: Kind
    removed_to: int
    """The last record that compaction removed; 0: none, or one before the first of a log that began later."""
    sealed: tuple[Sealed, ...]
    open_seq: int
    """The first record of the segment that is written to."""

    @property
    def first_seqs(self) -> tuple[int, ...]:
        """The first record of each segment."""
        return (*(one.first_seq for one in self.sealed), self.open_seq)


def dump(manifest: Manifest) -> bytes:
    """Return the bytes of a manifest."""
    body = msgspec.json.encode(manifest)
    return body + f"\n{crc32(body):0{_DIGITS}x}\n".encode()


def load(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        CorruptError: it is damaged, or contradicts itself.
        VersionError: it is whole, but of another format version.
    """
    body, line, rest = data.partition(b"\n")
    if not line or rest != f"{crc32(body):0{_DIGITS}x}\n".encode():
        raise CorruptError(0, "the manifest does not fit its checksum")
    try:
        version = msgspec.json.decode(body, type=_Versioned).version
        if version != FORMAT_VERSION:
            raise VersionError(version)
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise CorruptError(0, f"the manifest holds something else: {error}") from error
    following = manifest.removed_to + 1
    for one in manifest.sealed:
        if one.first_seq != following or one.last_seq < one.first_seq - 1:
            raise CorruptError(0, f"the manifest names {one.first_seq} where {following} should follow")
        following = one.last_seq + 1
    if manifest.open_seq != following:
        raise CorruptError(0, f"the manifest names {manifest.open_seq} where {following} should follow")
    return manifest


class _Versioned(msgspec.Struct, frozen=True):
    version: int
