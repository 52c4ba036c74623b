"""Compacting a journal in files: what every usable snapshot covers may go, and nothing else.

By hand where no engine runs (`compact`), or by the engine itself after each snapshot (`Compacting`), behind the commits
and never in their way: the snapshot's child reads the snapshots, a thread removes the files, and neither an append nor
a sync waits for it.

The event log is not compacted: ledger, publishing and every other consumer read that one, and may stand anywhere in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from exchange import journal as codec
from exchange.adapters.disk import Disk
from exchange.adapters.file_log import FileLog, LogFailedError, Removed
from exchange.adapters.journal_place import need_files
from exchange.adapters.log_check import is_log
from exchange.adapters.log_holds import LogReadError
from exchange.adapters.recovery import KEPT_SNAPSHOTS, EnginePaths, oldest_whole
from exchange.manifest import Keep
from exchange.ports import EngineTelemetry, Log
from exchange.types import Instrument, Venue
from kernel.errors import PermanentError
from kernel.time import HOUR, Clock

MIB: Final = 1024 * 1024
KEPT: Final = Keep(size=4096 * MIB, age=24 * HOUR)
"""Some 25 million commands, and at least a day of them: enough to account for a drill or a day's load from the first
record, and little beside what a disk holds."""


class Retention(msgspec.Struct, frozen=True):
    """What an engine that runs keeps of its journal, although snapshots cover it."""

    keep: Keep | None = KEPT
    """None: everything; nothing is ever removed by the engine."""
    snapshots: int = KEPT_SNAPSHOTS
    """The newest so many: what the oldest usable of them covers may go."""


AS_USUAL: Final = Retention()


class Compaction(msgspec.Struct, frozen=True):
    """What a compaction did."""

    removed: int
    """Records."""
    first_seq: int
    """The oldest record that is left."""
    covered: int
    """Where the oldest snapshot stands that can be used; 0: there is none, and nothing was removed."""
    size: int = 0
    """Bytes that were given back."""


def compact(
    paths: EnginePaths, instruments: Sequence[Instrument], disk: Disk | None = None, venue: Venue | None = None
) -> Compaction:
    """Remove the journal's segments that every snapshot which can be used covers. No engine may run.

    Each snapshot is read first: a damaged one covers nothing. Nothing is removed while the event log ends before the
    oldest of them, because it could not be completed any more. It stays whole itself: consumers may stand anywhere.
    Where there is none, none is made: the next engine makes it from the journal.

    Raises:
        LogHeldError: an engine writes to the journal.
        LogReadError: somebody reads it.
        PermanentError: a log is damaged or not there, or the disk refused.
    """
    if not paths.journal.is_dir():
        raise PermanentError(f"{paths.journal}: there is no journal here")
    need_files(paths.journal)
    with contextlib.ExitStack() as logs:
        journal = logs.enter_context(FileLog(paths.journal, disk=disk))
        told_seq = 0
        if is_log(paths.events):
            told_seq = logs.enter_context(FileLog(paths.events, codec.Kind.EVENTS, disk=disk)).synced_seq
        covered = oldest_whole(paths.snapshots, (instruments, venue), journal.first_seq - 1) or 0
        try:
            removed = journal.compact(covered if covered <= told_seq else 0)
        except OSError as error:
            raise PermanentError(f"{paths.journal}: {error.filename}: cannot be removed: {error.strerror}") from error
        return Compaction(removed.records, journal.first_seq, covered, removed.size)


class Compacting:
    """The journal of an engine that runs, compacted by itself."""

    def __init__(
        self, journal: FileLog, events: FileLog, keep: Keep, *, clock: Clock, telemetry: EngineTelemetry, log: Log
    ) -> None:
        self._journal: Final = journal
        self._events: Final = events
        self._keep: Final = keep
        self._clock: Final = clock
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._refused = False
        telemetry.compacted(segments=0, size=0, first_seq=journal.first_seq)

    def wanted(self) -> bool:
        """Tell whether anything would go if the snapshots covered everything: only then it is worth reading them."""
        upto, now = self._journal.synced_seq, self._clock.now()
        return not self._refused and bool(self._journal.removable(upto, self._keep, now))

    async def run(self, covered: int) -> None:
        """Remove what every usable snapshot covers (up to record `covered`) and nobody keeps.

        A disk that refuses is not asked again before the next start.
        """
        try:
            removed = await asyncio.get_running_loop().run_in_executor(
                None, partial(self._compact, covered, self._clock.now())
            )
        except LogReadError as error:
            self._log.event("journal-not-compacted", why=str(error))  # the next snapshot finds it unread
        except (LogFailedError, OSError) as error:
            self._refused = True
            self._telemetry.compaction_failed()
            self._log.event("journal-not-compacted", severity="error", why=str(error))
        else:
            self._tell(removed, covered)

    def _tell(self, removed: Removed, covered: int) -> None:
        if removed.segments:
            first_seq = self._journal.first_seq
            self._telemetry.compacted(segments=removed.segments, size=removed.size, first_seq=first_seq)
            self._log.event("journal-compacted", records=removed.records, segments=removed.segments,
                            bytes=removed.size, first_seq=first_seq, covered=covered)  # fmt: skip

    def _compact(self, covered: int, now: int) -> Removed:
        # A power loss leaves the event log where it is durable, and what it lacks then is derived from a snapshot that
        # is not ahead of it. Nearly always the oldest is not: the event log finished segments since.
        if covered > self._events.synced_seq:
            self._events.sync()
        return self._journal.compact(min(covered, self._events.synced_seq), self._keep, now)
