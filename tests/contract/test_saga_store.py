"""What the books of sagas and the coordinator's journal promise, held against SQLite and against a real PostgreSQL."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import oracle

from exchange.adapters import saga_database
from exchange.adapters.saga_journal import Note, Place, SagaJournal, Trade
from exchange.adapters.saga_store import SagaBook
from exchange.adapters.saga_tables import BOOKS, DEEDS, JOURNAL, META, SAGA, SAGAS
from exchange.ledger import CASH, Asset
from exchange.saga import AT, Answer, Ask, Book, End, Rules, Service, Step, Verdict, carry_out, instruction
from exchange.saga_choreography import reaction
from exchange.saga_coordinator import Begun, Coordinator, GaveUp, Told
from exchange.shards import whole_id
from exchange.types import AccountId, TradeId
from kernel.adapters.database import make_engine, parse, sqlite_url
from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import Instant
from tests.exchange.saga_plant import MONEY, QUICK, some_trades, trade

BOTH = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
MOVES = BOOKS[Service.CASH].moves
LEAST = Rules(least=0)
P = AccountId("p")


def lay(url: str) -> str:
    engine = make_engine(parse(url, "test"), "test")
    with engine.begin() as connection:
        SAGA.upgrade(connection)
    engine.dispose()
    return url


@pytest.fixture(params=BOTH)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return lay(sqlite_url(tmp_path / "saga.sqlite"))
    return lay(request.getfixturevalue("database"))


@contextlib.contextmanager
def book_of(url: str, service: Service = Service.CASH, rules: Rules = LEAST) -> Iterator[SagaBook]:
    with contextlib.closing(SagaBook(service, url, rules)) as made:
        yield made


@contextlib.contextmanager
def plain(url: str) -> Iterator[sa.Connection]:
    engine = make_engine(parse(url, "test"), "test")
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def ask(step: Step, number: int = 1) -> Ask:
    return Ask(step, instruction(trade(number), MONEY))


def random_asks(service: Service, count: int) -> list[Ask]:
    rng, steps = random.Random(3), [step for step, at in AT.items() if at is service]
    asks = [Ask(rng.choice(steps), instruction(one, MONEY)) for one in some_trades(count // 4) for _ in range(4)]
    return asks + [rng.choice(asks) for _ in range(count // 2)]


@pytest.mark.parametrize("service", [Service.CASH, Service.FEES])
@pytest.mark.parametrize("together", [1, 50])
def test_a_book_agrees_with_the_one_in_memory_whatever_comes_together(url, service, together):
    memory, asks = Book(), random_asks(service, 100)
    with book_of(url, service) as book:
        for number, who in enumerate("pqrs", 1):
            book.deposit(number, AccountId(who), CASH, 300 * MONEY)
            memory.deposit(AccountId(who), CASH, 300 * MONEY)
        for start in range(0, len(asks), together):
            part = asks[start : start + together]
            expected = []
            for one in part:
                expected.append(carry_out(one, memory, LEAST))
                memory.write(expected[-1])
            assert book.carry_out(part) == expected
        found = {key: amount for key, amount in book.balances().items() if key[0] != "$outside"}
        assert found == memory.amounts()
        assert (book.drift(), book.balances()[AccountId("$outside"), CASH]) == (0, -1200 * MONEY)
        verdicts = {one.verdict for one in book.remembered().values()}
        assert verdicts >= {Verdict.DONE, Verdict.REFUSED}


def test_a_step_asked_again_is_answered_from_memory_by_another_process_too(url):
    with book_of(url, rules=Rules()) as book:
        first = book.carry_out([ask(Step.RESERVE_CASH)] * 2)
        before = book.balances()
    with book_of(url, rules=Rules()) as book:
        again = book.carry_out([ask(Step.RESERVE_CASH)])
        assert [one.answer for one in first + again] == [first[0].answer] * 3
        assert [bool(one.remembered) for one in first + again] == [True, False, False]
        assert book.balances() == before


def test_a_step_done_twice_or_a_move_that_makes_money_is_refused_by_the_database_itself(url):
    with book_of(url, rules=Rules()) as book:
        book.carry_out([ask(Step.RESERVE_CASH)])
    row = {"trade_id": 1, "step": "reserve_cash", "part": 0, "giver": "p", "taker": "q", "asset": "$cash", "amount": 5}
    for wrong in ({}, {"part": 1, "amount": -5}, {"part": 1, "amount": 0}):
        with pytest.raises(sa.exc.IntegrityError), plain(url) as other:
            other.execute(sa.insert(MOVES).values(row | wrong))
    for change in (sa.delete(MOVES), sa.update(MOVES).values(amount=1)):
        with pytest.raises(sa.exc.IntegrityError, match="never changed"), plain(url) as other:
            other.execute(change)


def test_a_batch_that_fails_leaves_nothing(url, monkeypatch):
    with book_of(url, rules=Rules()) as book:

        def broken(*_: object) -> None:
            raise TemporaryError("the line is cut")

        with monkeypatch.context() as patch:
            patch.setattr("exchange.adapters.saga_store.add_amounts", broken)
            with pytest.raises(TemporaryError):
                book.carry_out([ask(Step.RESERVE_CASH), ask(Step.RESERVE_CASH, 2)])
        assert (book.balances(), book.remembered()) == ({}, {})
        assert all(one.remembered for one in book.carry_out([ask(Step.RESERVE_CASH), ask(Step.RESERVE_CASH, 2)]))


def test_balances_that_do_not_follow_are_met_at_the_next_start(url):
    with book_of(url, rules=Rules()) as book:
        book.carry_out([ask(Step.RESERVE_CASH)])
    for statement in (
        "UPDATE cash_balances SET amount = amount + 1",
        "UPDATE cash_balances SET amount = amount - 1",
        "INSERT INTO cash_balances VALUES ('x', '$cash', 3)",
    ):
        with plain(url) as other:
            other.exec_driver_sql(statement)
        if "- 1" in statement:
            continue
        with pytest.raises(PermanentError, match="balances that do not follow from their moves"), book_of(url):
            pass


def test_a_deposit_comes_in_once_and_the_book_still_sums_to_zero(url):
    with book_of(url) as book:
        assert [book.deposit(1, P, Asset("AAA"), 7), book.deposit(1, P, Asset("AAA"), 7)] == [True, False]
        assert (book.balances()[P, Asset("AAA")], book.drift()) == (7, 0)


def test_four_services_share_a_database_and_touch_only_their_own_tables(url):
    def fill(service: Service) -> dict[tuple[AccountId, Asset], int]:
        with book_of(url, service, Rules()) as book:
            for one in random_asks(service, 60):
                book.carry_out([one])
            return book.balances()

    with ThreadPoolExecutor(4 if url.startswith("postgresql") else 1) as threads:
        together = list(threads.map(fill, Service))
    for service, found in zip(Service, together, strict=True):
        memory = Book()
        for one in random_asks(service, 60):
            memory.write(carry_out(one, memory, Rules()))
        assert found == memory.amounts()


def test_what_is_said_is_kept_with_the_step_and_given_up_with_the_end(url):
    begun = Answer(Step.BEGIN, instruction(trade(1), MONEY), Verdict.DONE)
    with book_of(url, rules=Rules()) as book:
        (told,) = book.react([begun], Instant(5))
        assert told.carried is not None
        assert [(one.answer, one.since) for one in book.kept()] == [(told.carried.answer, 5)]
        assert reaction(Service.SECURITIES, told.carried.answer) is not None
        (again,) = book.react([begun], Instant(9))
        assert (again.end, [one.since for one in book.kept()]) == (None, [5])
        end = Answer(Step.DELIVER_CASH, begun.instruction, Verdict.DONE)
        book.react([end, end], Instant(9))
        assert book.kept() == []
        (late,) = book.react([begun], Instant(10))
        assert late.end == end


def test_a_journal_begins_each_saga_once_and_gives_back_what_is_open(url):
    trades = [Trade(instruction(one, MONEY), Instant(one.trade_id)) for one in some_trades(6)]
    with contextlib.closing(SagaJournal(url)) as journal:
        assert (journal.seq(), journal.entries()) == (0, [])
        assert len(journal.begin(trades[:4] + trades[:1], Instant(9), Place(0, 4))) == 4
        assert len(journal.begin(trades[2:], Instant(9), Place(0, 6))) == 2
        refused = Told(Instant(10), Answer(Step.RESERVE_CASH, trades[0].instruction, Verdict.REFUSED))
        done = Told(Instant(10), Answer(Step.RESERVE_CASH, trades[1].instruction, Verdict.DONE))
        journal.append([refused, done], {trades[0].instruction.trade_id: End.CANCELLED}, Instant(10))
        assert (journal.seq(), journal.states()) == (6, {"open": 5, "cancelled": 1})
    with contextlib.closing(SagaJournal(url)) as journal:
        lead = Coordinator(QUICK, journal.entries())
        assert sorted(lead.standing) == [2, 3, 4, 5, 6]
        assert lead.standing[TradeId(2)].step is Step.RESERVE_SECURITIES
        assert journal.traded_at() == {number: number for number in (2, 3, 4, 5, 6)}
        assert journal.seq() == 6
        assert journal.begin(trades, Instant(11), Place(0, 6)) == []


def begun_and_ended(journal: SagaJournal, count: int, *, left_open: int) -> list[Trade]:
    """Begin so many sagas and end all but one: that of trade n at instant n."""
    trades = [Trade(instruction(one, MONEY), Instant(one.trade_id)) for one in some_trades(count)]
    journal.begin(trades, Instant(1), Place(0, count))
    for one in trades:
        it = one.instruction
        if it.trade_id != left_open:
            refused = Told(one.at, Answer(Step.RESERVE_CASH, it, Verdict.REFUSED))
            journal.append([refused], {it.trade_id: End.CANCELLED}, one.at)
    return trades


def test_what_ended_before_an_instant_is_forgotten_up_to_the_first_that_did_not(url):
    with contextlib.closing(SagaJournal(url)) as journal:
        trades = begun_and_ended(journal, 300, left_open=290)
        assert [journal.forget(Instant(50)), journal.forget(Instant(50))] == [49, 0]
        assert journal.horizons() == {0: 49}
        assert [journal.forget(Instant(1000)) for _ in range(3)] == [240, 0, 0]
        assert (journal.horizons(), journal.states()) == ({0: 289}, {"open": 1, "cancelled": 299})
        assert journal.begin(trades, Instant(1000), Place(0, 300)) == []
    with contextlib.closing(SagaJournal(url)) as journal:
        assert list(Coordinator(QUICK, journal.entries()).standing) == [290]
        assert journal.begin(trades, Instant(1000), Place(0, 300)) == []
        last = Told(Instant(1001), Answer(Step.RESERVE_CASH, trades[289].instruction, Verdict.REFUSED))
        journal.append([last], {TradeId(290): End.CANCELLED}, Instant(1001))
        assert [journal.forget(Instant(2000)) for _ in range(2)] == [11, 0]
    with plain(url) as other:
        kept = other.execute(sa.select(JOURNAL.c.number)).scalars().all()
        assert (kept, other.execute(sa.select(SAGAS)).all()) == ([599 + 1], [])
    with contextlib.closing(SagaJournal(url)) as journal:  # the next entry has a number of its own
        assert len(journal.begin([Trade(instruction(trade(301), MONEY), Instant(1))], Instant(1), Place(0, 301))) == 1
        assert journal.forget(Instant(5000)) == 0


def test_each_part_of_the_exchange_is_forgotten_by_itself(url):
    def of(part: int, number: int) -> Trade:
        one = trade(whole_id(part, number))
        return Trade(instruction(one, MONEY), Instant(1))

    with contextlib.closing(SagaJournal(url)) as journal:
        for part in (0, 3):
            entries = journal.begin([of(part, 1), of(part, 2)], Instant(1), Place(part, 2))
            ended = entries[:1] if part == 0 else entries
            told = [Told(Instant(2), Answer(Step.RESERVE_CASH, one.instruction, Verdict.REFUSED)) for one in ended]
            journal.append(told, {one.instruction.trade_id: End.CANCELLED for one in ended}, Instant(2))
        assert [journal.forget(Instant(9)), journal.forget(Instant(9))] == [3, 0]
        assert journal.horizons() == {0: 1, 3: whole_id(3, 2)}


@pytest.mark.parametrize("service", [Service.CASH, Service.FEES])
def test_a_book_that_forgot_does_nothing_more_and_is_still_the_sum_of_its_moves(url, service):
    asks, memory = random_asks(service, 400), Book()

    def both(book: SagaBook) -> None:
        expected = []
        for one in asks:
            expected.append(carry_out(one, memory, Rules()))
            memory.write(expected[-1])
        assert book.carry_out(asks) == expected

    with book_of(url, service, Rules()) as book:
        book.deposit(1, P, CASH, 5)
        both(book)
        for up_to in (60, 40):  # one that comes late takes nothing back
            book.forget(TradeId(up_to))
        memory.forget(TradeId(60))
        both(book)
        before = book.balances()
        assert [book.sweep(), book.sweep()] == [60, 0]
        both(book)
        late = book.carry_out([one for one in asks if one.instruction.trade_id <= 60])
        assert {(one.answer.verdict, one.postings, one.remembered) for one in late} == {(Verdict.FORGOTTEN, (), ())}
        assert min(trade_id for trade_id, _ in book.remembered()) == 61
    with book_of(url, service, Rules()) as book:  # which compares balances with moves
        assert (book.balances(), book.drift()) == (before, 0)
        assert book.deposit(1, P, CASH, 5) is False
    with plain(url) as other:
        moves = BOOKS[service].moves
        ids = set(other.execute(sa.select(moves.c.trade_id)).scalars())
        kept = min(one for one in ids if one > 0)
        assert (kept > 60, -1 in ids) == (True, True)
    with pytest.raises(sa.exc.IntegrityError, match="never changed"), plain(url) as other:
        other.execute(sa.delete(moves).where(moves.c.trade_id == kept))
    with pytest.raises(sa.exc.IntegrityError, match="never changed"), plain(url) as other:
        other.execute(sa.delete(moves).where(moves.c.trade_id == -1))


def test_more_than_fit_together_are_swept_in_several_transactions(url):
    asks = [ask(Step.RESERVE_CASH, number) for number in range(1, 601)]
    with book_of(url, rules=Rules()) as book:
        book.carry_out(asks)
        before = book.balances()
        book.forget(TradeId(599))
        assert [book.sweep() for _ in range(4)] == [256, 256, 87, 0]
        assert (book.balances(), len(book.remembered())) == (before, 1)
    with book_of(url) as book:
        assert book.balances() == before


def test_an_end_that_a_service_hears_of_what_it_forgot_is_not_kept(url):
    begun = Answer(Step.BEGIN, instruction(trade(1), MONEY), Verdict.DONE)
    end = Answer(Step.DELIVER_CASH, begun.instruction, Verdict.DONE)
    with book_of(url, rules=Rules()) as book:
        book.react([begun], Instant(1))
        book.forget(TradeId(1))
        assert [(one.carried, one.end) for one in book.react([begun, end], Instant(2))] == [(None, None)] * 2
        assert (book.sweep(), book.kept(), book.sweep()) == (1, [], 0)


def test_what_was_forgotten_keeps_the_tables_from_going_back_to_what_knew_no_horizon(url):
    with plain(url) as connection:
        SAGA.downgrade(connection, "r0001")
        SAGA.upgrade(connection)
    with book_of(url, rules=Rules()) as book:
        book.carry_out([ask(Step.RESERVE_CASH)])
        book.forget(TradeId(1))
    with pytest.raises(InputError, match="would do again what comes again"), plain(url) as connection:
        SAGA.downgrade(connection, "r0001")


def test_moves_of_the_first_revision_are_kept_on_the_way_there_and_back(url):
    with book_of(url, rules=Rules()) as book:
        book.carry_out([ask(Step.RESERVE_CASH)])
        before = book.balances()
    with plain(url) as connection:
        SAGA.downgrade(connection, "r0001")
    with pytest.raises(sa.exc.IntegrityError, match="never changed"), plain(url) as other:
        other.execute(sa.delete(MOVES))
    with plain(url) as connection:
        SAGA.upgrade(connection)
    with book_of(url) as book:
        assert book.balances() == before


def test_what_a_person_did_is_kept_with_the_saga_as_long_as_it_is(url):
    with contextlib.closing(SagaJournal(url)) as journal, book_of(url, rules=Rules()) as book:
        begun_and_ended(journal, 2, left_open=2)
        it = instruction(some_trades(2)[1], MONEY)
        journal.note(TradeId(2), Note(Instant(5), "retry", "bo", "mended"))
        journal.append(
            [GaveUp(Instant(6), TradeId(2))], {}, Instant(6), Note(Instant(6), "compensate", "anna", "closed")
        )
        history = journal.history(TradeId(2))
        assert history is not None
        assert [(one.deed, one.who, one.why) for one in history.notes] == [
            ("retry", "bo", "mended"), ("compensate", "anna", "closed"),
        ]  # fmt: skip
        assert (history.state, history.ended_at, [type(one) for one in history.entries]) == (
            "open", None, [Begun, GaveUp],
        )  # fmt: skip
        book.carry_out([Ask(Step.RESERVE_CASH, it)])
        known = book.known(TradeId(2))
        assert ([one.step for one in known.steps], known.moves, known.forgotten) == (
            [Step.RESERVE_CASH], [("reserve_cash", it.buyer, "$escrow", "$cash", it.cost)], False,
        )  # fmt: skip
        journal.append([Told(Instant(7), Answer(Step.RELEASE_CASH, it, Verdict.DONE))],
                       {TradeId(2): End.CANCELLED}, Instant(7))  # fmt: skip
        assert journal.forget(Instant(99)) == 2
        assert (journal.history(TradeId(2)), book.known(TradeId(1)).steps) == (None, [])
    with plain(url) as other:
        assert other.execute(sa.select(DEEDS)).all() == []


def test_an_earlier_coordinator_writes_no_more(url):
    trades = [Trade(instruction(one, MONEY), Instant(1)) for one in some_trades(2)]
    with contextlib.closing(SagaJournal(url)) as first, contextlib.closing(SagaJournal(url)) as second:
        with pytest.raises(PermanentError, match="another coordinator leads since"):
            first.begin(trades, Instant(1), Place(0, 2))
        assert len(second.begin(trades, Instant(1), Place(0, 2))) == 2


def test_a_journal_that_lost_what_it_had_is_met_at_the_next_entry(url):
    trades = [Trade(instruction(one, MONEY), Instant(1)) for one in some_trades(2)]
    with contextlib.closing(SagaJournal(url)) as journal:
        journal.begin(trades, Instant(1), Place(0, 2))
        with plain(url) as other:
            other.exec_driver_sql("DELETE FROM coordinator_journal WHERE number = 2")
        with pytest.raises(PermanentError, match="ends at entry 1, and 2 was the last that was written"):
            journal.append(
                [Told(Instant(2), Answer(Step.RESERVE_CASH, trades[0].instruction, Verdict.DONE))], {}, Instant(2)
            )


def test_up_and_down_and_up_again_and_what_is_laid_is_what_is_spoken_of(url):
    with plain(url) as connection:
        context = MigrationContext.configure(connection, opts={"version_table": SAGA.table})
        assert compare_metadata(context, META) == []
        assert (SAGA.first, SAGA.head) == (SAGA.known()[0], SAGA.known()[-1])
        SAGA.downgrade(connection, "base")
        assert set(sa.inspect(connection).get_table_names()) <= {"saga_revision"}
    if url.startswith("postgresql"):
        with pytest.raises(InputError, match="holds no saga yet; lay it"), book_of(url):
            pass
    lay(url)
    with book_of(url) as book:
        assert book.drift() == 0


@pytest.mark.postgres
def test_money_moves_in_serializable_transactions_only(database):
    seen = set()

    def look(connection: sa.Connection) -> None:
        seen.add(connection.connection.cursor().execute("SHOW transaction_isolation").fetchone()[0])

    with book_of(lay(database), rules=Rules()) as book:
        sa.event.listen(book._database._engine, "commit", look)
        book.carry_out([ask(Step.RESERVE_CASH)])
    assert seen == {"serializable"}


@pytest.mark.postgres
def test_two_of_one_service_that_meet_do_each_step_once(database):
    """Not how it is run; but a process that was believed dead must do no harm."""
    lay(database)
    asks = [ask(Step.RESERVE_CASH, number) for number in range(1, 41)]

    def work(_: int) -> int:
        new = 0
        with book_of(database, rules=Rules()) as book:
            for start in range(0, 40, 4):
                while True:
                    try:
                        new += sum(bool(one.remembered) for one in book.carry_out(asks[start : start + 4]))
                        break
                    except (TemporaryError, PermanentError):
                        continue
        return new

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(work, range(2))) == 40
    with book_of(database, rules=Rules()) as book:
        assert book.drift() == 0
        assert book.balances()[AccountId("$escrow"), CASH] == sum(one.instruction.cost for one in asks)


def test_every_statement_is_one_that_oracle_takes(tmp_path):
    met: list[object] = []
    url = lay(sqlite_url(tmp_path / "saga.sqlite"))
    with book_of(url) as book, contextlib.closing(SagaJournal(url)) as journal:
        for store in (book, journal):
            sa.event.listen(store._database._engine, "before_execute", lambda _, element, *__: met.append(element))
        book.deposit(1, P, CASH, 10**9)
        book.carry_out([ask(Step.RESERVE_CASH)])
        book.react([Answer(Step.BEGIN, instruction(trade(2), MONEY), Verdict.DONE)], Instant(1))
        book.balances(), book.drift(), book.kept(), book.remembered()
        book.forget(TradeId(1)), book.sweep(), book.carry_out([ask(Step.RESERVE_CASH, 3)]), book.sweep()
        (entry,) = journal.begin([Trade(instruction(trade(1), MONEY), Instant(1))], Instant(1), Place(0, 1))
        journal.append([Told(Instant(2), Answer(Step.RESERVE_CASH, entry.instruction, Verdict.DONE))], {}, Instant(2))
        journal.entries(), journal.traded_at(), journal.states(), journal.sayings()
        journal.append([Told(Instant(2), Answer(Step.CLEAR, entry.instruction, Verdict.DONE))],
                       {TradeId(1): End.SETTLED}, Instant(2))  # fmt: skip
        journal.note(TradeId(1), Note(Instant(2), "retry", "a", "why")), journal.history(TradeId(1))
        book.known(TradeId(1))
        journal.forget(Instant(9)), journal.forget(Instant(9)), journal.horizons()
    told = {str(one.compile(dialect=oracle.dialect())) for one in met if isinstance(one, sa.ClauseElement)}
    assert len(told) >= 15
    assert not [one for one in told if "ON CONFLICT" in one or "LIMIT" in one]
    assert saga_database._IN_MAX <= 1000
    for table in META.sorted_tables:
        assert "NUMBER(19)" in str(sa.schema.CreateTable(table).compile(dialect=oracle.dialect()))
