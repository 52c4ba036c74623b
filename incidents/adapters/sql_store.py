"""The incident store in an SQL database: SQLite by default, by URL.

SQLite runs with a write-ahead log and `synchronous=FULL`, so a commit is on disk when it returns. What only leads up to
something (a decision that can be taken again, a question that changes nothing) is committed without waiting for the
disk: a crash of the process loses none of it, and the next commit that waits brings all before it along, because the
log is one file. One connection is kept and a lock serialises its users. Times are whole nanoseconds, data are JSON.

What is derived (an incident's state and its fold) is written or kept beside the entries only to be found quickly; the
entries are the truth.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from incidents.adapters.store_tables import (
    ENTRIES,
    EPOCH,
    INCIDENTS,
    JOURNAL,
    PROGRESS,
    RUNS,
    SIGNALS,
    STORE,
)
from incidents.incident import Incident, State, apply, fold
from incidents.ports import JournalKind, RunRecord
from incidents.signals import AlertSignal, Status
from incidents.timeline import Draft, Entry, EntryKind, Head, Tamper, TamperKind, empty_head, seal_all, verify
from kernel.adapters.database import make_engine, parse, shown, sqlite_url
from kernel.adapters.sql_errors import translated
from kernel.adapters.upsert import add_new, put
from kernel.errors import PermanentError
from kernel.time import Instant, to_rfc3339

WHO: Final = "incident store"
CACHED_MAX: Final = 2_000
"""Folded incidents kept in memory; each is a few kilobytes plus its alerts."""
IN_MAX: Final = 500
"""Values in one IN list; SQLite's own limit was 999 for long."""


