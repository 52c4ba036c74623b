"""Notices in the ledger's database: how far they are told, and those that were told, each once by its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from exchange.adapters.ledger_tables import LEDGER, NOTICE_PLACES, NOTICES
from exchange.adapters.saga_database import SagaDatabase, add_rows, parts_of
from exchange.notices import Kept, Notice, kept_body

KEPT_MAX: Final = 100_000
"""Notices that are kept; of more the oldest go."""
_LOOK_EVERY: Final = 1_000
"""After so many more it is looked whether some have to go."""
_BEGUN: Final = -1
_decode: Final = msgspec.json.Decoder(Notice).decode


class NoticeStore:
    """Calls block on the disk or the server and come from one thread at a time."""

    def __init__(self, place: Path | str, *, password: str = "", kept_max: int = KEPT_MAX) -> None:
        """Open the tables: in an SQLite file of their own, or beside the ledger in a database by its URL.

        Raises:
            InputError: the URL or the login is wrong, or the database holds something else or another revision.
            PermanentError: it cannot be used.
            TemporaryError: the database does not answer.
        """
        self._kept_max: Final = kept_max
        self._database: Final = SagaDatabase(place, "the notices", password=password, tables=LEDGER)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def begin(self, settled: Mapping[int, int]) -> None:
        """Begin with what is settled from now on, the first time ever: what was before is no news.

        Raises:
            TemporaryError: the database is away or too busy; nothing was noted, or all.
        """

        def work(connection: sa.Connection) -> None:
            if connection.execute(sa.select(NOTICE_PLACES.c.part)).first() is None:
                add_rows(connection, NOTICE_PLACES, [(_BEGUN, 0), *settled.items()])

        self._database.run("be written", work)

    def place(self, part: int) -> int:
        """Return up to which number the events of a part are told; 0: none is."""
        ask = sa.select(NOTICE_PLACES.c.seq).where(NOTICE_PLACES.c.part == part)
        return self._database.run("be read", lambda one: int(one.execute(ask).scalar_one_or_none() or 0))

    def reach(self, part: int, seq: int) -> None:
        """Note that the events of a part are told up to a number; one that is smaller than before changes nothing.

        Raises:
            TemporaryError: the database is away or too busy; told again they are the same notices.
        """
        table = NOTICE_PLACES.c

        def work(connection: sa.Connection) -> None:
            known = connection.execute(sa.select(table.seq).where(table.part == part)).scalar_one_or_none()
            if known is None:
                add_rows(connection, NOTICE_PLACES, [(part, seq)])
            elif known < seq:
                connection.execute(sa.update(NOTICE_PLACES).where(table.part == part).values(seq=seq))

        self._database.run("be written, nothing was noted", work)

    def keep(self, notices: Sequence[Notice]) -> int:
        """Keep those that are not there yet, in one transaction; return how many those were.

        Raises:
            TemporaryError: the database is away or too busy; kept again they are there once.
            PermanentError: it refuses for good.
        """

        def work(connection: sa.Connection) -> int:
            known: set[str] = set()
            for ids in parts_of(one.id for one in notices):
                known.update(connection.execute(sa.select(NOTICES.c.id).where(NOTICES.c.id.in_(ids))).scalars())
            new = [one for one in {one.id: one for one in reversed(notices)}.values() if one.id not in known][::-1]
            if not new:
                return 0
            last = int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(NOTICES.c.number), 0))).scalar_one())
            rows = [(number, one.id, one.account or None, kept_body(one)) for number, one in enumerate(new, last + 1)]
            add_rows(connection, NOTICES, rows)
            if (last + len(new)) // _LOOK_EVERY > last // _LOOK_EVERY:
                old = NOTICES.c.number <= last + len(new) - self._kept_max
                connection.execute(sa.delete(NOTICES).where(old))
            return len(new)

        return self._database.run("be written, nothing was kept", work)

    def look(self, most: int, *, account: str = "", after: int | None = None) -> list[Kept]:
        """Return notices as they were kept: the newest, or the first after a number; of one account, or of all.

        Raises:
            TemporaryError: the database is away or too busy.
        """
        number = NOTICES.c.number
        ask = sa.select(number, NOTICES.c.notice).limit(most)
        if account:
            ask = ask.where(NOTICES.c.account == account)
        ask = ask.order_by(number.desc()) if after is None else ask.where(number > after).order_by(number)
        rows = self._database.run("be read", lambda one: one.execute(ask).all())
        found = [Kept(int(row.number), _decode(row.notice)) for row in rows]
        return found[::-1] if after is None else found
