"""How tables come from one revision to the next and back: Alembic's machinery, one directory of revisions a room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from kernel.errors import InputError

BASE = "base"
"""No tables at all."""


def _nothing_to_adopt(_: sa.Connection) -> bool:
    return False


@dataclass(frozen=True)
class Revisions:
    """The revisions of one room's tables."""

    name: str
    """What is kept in them, for messages: `ledger`, `incident store`."""
    directory: Path
    """Where the revisions lie, a file each."""
    table: str
    """Where a database keeps which revision it is of."""
    head: str
    """The revision that this program reads and writes."""
    first: str
    """The revision of databases from before there were any."""
    adopt: Callable[[sa.Connection], bool] = _nothing_to_adopt
    """Tells whether a database without a revision is one of those."""

    def current(self, connection: sa.Connection) -> str | None:
        """Return the revision a database is of; None: it holds no tables of this room.

        Raises:
            InputError: it holds other tables.
        """
        names = set(sa.inspect(connection).get_table_names())
        if self.table in names:
            column: sa.ColumnClause[str] = sa.column("version_num")
            found: str | None = connection.execute(sa.select(column).select_from(sa.table(self.table))).scalar()
            return found
        if self.adopt(connection):
            return self.first
        if names:
            raise InputError(
                shown_of(connection), f"holds other tables ({', '.join(sorted(names)[:3])})",
                right=f"name an empty database for the {self.name}",
            )  # fmt: skip
        return None

    def require(self, connection: sa.Connection) -> None:
        """Refuse a database that is not of this program's revision.

        Raises:
            InputError: says which it is of, and the command that makes it right.
        """
        found = self.current(connection)
        if found == self.head:
            return
        where = shown_of(connection)
        if found is None:
            raise InputError(
                where, f"holds no {self.name} yet", right=f"lay it: tapewatch db upgrade {self._word} --url ..."
            )
        if found in self.known():
            raise InputError(
                where, f"holds the {self.name} in revision {found}, this program reads {self.head}",
                right=f"make a copy, then: tapewatch db upgrade {self._word} --url ...",
            )  # fmt: skip
        raise InputError(
            where, f"holds the {self.name} in revision {found}, which this program does not know",
            right=f"use the program that wrote it; this one reads {self.head}",
        )  # fmt: skip

    def known(self) -> list[str]:
        """Return every revision, the oldest first."""
        return sorted(path.stem.split("_", maxsplit=1)[0] for path in self.directory.glob("r[0-9]*_*.py"))

    def upgrade(self, connection: sa.Connection, to: str = "head") -> None:
        """Bring the tables forward to a revision, in the transaction that is open; what they hold is kept.

        Raises:
            InputError: there is no such revision, or the database is of one that is not known here.
        """
        self._go(connection, to, forward=True)

    def downgrade(self, connection: sa.Connection, to: str) -> None:
        """Bring the tables back to a revision; `base` drops them.

        Raises:
            InputError: as for `upgrade`.
        """
        self._go(connection, to, forward=False)

    def _go(self, connection: sa.Connection, to: str, *, forward: bool) -> None:
        if to == "head" and self._is_at_head(connection):
            return
        # Alembic costs every process that loads it some megabytes; only a change of tables needs it.
        from alembic import command
        from alembic.config import Config
        from alembic.util.exc import CommandError

        found = self.current(connection)
        allowed = {*self.known(), "head" if forward else BASE}
        if to not in allowed:
            raise InputError(f"revision {to}", "does not exist", right=f"known are {', '.join(sorted(allowed))}")
        if found is not None and found not in self.known():
            self.require(connection)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", str(self.directory).replace("%", "%%"))
        config.attributes.update(connection=connection, table=self.table)
        try:
            if found is not None and self.table not in sa.inspect(connection).get_table_names():
                command.stamp(config, found)
            (command.upgrade if forward else command.downgrade)(config, to)
        except CommandError as error:
            raise InputError(f"revision {to}", str(error)) from error

    def _is_at_head(self, connection: sa.Connection) -> bool:
        laid = self.table in sa.inspect(connection).get_table_names()
        return laid and self.current(connection) == self.head

    @property
    def _word(self) -> str:
        return self.name.rsplit(" ", maxsplit=1)[-1]


def shown_of(connection: sa.Connection) -> str:
    """Return the address of a connection's database, without its password."""
    from kernel.adapters.database import shown

    return shown(connection.engine.url)
