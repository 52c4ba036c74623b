"""The rows of a saga's table, read past the stores that write it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from kernel.adapters.database import make_engine, parse


def rows(place: Path | str, table: sa.Table) -> list[dict[str, Any]]:
    if isinstance(place, Path):
        return _of_file(place, table)
    engine = make_engine(parse(place, "test"), "test")
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table(table.name):
                return []
            return [dict(row._mapping) for row in connection.execute(sa.select(table))]
    finally:
        engine.dispose()


def _of_file(path: Path, table: sa.Table) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table.name}")]
