"""Which commits of the SQL store wait for the disk."""

import pytest

from incidents.adapters.sql_store import SqlStore
from incidents.signals import Status, own_signal
from kernel.time import Instant

FULL, NORMAL = 2, 1


@pytest.fixture
def store(tmp_path):
    store = SqlStore.at(tmp_path / "incidents.sqlite", b"k" * 32)
    yield store
    store.close()


def waits(store):
    return store._connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == FULL


def signal(number):
    labels = {"alertname": "A", "service": "gateway", "number": str(number)}
    return own_signal(labels, {}, status=Status.FIRING, starts_at=Instant(1), received_at=Instant(2))


def test_a_signal_taken_in_waits_for_the_disk_whatever_came_before_it(store):
    for number in range(3):
        store.take_in([signal(number)])
        assert waits(store)
        store._connection.rollback()
        store.decide(number + 1, {})
        assert not waits(store), "a decision can be taken again"
        store._connection.rollback()


def test_a_number_waits_for_nothing_and_is_never_given_twice(store):
    first = store.new_id(Instant(0))
    assert not waits(store)
    store._connection.rollback()
    assert store.new_id(Instant(0)) != first
