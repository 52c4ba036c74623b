"""A store that leaders share belongs to the leader of the latest epoch."""

import contextlib
import sqlite3

import pytest

from incidents.adapters import sql_store
from incidents.adapters.sql_store import SqlStore
from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant

KEY = b"a key of the test, long enough"


def test_a_leader_that_was_deposed_writes_nothing_more_and_still_reads(tmp_path):
    path = tmp_path / "incidents.sqlite"
    old = SqlStore.at(path, KEY, epoch=3)
    first = old.new_id(Instant(0))
    new = SqlStore.at(path, KEY, epoch=4)
    with pytest.raises(PermanentError, match="belongs to the leader of epoch 4; ours was 3"):
        old.new_id(Instant(0))
    assert old.incidents() == []
    assert new.new_id(Instant(0)) != first
    old.close()
    new.close()


def test_a_leader_of_an_earlier_epoch_does_not_get_it_at_all(tmp_path):
    path = tmp_path / "incidents.sqlite"
    SqlStore.at(path, KEY, epoch=4).close()
    with pytest.raises(PermanentError, match="belongs to a leader after epoch 3"):
        SqlStore.at(path, KEY, epoch=3)
    SqlStore.at(path, KEY, epoch=4).close()


def test_a_takeover_in_the_middle_of_a_write_makes_the_write_fail(tmp_path):
    path = tmp_path / "incidents.sqlite"
    old = SqlStore.at(path, KEY, epoch=1)
    row = sql_store.PROGRESS.insert().values(name="x", value=1)

    def write_while_another_takes_over():
        with old._writing("test") as opened:
            SqlStore.at(path, KEY, epoch=2).close()
            opened.execute(row)

    with pytest.raises(TemporaryError, match="another process holds it"):
        write_while_another_takes_over()
    old.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert ("x",) not in connection.execute("select name from progress").fetchall()
