"""The incident store's tables, once, for every kind of database, and the revision they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from kernel.adapters.any_text import AnyText
from kernel.adapters.revisions import Revisions, shown_of
from kernel.errors import InputError

STORE_VERSION: Final = 1
META: Final = sa.MetaData()
WHOLE: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # only INTEGER counts by itself in SQLite

VERSION: Final = sa.Table("tapewatch_store", META, sa.Column("version", sa.Integer, primary_key=True))
SIGNALS: Final = sa.Table(
    "signals",
    META,
    sa.Column("offset", WHOLE, primary_key=True, autoincrement=True),
    sa.Column("key", sa.String(64), nullable=False, unique=True),
    sa.Column("fingerprint", sa.String(128), nullable=False),
    sa.Column("ends_at", sa.BigInteger),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index(
        "signals_ended",
        "fingerprint",
        "ends_at",
        sqlite_where=sa.text("ends_at IS NOT NULL"),
        postgresql_where=sa.text("ends_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)
PROGRESS: Final = sa.Table(
    "progress",
    META,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)
"""`decided`: the offset up to which signals are decided; `incidents-YYYYMMDD`: the last number given on that day;
`epoch`: the leader whose store it is."""
EPOCH: Final = "epoch"
INCIDENTS: Final = sa.Table(
    "incidents",
    META,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("state", sa.String(20), nullable=False, index=True),
    sa.Column("opened_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("seal", sa.String(64), nullable=False),
)
ENTRIES: Final = sa.Table(
    "entries",
    META,
    sa.Column("incident", sa.String(40), primary_key=True),
    sa.Column("n", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("source", AnyText, nullable=False),
    sa.Column("text", AnyText, nullable=False),
    sa.Column("data", AnyText, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)
RUNS: Final = sa.Table(
    "runs",
    META,
    sa.Column("id", sa.String(80), primary_key=True),
    sa.Column("incident", sa.String(40), nullable=False),
    sa.Column("runbook", AnyText, nullable=False),
    sa.Column("target", AnyText, nullable=False),
    sa.Column("labels", AnyText, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False, index=True),
    sa.Column("ended_at", sa.BigInteger, index=True),
    sa.Column("outcome", sa.String(40)),
    sa.Column("reason", AnyText, nullable=False),
    sa.Column("detail", AnyText, nullable=False),
)
JOURNAL: Final = sa.Table(
    "run_journal",
    META,
    sa.Column("run", sa.String(80), primary_key=True),
    sa.Column("n", sa.BigInteger, primary_key=True),
    sa.Column("kind", sa.String(10), primary_key=True),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)


def _is_of_old(connection: sa.Connection) -> bool:
    """Tell whether this is a store from before revisions were kept.

    Raises:
        InputError: it is, and of a version that this program does not read.
    """
    if VERSION.name not in sa.inspect(connection).get_table_names():
        return False
    version = connection.execute(sa.select(VERSION.c.version)).scalar()
    if version != STORE_VERSION:
        raise InputError(
            shown_of(connection),
            f"is an incident store of version {version}",
            right=f"this program reads version {STORE_VERSION}",
        )
    return True


STORE: Final = Revisions(
    name="incident store",
    directory=Path(__file__).parent / "store_revisions",
    table="store_revision",
    head="r0001",
    first="r0001",
    adopt=_is_of_old,
)
