"""Money is conserved by the database itself: postings sum to zero in every asset, and are never changed.

PostgreSQL checks it at the end of each statement: whatever one statement adds for a trade has to sum to zero, so what
stands there always does, and a COPY of ten thousand trades is checked once. SQLite has no trigger that sees a whole
statement; there the store asks before it commits, for which it needs the index, and postings cannot be changed either.
"""

from alembic import op

revision = "r0002"
down_revision = "r0001"

_CONSERVED = """
CREATE FUNCTION postings_conserved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE wrong record;
BEGIN
    SELECT trade_id, asset, sum(amount) AS total INTO wrong FROM added
        GROUP BY trade_id, asset HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'postings of trade % do not sum to zero in % but to %', wrong.trade_id, wrong.asset, wrong.total
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'postings_conserved';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER postings_conserved AFTER INSERT ON postings REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION postings_conserved();
CREATE FUNCTION postings_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'postings are never changed: post the opposite'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'postings_kept';
END $$;
CREATE TRIGGER postings_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION postings_kept();
"""
_NOT_CONSERVED = """
DROP TRIGGER postings_kept ON postings;
DROP FUNCTION postings_kept();
DROP TRIGGER postings_conserved ON postings;
DROP FUNCTION postings_conserved();
"""


def upgrade() -> None:
    """Add the index and what the database can check by itself."""
    op.create_index("postings_trade", "postings", ["trade_id"])
    name = op.get_context().dialect.name
    if name == "postgresql":
        op.execute(_CONSERVED)
    elif name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER postings_kept_{verb.lower()} BEFORE {verb} ON postings "
                "BEGIN SELECT RAISE(ABORT, 'postings are never changed: post the opposite'); END"
            )
        op.execute("PRAGMA user_version = 2")


def downgrade() -> None:
    """Take it away again; all rows stay."""
    name = op.get_context().dialect.name
    if name == "postgresql":
        op.execute(_NOT_CONSERVED)
    elif name == "sqlite":
        for verb in ("update", "delete"):
            op.execute(f"DROP TRIGGER postings_kept_{verb}")
        op.execute("PRAGMA user_version = 1")
    op.drop_index("postings_trade", "postings")
