"""The ledger held against the journal, trade by trade: what follows from the commands must stand in it once, and equal.

The journal is replayed by an engine of its own, so that nothing that settlement was told by others is believed. Counts
alone would not do: one trade that is missing and one that stands there twice leave them as they are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from exchange.adapters.journal_place import journal_records, parts_of
from exchange.adapters.ledger_tables import BALANCES, POSTINGS, TRADES
from exchange.engine import Engine
from exchange.events import Traded
from exchange.journal import decode_command
from exchange.ledger import money_per_tick, postings
from exchange.listing import Listing
from exchange.shards import partition_of_id, whole_id
from kernel.adapters.database import make_engine, parse, shown, sqlite_url
from kernel.adapters.sql_errors import translated

MAX_EXAMPLES: Final = 20
Row = tuple[int, int, str, int, int, str, str]
"""A trade without its id: number and instant of its command, symbol, price in ticks, lots, buyer, seller."""
Move = tuple[str, str, int]
"""Account, asset, amount."""


class Books(msgspec.Struct):
    """Trades and their postings by trade id, as somebody has them."""

    rows: list[tuple[int, Row]] = []
    moves: dict[int, Counter[Move]] = {}
    balances: dict[tuple[str, str], int] | None = None
    """What every account has, as it is kept beside the postings; None where only these are known."""


class LedgerCheck(msgspec.Struct, frozen=True):
    """How the two agree, in trades but for `accounts`."""

    journal: int
    """That follow from the journal."""
    ledger: int
    """Of the same commands, in the ledger; each as often as it stands there."""
    missing: int
    doubled: int
    """In the ledger more than once, or posted more than once."""
    differing: int
    """In both, with another price, party, posting or amount."""
    strange: int
    """In the ledger, and following from no command."""
    accounts: int
    """Pairs of an account and a currency or symbol whose sum differs from the journal's, or from the kept balance."""
    examples: tuple[str, ...] = ()
    """The first of what is wrong, in words."""

    @property
    def clean(self) -> bool:
        """Whether the ledger is what follows from the journal."""
        return not (self.missing or self.doubled or self.differing or self.strange or self.accounts)

    def told(self) -> str:
        """Return it as one line for a report."""
        both = f"{self.journal} trades in journal and ledger"
        if self.ledger != self.journal:
            both = f"{self.journal} trades in the journal, {self.ledger} in the ledger"
        return (
            f"{both}, {self.missing} missing, {self.doubled} twice, {self.differing} differing, {self.strange} of no "
            f"command; {self.accounts} sums differ"
        )


def from_journal(journal: Path, listing: Listing) -> tuple[Books, dict[int, int]]:
    """Return what follows from a journal, which may be in use, and the last command that was read of each partition.

    Raises:
        PermanentError: it is damaged or of another version.
        TemporaryError: it is in Kafka, and no broker answers.
    """
    money = {one.symbol: money_per_tick(one) for one in listing.instruments}
    books, until = Books(), {}
    for part in parts_of(journal):
        engine, seq = Engine(part.instruments(listing.instruments), listing.venue), 0
        for record in journal_records(part.directory):
            command = decode_command(record.payload)
            seq = command.seq
            for event in engine.apply(command):
                if isinstance(event, Traded):
                    number = whole_id(part.partition, event.trade_id)
                    row = (seq, command.at, event.symbol, event.price, event.quantity, event.buyer, event.seller)
                    books.rows.append((number, row))
                    entries = postings(event, money[event.symbol])
                    books.moves[number] = Counter((one.account, one.asset, one.amount) for one in entries)
        until[part.partition] = seq
    return books, until


