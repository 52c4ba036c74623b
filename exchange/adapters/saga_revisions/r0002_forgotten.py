"""What sagas that ended long ago leave behind, and what people did to sagas.

Moves go once what they came to is carried over and the horizon is past their trade; the database lets none go before.
"""

import sqlalchemy as sa
from alembic import op

from kernel.errors import InputError

revision = "r0002"
down_revision = "r0001"

_WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SERVICES = ("cash", "securities", "fees", "clearing")
_PART_BITS = 47
"""Of a trade's id, below the number of its part; as `exchange.shards` had it."""
_REFUSED = "moves are never changed: move it back"
_GONE = """
CREATE FUNCTION {service}_moves_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM {service}_horizon WHERE part = OLD.trade_id >> {bits} AND up_to >= OLD.trade_id) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '{refused}'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'saga_moves_kept';
END $$
"""
_GONE_SQLITE = """
CREATE TRIGGER {service}_moves_kept_delete BEFORE DELETE ON {service}_moves WHEN NOT EXISTS
    (SELECT 1 FROM {service}_horizon WHERE part = OLD.trade_id >> {bits} AND up_to >= OLD.trade_id)
BEGIN SELECT RAISE(ABORT, '{refused}'); END
"""


def _number(name: str, *, key: bool = False) -> sa.Column[int]:
    return sa.Column(name, _WHOLE, primary_key=key, nullable=False, autoincrement=False)


def _words(name: str, length: int, *, key: bool = False) -> sa.Column[str]:
    kind = sa.String(length).with_variant(sa.Text(), "sqlite")
    return sa.Column(name, kind, primary_key=key, nullable=False)


def upgrade() -> None:
    """Lay what forgetting needs, and let moves behind the horizon go."""
    for service in _SERVICES:
        op.create_table(f"{service}_horizon", _number("part", key=True), _number("up_to"), sqlite_strict=True)
        op.create_table(
            f"{service}_carried",
            _words("giver", 128, key=True),
            _words("taker", 128, key=True),
            _words("asset", 64, key=True),
            _number("amount"),
            sa.CheckConstraint("giver < taker", name=f"{service}_carried_order"),
            sqlite_strict=True,
        )
        _let_go(service)
    op.create_table(
        "coordinator_horizon",
        _number("part", key=True),
        _number("up_to"),
        _number("settled"),
        _number("cancelled"),
        sqlite_strict=True,
    )
    op.create_table(
        "coordinator_deeds",
        _number("trade_id", key=True),
        _number("number", key=True),
        _number("at"),
        _words("deed", 16),
        _words("who", 200),
        _words("reason", 1000),
        sqlite_strict=True,
    )


def _let_go(service: str) -> None:
    name = op.get_context().dialect.name
    if name == "postgresql":
        op.execute(f"DROP TRIGGER {service}_moves_kept ON {service}_moves")
        op.execute(
            f"CREATE TRIGGER {service}_moves_kept BEFORE UPDATE OR TRUNCATE ON {service}_moves "
            "FOR EACH STATEMENT EXECUTE FUNCTION saga_moves_kept()"
        )
        op.execute(_GONE.format(service=service, bits=_PART_BITS, refused=_REFUSED))
        op.execute(
            f"CREATE TRIGGER {service}_moves_gone BEFORE DELETE ON {service}_moves "
            f"FOR EACH ROW EXECUTE FUNCTION {service}_moves_gone()"
        )
    elif name == "sqlite":
        op.execute(f"DROP TRIGGER {service}_moves_kept_delete")
        op.execute(_GONE_SQLITE.format(service=service, bits=_PART_BITS, refused=_REFUSED))


def downgrade() -> None:
    """Take it away, as long as nothing was forgotten.

    Raises:
        InputError: something was: without the horizon, what comes again would be done again.
    """
    for party in (*_SERVICES, "coordinator"):
        if op.get_bind().execute(sa.select(sa.column("part")).select_from(sa.table(f"{party}_horizon"))).first():
            raise InputError(
                "the sagas", "were forgotten in part; the revision before would do again what comes again of them"
            )
    for service in _SERVICES:
        _keep(service)
        op.drop_table(f"{service}_carried")
        op.drop_table(f"{service}_horizon")
    op.drop_table("coordinator_horizon")
    op.drop_table("coordinator_deeds")


def _keep(service: str) -> None:
    name = op.get_context().dialect.name
    if name == "postgresql":
        op.execute(f"DROP TRIGGER {service}_moves_gone ON {service}_moves")
        op.execute(f"DROP FUNCTION {service}_moves_gone()")
        op.execute(f"DROP TRIGGER {service}_moves_kept ON {service}_moves")
        op.execute(
            f"CREATE TRIGGER {service}_moves_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON {service}_moves "
            "FOR EACH STATEMENT EXECUTE FUNCTION saga_moves_kept()"
        )
    elif name == "sqlite":
        op.execute(f"DROP TRIGGER {service}_moves_kept_delete")
        op.execute(
            f"CREATE TRIGGER {service}_moves_kept_delete BEFORE DELETE ON {service}_moves "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSED}'); END"
        )
