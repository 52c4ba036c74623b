"""A database by its URL: SQLite in a file, PostgreSQL by psycopg, and what else SQLAlchemy speaks to in plain SQL.

Passwords come in by a file or in the URL, and never out again: whatever is shown of an address is `shown`.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from kernel.errors import InputError

BUSY_TIMEOUT_MS: Final = 5_000
KNOWN: Final = frozenset({"sqlite", "postgresql", "oracle"})
"""Oracle is spoken to in plain SQL; what is not proven there stands in `docs/databases.md`."""
_SECRET_WORDS: Final = ("password", "passwd", "passfile", "sslpassword", "sslkey")
_CONNECT: Final = {
    "connect_timeout": "5",      # seconds; libpq itself would wait for ever
    "tcp_user_timeout": "10000", # milliseconds until a silent server counts as gone
    "keepalives_idle": "10", "keepalives_interval": "3", "keepalives_count": "3",
    "application_name": "tapewatch",
    # A lock that nobody lets go of, and a transaction that nobody ends, must not hold the others for ever.
    "options": "-c lock_timeout=5s -c idle_in_transaction_session_timeout=60s",
}  # fmt: skip


def parse(url: str, who: str, *, password: str = "") -> sa.URL:
    """Return a database's URL; `password` comes before the one in it.

    Raises:
        InputError: it is none, or its kind is not known; `who` names whose address it is.
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError) as error:
        raise InputError(
            who, "its address is no database URL",
            right="such as sqlite:////path/file.sqlite or postgresql+psycopg://user@host:5432/database",
        ) from error  # fmt: skip
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in KNOWN:
        raise InputError(who, f"{parsed.get_backend_name()} is not supported", right="use SQLite or PostgreSQL")
    return parsed.set(password=password) if password else parsed


def shown(url: str | sa.URL) -> str:
    """Return an address fit for a message: no password, in whatever part of it one stood."""
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        return "(no URL)"
    if parsed.get_backend_name() == "sqlite":
        return parsed.database or "in memory"
    kept = {name: value for name, value in parsed.query.items() if name.lower() not in _SECRET_WORDS}
    return parsed.set(query=kept).render_as_string(hide_password=True)


def make_engine(url: sa.URL, who: str, *, isolation: str | None = None) -> sa.Engine:
    """Return an engine that keeps one connection; nothing is connected yet.

    SQLite gets a write-ahead log and `synchronous=FULL`, PostgreSQL time limits for what would else wait for ever.

    Raises:
        InputError: the driver of this kind of database is missing.
    """
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"poolclass": sa.StaticPool} if sqlite else {"pool_size": 1, "max_overflow": 0}
    if sqlite:
        # One user at a time is promised by every store; which thread it is does not matter then.
        options["connect_args"] = {"check_same_thread": False}
    elif isolation is not None:
        options["isolation_level"] = isolation
    if url.get_backend_name() == "postgresql":
        options["connect_args"] = {name: value for name, value in _CONNECT.items() if name not in url.query}
    try:
        engine = sa.create_engine(url, hide_parameters=True, **options)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise InputError(
            who, f"its address is no database URL that can be used here: {error}",
            right="such as sqlite:////path/file.sqlite or postgresql+psycopg://user@host:5432/database",
        ) from error  # fmt: skip
    if sqlite:
        sa.event.listen(engine, "connect", _set_up)
        sa.event.listen(engine, "begin", _begin)
    elif isolation not in {None, "AUTOCOMMIT"} and url.get_backend_name() == "postgresql":
        sa.event.listen(engine, "connect", partial(_isolate, isolation))
    return engine


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file."""
    return sa.URL.create("sqlite", database=str(path)).render_as_string()


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    """Let us begin transactions ourselves; keep every commit on disk."""
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_TIMEOUT_MS}", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}").close()


def _isolate(isolation: str | None, connection: Any, _record: object) -> None:
    """Isolate statements that are transactions by themselves like those that stand in one."""
    connection.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {isolation}")
    connection.commit()


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")
