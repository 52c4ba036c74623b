# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.commands import Sequenced
from exchange.engine import Engine
from exchange.events import Traded
from exchange.flow import OrderFlow
from exchange.ledger import CASH, Balances, money_per_tick, postings
from exchange.types import Instrument, Side
from kernel.errors import InputError

AAA = Instrument("AAA", 1_000, 200)


def trade(number=1, price=105, quantity=3, buyer="p", seller="q"):
    return Traded(number, "AAA", 1, price, quantity, 1, 2, Side.BUY, buyer, seller, 0)


@given(
    st.integers(1, 10**9), st.integers(1, 10**6), st.integers(1, 10**12), st.sampled_from("pq"), st.sampled_from("pq")
)
def test_the_postings_of_a_trade_sum_to_zero_in_every_asset(price, quantity, money, buyer, seller):
    entries = postings(trade(1, price, quantity, buyer, seller), money)
    for asset in (CASH, "AAA"):
        assert sum(entry.amount for entry in entries if entry.asset == asset) == 0


def test_the_buyer_pays_price_times_quantity_exactly():
    balances = Balances()
    balances.post(postings(trade(), money_per_tick(AAA)))
    assert balances.amounts() == {
        ("p", CASH): -3_150_000,  # 3 lots at 105 ticks of 0.01, in millionths
        ("q", CASH): 3_150_000,
        ("p", "AAA"): 3,
        ("q", "AAA"): -3,
    }


def test_a_trade_posted_again_is_left_alone():
    balances = Balances()
    assert balances.post(postings(trade(), 1))
    before = balances.amounts()
    assert not balances.post(postings(trade(), 1))
    assert balances.amounts() == before


def test_a_whole_day_conserves_money_and_lots():
    engine, flow, balances, count = Engine((AAA,)), OrderFlow(3, (AAA,), ("p", "q", "r")), Balances(), 0
    for seq in range(1, 3_001):
        events = engine.apply(Sequenced(seq, 0, next(flow)))
        flow.observe(events)
        for event in events:
            if isinstance(event, Traded):
                count += balances.post(postings(event, money_per_tick(AAA)))
    assert count > 200
    assert balances.imbalance() == 0
    assert any(balances.amount(account, "AAA") for account in "pqr")


def test_an_imbalance_is_seen():
    balances = Balances()
    balances.post(postings(trade(), 1)[:3])
    assert balances.imbalance() == 3


@pytest.mark.parametrize("size", ["", "abc", "0", "-1", "NaN", "0.0000001"])
def test_a_tick_size_that_is_no_whole_money_is_refused(size):
    with pytest.raises(InputError, match="instrument AAA"):
        money_per_tick(Instrument("AAA", 100, 10, tick_size=size))
