"""The shipper at work: files to sink, several batches under way, offsets committed after the answers."""

from __future__ import annotations

import concurrent.futures as cf
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kernel.errors import PermanentError, TapewatchError
from kernel.time import SECOND, Clock, Instant, seconds, to_seconds
from monitor.adapters.shipper_files import DeadLetters, LogTail
from monitor.shipping import IN_FLIGHT, Answer, Counts, Dead, Piece, Shipping, Sink

LOOK_S: Final = 0.5
"""Between two looks at files that gained nothing."""
CHECK_AGAIN: Final = seconds(5)
_STEP_S: Final = 0.05


class Told(Protocol):
    """Who is told what the shipper does."""

    def counted(self, result: str, amount: int) -> None:
        """So many lines ended as shipped, duplicate, dead_letter or lost."""
        ...

    def standing(self, backlog_bytes: int, lag_s: float, up: bool) -> None:  # noqa: FBT001 - a fact among facts
        """Say what waits, for how long, and whether the sink takes lines."""
        ...

    def note(self, name: str, severity: str, **fields: object) -> None:
        """Put a record into the log."""
        ...


@dataclass
class Outcome:
    """What a shipper has done since its start, in lines."""

    shipped: int = 0
    duplicate: int = 0
    dead_letter: int = 0
    lost: int = 0
    """Files of which a part went before it was read; how many lines that were nobody knows."""


