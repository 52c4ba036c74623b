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
    body: bytes = states.tobytes()
    head: dict[str, Any] = {
        "what": _WHAT, "version": VERSION, "layout": LAYOUT, "count": len(states), "byteorder": "little",
        "settings": dataclasses.asdict(settings),
    }  # fmt: skip
    line = _line({**head, "digest": _digest(head, body)})
    return line + b"\n" + body


def _line(head: dict[str, Any]) -> bytes:
    return json.dumps(head, sort_keys=True).encode()


def _digest(head: dict[str, Any], body: bytes) -> str:
    """Return the checksum of the head, without the checksum in it, and of the numbers."""
    return hashlib.blake2b(_line(head) + b"\n" + body, digest_size=16).hexdigest()


def unpack(kept: bytes) -> tuple[Any, Settings]:
    """Return the states, their own copy, and the settings.

    Raises:
        InputError: the bytes are no such state, are damaged, or come from another version.
    """
    line, _, body = kept.partition(b"\n")
    try:
        head = json.loads(line)
        version, layout, digest = head["version"], head["layout"], head.pop("digest")
        known = head["what"] == _WHAT and _line({**head, "digest": digest}) == line
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("state of detectors", "is not one", right="what `save` returned") from error
    if not known:
        raise InputError("state of detectors", "is not one", right="what `save` returned")
    if version != VERSION or layout != LAYOUT:
        raise InputError(
            "state of detectors", f"is of version {version}, layout {layout}",
            right=f"version {VERSION}, layout {LAYOUT}; begin anew from history",
        )  # fmt: skip
    if digest != _digest(head, body) or len(body) != head["count"] * STATE.itemsize:
        raise InputError("state of detectors", "is damaged", right="the bytes as they were saved")
    try:
        settings = Settings(**head["settings"])
    except TypeError as error:
        raise InputError("state of detectors", "has other settings", right="begin anew from history") from error
    return np.frombuffer(bytearray(body), STATE), settings  # a copy that may be written, padding and all
