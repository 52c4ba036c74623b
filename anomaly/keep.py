"""The state of series as bytes and back: numbers behind a line of JSON, no code, refused when it is another layout."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, Final

import numpy as np

from anomaly.kernel import STATE
from anomaly.settings import Settings
from kernel.errors import InputError

VERSION: Final = 1
_WHAT: Final = "tapewatch detectors"
LAYOUT: Final = hashlib.blake2b(repr(STATE.descr).encode(), digest_size=8).hexdigest()
"""Names the fields of a state; one of other fields is not read as if it were this one."""


def pack(states: Any, settings: Settings) -> bytes:
    """Return states and settings as bytes: a line of JSON, then the numbers, with a checksum of both."""
    body = states.tobytes()
    head: dict[str, Any] = {
        "what": _WHAT, "version": VERSION, "layout": LAYOUT, "count": len(states), "byteorder": "little",
        "settings": dataclasses.asdict(settings), "digest": hashlib.blake2b(body, digest_size=16).hexdigest(),
    }  # fmt: skip
    return json.dumps(head, sort_keys=True).encode() + b"\n" + body


def unpack(kept: bytes) -> tuple[Any, Settings]:
    """Return the states, their own copy, and the settings.

    Raises:
        InputError: the bytes are no such state, are damaged, or come from another version.
    """
    line, _, body = kept.partition(b"\n")
    try:
        head = json.loads(line)
        count, settings = int(head["count"]), Settings(**head["settings"])
        version, layout, digest = head["version"], head["layout"], head["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("state of detectors", "is not one", right="what `save` returned") from error
    if version != VERSION or layout != LAYOUT:
        raise InputError(
            "state of detectors", f"is of version {version}, layout {layout}",
            right=f"version {VERSION}, layout {LAYOUT}; begin anew from history",
        )  # fmt: skip
    if len(body) != count * STATE.itemsize or hashlib.blake2b(body, digest_size=16).hexdigest() != digest:
        raise InputError("state of detectors", "is damaged", right="the bytes as they were saved")
    return np.frombuffer(bytearray(body), STATE), settings  # a copy that may be written, padding and all
