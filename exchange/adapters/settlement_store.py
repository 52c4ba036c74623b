"""The double-entry ledger in a database by URL: each trade once, and how far it got, in one transaction.

SQLite in a file is the embedded one. On PostgreSQL every transaction is serializable, what other transactions bring
about is tried again a few times, and trades arrive by one statement or by COPY. Elsewhere plain SQL does the same.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from exchange.adapters import ledger_copy
from exchange.adapters.ledger_tables import BALANCES, LEDGER, POSTINGS, PROGRESS, TRADES
from exchange.events import Happened, Traded
from exchange.ledger import Posting, money_per_tick, postings
from exchange.shards import whole_id
from exchange.types import Instrument, TradeId
from kernel.adapters.database import make_engine, parse, shown, sqlite_url
from kernel.adapters.sql_errors import conflict, translated
from kernel.errors import PermanentError

WHO: Final = "ledger"
ATTEMPTS_MAX: Final = 6
"""How often one transaction is begun when others are in its way."""
_PAUSE_S: Final = 0.005
"""Before the second attempt; twice as long before each further one."""
_IN_MAX: Final = 500
"""Values in one IN list; Oracle takes 1000, SQLite took 999 for long."""
_T = TypeVar("_T")


class Settled(NamedTuple):
    """What one transaction did."""

    seq: int
    trades: int
    duplicates: int


class SettlementStore:
    """One writer's ledger. Calls block on the disk or the server and may come from one thread at a time."""

    def __init__(self, place: Path | str, instruments: Sequence[Instrument], *, password: str = "") -> None:
        """Open the ledger: an SQLite file (which is begun, or brought to this revision), or a database by its URL.

        Raises:
            InputError: the URL or the login is wrong, or the database holds something else or another revision.
            PermanentError: it cannot be used, or has balances that are not the sum of their postings.
            TemporaryError: the database does not answer.
        """
        url = parse(sqlite_url(place) if isinstance(place, Path) else place, WHO, password=password)
        self._money: Final = {instrument.symbol: money_per_tick(instrument) for instrument in instruments}
        self._where: Final = f"{shown(url)}: the ledger"
        if url.get_backend_name() == "sqlite" and url.database:
            try:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise PermanentError(f"{url.database}: cannot open the ledger: {error}") from error
        self._engine: Final = make_engine(url, WHO, isolation="SERIALIZABLE")
        self._durable: Final[dict[int, int]] = {}
        """How far each part was told to be; a database that knows less has lost what was settled."""
        self._copies: Final = self._engine.dialect.name == "postgresql"
        with translated(self._where, "be opened"):
            self._connection: Final = self._engine.connect()
        try:
            with translated(self._where, "be opened"), self._connection.begin():
                if self._engine.dialect.name == "sqlite":
                    LEDGER.upgrade(self._connection)
                LEDGER.require(self._connection)
                self._reconcile()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()
        self._engine.dispose()

    @property
    def seq(self) -> int:
        """The journal number of the first partition up to which every trade is settled, as it is durable."""
        return self.seq_of(0)

    def seq_of(self, partition: int) -> int:
        """Return up to which number of a partition every trade is settled, as it is durable; 0 when none is."""
        return self._read(lambda one: _reached(one, partition))

    def seqs(self) -> dict[int, int]:
        """Return how far each partition is settled."""
        ask = sa.select(PROGRESS.c.part, PROGRESS.c.seq).order_by(PROGRESS.c.part)
        return self._read(lambda one: {int(row.part): int(row.seq) for row in one.execute(ask)})

    def settle(self, happened: Sequence[Happened], partition: int = 0) -> Settled:
        """Post the trades of the next stretch of a partition's events, those met before left alone.

        Raises:
            TemporaryError: the database is locked, away, full or too busy; either nothing changed or, when the
                connection broke at the very end, everything did: settling it again does the right thing.
            PermanentError: a trade's postings cannot be kept, or the ledger is not as far any more as it was.
        """
        met = [(item, event) for item in happened for event in item.events if isinstance(event, Traded)]
        trades: dict[TradeId, tuple[Happened, Traded]] = {}
        for item, trade in met:
            trades.setdefault(_whole(partition, trade), (item, trade))
        rows = [_row(number, item, trade) for number, (item, trade) in trades.items()]
        entries = [
            entry if entry.trade_id == number else msgspec.structs.replace(entry, trade_id=number)
            for number, (_, trade) in trades.items()
            for entry in postings(trade, self._money[trade.symbol])
        ]
        seq = happened[-1].seq

        def post(connection: sa.Connection) -> int:
            durable = self._durable.get(partition, 0)
            if self._copies:
                new, before = ledger_copy.post(connection, rows, entries, partition, seq, durable)
            else:
                new, before = _post(connection, rows, entries, partition, seq)
            if before < durable:
                raise PermanentError(
                    f"{self._where} went back from command {durable} to {before}: a stand-by took over that "
                    f"lacked the rest; settlement has to begin again after {before}, the event log still has it"
                )
            return new

        with translated(self._where, "be written, nothing was settled"):
            new = self._again(post, alone=self._copies and ledger_copy.is_alone(rows))
        self._durable[partition] = max(self._durable.get(partition, 0), seq)
        return Settled(seq, new, len(met) - new)

    def imbalance(self) -> int:
        """Return by how much the assets fail to sum to zero, absolute and added up; must be 0."""
        ask = sa.select(sa.func.sum(BALANCES.c.amount)).group_by(BALANCES.c.asset)
        return self._read(lambda one: sum(abs(int(total)) for total in one.execute(ask).scalars()))

    def trades(self) -> int:
        """Return how many trades are settled."""
        ask = sa.select(sa.func.count()).select_from(TRADES)
        return self._read(lambda one: int(one.execute(ask).scalar_one()))

    def balances(self) -> dict[tuple[str, str], int]:
        """Return every balance that is not zero, by account and asset."""
        ask = sa.select(BALANCES).where(BALANCES.c.amount != 0)
        return self._read(lambda one: {(row.account, row.asset): row.amount for row in one.execute(ask)})

    def trade_ids(self) -> list[TradeId]:
        """Return the settled trades, in order."""
        ask = sa.select(TRADES.c.trade_id).order_by(TRADES.c.trade_id)
        return self._read(lambda one: [TradeId(number) for number in one.execute(ask).scalars()])

    def _read(self, ask: Callable[[sa.Connection], _T]) -> _T:
        with translated(self._where, "be read"):
            return self._again(ask)

    def _again(self, work: Callable[[sa.Connection], _T], *, alone: bool = False) -> _T:
        """Carry out one transaction, and once more when another one was in its way; `alone`: it is one statement."""
        attempt = 1
        while True:
            try:
                with ledger_copy.alone(self._connection) if alone else self._connection.begin():
                    return work(self._connection)
            except SQLAlchemyError as error:
                if attempt == ATTEMPTS_MAX or not conflict(error):
                    raise
            except OverflowError as error:
                raise PermanentError(f"{self._where} cannot hold a number beyond 64 bits: {error}") from error
            time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            attempt += 1

    def _reconcile(self) -> None:
        """Compare balances with the postings they are said to be the sum of."""
        total = sa.cast(sa.func.sum(POSTINGS.c.amount), BALANCES.c.amount.type).label("amount")
        summed = sa.select(POSTINGS.c.account, POSTINGS.c.asset, total).group_by(POSTINGS.c.account, POSTINGS.c.asset)
        kept = sa.select(BALANCES.c.account, BALANCES.c.asset, BALANCES.c.amount)
        wrong = self._connection.execute(
            sa.select(sa.func.count()).select_from(summed.except_(kept).subquery())
        ).scalar_one()
        if wrong:
            raise PermanentError(
                f"{self._where} has {wrong} balances that do not follow from their postings; "
                "move it away, settlement writes it anew from the event log"
            )


