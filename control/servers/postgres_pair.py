"""Two PostgreSQL servers of which one takes writes: who that is, whether the other holds everything, and the turn.

Rule 1: who is primary stands in one file, the pair's record, written durably under a lock. A server asks it before it
        starts as the primary, holding the lock until it runs, and again and again while it runs: deposed, it ends.
Rule 2: a turn names the other one first, then ends every process of the old one by its data directory, and only then is
        the other promoted. So at no moment two take writes, whoever starts the old one again.
Rule 3: `synchronous` is true only while every commit that was acknowledged is on the stand-by. Commits wait for it
        before the record says so, and the record no longer says so before they stop to wait. No turn is begun without.
Rule 4: a copy belongs to the primary and the term it was made of. What is of another is thrown away and copied anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg

from control.addresses import HOST, write_atomically
from control.databases import read_password
from control.servers.hosted import ServerConfig
from control.servers.postgres import USER, end_all, fence_data
from kernel.errors import PermanentError, TemporaryError
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

DATABASES: Final = ("ledger", "store", "saga")
"""What an estate keeps there."""
PORT: Final = "server"
"""The name of a server's own port (`control.servers.catalogue`)."""
LOGIN: Final = "exchange"
"""Who the roles log in as: it owns their databases and nothing else, and leaves connections to who watches."""
LOCK_WITHIN_S: Final = 15.0
PROMOTED_WITHIN_S: Final = 15.0
_STEP_S: Final = 0.05


class PostgresPlace(msgspec.Struct, frozen=True, kw_only=True):
    """One server of the pair, and what it must know of the other."""

    name: str
    port: int
    directory: str
    """Its data, log and socket."""
    other_name: str
    other_port: int
    other_directory: str
    first: str
    """Who is the primary of a new pair."""
    pair: str
    """The file of the pair's record; one for both."""
    password_file: str
    """Of the servers' superuser."""
    app_password_file: str
    """Of the login of the exchange's roles."""
    programs: str = ""
    """The directory of PostgreSQL's programs; empty: the one that is found."""
    databases: tuple[str, ...] = DATABASES


