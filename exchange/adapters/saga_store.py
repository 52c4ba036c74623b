"""The book of one service of settlement in a database: balances, moves, and what it answered, in one transaction.

What a step does and that it was done are written together, a batch of steps at once. Without a coordinator, what the
service says until a saga ends is written with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import sqlalchemy as sa

from exchange.adapters.saga_database import SagaDatabase, add_amounts, add_rows, parts_of
from exchange.adapters.saga_forgetting import horizons_of, raise_horizon, sweep
from exchange.adapters.saga_tables import BOOKS, OUTSIDE, BookTables, SayingTables
from exchange.ledger import Asset, Posting
from exchange.saga import (
    Answer,
    Ask,
    Carried,
    End,
    Reason,
    Remembered,
    Rules,
    Service,
    Step,
    Verdict,
    carry_out,
    is_behind,
    movement,
)
from exchange.saga_choreography import Saying, follows, reaction
from exchange.types import AccountId, TradeId
from kernel.errors import PermanentError
from kernel.time import Instant

DEPOSIT: Final = "deposit"
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Answer).decode


class Reacted(NamedTuple):
    """What became of one event that a service heard."""

    heard: Answer
    carried: Carried | None
    """None: the event concerns another service, or tells an end."""
    end: Answer | None
    """The end of its saga, as far as it is known."""


class Said(NamedTuple):
    """What a party says, and what changes in it."""

    sayings: Mapping[TradeId, Saying | None]
    """None: nothing more is said of a saga."""
    ends: Mapping[TradeId, Answer]


class KnownSaga(NamedTuple):
    """What a service keeps of one saga."""

    steps: list[Remembered]
    moves: list[tuple[str, str, str, str, int]]
    """Step, giver, taker, asset, amount."""
    saying: Saying | None
    end: Answer | None
    forgotten: bool


class Batch:
    """What a service has, as far as a batch of asks needs it (`exchange.saga.Known`), and what the batch adds."""

    def __init__(
        self,
        remembered: Mapping[tuple[int, str], Remembered],
        amounts: Mapping[tuple[str, str], int],
        horizons: Mapping[int, int],
    ) -> None:
        self._remembered: Final = dict(remembered)
        self._horizons: Final = dict(horizons)
        self._amounts: Final = defaultdict(int, amounts)
        self.new: list[tuple[TradeId, Remembered]] = []
        self.moves: list[tuple[TradeId, Step, tuple[Posting, ...]]] = []
        self.changes: defaultdict[tuple[str, str], int] = defaultdict(int)

    def remembered(self, trade_id: TradeId, step: Step) -> Remembered | None:
        """Return what was answered to a step, or nothing."""
        return self._remembered.get((trade_id, step))

    def amount(self, account: AccountId, asset: Asset) -> int:
        """Return what an account has of an asset in this service's book."""
        return self._amounts[account, asset]

    def forgotten(self, trade_id: TradeId) -> bool:
        """Tell whether a saga is at or behind the horizon."""
        return is_behind(trade_id, self._horizons)

    def write(self, carried: Carried) -> None:
        """Take over effect and memory of an ask, for those that follow in the batch."""
        trade_id = carried.answer.instruction.trade_id
        for remembered in carried.remembered:
            self._remembered[trade_id, remembered.step] = remembered
            self.new.append((trade_id, remembered))
        if carried.postings:
            self.moves.append((trade_id, carried.answer.step, carried.postings))
        for entry in carried.postings:
            self._amounts[entry.account, entry.asset] += entry.amount
            self.changes[entry.account, entry.asset] += entry.amount


