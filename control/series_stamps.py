"""Times as files write them, read one by one or many at once, to the same instant either way.

Understood are RFC 3339 and its relatives with a blank or without seconds, with `/` for `-`, with fractions of a second
and offsets (without one: UTC), and seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kernel.time import SECOND

UNREADABLE: Final = int(np.iinfo(np.int64).min)
"""What stands for a stamp that is none."""

_TEXT: Final = re.compile(
    rb"(\d{4})[-/](\d\d)[-/](\d\d)"
    rb"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?)?(?: ?(Z|UTC|GMT|[+-]\d\d:?\d\d))?",
    re.IGNORECASE | re.ASCII,
)
_NUMBER: Final = re.compile(rb"-?\d{1,19}(?:\.\d*)?", re.ASCII)
_SIZES: Final = ((10**11, SECOND), (10**14, 10**6), (10**17, 10**3))
"""Below the first an epoch counts seconds, below the next milliseconds, then microseconds, else nanoseconds."""
_YEARS: Final = range(1678, 2262)
"""Years whose every nanosecond has a number of 64 bits."""
_WHOLE: Final = 19
"""Letters of `2026-03-02 09:30:00`."""
_DIGITS: Final = (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18)
_ZERO: Final = ord("0")


def stamp_of(cell: bytes) -> int:
    """Return the instant a cell names, in nanoseconds since 1970, or `UNREADABLE`."""
    text = cell.strip()
    if _NUMBER.fullmatch(text):
        return _epoch(text)
    match = _TEXT.fullmatch(text)
    if match is None:
        return UNREADABLE
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = dt.datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=dt.UTC
        )
        away = _offset(zone)
    except ValueError:
        return UNREADABLE
    if moment.year not in _YEARS or away is None:
        return UNREADABLE
    elapsed = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    whole = elapsed.days * 86_400 + elapsed.seconds - away
    return whole * SECOND + int((fraction or b"0").ljust(9, b"0"))


def stamps_of(cells: Sequence[bytes]) -> NDArray[np.int64] | None:
    """Return the instants of cells that are all written alike, or None: then `stamp_of` reads each."""
    packed = np.array(cells)
    width = packed.dtype.itemsize
    letters = packed.view(np.uint8).reshape(len(cells), width)
    if not (letters[:, -1] != 0).all():  # of different lengths
        return _epochs(packed, letters)
    if width < _WHOLE or not (letters[:, 4] == ord("-")).all():
        return _epochs(packed, letters)
    return _alike(letters)


def _alike(letters: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Read `2026-03-02 09:30:00` with the same kind of fraction and the same zone behind it in every row."""
    marks = (letters[:, 7] == ord("-")) & np.isin(letters[:, 10], (ord(" "), ord("T")))
    marks &= (letters[:, 13] == ord(":")) & (letters[:, 16] == ord(":"))
    digits = letters[:, _DIGITS] - np.uint8(_ZERO)
    if not marks.all() or (digits > 9).any():  # noqa: PLR2004 - what is below 0 has wrapped round
        return None
    tail = bytes(letters[0, _WHOLE:])
    match = re.fullmatch(rb"(?:[.,](\d{1,9}))?(?: ?(Z|UTC|GMT|[+-]\d\d:?\d\d))?", tail, re.IGNORECASE)
    if match is None:
        return None
    width = len(match[1] or b"")
    rest = letters[:, _WHOLE + (width + 1 if width else 0) :]
    away = _offset(match[2])
    if (rest != rest[0]).any() or away is None or (width and (letters[:, _WHOLE] != letters[0, _WHOLE]).any()):
        return None
    whole = _seconds(digits.astype(np.int64))
    if whole is None:
        return None
    at = (whole - away) * SECOND
    if width:
        part = letters[:, _WHOLE + 1 : _WHOLE + 1 + width].astype(np.int64) - _ZERO
        if (part < 0).any() or (part > 9).any():  # noqa: PLR2004 - a digit
            return None
        at += part @ (10 ** np.arange(8, 8 - width, -1, dtype=np.int64))
    return at


def _seconds(digit: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return seconds since 1970 of fourteen digits a row; None when any date does not exist."""
    year = digit[:, 0] * 1000 + digit[:, 1] * 100 + digit[:, 2] * 10 + digit[:, 3]
    month, day, hour, minute, second = (digit[:, k] * 10 + digit[:, k + 1] for k in (4, 6, 8, 10, 12))
    fine = (year >= _YEARS.start) & (year < _YEARS.stop) & (month >= 1) & (month <= 12)  # noqa: PLR2004 - months
    fine &= (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)  # noqa: PLR2004 - the clock
    if not fine.all():
        return None
    months = (year - 1970) * 12 + month - 1
    start = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    after = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    if (start + day > after).any():
        return None
    found: NDArray[np.int64] = ((start + day - 1) * 24 + hour) * 3600 + minute * 60 + second
    return found


def _epochs(packed: NDArray[np.bytes_], letters: NDArray[np.uint8]) -> NDArray[np.int64] | None:
    """Read whole numbers; anything else in them is for `stamp_of`."""
    digits = (letters >= _ZERO) & (letters <= ord("9"))
    if packed.dtype.itemsize > 18 or not (digits | (letters == 0)).all() or not digits[:, 0].all():  # noqa: PLR2004
        return None
    number = packed.astype(np.int64)
    unit = np.full(len(number), 1, dtype=np.int64)
    for bound, size in reversed(_SIZES):
        unit[number < bound] = size
    # A number times its unit may be too large for 64 bits just below where the next unit begins.
    if (number > np.iinfo(np.int64).max // unit).any():
        return None
    return number * unit


def _epoch(text: bytes) -> int:
    whole, _, part = text.partition(b".")
    number = int(whole)
    unit = next((size for bound, size in _SIZES if abs(number) < bound), 1)
    at = number * unit
    if part:
        below = int(part[:9].ljust(9, b"0")) * unit // SECOND
        at += -below if whole.startswith(b"-") else below
    return at if abs(at) <= np.iinfo(np.int64).max else UNREADABLE


def _offset(zone: bytes | None) -> int | None:
    """Return seconds east of UTC; None for an offset that does not exist."""
    if zone is None or zone[:1] not in b"+-":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:  # noqa: PLR2004 - the clock
        return None
    return (hours * 60 + minutes) * (-60 if zone[:1] == b"-" else 60)
