"""A ledger comes from one revision to the next and back with everything that it holds."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import oracle

from exchange.adapters import settlement_store
from exchange.adapters.ledger_tables import LEDGER, META
from exchange.adapters.settlement_store import SettlementStore
from kernel.adapters.database import make_engine, parse, sqlite_url
from kernel.errors import InputError
from tests.exchange.plant import INSTRUMENTS
from tests.exchange.test_settlement import happenings, trades_of

OF_OLD = """
CREATE TABLE trades (
    trade_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, at INTEGER NOT NULL, symbol TEXT NOT NULL,
    price INTEGER NOT NULL, quantity INTEGER NOT NULL, buyer TEXT NOT NULL, seller TEXT NOT NULL
) STRICT;
CREATE TABLE postings (
    trade_id INTEGER NOT NULL REFERENCES trades, account TEXT NOT NULL, asset TEXT NOT NULL, amount INTEGER NOT NULL
) STRICT;
CREATE TABLE balances (
    account TEXT NOT NULL, asset TEXT NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (account, asset)
) STRICT, WITHOUT ROWID;
CREATE TABLE progress (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL) STRICT;
INSERT INTO progress VALUES (1, 4);
INSERT INTO trades VALUES (1, 4, 4, 'AAA', 10, 5, 'ann', 'bob');
INSERT INTO postings VALUES (1, 'ann', '$cash', -50), (1, 'bob', '$cash', 50), (1, 'ann', 'AAA', 5), (1, 'bob', 'AAA', -5);
INSERT INTO balances SELECT account, asset, amount FROM postings;
PRAGMA user_version = 1;
"""  # noqa: E501
TABLES = ("trades", "postings", "balances", "progress")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def engine(request, tmp_path):
    sqlite = request.param == "sqlite"
    url = sqlite_url(tmp_path / "ledger.sqlite") if sqlite else request.getfixturevalue("database")
    made = make_engine(parse(url, "test"), "test")
    yield made
    made.dispose()


def rows(connection):
    return {name: sorted(map(tuple, connection.exec_driver_sql(f"SELECT * FROM {name}"))) for name in TABLES}


def test_up_and_down_and_up_again_keeps_every_row(engine):
    with engine.begin() as connection:
        LEDGER.upgrade(connection)
    with contextlib.closing(SettlementStore(engine.url.render_as_string(hide_password=False), INSTRUMENTS)) as store:
        store.settle(happenings(300))
        told = store.balances()
    with engine.begin() as connection:
        before = rows(connection)
        assert len(before["trades"]) == len(trades_of(happenings(300)))
        LEDGER.downgrade(connection, "r0001")
        assert (LEDGER.current(connection), rows(connection)) == ("r0001", before | {"progress": [(1, 300)]})
        with pytest.raises(InputError, match="in revision r0001, this program reads r0004; make a copy, then"):
            LEDGER.require(connection)
    with engine.begin() as connection:
        LEDGER.upgrade(connection)
        assert (LEDGER.current(connection), rows(connection)) == ("r0004", before)
    with contextlib.closing(SettlementStore(engine.url.render_as_string(hide_password=False), INSTRUMENTS)) as store:
        assert store.balances() == told
    with engine.begin() as connection:
        LEDGER.downgrade(connection, "base")
        assert set(sa.inspect(connection).get_table_names()) <= {"ledger_revision"}
        LEDGER.upgrade(connection)


def test_a_ledger_of_several_partitions_does_not_go_back_to_where_there_was_one(engine):
    with engine.begin() as connection:
        LEDGER.upgrade(connection)
    with contextlib.closing(SettlementStore(engine.url.render_as_string(hide_password=False), INSTRUMENTS)) as store:
        store.settle(happenings(100))
        store.settle(happenings(200), partition=2)
        assert store.seqs() == {0: 100, 2: 200}
    with engine.begin() as connection:
        before = rows(connection)
    with pytest.raises(InputError, match="holds trades of several partitions"), engine.begin() as connection:
        LEDGER.downgrade(connection, "r0002")
    with engine.begin() as connection:
        assert (LEDGER.current(connection), rows(connection)) == ("r0004", before)


def test_what_the_revisions_lay_is_what_the_program_speaks_of(engine):
    with engine.begin() as connection:
        LEDGER.upgrade(connection)
        context = MigrationContext.configure(connection, opts={"version_table": LEDGER.table})
        assert compare_metadata(context, META) == []


def test_the_head_is_the_newest_revision():
    assert (LEDGER.first, LEDGER.head) == (LEDGER.known()[0], LEDGER.known()[-1])


def test_a_revision_that_fails_leaves_the_database_as_it_was(engine, tmp_path):
    with engine.begin() as connection:
        LEDGER.upgrade(connection)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER postings_kept_delete")
        else:
            connection.exec_driver_sql("DROP TRIGGER postings_conserved ON postings")
    with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
        LEDGER.downgrade(connection, "r0001")
    with engine.begin() as connection:
        assert LEDGER.current(connection) == "r0004"
        assert "postings_trade" in {one["name"] for one in sa.inspect(connection).get_indexes("postings")}


def test_an_unknown_revision_is_refused_by_name(engine):
    with engine.begin() as connection, pytest.raises(InputError, match="revision r7: does not exist; known are"):
        LEDGER.upgrade(connection, "r7")


def test_a_ledger_from_before_revisions_is_taken_over_with_its_money(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(OF_OLD)
    with contextlib.closing(SettlementStore(path, INSTRUMENTS)) as store:
        assert (store.seq, store.trades(), store.balances()["bob", "$cash"]) == (4, 1, 50)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT version_num FROM ledger_revision").fetchall() == [("r0004",)]
        assert database.execute("PRAGMA user_version").fetchone() == (4,)


def test_every_statement_of_the_plain_ledger_is_one_that_oracle_takes(tmp_path):
    met = []
    with contextlib.closing(SettlementStore(tmp_path / "ledger.sqlite", INSTRUMENTS)) as store:
        sa.event.listen(store._engine, "before_execute", lambda _, element, *__: met.append(element))
        store.settle(happenings(100))
        store.settle(happenings(100))
        with store._connection.begin():
            store._reconcile()
        assert [store.imbalance(), store.trades(), store.seq] == [0, len(trades_of(happenings(100))), 100]
        store.balances()
        store.trade_ids()
    told = {str(element.compile(dialect=oracle.dialect())) for element in met if isinstance(element, sa.ClauseElement)}
    assert len(told) >= 13
    assert not [one for one in told if "ON CONFLICT" in one or " EXCEPT " in one or "LIMIT" in one]
    assert settlement_store._IN_MAX <= 1000
    for table in META.sorted_tables:
        assert "NUMBER(19)" in str(sa.schema.CreateTable(table).compile(dialect=oracle.dialect()))
