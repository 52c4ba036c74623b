"""The shipper's side of the disk: what the log files have gained, how far they are done, and the dead letters."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from kernel.errors import PermanentError
from kernel.time import Instant, to_rfc3339
from monitor.shipping import Dead, Piece, identity

MAX_PIECE: Final = 1 << 20
"""Bytes of a line held at once; what is longer comes in parts."""
BATCH_BYTES: Final = 1 << 20
BATCH_LINES: Final = 2_000
_NAME: Final = re.compile(r"(.+\.jsonl)(?:\.(\d+))?")
_HEAD: Final = 1_024


class _Place(msgspec.Struct):
    path: str
    offset: int = 0
    size: int = 0


class _State(msgspec.Struct):
    version: int = 1
    files: dict[str, _Place] = {}


@dataclass
class _Open:
    """A file that is read: its descriptor keeps it readable when its name goes."""

    file: int
    inode: int
    head: bytes
    path: str
    position: int
    size: int
    gone: bool = False


class LogTail:
    """The lines that the files `*.jsonl` and `*.jsonl.N` of a directory have gained, each with its place."""

    def __init__(self, directory: Path, state: Path) -> None:
        """Go on where `state` (a file) says; nobody else may use it meanwhile.

        Raises:
            PermanentError: another shipper uses it, or it cannot be written.
        """
        self._directory, self._path = directory, state
        self._files: dict[str, _Open] = {}
        self.lost_bytes = 0
        """Bytes that went before they were read, as far as their files were ever seen."""
        self.lost_files = 0
        self.broken_state = False
        """Whether the state could not be read, so that everything is sent again; ids make that harmless."""
        try:
            state.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(state.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise PermanentError(f"{state}: another shipper runs on it; stop that one first") from None
        except OSError as error:
            raise PermanentError(f"{state}: the shipper cannot keep its place there ({error.strerror})") from error
        self._state = self._load()

    def close(self) -> None:
        """Close the files and give the state up."""
        for one in self._files.values():
            os.close(one.file)
        self._files.clear()
        os.close(self._lock)

    @property
    def backlog_bytes(self) -> int:
        """Bytes in the files that are not committed, as of the last `scan`."""
        return sum(
            max(0, one.size - (self._state.files[key].offset if key in self._state.files else 0))
            for key, one in self._files.items()
        )

    def scan(self) -> None:
        """Look which files are there, which grew, and which went."""
        there: set[str] = set()
        for path, base in self._paths():
            with contextlib.suppress(OSError):  # it went between two looks
                key = self._look(path, base)
                if key:
                    there.add(key)
        for key, one in list(self._files.items()):
            with contextlib.suppress(OSError):
                one.size = max(one.position, os.fstat(one.file).st_size)
            one.gone = key not in there
            place = self._state.files.setdefault(key, _Place(one.path))
            place.size = max(place.size, one.size)
            if one.gone and one.position >= one.size and place.offset >= one.size:
                self._forget(key)
        for key in self._state.files.keys() - self._files.keys():
            place = self._state.files.pop(key)
            if place.offset < place.size:
                self.lost_bytes += place.size - place.offset
                self.lost_files += 1

    def read(self, most_bytes: int = BATCH_BYTES, most_lines: int = BATCH_LINES) -> list[Piece]:
        """Return the next whole lines, older files first; none when there is nothing new."""
        pieces: list[Piece] = []
        size = 0
        for key, one in self._files.items():
            while size < most_bytes and len(pieces) < most_lines:
                found = self._lines(key, one, most_lines - len(pieces), most_bytes - size)
                if not found:
                    break
                pieces += found
                size += found[-1].end - found[0].offset
        return pieces

    def commit(self, done: Mapping[str, int]) -> None:
        """Make it durable how far files are done.

        Raises:
            OSError: it cannot be written; what was durable before still is.
        """
        for key, offset in done.items():
            if key in self._state.files:
                place = self._state.files[key]
                place.offset = max(place.offset, offset)
                place.size = max(place.size, place.offset)
        write_whole(self._path, msgspec.json.encode(self._state))

    def _load(self) -> _State:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_State)
        except FileNotFoundError:
            return _State()
        except msgspec.DecodeError:
            self.broken_state = True
            self._path.replace(self._path.with_suffix(".broken"))
            return _State()

    def _paths(self) -> list[tuple[Path, str]]:
        """Return the log files with their names before any rotation, the oldest of each first."""
        found = []
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                match = _NAME.fullmatch(path.name)
                if match:
                    found.append((match[1], -int(match[2] or 0), path))
        return [(path, str(self._directory / base)) for base, _, path in sorted(found)]

    def _look(self, path: Path, base: str) -> str:
        """Return the identity of the file at a path, opened if it is new; nothing while its first line is not whole."""
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        keep = False
        try:
            head = os.pread(file, _HEAD, 0)
            if b"\n" not in head and len(head) < _HEAD:
                return ""
            first = head.split(b"\n", 1)[0]
            inode = os.fstat(file).st_ino
            key = identity(inode, first)
            known = self._files.get(key)
            if known is not None and known.position <= os.fstat(file).st_size:
                return key
            for other, one in list(self._files.items()):
                if one.inode == inode:  # cut off in place and begun anew: what was not read is gone
                    self.lost_bytes += max(0, one.size - one.position)
                    self.lost_files += one.size > one.position
                    self._forget(other)
            place = self._state.files.setdefault(key, _Place(base))
            if place.offset > os.fstat(file).st_size:
                place.offset = place.size = 0
            self._files[key] = _Open(file, inode, first, base, place.offset, place.size)
            keep = True
            return key
        finally:
            if not keep:
                os.close(file)

    def _lines(self, key: str, one: _Open, most: int, most_bytes: int) -> list[Piece]:
        """Return at most so many whole lines of one file from where it was read to."""
        if one.position >= one.size:
            return []
        block = os.pread(one.file, max(most_bytes, MAX_PIECE), one.position)
        end = block.rfind(b"\n") + 1
        if end == 0:
            if len(block) >= MAX_PIECE:
                return self._part(key, one, block[:MAX_PIECE], whole=False)
            if one.gone and block:  # nobody will write the rest of this line
                return self._part(key, one, block, whole=True)
            return []
        pieces = []
        at = one.position
        whole = at == 0 or os.pread(one.file, 1, at - 1) == b"\n"  # else the end of a line that came in parts
        for line in block[:end].split(b"\n", most)[:most]:
            if at >= one.position + end:
                break
            after = at + len(line) + 1
            pieces.append(Piece(key, one.path, at, after, line, whole))
            at, whole = after, True
        one.position = at
        return pieces

    def _part(self, key: str, one: _Open, data: bytes, *, whole: bool) -> list[Piece]:
        piece = Piece(key, one.path, one.position, one.position + len(data), data, whole)
        one.position = piece.end
        return [piece]

    def _forget(self, key: str) -> None:
        os.close(self._files.pop(key).file)
        self._state.files.pop(key, None)


class DeadLetter(msgspec.Struct, frozen=True):
    """A line that the server refuses, kept whole."""

    id: str
    at: str
    file: str
    path: str
    offset: int
    end: int
    reason: str
    bytes: str
    """The original, in base64."""
    whole: bool = True

    def piece(self) -> Piece:
        """Return it as it was taken from its file."""
        return Piece(self.file, self.path, self.offset, self.end, base64.b64decode(self.bytes), self.whole)


class DeadLetters:
    """The dead letters: a file of JSON lines, each once by its id."""

    def __init__(self, path: Path) -> None:
        """Keep them at `path`; nothing is written before there is one."""
        self._path = path

    def add(self, dead: Sequence[Dead], now: Instant) -> None:
        """Append dead letters and make them durable.

        Raises:
            OSError: they cannot be written; their lines must not count as done.
        """
        if not dead:
            return
        lines = b"".join(
            msgspec.json.encode(
                DeadLetter(
                    one.piece.id, to_rfc3339(now), one.piece.file, one.piece.path, one.piece.offset, one.piece.end,
                    one.reason, base64.b64encode(one.piece.data).decode(), one.piece.whole,
                )
            ) + b"\n"
            for one in dead
        )  # fmt: skip
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(), self._path.open("ab") as file:
            if file.tell() and not self._ends_whole():
                file.write(b"\n")
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def all(self) -> list[DeadLetter]:
        """Return them, oldest first; a torn one, whose line was never done, is passed over."""
        found: dict[str, DeadLetter] = {}
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        for line in raw.split(b"\n"):
            with contextlib.suppress(msgspec.DecodeError):
                letter = msgspec.json.decode(line, type=DeadLetter)
                found.setdefault(letter.id, letter)
        return list(found.values())

    def remove(self, ids: set[str]) -> None:
        """Take out those that found their place after all."""
        with self._locked():
            left = [msgspec.json.encode(one) + b"\n" for one in self.all() if one.id not in ids]
            write_whole(self._path, b"".join(left))

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content: after a crash it is the old one or the new one, never a part.

    Raises:
        OSError: it cannot be written.
    """
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
