"""The tables of settlement by sagas, once, for every kind of database: each service's own by the prefix of its name.

A movement is one row, from a giver to a taker: no row can make money or lose it, on any database. What comes in from
outside is given by `OUTSIDE`, so every book sums to zero whatever was deposited.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from exchange.adapters.ledger_tables import WHOLE, text
from exchange.saga import Service
from exchange.types import AccountId
from kernel.adapters.revisions import Revisions

META: Final = sa.MetaData()
OUTSIDE: Final = AccountId("$outside")
"""Who gives what is deposited."""
COORDINATOR: Final = "coordinator"
"""The prefix of what the coordinator keeps, or without one the reader of the trades."""
PARTIES: Final = (*(service.value for service in Service), COORDINATOR)


@dataclass(frozen=True)
class SayingTables:
    """What a party says until its saga ends, and the ends it heard."""

    sayings: sa.Table
    ends: sa.Table


@dataclass(frozen=True)
class BookTables(SayingTables):
    """What one service keeps."""

    remembered: sa.Table
    moves: sa.Table
    balances: sa.Table
    horizon: sa.Table
    """Up to which trade each part of the exchange is forgotten: whatever still comes of it is not done."""
    carried: sa.Table
    """What the forgotten moves came to, of each two accounts and asset: from the one that sorts first to the other,
    negative the other way round."""


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, WHOLE, primary_key=key, nullable=False, autoincrement=False)


def _words(name: str, length: int, *, key: bool = False, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, text(length), primary_key=key, nullable=nullable)


def _said(party: str) -> tuple[sa.Table, sa.Table]:
    sayings = sa.Table(
        f"{party}_sayings", META, _number("trade_id", key=True), _number("since"), _words("answer", 2000),
        sqlite_strict=True,
    )  # fmt: skip
    ends = sa.Table(f"{party}_ends", META, _number("trade_id", key=True), _words("answer", 2000), sqlite_strict=True)
    return sayings, ends


def _book(service: Service) -> BookTables:
    remembered = sa.Table(
        f"{service}_remembered",
        META,
        _number("trade_id", key=True),
        _words("step", 32, key=True),
        _words("verdict", 16),
        _words("reason", 32, nullable=True),
        sqlite_strict=True,
    )
    moves = sa.Table(
        f"{service}_moves",
        META,
        _number("trade_id", key=True),
        _words("step", 32, key=True),
        _number("part", key=True),
        _words("giver", 128),
        _words("taker", 128),
        _words("asset", 64),
        _number("amount"),
        sa.CheckConstraint("amount > 0", name=f"{service}_moves_amount"),
        sa.ForeignKeyConstraint(["trade_id", "step"], [f"{service}_remembered.trade_id", f"{service}_remembered.step"]),
        sqlite_strict=True,
    )
    balances = sa.Table(
        f"{service}_balances",
        META,
        _words("account", 128, key=True),
        _words("asset", 64, key=True),
        _number("amount"),
        sqlite_strict=True,
    )
    horizon = sa.Table(
        f"{service}_horizon", META, _number("part", key=True), _number("up_to"), sqlite_strict=True
    )  # fmt: skip
    carried = sa.Table(
        f"{service}_carried",
        META,
        _words("giver", 128, key=True),
        _words("taker", 128, key=True),
        _words("asset", 64, key=True),
        _number("amount"),
        sa.CheckConstraint("giver < taker", name=f"{service}_carried_order"),
        sqlite_strict=True,
    )
    return BookTables(*_said(service), remembered, moves, balances, horizon, carried)


BOOKS: Final = {service: _book(service) for service in Service}
SAID: Final = SayingTables(*_said(COORDINATOR))
"""What the reader of the trades says where no coordinator leads."""
SAGAS: Final = sa.Table(
    "coordinator_sagas",
    META,
    _number("trade_id", key=True),
    _number("traded_at"),
    _number("begun_at"),
    _words("state", 16),
    sa.Column("ended_at", WHOLE, nullable=True),
    sa.Index("coordinator_sagas_state", "state"),
    sqlite_strict=True,
)
"""Every saga that was begun: `open`, or how it ended."""
JOURNAL: Final = sa.Table(
    "coordinator_journal",
    META,
    _number("number", key=True),
    _number("trade_id"),
    _words("entry", 2000),
    sa.Index("coordinator_journal_trade", "trade_id"),
    sqlite_strict=True,
)
PROGRESS: Final = sa.Table(
    "coordinator_progress", META, _number("part", key=True), _number("seq"), sqlite_strict=True
)  # fmt: skip
"""How far the trades of each part of the exchange were read."""
HORIZON: Final = sa.Table(
    "coordinator_horizon", META, _number("part", key=True), _number("up_to"), _number("settled"),
    _number("cancelled"), sqlite_strict=True,
)  # fmt: skip
"""Up to which trade each part of the exchange is forgotten, and how those sagas ended: none of them begins again."""
DEEDS: Final = sa.Table(
    "coordinator_deeds", META, _number("trade_id", key=True), _number("number", key=True), _number("at"),
    _words("deed", 16), _words("who", 200), _words("reason", 1000), sqlite_strict=True,
)  # fmt: skip
"""What people did to a saga, and why."""
LEAD: Final = sa.Table(
    "coordinator_lead", META, sa.Column("one", WHOLE, sa.CheckConstraint("one = 1"), primary_key=True,
    autoincrement=False), _number("epoch"), sqlite_strict=True,
)  # fmt: skip
"""Who leads: one more at each start, so that an earlier coordinator writes no more."""
SAGA: Final = Revisions(
    name="saga",
    directory=Path(__file__).parent / "saga_revisions",
    table="saga_revision",
    head="r0002",
    first="r0001",
)
