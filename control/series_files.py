"""Reading recorded series from CSV files in blocks: fast for millions of rows, exact for each, clear on what is wrong.

A file is one series: a column of stamps and one or more of values, with or without a header, plain or gzip. Lines whose
cells are all as they should be are read many at once; a block with anything odd in it is read line by line by the same
rules, so what a row means never depends on its neighbours, and least of all on those after it.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from control.series_stamps import UNREADABLE, stamp_of, stamps_of
from kernel.errors import InputError

SUFFIXES: Final = (".csv", ".csv.gz")
STAMP_NAMES: Final = frozenset(
    {"timestamp", "time", "datetime", "date", "ts", "ds", "at", "@timestamp", "epoch", "stamp", "unix"}
)
"""What the column of stamps is called, in any case; when no column is, it is the first."""
MISSING_WORDS: Final = frozenset({b"", b"nan", b"null", b"none", b"na", b"n/a", b"nil"})
"""Cells that say, in any case, that there was no value: a missed reading, and nothing to complain of."""
_NEWLINE: Final = 10
_BLOCK: Final = 1 << 20
_PACKED: Final = 1 << 14
"""Compressed bytes taken at a time: so much at most is lost before a place that is damaged."""
_LINE_MAX: Final = 1 << 20
_MARKS: Final = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_TRIED: Final = 20
"""Lines looked at to tell a column of numbers from one of words."""


@dataclasses.dataclass(slots=True)
class Note:
    """One kind of trouble in a file: how many rows, and where it was seen first."""

    what: str
    rows: int
    line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a file, in its order.

    `stamps` are the cells as they were written, `at` nanoseconds since the epoch (`UNREADABLE` where there is none),
    `values` one row of the columns' values a row, NaN for a missed one. `lines` are their numbers in the file, from 1.
    """

    lines: NDArray[np.int64]
    stamps: Sequence[bytes]
    at: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class _Shape:
    """How the cells of a file's lines lie."""

    separator: bytes
    cells: int
    stamp: int
    columns: tuple[tuple[int, str], ...]
    """Position and name of each column of values."""
    headed: bool


