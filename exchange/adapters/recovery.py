"""How an engine comes back: newest snapshot that fits, then the journal; and how it leaves without a doubt.

The journal alone is the truth. Snapshots shorten the way, the event log is derived and written anew when it is short or
damaged, and the marker of a clean stop tells whether anything could have been cut off in mid-work.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import struct
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypedDict

import msgspec

from exchange import journal as codec
from exchange import snapshot
from exchange.adapters.disk import Disk
from exchange.adapters.durable_files import drop_drafts, sync_directory, write_durably
from exchange.adapters.file_log import FileLog, LogFailedError, LogHeldError
from exchange.adapters.journal_place import need_files
from exchange.engine import Engine
from exchange.events import Happened
from exchange.ports import Journal, Log
from exchange.replaying import apply_each
from exchange.types import Instrument, Venue
from kernel.errors import PermanentError
from kernel.time import Instant

KEPT_SNAPSHOTS: Final = 3
"""One that is being relied on, one before it, and one in case both are damaged."""
_MAX_FDS: Final = 65_536
_ROOM_BYTES: Final = 1024 * 1024
"""So much of the disk a snapshot beside commits leaves them: a full one would stop them for good."""
_SUFFIX: Final = ".snapshot"
_COVERED: Final = struct.Struct(">Q")
_FAILED: Final = 1
_DIFFERS: Final = 2
"""Exit codes of a snapshot's child."""


Market = tuple[Sequence[Instrument], Venue | None]
"""What is traded, and the conventions it is traded by."""


@dataclass(frozen=True)
class EnginePaths:
    """Where an engine keeps its things."""

    journal: Path
    events: Path
    snapshots: Path


class Storage(TypedDict):
    """How the disk of an engine stands."""

    journal_bytes: int
    disk_free_bytes: int
    snapshot_at: Instant | None


def storage_of(paths: EnginePaths) -> Storage:
    """Look at the disk; what cannot be read counts as nothing."""
    files = [entry.stat() for entry in _entries(paths.journal)]
    snapshots = [entry.stat().st_mtime_ns for entry in _entries(paths.snapshots) if entry.name.endswith(_SUFFIX)]
    try:
        free = shutil.disk_usage(paths.journal).free
    except OSError:
        free = 0
    return Storage(
        journal_bytes=sum(one.st_size for one in files),
        disk_free_bytes=free,
        snapshot_at=Instant(max(snapshots)) if snapshots else None,
    )


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return [entry for entry in found if entry.is_file()]
    except OSError:
        return []


class CleanStop(msgspec.Struct, frozen=True):
    """The marker of a clean stop."""

    seq: int
    state_hash: str
    version: int = 1
    """Of the state: hashes of different versions say nothing of each other."""


@dataclass(frozen=True)
class Recovered:
    """An engine as it stood, and the logs to go on with."""

    engine: Engine
    journal: Journal
    events: FileLog
    replayed: int
    seconds: float
    clean: bool
    """The engine stopped in good order, or never ran."""


OpenJournal = Callable[[], Journal]
"""Opens a journal that is kept elsewhere than in files, for writing."""


