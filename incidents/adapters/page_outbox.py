"""The outbox of pages in SQLite: notes are durable when a call returns; what stands beside them is derived.

Used from one thread. `synchronous=FULL` with a write-ahead log: a commit is on disk when it returns.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from incidents.paging.outbox import OVER, REACHED, Delivery, Note, Phase, Taken, apply, begin, fold
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Duration, Instant, seconds

T = TypeVar("T")

VERSION: Final = 1
REPEAT: Final[Duration] = seconds(30)
"""The same words to the same recipient within so long are a repeated delivery, not a reminder.

Alertmanager comes back after an error within seconds; it reminds no sooner than its repeat_interval.
"""
HANDED_ON: Final[Duration] = seconds(3600)
"""A page that reached somebody so lately is not sent there again because another channel failed."""
WAITING_MAX: Final = 10_000
"""Beyond so many unfinished deliveries nothing more is taken in: the sender comes back."""
BUSY_TIMEOUT_S: Final = 5.0

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS deliveries (
    id TEXT PRIMARY KEY, content TEXT NOT NULL, channel TEXT NOT NULL, phase TEXT NOT NULL,
    taken_at INTEGER NOT NULL, ended_at INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deliveries_content ON deliveries (content, taken_at);
CREATE INDEX IF NOT EXISTS deliveries_taken ON deliveries (taken_at);
CREATE INDEX IF NOT EXISTS deliveries_unfinished ON deliveries (phase) WHERE ended_at IS NULL;
CREATE TABLE IF NOT EXISTS notes (n INTEGER PRIMARY KEY AUTOINCREMENT, delivery TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS notes_delivery ON notes (delivery, n);
"""
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(Note).decode