def place_of(config: ServerConfig) -> PostgresPlace:
    """Return a server's place in the pair of an estate, as its host was told."""
    first = min(config.ports)
    other = next(name for name in config.ports if name != config.replica)
    return PostgresPlace(
        name=config.replica, port=config.own[PORT], directory=config.directory, other_name=other,
        other_port=config.ports[other][PORT], other_directory=str(Path(config.directory).with_name(other)),
        first=first, pair=str(config.layout.postgres_pair), password_file=str(config.layout.secret("postgres")),
        app_password_file=str(config.layout.secret("postgres-roles")), programs=config.program,
    )  # fmt: skip


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Who is primary, and what is known of the other one."""

    term: int
    """Grows with every turn."""
    primary: str
    laid: bool = False
    """Whether there are data at all. Once there are, a primary without any is not laid anew: that would lose them."""
    synchronous: bool = False
    """Whether every acknowledged commit is on the stand-by."""
    fenced: bool = True
    """Whether the primary of the term before is proven gone; nobody is promoted before."""
    key: str = ""
    """Of the write that asked for this term."""


class Pair:
    """The record of a pair. Whoever changes it holds the lock, across processes."""

    def __init__(self, path: Path, first: str) -> None:
        """Remember where it is; `first` is the primary as long as there is none.

        Args:
            path: of the record; its directory is made.
            first: who is the primary of a new pair.
        """
        self._path = path
        self._first = first

    def read(self) -> Record:
        """Return the record as it is.

        Raises:
            PermanentError: it cannot be read, or is none.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Record)
        except FileNotFoundError:
            return Record(term=1, primary=self._first)
        except (OSError, msgspec.DecodeError) as error:
            raise PermanentError(f"{self._path} cannot be read, so nobody is the primary: {error}") from error

    @contextlib.contextmanager
    def held(self, within_s: float = LOCK_WITHIN_S) -> Iterator[Record]:
        """Hold the lock, and give the record as it is then.

        Raises:
            TemporaryError: another holds it for too long.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + within_s
        try:
            while not _locked(descriptor):
                if time.monotonic() > until:
                    raise TemporaryError(f"{self._path}: another holds the pair's lock for {within_s:g} s")
                time.sleep(_STEP_S / 5)
            yield self.read()
        finally:
            os.close(descriptor)

    def write(self, record: Record) -> None:
        """Replace the record, durably; the lock must be held."""
        write_atomically(self._path, msgspec.json.encode(record))


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def pair_url(database: str, ports: Sequence[int]) -> str:
    """Return the address by which a role reaches whichever of the servers takes writes; without a password."""
    hosts = "&".join(f"host={HOST}:{port}" for port in ports)
    return f"postgresql+psycopg://{LOGIN}@/{database}?{hosts}&target_session_attrs=read-write&connect_timeout=2"


def connect(port: int, password: str, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
    """Open a connection of the superuser that waits for nothing long and commits each statement by itself.

    Raises:
        psycopg.Error: there is no server, or it takes none.
    """
    return psycopg.connect(
        host=HOST, port=port, user=USER, password=password, dbname=database, connect_timeout=2, autocommit=True,
        application_name="tapewatch-pair", options="-c statement_timeout=2s -c lock_timeout=1s",
    )  # fmt: skip


class PostgresTurnover:
    """The turn from one server of the pair to the other (`control.supervisor.Turnover`)."""

    def __init__(self, told: Callable[[], ServerConfig]) -> None:
        """Remember who tells what the host of either of the two was told; it is asked when it is needed."""
        self._told = told

    @functools.cached_property
    def _place(self) -> PostgresPlace:
        return place_of(self._told())

    @property
    def _pair(self) -> Pair:
        return Pair(Path(self._place.pair), self._place.first)

    @property
    def _ports(self) -> Mapping[str, int]:
        return {self._place.name: self._place.port, self._place.other_name: self._place.other_port}

    @property
    def _directories(self) -> Mapping[str, str]:
        return {self._place.name: self._place.directory, self._place.other_name: self._place.other_directory}

    def check(self, old: str, key: str = "") -> Mapping[str, str]:
        """Return the facts before a turn away from `old`; nothing is touched.

        Raises:
            RefusedError: `old` is not the primary, or the other is no stand-by that is known to hold everything. A turn
                that was begun under the same `key` is never refused.
        """
        record = self._pair.read()
        other = self._checked(old, record, key)
        return {
            "primary": record.primary, "term": str(record.term), "stand_by": other,
            "synchronous": str(record.synchronous).lower(),
        }  # fmt: skip

    def depose(self, old: str, key: str) -> Mapping[str, str]:
        """Name the other one as the primary: from now on `old` ends by itself, and never starts as one.

        Raises:
            RefusedError: as `check` says; nothing was touched.
        """
        with self._pair.held() as record:
            other = self._checked(old, record, key)
            term = record.term
            if record.primary == old:
                term += 1
                self._pair.write(Record(term=term, primary=other, laid=True, fenced=False, key=key))
        return {"primary": other, "term": str(term)}

    def complete(self, old: str, within_s: float = PROMOTED_WITHIN_S) -> Mapping[str, str]:
        """End what is left of `old`, and return once the other takes writes.

        Raises:
            PermanentError: `old` cannot be ended, or the other was not promoted in time; asked again, it goes on.
        """
        new = self._other(old)
        with self._pair.held() as record:
            if record.primary != new:
                raise PermanentError(f"{record.primary} is the primary of term {record.term}, not {new}")
            if not record.fenced:
                fence(self._pair, record, Path(self._directories[old]) / "data")
        until = time.monotonic() + within_s
        while self._recovering(new) is not False:
            if time.monotonic() > until:
                raise PermanentError(f"{new} was not promoted within {within_s:g} s")
            time.sleep(_STEP_S)
        return {"primary": new, "term": str(record.term)}

    def _checked(self, old: str, record: Record, key: str) -> str:
        """Return who takes over, or say why nobody does."""
        if old not in self._ports:
            known = " and ".join(sorted(self._ports))
            raise RefusedError(RefusalReason.NO_TARGET, f"{old!r} is no server of the pair; those are {known}")
        other = self._other(old)
        recovering = self._recovering(other)
        if record.primary == other and (recovering or not record.fenced or (key and record.key == key)):
            return other  # a turn that was cut short: it is brought to its end
        if record.primary != old:
            words = f"{old} is not the primary: since term {record.term} that is {record.primary}"
            raise RefusedError(RefusalReason.CONFLICT, words)
        if recovering is None:
            raise RefusedError(RefusalReason.STATE_UNSAFE, f"{other} does not answer: there is nobody to take over")
        if not recovering:
            raise RefusedError(
                RefusalReason.STATE_UNSAFE, f"{other} takes writes although {old} is named: a person looks"
            )
        if not record.synchronous:
            words = f"{other} is not known to hold everything that was acknowledged: to promote it could lose money"
            raise RefusedError(RefusalReason.STATE_UNSAFE, words)
        return other

    def _other(self, old: str) -> str:
        return next(name for name in self._ports if name != old)

    def _recovering(self, name: str) -> bool | None:
        """Tell whether a server is a stand-by; None when it does not say."""
        try:
            with connect(self._ports[name], read_password(Path(self._place.password_file))) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        except psycopg.Error:
            return None
        return bool(row[0]) if row is not None else None


def fence(pair: Pair, record: Record, data: Path) -> Record:
    """Prove that the primary of the term before is gone, and say so in the record; the lock must be held.

    Raises:
        PermanentError: one of its processes cannot be ended.
    """
    end_all(data)
    fence_data(data)
    fenced = msgspec.structs.replace(record, fenced=True)
    pair.write(fenced)
    return fenced
