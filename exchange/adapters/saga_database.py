"""The database of a part of settlement by sagas: one connection, transactions that are begun anew on conflict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from exchange.adapters.saga_tables import SAGA
from kernel.adapters.database import make_engine, parse, shown, sqlite_url
from kernel.adapters.revisions import Revisions
from kernel.adapters.sql_errors import conflict, translated
from kernel.errors import PermanentError

WHO: Final = "saga"
ATTEMPTS_MAX: Final = 6
"""How often one transaction is begun when others are in its way."""
_PAUSE_S: Final = 0.005
"""Before the second attempt; twice as long before each further one."""
_IN_MAX: Final = 500
"""Values in one IN list; Oracle takes 1000, SQLite took 999 for long."""
_ADD: Final = "INSERT INTO {table} AS kept SELECT * FROM unnest({arrays})"
_ADD_UP: Final = " ON CONFLICT (account, asset) DO UPDATE SET amount = kept.amount + excluded.amount"
_T = TypeVar("_T")
_Item = TypeVar("_Item")


class SagaDatabase:
    """One user's way to the tables. Calls block on the disk or the server and come from one thread at a time."""

    def __init__(self, place: Path | str, party: str, *, password: str = "", tables: Revisions = SAGA) -> None:
        """Open it: an SQLite file (which is begun, or brought to this revision), or a database by its URL.

        `tables` are what is kept there: the sagas' own, unless it is lent to others.

        Raises:
            InputError: the URL or the login is wrong, or the database holds something else or another revision.
            PermanentError: it cannot be used.
            TemporaryError: it does not answer.
        """
        url = parse(sqlite_url(place) if isinstance(place, Path) else place, WHO, password=password)
        self.where: Final = f"{shown(url)}: {party}"
        if url.get_backend_name() == "sqlite" and url.database:
            try:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise PermanentError(f"{url.database}: cannot be opened: {error}") from error
        self._engine: Final = make_engine(url, WHO, isolation="SERIALIZABLE")
        with translated(self.where, "be opened"):
            self._connection: Final = self._engine.connect()
        try:
            with translated(self.where, "be opened"), self._connection.begin():
                if self._engine.dialect.name == "sqlite":
                    tables.upgrade(self._connection)
                tables.require(self._connection)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()
        self._engine.dispose()

    def run(self, what: str, work: Callable[[sa.Connection], _T]) -> _T:
        """Carry out one transaction, and begin it anew when another one was in its way: all of `work` or nothing.

        Raises:
            TemporaryError: the database is locked, away, full or too busy. Either nothing changed or, when the
                connection broke at the very end, everything did.
            PermanentError: it refuses for good.
        """
        attempt = 1
        with translated(self.where, what):
            while True:
                try:
                    with self._connection.begin():
                        return work(self._connection)
                except SQLAlchemyError as error:
                    if attempt == ATTEMPTS_MAX or not conflict(error):
                        raise
                except OverflowError as error:
                    raise PermanentError(f"{self.where} cannot hold a number beyond 64 bits: {error}") from error
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
                attempt += 1


def parts_of(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield distinct items in parts that fit in one IN list."""
    distinct = list(dict.fromkeys(items))
    for start in range(0, len(distinct), _IN_MAX):
        yield distinct[start : start + _IN_MAX]


def add_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[object, ...]]) -> None:
    """Add rows, whose values stand in the order of the columns; on PostgreSQL by one statement."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        statement = _ADD.format(table=table.name, arrays=_arrays(table))
        connection.exec_driver_sql(statement, tuple(list(values) for values in zip(*rows, strict=True)))
        return
    names = [column.name for column in table.c]
    connection.execute(sa.insert(table), [dict(zip(names, row, strict=True)) for row in rows])


def add_amounts(connection: sa.Connection, table: sa.Table, changes: Sequence[tuple[str, str, int]]) -> None:
    """Add to balances (account, asset, amount); one that is not there begins at zero."""
    if not changes:
        return
    if connection.dialect.name == "postgresql":
        statement = (_ADD + _ADD_UP).format(table=table.name, arrays=_arrays(table))
        connection.exec_driver_sql(statement, tuple(list(values) for values in zip(*changes, strict=True)))
        return
    change = sa.update(table).where(table.c.account == sa.bindparam("who"), table.c.asset == sa.bindparam("what"))
    change = change.values(amount=table.c.amount + sa.bindparam("more"))
    absent = [
        {"account": account, "asset": asset, "amount": amount}
        for account, asset, amount in changes
        if not connection.execute(change, {"who": account, "what": asset, "more": amount}).rowcount
    ]
    if absent:
        connection.execute(sa.insert(table), absent)


def _arrays(table: sa.Table) -> str:
    return ", ".join("%s::bigint[]" if isinstance(one.type, sa.Integer) else "%s::text[]" for one in table.c)
