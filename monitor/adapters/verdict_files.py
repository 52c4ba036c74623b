"""Verdicts on orders between the processes of one machine: each appends to a file of its own and reads the others'.

Lines of JSON in one directory of the estate's state. A file that has grown is left for a new one, and the one before
that is removed, so that a reader who is late by a whole file loses what he had not read and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from monitor.traces import Verdict

MAX_BYTES: Final = 1 << 20
"""Of a file, some ten thousand verdicts."""
READ_BYTES: Final = 1 << 20
"""Of one file at a time."""
_SUFFIX: Final = ".verdicts"
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Verdict).decode


class Verdicts(Protocol):
    """Where processes tell each other which orders are kept whole."""

    def say(self, verdicts: Sequence[Verdict]) -> None:
        """Tell the others. Never raises; what cannot be told is lost."""
        ...

    def hear(self) -> list[Verdict]:
        """Return what the others have said since the last call. Never raises."""
        ...


class Alone:
    """Nobody else is there."""

    def say(self, verdicts: Sequence[Verdict]) -> None:
        """Keep it to itself."""

    def hear(self) -> list[Verdict]:
        """Hear nothing."""
        return []


class VerdictFiles:
    """`Verdicts` in a directory; `replica` names the process, such as `gateway-1`."""

    def __init__(self, directory: Path, replica: str, *, max_bytes: int = MAX_BYTES) -> None:
        self._directory: Final = directory
        self._replica: Final = replica
        self._max_bytes: Final = max_bytes
        self._mine: Path | None = None
        self._before: Path | None = None
        self._read: dict[str, int] = {}
        """How far each file of the others was read."""

    def say(self, verdicts: Sequence[Verdict]) -> None:
        """See `Verdicts`."""
        if not verdicts:
            return
        try:
            with self._file().open("ab") as file:
                file.write(b"".join(_encode(verdict) + b"\n" for verdict in verdicts))
        except OSError:
            return  # no room, or no directory any more: the trace stays in parts, the order is none the worse

    def hear(self) -> list[Verdict]:
        """See `Verdicts`."""
        heard: list[Verdict] = []
        known, self._read = self._read, {}
        try:
            with os.scandir(self._directory) as found:
                files = sorted((one.name, one.stat().st_size) for one in found if one.name.endswith(_SUFFIX))
        except OSError:
            return heard
        for name, size in files:
            if self._whose(name) != self._replica:
                read = self._read[name] = known.get(name, 0)
                if size > read:
                    heard.extend(self._news(name, read))
        return heard

    def _news(self, name: str, read: int) -> list[Verdict]:
        try:
            with (self._directory / name).open("rb") as file:
                file.seek(read)
                data = file.read(READ_BYTES)
        except OSError:
            return []  # it was removed meanwhile
        end = data.rfind(b"\n") + 1  # what was written to half is read when it is whole
        self._read[name] = read + end
        found = []
        for line in data[:end].splitlines():
            try:
                found.append(_decode(line))
            except msgspec.MsgspecError:
                continue  # a line that a full disk cut
        return found

    def _file(self) -> Path:
        """Return the file to append to; another one when it has grown."""
        if self._mine is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            for one in self._directory.iterdir():
                if one.suffix == _SUFFIX and self._whose(one.name) == self._replica:
                    one.unlink(missing_ok=True)
            self._mine = self._fresh()
        elif self._mine.exists() and self._mine.stat().st_size > self._max_bytes:
            if self._before is not None:
                self._before.unlink(missing_ok=True)
            self._before, self._mine = self._mine, self._fresh()
        return self._mine

    def _fresh(self) -> Path:
        return self._directory / f"{self._replica}.{time.time_ns():020}{_SUFFIX}"

    @staticmethod
    def _whose(name: str) -> str:
        return name.removesuffix(_SUFFIX).rpartition(".")[0]
