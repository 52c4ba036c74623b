"""One PostgreSQL server of a pair, hosted: it begins as what the pair's record says, and turns when that says so.

A thread of its own keeps the server for its whole life: it starts it (the kernel ends a child with the thread that
forked it), looks at the record ten times a second, promotes, gives way, and has commits wait for the stand-by or not.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psycopg
from psycopg import sql

from control.addresses import HOST
from control.databases import read_password
from control.servers import postgres_watch
from control.servers.postgres import READY_WITHIN_S, USER, Server, found
from control.servers.postgres_databases import prepare
from control.servers.postgres_pair import Pair, Record, connect, fence, place_of
from kernel.errors import PermanentError, TapewatchError, TemporaryError

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from control.servers.hosted import ServerConfig
    from monitor.adapters.exporter import Exporter

LOOK_S: Final = 0.1
TEND_S: Final = 0.5
PATIENCE_S: Final = 3.0
"""For how long commits wait for a stand-by that does not follow; then they go on without, and no turn is begun."""
FOLLOW_WITHIN_S: Final = 10.0
"""A stand-by that does not follow a primary that answers for so long after its start is copied anew."""
_SETTINGS: Final[dict[str, str | int]] = {
    # Who watches must get in when the exchange's roles have taken every connection.
    "max_connections": 60, "superuser_reserved_connections": 8,
    # A stopped one counts as gone: commits must not wait a minute for it.
    "wal_sender_timeout": "10s", "wal_receiver_timeout": "10s", "wal_retrieve_retry_interval": "500ms",
}  # fmt: skip


class _Copy(msgspec.Struct, frozen=True):
    """Whose copy a stand-by's data are."""

    primary: str
    term: int


