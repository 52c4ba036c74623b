"""Posting trades on PostgreSQL: few in one statement, many by COPY into tables of this connection and one statement.

Few are a transaction of one statement, which needs no BEGIN and no COMMIT: one way to the server and back instead of
three (`alone`). Both post whole trades that were not met before, add up balances and note how far it got; the database
itself then checks that the postings of each trade sum to zero in every asset (`ledger_revisions/r0002_conserved.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from exchange.ledger import Posting

Row = tuple[int, int, int, str, int, int, str, str]
"""A trade as its table holds it."""
COPIED_FROM: Final = 32
"""From so many trades on, COPY costs less than it takes to set up (measured in `bench/settlement_store.py`)."""
_STAGE: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS staged_trades (LIKE trades) ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_postings (LIKE postings) ON COMMIT DELETE ROWS
"""
_BEFORE: Final = """
WITH before AS (
    SELECT coalesce((SELECT seq FROM progress WHERE part = %s), 0) AS seq
)"""
_STEPPED: Final = """stepped AS (
    INSERT INTO progress AS kept SELECT %s::bigint, %s::bigint WHERE (SELECT seq FROM before) >= %s
    ON CONFLICT (part) DO UPDATE SET seq = greatest(kept.seq, excluded.seq)
)
"""
_POST: Final = """{before}, fresh AS (
    INSERT INTO trades SELECT * FROM {trades} WHERE (SELECT seq FROM before) >= %s
    ON CONFLICT (trade_id) DO NOTHING RETURNING trade_id
), moved AS (
    INSERT INTO postings SELECT told.* FROM {postings} JOIN fresh USING (trade_id) RETURNING account, asset, amount
), added AS (
    INSERT INTO balances AS kept SELECT account, asset, sum(amount) FROM moved GROUP BY account, asset
    ON CONFLICT (account, asset) DO UPDATE SET amount = kept.amount + excluded.amount
), {stepped}
SELECT (SELECT count(*) FROM fresh), (SELECT seq FROM before)
"""
"""All its parts look at one moment: `before` is how far the ledger was before this statement. Nothing is written where
that is less than is known to be durable: the ledger went back then."""
_BY_ARRAYS: Final = _POST.format(
    before=_BEFORE,
    stepped=_STEPPED,
    trades="unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], "
    "%s::text[])",
    postings="unnest(%s::bigint[], %s::text[], %s::text[], %s::bigint[]) AS told (trade_id, account, asset, amount)",
)
_BY_COPY: Final = _POST.format(
    before=_BEFORE, stepped=_STEPPED, trades="staged_trades", postings="staged_postings AS told"
)
_VALUES: Final = "(%s::bigint, %s::text, %s::text, %s::bigint)"


@lru_cache(maxsize=16)
def _by_values(count: int) -> str:
    """Return the statement of one trade with so many postings: plain values cost the driver a third of arrays."""
    return _POST.format(
        before=_BEFORE,
        stepped=_STEPPED,
        trades="(VALUES (%s::bigint, %s::bigint, %s::bigint, %s::text, %s::bigint, %s::bigint, %s::text, "
        "%s::text)) AS told",
        postings=f"(VALUES {', '.join([_VALUES] * count)}) AS told (trade_id, account, asset, amount)",
    )


_STEP: Final = "{before}, {stepped} SELECT 0, (SELECT seq FROM before)"
_BY_NONE: Final = _STEP.format(before=_BEFORE, stepped=_STEPPED)


@contextlib.contextmanager
def alone(connection: sa.Connection) -> Iterator[None]:
    """Let a statement within be its own transaction, as isolated as those that are begun."""
    driver: Any = connection.connection.driver_connection
    driver.autocommit = True
    try:
        with connection.begin():
            yield
    finally:
        if not driver.closed:  # a new connection begins its transactions by itself
            driver.autocommit = False


def is_alone(rows: Sequence[Row]) -> bool:
    """Tell whether trades are posted by one statement and nothing else."""
    return len(rows) < COPIED_FROM


def post(
    connection: sa.Connection, rows: Sequence[Row], entries: Sequence[Posting], part: int, seq: int, durable: int
) -> tuple[int, int]:
    """Post trades in the transaction that is open; return how many were new, and how far their part was before.

    Nothing is written where that is before `durable`. No trade may stand in `rows` twice.

    Raises:
        DBAPIError: the database refused, or is gone; carries the driver's own error.
    """
    moves = [(entry.trade_id, entry.account, entry.asset, entry.amount) for entry in entries]
    step = (part, seq, durable)
    if not rows:
        return _told(connection, _BY_NONE, (part, *step))
    if is_alone(rows):
        if len(rows) == 1:
            moved = [value for move in moves for value in move]
            return _told_alone(connection, _by_values(len(moves)), (part, *rows[0], durable, *moved, *step))
        trades, postings = ([list(column) for column in zip(*some, strict=True)] for some in (rows, moves))
        return _told_alone(connection, _BY_ARRAYS, (part, *trades, durable, *postings, *step))
    for statement in _STAGE.split(";"):
        connection.exec_driver_sql(statement)
    _copy(connection, "COPY staged_trades FROM STDIN", rows)
    _copy(connection, "COPY staged_postings FROM STDIN", moves)
    return _told(connection, _BY_COPY, (part, durable, *step))


def _told(connection: sa.Connection, statement: str, values: tuple[object, ...]) -> tuple[int, int]:
    new, before = connection.exec_driver_sql(statement, values).one()
    return int(new), int(before)


def _told_alone(connection: sa.Connection, statement: str, values: tuple[object, ...]) -> tuple[int, int]:
    """Ask by the driver: the library's own way to it takes as long as all else that is done for one trade."""
    with _driver_of(connection, statement) as driver:
        new, before = driver.execute(statement, values).fetchone()
    return int(new), int(before)


def _copy(connection: sa.Connection, statement: str, rows: Iterable[Sequence[object]]) -> None:
    with _driver_of(connection, statement) as driver, driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


@contextlib.contextmanager
def _driver_of(connection: sa.Connection, statement: str) -> Iterator[Any]:
    """Give the driver's connection for a statement; its errors come out as if the library had raised them."""
    driver: Any = connection.connection.driver_connection
    try:
        yield driver
    except driver_errors() as error:
        gone = driver.closed
        if gone:
            connection.invalidate(error)
        raise sa.exc.DBAPIError(statement, None, error, connection_invalidated=gone) from error


def driver_errors() -> type[Exception]:
    """Return what the driver raises; it is loaded only where PostgreSQL is used."""
    import psycopg

    return psycopg.Error