class SagaBook:
    """One service's book. Calls block on the disk or the server and come from one thread at a time."""

    def __init__(self, service: Service, place: Path | str, rules: Rules, *, password: str = "") -> None:
        """Open the book.

        Raises:
            InputError: the URL or the login is wrong, or the database holds something else or another revision.
            PermanentError: it cannot be used, or has balances that are not the sum of their moves.
            TemporaryError: the database does not answer.
        """
        self.service: Final = service
        self._rules: Final = rules
        self._tables: Final[BookTables] = BOOKS[service]
        self._database: Final = SagaDatabase(place, f"the book of {service}", password=password)
        try:
            self._reconcile()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def carry_out(self, asks: Sequence[Ask]) -> list[Carried]:
        """Do what is asked, in order, in one transaction; return what became of each.

        Raises:
            TemporaryError: the database is away or too busy; asked again, what was done is answered from memory.
            PermanentError: a number is beyond 64 bits, or the database refuses for good.
        """

        def work(connection: sa.Connection) -> list[Carried]:
            batch = self._batch(connection, asks)
            done = [self._one(ask, batch) for ask in asks]
            self._write(connection, batch)
            return done

        return self._database.run("be written, no step was done", work)

    def react(self, heard: Sequence[Answer], now: Instant) -> list[Reacted]:
        """Do what events lead to, and keep what is said from now on, in one transaction.

        Raises:
            TemporaryError: as for `carry_out`.
            PermanentError: as for `carry_out`.
        """
        asks = [ask for answer in heard if (ask := reaction(self.service, answer)) is not None]

        def work(connection: sa.Connection) -> list[Reacted]:
            batch = self._batch(connection, asks)
            known = ends_of(connection, self._tables, (answer.instruction.trade_id for answer in heard))
            ends, sayings, told = dict(known), dict[TradeId, Saying | None](), []
            for answer in heard:
                trade_id, carried = answer.instruction.trade_id, None
                if batch.forgotten(trade_id):
                    pass  # it ended, and what is said of it concerns nobody any more
                elif isinstance(follows(answer), End):
                    ends.setdefault(trade_id, answer)
                    sayings[trade_id] = None
                elif (ask := reaction(self.service, answer)) is not None:
                    carried = self._one(ask, batch)
                    if carried.remembered and isinstance(follows(carried.answer), End):
                        ends.setdefault(trade_id, carried.answer)
                        sayings[trade_id] = None
                    elif carried.remembered:
                        sayings[trade_id] = Saying(carried.answer, now)
                told.append(Reacted(answer, carried, ends.get(trade_id)))
            self._write(connection, batch)
            new = {trade_id: end for trade_id, end in ends.items() if trade_id not in known}
            keep(connection, self._tables, Said(sayings, new))
            return told

        return self._database.run("be written, no step was done", work)

    def kept(self) -> list[Saying]:
        """Return what is said until the end of its saga is heard."""
        return self._database.run("be read", lambda one: kept(one, self._tables))

    def forget(self, up_to: TradeId) -> None:
        """Do nothing more of any saga of a part up to this trade: all of them ended. `sweep` removes what is kept.

        Raises:
            TemporaryError: as for `carry_out`.
            PermanentError: as for `carry_out`.
        """
        table = self._tables.horizon
        self._database.run("be tidied, nothing was forgotten", lambda one: raise_horizon(one, table, up_to))

    def sweep(self) -> int:
        """Remove what is kept of some forgotten sagas; return of how many, 0 when nothing is left to remove.

        Raises:
            TemporaryError: as for `carry_out`.
            PermanentError: as for `carry_out`.
        """
        return self._database.run("be tidied, nothing was removed", lambda one: sweep(one, self._tables))

    def known(self, trade_id: TradeId) -> KnownSaga:
        """Return all that is kept of one saga, for people."""
        tables = self._tables

        def work(connection: sa.Connection) -> KnownSaga:
            steps = connection.execute(sa.select(tables.remembered).where(tables.remembered.c.trade_id == trade_id))
            moves = connection.execute(sa.select(tables.moves).where(tables.moves.c.trade_id == trade_id))
            return KnownSaga(
                [_remembered(row) for row in steps],
                [(row.step, row.giver, row.taker, row.asset, int(row.amount)) for row in moves],
                next(iter(kept(connection, tables, trade_id)), None),
                ends_of(connection, tables, [trade_id]).get(trade_id),
                is_behind(trade_id, horizons_of(connection, tables.horizon)),
            )

        return self._database.run("be read", work)

    def deposit(self, number: int, account: AccountId, asset: Asset, amount: int) -> bool:
        """Take something in from outside; False when the deposit of this number (from 1 on) was taken in before."""
        assert number > 0, "a deposit has a number of its own"
        assert amount > 0, "a deposit brings something"
        trade_id = TradeId(-number)

        def work(connection: sa.Connection) -> bool:
            table = self._tables.remembered
            if connection.execute(sa.select(table.c.step).where(table.c.trade_id == trade_id)).first() is not None:
                return False
            add_rows(connection, table, [(trade_id, DEPOSIT, Verdict.DONE.value, None)])
            add_rows(connection, self._tables.moves, [(trade_id, DEPOSIT, 0, OUTSIDE, account, asset, amount)])
            add_amounts(connection, self._tables.balances, [(OUTSIDE, asset, -amount), (account, asset, amount)])
            return True

        return self._database.run("be written, nothing was deposited", work)

    def balances(self) -> dict[tuple[AccountId, Asset], int]:
        """Return every balance that is not zero, by account and asset."""
        table = self._tables.balances
        ask = sa.select(table).where(table.c.amount != 0)
        return self._database.run(
            "be read", lambda one: {(row.account, row.asset): row.amount for row in one.execute(ask)}
        )

    def drift(self) -> int:
        """Return by how much the assets fail to sum to zero, absolute and added up; must be 0."""
        table = self._tables.balances
        ask = sa.select(sa.func.sum(table.c.amount)).group_by(table.c.asset)
        return self._database.run("be read", lambda one: sum(abs(int(total)) for total in one.execute(ask).scalars()))

    def remembered(self) -> dict[tuple[TradeId, Step], Remembered]:
        """Return everything the service answered, deposits left out: for tests and for those who look into it."""
        table = self._tables.remembered
        ask = sa.select(table).where(table.c.step != DEPOSIT)
        return self._database.run(
            "be read",
            lambda one: {(TradeId(row.trade_id), Step(row.step)): _remembered(row) for row in one.execute(ask)},
        )

    def _reconcile(self) -> None:
        """Compare balances with the moves they are said to be the sum of."""
        wrong = self._database.run("be read", lambda one: _wrong_balances(one, self._tables))
        if wrong:
            raise PermanentError(
                f"{self._database.where} has {wrong} balances that do not follow from their moves; "
                "put the table right from the moves before it goes on"
            )

    def _one(self, ask: Ask, batch: Batch) -> Carried:
        carried = carry_out(ask, batch, self._rules)
        batch.write(carried)
        return carried

    def _batch(self, connection: sa.Connection, asks: Sequence[Ask]) -> Batch:
        """Read what the asks need; the transaction is serializable, so it holds until the commit."""
        table, remembered = self._tables.remembered, {}
        for ids in parts_of(ask.instruction.trade_id for ask in asks):
            for row in connection.execute(sa.select(table).where(table.c.trade_id.in_(ids))):
                remembered[int(row.trade_id), str(row.step)] = _remembered(row)
        balances, amounts = self._tables.balances, {}
        if self._rules.bounded:
            for names in parts_of(entry.account for ask in asks for entry in movement(ask)):
                for row in connection.execute(sa.select(balances).where(balances.c.account.in_(names))):
                    amounts[str(row.account), str(row.asset)] = int(row.amount)
        return Batch(remembered, amounts, horizons_of(connection, self._tables.horizon))

    def _write(self, connection: sa.Connection, batch: Batch) -> None:
        remembered = [
            (trade_id, one.step.value, one.verdict.value, one.reason.value or None) for trade_id, one in batch.new
        ]
        add_rows(connection, self._tables.remembered, remembered)
        moves = [
            (trade_id, step.value, part, *move)
            for trade_id, step, entries in batch.moves
            for part, move in enumerate(moves_of(entries))
        ]
        add_rows(connection, self._tables.moves, moves)
        changes = [(account, asset, amount) for (account, asset), amount in sorted(batch.changes.items()) if amount]
        add_amounts(connection, self._tables.balances, changes)


