"""The incident store in an SQL database: SQLite by default, by URL.

SQLite runs with a write-ahead log and `synchronous=FULL`, so a commit is on disk when it returns. What only leads up to
something (a decision that can be taken again, a question that changes nothing) is committed without waiting for the
disk: a crash of the process loses none of it, and the next commit that waits brings all before it along, because the
log is one file. One connection is kept and a lock serialises its users. Times are whole nanoseconds, data are JSON.

What is derived (an incident's state and its fold) is written or kept beside the entries only to be found quickly; the
entries are the truth.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from incidents.adapters.sql_errors import raise_meaning
from incidents.incident import Incident, State, apply, fold
from incidents.ports import JournalKind, RunRecord
from incidents.signals import AlertSignal, Status
from incidents.timeline import Draft, Entry, EntryKind, Head, Tamper, TamperKind, empty_head, seal_all, verify
from kernel.errors import InputError, PermanentError
from kernel.time import Instant, to_rfc3339

STORE_VERSION: Final = 1
BUSY_TIMEOUT_MS: Final = 5_000
CACHED_MAX: Final = 2_000
"""Folded incidents kept in memory; each is a few kilobytes plus its alerts."""
IN_MAX: Final = 500
"""Values in one IN list; SQLite's own limit was 999 for long."""

_META: Final = sa.MetaData()
_WHOLE: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # only INTEGER counts by itself in SQLite