def recover(
    paths: EnginePaths,
    instruments: Sequence[Instrument],
    log: Log,
    disk: Disk | None = None,
    venue: Venue | None = None,
    open_journal: OpenJournal | None = None,
) -> Recovered:
    """Bring an engine back to where its journal ends: in files, or wherever `open_journal` opens it.

    Event log and snapshots lie in files in any case. Where the journal is elsewhere and goes back to its first record,
    they may be missing.

    Raises:
        LogHeldError: another process writes to the journal.
        TemporaryError: the journal cannot be reached now.
        PermanentError: the journal is damaged or incomplete, or belongs to other instruments or another version; or a
            file cannot be used.
    """
    started = time.perf_counter()
    try:
        for directory in (paths.journal, paths.events, paths.snapshots):
            directory.mkdir(parents=True, exist_ok=True)
        journal = _open_files(paths.journal, disk, log) if open_journal is None else open_journal()
    except OSError as error:
        raise PermanentError(f"cannot open the journal: {error}") from error
    try:
        drop_drafts(paths.snapshots)
        stop = clean_stop(paths.snapshots)
        market = (instruments, venue)
        events = _open_events(paths, market, journal, log)
        try:
            with _nothing_collected():
                engine = _newest_engine(paths.snapshots, market, journal, events.last_seq, log)
                replayed = _replay(engine, journal, events)
            clean = _is_clean(stop, engine, log)
            _remove_marker(paths.snapshots)
        except BaseException:
            events.close()
            raise
    except OSError as error:
        journal.close()
        raise PermanentError(f"an engine's files cannot be used: {error}") from error
    except BaseException:
        journal.close()
        raise
    return Recovered(engine, journal, events, replayed, time.perf_counter() - started, clean)


def _open_files(directory: Path, disk: Disk | None, log: Log) -> FileLog:
    need_files(directory)
    journal = FileLog(directory, disk=disk, keep=True)
    if journal.repaired is not None:
        log.event("journal-tail-cut", severity="warning", path=str(journal.repaired.path),
                  offset=journal.repaired.offset, bytes=journal.repaired.size)  # fmt: skip
    return journal


def write_snapshot(
    directory: Path, seq: int, data: bytes, kept: int = KEPT_SNAPSHOTS, events_seq: int | None = None
) -> None:
    """Keep a snapshot durably, read it back, and only then drop the oldest beyond `kept`.

    Of those one more stays where all the others are ahead of `events_seq`, what the event log has durably: without it a
    power loss could leave an event log that no snapshot leads on from, beside a journal that was compacted.

    Raises:
        OSError: the disk refused, or gives back something else; older snapshots are untouched.
    """
    _keep(directory, seq, data)
    _drop_old(directory, kept, events_seq)


def _keep(directory: Path, seq: int, data: bytes) -> None:
    path = directory / f"{seq:020d}{_SUFFIX}"
    write_durably(path, data)
    if path.read_bytes() != data:
        raise OSError(errno.EIO, "a snapshot that was written reads differently", str(path))


def _need_room(directory: Path, size: int) -> None:
    if shutil.disk_usage(directory).free < size + _ROOM_BYTES:
        raise OSError(errno.ENOSPC, "a snapshot would fill the disk", str(directory))


def _drop_old(directory: Path, kept: int, events_seq: int | None) -> None:
    found = _snapshots(directory)
    needed = None if events_seq is None else next((path for seq, path in found if seq <= events_seq), None)
    for _, old in found[kept:]:
        if old != needed:
            old.unlink(missing_ok=True)


class SnapshotCheck(msgspec.Struct, frozen=True):
    """How a snapshot is."""

    path: str
    seq: int
    """Where it stands, by its name."""
    wrong: str = ""
    """Why it cannot be used; empty when it can."""


def check_snapshots(
    directory: Path, instruments: Sequence[Instrument], venue: Venue | None = None
) -> list[SnapshotCheck]:
    """Read every snapshot, oldest first."""
    found = []
    for seq, path in reversed(_snapshots(directory)):
        try:
            stands = snapshot.load(path.read_bytes(), instruments, venue).sequence
            wrong = "" if stands == seq else f"it stands at record {stands}, not where its name says"
        except (PermanentError, OSError) as error:
            wrong = str(error)
        found.append(SnapshotCheck(str(path), seq, wrong))
    return found


