"""What a database's errors mean: whether trying again may help, what is wrong, and what would be right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NoReturn

from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import SECOND, Duration

CONFLICTS: Final = frozenset({"40001", "40P01"})
"""PostgreSQL's codes for what another transaction brought about (serialization failure, deadlock): begin anew."""
_MEANING: Final[Mapping[str, tuple[bool, str]]] = {
    "SQLITE_BUSY": (True, "another process holds it"),
    "SQLITE_LOCKED": (True, "another connection holds it"),
    "SQLITE_FULL": (True, "the disk is full"),
    "SQLITE_READONLY": (False, "it is read-only"),
    "SQLITE_CANTOPEN": (False, "it cannot be opened"),
    "SQLITE_CORRUPT": (False, "the file is damaged"),
    "SQLITE_NOTADB": (False, "the file is no database"),
    "SQLITE_IOERR": (False, "the disk fails"),
}
"""SQLite's primary result codes: whether trying again may help, and what is wrong."""
_STATES: Final[Mapping[str, tuple[bool, str]]] = {
    "40001": (True, "other transactions were in its way"),
    "40P01": (True, "other transactions were in its way (deadlock)"),
    "55P03": (True, "another transaction holds a lock"),
    "53100": (True, "the server's disk is full"),
    "53200": (True, "the server is out of memory"),
    "53300": (True, "the server has no connection left; raise max_connections, or find who keeps them"),
    "57P": (True, "the server is starting or stopping"),
    "08": (True, "the connection broke"),
    "25006": (True, "the server takes no writes (a stand-by, or fenced); name every server in the address"),
    "42501": (False, "the user may not do this; grant it"),
    "42P01": (False, "a table is missing; see `tapewatch db status`"),
    "22003": (False, "a number is beyond 64 bits"),
}
"""PostgreSQL's codes by their beginning (its manual, appendix A), the longest that fits."""
_LOGIN: Final[Mapping[str, tuple[str, str]]] = {
    "password authentication failed": ("the password is wrong", "give the user's own, best by a file"),
    "no password supplied": ("a password is asked for", "put it into a file and name that"),
    "no pg_hba.conf entry": ("the server lets this user in from nowhere near", "add a line to its pg_hba.conf"),
    "does not exist": ("there is no such database or user", "create it, or right the address"),
    "could not translate host name": ("there is no such host", "right the address"),
    "failed to resolve host": ("there is no such host", "right the address"),
}
"""What a refused login says: libpq gives no code for it."""
_FULL: Final = ("too many clients", "connection slots are reserved", "too many connections")
_AGAIN: Final = Duration(5 * SECOND)


@contextmanager
def translated(where: str, what: str) -> Iterator[None]:
    """Turn what the library raises inside into an error of ours that begins with `where cannot what`.

    Raises:
        TemporaryError: trying again may help; nothing is known to have been written.
        InputError: the address or the login is wrong.
        PermanentError: anything else.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise_meaning(error, f"{where} cannot {what}", where)


def conflict(error: SQLAlchemyError) -> bool:
    """Tell whether another transaction was in the way, so that the same one may go through when begun anew."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in CONFLICTS


def raise_meaning(error: SQLAlchemyError, what: str, where: str = "database") -> NoReturn:
    """Turn a library's error into ours: does trying again help?"""
    cause = error.orig if isinstance(error, DBAPIError) else None
    meaning = _meaning(str(getattr(cause, "sqlite_errorname", "")), str(getattr(cause, "sqlstate", None) or ""))
    if meaning is not None:
        temporary, words = meaning
        if temporary:
            raise TemporaryError(f"{what}: {words}", retry_after=_AGAIN) from error
        raise PermanentError(f"{what}: {words}") from error
    if cause is not None and type(cause).__module__.startswith("psycopg"):
        for said, (problem, right) in _LOGIN.items():
            if said in str(cause) and not getattr(cause, "sqlstate", None):
                raise InputError(where, problem, right=right) from error
        if any(said in str(cause) for said in _FULL):
            raise TemporaryError(f"{what}: {_STATES['53300'][1]}", retry_after=_AGAIN) from error
        if type(cause).__name__ in {"OperationalError", "ConnectionTimeout"}:
            words = "no server answers there; start it, or right the address"
            raise TemporaryError(f"{what}: {words}", retry_after=_AGAIN) from error
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        raise TemporaryError(f"{what}: the database does not answer", retry_after=_AGAIN) from error
    if isinstance(error, NoSuchModuleError):
        raise InputError(where, "this kind of database is not known", right="use SQLite or PostgreSQL") from error
    raise PermanentError(f"{what}: {cause or error}") from error


def _meaning(sqlite: str, state: str) -> tuple[bool, str] | None:
    for code, meaning in _MEANING.items():
        if sqlite.startswith(code):
            return meaning
    for length in (5, 3, 2):
        if len(state) >= length and state[:length] in _STATES:
            return _STATES[state[:length]]
    return None