class LedgerReader:
    """Reads a ledger that settlement is writing; changes nothing in it."""

    def __init__(self, place: Path | str, *, password: str = "") -> None:
        """Read an SQLite file, or a database by its URL.

        Raises:
            InputError: the URL is wrong.
        """
        url = parse(sqlite_url(place) if isinstance(place, Path) else place, "ledger", password=password)
        self._where: Final = f"{shown(url)}: the ledger"
        self._engine: Final = make_engine(url, "ledger", isolation="REPEATABLE READ")

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def trades(self) -> int:
        """Return how many trades are in it.

        Raises:
            TemporaryError: the database does not answer.
        """
        with translated(self._where, "be read"), self._engine.connect() as one:
            return int(one.execute(sa.select(sa.func.count()).select_from(TRADES)).scalar_one())

    def read(self) -> Books:
        """Return everything in it as it is at one moment.

        Raises:
            TemporaryError: the database does not answer.
        """
        with translated(self._where, "be read"), self._engine.connect() as one, one.begin():
            rows = [(int(row.trade_id), _row(row)) for row in one.execute(sa.select(TRADES))]
            moves: defaultdict[int, Counter[Move]] = defaultdict(Counter)
            for number, account, asset, amount in one.execute(sa.select(POSTINGS)):
                moves[int(number)][account, asset, int(amount)] += 1
            kept = {(row.account, row.asset): int(row.amount) for row in one.execute(sa.select(BALANCES))}
        return Books(rows, dict(moves), kept)


def compare(told: Books, kept: Books, until: Mapping[int, int]) -> LedgerCheck:
    """Hold a ledger against what follows from a journal; what came later is no difference.

    `until` is the last command of each partition that was read of the journal.
    """
    later = {number for number, row in kept.rows if row[0] > until.get(partition_of_id(number), row[0])}
    rows = [(number, row) for number, row in kept.rows if number not in later]
    times, contents = Counter(number for number, _ in rows), dict(rows)
    found: dict[str, list[int]] = {"missing": [], "doubled": [], "differing": []}
    for number, row in told.rows:
        want, have = told.moves[number], kept.moves.get(number, Counter())
        if not times[number]:
            found["missing"].append(number)
        elif times[number] > 1 or _again(want, have):
            found["doubled"].append(number)
        elif contents[number] != row or have != want:
            found["differing"].append(number)
    known = {number for number, _ in told.rows}
    found["strange"] = sorted((set(times) | set(kept.moves)) - known - later)
    accounts = _differing(told, kept, later)
    examples = [f"trade {number} is {what}" for what, numbers in found.items() for number in numbers[:MAX_EXAMPLES]]
    examples += [f"{account} has another sum of {asset}" for account, asset in accounts]
    return LedgerCheck(
        journal=len(told.rows), ledger=len(rows), accounts=len(accounts), examples=tuple(examples[:MAX_EXAMPLES]),
        **{what: len(numbers) for what, numbers in found.items()},
    )  # fmt: skip


def _again(want: Counter[Move], have: Counter[Move]) -> bool:
    """Tell whether every posting stands there, and more often than it should: posted twice, not otherwise."""
    return have != want and set(have) == set(want) and all(have[move] >= 2 * count for move, count in want.items())


def _differing(told: Books, kept: Books, later: set[int]) -> list[tuple[str, str]]:
    mine = _sums(told.moves.values())
    theirs = _sums(moves for number, moves in kept.moves.items() if number not in later)
    wrong = {key for key in mine.keys() | theirs.keys() if mine.get(key, 0) != theirs.get(key, 0)}
    if kept.balances is not None:
        every = _sums(kept.moves.values())
        wrong |= {key for key in every.keys() | kept.balances.keys() if every.get(key, 0) != kept.balances.get(key, 0)}
    return sorted(wrong)


def _sums(every: Iterable[Mapping[Move, int]]) -> dict[tuple[str, str], int]:
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for moves in every:
        for (account, asset, amount), times in moves.items():
            sums[account, asset] += amount * times
    return sums


def _row(row: Any) -> Row:
    return (
        int(row.seq), int(row.at), row.symbol, int(row.price), int(row.quantity), row.buyer, row.seller,
    )  # fmt: skip
