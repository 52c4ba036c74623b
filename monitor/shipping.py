"""Shipping log lines: which to send now, what each answer means, what is done for good. Pure.

A piece (a line) has a place: a file's identity and a byte offset. Its id is made from the place and the content, so
that sending it again creates nothing new. A batch is finished when each of its pieces is stored, was stored already, or
lies among the dead letters; a file's offset is committed up to the first piece that is not finished, and no further.
At-least-once sending and ids of this kind make each line one document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from kernel.time import Duration, Instant, seconds

FIRST_WAIT: Final = seconds(0.5)
LONGEST_WAIT: Final = seconds(30)
MAX_TRIES: Final = 6
"""Of a piece with an answer that nobody knows; a busy or read-only server is waited for without an end."""
IN_FLIGHT: Final = 4
"""Batches that may be under way: memory is bounded by this times a batch."""
LONGEST_LINE: Final = 65_536
"""Bytes of a line that is indexed: the pipeline keeps so much of an original. A longer one is a dead letter, whole."""
_HEAD: Final = 1_024


class Piece(NamedTuple):
    """A line, or a part of one too long to be held."""

    file: str
    """The file's identity, not its name, which changes when it is rotated."""
    path: str
    """The name under which it is written, without the number of a rotation."""
    offset: int
    end: int
    """Offset of the byte after it, its line feed included."""
    data: bytes
    """Without the line feed."""
    whole: bool = True

    @property
    def id(self) -> str:
        """The document's id: the same for the same bytes at the same place, whenever they are sent."""
        place = f"{self.file}:{self.offset}:".encode()
        return hashlib.blake2b(place + self.data, digest_size=15).hexdigest()


class Verdict(StrEnum):
    """What an answer means for a piece."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    """Stored by an earlier try whose answer was lost."""
    LATER = "later"
    """The server is busy, read-only, not set up or forbids it: no fault of the piece, so it waits without an end."""
    DEAD = "dead"
    """The piece itself is refused, and would be again."""
    UNKNOWN = "unknown"


class Answer(NamedTuple):
    """What the server said of one piece."""

    status: int
    kind: str = ""
    """The error's type, such as mapper_parsing_exception."""
    reason: str = ""


class Dead(NamedTuple):
    """A piece that goes to the dead letters, and why."""

    piece: Piece
    reason: str


class Counts(NamedTuple):
    """What came of an answer to a batch: pieces by result, and those that are dead."""

    shipped: int
    duplicates: int
    dead: tuple[Dead, ...]


class Sink(Protocol):
    """Where lines go."""

    def check(self) -> None:
        """Raise a `TapewatchError` that says what is missing, when the sink is not ready to keep what it is sent."""
        ...

    def send(self, pieces: Sequence[Piece]) -> Sequence[Answer]:
        """Send pieces once; return an answer for each, in order.

        Raises:
            TapewatchError: there is no answer, or the request as a whole was refused; any piece may be stored.
        """
        ...


_LATER_STATUS: Final = frozenset({401, 403, 404, 408, 413, 429, 502, 503, 504})
_LATER_KINDS: Final = frozenset({
    "es_rejected_execution_exception", "circuit_breaking_exception", "cluster_block_exception",
    "index_closed_exception", "security_exception", "unavailable_shards_exception",
    "process_cluster_event_timeout_exception",
})  # fmt: skip
_SETUP: Final = ("pipeline with id", "no matching index template", "maximum normal shards open")
"""Refusals with status 400 that the set-up is to blame for: dropping lines for them would lose all of them."""


def judge(answer: Answer) -> Verdict:
    """Return what an answer to `create` means."""
    if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own numbers
        return Verdict.STORED
    if answer.status == 409:  # noqa: PLR2004
        return Verdict.DUPLICATE
    if answer.status in _LATER_STATUS or answer.kind in _LATER_KINDS:
        return Verdict.LATER
    if answer.status == 400:  # noqa: PLR2004
        return Verdict.LATER if any(one in answer.reason for one in _SETUP) else Verdict.DEAD
    return Verdict.UNKNOWN


def wait(tries: int) -> Duration:
    """Return how long to wait after so many tries without success."""
    return Duration(min(LONGEST_WAIT, FIRST_WAIT << min(tries - 1, 10)))


def identity(inode: int, first: bytes) -> str:
    """Return a file's identity: it survives a renaming, and another file in the same inode has another one.

    Args:
        inode: its number.
        first: its first line, which holds a time; as much of it as there is counts, so it must be whole.
    """
    return f"{inode:x}-{hashlib.blake2b(first[:_HEAD], digest_size=8).hexdigest()}"


_AT_ONCE: Final = Instant(0)


