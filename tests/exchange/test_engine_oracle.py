# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The engine against one that is obvious and slow. Any difference is a bug in one of the two."""

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exchange.commands import (
    CancelOrder,
    CloseSession,
    Halt,
    Limit,
    Market,
    OpenSession,
    PlaceOrder,
    ReplaceOrder,
    Resume,
    Sequenced,
)
from exchange.engine import Engine
from exchange.events import Happened
from exchange.market_data import Follower, MarketData
from exchange.types import HaltReason, Instrument, Side, TimeInForce
from tests.exchange.naive import NaiveEngine

INSTRUMENTS = (Instrument("AAA", 10, 8), Instrument("BBB", 100, 3))
SYMBOLS = ("AAA", "AAA", "AAA", "BBB", "ZZZ")


def command(rng: random.Random, number: int, naive: NaiveEngine):  # noqa: PLR0911 - one return a kind of request
    """One request: mostly sensible, in a narrow range of prices so that orders meet; sometimes wrong."""
    account = rng.choice("pq")
    made = naive.made
    client_id = (
        f"c{number}" if rng.random() < 0.98 else rng.choice(("", "x" * 65, "é", f"c{rng.randrange(number + 1)}"))
    )
    kind = rng.random()
    # Standing still is soon over, or most of a script would be refusals.
    if not naive.open and kind < 0.1:
        return OpenSession(client_id)
    if naive.market_halted and kind < 0.1:
        return Resume(client_id, None)
    if naive.halted and kind < 0.05:
        return Resume(client_id, min(naive.halted))
    quantity = rng.randrange(1, 7) if rng.random() < 0.97 else rng.choice((0, -1, 1_000_001))
    if kind < 0.62:
        symbol = rng.choice(SYMBOLS)
        middle = 10 if symbol == "AAA" else 100
        price = middle + rng.randrange(-3, 4) if rng.random() < 0.97 else rng.choice((0, -5, 1, 19, 2_000_000_000))
        terms = Market() if rng.random() < 0.08 else Limit(price)
        lasts = TimeInForce.IOC if rng.random() < 0.1 else TimeInForce.DAY
        return PlaceOrder(account, client_id, symbol, rng.choice((Side.BUY, Side.SELL)), quantity, terms, lasts)
    order_id = rng.randrange(max(0, made - 30), made + 2)
    if naive.orders and rng.random() < 0.7:
        order_id = rng.choice(naive.orders).order_id
    if kind < 0.80:
        return CancelOrder(account, client_id, order_id)
    if kind < 0.99:
        return ReplaceOrder(account, client_id, order_id, quantity, 10 + rng.randrange(-3, 4))
    halted = rng.choice((None, "AAA", "BBB", "ZZZ"))
    return rng.choice(
        (
            Halt(client_id, halted, HaltReason.OPERATOR),
            Resume(client_id, halted),
            Resume(client_id, halted),
            Resume(client_id, None),
            Resume(client_id, "AAA"),
            CloseSession(client_id),
            OpenSession(client_id),
            OpenSession(client_id),
        )
    )


def compare(rng: random.Random, steps: int) -> None:
    fast, naive = Engine(INSTRUMENTS), NaiveEngine(INSTRUMENTS)
    data, follower = MarketData(fast.instruments), Follower()
    for symbol in fast.instruments:
        follower.take(data.snapshot(symbol))
    for seq in range(1, steps + 1):
        item = Sequenced(seq, seq, command(rng, seq, naive))
        told = fast.apply(item)
        assert told == naive.apply(item)
        for message in data.fold(Happened(seq, seq, told)):
            assert follower.take(message) == ()
        if seq % 50 == 0:
            same_books(fast, naive, data, follower)
    same_books(fast, naive, data, follower)


def same_books(fast, naive, data, follower) -> None:
    assert fast.resting_orders == len(naive.orders)
    assert fast.open_notional() == sum(order.price * order.quantity for order in naive.orders)
    for symbol in fast.instruments:
        depth = fast.depth(symbol, 1000)
        for side, levels in ((Side.BUY, depth.bids), (Side.SELL, depth.asks)):
            totals: dict[int, int] = {}
            for order in naive.queue(symbol, side):
                totals[order.price] = totals.get(order.price, 0) + order.quantity
            assert levels == tuple(totals.items())
        assert data.depth(symbol, 1000) == depth
        assert (follower.book(symbol).bids.depth(), follower.book(symbol).asks.depth()) == depth
        assert follower.book(symbol).seq == fast.symbol_seq(symbol)
        assert follower.crossed == frozenset()


# Hypothesis picks seed and length; a script of its own making would spend its time on drawing, not on matching.
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**64), steps=st.integers(1, 60))
def test_short_scripts_agree_with_the_naive_engine(seed, steps):
    compare(random.Random(seed), steps)


@pytest.mark.parametrize("seed", range(20))
def test_long_scripts_agree_with_the_naive_engine(seed):
    """20 scripts of 5,000 steps: 100,000 commands in the default run."""
    compare(random.Random(seed), 5_000)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1_000, 1_200))
def test_a_million_steps_agree_with_the_naive_engine(seed):
    compare(random.Random(seed + int(os.environ.get("TAPEWATCH_SEED", "0"))), 5_000)
