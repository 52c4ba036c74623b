"""What a pair's primary holds for the exchange: a login, its databases, and their tables at the newest revision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from control.databases import KINDS, opened, read_password, revisions
from control.servers.postgres_pair import LOGIN, PostgresPlace, connect, pair_url
from kernel.errors import TemporaryError


def prepare(place: PostgresPlace, password: str) -> None:
    """Make what is missing on the server at a place, which must take writes; what is there stays as it is.

    Args:
        place: of the primary.
        password: of its superuser.

    Raises:
        TemporaryError: the server does not answer.
        InputError: a database holds something else, or a newer revision.
    """
    word = read_password(Path(place.app_password_file))
    try:
        with connect(place.port, password) as connection:
            connection.execute("SET statement_timeout = 0")
            _make_login(connection, word)
            for name in place.databases:
                _make_database(connection, name)
    except psycopg.OperationalError as error:
        raise TemporaryError(f"the databases on {place.name} cannot be prepared: {str(error).strip()}") from error
    for name in place.databases:
        if name in KINDS:
            with opened(pair_url(name, [place.port]), name, word) as (tables, _):
                revisions(name).upgrade(tables)


def _make_login(connection: psycopg.Connection[tuple[Any, ...]], word: str) -> None:
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (LOGIN,)).fetchone():
        return
    text = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(LOGIN), sql.Literal(word))
    connection.execute(text)


def _make_database(connection: psycopg.Connection[tuple[Any, ...]], name: str) -> None:
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
        return
    text = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(LOGIN))
    connection.execute(text)