@dataclass
class _Batch:
    number: int
    pieces: tuple[Piece, ...]
    left: list[Piece]
    taken_at: Instant
    tries: int = 0
    due: Instant = _AT_ONCE
    under_way: bool = False
    unknown: dict[str, int] = field(default_factory=dict)


class Shipping:
    """The fold: batches are taken, sent, answered in any order, and committed in the order in which they were taken."""

    def __init__(self, dead: Collection[str] = ()) -> None:
        """Begin with nothing under way.

        Args:
            dead: ids of pieces that lie among the dead letters; they are done when they are met again after a crash.
        """
        self._dead = frozenset(dead)
        self._batches: list[_Batch] = []
        self._number = 0
        self.why = ""
        """What the last try that failed said; empty when the last one succeeded."""

    @property
    def room(self) -> bool:
        """Whether another batch may be taken."""
        return len(self._batches) < IN_FLIGHT

    @property
    def pieces(self) -> int:
        """Pieces taken and not committed."""
        return sum(len(batch.pieces) for batch in self._batches)

    @property
    def oldest(self) -> Instant | None:
        """When the oldest batch that is not finished was taken; None when there is none."""
        return self._batches[0].taken_at if self._batches else None

    def take(self, pieces: Iterable[Piece], now: Instant) -> tuple[Dead, ...]:
        """Take a batch; return what is dead at once, because no server would keep it whole."""
        batch = _Batch(self._number, tuple(pieces), [], now)
        self._number += 1
        dead = []
        for piece in batch.pieces:
            if self._dead and piece.id in self._dead:
                continue
            if not piece.whole or len(piece.data) > LONGEST_LINE:
                dead.append(Dead(piece, f"too long: more than {LONGEST_LINE} bytes"))
            elif piece.data.strip():
                batch.left.append(piece)
        self._batches.append(batch)
        return tuple(dead)

    def due(self, now: Instant) -> list[tuple[int, tuple[Piece, ...]]]:
        """Return the batches to be sent now, by number; they count as under way until `answered` or `failed`."""
        ready = [one for one in self._batches if one.left and not one.under_way and one.due <= now]
        for batch in ready:
            batch.under_way = True
        return [(batch.number, tuple(batch.left)) for batch in ready]

    def next_due(self) -> Instant | None:
        """Return when the next waiting batch is due; None when none waits."""
        return min((one.due for one in self._batches if one.left and not one.under_way), default=None)

    def answered(self, number: int, answers: Sequence[Answer], now: Instant) -> Counts:
        """Take the answers to a batch's pieces, one by one."""
        batch = self._batch(number)
        assert len(answers) == len(batch.left), "an answer for each piece"
        left: list[Piece] = []
        dead: list[Dead] = []
        stored = duplicates = 0
        why = ""
        for piece, answer in zip(batch.left, answers, strict=True):
            verdict = judge(answer)
            told = f"{answer.status} {answer.kind}: {answer.reason}"[:1_000]
            if verdict is Verdict.UNKNOWN:
                tries = batch.unknown[piece.id] = batch.unknown.get(piece.id, 0) + 1
                verdict = Verdict.DEAD if tries >= MAX_TRIES else Verdict.LATER
            match verdict:
                case Verdict.STORED:
                    stored += 1
                case Verdict.DUPLICATE:
                    duplicates += 1
                case Verdict.DEAD:
                    dead.append(Dead(piece, told))
                case _:
                    left.append(piece)
                    why = told
        self._again(batch, left, why, now)
        return Counts(stored, duplicates, tuple(dead))

    def failed(self, number: int, why: str, now: Instant) -> None:
        """Take it that a request as a whole had no answer or was refused: all of it is sent again, later."""
        batch = self._batch(number)
        self._again(batch, batch.left, why or "no answer", now)

    def commits(self) -> Mapping[str, int]:
        """Drop the finished batches at the front; return how far each of their files is done. Dead letters come first.

        What is returned may be made durable only after the dead letters that were returned before it.
        """
        done: dict[str, int] = {}
        while self._batches and not self._batches[0].left and not self._batches[0].under_way:
            for piece in self._batches.pop(0).pieces:
                done[piece.file] = piece.end
        return done

    def _again(self, batch: _Batch, left: list[Piece], why: str, now: Instant) -> None:
        batch.under_way = False
        self.why = why
        # A batch of which a part went through met a server that works: it does not wait longer than the first time.
        batch.tries = 1 if len(left) < len(batch.left) else batch.tries + 1
        batch.left = left
        batch.due = Instant(now + wait(batch.tries))

    def _batch(self, number: int) -> _Batch:
        return next(batch for batch in self._batches if batch.number == number)
