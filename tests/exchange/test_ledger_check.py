# mypy: check-untyped-defs=False, disable-error-code="arg-type"
"""The ledger held against the journal: a trade that is missing, doubled or altered is found where counts agree."""

import shutil

import pytest
import sqlalchemy as sa

from exchange.adapters.file_log import FileLog
from exchange.adapters.ledger_check import LedgerCheck, LedgerReader, compare, from_journal
from exchange.adapters.settlement_store import SettlementStore
from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Happened
from exchange.flow import OrderFlow
from exchange.journal import encode_command
from exchange.listing import Listing
from exchange.types import AccountId, Venue
from kernel.adapters.database import make_engine, parse, sqlite_url
from kernel.time import Instant
from tests.exchange.plant import INSTRUMENTS

COMMANDS = 400


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """A journal, and the ledger that settlement made of its events."""
    folder = tmp_path_factory.mktemp("books")
    engine, flow = Engine(INSTRUMENTS), OrderFlow(1, INSTRUMENTS, [AccountId("ann"), AccountId("bob")])
    happened = []
    with FileLog(folder / "journal") as log:
        for seq in range(1, COMMANDS + 1):
            command = Sequenced(seq, Instant(seq), next(flow))
            events = engine.apply(command)
            flow.observe(events)
            happened.append(Happened(seq, Instant(seq), events))
            log.append([encode_command(command)])
        log.sync()
    told = from_journal(folder / "journal", Listing(INSTRUMENTS, Venue()))
    store = SettlementStore(folder / "ledger.sqlite", INSTRUMENTS)
    store.settle(happened)
    store.close()
    return folder / "ledger.sqlite", told


@pytest.fixture
def ledger(plant, tmp_path):
    """What spoils a fresh ledger by SQL and says how it then compares."""
    whole, (told, until) = plant
    path = tmp_path / "ledger.sqlite"
    shutil.copy(whole, path)

    def check(*statements, at=until):
        engine = make_engine(parse(sqlite_url(path), "test"), "test")
        with engine.begin() as one:
            # The ledger itself refuses all of this; a check is for what came about past it.
            for name in one.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all():
                one.execute(sa.text(f"DROP TRIGGER {name}"))
            for statement in statements:
                assert one.execute(sa.text(statement)).rowcount, "the ledger was not spoilt"
        engine.dispose()
        reader = LedgerReader(path)
        try:
            return compare(told, reader.read(), at)
        finally:
            reader.close()

    return check


def counts(found):
    return found.missing, found.doubled, found.differing, found.strange


def test_what_settlement_made_of_the_events_is_what_follows_from_the_commands(ledger):
    found = ledger()
    assert found.clean
    assert found.journal == found.ledger > 50
    assert found.told().startswith(f"{found.journal} trades in journal and ledger, 0 missing, 0 twice, 0 differing")


def test_a_missing_trade_is_found_and_named(ledger):
    found = ledger("DELETE FROM postings WHERE trade_id = 7", "DELETE FROM trades WHERE trade_id = 7")
    assert counts(found) == (1, 0, 0, 0)
    assert found.accounts
    assert found.examples[0] == "trade 7 is missing"
    assert not found.clean


def test_a_trade_that_is_posted_twice_is_found_and_so_are_the_sums_it_changed(ledger):
    found = ledger("INSERT INTO postings SELECT * FROM postings WHERE trade_id = 7")
    assert counts(found) == (0, 1, 0, 0)
    assert found.accounts
    assert not found.clean
    assert "trade 7 is doubled" in found.examples


def test_a_trade_that_stands_there_again_under_another_id_for_one_that_is_missing_is_found_though_counts_agree(ledger):
    found = ledger(
        "DELETE FROM postings WHERE trade_id = 7", "DELETE FROM trades WHERE trade_id = 7",
        "INSERT INTO trades SELECT 900000, seq, at, symbol, price, quantity, buyer, seller FROM trades "
        "WHERE trade_id = 9",
        "INSERT INTO postings SELECT 900000, account, asset, amount FROM postings WHERE trade_id = 9",
    )  # fmt: skip
    assert found.journal == found.ledger
    assert counts(found) == (1, 0, 0, 1)
    assert not found.clean


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trades SET price = price + 1 WHERE trade_id = 11",
        "UPDATE trades SET buyer = 'eve' WHERE trade_id = 11",
        "UPDATE postings SET amount = amount * 2 WHERE trade_id = 11",
        "DELETE FROM postings WHERE trade_id = 11 AND asset = '$cash'",
    ],
)
def test_a_trade_that_was_altered_is_found(ledger, statement):
    found = ledger(statement)
    assert counts(found) == (0, 0, 1, 0)
    assert not found.clean


@pytest.mark.parametrize("wrong", ["missing", "doubled", "differing", "strange", "accounts"])
def test_one_difference_of_any_kind_alone_is_enough(wrong):
    none = dict.fromkeys(("missing", "doubled", "differing", "strange", "accounts"), 0)
    assert LedgerCheck(journal=3, ledger=3, **none).clean
    assert not LedgerCheck(journal=3, ledger=3, **(none | {wrong: 1})).clean


def test_a_balance_that_does_not_follow_from_the_postings_is_found_where_every_trade_is_right(ledger):
    found = ledger("UPDATE balances SET amount = amount + 1 WHERE account = 'ann' AND asset = '$cash'")
    assert counts(found) == (0, 0, 0, 0)
    assert (found.accounts, found.clean) == (1, False)
    assert found.examples == ("ann has another sum of $cash",)


def test_what_was_settled_of_commands_after_the_last_one_read_is_no_difference(plant):
    whole, (told, _) = plant
    half = COMMANDS // 2
    early = first_of(told, half)
    reader = LedgerReader(whole)
    found = compare(early, reader.read(), {0: half})
    assert found.clean
    assert found.journal < reader.trades()
    reader.close()


def first_of(told, until):
    rows = [(number, row) for number, row in told.rows if row[0] <= until]
    return type(told)(rows, {number: told.moves[number] for number, _ in rows})
