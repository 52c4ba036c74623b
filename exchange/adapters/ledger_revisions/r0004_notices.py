"""Notices, beside the ledger: those that were told, and how far the events of each part are told."""

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision = "r0003"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Lay the tables."""
    op.create_table(
        "notices",
        sa.Column("number", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("id", _text(128), nullable=False, unique=True),
        sa.Column("account", _text(128), nullable=True),
        sa.Column("notice", _text(2000), nullable=False),
        sqlite_strict=True,
    )
    op.create_index("notices_account", "notices", ["account", "number"])
    op.create_table(
        "notice_places",
        sa.Column("part", _WHOLE, primary_key=True, autoincrement=False),
        sa.Column("seq", _WHOLE, nullable=False),
        sqlite_strict=True,
    )
    _note(4)


def downgrade() -> None:
    """Drop them: notices that were kept are lost, and told anew from the events when the tables come again."""
    op.drop_table("notice_places")
    op.drop_index("notices_account", "notices")
    op.drop_table("notices")
    _note(3)


def _note(version: int) -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"PRAGMA user_version = {version}")