class SeriesFile:
    """A recorded series. `columns` names its values; `notes` fills while `blocks` is read."""

    def __init__(self, path: Path) -> None:
        """Look at the first lines of the file at `path`.

        Raises:
            InputError: the file is empty, or its first lines hold no stamps and values.
            OSError: it cannot be read.
        """
        self._path = path
        self.notes: dict[str, Note] = {}
        head = self._head()
        self._shape = _shape_of(head, str(path))
        self.columns = tuple(name for _, name in self._shape.columns)

    def blocks(self) -> Iterator[Block]:
        """Yield all rows in the file's order, some tens of thousands at a time; blank lines are no rows.

        A file that ends in the middle of its compressed data yields what came before, and a note.
        """
        line = 1
        for text in self._texts():
            rows = text
            if line == 1:
                rows = text.lstrip(b"\n")
                rows = rows[rows.find(b"\n") + 1 :] if self._shape.headed else rows
            first = line + text.count(b"\n") - rows.count(b"\n")
            if rows:
                found = self._together(rows, first)
                yield found if found is not None else self._one_by_one(rows, first)
            line += text.count(b"\n")

    def note(self, kind: str, what: str, line: int, rows: int = 1) -> None:
        """Count rows with a kind of trouble; the words and the line of the first one stay."""
        if kind in self.notes:
            self.notes[kind].rows += rows
        else:
            self.notes[kind] = Note(what, rows, line)

    def _head(self) -> list[bytes]:
        for text in self._texts():
            found = [line for line in text[: 1 << 16].split(b"\n")[: _TRIED + 1] if line.strip()]
            if found:
                return found
        raise InputError(str(self._path), self.notes["cut"].what if "cut" in self.notes else "the file is empty")

    def _texts(self) -> Iterator[bytes]:
        """Yield the file's text in UTF-8, in pieces of whole lines that end in one newline each."""
        rest = b""
        begun = False
        with self._path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = _unpacked(raw) if packed else iter(lambda: raw.read(_BLOCK), b"")
            for index, piece in enumerate(self._pieces(stream)):
                text = rest + (piece.removeprefix(codecs.BOM_UTF8) if index == 0 else piece)
                cut = text.rfind(b"\n") + 1
                if cut:
                    yield _plain(text[:cut])
                    begun = True
                rest = text[cut:]
                if len(rest) > _LINE_MAX:
                    what = f"a line is longer than {_LINE_MAX:,} bytes: this is no CSV file"
                    if not begun:
                        raise InputError(str(self._path), what)
                    self.note("cut", what, 0, 0)
                    return
        # Of a cut file the last line may be half a line, and half a number is another number.
        if rest.strip() and "cut" not in self.notes:
            yield _plain(rest + b"\n")

    def _pieces(self, stream: Iterator[bytes]) -> Iterator[bytes]:
        """Yield pieces in UTF-8, until what is compressed is damaged or ends too early."""
        decoder: codecs.IncrementalDecoder | None = None
        for index, piece in enumerate(self._until_cut(stream)):
            if index == 0:
                coding = next((name for mark, name in _MARKS if piece.startswith(mark)), None)
                decoder = codecs.getincrementaldecoder(coding)("replace") if coding else None
            yield piece if decoder is None else decoder.decode(piece).encode()

    def _until_cut(self, stream: Iterator[bytes]) -> Iterator[bytes]:
        try:
            yield from stream
        except (EOFError, zlib.error) as error:
            self.note("cut", f"its compressed data is damaged or ends too early ({error})", 0, 0)

    def _together(self, text: bytes, first: int) -> Block | None:
        """Read plain lines many at once; None when any cell needs a closer look."""
        shape = self._shape
        if b'"' in text or b"_" in text or b"\0" in text or b"\n\n" in text or text.startswith(b"\n"):
            return None
        lines = text.count(b"\n")
        letters = np.frombuffer(text, dtype=np.uint8)
        ends = letters[(letters == _NEWLINE) | (letters == shape.separator[0])] == _NEWLINE
        # Every line has its cells and no other has: a short line and a long one do not make up for each other.
        if len(ends) != lines * shape.cells or not ends[shape.cells - 1 :: shape.cells].all():
            return None
        cells = text[:-1].replace(b"\n", shape.separator).split(shape.separator)
        stamps = cells[shape.stamp :: shape.cells]
        at = stamps_of(stamps)
        if at is None:
            return None
        values = np.empty((lines, len(shape.columns)))
        for index, (position, _) in enumerate(shape.columns):
            column = cells[position :: shape.cells]
            try:
                values[:, index] = np.array([cell or b"nan" for cell in column]).astype(np.float64)
            except ValueError:
                return None
        if np.isinf(values).any():
            return None
        return Block(np.arange(first, first + lines), stamps, at, values)

    def _one_by_one(self, text: bytes, first: int) -> Block:
        shape = self._shape
        lines: list[int] = []
        stamps: list[bytes] = []
        at: list[int] = []
        values: list[list[float]] = []
        for number, line in enumerate(text[:-1].split(b"\n"), first):
            if not line.strip():
                continue
            cells = _cells(line, shape.separator)
            if len(cells) != shape.cells:
                self.note("cells", f"{len(cells)} cells where the first line has {shape.cells}", number)
            stamp = cells[shape.stamp] if shape.stamp < len(cells) else b""
            instant = stamp_of(stamp)
            if instant == UNREADABLE:
                self.note("stamp", f"{_shown(stamp)} is no time", number)
            row = [self._value(cells[p] if p < len(cells) else b"", name, number) for p, name in shape.columns]
            lines.append(number)
            stamps.append(stamp)
            at.append(instant)
            values.append(row)
        return Block(
            np.array(lines, dtype=np.int64), stamps, np.array(at, dtype=np.int64),
            np.array(values, dtype=np.float64).reshape(len(lines), len(shape.columns)),
        )  # fmt: skip

    def _value(self, cell: bytes, name: str, line: int) -> float:
        value = number_of(cell)
        if value is None:
            self.note("text", f"{_shown(cell)} in column {name} is no number, read as missed", line)
            return math.nan
        if math.isinf(value):
            self.note("infinite", f"an infinite value in column {name}, read as missed", line)
            return math.nan
        return value


