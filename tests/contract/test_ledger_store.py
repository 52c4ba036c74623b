"""What the ledger promises, held against SQLite and against a real PostgreSQL."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from control.servers.postgres import Server
from exchange.adapters import ledger_copy, settlement_store
from exchange.adapters.ledger_tables import LEDGER, POSTINGS
from exchange.adapters.settlement_store import SettlementStore
from exchange.events import Happened, Traded
from exchange.ledger import Balances, money_per_tick, postings
from kernel.adapters.database import make_engine, parse, sqlite_url
from kernel.errors import InputError, PermanentError, TemporaryError
from tests.exchange.plant import INSTRUMENTS
from tests.exchange.test_settlement import happenings, trades_of

BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


def lay(url: str) -> str:
    engine = make_engine(parse(url, "test"), "test")
    with engine.begin() as connection:
        LEDGER.upgrade(connection)
    engine.dispose()
    return url


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "ledger.sqlite")
    return lay(request.getfixturevalue("database"))


@pytest.fixture
def store(url: str) -> Iterator[SettlementStore]:
    with contextlib.closing(SettlementStore(url, INSTRUMENTS)) as made:
        yield made


@contextlib.contextmanager
def plain(url: str) -> Iterator[sa.Connection]:
    engine = make_engine(parse(url, "test"), "test")
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.mark.parametrize("together", [1, 7, 400])
def test_it_agrees_with_the_fold_in_memory_whatever_comes_together(store, together):
    happened, balances = happenings(400), Balances()
    for start in range(0, 400, together):
        store.settle(happened[start : start + together])
    for trade in trades_of(happened):
        balances.post(postings(trade, money_per_tick(INSTRUMENTS[0])))
    assert store.balances() == balances.amounts()
    assert store.trade_ids() == [trade.trade_id for trade in trades_of(happened)]
    assert (store.imbalance(), store.seq) == (0, 400)


NASTY = ("'; DROP TABLE trades; --", 'a"b\\.\t\\N\n%s :x {}', "\N{RIGHT-TO-LEFT OVERRIDE}\N{GRINNING FACE}")
"""Names that mean something to SQL, to COPY's text format or to what fills in parameters."""


def renamed(happened):
    """Return what happened, to accounts that no engine would take: the ledger must not lean on that."""
    names = dict(zip(("ann", "bob"), NASTY[:2], strict=True))

    def of(event):
        if not isinstance(event, Traded):
            return event
        return msgspec.structs.replace(event, buyer=names[event.buyer], seller=NASTY[2])

    return [msgspec.structs.replace(one, events=tuple(of(event) for event in one.events)) for one in happened]


@pytest.mark.parametrize("together", [1, 400])
def test_no_name_means_anything_to_the_database(store, together):
    happened, balances = renamed(happenings(400)), Balances()
    for start in range(0, 400, together):
        store.settle(happened[start : start + together])
    for trade in trades_of(happened):
        balances.post(postings(trade, money_per_tick(INSTRUMENTS[0])))
    assert {account for account, _ in store.balances()} >= set(NASTY)
    assert store.balances() == balances.amounts()


@pytest.mark.parametrize("together", [10, 400])
def test_what_comes_again_is_left_alone_even_within_one_batch(store, together):
    happened = happenings(400)
    for start in range(0, 400, together):
        part = happened[start : start + together]
        first = store.settle(part + part)
        assert (first.trades, first.duplicates) == (len(trades_of(part)), len(trades_of(part)))
    before = store.balances()
    again = store.settle(happened[50:])
    assert (again.trades, again.duplicates) == (0, len(trades_of(happened[50:])))
    assert store.settle(happened[:50]).seq == 50
    assert (store.balances(), store.seq) == (before, 400)


def test_each_partition_counts_its_own_trades_and_has_its_own_place(store):
    first, second = happenings(400), happenings(150)
    assert store.settle(first, 0).trades == len(trades_of(first))
    assert store.settle(second, 3).trades == len(trades_of(second))
    again = store.settle(second, 3)
    assert (again.trades, again.duplicates) == (0, len(trades_of(second)))
    assert store.trades() == len(trades_of(first)) + len(trades_of(second))
    assert (store.seqs(), store.seq_of(3), store.seq_of(7), store.imbalance()) == ({0: 400, 3: 150}, 150, 0, 0)
    store.settle([Happened(160, 160, ())], 3)
    store.settle([Happened(5, 5, ())], 9)
    assert store.seqs() == {0: 400, 3: 160, 9: 5}