_VERSION: Final = sa.Table("tapewatch_store", _META, sa.Column("version", sa.Integer, primary_key=True))
_SIGNALS: Final = sa.Table(
    "signals",
    _META,
    sa.Column("offset", _WHOLE, primary_key=True, autoincrement=True),
    sa.Column("key", sa.String(64), nullable=False, unique=True),
    sa.Column("fingerprint", sa.String(128), nullable=False),
    sa.Column("ends_at", sa.BigInteger),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("signals_ended", "fingerprint", "ends_at", sqlite_where=sa.text("ends_at IS NOT NULL")),
    sqlite_autoincrement=True,
)
_PROGRESS: Final = sa.Table(
    "progress",
    _META,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""`decided`: the offset up to which signals are decided; `incidents-YYYYMMDD`: the last number given on that day;
`epoch`: the leader whose store it is."""
_EPOCH: Final = "epoch"
_INCIDENTS: Final = sa.Table(
    "incidents",
    _META,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("opened_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("seal", sa.String(64), nullable=False),
)
_ENTRIES: Final = sa.Table(
    "entries",
    _META,
    sa.Column("incident", sa.String(40), primary_key=True),
    sa.Column("n", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)
_RUNS: Final = sa.Table(
    "runs",
    _META,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("incident", sa.String(40), nullable=False),
    sa.Column("runbook", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("ended_at", sa.BigInteger, index=True),
    sa.Column("outcome", sa.String(40)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)
_JOURNAL: Final = sa.Table(
    "run_journal",
    _META,
    sa.Column("run", sa.String(80), primary_key=True),
    sa.Column("n", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.String(10), primary_key=True),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)


class SqlStore:
    """Keeps everything in one database; each method says what `IncidentStore` says."""

    def __init__(self, url: str, key: bytes, *, epoch: int | None = None) -> None:
        """Open the store at an SQLAlchemy URL and lay its tables when it is new.

        With an `epoch` it is that leader's alone: leaders of earlier epochs, whoever holds it open, write no more.

        Raises:
            PermanentError: a leader of a later epoch has it.
            InputError: the URL is none, the file is no database of ours, or one of another version.
            TemporaryError: the database does not answer or the disk is full.
            PermanentError: the database cannot be written.
        """
        self._key = key
        self._lock = threading.RLock()
        self._synced = True
        self._cache: dict[str, Incident] = {}
        self._epoch: int | None = None
        self._engine, self._where = _engine(url)
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
        return cls(f"sqlite:///{path}", key, epoch=epoch)

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
            return connection.execute(self._insert(_SIGNALS).on_conflict_do_nothing(), rows).rowcount

    def pending(self, limit: int = 500) -> list[tuple[int, AlertSignal]]:
        """Return signals not yet decided on with their offsets."""
        ask = (
            sa.select(_SIGNALS.c.offset, _SIGNALS.c.body)
            .where(_SIGNALS.c.offset > _decided())
            .order_by(_SIGNALS.c.offset)
            .limit(limit)
        )
        with self._reading("read signals") as connection:
            rows = connection.execute(ask).all()
        return [(row.offset, msgspec.msgpack.decode(row.body, type=AlertSignal)) for row in rows]

    def backlog(self) -> int:
        """Return how many signals are not yet decided on."""
        ask = sa.select(sa.func.count()).select_from(_SIGNALS).where(_SIGNALS.c.offset > _decided())
        with self._reading("count signals") as connection:
            return int(connection.execute(ask).scalar_one())

    def ended(self, fingerprints: Collection[str]) -> dict[str, Instant]:
        """Return the latest end that decided signals told of each alert."""
        wanted = sorted(set(fingerprints))
        ends: dict[str, Instant] = {}
        with self._reading("read ends of alerts") as connection:
            for start in range(0, len(wanted), IN_MAX):
                ask = (
                    sa.select(_SIGNALS.c.fingerprint, sa.func.max(_SIGNALS.c.ends_at).label("end"))
                    .where(
                        _SIGNALS.c.fingerprint.in_(wanted[start : start + IN_MAX]),
                        _SIGNALS.c.ends_at.is_not(None),
                        _SIGNALS.c.offset <= _decided(),
                    )
                    .group_by(_SIGNALS.c.fingerprint)
                )
                ends |= {row.fingerprint: Instant(row.end) for row in connection.execute(ask)}
        return ends

    # --- incidents --------------------------------------------------------------------------------------------------

    def decide(self, upto_offset: int, drafts: Mapping[str, Sequence[Draft]], runs: Sequence[RunRecord] = ()) -> None:
        """Append entries, start runs and mark signals decided, all or nothing."""
        forward = (
            sa.update(_PROGRESS)
            .where(_PROGRESS.c.name == "decided", _PROGRESS.c.value < upto_offset)
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
        count = self._insert(_PROGRESS).values(name=name, value=1)
        count = count.on_conflict_do_update(index_elements=["name"], set_={"value": _PROGRESS.c.value + 1})
        with self._writing("number an incident", synced=False) as connection:
            connection.execute(count)
            number = connection.execute(sa.select(_PROGRESS.c.value).where(_PROGRESS.c.name == name)).scalar_one()
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
        ask = sa.select(_INCIDENTS.c.id).order_by(_INCIDENTS.c.opened_at.desc(), _INCIDENTS.c.id.desc())
        if states is not None:
            ask = ask.where(_INCIDENTS.c.state.in_([str(state) for state in states]))
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
                incident = connection.execute(sa.select(_RUNS.c.incident).where(_RUNS.c.id == run_id)).scalar_one()
                folded[incident] = self._append(connection, incident, drafts)
        self._keep(folded)

    def _journal(self, connection: sa.Connection, run_id: str, n: int, kind: JournalKind, payload: bytes) -> None:
        row = {"run": run_id, "n": n, "kind": kind, "payload": payload}
        done = connection.execute(self._insert(_JOURNAL).values(row).on_conflict_do_nothing())
        if done.rowcount:
            return
        place = sa.and_(_JOURNAL.c.run == run_id, _JOURNAL.c.n == n, _JOURNAL.c.kind == kind)
        if connection.execute(sa.select(_JOURNAL.c.payload).where(place)).scalar_one() != payload:
            raise PermanentError(f"run {run_id} has another {kind} {n} on record")

    def run_journal(self, run_id: str) -> list[tuple[int, JournalKind, bytes]]:
        """Return a run's journal."""
        ask = sa.select(_JOURNAL).where(_JOURNAL.c.run == run_id).order_by(_JOURNAL.c.n, _JOURNAL.c.kind.desc())
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
            connection.execute(sa.update(_RUNS).where(_RUNS.c.id == run.id).values(_run_row(run)))
        self._keep(folded)

    def run(self, run_id: str) -> RunRecord | None:
        """Return one run."""
        return next(iter(self._runs(_RUNS.c.id == run_id)), None)

    def open_runs(self) -> list[RunRecord]:
        """Return the runs under way."""
        return self._runs(_RUNS.c.ended_at.is_(None))

    def runs_since(self, instant: Instant) -> list[RunRecord]:
        """Return the runs that started at or after `instant`."""
        return self._runs(_RUNS.c.started_at >= instant)

    def close(self) -> None:
        """Let go of the database."""
        with self._lock, suppress(SQLAlchemyError):
            self._connection.close()
            self._engine.dispose()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _lay(self) -> None:
        """Make the tables of a new store; refuse one that is not ours."""
        with self._writing("lay the tables") as connection:
            there = set(sa.inspect(connection).get_table_names())
            if _VERSION.name not in there:
                if there:
                    raise InputError(
                        self._where,
                        f"holds other tables ({', '.join(sorted(there)[:3])})",
                        right="name an empty database",
                    )
                _META.create_all(connection)
                connection.execute(sa.insert(_VERSION).values(version=STORE_VERSION))
                connection.execute(sa.insert(_PROGRESS).values(name="decided", value=0))
                return
            version = connection.execute(sa.select(_VERSION.c.version)).scalar()
            if version != STORE_VERSION:
                raise InputError(
                    self._where,
                    f"is an incident store of version {version}",
                    right=f"this program reads version {STORE_VERSION}",
                )

    def _append(self, connection: sa.Connection, incident_id: str, drafts: Sequence[Draft]) -> Incident:
        """Seal and write drafts; what they may not say stops the transaction."""
        stored = self._head(connection, incident_id)
        incident = self.incident(incident_id) if stored else None
        for draft in drafts:
            incident = apply(incident, draft)
        assert incident is not None, "drafts were given"
        assert incident.id == incident_id, f"{incident_id} is opened as {incident.id}"
        entries, head = seal_all(drafts, stored or empty_head(incident_id, self._key), self._key)
        connection.execute(sa.insert(_ENTRIES), [_entry_row(incident_id, entry) for entry in entries])
        row = {
            "id": incident_id,
            "state": str(incident.state),
            "opened_at": incident.opened_at,
            "count": head.count,
            "digest": head.digest,
            "seal": head.seal,
        }
        keep = self._insert(_INCIDENTS).values(row)
        connection.execute(keep.on_conflict_do_update(index_elements=["id"], set_=row))
        return incident

    def _head(self, connection: sa.Connection, incident_id: str) -> Head | None:
        row = connection.execute(sa.select(_INCIDENTS).where(_INCIDENTS.c.id == incident_id)).one_or_none()
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
            done = connection.execute(self._insert(_RUNS).values(_run_row(run)).on_conflict_do_nothing())
            if not done.rowcount:
                raise PermanentError(f"run {run.id} is on record already")

    def _known_run(self, connection: sa.Connection, run_id: str) -> None:
        if connection.execute(sa.select(_RUNS.c.id).where(_RUNS.c.id == run_id)).first() is None:
            raise PermanentError(f"there is no run {run_id}")

    def _runs(self, which: sa.ColumnElement[bool]) -> list[RunRecord]:
        ask = sa.select(_RUNS).where(which).order_by(_RUNS.c.started_at, _RUNS.c.id)
        with self._reading("read runs") as connection:
            return [_run(row) for row in connection.execute(ask)]

    def _insert(self, table: sa.Table) -> Any:
        """Return an INSERT of the dialect at hand, which knows what to do on conflict."""
        return (sqlite if self._engine.dialect.name == "sqlite" else postgresql).insert(table)

    @contextmanager
    def _writing(self, what: str, *, synced: bool = True) -> Iterator[sa.Connection]:
        with self._lock, self._translated(what):
            self._wait_for_disk(synced)
            with self._connection.begin():
                self._check_epoch(self._connection)
                yield self._connection

    def _take_over(self, epoch: int) -> None:
        """Shut leaders of earlier epochs out."""
        count = self._insert(_PROGRESS).values(name=_EPOCH, value=epoch)
        later = sa.and_(_PROGRESS.c.name == _EPOCH, _PROGRESS.c.value <= epoch)
        with self._writing("take the store over") as connection:
            done = connection.execute(
                count.on_conflict_do_update(index_elements=["name"], set_={"value": epoch}, where=later)
            )
            if not done.rowcount:
                raise PermanentError(f"the incident store {self._where} belongs to a leader after epoch {epoch}")
        self._epoch = epoch

    def _check_epoch(self, connection: sa.Connection) -> None:
        """Stop a transaction of a leader that is none any more.

        The check is part of the transaction: a takeover after it makes the write fail, as a conflict of the database.
        """
        if self._epoch is None:
            return
        ask = sa.select(_PROGRESS.c.value).where(_PROGRESS.c.name == _EPOCH)
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
        try:
            yield
        except SQLAlchemyError as error:
            raise_meaning(error, f"the incident store {self._where} cannot {what}")


def _engine(url: str) -> tuple[sa.Engine, str]:
    """Make an engine; return it with its address fit for a message (no password)."""
    try:
        parsed = sa.make_url(url)
        engine = sa.create_engine(parsed, poolclass=sa.StaticPool if parsed.get_backend_name() == "sqlite" else None)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise InputError(
            "incident store",
            f"its address is no database URL: {error}",
            right="such as sqlite:////path/incidents.sqlite",
        ) from error
    if engine.dialect.name not in {"sqlite", "postgresql"}:
        raise InputError("incident store", f"{engine.dialect.name} is not supported", right="use SQLite or PostgreSQL")
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _set_up)
        sa.event.listen(engine, "begin", _begin)
    where = parsed.database or "in memory" if engine.dialect.name == "sqlite" else parsed.render_as_string()
    return engine, str(where)


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    """Let us begin transactions ourselves; keep every commit on disk."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _decided() -> sa.ScalarSelect[Any]:
    return sa.select(_PROGRESS.c.value).where(_PROGRESS.c.name == "decided").scalar_subquery()


def _last_offset() -> sa.ScalarSelect[Any]:
    return sa.select(sa.func.coalesce(sa.func.max(_SIGNALS.c.offset), 0)).scalar_subquery()


def _timeline(incident_id: str) -> sa.Select[Any]:
    return sa.select(_ENTRIES).where(_ENTRIES.c.incident == incident_id).order_by(_ENTRIES.c.n)


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