def number_of(cell: bytes) -> float | None:
    """Return the number in a cell, NaN for one that says there was none, or None for other text."""
    text = cell.strip()
    if text.lower() in MISSING_WORDS:
        return math.nan
    if b"_" in text:  # Python would read 1_000; no tool writes that
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _unpacked(raw: IO[bytes]) -> Iterator[bytes]:
    """Yield what gzip members hold; unlike `gzip`, everything before the place where the data is damaged.

    Raises:
        EOFError: the data ends within a member.
        zlib.error: it is damaged.
    """
    member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    piece = raw.read(_PACKED)
    while piece:
        yield member.decompress(piece, _BLOCK)
        while member.unconsumed_tail:
            yield member.decompress(member.unconsumed_tail, _BLOCK)
        piece = member.unused_data.lstrip(b"\0") or raw.read(_PACKED)
        if piece and member.eof:
            member = zlib.decompressobj(zlib.MAX_WBITS | 16)
    if not member.eof:
        raise EOFError("no end of data")


def _plain(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def _cells(line: bytes, separator: bytes) -> list[bytes]:
    if b'"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    read = next(csv.reader([line.decode("utf-8", "surrogateescape")], delimiter=separator.decode()), [])
    return [cell.strip().encode("utf-8", "surrogateescape") for cell in read]


def _shown(cell: bytes) -> str:
    text = cell[:40].decode("utf-8", "replace")
    return repr(text) if text else "an empty cell"


def _separator(line: bytes) -> bytes:
    return next((mark for mark in (b",", b";", b"\t") if mark in line), b",")


def _shape_of(head: Sequence[bytes], where: str) -> _Shape:
    """Tell from the first lines which column holds the stamps, and which hold values.

    A first line is a header when its cell of the stamps is no stamp, or its name is a known one.
    """
    separator = _separator(head[0])
    rows = [_cells(line, separator) for line in head]
    names = [cell.decode("utf-8", "replace") for cell in rows[0]]
    known = [index for index, name in enumerate(names) if name.strip().lower() in STAMP_NAMES]
    stamp = known[0] if known else 0
    headed = bool(known) or (stamp_of(rows[0][stamp]) == UNREADABLE and not _all_numbers(rows[0][1:]))
    body = rows[1:] if headed else rows
    if headed and not body:
        raise InputError(f"{where}:1", "there is a header and no row")
    if len(rows[0]) == 1:
        raise InputError(f"{where}:1", "one column only", right="write a time and a value on each line")
    if not any(stamp_of(row[stamp]) != UNREADABLE for row in body if stamp < len(row)):
        shown = _shown(body[0][stamp] if stamp < len(body[0]) else b"")
        raise InputError(
            f"{where}:{2 if headed else 1}", f"no time in column {stamp + 1} of the first lines, such as {shown}",
            right="write times as 2026-03-02T09:30:00Z, 2026-03-02 09:30:00 (UTC), or seconds since 1970",
        )  # fmt: skip
    columns = [
        (index, names[index] or f"column-{index + 1}" if headed else f"column-{index + 1}")
        for index in range(len(names))
        if index != stamp
    ]
    # With several columns, one of words (a host's name) is no value; with one, its text may be all there is to say.
    numeric = [one for one in columns if any(number_of(row[one[0]]) is not None for row in body if one[0] < len(row))]
    return _Shape(separator, len(names), stamp, tuple(numeric or columns), headed)


def _all_numbers(cells: Sequence[bytes]) -> bool:
    return bool(cells) and all(number_of(cell) is not None and cell for cell in cells)
