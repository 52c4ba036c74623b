"""How an engine comes back: newest snapshot that fits, then the journal; and how it leaves without a doubt.

The journal alone is the truth. Snapshots shorten the way, the event log is derived and written anew when it is short or
damaged, and the marker of a clean stop tells whether anything could have been cut off in mid-work.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

import msgspec

from exchange import journal as codec
from exchange import snapshot
from exchange.adapters.file_log import Disk, FileLog, LogHeldError
from exchange.engine import Engine
from exchange.events import Happened
from exchange.ports import Log
from exchange.types import Instrument, Venue
from kernel.errors import PermanentError
from kernel.time import Instant

KEPT_SNAPSHOTS: Final = 3
"""One that is being relied on, one before it, and one in case both are damaged."""
_CHUNK: Final = 1024
_MAX_FDS: Final = 65_536
_PIECE_BYTES: Final = 1024 * 1024
"""A snapshot reaches the disk in pieces, so that no sync of the journal waits for the whole of it."""
_SUFFIX: Final = ".snapshot"


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
    journal: FileLog
    events: FileLog
    replayed: int
    seconds: float
    clean: bool
    """The engine stopped in good order, or never ran."""


def recover(
    paths: EnginePaths,
    instruments: Sequence[Instrument],
    log: Log,
    disk: Disk | None = None,
    venue: Venue | None = None,
) -> Recovered:
    """Bring an engine back to where its journal ends.

    Raises:
        LogHeldError: another process writes to the journal.
        PermanentError: the journal is damaged or incomplete, or belongs to other instruments or another version.
    """
    started = time.perf_counter()
    try:
        for directory in (paths.journal, paths.events, paths.snapshots):
            directory.mkdir(parents=True, exist_ok=True)
        journal = FileLog(paths.journal, disk=disk)
    except OSError as error:
        raise PermanentError(f"cannot open the journal: {error}") from error
    try:
        if journal.repaired is not None:
            log.event("journal-tail-cut", severity="warning", path=str(journal.repaired.path),
                      offset=journal.repaired.offset, bytes=journal.repaired.size)  # fmt: skip
        stop = _take_marker(paths.snapshots)
        events = _open_events(paths.events, journal.last_seq, log)
        try:
            engine = _newest_engine(paths.snapshots, (instruments, venue), journal.last_seq, events.last_seq, log)
            replayed = _replay(engine, journal, events)
            clean = _is_clean(stop, engine, log)
            _remove_marker(paths.snapshots)
        except BaseException:
            events.close()
            raise
    except BaseException:
        journal.close()
        raise
    return Recovered(engine, journal, events, replayed, time.perf_counter() - started, clean)


def write_snapshot(directory: Path, seq: int, data: bytes) -> None:
    """Keep a snapshot durably and drop the oldest beyond `KEPT_SNAPSHOTS`.

    Raises:
        OSError: the disk refused; older snapshots are untouched.
    """
    _write_durably(directory / f"{seq:020d}{_SUFFIX}", data)
    for _, path in _snapshots(directory)[KEPT_SNAPSHOTS:]:
        path.unlink(missing_ok=True)


def fork_snapshot(directory: Path, engine: Engine) -> int:
    """Write a snapshot in a child process and return its id; wait for it, exit code 0 means the snapshot is kept.

    The child has the state as of now, and the engine goes on after the milliseconds of the fork: writing
    the state here would stop every order for as long as it takes.
    """
    with warnings.catch_warnings():
        # Forking beside threads is safe here: the child runs none of their code, takes none of their locks and ends
        # without returning.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        # Neither the journal's lock nor a listening port may outlive the engine in its child.
        os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), _MAX_FDS))
        gc.disable()
        os.nice(5)
        write_snapshot(directory, engine.sequence, snapshot.dump(engine))
        code = 0
    finally:
        os._exit(code)


def mark_clean_stop(directory: Path, stop: CleanStop) -> None:
    """Write, durably, that the engine stopped in good order.

    Raises:
        OSError: the disk refused; the next start is taken for one after a crash.
    """
    _write_durably(_marker(directory), msgspec.json.encode(stop))


def _marker(directory: Path) -> Path:
    return directory / "clean-stop.json"


def _take_marker(directory: Path) -> CleanStop | None:
    try:
        return msgspec.json.decode(_marker(directory).read_bytes(), type=CleanStop)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        return None  # half a marker marks nothing: the safe side is a market that waits to be reopened


def _remove_marker(directory: Path) -> None:
    _marker(directory).unlink(missing_ok=True)
    _sync_directory(directory)


def _is_clean(stop: CleanStop | None, engine: Engine, log: Log) -> bool:
    if stop is None:
        return engine.sequence == 0
    if stop.seq > engine.sequence:
        raise PermanentError(
            f"the journal ends with record {engine.sequence}, but the engine stopped at {stop.seq}: "
            "records are missing; restore the journal from a copy"
        )
    if stop.version != snapshot.VERSION:
        log.event("clean-stop-of-another-version", seq=stop.seq, version=stop.version)
    elif stop.seq == engine.sequence and stop.state_hash != engine.state_hash():
        log.event("replay-differs", severity="critical", seq=stop.seq)
        return False
    return stop.seq == engine.sequence


def _open_events(directory: Path, last_seq: int, log: Log) -> FileLog:
    """Open the event log; throw it away when it is damaged or ahead of the journal."""
    try:
        events = FileLog(directory, codec.Kind.EVENTS)
    except LogHeldError:
        raise
    except PermanentError as error:
        log.event("event-log-rebuilt", severity="warning", why=str(error))
    else:
        if events.last_seq <= last_seq:
            return events
        log.event(
            "event-log-rebuilt", severity="warning", why=f"it ends at {events.last_seq}, the journal at {last_seq}"
        )
        events.close()
    shutil.rmtree(directory)
    return FileLog(directory, codec.Kind.EVENTS)


def _newest_engine(
    directory: Path,
    market: tuple[Sequence[Instrument], Venue | None],
    journal_seq: int,
    events_seq: int,
    log: Log,
) -> Engine:
    """Return the engine of the newest snapshot that is whole and not ahead of the event log; else a fresh one."""
    for seq, path in _snapshots(directory):
        if seq > journal_seq:
            raise PermanentError(
                f"{path}: this snapshot stands at record {seq}, but the journal ends with {journal_seq}: "
                "records are missing; restore the journal from a copy"
            )
        if seq > events_seq:
            continue  # what lies between would be missing from the event log
        try:
            return snapshot.load(path.read_bytes(), *market)
        except (snapshot.SnapshotError, OSError) as error:
            log.event("snapshot-passed-over", severity="warning", path=str(path), why=str(error))
    return Engine(*market)


def _replay(engine: Engine, journal: FileLog, events: FileLog) -> int:
    """Apply the rest of the journal, and write to the event log what it lacks."""
    replayed = 0
    pending: list[bytes] = []
    for record in journal.replay(engine.sequence + 1):
        try:
            item = codec.decode_command(record.payload)
        except msgspec.MsgspecError as error:
            raise PermanentError(
                f"{journal.directory}: record {record.seq} holds no command of this version ({error}); "
                "use the program that wrote it"
            ) from error
        caused = engine.apply(item)
        replayed += 1
        if record.seq > events.last_seq + len(pending):
            pending.append(codec.encode_events(Happened(item.seq, item.at, caused, item.trace)))
        if len(pending) >= _CHUNK:
            events.append(pending)
            pending = []
    if pending:
        events.append(pending)
    if engine.sequence != journal.last_seq:
        raise PermanentError(
            f"{journal.directory}: the replay ends at record {engine.sequence} of {journal.last_seq}; "
            "restore the journal from a copy"
        )
    return replayed


def _snapshots(directory: Path) -> list[tuple[int, Path]]:
    """Return the snapshots, newest first."""
    found = [(int(path.stem), path) for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal()]
    return sorted(found, reverse=True)


def _write_durably(path: Path, data: bytes) -> None:
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as file:
        for start in range(0, len(data), _PIECE_BYTES):
            file.write(data[start : start + _PIECE_BYTES])
            file.flush()
            os.fdatasync(file.fileno())
        os.fsync(file.fileno())
    draft.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