class Shipper:
    """One shipper over one directory of logs. Not for two threads."""

    def __init__(self, tail: LogTail, sink: Sink, dead: DeadLetters, told: Told, clock: Clock) -> None:
        """Nothing is read or sent before the first `turn`."""
        self._tail, self._sink, self._dead, self._told, self._clock = tail, sink, dead, told, clock
        self._shipping = Shipping({one.id for one in dead.all()})
        self._pool = cf.ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="ship")
        self._under_way: dict[cf.Future[Sequence[Answer]], int] = {}
        self._looked = self._behind_since = self._check_at = Instant(0)
        self._checked = self._was_up = False
        self._refused = ""
        self._unwritten: list[Dead] = []
        self.done = Outcome()

    @property
    def idle(self) -> bool:
        """Whether every line that was seen is done."""
        return not self._under_way and not self._shipping.pieces

    @property
    def why(self) -> str:
        """What stands in the way now; empty when nothing does."""
        return self._refused or self._shipping.why

    def check(self) -> None:
        """Look whether the sink is set up.

        Raises:
            TapewatchError: it is not, or cannot be reached; says what to do.
        """
        self._sink.check()
        self._checked, self._refused = True, ""

    def turn(self) -> bool:
        """Look, send, take answers, commit: once, without waiting. Return whether anything moved.

        Raises:
            OSError: the state or the dead letters cannot be written; nothing is lost, the turn may be tried again.
        """
        now = self._clock.now()
        if not self._checked and not self._try_check(now):
            return False
        moved = self._take(now)
        for number, pieces in self._shipping.due(now):
            self._under_way[self._pool.submit(self._sink.send, pieces)] = number
            moved = True
        ended = [future for future in self._under_way if future.done()]
        for future in ended:
            self._answered(future, self._under_way.pop(future))
        self._commit()
        self._tell(now)
        return moved or bool(ended)

    def run(self, stop: Callable[[], bool], *, until_idle: bool = False) -> None:
        """Turn until told to stop; with `until_idle`, until all that was there is done.

        Raises:
            PermanentError: the disk takes neither the state nor the dead letters, and `until_idle` is asked for.
        """
        while not stop():
            try:
                moved = self.turn()
            except OSError as error:
                self._told.note("shipper-state-failed", "error", error=str(error))
                if until_idle:
                    raise PermanentError(f"the shipper cannot write down its place: {error}") from error
                moved = False
            if until_idle and not moved and self.idle and self._checked:
                return
            if not moved:
                time.sleep(_STEP_S)
            elif self._under_way and not self._shipping.room:
                cf.wait(self._under_way, timeout=_STEP_S, return_when=cf.FIRST_COMPLETED)

    def close(self) -> None:
        """Wait for what is under way and commit it; what cannot be is sent again next time."""
        cf.wait(self._under_way, timeout=10)
        for future in [future for future in self._under_way if future.done()]:
            self._answered(future, self._under_way.pop(future))
        self._pool.shutdown(wait=False, cancel_futures=True)
        try:
            self._commit()
        finally:
            self._tail.close()

    def _commit(self) -> None:
        """Make dead letters durable, and only then that their lines are done."""
        if self._unwritten:
            self._dead.add(self._unwritten, self._clock.now())
            self._unwritten.clear()
        committed = self._shipping.commits()
        if committed:
            self._tail.commit(committed)

    def _try_check(self, now: Instant) -> bool:
        if now < self._check_at:
            return False
        self._check_at = Instant(now + CHECK_AGAIN)
        try:
            self.check()
        except TapewatchError as error:
            if str(error) != self._refused:
                self._told.note("shipper-not-ready", "error", error=str(error))
            self._refused = str(error)
            self._tail.scan()
            self._tell(now)
            return False
        return True

    def _take(self, now: Instant) -> bool:
        taken = False
        if not self._looked or now - self._looked >= LOOK_S * SECOND:
            self._looked = now
            lost = self._tail.lost_files, self._tail.lost_bytes
            self._tail.scan()
            self._lost(*lost)
        while self._shipping.room and (pieces := self._tail.read()):
            dead = self._shipping.take(pieces, now)
            self._count(Counts(0, 0, dead))
            taken = True
        return taken

    def _lost(self, files: int, amount: int) -> None:
        gone = self._tail.lost_files - files
        if gone:
            self.done.lost += gone
            self._told.counted("lost", gone)
            self._told.note("logs-lost", "error", count=gone, bytes=self._tail.lost_bytes - amount)

    def _answered(self, future: cf.Future[Sequence[Answer]], number: int) -> None:
        now = self._clock.now()
        try:
            answers = future.result()
        except TapewatchError as error:
            self._shipping.failed(number, str(error), now)
        else:
            self._count(self._shipping.answered(number, answers, now))

    def _count(self, counts: Counts) -> None:
        self._unwritten += counts.dead
        for result, amount in (
            ("shipped", counts.shipped), ("duplicate", counts.duplicates), ("dead_letter", len(counts.dead))
        ):  # fmt: skip
            if amount:
                setattr(self.done, result, getattr(self.done, result) + amount)
                self._told.counted(result, amount)
        for one in counts.dead[:1]:
            self._told.note("log-dead-lettered", "warning", reason="refused", count=len(counts.dead), why=one.reason)

    def _tell(self, now: Instant) -> None:
        backlog = self._tail.backlog_bytes
        if not backlog or not self._behind_since:
            self._behind_since = now
        oldest = self._behind_since if not self._checked else self._shipping.oldest or now
        up = self._checked and not self._shipping.why
        if up != self._was_up:
            self._was_up = up
            self._told.note("shipper-up" if up else "shipper-held", "info" if up else "warning", why=self.why)
        self._told.standing(backlog, to_seconds(now - oldest), up)


def retry_dead(dead: DeadLetters, sink: Sink) -> tuple[int, list[tuple[str, str]]]:
    """Send the dead letters once more; return how many found their place, and id and reason of the others.

    Raises:
        TapewatchError: the sink gives no answer.
    """
    letters = dead.all()
    found: set[str] = set()
    left: list[tuple[str, str]] = []
    for start in range(0, len(letters), 500):
        part = letters[start : start + 500]
        pieces: list[Piece] = [one.piece() for one in part]
        for letter, answer in zip(part, sink.send(pieces), strict=True):
            if 200 <= answer.status < 300 or answer.status == 409:  # noqa: PLR2004 - HTTP's own numbers
                found.add(letter.id)
            else:
                left.append((letter.id, f"{answer.status} {answer.kind}: {answer.reason}"))
    if found:
        dead.remove(found)
    return len(found), left