class SqlStore:
    """Keeps everything in one database; each method says what `IncidentStore` says."""

    def __init__(self, url: str, key: bytes, *, epoch: int | None = None, password: str = "") -> None:
        """Open the store at an SQLAlchemy URL; in an SQLite file its tables are laid, or brought to this revision.

        With an `epoch` it is that leader's alone: leaders of earlier epochs, whoever holds it open, write no more.

        Raises:
            PermanentError: a leader of a later epoch has it.
            InputError: the URL or the login is wrong, the database is none of ours, or one of another revision.
            TemporaryError: the database does not answer or the disk is full.
            PermanentError: the database cannot be written.
        """
        self._key = key
        self._lock = threading.RLock()
        self._synced = True
        self._cache: dict[str, Incident] = {}
        self._epoch: int | None = None
        parsed = parse(url, WHO, password=password)
        self._engine, self._where = make_engine(parsed, WHO), shown(parsed)
        try:
            with self._translated("open"):
                self._connection = self._engine.connect()
            try:
                self._lay()
                if epoch is not None:
                    self._take_over(epoch)
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._engine.dispose()
            raise

    @classmethod
    def at(cls, path: Path, key: bytes, *, epoch: int | None = None) -> SqlStore:
        """Open the SQLite store in a file, making its directory when needed."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PermanentError(f"the incident store's directory {path.parent} cannot be made: {error}") from error
        return cls(sqlite_url(path), key, epoch=epoch)

    # --- signals ----------------------------------------------------------------------------------------------------

    def take_in(self, signals: Sequence[AlertSignal]) -> int:
        """Keep signals and return how many were new."""
        if not signals:
            return 0
        rows = [
            {
                "key": signal.key,
                "fingerprint": signal.fingerprint,
                "ends_at": signal.ends_at if signal.status is Status.RESOLVED else None,
                "received_at": signal.received_at,
                "body": msgspec.msgpack.encode(signal),
            }
            for signal in signals
        ]
        with self._writing("take in signals") as connection:
            return add_new(connection, SIGNALS, rows, "key")

    def pending(self, limit: int = 500) -> list[tuple[int, AlertSignal]]:
        """Return signals not yet decided on with their offsets."""
        ask = (
            sa.select(SIGNALS.c.offset, SIGNALS.c.body)
            .where(SIGNALS.c.offset > _decided())
            .order_by(SIGNALS.c.offset)
            .limit(limit)
        )
        with self._reading("read signals") as connection:
            rows = connection.execute(ask).all()
        return [(row.offset, msgspec.msgpack.decode(row.body, type=AlertSignal)) for row in rows]

    def backlog(self) -> int:
        """Return how many signals are not yet decided on."""
        ask = sa.select(sa.func.count()).select_from(SIGNALS).where(SIGNALS.c.offset > _decided())
        with self._reading("count signals") as connection:
            return int(connection.execute(ask).scalar_one())

    def ended(self, fingerprints: Collection[str]) -> dict[str, Instant]:
        """Return the latest end that decided signals told of each alert."""
        wanted = sorted(set(fingerprints))
        ends: dict[str, Instant] = {}
        with self._reading("read ends of alerts") as connection:
            for start in range(0, len(wanted), IN_MAX):
                ask = (
                    sa.select(SIGNALS.c.fingerprint, sa.func.max(SIGNALS.c.ends_at).label("end"))
                    .where(
                        SIGNALS.c.fingerprint.in_(wanted[start : start + IN_MAX]),
                        SIGNALS.c.ends_at.is_not(None),
                        SIGNALS.c.offset <= _decided(),
                    )
                    .group_by(SIGNALS.c.fingerprint)
                )
                ends |= {row.fingerprint: Instant(row.end) for row in connection.execute(ask)}
        return ends

    # --- incidents --------------------------------------------------------------------------------------------------

    def decide(self, upto_offset: int, drafts: Mapping[str, Sequence[Draft]], runs: Sequence[RunRecord] = ()) -> None:
        """Append entries, start runs and mark signals decided, all or nothing."""
        forward = (
            sa.update(PROGRESS)
            .where(PROGRESS.c.name == "decided", PROGRESS.c.value < upto_offset)
            .values(value=sa.select(sa.func.min(upto_offset, _last_offset())).scalar_subquery())
        )
        if self._engine.dialect.name != "sqlite":  # two-argument MIN is SQLite's name for LEAST
            forward = forward.values(value=sa.func.least(upto_offset, _last_offset()))
        with self._writing("decide on signals", synced=False) as connection:
            folded = {one: self._append(connection, one, some) for one, some in drafts.items() if some}
            self._insert_runs(connection, runs)
            connection.execute(forward)
        self._keep(folded)

    def append(self, incident_id: str, drafts: Sequence[Draft]) -> None:
        """Append entries to one incident."""
        if drafts:
            with self._writing("append entries") as connection:
                folded = self._append(connection, incident_id, drafts)
            self._keep({incident_id: folded})

    def new_id(self, at: Instant) -> str:
        """Return an id that no incident has."""
        day = to_rfc3339(at)[:10].replace("-", "")
        name = f"incidents-{day}"
        with self._writing("number an incident", synced=False) as connection:
            put(connection, PROGRESS, {"name": name, "value": 1}, "name", {"value": PROGRESS.c.value + 1})
            number = connection.execute(sa.select(PROGRESS.c.value).where(PROGRESS.c.name == name)).scalar_one()
        return f"INC-{day}-{number:04d}"

    def incident(self, incident_id: str) -> Incident | None:
        """Return an incident folded from its entries."""
        with self._lock:
            cached = self._cache.get(incident_id)
            if cached is None:
                entries = self.timeline(incident_id)
                if not entries:
                    return None
                cached = _folded(incident_id, entries)
                self._keep({incident_id: cached})
            return cached

    def incidents(self, states: Collection[State] | None = None, limit: int = 1000) -> list[Incident]:
        """Return the newest incidents in these states, oldest first."""
        ask = sa.select(INCIDENTS.c.id).order_by(INCIDENTS.c.opened_at.desc(), INCIDENTS.c.id.desc())
        if states is not None:
            ask = ask.where(INCIDENTS.c.state.in_([str(state) for state in states]))
        with self._lock:
            with self._reading("list incidents") as connection:
                ids = connection.execute(ask.limit(max(limit, 0))).scalars().all()
            found = (self.incident(incident_id) for incident_id in reversed(ids))
            return [incident for incident in found if incident is not None]

    def timeline(self, incident_id: str) -> list[Entry]:
        """Return an incident's entries as they are stored."""
        with self._reading("read a timeline") as connection:
            rows = connection.execute(_timeline(incident_id)).all()
        try:
            return [_entry(row) for row in rows]
        except (ValueError, TypeError) as error:
            raise PermanentError(f"the timeline of {incident_id} is damaged: {error}") from error

    def verify(self, incident_id: str) -> Tamper | None:
        """Check an incident's stored chain."""
        with self._reading("verify a timeline") as connection:
            rows = connection.execute(_timeline(incident_id)).all()
            head = self._head(connection, incident_id)
        if head is None:
            if not rows:
                raise PermanentError(f"there is no incident {incident_id}")
            return Tamper(len(rows), TamperKind.HEAD, "the record of where the timeline ends is missing")
        entries: list[Entry] = []
        for row in rows:
            try:
                entries.append(_entry(row))
            except (ValueError, TypeError):  # what came before is checked first: the first bad entry is named
                earlier = verify(entries, self._key, head)
                if earlier is not None and earlier.kind not in {TamperKind.CUT, TamperKind.HEAD}:
                    return earlier
                place = len(entries) + 1
                return Tamper(place, TamperKind.CHANGED, f"entry {place} is not what was written")
        return verify(entries, self._key, head)

    # --- runs -------------------------------------------------------------------------------------------------------

    def start_run(self, run: RunRecord, drafts: Sequence[Draft] = ()) -> None:
        """Keep a run under way together with entries of its incident."""
        self.decide(0, {run.incident: drafts}, [run])

    def record(self, run_id: str, n: int, kind: JournalKind, payload: bytes) -> None:
        """Journal a run's n-th question or answer."""
        self.advance(run_id, [(n, kind, payload)])

    def advance(
        self,
        run_id: str,
        rows: Sequence[tuple[int, JournalKind, bytes]],
        drafts: Sequence[Draft] = (),
        *,
        synced: bool = True,
    ) -> None:
        """Journal a run's questions and answers together with entries of its incident."""
        folded: dict[str, Incident] = {}
        with self._writing("journal a run", synced=synced) as connection:
            self._known_run(connection, run_id)
            for n, kind, payload in rows:
                self._journal(connection, run_id, n, kind, payload)
            if drafts:
                incident = connection.execute(sa.select(RUNS.c.incident).where(RUNS.c.id == run_id)).scalar_one()
                folded[incident] = self._append(connection, incident, drafts)
        self._keep(folded)

    def _journal(self, connection: sa.Connection, run_id: str, n: int, kind: JournalKind, payload: bytes) -> None:
        row = {"run": run_id, "n": n, "kind": kind, "payload": payload}
        if add_new(connection, JOURNAL, [row], "run,n,kind"):
            return
        place = sa.and_(JOURNAL.c.run == run_id, JOURNAL.c.n == n, JOURNAL.c.kind == kind)
        if connection.execute(sa.select(JOURNAL.c.payload).where(place)).scalar_one() != payload:
            raise PermanentError(f"run {run_id} has another {kind} {n} on record")

    def run_journal(self, run_id: str) -> list[tuple[int, JournalKind, bytes]]:
        """Return a run's journal."""
        ask = sa.select(JOURNAL).where(JOURNAL.c.run == run_id).order_by(JOURNAL.c.n, JOURNAL.c.kind.desc())
        with self._reading("read a run's journal") as connection:
            return [(row.n, row.kind, row.payload) for row in connection.execute(ask)]

    def end_run(self, run: RunRecord, drafts: Sequence[Draft] = ()) -> None:
        """Keep how a run ended together with entries."""
        assert run.ended_at is not None, "a run that ended has an end"
        folded: dict[str, Incident] = {}
        with self._writing("end a run") as connection:
            self._known_run(connection, run.id)
            if drafts:
                folded[run.incident] = self._append(connection, run.incident, drafts)
            connection.execute(sa.update(RUNS).where(RUNS.c.id == run.id).values(_run_row(run)))
        self._keep(folded)

    def run(self, run_id: str) -> RunRecord | None:
        """Return one run."""
        return next(iter(self._runs(RUNS.c.id == run_id)), None)

    def open_runs(self) -> list[RunRecord]:
        """Return the runs under way."""
        return self._runs(RUNS.c.ended_at.is_(None))

    def runs_since(self, instant: Instant) -> list[RunRecord]:
        """Return the runs that started at or after `instant`."""
        return self._runs(RUNS.c.started_at >= instant)

    def close(self) -> None:
        """Let go of the database."""
        with self._lock, suppress(SQLAlchemyError):
            self._connection.close()
            self._engine.dispose()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _lay(self) -> None:
        """Make the tables of a new file; refuse a database that is not ours, or not of this revision."""
        with self._writing("lay the tables") as connection:
            if connection.dialect.name == "sqlite":
                STORE.upgrade(connection)
            STORE.require(connection)

    def _append(self, connection: sa.Connection, incident_id: str, drafts: Sequence[Draft]) -> Incident:
        """Seal and write drafts; what they may not say stops the transaction."""
        stored = self._head(connection, incident_id)
        incident = self.incident(incident_id) if stored else None
        for draft in drafts:
            incident = apply(incident, draft)
        assert incident is not None, "drafts were given"
        assert incident.id == incident_id, f"{incident_id} is opened as {incident.id}"
        entries, head = seal_all(drafts, stored or empty_head(incident_id, self._key), self._key)
        connection.execute(sa.insert(ENTRIES), [_entry_row(incident_id, entry) for entry in entries])
        row = {
            "id": incident_id,
            "state": str(incident.state),
            "opened_at": incident.opened_at,
            "count": head.count,
            "digest": head.digest,
            "seal": head.seal,
        }
        put(connection, INCIDENTS, row, "id", row)
        return incident

    def _head(self, connection: sa.Connection, incident_id: str) -> Head | None:
        row = connection.execute(sa.select(INCIDENTS).where(INCIDENTS.c.id == incident_id)).one_or_none()
        return None if row is None else Head(incident_id, row._mapping["count"], row.digest, row.seal)  # noqa: SLF001 - the documented way; `count` is a method of a row

    def _keep(self, folded: Mapping[str, Incident]) -> None:
        with self._lock:
            for incident_id, incident in folded.items():
                self._cache.pop(incident_id, None)
                self._cache[incident_id] = incident
            while len(self._cache) > CACHED_MAX:
                del self._cache[next(iter(self._cache))]

    def _insert_runs(self, connection: sa.Connection, runs: Sequence[RunRecord]) -> None:
        for run in runs:
            if not add_new(connection, RUNS, [_run_row(run)], "id"):
                raise PermanentError(f"run {run.id} is on record already")

    def _known_run(self, connection: sa.Connection, run_id: str) -> None:
        if connection.execute(sa.select(RUNS.c.id).where(RUNS.c.id == run_id)).first() is None:
            raise PermanentError(f"there is no run {run_id}")

    def _runs(self, which: sa.ColumnElement[bool]) -> list[RunRecord]:
        ask = sa.select(RUNS).where(which).order_by(RUNS.c.started_at, RUNS.c.id)
        with self._reading("read runs") as connection:
            return [_run(row) for row in connection.execute(ask)]

    @contextmanager
    def _writing(self, what: str, *, synced: bool = True) -> Iterator[sa.Connection]:
        with self._lock, self._translated(what):
            self._wait_for_disk(synced)
            with self._connection.begin():
                self._check_epoch(self._connection)
                yield self._connection

    def _take_over(self, epoch: int) -> None:
        """Shut leaders of earlier epochs out."""
        ours = {"name": EPOCH, "value": epoch}
        with self._writing("take the store over") as connection:
            if not put(connection, PROGRESS, ours, "name", {"value": epoch}, only=PROGRESS.c.value <= epoch):
                raise PermanentError(f"the incident store {self._where} belongs to a leader after epoch {epoch}")
        self._epoch = epoch

    def _check_epoch(self, connection: sa.Connection) -> None:
        """Stop a transaction of a leader that is none any more.

        The check is part of the transaction: a takeover after it makes the write fail, as a conflict of the database.
        """
        if self._epoch is None:
            return
        ask = sa.select(PROGRESS.c.value).where(PROGRESS.c.name == EPOCH)
        if connection.dialect.name != "sqlite":
            ask = ask.with_for_update(read=True)
        now = connection.execute(ask).scalar_one()
        if now != self._epoch:
            raise PermanentError(
                f"the incident store {self._where} belongs to the leader of epoch {now}; ours was {self._epoch}"
            )

    def _wait_for_disk(self, synced: bool) -> None:  # noqa: FBT001 - its one argument
        """Let the next commits wait for the disk, or not."""
        if synced is self._synced or self._engine.dialect.name != "sqlite":
            return
        driver: Any = self._connection.connection.dbapi_connection  # outside of transactions, where SQLite takes this
        driver.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}").close()
        self._synced = synced

    @contextmanager
    def _reading(self, what: str) -> Iterator[sa.Connection]:
        with self._lock, self._translated(what):
            if self._connection.in_transaction():
                yield self._connection
                return
            with self._connection.begin():
                yield self._connection

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        with translated(f"the incident store {self._where}", what):
            yield


