"""What the coordinator of the sagas keeps in a database: its journal, which sagas there are, how far trades were read.

The journal is what it goes by; the sagas' states let a restart read only the entries of those that are open. Who reads
the trades where no coordinator leads keeps what it says instead of a journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import sqlalchemy as sa

from exchange.adapters import saga_forgetting
from exchange.adapters.saga_database import SagaDatabase, add_rows, parts_of
from exchange.adapters.saga_forgetting import OPEN, can_be_forgotten, ends_forgotten, horizons_of
from exchange.adapters.saga_store import Said, ends_of, keep, kept
from exchange.adapters.saga_tables import DEEDS, HORIZON, JOURNAL, LEAD, PROGRESS, SAGAS, SAID
from exchange.saga import Answer, End, Instruction, is_behind
from exchange.saga_choreography import Saying
from exchange.saga_coordinator import Begun, Entry, GaveUp, Told
from exchange.types import TradeId
from kernel.errors import PermanentError
from kernel.time import Instant

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Entry).decode


class Trade(NamedTuple):
    """A trade to be settled, and when it was made."""

    instruction: Instruction
    at: Instant


class Place(NamedTuple):
    """How far the trades of one part of the exchange were read."""

    part: int
    seq: int


class Note(NamedTuple):
    """What a person did to a saga."""

    at: Instant
    deed: str
    who: str
    why: str


class History(NamedTuple):
    """All that is kept of one saga."""

    state: str
    """`open`, or how it ended."""
    traded_at: Instant
    begun_at: Instant
    ended_at: Instant | None
    entries: list[Entry]
    """Of the journal, where a coordinator leads."""
    saying: Saying | None
    """What is said of it, where none does."""
    end: Answer | None
    notes: list[Note]


class SagaJournal:
    """The one writer's. Calls block on the disk or the server and come from one thread at a time."""

    def __init__(self, place: Path | str, *, password: str = "") -> None:
        """Open it, and lead from now on: an earlier one that still runs writes no more.

        Raises:
            InputError: the URL or the login is wrong, or the database holds something else or another revision.
            PermanentError: it cannot be used.
            TemporaryError: the database does not answer.
        """
        self._database: Final = SagaDatabase(place, "the coordinator's journal", password=password)
        try:
            self._epoch, self._number, self._places = self._database.run("be written", _lead)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def seq(self, part: int = 0) -> int:
        """Return up to which record the trades of a part were read; 0: none yet."""
        return self._places.get(part, 0)

    def highest(self) -> int:
        """Return the highest of `seq` over all parts."""
        return max(self._places.values(), default=0)

    def entries(self) -> list[Entry]:
        """Return the entries of all open sagas, in order."""
        ask = sa.select(JOURNAL.c.entry).join(SAGAS, SAGAS.c.trade_id == JOURNAL.c.trade_id)
        ask = ask.where(SAGAS.c.state == OPEN).order_by(JOURNAL.c.number)
        return self._database.run("be read", lambda one: [_decode(entry) for entry in one.execute(ask).scalars()])

    def traded_at(self) -> dict[TradeId, Instant]:
        """Return when the trades of all open sagas were made."""
        ask = sa.select(SAGAS.c.trade_id, SAGAS.c.traded_at).where(SAGAS.c.state == OPEN)
        return self._database.run(
            "be read", lambda one: {TradeId(row.trade_id): Instant(row.traded_at) for row in one.execute(ask)}
        )

    def states(self) -> dict[str, int]:
        """Return how many sagas are open, and how many ended in each way, those that are forgotten among them."""
        ask = sa.select(SAGAS.c.state, sa.func.count()).group_by(SAGAS.c.state)

        def work(connection: sa.Connection) -> dict[str, int]:
            told = Counter({str(state): int(n) for state, n in connection.execute(ask)})
            told.update(ends_forgotten(connection))
            return dict(told)

        return self._database.run("be read", work)

    def horizons(self) -> dict[int, int]:
        """Return up to which trade the sagas of each part are forgotten."""
        return self._database.run("be read", lambda one: horizons_of(one, HORIZON))

    def forget(self, before: Instant) -> int:
        """Forget some sagas that ended before an instant; return how many, 0 when there are none (yet).

        Raises:
            TemporaryError: as for `begin`.
            PermanentError: as for `begin`.
        """

        def work(connection: sa.Connection) -> int:
            self._check(connection)
            found = [can_be_forgotten(connection, part, before) for part in sorted(self._places)]
            for ended in found:
                if ended is not None:
                    saga_forgetting.forget(connection, ended)
            return sum(ended.settled + ended.cancelled for ended in found if ended is not None)

        return self._database.run("be tidied, nothing was forgotten", work)

    def begin(self, trades: Sequence[Trade], now: Instant, place: Place) -> list[Begun]:
        """Begin the sagas of trades that were not met before, and note how far was read; return the new entries.

        Raises:
            TemporaryError: the database is away or too busy; nothing is known to have been written.
            PermanentError: another coordinator leads, or the database lost what it had.
        """

        def work(connection: sa.Connection) -> list[Begun]:
            self._check(connection)
            new = self._new(connection, trades, now, place)
            entries = [Begun(now, trade.instruction) for trade in new]
            self._append(connection, entries)
            return entries

        entries = self._database.run("be written, nothing was begun", work)
        self._wrote(len(entries), place)
        return entries

    def append(
        self, entries: Sequence[Entry], ended: Mapping[TradeId, End], now: Instant, note: Note | None = None
    ) -> None:
        """Add entries, and note which sagas they end, in one transaction; with `note`, who had the first one made.

        Raises:
            TemporaryError: as for `begin`.
            PermanentError: as for `begin`.
        """

        def work(connection: sa.Connection) -> None:
            self._check(connection)
            self._append(connection, entries)
            _end(connection, ended, now)
            if note is not None:
                _note(connection, _saga_of(entries[0]), note)

        self._database.run("be written, nothing was noted", work)
        self._wrote(len(entries))

    def begin_saying(
        self, trades: Sequence[Trade], begun: Mapping[TradeId, Saying], now: Instant, place: Place
    ) -> set[TradeId]:
        """Keep that these sagas begin, as far as they were not met before; return which those are.

        Raises:
            TemporaryError: as for `begin`.
            PermanentError: as for `begin`.
        """

        def work(connection: sa.Connection) -> set[TradeId]:
            self._check(connection)
            new = {trade.instruction.trade_id for trade in self._new(connection, trades, now, place)}
            keep(connection, SAID, Said({one: begun[one] for one in new}, {}))
            return new

        new = self._database.run("be written, nothing was begun", work)
        self._wrote(0, place)
        return new

    def said(self, said: Said, ended: Mapping[TradeId, End], now: Instant, note: Note | None = None) -> None:
        """Keep what is said from now on, and which sagas ended; with `note`, who had the first thing said.

        Raises:
            TemporaryError: as for `begin`.
            PermanentError: as for `begin`.
        """

        def work(connection: sa.Connection) -> None:
            self._check(connection)
            known = ends_of(connection, SAID, said.ends)
            keep(connection, SAID, Said(said.sayings, {one: end for one, end in said.ends.items() if one not in known}))
            _end(connection, ended, now)
            if note is not None:
                _note(connection, next(iter(said.sayings)), note)

        self._database.run("be written, nothing was kept", work)

    def note(self, trade_id: TradeId, note: Note) -> None:
        """Keep what a person did to a saga, where nothing else is to be written.

        Raises:
            TemporaryError: as for `begin`.
            PermanentError: as for `begin`.
        """

        def work(connection: sa.Connection) -> None:
            self._check(connection)
            _note(connection, trade_id, note)

        self._database.run("be written, nothing was done", work)

    def history(self, trade_id: TradeId) -> History | None:
        """Return all that is kept of a saga; None: it was not begun, or is forgotten."""

        def work(connection: sa.Connection) -> History | None:
            row = connection.execute(sa.select(SAGAS).where(SAGAS.c.trade_id == trade_id)).first()
            if row is None:
                return None
            entries = sa.select(JOURNAL.c.entry).where(JOURNAL.c.trade_id == trade_id).order_by(JOURNAL.c.number)
            notes = sa.select(DEEDS).where(DEEDS.c.trade_id == trade_id).order_by(DEEDS.c.number)
            return History(
                row.state, Instant(row.traded_at), Instant(row.begun_at),
                None if row.ended_at is None else Instant(row.ended_at),
                [_decode(entry) for entry in connection.execute(entries).scalars()],
                next(iter(kept(connection, SAID, trade_id)), None),
                ends_of(connection, SAID, [trade_id]).get(trade_id),
                [Note(Instant(one.at), one.deed, one.who, one.reason) for one in connection.execute(notes)],
            )  # fmt: skip

        return self._database.run("be read", work)

    def sayings(self) -> list[Saying]:
        """Return what is said until the end of its saga is heard."""
        return self._database.run("be read", lambda one: kept(one, SAID))

    def ends(self, trade_ids: Sequence[TradeId]) -> dict[TradeId, Answer]:
        """Return the ends that were heard of these sagas."""
        return self._database.run("be read", lambda one: ends_of(one, SAID, trade_ids))

    def _check(self, connection: sa.Connection) -> None:
        """Refuse to write where another leads, or on a database that lost what it had (a stand-by took over)."""
        last = sa.select(sa.func.coalesce(sa.func.max(JOURNAL.c.number), 0)).scalar_subquery()
        epoch, number = connection.execute(sa.select(LEAD.c.epoch, last)).one()
        if epoch > self._epoch:
            raise PermanentError(f"{self._database.where}: another coordinator leads since; this one writes no more")
        if (epoch, number) != (self._epoch, self._number):
            raise PermanentError(
                f"{self._database.where} ends at entry {number}, and {self._number} was the last that was written: it "
                "lost what it had, or another wrote; the coordinator has to begin again from what is there"
            )

    def _new(self, connection: sa.Connection, trades: Sequence[Trade], now: Instant, place: Place) -> list[Trade]:
        known: set[int] = set()
        by_id = {trade.instruction.trade_id: trade for trade in reversed(trades)}
        for ids in parts_of(by_id):
            known.update(connection.execute(sa.select(SAGAS.c.trade_id).where(SAGAS.c.trade_id.in_(ids))).scalars())
        horizons = horizons_of(connection, HORIZON)
        known.update(one for one in by_id if is_behind(one, horizons))
        new = [by_id[one] for one in dict.fromkeys(trade.instruction.trade_id for trade in trades) if one not in known]
        add_rows(connection, SAGAS, [(trade.instruction.trade_id, trade.at, now, OPEN, None) for trade in new])
        change = sa.update(PROGRESS).where(PROGRESS.c.part == place.part)
        if not connection.execute(change.values(seq=place.seq)).rowcount:
            add_rows(connection, PROGRESS, [(place.part, place.seq)])
        return new

    def _append(self, connection: sa.Connection, entries: Sequence[Entry]) -> None:
        rows = [
            (self._number + more, _saga_of(entry), _encode(entry).decode())
            for more, entry in enumerate(entries, start=1)
        ]
        add_rows(connection, JOURNAL, rows)

    def _wrote(self, entries: int, place: Place | None = None) -> None:
        self._number += entries
        if place is not None:
            self._places[place.part] = place.seq


