"""The sagas as they were first: a book for each service, and what the coordinator or the reader of trades keeps."""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SERVICES = ("cash", "securities", "fees", "clearing")
_KEPT = """
CREATE FUNCTION saga_moves_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'moves are never changed: move it back'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'saga_moves_kept';
END $$
"""


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, _WHOLE, primary_key=key, nullable=False, autoincrement=False)


def _words(name: str, length: int, *, key: bool = False, nullable: bool = False) -> sa.Column[str]:
    kind = sa.String(length).with_variant(sa.Text(), "sqlite")
    return sa.Column(name, kind, primary_key=key, nullable=nullable)


def upgrade() -> None:
    """Lay the tables, and what keeps moves as they were written."""
    for service in _SERVICES:
        _lay_book(service)
        _lay_said(service)
    _lay_said("coordinator")
    op.create_table(
        "coordinator_sagas",
        _number("trade_id", key=True),
        _number("traded_at"),
        _number("begun_at"),
        _words("state", 16),
        sa.Column("ended_at", _WHOLE, nullable=True),
        sqlite_strict=True,
    )
    op.create_index("coordinator_sagas_state", "coordinator_sagas", ["state"])
    op.create_table(
        "coordinator_journal",
        _number("number", key=True),
        _number("trade_id"),
        _words("entry", 2000),
        sqlite_strict=True,
    )
    op.create_index("coordinator_journal_trade", "coordinator_journal", ["trade_id"])
    op.create_table("coordinator_progress", _number("part", key=True), _number("seq"), sqlite_strict=True)
    lead = op.create_table(
        "coordinator_lead",
        sa.Column("one", _WHOLE, sa.CheckConstraint("one = 1"), primary_key=True, autoincrement=False),
        _number("epoch"),
        sqlite_strict=True,
    )
    op.bulk_insert(lead, [{"one": 1, "epoch": 0}])
    _keep_moves()


def _lay_book(service: str) -> None:
    op.create_table(
        f"{service}_remembered",
        _number("trade_id", key=True),
        _words("step", 32, key=True),
        _words("verdict", 16),
        _words("reason", 32, nullable=True),
        sqlite_strict=True,
    )
    op.create_table(
        f"{service}_moves",
        _number("trade_id", key=True),
        _words("step", 32, key=True),
        _number("part", key=True),
        _words("giver", 128),
        _words("taker", 128),
        _words("asset", 64),
        _number("amount"),
        sa.CheckConstraint("amount > 0", name=f"{service}_moves_amount"),
        sa.ForeignKeyConstraint(["trade_id", "step"], [f"{service}_remembered.trade_id", f"{service}_remembered.step"]),
        sqlite_strict=True,
    )
    op.create_table(
        f"{service}_balances",
        _words("account", 128, key=True),
        _words("asset", 64, key=True),
        _number("amount"),
        sqlite_strict=True,
    )


def _lay_said(party: str) -> None:
    op.create_table(
        f"{party}_sayings",
        _number("trade_id", key=True),
        _number("since"),
        _words("answer", 2000),
        sqlite_strict=True,
    )
    op.create_table(f"{party}_ends", _number("trade_id", key=True), _words("answer", 2000), sqlite_strict=True)


def _keep_moves() -> None:
    name = op.get_context().dialect.name
    if name == "postgresql":
        op.execute(_KEPT)
    for service in _SERVICES:
        if name == "postgresql":
            op.execute(
                f"CREATE TRIGGER {service}_moves_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {service}_moves "
                "FOR EACH STATEMENT EXECUTE FUNCTION saga_moves_kept()"
            )
        elif name == "sqlite":
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {service}_moves_kept_{verb.lower()} BEFORE {verb} ON {service}_moves "
                    "BEGIN SELECT RAISE(ABORT, 'moves are never changed: move it back'); END"
                )


def downgrade() -> None:
    """Drop them, and all that the services hold."""
    for service in _SERVICES:
        for what in ("moves", "remembered", "balances"):
            op.drop_table(f"{service}_{what}")
    for party in (*_SERVICES, "coordinator"):
        for what in ("sayings", "ends"):
            op.drop_table(f"{party}_{what}")
    for what in ("sagas", "journal", "progress", "lead"):
        op.drop_table(f"coordinator_{what}")
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION saga_moves_kept()")
