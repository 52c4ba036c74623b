"""The incident store as it was first: signals, progress, incidents, their entries, runs and their journal."""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None

_ENDED = sa.text("ends_at IS NOT NULL")


def upgrade() -> None:
    """Lay the tables."""
    version = op.create_table("tapewatch_store", sa.Column("version", sa.Integer, primary_key=True))
    op.bulk_insert(version, [{"version": 1}])
    op.create_table(
        "signals",
        sa.Column("offset", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("key", sa.String(64), nullable=False, unique=True),
        sa.Column("fingerprint", sa.String(128), nullable=False),
        sa.Column("ends_at", sa.BigInteger),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "signals_ended", "signals", ["fingerprint", "ends_at"], sqlite_where=_ENDED, postgresql_where=_ENDED
    )
    progress = op.create_table(
        "progress",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(progress, [{"name": "decided", "value": 0}])
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("state", sa.String(20), nullable=False, index=True),
        sa.Column("opened_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("incident", sa.String(40), primary_key=True),
        sa.Column("n", sa.BigInteger, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("source", "text", "data")),
        *(sa.Column(name, sa.String(64), nullable=False) for name in ("previous", "digest")),
    )
    _lay_runs()


def _lay_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("incident", sa.String(40), nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("runbook", "target", "labels")),
        sa.Column("started_at", sa.BigInteger, nullable=False, index=True),
        sa.Column("ended_at", sa.BigInteger, index=True),
        sa.Column("outcome", sa.String(40)),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("reason", "detail")),
    )
    op.create_table(
        "run_journal",
        sa.Column("run", sa.String(80), primary_key=True),
        sa.Column("n", sa.BigInteger, primary_key=True),
        sa.Column("kind", sa.String(10), primary_key=True),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drop them, and every incident with them."""
    for name in ("run_journal", "runs", "entries", "incidents", "progress", "signals", "tapewatch_store"):
        op.drop_table(name)
