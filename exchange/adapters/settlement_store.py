"""The double-entry ledger in SQLite: each trade once, and how far it got, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from exchange.events import Happened, Traded
from exchange.ledger import Posting, money_per_tick, postings
from exchange.types import Instrument, TradeId
from kernel.errors import PermanentError, TemporaryError

VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE trades (
    trade_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL, symbol TEXT NOT NULL,
    price INTEGER NOT NULL, quantity INTEGER NOT NULL, buyer TEXT NOT NULL, seller TEXT NOT NULL
) STRICT;
CREATE TABLE postings (
    trade_id INTEGER NOT NULL REFERENCES trades, account TEXT NOT NULL, asset TEXT NOT NULL, amount INTEGER NOT NULL
) STRICT;
CREATE TABLE balances (
    account TEXT NOT NULL, asset TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (account, asset)
) STRICT, WITHOUT ROWID;
CREATE TABLE progress (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL) STRICT;
INSERT INTO progress VALUES (1, 0);
"""


class Settled(NamedTuple):
    """What one transaction did."""

    seq: int
    trades: int
    duplicates: int


class SettlementStore:
    """One writer's ledger. Calls block on the disk and may come from one thread at a time."""

    def __init__(self, path: Path, instruments: Sequence[Instrument]) -> None:
        """Open the ledger, or begin it.

        Raises:
            PermanentError: the file cannot be used, is of another version, or has balances that are not the sum of
                their postings.
        """
        self._path: Final = path
        self._money: Final = {instrument.symbol: money_per_tick(instrument) for instrument in instruments}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db: Final = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise PermanentError(f"{path}: cannot open the ledger: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise PermanentError(f"{path}: cannot use the ledger: {error}") from error
        except PermanentError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def seq(self) -> int:
        """The journal number up to which every trade is settled, as it is durable."""
        return int(self._db.execute("SELECT seq FROM progress").fetchone()[0])

    def settle(self, happened: Sequence[Happened]) -> Settled:
        """Post the trades of the next part of the event stream, those met before left alone.

        Raises:
            TemporaryError: the database is locked or the disk is full; nothing changed.
        """
        seq = happened[-1].seq
        new = duplicates = 0
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for item in happened:
                    for event in item.events:
                        if isinstance(event, Traded):
                            posted = self._post(item, event)
                            new += posted
                            duplicates += not posted
                self._db.execute("UPDATE progress SET seq = max(seq, ?)", (seq,))
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise TemporaryError(f"{self._path}: nothing was settled: {error}") from error
        return Settled(seq, new, duplicates)

    def imbalance(self) -> int:
        """Return by how much the assets fail to sum to zero, absolute and added up; must be 0."""
        rows = self._db.execute("SELECT sum(amount) FROM balances GROUP BY asset").fetchall()
        return sum(abs(int(total)) for (total,) in rows)

    def trades(self) -> int:
        """Return how many trades are settled."""
        return int(self._db.execute("SELECT count(*) FROM trades").fetchone()[0])

    def balances(self) -> dict[tuple[str, str], int]:
        """Return every balance that is not zero, by account and asset."""
        rows = self._db.execute("SELECT account, asset, amount FROM balances WHERE amount != 0").fetchall()
        return {(account, asset): amount for account, asset, amount in rows}

    def trade_ids(self) -> list[TradeId]:
        """Return the settled trades, in order."""
        return [TradeId(row[0]) for row in self._db.execute("SELECT trade_id FROM trades ORDER BY trade_id")]

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA busy_timeout = 2000")
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise PermanentError(
                f"{self._path}: this ledger is of version {version}, the program reads version {VERSION}; "
                "use the program that wrote it, or another state directory"
            )
        self._reconcile()

    def _reconcile(self) -> None:
        """Compare balances with the postings they are said to be the sum of."""
        wrong = self._db.execute(
            "SELECT count(*) FROM (SELECT account, asset, sum(amount) AS amount FROM postings GROUP BY account, asset "
            "EXCEPT SELECT account, asset, amount FROM balances)"
        ).fetchone()[0]
        if wrong:
            raise PermanentError(
                f"{self._path}: {wrong} balances do not follow from their postings; "
                "move the file away, settlement writes it anew from the event log"
            )

    def _post(self, item: Happened, trade: Traded) -> bool:
        inserted = self._db.execute(
            "INSERT OR IGNORE INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (trade.trade_id, item.seq, item.at, trade.symbol, trade.price, trade.quantity, trade.buyer, trade.seller),
        )
        if inserted.rowcount == 0:
            return False
        entries: tuple[Posting, ...] = postings(trade, self._money[trade.symbol])
        rows = [(entry.account, entry.asset, entry.amount) for entry in entries]
        self._db.executemany("INSERT INTO postings VALUES (?, ?, ?, ?)", [(trade.trade_id, *row) for row in rows])
        self._db.executemany(
            "INSERT INTO balances VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount", rows
        )
        return True
