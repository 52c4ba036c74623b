"""What is promised of the place where notices are kept, held against SQLite and a real PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import oracle

from exchange.adapters import notice_store
from exchange.adapters.notice_store import NoticeStore
from exchange.notices import Notice, NoticeKind
from kernel.adapters.database import sqlite_url
from kernel.time import Instant
from tests.contract.test_ledger_store import lay

BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "notices.sqlite")
    return lay(request.getfixturevalue("database"))


@pytest.fixture
def store(url: str) -> Iterator[NoticeStore]:
    with contextlib.closing(NoticeStore(url)) as made:
        yield made


def some(first: int, count: int, account: str = "ann") -> list[Notice]:
    return [
        Notice(id=f"n{number}", kind=NoticeKind.DISABLED, at=Instant(number), account=account)
        for number in range(first, first + count)
    ]


def ids(store: NoticeStore, most: int = 1000, **asked: Any) -> list[str]:
    return [one.notice.id for one in store.look(most, **asked)]


def test_a_notice_is_kept_once_however_often_and_with_whatever_it_comes(store):
    assert store.keep([*some(1, 5), *some(3, 5)]) == 7
    assert store.keep([*some(5, 6), *some(5, 6)]) == 3
    assert ids(store) == [f"n{number}" for number in range(1, 11)]
    assert store.keep([]) == 0


def test_what_was_kept_first_stays_though_another_comes_under_its_id(store):
    store.keep(some(1, 1, "ann"))
    store.keep(some(1, 1, "bob"))
    assert [one.notice.account for one in store.look(10)] == ["ann"]


def test_the_newest_are_shown_or_those_behind_a_number_of_one_account_or_of_all(store):
    store.keep([*some(1, 3), *some(4, 3, "bob"), Notice(id="m", kind=NoticeKind.HALTED, at=Instant(7))])
    assert ids(store, 2) == ["n6", "m"]
    assert ids(store, 2, account="ann") == ["n2", "n3"]
    last = store.look(1)[0].number
    assert ids(store, 2, after=last - 4) == ["n4", "n5"]
    assert ids(store, after=last) == []
    assert ids(store, account="' OR 1=1 --") == []


def test_of_more_than_may_be_kept_the_oldest_go(url, monkeypatch):
    monkeypatch.setattr(notice_store, "_LOOK_EVERY", 10)
    with contextlib.closing(NoticeStore(url, kept_max=20)) as store:
        for first in range(1, 101, 5):
            store.keep(some(first, 5))
        assert len(ids(store)) <= 30
        assert ids(store, 20) == [f"n{number}" for number in range(81, 101)]


def test_a_place_only_goes_forward_and_each_part_has_its_own(store):
    assert (store.place(0), store.place(3)) == (0, 0)
    store.reach(0, 5)
    store.reach(3, 9)
    store.reach(0, 4)
    assert (store.place(0), store.place(3)) == (5, 9)


def test_it_begins_with_what_is_settled_the_first_time_and_never_again(store):
    store.begin({})
    store.begin({0: 70})
    assert store.place(0) == 0


def test_what_was_settled_before_there_were_notices_is_no_news(store):
    store.begin({0: 70, 2: 9})
    assert (store.place(0), store.place(2)) == (70, 9)


def test_every_statement_is_one_that_oracle_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(notice_store, "_LOOK_EVERY", 1)
    met: list[Any] = []
    with contextlib.closing(NoticeStore(tmp_path / "notices.sqlite")) as store:
        sa.event.listen(store._database._engine, "before_execute", lambda _, element, *__: met.append(element))
        store.begin({0: 1})
        store.keep(some(1, 3))
        store.reach(0, 2)
        store.reach(1, 2)
        ids(store)
        ids(store, account="ann", after=0)
    told = {str(element.compile(dialect=oracle.dialect())) for element in met if isinstance(element, sa.ClauseElement)}
    assert len(told) >= 9
    assert not [one for one in told if "ON CONFLICT" in one or "LIMIT" in one]
