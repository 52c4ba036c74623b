# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Whatever happens by the rules, the feed shows the engine's book, cries no wolf, and may be joined anywhere."""

import random

import pytest
from msgspec import structs

from exchange.adapters.look import books_of
from exchange.commands import (
    CancelOrder,
    Halt,
    Limit,
    Market,
    MassCancel,
    PlaceOrder,
    ReplaceOrder,
    Resume,
    Sequenced,
    SetPhase,
    Stop,
    StopLimit,
    Tick,
)
from exchange.conflation import Conflation
from exchange.engine import Engine
from exchange.events import Happened, Traded
from exchange.market_data import Delta, Follower, MarketData, MarketStatus, trade_throughs
from exchange.snapshot import dump, load
from exchange.types import HaltReason, Instrument, SelfTrade, Side, TimeInForce, TradingPhase, Venue
from kernel.time import SECOND
from tests.exchange.desk import AAA, Desk

INSTRUMENTS = (Instrument("AAA", 20, 15), Instrument("BBB", 200, 60, luld_ppm=60_000))
VENUE = Venue(limit_state_seconds=5, pause_seconds=20, reopening_seconds=20, breakers=True, breaker_seconds=20)


def terms(rng, price):
    kind = rng.random()
    if kind < 0.1:
        return Market()
    if kind < 0.16:
        return Stop(price)
    if kind < 0.22:
        return StopLimit(price, price + rng.choice((-1, 0, 1)))
    if kind < 0.32:
        return Limit(price, display=rng.randrange(1, 3))
    if kind < 0.42:
        return Limit(price, all_or_none=True)
    return Limit(price, post_only=kind < 0.47)


def command(rng, number, engine):  # noqa: PLR0911 - one return a kind of request
    """One request: mostly orders that meet, sometimes a turn of the day."""
    key, kind = f"k{number}", rng.random()
    symbol = rng.choice(("AAA", "BBB"))
    middle = 20 if symbol == "AAA" else 200
    if kind < 0.66:
        lasts = rng.choice((TimeInForce.DAY, TimeInForce.DAY, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK))
        mode = rng.choice((SelfTrade.NONE, SelfTrade.NONE, *SelfTrade))
        price = middle + rng.randrange(-4, 5) * (1 if symbol == "AAA" else 4)
        side, lots = rng.choice(tuple(Side)), rng.randrange(2, 9)
        return PlaceOrder(rng.choice("pq"), key, symbol, side, lots, terms(rng, price), lasts, 0, mode)
    order_id = rng.randrange(max(1, engine.orders_made - 25), engine.orders_made + 2)
    if kind < 0.76:
        return CancelOrder(rng.choice("pq"), key, order_id)
    if kind < 0.90:
        return ReplaceOrder(rng.choice("pq"), key, order_id, rng.randrange(1, 9), middle + rng.randrange(-4, 5))
    if kind < 0.905:
        return MassCancel(rng.choice("pq"), key)
    if kind < 0.915:
        return Halt(key, rng.choice((None, symbol)), HaltReason.OPERATOR)
    if kind < 0.965:
        return Resume(key, rng.choice((None, symbol)), rng.random() < 0.2)
    if kind < 0.98:
        return Tick(key)
    phase = TradingPhase.CONTINUOUS if rng.random() < 0.7 else rng.choice(tuple(TradingPhase))
    return SetPhase(key, phase, rng.choice((None, None, symbol)))


def begin(data):
    follower = Follower()
    for symbol in ("AAA", "BBB"):
        follower.take(data.snapshot(symbol))
    return follower