def engine_before(
    directory: Path, instruments: Sequence[Instrument], seq: int, until: int | None = None, venue: Venue | None = None
) -> Engine:
    """Return an engine of the oldest snapshot from which a journal that begins with record `seq` can be replayed.

    Raises:
        PermanentError: there is none that stands between `seq` - 1 and `until`.
    """
    for stands, path in reversed(_snapshots(directory)):
        if seq - 1 <= stands and (until is None or stands <= until):
            engine = _whole(path, (instruments, venue))
            if engine is not None:
                return engine
    before = "" if until is None else f" and not after {until}"
    raise PermanentError(f"{directory}: the journal begins with record {seq}, and no whole snapshot reaches it{before}")


class ForkedSnapshot(NamedTuple):
    """A snapshot that a child process is writing."""

    seq: int
    child: int
    verdict: int
    """A pipe's end: the child says there where the oldest usable snapshot stands."""


def fork_snapshot(
    directory: Path,
    engine: Engine,
    kept: int = KEPT_SNAPSHOTS,
    first_seq: int | None = None,
    events_seq: int | None = None,
) -> ForkedSnapshot:
    """Write a snapshot in a child process; `take_snapshot` waits for it.

    The child has the state as of now, and the engine goes on after the milliseconds of the fork: writing
    the state here would stop every order for as long as it takes. With `first_seq`, the first record of the journal,
    the child also makes an engine of what it wrote, compares its hash with its own, and reads the older snapshots: so
    that it can tell what all of them cover. That takes the memory of one more engine for as long as it lasts. No older
    one goes before the new one is known to be right. `events_seq` is that of `write_snapshot`.

    Raises:
        PermanentError: there is no memory or no process to be had for a child.
    """
    verdict, told = os.pipe()
    with warnings.catch_warnings():
        # Forking beside threads is safe here: the child runs none of their code, takes none of their locks and ends
        # without returning.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            child = os.fork()
        except OSError as error:
            os.close(verdict)
            os.close(told)
            raise PermanentError(f"no process for a snapshot: {error.strerror}") from error
    if child:
        os.close(told)
        return ForkedSnapshot(engine.sequence, child, verdict)
    code = _FAILED
    try:
        # Neither the journal's lock nor a listening port may outlive the engine in its child.
        os.closerange(3, told)
        os.closerange(told + 1, min(os.sysconf("SC_OPEN_MAX"), _MAX_FDS))
        gc.disable()
        os.nice(5)
        data = snapshot.dump(engine)
        _need_room(directory, len(data))
        _keep(directory, engine.sequence, data)
        if first_seq is None:
            _drop_old(directory, kept, events_seq)
            code = 0
        elif _is_snapshot_of(directory, engine):
            _drop_old(directory, kept, events_seq)
            os.write(told, _COVERED.pack(oldest_whole(directory, market_of(engine), first_seq - 1) or 0))
            code = 0
        else:
            code = _DIFFERS
    finally:
        os._exit(code)


def take_snapshot(directory: Path, forked: ForkedSnapshot) -> int:
    """Wait for a snapshot's child; return up to which record every usable snapshot covers the journal, 0 if not asked.

    Raises:
        PermanentError: the snapshot is not there, or is not what it was made of (and was removed).
    """
    with os.fdopen(forked.verdict, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(forked.child, 0)[1])
    if code == _DIFFERS:
        raise PermanentError(f"{directory}: an engine made of snapshot {forked.seq} has another hash; it was removed")
    if code:
        raise PermanentError(f"{directory}: no snapshot could be kept; is the disk full or read-only?")
    return int(_COVERED.unpack(told)[0]) if told else 0


def _is_snapshot_of(directory: Path, engine: Engine) -> bool:
    """Tell whether the newest snapshot makes the same engine; remove it when it does not."""
    path = directory / f"{engine.sequence:020d}{_SUFFIX}"
    again = _whole(path, market_of(engine))
    if again is not None and again.state_hash() == engine.state_hash():
        return True
    path.unlink(missing_ok=True)
    return False


def market_of(engine: Engine) -> Market:
    """Return what an engine trades."""
    return tuple(engine.instruments.values()), engine.venue