class HostedPostgres:
    """A server of the pair (`control.servers.hosted.Hosted`)."""

    def __init__(self, config: ServerConfig) -> None:
        """Take its place in the pair; nothing is started.

        Raises:
            InputError: the password's file cannot be read.
            PermanentError: there is no PostgreSQL.
        """
        self._place = place = place_of(config)
        self._pair = Pair(Path(place.pair), place.first)
        self._password = read_password(Path(place.password_file))
        self._server = Server(
            found(place.programs), Path(place.directory), port=place.port, password=self._password,
            settings=_SETTINGS,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._keep, name=f"keeper of {place.name}", daemon=True)
        self._began, self._stopping, self._over = threading.Event(), threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._ended = ""
        self._primary = False
        self._link: psycopg.Connection[tuple[Any, ...]] | None = None
        self._tended_s = 0.0
        self._missed_s: float | None = None
        self._caught_up_at: str | None = None
        self._watch = postgres_watch.Watch(place, self._pair, self._password)

    # --- Hosted -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin as the primary or as a stand-by that follows; returns when it takes connections.

        A new stand-by, and one whose data are of another term, waits for the primary and is copied from it. A primary's
        databases are there at their newest revision when this returns.

        Raises:
            TapewatchError: it cannot; says why, with the server's last words.
        """
        self._thread.start()
        self._began.wait()
        if self._error is not None:
            raise self._error
        if self._primary:
            try:
                prepare(self._place, self._password)
            except BaseException:
                self.stop()
                raise

    def ready(self) -> tuple[bool, str]:
        """Tell whether it takes connections, as what the record says it is."""
        if self._ended or self._over.is_set():
            return False, self._ended or "it was stopped"
        try:
            with connect(self._place.port, self._password) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            record = self._pair.read()
        except (psycopg.Error, TapewatchError) as error:
            return False, str(error).strip()
        named, recovering = record.primary == self._place.name, bool(row and row[0])
        if named is recovering:
            return False, f"it {'is to be promoted' if named else 'was deposed and is about to end'}"
        return True, f"{'primary' if named else 'stand-by'} of term {record.term}"

    def ended(self) -> str:
        """Return why the server ended by itself; empty while it runs."""
        return self._ended

    def observe(self, exporter: Exporter) -> None:
        """Set the metrics of role `postgres`."""
        self._watch.observe(exporter)

    def stop(self) -> None:
        """End the server in order."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._watch.close()

    def routes(self, admin_secret: str) -> Sequence[BaseRoute]:  # noqa: ARG002 - it has none
        """Return nothing: the record is all that is said to it."""
        return ()

    # --- the keeper -------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        try:
            self._begin()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the start is told
            self._error = error
            self._server.kill()
            self._over.set()
            self._began.set()
            return
        self._began.set()
        try:
            while not self._stopping.wait(LOOK_S):
                try:
                    self._look()
                except (psycopg.Error, TapewatchError):
                    self._unlink()
                if not self._ended and self._server.pid is None:
                    self._ended = f"PostgreSQL ended: {self._server.last_words()}"
                if self._ended:
                    break
        finally:
            self._over.set()
            self._unlink()
            self._server.stop()

    def _look(self) -> None:
        record = self._pair.read()
        named = record.primary == self._place.name
        if self._primary and not named:
            self._server.kill()
            self._ended = f"it was deposed: {record.primary} is the primary of term {record.term}"
        elif named and not self._primary and record.fenced:
            with self._pair.held() as now:
                if now == record:
                    self._promote(record)
        elif time.monotonic() - self._tended_s >= TEND_S:
            self._tended_s = time.monotonic()
            if self._primary:
                self._tend(record)
            elif not named:
                self._tend_stand_by(record)

    # --- beginning --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._pair.read().primary == self._place.name:
            with self._pair.held() as record:  # nobody is deposed between the look and the start
                if record.primary == self._place.name:
                    self._begin_as_primary(record)
                    return
        self._begin_as_stand_by()

    def _begin_as_primary(self, record: Record) -> None:
        place, data = self._place, self._server.data
        there = (data / "PG_VERSION").exists()
        if not there and (record.laid or (Path(place.other_directory) / "data" / "PG_VERSION").exists()):
            words = f"{place.name} is the primary of term {record.term} and has no data in {data}"
            raise PermanentError(f"{words}: restore them, an empty one would be copied over the other's")
        if not record.fenced:
            record = fence(self._pair, record, Path(place.other_directory) / "data")
        if there:
            self._server.configure()
        follows = there and (data / "standby.signal").exists()
        if follows:
            self._check_copy(record)
        self._server.start(READY_WITHIN_S)
        if follows:
            self._promote(record)
        if not record.laid:
            self._pair.write(msgspec.structs.replace(record, laid=True))
        self._primary = True

    def _begin_as_stand_by(self) -> None:
        until = time.monotonic() + READY_WITHIN_S
        copied = not self._is_copy(self._pair.read())
        if copied:
            self._copy(until)
        self._start_stand_by()
        primary_answers = self._primary_answers()
        if not primary_answers or self._follows(FOLLOW_WITHIN_S):
            return
        if not copied:  # what it lacks may be gone from the primary
            self._server.stop()
            self._copy(until)
            self._start_stand_by()
        if not self._follows(FOLLOW_WITHIN_S):
            raise TemporaryError(f"{self._place.name} does not follow the primary: {self._server.last_words()}")

    def _start_stand_by(self) -> None:
        self._server.configure()
        self._server.start(READY_WITHIN_S)
        source = (
            f"host={HOST} port={self._place.other_port} user={USER} password={self._password} "
            f"application_name={self._place.name}"
        )
        # The primary's own words came with the copy; once promoted, it must not wait for itself.
        self._set("synchronous_standby_names", "")
        self._set("primary_conninfo", source)
        self._server.ask("SELECT pg_reload_conf()")

    def _set(self, name: str, value: str) -> None:
        with self._server.connect() as connection:
            text = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            connection.execute(text)

    def _copy(self, until: float) -> None:
        """Throw away what is there and copy the primary, waiting for it.

        Raises:
            TemporaryError: there is no primary in time.
            PermanentError: the copy failed.
        """
        while not self._primary_answers():
            if time.monotonic() > until or self._stopping.is_set():
                raise TemporaryError(f"{self._place.other_name} is to be copied and takes no writes: start it first")
            time.sleep(LOOK_S)
        with self._pair.held() as record:
            if record.primary == self._place.name:
                raise TemporaryError(f"{self._place.name} was named the primary meanwhile: start it again")
            # From here on the stand-by holds nothing, and nobody may believe otherwise.
            self._pair.write(msgspec.structs.replace(record, synchronous=False))
            self._mark.unlink(missing_ok=True)
        self._server.copy(self._place.other_port, self._place.name)
        self._mark.write_bytes(msgspec.json.encode(_Copy(record.primary, record.term)))

    def _primary_answers(self) -> bool:
        try:
            with connect(self._place.other_port, self._password) as connection:
                return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        except psycopg.Error:
            return False

    def _follows(self, within_s: float) -> bool:
        until = time.monotonic() + within_s
        while time.monotonic() < until and not self._stopping.is_set():
            if self._server.ask("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'"):
                return True
            time.sleep(LOOK_S / 2)
        return False

    @property
    def _mark(self) -> Path:
        return self._server.directory / "copy-of.json"

    def _copy_of(self) -> _Copy | None:
        try:
            return msgspec.json.decode(self._mark.read_bytes(), type=_Copy)
        except (OSError, msgspec.DecodeError):
            return None

    def _is_copy(self, record: Record) -> bool:
        data = self._server.data
        whole = (data / "PG_VERSION").exists() and (data / "standby.signal").exists()
        return whole and self._copy_of() == _Copy(record.primary, record.term)

    # --- turning ----------------------------------------------------------------------------------------------------

    def _check_copy(self, record: Record) -> None:
        """Refuse to promote what is no copy of the primary of the term before."""
        if self._copy_of() != _Copy(self._place.other_name, record.term - 1):
            words = f"{self._place.name} is named for term {record.term} and its data are no copy of the one before"
            raise PermanentError(f"{words}: nothing is promoted, a person looks")

    def _promote(self, record: Record) -> None:
        self._check_copy(record)
        self._server.promote()
        self._mark.unlink()
        self._primary = True

    # --- whether commits wait for the stand-by ----------------------------------------------------------------------

    def _tend(self, record: Record) -> None:
        link = self._linked()
        row = link.execute(
            "SELECT current_setting('synchronous_standby_names') <> '', "
            "(SELECT sync_state FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming' LIMIT 1)",
            (self._place.other_name,),
        ).fetchone()
        waits, state = row if row is not None else (False, None)
        if state is None:
            self._miss(record, waits=bool(waits))
            return
        self._missed_s = None
        if not waits:
            self._caught_up_at = None
            self._wait_for(link, f'FIRST 1 ("{self._place.other_name}")')
        elif state == "sync" and not record.synchronous:
            self._catch_up(link, record)

    def _tend_stand_by(self, record: Record) -> None:
        """End a stand-by that somebody promoted by hand: another one is named, and two must not take writes."""
        if self._linked().execute("SELECT pg_is_in_recovery()").fetchone() == (False,):
            self._server.kill()
            self._mark.unlink(missing_ok=True)
            self._ended = f"it was promoted although {record.primary} is the primary of term {record.term}"

    def _miss(self, record: Record, *, waits: bool) -> None:
        """Wait no longer for a stand-by that does not follow, after having said that it lacks what comes now."""
        moment_s = time.monotonic()
        self._missed_s = moment_s if self._missed_s is None else self._missed_s
        self._caught_up_at = None
        if not (waits or record.synchronous) or moment_s - self._missed_s < PATIENCE_S:
            return
        if self._say(record, synchronous=False):
            self._wait_for(self._linked(), "")

    def _catch_up(self, link: psycopg.Connection[tuple[Any, ...]], record: Record) -> None:
        """Say that the stand-by holds everything, once it has what was committed before commits waited for it.

        The process that makes commits wait learns of it last, at the beginning of a checkpoint at the latest.
        """
        if self._caught_up_at is None:
            time.sleep(LOOK_S)
            link.execute("SET statement_timeout = 0")
            link.execute("CHECKPOINT")
            link.execute("SET statement_timeout = '2s'")
            row = link.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            self._caught_up_at = str(row[0]) if row is not None else None
            return
        row = link.execute(
            "SELECT 1 FROM pg_stat_replication WHERE application_name = %s AND sync_state = 'sync' "
            "AND flush_lsn >= %s::pg_lsn",
            (self._place.other_name, self._caught_up_at),
        ).fetchone()
        if row is not None:
            self._say(record, synchronous=True)

    def _say(self, record: Record, *, synchronous: bool) -> bool:
        """Write into the record what is known of the stand-by, unless it is another's by now."""
        with self._pair.held(within_s=LOOK_S) as now:
            if now != record:
                return False
            self._pair.write(msgspec.structs.replace(now, synchronous=synchronous))
            return True

    @staticmethod
    def _wait_for(link: psycopg.Connection[tuple[Any, ...]], names: str) -> None:
        link.execute(sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(sql.Literal(names)))
        link.execute("SELECT pg_reload_conf()")

    def _linked(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._link is None or self._link.closed:
            self._link = connect(self._place.port, self._password)
        return self._link

    def _unlink(self) -> None:
        if self._link is not None:
            with contextlib.suppress(psycopg.Error):
                self._link.close()
        self._link = None
