# mypy: check-untyped-defs=False, disable-error-code="arg-type"
"""The feed of several engines is one: a subscriber needs not know how many there are."""

import msgspec
import pytest

from exchange.commands import Halt, Resume, Sequenced, SetPhase
from exchange.engine import Engine
from exchange.events import Happened
from exchange.feed_messages import Delta, MarketStatus
from exchange.market_data import Follower
from exchange.market_parts import MarketParts
from exchange.shards import whole_id
from exchange.types import HaltReason, Side, TradingPhase
from kernel.time import Instant
from tests.exchange.plant import INSTRUMENTS, order

SYMBOLS = [one.symbol for one in INSTRUMENTS]


class Plant:
    """An engine for each symbol, and the feed of both with somebody who follows it."""

    def __init__(self):
        self.engines = [Engine([one]) for one in INSTRUMENTS]
        self.feed = MarketParts([[symbol] for symbol in SYMBOLS])
        self.follower = Follower()
        for symbol in SYMBOLS:
            self.follower.take(self.feed.snapshot(symbol))

    def do(self, place, command):
        engine = self.engines[place]
        item = Sequenced(engine.sequence + 1, Instant(engine.sequence + 1), command)
        told = self.feed.fold(place, Happened(item.seq, item.at, engine.apply(item)))
        assert [finding for message in told for finding in self.follower.take(message)] == []
        return told

    def all_well(self):
        return self.follower.take(self.feed.heartbeat(Instant(9))) == () and not self.follower.gapped


@pytest.fixture
def plant():
    return Plant()


def priced(name, side, symbol):
    return msgspec.structs.replace(order(name, side), symbol=symbol)


def test_books_of_every_engine_stand_in_one_feed_and_ids_of_trades_are_whole(plant):
    for place, symbol in enumerate(SYMBOLS[:2]):
        plant.do(place, priced("a", Side.SELL, symbol))
        (delta,) = plant.do(place, priced("b", Side.BUY, symbol))
        assert isinstance(delta, Delta)
        assert [one.trade_id for one in delta.trades] == [whole_id(place, 1)]
    assert plant.all_well()
    assert plant.feed.heartbeat(Instant(9)).seqs.keys() == set(SYMBOLS)


def test_one_engine_that_stands_still_halts_its_symbols_and_not_the_market(plant):
    (told,) = plant.do(1, Halt("k", None, HaltReason.OPERATOR))
    assert isinstance(told, MarketStatus)
    assert (told.halted, told.halted_symbols) == (False, (SYMBOLS[1],))
    assert plant.feed.stands_with_part(SYMBOLS[1])
    assert not plant.feed.stands_with_part(SYMBOLS[0])
    (told,) = plant.do(0, Halt("k", None, HaltReason.OPERATOR))
    assert (told.halted, told.halted_symbols) == (True, ())
    (told,) = plant.do(1, Resume("r", None))
    assert (told.halted, told.halted_symbols) == (False, (SYMBOLS[0],))
    assert plant.all_well()


def test_the_number_of_how_the_market_stands_rises_with_every_engine(plant):
    numbers = [plant.do(place, SetPhase(f"k{place}", TradingPhase.CLOSED))[0].seq for place in (0, 1)]
    assert numbers == sorted(set(numbers))
    assert plant.follower.market is not None
    assert plant.follower.market.seq == plant.feed.heartbeat(Instant(9)).market_seq
    assert plant.all_well()


def test_a_symbol_of_an_engine_in_another_phase_is_told_by_name(plant):
    (told,) = plant.do(1, SetPhase("k", TradingPhase.CLOSED))
    assert (told.phase, told.phases) == (TradingPhase.CONTINUOUS, {SYMBOLS[1]: TradingPhase.CLOSED})
    assert plant.feed.snapshot(SYMBOLS[1]).phase is TradingPhase.CLOSED
    assert plant.feed.snapshot(SYMBOLS[0]).phase is TradingPhase.CONTINUOUS