def test_a_trade_whose_postings_lose_money_is_refused_whole(store, monkeypatch):
    happened = happenings(400)
    assert len(trades_of(happened)) > ledger_copy.COPIED_FROM
    monkeypatch.setattr(settlement_store, "postings", lambda trade, money: postings(trade, money)[1:])
    for part in (happened[:100], happened):
        assert trades_of(part)
        with pytest.raises(PermanentError, match="do not sum to zero in"):
            store.settle(part)
    assert (store.trades(), store.balances(), store.seq) == (0, {}, 0)
    monkeypatch.undo()
    assert store.settle(happened).trades == len(trades_of(happened))


@pytest.mark.parametrize("statement", [sa.delete(POSTINGS), sa.update(POSTINGS).values(amount=0)])
def test_nobody_changes_what_was_posted(store, url, statement):
    store.settle(happenings(100))
    with pytest.raises(sa.exc.IntegrityError, match="never changed"), plain(url) as other:
        other.execute(statement)


def test_balances_that_do_not_follow_are_met_at_the_next_start(store, url):
    store.settle(happenings(200))
    store.close()
    with plain(url) as other:
        other.exec_driver_sql("UPDATE balances SET amount = amount + 1")
    with pytest.raises(PermanentError, match="do not follow from their postings"):
        SettlementStore(url, INSTRUMENTS)


def test_a_number_beyond_64_bits_is_refused_and_nothing_is_kept(store, monkeypatch):
    monkeypatch.setattr(settlement_store, "money_per_tick", lambda _: 2**62)
    monkeypatch.setattr(store, "_money", {one.symbol: 2**62 for one in INSTRUMENTS})
    with pytest.raises(PermanentError, match="beyond 64 bits"):
        store.settle(happenings(100))
    assert store.trades() == 0


def test_a_ledger_of_an_unknown_revision_is_refused(store, url):
    store.close()
    with plain(url) as other:
        other.exec_driver_sql("UPDATE ledger_revision SET version_num = 'r0099'")
    with pytest.raises(InputError, match="revision r0099, which this program does not know"):
        SettlementStore(url, INSTRUMENTS)


def test_another_database_is_refused(tmp_path):
    url = sqlite_url(tmp_path / "other.sqlite")
    with plain(url) as other:
        other.exec_driver_sql("CREATE TABLE cats (name TEXT)")
    with pytest.raises(InputError, match=r"holds other tables \(cats\); name an empty database"):
        SettlementStore(url, INSTRUMENTS)


def test_an_empty_database_of_a_server_says_how_to_lay_the_ledger(database):
    with pytest.raises(InputError, match="holds no ledger yet; lay it: tapewatch db upgrade"):
        SettlementStore(database, INSTRUMENTS)


def test_a_wrong_login_says_what_is_wrong_and_no_password_is_told(postgres, database):
    lay(database)
    cases = [
        (database.replace(postgres.password, "hush"), InputError, "the password is wrong"),
        (database.replace(f":{postgres.password}", ""), InputError, "a password is asked for"),
        (database + "_not", InputError, "no such database or user"),
        (database.replace(str(postgres.port), "1"), TemporaryError, "no server answers there"),
    ]
    for url, kind, words in cases:
        with pytest.raises(kind, match=words) as raised:
            SettlementStore(url, INSTRUMENTS)
        assert postgres.password not in str(raised.value)
        assert "hush" not in str(raised.value)
    SettlementStore(cases[0][0], INSTRUMENTS, password=postgres.password).close()


def test_writers_that_meet_settle_each_trade_once(postgres, database):
    lay(database)
    happened = happenings(400)

    def settle(step: int) -> int:
        new = 0
        with contextlib.closing(SettlementStore(database, INSTRUMENTS)) as store:
            for start in range(0, 400, step):
                new += until_settled(store, happened[start : start + step])
        return new

    with ThreadPoolExecutor(3) as threads:
        new = sum(threads.map(settle, [7, 50, 200]))
    assert new == len(trades_of(happened))
    with contextlib.closing(SettlementStore(database, INSTRUMENTS)) as store:
        assert store.trade_ids() == [trade.trade_id for trade in trades_of(happened)]
        assert store.imbalance() == 0


