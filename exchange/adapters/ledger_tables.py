"""The ledger's tables, once, for every kind of database; which revision they are of, and how they come to it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from kernel.adapters.revisions import Revisions

META: Final = sa.MetaData()
WHOLE: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""64 bits everywhere; SQLite knows one name for whole numbers, and holds 64 bits under it."""


def text(length: int) -> sa.types.TypeEngine[str]:
    """Return a text of at most `length` characters; SQLite's strict tables know no length."""
    return sa.String(length).with_variant(sa.Text(), "sqlite")


TRADES: Final = sa.Table(
    "trades",
    META,
    sa.Column("trade_id", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("seq", WHOLE, nullable=False),
    sa.Column("at", WHOLE, nullable=False),
    sa.Column("symbol", text(64), nullable=False),
    sa.Column("price", WHOLE, nullable=False),
    sa.Column("quantity", WHOLE, nullable=False),
    sa.Column("buyer", text(128), nullable=False),
    sa.Column("seller", text(128), nullable=False),
    sqlite_strict=True,
)
POSTINGS: Final = sa.Table(
    "postings",
    META,
    sa.Column("trade_id", WHOLE, sa.ForeignKey("trades.trade_id"), nullable=False),
    sa.Column("account", text(128), nullable=False),
    sa.Column("asset", text(64), nullable=False),
    sa.Column("amount", WHOLE, nullable=False),
    sa.Index("postings_trade", "trade_id"),
    sqlite_strict=True,
)
BALANCES: Final = sa.Table(
    "balances",
    META,
    sa.Column("account", text(128), primary_key=True),
    sa.Column("asset", text(64), primary_key=True),
    sa.Column("amount", WHOLE, nullable=False),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
PROGRESS: Final = sa.Table(
    "progress",
    META,
    sa.Column("part", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("seq", WHOLE, nullable=False),
    sqlite_strict=True,
)
"""How far the ledger is: a row for each partition of the event log; the only one of one engine is 0."""

NOTICES: Final = sa.Table(
    "notices",
    META,
    sa.Column("number", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("id", text(128), nullable=False, unique=True),
    sa.Column("account", text(128), nullable=True),
    sa.Column("notice", text(2000), nullable=False),
    sa.Index("notices_account", "account", "number"),
    sqlite_strict=True,
)
"""Notices as they were told, in the order in which they were kept; no account: of the market."""
NOTICE_PLACES: Final = sa.Table(
    "notice_places",
    META,
    sa.Column("part", WHOLE, primary_key=True, autoincrement=False),
    sa.Column("seq", WHOLE, nullable=False),
    sqlite_strict=True,
)
"""Up to which number the notices of each part of the exchange are told; the row of part -1 says that it was begun."""


def _is_of_old(connection: sa.Connection) -> bool:
    """Tell whether this is an SQLite ledger from before revisions were kept."""
    if connection.dialect.name != "sqlite":
        return False
    return connection.exec_driver_sql("PRAGMA user_version").scalar() == 1


LEDGER: Final = Revisions(
    name="ledger",
    directory=Path(__file__).parent / "ledger_revisions",
    table="ledger_revision",
    head="r0004",
    first="r0001",
    adopt=_is_of_old,
)