def _post(
    connection: sa.Connection, rows: Sequence[ledger_copy.Row], entries: Sequence[Posting], part: int, seq: int
) -> tuple[int, int]:
    """Post in plain SQL, which every database understands; return as `ledger_copy.post` does."""
    before = _reached(connection, part)
    known: set[int] = set()
    ids = [row[0] for row in rows]
    for start in range(0, len(ids), _IN_MAX):
        ask = sa.select(TRADES.c.trade_id).where(TRADES.c.trade_id.in_(ids[start : start + _IN_MAX]))
        known.update(connection.execute(ask).scalars())
    new = [row for row in rows if row[0] not in known]
    fresh = [entry for entry in entries if entry.trade_id not in known]
    if new:
        names = [column.name for column in TRADES.c]
        connection.execute(sa.insert(TRADES), [dict(zip(names, row, strict=True)) for row in new])
        connection.execute(sa.insert(POSTINGS), [_posting(entry) for entry in fresh])
        _check_conserved(connection, [row[0] for row in new])
    changes: defaultdict[tuple[str, str], int] = defaultdict(int)
    for entry in fresh:
        changes[entry.account, entry.asset] += entry.amount
    _add_up(connection, changes)
    step = sa.update(PROGRESS).where(PROGRESS.c.part == part, PROGRESS.c.seq < seq).values(seq=seq)
    if not connection.execute(step).rowcount and seq > before:
        connection.execute(sa.insert(PROGRESS).values(part=part, seq=seq))
    return len(new), before


def _reached(connection: sa.Connection, part: int) -> int:
    found = connection.execute(sa.select(PROGRESS.c.seq).where(PROGRESS.c.part == part)).scalar_one_or_none()
    return 0 if found is None else int(found)


def _whole(partition: int, trade: Traded) -> TradeId:
    return TradeId(whole_id(partition, trade.trade_id))


def _row(number: TradeId, item: Happened, trade: Traded) -> ledger_copy.Row:
    return (number, item.seq, item.at, trade.symbol, trade.price, trade.quantity, trade.buyer, trade.seller)


def _posting(entry: Posting) -> dict[str, object]:
    return {"trade_id": entry.trade_id, "account": entry.account, "asset": entry.asset, "amount": entry.amount}


def _add_up(connection: sa.Connection, changes: Mapping[tuple[str, str], int]) -> None:
    change = sa.update(BALANCES).where(
        BALANCES.c.account == sa.bindparam("who"), BALANCES.c.asset == sa.bindparam("what")
    )
    change = change.values(amount=BALANCES.c.amount + sa.bindparam("more"))
    absent = [
        {"account": account, "asset": asset, "amount": amount}
        for (account, asset), amount in changes.items()
        if not connection.execute(change, {"who": account, "what": asset, "more": amount}).rowcount
    ]
    if absent:
        connection.execute(sa.insert(BALANCES), absent)


def _check_conserved(connection: sa.Connection, ids: Sequence[int]) -> None:
    """Stop a transaction whose postings create or lose money: what PostgreSQL's own constraint does there."""
    for start in range(0, len(ids), _IN_MAX):
        ask = (
            sa.select(POSTINGS.c.trade_id, POSTINGS.c.asset)
            .where(POSTINGS.c.trade_id.in_(ids[start : start + _IN_MAX]))
            .group_by(POSTINGS.c.trade_id, POSTINGS.c.asset)
            .having(sa.func.sum(POSTINGS.c.amount) != 0)
        )
        wrong = connection.execute(ask).first()
        if wrong is not None:
            raise PermanentError(f"postings of trade {wrong.trade_id} do not sum to zero in {wrong.asset}")