def _lead(connection: sa.Connection) -> tuple[int, int, dict[int, int]]:
    connection.execute(sa.update(LEAD).values(epoch=LEAD.c.epoch + 1))
    epoch = connection.execute(sa.select(LEAD.c.epoch)).scalar_one()
    number = connection.execute(sa.select(sa.func.coalesce(sa.func.max(JOURNAL.c.number), 0))).scalar_one()
    places = {int(row.part): int(row.seq) for row in connection.execute(sa.select(PROGRESS))}
    return int(epoch), int(number), places


def _end(connection: sa.Connection, ended: Mapping[TradeId, End], now: Instant) -> None:
    for end in End:
        for ids in parts_of(trade_id for trade_id, one in ended.items() if one is end):
            connection.execute(sa.update(SAGAS).where(SAGAS.c.trade_id.in_(ids)).values(state=end.value, ended_at=now))


def _note(connection: sa.Connection, trade_id: TradeId, note: Note) -> None:
    last = sa.select(sa.func.coalesce(sa.func.max(DEEDS.c.number), 0)).where(DEEDS.c.trade_id == trade_id)
    number = int(connection.execute(last).scalar_one()) + 1
    add_rows(connection, DEEDS, [(trade_id, number, note.at, note.deed, note.who, note.why)])


def _saga_of(entry: Entry) -> TradeId:
    match entry:
        case Begun():
            return entry.instruction.trade_id
        case Told():
            return entry.answer.instruction.trade_id
        case GaveUp():
            return entry.trade_id