class PageOutbox:
    """Every delivery and its notes."""

    def __init__(self, path: Path) -> None:
        """Open the outbox, laying its tables when it is new.

        Raises:
            PermanentError: it cannot be opened, or another version wrote it.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found not in {0, VERSION}:
                raise PermanentError(f"{path} is an outbox of version {found}, this program writes version {VERSION}")
            self._db.executescript(f"{_TABLES} PRAGMA user_version = {VERSION};")
        except (OSError, sqlite3.Error) as error:
            raise PermanentError(f"{path}: the outbox cannot be opened ({error})") from error

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def take(self, wanted: Sequence[Taken]) -> list[Delivery]:
        """Take pages in, all or none; returns the new deliveries, without those known already.

        Raises:
            TemporaryError: nothing was kept: the disk does not take it, or too much waits already.
        """
        return self._together(lambda: self._take(wanted))

    def _take(self, wanted: Sequence[Taken], *, bounded: bool = True) -> list[Delivery]:
        unfinished = self._count("SELECT count(*) FROM deliveries WHERE ended_at IS NULL")
        new: list[Delivery] = []
        for taken in wanted:
            content = _content(taken)
            if self._known(content, taken):
                continue
            if bounded and unfinished + len(new) >= WAITING_MAX:
                raise TemporaryError(f"{unfinished} pages wait already; come back later")
            named = msgspec.structs.replace(taken, id=name_of(content, taken.at))
            self._insert(named, content)
            new.append(begin(named))
        return new

    def _known(self, content: str, taken: Taken) -> bool:
        """Tell whether the same words are on their way there, were just sent, or (handed on) have arrived lately."""
        last = self._db.execute(
            "SELECT taken_at, ended_at, phase FROM deliveries WHERE content = ? ORDER BY taken_at DESC LIMIT 1",
            (content,),
        ).fetchone()
        if last is None:
            return False
        age = taken.at - last[0]
        arrived = bool(taken.parent) and last[2] in REACHED and age < HANDED_ON
        return last[1] is None or age < REPEAT or arrived

    def _insert(self, taken: Taken, content: str) -> None:
        self._db.execute(
            "INSERT INTO deliveries (id, content, channel, phase, taken_at) VALUES (?, ?, ?, ?, ?)",
            (taken.id, content, taken.channel, str(Phase.WAITING), taken.at),
        )
        self._append(taken.id, [taken])

    def note(
        self, delivery: Delivery, notes: Sequence[Note], also: Sequence[Taken] = ()
    ) -> tuple[Delivery, list[Delivery]]:
        """Append notes to a delivery, and take in what follows from them, in one commit.

        Returns:
            The delivery as it stands now, and the new ones.

        Raises:
            TemporaryError: nothing was kept.
        """
        return self._together(lambda: self._note(delivery, notes, also))

    def _note(
        self, delivery: Delivery, notes: Sequence[Note], also: Sequence[Taken]
    ) -> tuple[Delivery, list[Delivery]]:
        delivery = self.get(delivery.id) or delivery  # others may have noted since the caller looked
        if delivery.escalated_to:
            also = ()
        for each in notes:
            delivery = apply(delivery, each)
        self._append(delivery.id, notes)
        self._db.execute(
            "UPDATE deliveries SET phase = ?, ended_at = ? WHERE id = ?",
            (str(delivery.phase), delivery.ended_at, delivery.id),
        )
        return delivery, self._take(also, bounded=False)

    def _append(self, delivery: str, notes: Iterable[Note]) -> None:
        self._db.executemany(
            "INSERT INTO notes (delivery, body) VALUES (?, ?)", [(delivery, _ENCODE(each)) for each in notes]
        )

    def get(self, delivery: str) -> Delivery | None:
        """Return a delivery by its id."""
        return fold(self.notes(delivery))

    def notes(self, delivery: str) -> list[Note]:
        """Return what was noted of a delivery, in order."""
        rows = self._db.execute("SELECT body FROM notes WHERE delivery = ? ORDER BY n", (delivery,))
        return [_DECODE(body) for (body,) in rows]

    def unfinished(self) -> list[Delivery]:
        """Return every delivery that is not over, oldest first."""
        over = ", ".join(f"'{phase}'" for phase in sorted(OVER))
        return self._all(f"SELECT id FROM deliveries WHERE phase NOT IN ({over}) ORDER BY taken_at, id", ())  # noqa: S608

    def recent(self, limit: int, phase: str = "") -> list[Delivery]:
        """Return the newest deliveries, newest first; with `phase` those which stand there."""
        return self._all(
            "SELECT id FROM deliveries WHERE ? IN ('', phase) ORDER BY taken_at DESC, id LIMIT ?", (phase, limit)
        )

    def lost_since(self, at: Instant) -> list[Delivery]:
        """Return what ended as failed or unconfirmed since `at`, oldest first."""
        return self._all(
            "SELECT id FROM deliveries WHERE phase IN ('failed', 'unconfirmed') AND ended_at >= ? ORDER BY ended_at",
            (at,),
        )

    def forget(self, before: Instant) -> int:
        """Delete what ended before an instant; returns how many."""
        return self._together(lambda: self._forget(before))

    def _forget(self, before: Instant) -> int:
        over = "SELECT id FROM deliveries WHERE ended_at < ?"
        self._db.execute(f"DELETE FROM notes WHERE delivery IN ({over})", (before,))  # noqa: S608 - no text of others
        return self._db.execute("DELETE FROM deliveries WHERE ended_at < ?", (before,)).rowcount

    def _all(self, query: str, values: tuple[object, ...]) -> list[Delivery]:
        ids = [row[0] for row in self._db.execute(query, values)]
        found = [self.get(one) for one in ids]
        return [one for one in found if one is not None]

    def _count(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def _together(self, work: Callable[[], T]) -> T:
        """Do the work in one transaction, or not at all."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                done = work()
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise TemporaryError(f"the outbox does not take it: {error}") from error
        return done


def name_of(content: str, at: Instant) -> str:
    """Return a delivery's id: 20 hex digits, another one for each time the same words are taken in."""
    return hashlib.sha256(f"{content} {at}".encode()).hexdigest()[:20]


def _content(taken: Taken) -> str:
    """Return what makes two deliveries one: the same facts for the same recipient on the same channel."""
    said = f"{taken.channel}\0{taken.to}\0{taken.page.content}"
    return hashlib.sha256(said.encode()).hexdigest()