def until_settled(store: SettlementStore, happened) -> int:
    until = time.monotonic() + 60
    while True:
        try:
            return store.settle(happened).trades
        except TemporaryError:
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.mark.postgres
@pytest.mark.parametrize("count", [20, 400])
def test_money_moves_in_serializable_transactions_only(database, count):
    """Two that read what the other writes cannot both be: a weaker order would let balances follow half of each."""
    seen = set()

    def look(connection: sa.Connection) -> None:
        found = connection.connection.cursor().execute("SHOW transaction_isolation").fetchone()
        seen.add(found[0])

    with contextlib.closing(SettlementStore(lay(database), INSTRUMENTS)) as store:
        sa.event.listen(store._engine, "commit", look)
        store.settle(happenings(count))
    assert seen == {"serializable"}


def test_conflicts_are_tried_again_and_then_told(postgres, database, monkeypatch):
    lay(database)
    with contextlib.closing(SettlementStore(database, INSTRUMENTS)) as store:
        happened, calls = happenings(100), []

        def failing(times: int) -> Callable[..., int]:
            def post(connection, *told):
                calls.append(1)
                if len(calls) <= times:
                    connection.exec_driver_sql("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")
                return original(connection, *told)

            return post

        original = ledger_copy.post
        monkeypatch.setattr(ledger_copy, "post", failing(3))
        assert store.settle(happened).trades == len(trades_of(happened))
        assert len(calls) == 4
        calls.clear()
        monkeypatch.setattr(ledger_copy, "post", failing(99))
        with pytest.raises(TemporaryError, match="other transactions were in its way"):
            store.settle(happenings(150))
        assert len(calls) == settlement_store.ATTEMPTS_MAX


def test_killed_at_any_point_the_server_loses_no_trade_that_was_told_settled(own_postgres):
    server: Server = own_postgres()
    url = lay(server.create_database("ledger"))
    happened, told = happenings(600), set()
    store = SettlementStore(url, INSTRUMENTS)
    done, killed = threading.Event(), threading.Event()

    def settle_all() -> None:
        for start in range(0, 600, 2):
            if start == 598:  # it does not come to its end before the server was killed for the last time
                assert killed.wait(60)
            until_settled(store, happened[start : start + 2])
            told.update(trade.trade_id for trade in trades_of(happened[start : start + 2]))
        done.set()

    thread = threading.Thread(target=settle_all)
    thread.start()
    expected = {trade.trade_id for trade in trades_of(happened)}
    for share in (4, 2):
        while len(told) < len(expected) // share:
            time.sleep(0.005)
        server.kill()
        assert not done.is_set()
        before = set(told)
        server.start()
        kept = {number for (number,) in server.ask("SELECT trade_id FROM trades", "ledger")}
        assert before <= kept
    killed.set()
    thread.join(60)
    assert done.is_set()
    assert set(store.trade_ids()) == told == expected
    assert store.imbalance() == 0
    store.close()


def test_a_ledger_that_went_back_is_met_and_begins_again_where_it_is(store, url):
    happened = happenings(400)
    store.settle(happened[:100])
    with contextlib.closing(SettlementStore(url, INSTRUMENTS)) as other:
        other.settle(happened[:200])
    store.settle(happened[100:200])  # another's progress is no loss
    with plain(url) as lost:
        lost.exec_driver_sql("UPDATE progress SET seq = 150")
    before = store.balances()
    for part in (happened[200:201], happened[200:]):
        with pytest.raises(PermanentError, match="went back from command 200 to 150: a stand-by took over"):
            store.settle(part)
    assert (store.balances(), store.seq) == (before, 150)
    with contextlib.closing(SettlementStore(url, INSTRUMENTS)) as again:
        again.settle(happened[again.seq :])
        assert again.trade_ids() == [trade.trade_id for trade in trades_of(happened)]
