"""The databases of an estate that are named by URL: where they are, what they hold, and whose password it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from control.config import DatabaseAccess, RoleConfig, load_config
from control.layout import Layout
from kernel.errors import InputError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from control.settings import Settings
    from kernel.adapters.revisions import Revisions

KINDS: Final = ("ledger", "saga", "store")
"""What can be kept in a database: the ledger of settlement, the books of settlement by sagas with the coordinator's
journal, and control's signals, incidents and runs."""


def access(settings: Settings, kind: str, layout: Layout) -> DatabaseAccess | None:
    """Return how a role reaches its database, None for the embedded one; a password in the URL goes into a file.

    Raises:
        InputError: the URL is none, or the file of its password cannot be read.
    """
    url, file = given(settings, kind)
    if not url:
        return None
    from kernel.adapters.database import parse

    parsed = parse(url, f"setting {kind}_url (TAPEWATCH_{kind.upper()}_URL)")
    if parsed.get_backend_name() == "sqlite":
        return DatabaseAccess(url=parsed.render_as_string())
    word = str(parsed.password or parsed.query.get("password") or "")
    parsed = parsed._replace(password=None).difference_update_query(["password"])
    if file is not None:
        read_password(file)
        return DatabaseAccess(url=parsed.render_as_string(), password_file=str(file.absolute()))
    if not word:
        return DatabaseAccess(url=parsed.render_as_string())
    kept = layout.secret(f"{kind}-database")
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept.touch(mode=0o600)
    kept.write_text(word + "\n")
    return DatabaseAccess(url=parsed.render_as_string(), password_file=str(kept))


def given(settings: Settings, kind: str) -> tuple[str, Path | None]:
    """Return the URL and the file of the password that the settings name for a kind."""
    if kind == "ledger":
        return settings.ledger_url, settings.ledger_password_file
    if kind == "saga":
        return settings.saga_url, settings.saga_password_file
    return settings.store_url, settings.store_password_file


def password_of(reached: DatabaseAccess | None) -> str:
    """Return the password of a database; empty when none is named.

    Raises:
        InputError: its file cannot be read.
    """
    return read_password(Path(reached.password_file)) if reached is not None and reached.password_file else ""


def read_password(path: Path) -> str:
    """Return the first line of a file.

    Raises:
        InputError: it cannot be read, or is empty.
    """
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"password file {path}", f"cannot be read: {why}", right="give its path") from error
    if not lines or not lines[0]:
        raise InputError(f"password file {path}", "is empty", right="its first line is the password")
    return lines[0]


def configured(layout: Layout, replica: str) -> RoleConfig | None:
    """Return what a replica was told at its start; None when it never started."""
    path = layout.config(replica)
    return load_config(path) if path.exists() else None


def revisions(kind: str) -> Revisions:
    """Return the revisions of a kind of database.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"database {kind}", "is not known", right=f"known are {', '.join(KINDS)}")
    if kind == "ledger":
        from exchange.adapters.ledger_tables import LEDGER

        return LEDGER
    if kind == "saga":
        from exchange.adapters.saga_tables import SAGA

        return SAGA
    from incidents.adapters.store_tables import STORE

    return STORE


@contextmanager
def opened(url: str, kind: str, password: str = "") -> Iterator[tuple[sa.Connection, str]]:
    """Open a database for one transaction; give the connection and the address fit for a message.

    Raises:
        InputError: the URL or the login is wrong.
        TemporaryError: it does not answer.
    """
    from kernel.adapters.database import make_engine, parse, shown
    from kernel.adapters.sql_errors import translated

    parsed = parse(url, kind, password=password)
    if parsed.get_backend_name() == "sqlite" and parsed.database and not Path(parsed.database).parent.is_dir():
        raise InputError(parsed.database, "its directory does not exist", right="make it first, or right the path")
    engine = make_engine(parsed, kind)
    try:
        with translated(shown(parsed), "be opened"), engine.begin() as connection:
            yield connection, shown(parsed)
    finally:
        engine.dispose()


def lay(url: str, kind: str) -> None:
    """Make a database on a PostgreSQL server when it is missing, and bring it to this program's revision.

    Raises:
        InputError: the URL or the login is wrong, or the database holds something else.
        TemporaryError: the server does not answer.
    """
    import sqlalchemy as sa

    from kernel.adapters.database import make_engine, parse, shown
    from kernel.adapters.sql_errors import translated

    parsed = parse(url, kind)
    engine = make_engine(parsed.set(database="postgres"), kind, isolation="AUTOCOMMIT")
    try:
        with translated(shown(parsed), "be made"), engine.connect() as connection:
            known = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
            if connection.execute(known, {"name": parsed.database}).first() is None:
                name = connection.dialect.identifier_preparer.quote(str(parsed.database))
                connection.execute(sa.text(f"CREATE DATABASE {name}"))
    finally:
        engine.dispose()
    with opened(url, kind) as (connection, _):
        revisions(kind).upgrade(connection, "head")


def status(url: str, kind: str, password: str = "") -> Mapping[str, Any]:
    """Return which revision a database is of: `database`, `address`, `revision` (None: empty), `head`, `current`.

    Raises:
        InputError: it holds something else.
    """
    from kernel.adapters.database import parse, shown

    told, parsed, found = revisions(kind), parse(url, kind, password=password), None
    where = shown(parsed)
    # SQLite would make the file by being opened, and a look changes nothing.
    absent = parsed.get_backend_name() == "sqlite" and parsed.database and not Path(parsed.database).exists()
    if not absent or not Path(parsed.database or "").parent.is_dir():
        with opened(url, kind, password) as (connection, where):
            found = told.current(connection)
    return {
        "database": kind, "address": where, "revision": found, "head": told.head, "current": found == told.head,
        "known": told.known(),
    }  # fmt: skip