@pytest.mark.parametrize("seed", range(12))
def test_who_follows_the_feed_has_the_engines_book(seed):
    rng, engine, at = random.Random(seed), Engine(INSTRUMENTS, VENUE), 0
    data, conflation = MarketData(engine.instruments), Conflation()
    follower, slow = begin(data), begin(data)
    traded = 0
    for seq in range(1, 1_500):
        at += rng.choice((0, 0, SECOND // 3, SECOND))
        events = engine.apply(Sequenced(seq, at, command(rng, seq, engine)))
        traded += sum(isinstance(event, Traded) for event in events)
        messages = data.fold(Happened(seq, at, events))
        for message in messages:
            if isinstance(message, Delta):
                assert trade_throughs(follower.book(message.symbol).top(), message.trades) == 0, events
            assert follower.take(message) == (), events
        for message in conflation.take(messages, 0.5):
            assert slow.take(message) == ()
        for symbol in engine.instruments:
            book, depth = follower.book(symbol), engine.depth(symbol, 1000)
            assert (book.bids.depth(), book.asks.depth()) == depth == data.depth(symbol, 1000), events
            assert book.gathering or not book.crossed()
            assert stands(book) == (
                engine.phase(symbol),
                engine.paused_until(symbol),
                engine.limit_state(symbol) is not None,
                symbol in engine.halted_symbols(),
            ), events
            assert book.gathering or not engine.gathers(symbol)
        market = data.status(at)
        if follower.market is not None:  # what symbols do on their own stands in their deltas
            own = {"at": at, "phases": market.phases, "gathering": market.gathering}
            assert market == structs.replace(follower.market, **own), events
        assert (market.phase, market.breaker_level) == (engine.market_phase, engine.breaker_level)
        assert (market.halted, market.paused_until) == (engine.market_halted, engine.market_paused_until)
        if seq % 50 == 0:
            joined = MarketData(engine.instruments)
            books = [restored(engine, one) for one in engine.instruments]
            joined.restore(
                seq,
                books,
                market_halted=engine.market_halted,
                market_paused_until=engine.market_paused_until,
                market_phase=engine.market_phase,
                breaker_level=engine.breaker_level,
            )
            data = joined
            follower.take(data.status(at))
    assert traded > 50
    for message in conflation.flush():
        assert slow.take(message) == ()
    assert all(slow.book(one).bids.depth() == data.depth(one, 1000).bids for one in engine.instruments)


def stands(book):
    return book.phase, book.paused_until, book.limited, book.halted


def restored(engine, symbol):
    """A symbol's book as the engine hands it to who joins."""
    return next(one for one in books_of(engine).books if one.symbol == symbol)


@pytest.mark.parametrize("seed", range(3))
def test_a_frozen_engine_goes_on_the_same_and_a_replay_ends_in_the_same_state(seed):
    rng, engine, at = random.Random(seed), Engine(INSTRUMENTS, VENUE), 0
    other, items = Engine(INSTRUMENTS, VENUE), []
    for seq in range(1, 1_000):
        at += rng.choice((0, 0, SECOND // 3, SECOND))
        items.append(Sequenced(seq, at, command(rng, seq, engine)))
        if seq % 7 == 0:
            other = load(dump(other), INSTRUMENTS, VENUE)
        assert other.apply(items[-1]) == engine.apply(items[-1])
        assert other.state_hash() == engine.state_hash()
        assert other.due_at() == engine.due_at()
    again = Engine(INSTRUMENTS, VENUE)
    for item in items:
        again.apply(item)
    assert again.state_hash() == engine.state_hash()


def test_an_engine_can_be_taken_back_to_a_snapshot():
    desk = Desk()
    desk.buy(3, 100)
    kept, right = desk.engine.snapshot(), desk.engine.state_hash()
    desk.sell(3, 100)
    desk.engine.restore(kept)
    assert (desk.engine.state_hash(), desk.bids()) == (right, ((100, 3),))


@pytest.mark.parametrize("flags", [{"all_or_none": True}, {"display": 1}, {"trigger": 140}])
def test_what_is_not_shown_stands_in_no_message(flags):
    desk = Desk()
    desk.buy(7, 90, **flags)
    told = desk.data.snapshot("AAA")
    assert sum(quantity for _, quantity in told.bids) == flags.get("display", 0)


def test_a_market_wide_turn_tells_who_gathers():
    desk = Desk(AAA, Instrument("BBB", 100, 50))
    item = Sequenced(1, 0, SetPhase("k", TradingPhase.PRE_OPEN))
    told = desk.data.fold(Happened(1, 0, desk.engine.apply(item)))
    pre_open = TradingPhase.PRE_OPEN
    assert told == (MarketStatus(halted=False, at=0, gathering=("AAA", "BBB"), seq=1, phase=pre_open),)
