# mypy: disable-error-code="arg-type"
"""A conflated feed says less, and a reader who trusts nothing finds nothing wrong with it."""

from __future__ import annotations

import pytest

from exchange.commands import Sequenced
from exchange.conflation import HELD_BEATS, Conflation, merged
from exchange.engine import Engine
from exchange.events import Happened
from exchange.flow import OrderFlow
from exchange.market_data import Delta, Follower, Heartbeat, LevelChange, MarketData, trade_throughs
from exchange.types import Instrument, Side

INSTRUMENTS = tuple(Instrument(symbol, 1_000, 200) for symbol in ("AAA", "BBB", "CCC"))
SYMBOLS = tuple(one.symbol for one in INSTRUMENTS)


def spoken(count, beat_every=40, seed=4):
    """What a feed says of a market, heartbeats included, and the books as they are."""
    engine, flow, data = Engine(INSTRUMENTS), OrderFlow(seed, INSTRUMENTS, ("p", "q")), MarketData(SYMBOLS)
    for seq in range(1, count + 1):
        events = engine.apply(Sequenced(seq, 0, next(flow)))
        flow.observe(events)
        yield list(data.fold(Happened(seq, 0, events))), data
        if seq % beat_every == 0:
            yield [data.heartbeat(0)], data


def deltas(messages):
    return [one for one in messages if isinstance(one, Delta)]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_that_share_of_the_updates_goes_out_and_a_follower_finds_no_gap_no_cross_and_no_trade_through(share):
    conflation, follower, told, said = Conflation(), Follower(), 0, 0
    for snapshot in (MarketData(SYMBOLS).snapshot(symbol) for symbol in SYMBOLS):
        follower.take(snapshot)
    for messages, _ in spoken(4_000):
        said += len(deltas(messages))
        for message in conflation.take(messages, share):
            if isinstance(message, Delta):
                told += 1
                assert not trade_throughs(follower.book(message.symbol).top(), message.trades)
            assert follower.take(message) == ()
    assert told / said == pytest.approx(share, abs=0.03)


def test_what_is_held_is_told_in_the_end_and_the_books_are_the_true_ones():
    conflation, follower, data = Conflation(), Follower(), MarketData(SYMBOLS)
    for symbol in SYMBOLS:
        follower.take(data.snapshot(symbol))
    for messages, true_data in spoken(500):
        data = true_data
        for message in conflation.take(messages, 0.3):
            follower.take(message)
    assert conflation.holds
    for message in conflation.flush():
        assert follower.take(message) == ()
    assert not conflation.holds
    for symbol in SYMBOLS:
        book, true = follower.book(symbol), data.snapshot(symbol)
        assert (book.seq, book.bids.depth(), book.asks.depth()) == (true.seq, true.bids, true.asks)


def update(seq, *changes, previous=None):
    return Delta("AAA", seq, seq - 1 if previous is None else previous, 0, tuple(changes))


def test_two_updates_as_one_hold_the_last_quantity_of_each_price():
    one = update(4, LevelChange(Side.BUY, 10, 5), LevelChange(Side.SELL, 12, 1))
    two = update(5, LevelChange(Side.BUY, 10, 0))
    assert merged(one, two) == update(
        5, LevelChange(Side.BUY, 10, 0), LevelChange(Side.SELL, 12, 1), previous=3
    )  # fmt: skip


def test_a_heartbeat_claims_no_more_than_what_went_out_and_a_quiet_symbol_is_told_within_a_second():
    conflation = Conflation()
    assert conflation.take([update(8)], 0.5) == []
    beat = Heartbeat(99, 0, {"AAA": 8, "BBB": 3})
    for _ in range(HELD_BEATS - 1):
        assert conflation.take([beat], 0.5) == [Heartbeat(99, 0, {"AAA": 7, "BBB": 3})]
    assert conflation.take([beat], 0.5) == [update(8), beat]


def test_a_whole_book_takes_the_place_of_what_is_held():
    conflation, data = Conflation(), MarketData(SYMBOLS)
    conflation.take([update(8)], 0.5)
    snapshot = data.snapshot("AAA")
    assert conflation.take([snapshot], 0.5) == [snapshot]
    assert not conflation.holds