def _decided() -> sa.ScalarSelect[Any]:
    return sa.select(PROGRESS.c.value).where(PROGRESS.c.name == "decided").scalar_subquery()


def _last_offset() -> sa.ScalarSelect[Any]:
    return sa.select(sa.func.coalesce(sa.func.max(SIGNALS.c.offset), 0)).scalar_subquery()


def _timeline(incident_id: str) -> sa.Select[Any]:
    return sa.select(ENTRIES).where(ENTRIES.c.incident == incident_id).order_by(ENTRIES.c.n)


def _folded(incident_id: str, entries: Iterable[Entry]) -> Incident:
    try:
        return fold(entries)
    except (AssertionError, PermanentError, ValueError) as error:
        raise PermanentError(f"the timeline of {incident_id} is damaged: {error}") from error


def _entry(row: sa.Row[Any]) -> Entry:
    data = msgspec.json.decode(row.data, type=dict[str, object])
    kind = EntryKind(row.kind)
    return Entry(row.n, Instant(row.at), kind, row.source, row.text, data, row.previous, row.digest)


def _entry_row(incident_id: str, entry: Entry) -> dict[str, object]:
    return {
        "incident": incident_id,
        "n": entry.n,
        "at": entry.at,
        "kind": str(entry.kind),
        "source": entry.source,
        "text": entry.text,
        "data": msgspec.json.encode(entry.data).decode(),
        "previous": entry.previous,
        "digest": entry.digest,
    }


def _run_row(run: RunRecord) -> dict[str, object]:
    row: dict[str, object] = msgspec.structs.asdict(run)
    row["labels"] = msgspec.json.encode(run.labels).decode()
    return row


def _run(row: sa.Row[Any]) -> RunRecord:
    return RunRecord(**{**row._mapping, "labels": msgspec.json.decode(row.labels, type=dict[str, str])})  # noqa: SLF001 - the documented way to a row's columns
