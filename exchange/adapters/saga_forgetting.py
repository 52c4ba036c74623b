"""Forgetting sagas that ended long ago: up to a horizon of each part of the exchange, a few hundred at a time.

The horizon is the last trade of a row of trades whose sagas all ended. It comes first and stays: what is at or behind
it is not begun and not done, whatever still lies in a queue, among dead letters or in the event log. So it is never
asked whether a message may still come. Then the rows go. What forgotten moves came to is carried over, so that balances
are still the sum of what lies there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from exchange.adapters.saga_tables import DEEDS, HORIZON, JOURNAL, SAGAS, SAID, BookTables, SayingTables
from exchange.saga import End
from exchange.shards import ids_of, partition_of_id
from exchange.types import TradeId
from kernel.time import Instant

TOGETHER: Final = 256
"""Sagas forgotten in one transaction: so long do steps wait for it."""
OPEN: Final = "open"
"""The state of a saga that did not end."""


class Ended(NamedTuple):
    """Sagas of one part that can be forgotten: up to which trade, and how they ended."""

    up_to: TradeId
    settled: int
    cancelled: int


def horizons_of(connection: sa.Connection, table: sa.Table) -> dict[int, int]:
    """Return up to which trade each part is forgotten."""
    return {int(row.part): int(row.up_to) for row in connection.execute(sa.select(table.c.part, table.c.up_to))}


# --- a service ---------------------------------------------------------------------------------------------------


def raise_horizon(connection: sa.Connection, table: sa.Table, up_to: TradeId) -> None:
    """Note that every saga of a part up to this trade is forgotten; a horizon never goes back."""
    part = partition_of_id(up_to)
    known = horizons_of(connection, table).get(part)
    if known is None:
        connection.execute(sa.insert(table).values(part=part, up_to=up_to))
    elif known < up_to:
        connection.execute(sa.update(table).where(table.c.part == part).values(up_to=up_to))


def sweep(connection: sa.Connection, tables: BookTables) -> int:
    """Remove what a service keeps of some sagas behind the horizon; return of how many, 0 when nothing is left."""
    for part, up_to in sorted(horizons_of(connection, tables.horizon).items()):
        first, _ = ids_of(part)
        swept = _some(connection, (tables.remembered, tables.sayings, tables.ends), first, up_to)
        if swept:
            last = max(swept)
            _carry_over(connection, tables, first, last)
            _remove(connection, tables.moves, first, last)
            _remove(connection, tables.remembered, first, last)
            remove_said(connection, tables, first, last)
            return len(swept)
    return 0


def remove_said(connection: sa.Connection, tables: SayingTables, first: int, last: int) -> None:
    """Remove what a party says of these sagas, and the ends it heard."""
    _remove(connection, tables.sayings, first, last)
    _remove(connection, tables.ends, first, last)


def _some(connection: sa.Connection, tables: Sequence[sa.Table], first: int, up_to: int) -> set[int]:
    """Return the lowest trades of which any of the tables has something, not many more than fit together."""
    found: set[int] = set()
    last = up_to
    for table in tables:
        ids = sa.select(table.c.trade_id).where(table.c.trade_id.between(first, up_to)).distinct()
        some = [int(one) for one in connection.execute(ids.order_by(table.c.trade_id).limit(TOGETHER)).scalars()]
        found.update(some)
        if len(some) == TOGETHER:
            last = min(last, some[-1])  # behind it this table has more
    return {one for one in found if one <= last}


def _carry_over(connection: sa.Connection, tables: BookTables, first: int, last: int) -> None:
    moves, carried = tables.moves, tables.carried
    total = sa.func.sum(moves.c.amount).label("total")
    ask = sa.select(moves.c.giver, moves.c.taker, moves.c.asset, total)
    ask = ask.where(moves.c.trade_id.between(first, last)).group_by(moves.c.giver, moves.c.taker, moves.c.asset)
    net: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for row in connection.execute(ask):
        if row.giver < row.taker:
            net[row.giver, row.taker, row.asset] += int(row.total)
        elif row.giver > row.taker:  # what somebody gives himself changes nothing
            net[row.taker, row.giver, row.asset] -= int(row.total)
    for (giver, taker, asset), amount in sorted(net.items()):
        change = sa.update(carried).where(
            carried.c.giver == giver, carried.c.taker == taker, carried.c.asset == asset
        )  # fmt: skip
        if not connection.execute(change.values(amount=carried.c.amount + amount)).rowcount:
            row_ = {"giver": giver, "taker": taker, "asset": asset, "amount": amount}
            connection.execute(sa.insert(carried).values(row_))


def _remove(connection: sa.Connection, table: sa.Table, first: int, last: int) -> None:
    connection.execute(sa.delete(table).where(table.c.trade_id.between(first, last)))


# --- who begins sagas --------------------------------------------------------------------------------------------


def can_be_forgotten(connection: sa.Connection, part: int, before: Instant) -> Ended | None:
    """Return the next sagas of a part, in the order of their trades, that all ended before an instant; None: none.

    One that is open, or ended later, keeps all that come after it: trades are begun in the order of their ids.
    """
    first, last = ids_of(part)
    begin = max(first, horizons_of(connection, HORIZON).get(part, 0) + 1)
    ask = sa.select(SAGAS.c.trade_id, SAGAS.c.state, SAGAS.c.ended_at).where(SAGAS.c.trade_id.between(begin, last))
    ends: dict[int, str] = {}
    for row in connection.execute(ask.order_by(SAGAS.c.trade_id).limit(TOGETHER)):
        if row.state == OPEN or row.ended_at is None or row.ended_at >= before:
            break
        ends[int(row.trade_id)] = str(row.state)
    if not ends:
        return None
    settled = sum(state == End.SETTLED for state in ends.values())
    return Ended(TradeId(max(ends)), settled, len(ends) - settled)


def forget(connection: sa.Connection, ended: Ended) -> None:
    """Put the horizon behind these sagas, and remove what is kept of them.

    The entry with the highest number stays until a later one is there: by it a journal that went back is noticed.
    """
    part = partition_of_id(ended.up_to)
    first, _ = ids_of(part)
    change = sa.update(HORIZON).where(HORIZON.c.part == part)
    change = change.values(
        up_to=ended.up_to, settled=HORIZON.c.settled + ended.settled, cancelled=HORIZON.c.cancelled + ended.cancelled
    )
    if not connection.execute(change).rowcount:
        connection.execute(sa.insert(HORIZON).values(part=part, **ended._asdict()))
    newest = sa.select(sa.func.max(JOURNAL.c.number)).scalar_subquery()
    behind = JOURNAL.c.trade_id.between(first, ended.up_to)
    connection.execute(sa.delete(JOURNAL).where(behind, JOURNAL.c.number < newest))
    _remove(connection, SAGAS, first, ended.up_to)
    _remove(connection, DEEDS, first, ended.up_to)
    remove_said(connection, SAID, first, ended.up_to)


def ends_forgotten(connection: sa.Connection) -> dict[str, int]:
    """Return how many forgotten sagas ended in which way."""
    told = {End.SETTLED.value: 0, End.CANCELLED.value: 0}
    for row in connection.execute(sa.select(HORIZON)):
        told[End.SETTLED.value] += int(row.settled)
        told[End.CANCELLED.value] += int(row.cancelled)
    return {end: count for end, count in told.items() if count}
