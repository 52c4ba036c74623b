"""Adding rows that may be there already: by the database's own words, or in plain SQL where those are not known.

In plain SQL it takes two statements, between which another writer may step: then the second one fails, and nothing is
kept of the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

_INSERTS: Final[Mapping[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def native(dialect: str) -> Any:
    """Return the INSERT of a dialect that knows what to do on conflict; None where there is none."""
    return _INSERTS.get(dialect)


def add_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, object]], by: str) -> int:
    """Add the rows whose key `by` (a column; several by comma) is not there yet; return how many that were."""
    insert = native(connection.dialect.name)
    if insert is not None:
        if connection.dialect.name == "sqlite":
            return int(connection.execute(insert(table).on_conflict_do_nothing(), list(rows)).rowcount)
        told = insert(table).on_conflict_do_nothing().returning(*_columns(table, by))
        return len(connection.execute(told, list(rows)).all())
    new = 0
    for row in rows:
        if connection.execute(sa.select(*_columns(table, by)).where(_is(table, row, by))).first() is None:
            connection.execute(sa.insert(table).values(dict(row)))
            new += 1
    return new


def put(
    connection: sa.Connection,
    table: sa.Table,
    row: Mapping[str, object],
    by: str,
    change: Mapping[str, object],
    *,
    only: sa.ColumnElement[bool] | None = None,
) -> bool:
    """Add a row, or make `change` to the one with its key, if `only` holds for that; False when it does not."""
    insert = native(connection.dialect.name)
    if insert is not None:
        told = insert(table).values(dict(row))
        told = told.on_conflict_do_update(index_elements=by.split(","), set_=dict(change), where=only)
        if connection.dialect.name == "sqlite":
            return bool(connection.execute(told).rowcount)
        # The library's PostgreSQL driver counts no rows of an INSERT with a list of values: ask for them.
        return connection.execute(told.returning(*_columns(table, by))).first() is not None
    there = _is(table, row, by)
    which = there if only is None else sa.and_(there, only)
    if connection.execute(sa.update(table).where(which).values(dict(change))).rowcount:
        return True
    if connection.execute(sa.select(*_columns(table, by)).where(there)).first() is not None:
        return False
    connection.execute(sa.insert(table).values(dict(row)))
    return True


def _columns(table: sa.Table, by: str) -> list[sa.Column[Any]]:
    return [table.c[name] for name in by.split(",")]


def _is(table: sa.Table, row: Mapping[str, object], by: str) -> sa.ColumnElement[bool]:
    return sa.and_(*(column == row[column.name] for column in _columns(table, by)))
