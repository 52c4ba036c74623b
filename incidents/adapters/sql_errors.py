"""What a database's errors mean: whether trying again may help, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Duration

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


def raise_meaning(error: SQLAlchemyError, what: str) -> NoReturn:
    """Turn a library's error into ours: does trying again help?"""
    cause = error.orig if isinstance(error, DBAPIError) else None
    name = str(getattr(cause, "sqlite_errorname", ""))
    for code, (temporary, meaning) in _MEANING.items():
        if name.startswith(code):
            if temporary:
                raise TemporaryError(f"{what}: {meaning}", retry_after=Duration(5 * SECOND)) from error
            raise PermanentError(f"{what}: {meaning}") from error
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        raise TemporaryError(f"{what}: the database does not answer", retry_after=Duration(5 * SECOND)) from error
    raise PermanentError(f"{what}: {cause or error}") from error
