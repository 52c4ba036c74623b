"""The ledger as it was first: trades, postings, balances, and how far it got."""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Lay the tables."""
    op.create_table(
        "trades",
        sa.Column("trade_id", _WHOLE, primary_key=True, autoincrement=False),
        *(sa.Column(name, _WHOLE, nullable=False) for name in ("seq", "at")),
        sa.Column("symbol", _text(64), nullable=False),
        *(sa.Column(name, _WHOLE, nullable=False) for name in ("price", "quantity")),
        *(sa.Column(name, _text(128), nullable=False) for name in ("buyer", "seller")),
        sqlite_strict=True,
    )
    op.create_table(
        "postings",
        sa.Column("trade_id", _WHOLE, sa.ForeignKey("trades.trade_id"), nullable=False),
        sa.Column("account", _text(128), nullable=False),
        sa.Column("asset", _text(64), nullable=False),
        sa.Column("amount", _WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "balances",
        sa.Column("account", _text(128), primary_key=True),
        sa.Column("asset", _text(64), primary_key=True),
        sa.Column("amount", _WHOLE, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    progress = op.create_table(
        "progress",
        sa.Column("one", _WHOLE, sa.CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
        sa.Column("seq", _WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.bulk_insert(progress, [{"one": 1, "seq": 0}])
    if op.get_context().dialect.name == "sqlite":
        op.execute("PRAGMA user_version = 1")


def downgrade() -> None:
    """Drop them, and all money with them."""
    for name in ("progress", "balances", "postings", "trades"):
        op.drop_table(name)
    if op.get_context().dialect.name == "sqlite":
        op.execute("PRAGMA user_version = 0")
