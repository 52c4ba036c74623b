"""The incident store on a real PostgreSQL that is killed in the middle: what was answered is there afterwards."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from msgspec.structs import replace
from sqlalchemy.dialects import oracle

from control.intake import Intake, StoreThread
from incidents.adapters.sql_store import SqlStore
from incidents.adapters.store_tables import META, STORE
from kernel.adapters import upsert
from kernel.adapters.database import make_engine, parse, sqlite_url
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant
from tests.contract.test_incident_store import KEY, alert, laid, note, opened, run_of
from tests.exchange.plant import eventually


async def test_no_alert_that_was_answered_is_lost_when_the_server_is_killed(own_postgres):
    server = await asyncio.to_thread(own_postgres)
    url = laid(server.create_database("store"))
    thread = StoreThread(SqlStore(url, KEY))
    intake = Intake(thread, lambda: None)
    answered: set[str] = set()
    refused = 0

    async def deliver(first: int) -> None:
        nonlocal refused
        for number in range(first, first + 60):
            while True:  # as Alertmanager does after a 503
                try:
                    await intake.take_in([alert(number)])
                except TemporaryError:
                    refused += 1
                    await asyncio.sleep(0.02)
                else:
                    answered.add(alert(number).key)
                    break

    async with asyncio.TaskGroup() as tasks:
        for first in range(0, 1200, 60):
            tasks.create_task(deliver(first))
        for share in (100, 500):
            await eventually(lambda share=share: len(answered) >= share)
            await asyncio.to_thread(server.kill)
            before = set(answered)
            await asyncio.to_thread(server.start)
            kept = {key for (key,) in await asyncio.to_thread(server.ask, "SELECT key FROM signals", "store")}
            assert before <= kept
    assert refused > 0
    assert len(answered) == 1200
    assert await thread.call(lambda store: store.backlog()) == 1200
    offsets = [offset for offset, _ in await thread.call(lambda store: store.pending(5000))]
    assert offsets == sorted(set(offsets))
    await thread.close()


def test_a_timeline_is_whole_after_every_kill_and_goes_on(own_postgres):
    server = own_postgres()
    store = SqlStore(laid(server.create_database("store")), KEY)
    store.append("I-1", [opened("I-1")])
    told = ["Opened"]
    for _ in range(2):
        for number in range(20):
            store.append("I-1", [note(f"n{len(told)} {number}")])
            told.append(f"n{len(told)} {number}")
        server.kill()
        with pytest.raises(TemporaryError, match=r"the incident store postgresql.*cannot append entries"):
            store.append("I-1", [note("lost")])
        server.start()
        assert [entry.text for entry in store.timeline("I-1")] == told
        assert store.verify("I-1") is None
    store.close()


def test_a_leader_that_was_deposed_writes_nothing_more_on_a_server_either(database):
    laid(database)
    old = SqlStore(database, KEY, epoch=3)
    first = old.new_id(Instant(0))
    new = SqlStore(database, KEY, epoch=4)
    with pytest.raises(PermanentError, match="belongs to the leader of epoch 4; ours was 3"):
        old.new_id(Instant(0))
    with pytest.raises(PermanentError, match="belongs to a leader after epoch 3"):
        SqlStore(database, KEY, epoch=3)
    assert old.incidents() == []
    assert new.new_id(Instant(0)) != first
    old.close()
    new.close()


def test_a_server_with_no_connection_left_says_so_and_keeps_what_it_has(own_postgres):
    server = own_postgres(settings={"max_connections": 4, "superuser_reserved_connections": 0, "max_wal_senders": 0,
                                    "wal_level": "minimal"})  # fmt: skip
    url = laid(server.create_database("store"))
    store = SqlStore(url, KEY)
    store.append("I-1", [opened("I-1")])
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connect())
        with pytest.raises(TemporaryError, match="no connection left; raise max_connections"):
            SqlStore(url, KEY)
        store.append("I-1", [note("goes on")])
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_the_store_goes_up_and_down_and_is_what_the_program_speaks_of(kind, request, tmp_path):
    url = sqlite_url(tmp_path / "i.sqlite") if kind == "sqlite" else request.getfixturevalue("database")
    engine = make_engine(parse(url, "test"), "test")
    try:
        with engine.begin() as connection:
            STORE.upgrade(connection)
            context = MigrationContext.configure(connection, opts={"version_table": STORE.table})
            assert compare_metadata(context, META) == []
            STORE.downgrade(connection, "base")
            assert set(sa.inspect(connection).get_table_names()) <= {"store_revision", "sqlite_sequence"}
            STORE.upgrade(connection)
    finally:
        engine.dispose()
    assert (STORE.known()[0], STORE.known()[-1]) == (STORE.first, STORE.head)
    store = SqlStore(url, KEY)
    store.append("I-1", [opened("I-1")])
    store.close()


def test_a_store_from_before_revisions_is_taken_over_with_its_incidents(tmp_path):
    path = tmp_path / "i.sqlite"
    engine = make_engine(parse(sqlite_url(path), "test"), "test")
    with engine.begin() as connection:  # what the program did before there were revisions
        META.create_all(connection)
        connection.exec_driver_sql("INSERT INTO tapewatch_store VALUES (1)")
        connection.exec_driver_sql("INSERT INTO progress VALUES ('decided', 0)")
    engine.dispose()
    for _ in range(2):
        store = SqlStore.at(path, KEY)
        store.take_in([alert(1)])
        assert store.backlog() == 1
        store.close()


def test_every_statement_in_plain_sql_is_one_that_oracle_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(upsert, "native", lambda _: None)
    met: list[sa.ClauseElement] = []
    store = SqlStore.at(tmp_path / "i.sqlite", KEY, epoch=1)
    sa.event.listen(store._engine, "before_execute", lambda _, element, *__: met.append(element))
    store.take_in([alert(1), alert(2, resolved=True)])
    store.append("I-1", [opened("I-1")])
    store.start_run(run_of("r1"), [note("run")])
    store.advance("r1", [(1, "question", b"q")], [note("asked")])
    store.end_run(replace(run_of("r1"), ended_at=Instant(9), outcome="mended"))
    store.new_id(Instant(0))
    store.decide(2, {"I-1": [note("decided")]})
    store.pending()
    store.backlog()
    store.ended([alert(2).fingerprint])
    store.incidents(limit=3)
    store.run_journal("r1")
    store.open_runs()
    store.runs_since(Instant(0))
    assert store.verify("I-1") is None
    store.close()
    told = {str(element.compile(dialect=oracle.dialect())) for element in met if isinstance(element, sa.ClauseElement)}
    assert len(told) > 25
    assert not [one for one in told if "ON CONFLICT" in one or "LIMIT " in one]
    for table in META.sorted_tables:
        assert str(sa.schema.CreateTable(table).compile(dialect=oracle.dialect()))