def moves_of(entries: Sequence[Posting]) -> list[tuple[str, str, str, int]]:
    """Return postings, two a movement, as movements: giver, taker, asset and a positive amount."""
    moves = []
    for first, second in zip(entries[::2], entries[1::2], strict=True):
        assert first.asset == second.asset, "a movement is of one asset"
        assert first.amount + second.amount == 0, "what one gives the other takes"
        giver, taker = (first, second) if first.amount < 0 else (second, first)
        moves.append((str(giver.account), str(taker.account), str(taker.asset), taker.amount))
    return moves


def keep(connection: sa.Connection, tables: SayingTables, said: Said) -> None:
    """Write what is said from now on, of which nothing more is said, and which ends are new."""
    table = tables.sayings
    for ids in parts_of(said.sayings):
        connection.execute(sa.delete(table).where(table.c.trade_id.in_(ids)))
    rows = [
        (trade_id, saying.since, _encode(saying.answer).decode())
        for trade_id, saying in said.sayings.items()
        if saying is not None
    ]
    add_rows(connection, table, rows)
    add_rows(connection, tables.ends, [(trade_id, _encode(end).decode()) for trade_id, end in said.ends.items()])


def kept(connection: sa.Connection, tables: SayingTables, trade_id: TradeId | None = None) -> list[Saying]:
    """Return what a party says, of one saga or of all."""
    ask = sa.select(tables.sayings).order_by(tables.sayings.c.trade_id)
    found = connection.execute(ask if trade_id is None else ask.where(tables.sayings.c.trade_id == trade_id))
    return [Saying(_decode(row.answer), Instant(row.since)) for row in found]


def ends_of(connection: sa.Connection, tables: SayingTables, trade_ids: Iterable[TradeId]) -> dict[TradeId, Answer]:
    """Return the ends that a party heard of these sagas."""
    table, found = tables.ends, {}
    for ids in parts_of(trade_ids):
        for row in connection.execute(sa.select(table).where(table.c.trade_id.in_(ids))):
            found[TradeId(row.trade_id)] = _decode(row.answer)
    return found


def _remembered(row: sa.Row[tuple[object, ...]]) -> Remembered:
    return Remembered(Step(row.step), Verdict(row.verdict), Reason(row.reason or ""))


def _wrong_balances(connection: sa.Connection, tables: BookTables) -> int:
    balances = tables.balances
    sides = []
    for table in (tables.moves, tables.carried):
        sides.append(sa.select(table.c.giver.label("account"), table.c.asset, (-table.c.amount).label("amount")))
        sides.append(sa.select(table.c.taker.label("account"), table.c.asset, table.c.amount))
    each = sa.union_all(*sides).subquery()
    total = sa.cast(sa.func.sum(each.c.amount), balances.c.amount.type).label("amount")
    summed = sa.select(each.c.account, each.c.asset, total).group_by(each.c.account, each.c.asset)
    summed = summed.having(sa.func.sum(each.c.amount) != 0)
    stand = sa.select(balances.c.account, balances.c.asset, balances.c.amount)
    held = stand.where(balances.c.amount != 0)
    return sum(
        int(connection.execute(sa.select(sa.func.count()).select_from(one.subquery())).scalar_one())
        for one in (summed.except_(stand), held.except_(summed))
    )
