"""A state as bytes: a JSON header and plain arrays, with a version and a sum; no code in it."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b"TWJOINT1"
"""The kind and the version of the format."""
KINDS: Final = frozenset({"float64", "int64", "int32", "int8", "bool"})
_HEAD: Final = len(MAGIC) + 8


def packed(facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return facts (as JSON has them) and arrays as bytes, little-endian on every machine."""
    table = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    header = json.dumps({"facts": facts, "arrays": table}).encode()
    body = header + b"".join(
        np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays.values()
    )
    return MAGIC + len(header).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body


def unpacked(kept: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return what `packed` was given.

    Raises:
        ValueError: the bytes are of another kind or version, cut short or damaged.
    """
    if not kept.startswith(MAGIC) or len(kept) < _HEAD:
        raise ValueError(f"this is no kept state of a machine of version {MAGIC.decode()}")
    size = int.from_bytes(kept[len(MAGIC) : len(MAGIC) + 4], "little")
    body = kept[_HEAD:]
    if zlib.crc32(body) != int.from_bytes(kept[len(MAGIC) + 4 : _HEAD], "little"):
        raise ValueError("the kept state of a machine is damaged: its sum does not match")
    header = json.loads(body[:size])
    arrays: dict[str, NDArray[Any]] = {}
    place = size
    for name, kind, shape in header["arrays"]:
        if kind not in KINDS:
            raise ValueError(f"the kept state of a machine holds {kind} numbers")
        wanted = np.dtype(kind)
        count = int(np.prod(shape, dtype=np.int64))
        found = np.frombuffer(body, dtype=wanted.newbyteorder("<"), count=count, offset=place)
        arrays[name] = found.astype(wanted).reshape(shape).copy()
        place += count * wanted.itemsize
    return header["facts"], arrays