def mark_clean_stop(directory: Path, stop: CleanStop) -> None:
    """Write, durably, that the engine stopped in good order.

    Raises:
        OSError: the disk refused; the next start is taken for one after a crash.
    """
    write_durably(_marker(directory), msgspec.json.encode(stop))


def _marker(directory: Path) -> Path:
    return directory / "clean-stop.json"


def clean_stop(directory: Path) -> CleanStop | None:
    """Return the marker of a clean stop; None when there is none, or only a part of one.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode(_marker(directory).read_bytes(), type=CleanStop)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        return None  # half a marker marks nothing: the safe side is a market that waits to be reopened


def _remove_marker(directory: Path) -> None:
    _marker(directory).unlink(missing_ok=True)
    sync_directory(directory)


def _is_clean(stop: CleanStop | None, engine: Engine, log: Log) -> bool:
    if stop is None:
        return engine.sequence == 0
    _refuse_missing(_stopped(stop), engine.sequence)
    if stop.version != snapshot.VERSION:
        log.event("clean-stop-of-another-version", seq=stop.seq, version=stop.version)
    elif stop.seq == engine.sequence and stop.state_hash != engine.state_hash():
        log.event("replay-differs", severity="critical", seq=stop.seq)
        return False
    return stop.seq == engine.sequence


class Beyond(NamedTuple):
    """Something beside a journal that was written after a record of it was durable."""

    who: str
    seq: int

    def missing(self, last_seq: int) -> str:
        """Say that a journal which ends with `last_seq` lost what this goes back to; empty when it did not."""
        if self.seq <= last_seq:
            return ""
        return (
            f"{self.who} record {self.seq}, but the journal ends with {last_seq}: "
            "records are missing; restore the journal from a copy"
        )


def beside(paths: EnginePaths) -> tuple[Beyond, ...]:
    """Return what stands beside a journal and goes back to its last records: snapshots and the marker of a clean stop.

    Raises:
        OSError: the marker cannot be read.
    """
    stop = clean_stop(paths.snapshots)
    newest = [_standing(path, seq) for seq, path in _snapshots(paths.snapshots)[:1]]
    return (*newest, *([_stopped(stop)] if stop is not None else []))


def told_by(events: Path, seq: int) -> Beyond:
    """Return what an event log that ends with record `seq` goes back to."""
    return Beyond(f"{events}: the event log ends with what was caused by", seq)


def _standing(path: Path, seq: int) -> Beyond:
    return Beyond(f"{path}: this snapshot stands at", seq)


def _stopped(stop: CleanStop) -> Beyond:
    return Beyond("the engine stopped at", stop.seq)


def _refuse_missing(found: Beyond, last_seq: int) -> None:
    if why := found.missing(last_seq):
        raise PermanentError(why)


def _open_events(paths: EnginePaths, market: Market, journal: Journal, log: Log) -> FileLog:
    """Open the event log; throw it away when it is damaged, or ends where the journal does not go on from.

    What went before the oldest snapshot cannot be derived from a journal that was compacted: it begins after that.
    Nothing is thrown away because the disk refused something.
    """
    directory, last_seq = paths.events, journal.last_seq
    try:
        events = FileLog(directory, codec.Kind.EVENTS)
    except (LogHeldError, LogFailedError):
        raise
    except PermanentError as error:
        log.event("event-log-rebuilt", severity="warning", why=str(error))
    else:
        if journal.first_seq - 1 <= events.last_seq <= last_seq:
            return events
        events.close()
        if isinstance(journal, FileLog):
            _refuse_missing(told_by(directory, events.last_seq), last_seq)
        log.event("event-log-rebuilt", severity="warning",
                  why=f"it ends at {events.last_seq}, the journal has {journal.first_seq} to {last_seq}")  # fmt: skip
    first = 1
    if journal.first_seq > 1:
        oldest = oldest_whole(paths.snapshots, market, journal.first_seq - 1)
        if oldest is None:
            raise PermanentError(_uncovered(journal))
        first = oldest + 1
    shutil.rmtree(directory)
    return FileLog(directory, codec.Kind.EVENTS, first_seq=first)


def oldest_whole(directory: Path, market: Market, from_seq: int) -> int | None:
    """Return where the oldest snapshot stands that can be used and is not older than `from_seq`."""
    for seq, path in reversed(_snapshots(directory)):
        if seq >= from_seq and _whole(path, market) is not None:
            return seq
    return None


def _whole(path: Path, market: Market) -> Engine | None:
    """Return the engine of a snapshot; None when it is damaged, or does not stand where its name says."""
    try:
        engine = snapshot.load(path.read_bytes(), *market)
    except (snapshot.SnapshotError, OSError):
        return None
    return engine if f"{engine.sequence:020d}" == path.stem else None


def _uncovered(journal: Journal) -> str:
    return (
        f"{journal.name}: begins with record {journal.first_seq}, and no snapshot that can be used reaches up to "
        "it; restore a snapshot from a copy"
    )


def _newest_engine(directory: Path, market: Market, journal: Journal, events_seq: int, log: Log) -> Engine:
    """Return the engine of the newest snapshot that is whole and not ahead of the event log; else a fresh one."""
    journal_seq = journal.last_seq
    for seq, path in _snapshots(directory):
        _refuse_missing(_standing(path, seq), journal_seq)
        if seq > events_seq:
            continue  # what lies between would be missing from the event log
        if seq < journal.first_seq - 1:
            break  # what lies between was removed
        try:
            engine = snapshot.load(path.read_bytes(), *market)
        except (snapshot.SnapshotError, OSError) as error:
            log.event("snapshot-passed-over", severity="warning", path=str(path), why=str(error))
            continue
        if engine.sequence == seq:
            return engine
        why = f"it stands at record {engine.sequence}, not where its name says"
        log.event("snapshot-passed-over", severity="warning", path=str(path), why=why)
    if journal.first_seq > 1:
        raise PermanentError(_uncovered(journal))
    return Engine(*market)


def _replay(engine: Engine, journal: Journal, events: FileLog) -> int:
    """Apply the rest of the journal, and write to the event log what it lacks."""
    begun = engine.sequence
    for payloads in journal.payloads(begun + 1):
        _apply(engine, payloads, journal.name, events)
    if engine.sequence != journal.last_seq:
        raise PermanentError(
            f"{journal.name}: the replay ends at record {engine.sequence} of {journal.last_seq}; "
            "restore the journal from a copy"
        )
    return engine.sequence - begun


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """Keep the collector of garbage away: all that a recovery makes stays.

    Afterwards it is all among the oldest, as if it had been looked at. Else the first collection would look at each
    of it, which takes a tenth of the recovery.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()  # from the permanent generation to the oldest: neither looks at anything
        if collects:
            gc.enable()


def _apply(engine: Engine, payloads: list[bytes], name: str, events: FileLog) -> None:
    """Apply the next commands, and append to the event log those that it lacks."""
    written = events.last_seq
    lacking: list[bytes] = []
    try:
        if engine.sequence + len(payloads) <= written:
            apply_each(engine, payloads, codec.decode_command)
            return
        for payload in payloads:
            item = codec.decode_command(payload)
            caused = engine.apply(item)
            if item.seq > written:
                lacking.append(codec.encode_events(Happened(item.seq, item.at, caused, item.trace)))
    except msgspec.DecodeError as error:
        raise PermanentError(
            f"{name}: record {engine.sequence + 1} holds no command of this version ({error}); "
            "use the program that wrote it"
        ) from error
    events.append(lacking)


def _snapshots(directory: Path) -> list[tuple[int, Path]]:
    """Return the snapshots, newest first."""
    found = [(int(path.stem), path) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal()]
    return sorted(found, reverse=True)
