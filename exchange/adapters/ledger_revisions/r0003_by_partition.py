"""How far the ledger is, for each partition of the event log by itself.

One engine numbers its commands from 1, and so does each of several. What was one row becomes that of partition 0.
"""

import sqlalchemy as sa
from alembic import op

from kernel.errors import InputError

revision = "r0003"
down_revision = "r0002"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Lay the table anew, with a row a partition."""
    seq = int(op.get_bind().exec_driver_sql("SELECT seq FROM progress").scalar_one())
    op.drop_table("progress")
    progress = op.create_table(
        "progress",
        sa.Column("part", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("seq", _WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.bulk_insert(progress, [{"part": 0, "seq": seq}])
    _note(3)


def downgrade() -> None:
    """Lay it as it was, if there is one partition only.

    Raises:
        InputError: trades of several partitions stand in the ledger.
    """
    found = op.get_bind().exec_driver_sql("SELECT part, seq FROM progress").all()
    if any(part for part, _ in found):
        raise InputError("the ledger", "holds trades of several partitions; the revision before knows one only")
    op.drop_table("progress")
    progress = op.create_table(
        "progress",
        sa.Column("one", _WHOLE, sa.CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
        sa.Column("seq", _WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.bulk_insert(progress, [{"one": 1, "seq": sum(seq for _, seq in found)}])
    _note(2)


def _note(version: int) -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"PRAGMA user_version = {version}")
