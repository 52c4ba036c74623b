# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Phases, limit states, pauses, breakers and indicative prices in the feed: told, joined late, lost and found."""

import asyncio
import io
import time

import pytest
from msgspec import structs
from rich.console import Console

from control import ladder
from exchange.adapters.look import INDICATIVE_S, CrossLook, books_of
from exchange.commands import Halt, Resume, SetPhase
from exchange.conflation import Conflation
from exchange.engine import Engine
from exchange.events import Happened
from exchange.feed_messages import MARKET, Delta, Indication, IndicativePrice, MarketStatus, Snapshot, Standing
from exchange.market_data import Follower, MarketData
from exchange.types import HaltReason, Instrument, Side, Symbol, TradingPhase, Venue
from kernel.adapters.clock import SystemClock
from kernel.time import SECOND, to_rfc3339
from tests.exchange.desk import Desk
from tests.exchange.plant import AAA, BBB, client_of, engine, eventually, order
from tests.exchange.test_feed import feed
from tests.exchange.test_market_data_client import following

P = TradingPhase
MOVING = Instrument("AAA", 1_000, 500, luld_ppm=50_000)


class Plant:
    """An engine, its feed and a follower; `told` holds what the last command made the feed say."""

    def __init__(self, *instruments, venue=None):
        self.desk = Desk(*instruments, venue=venue)
        self.data, self.follower = MarketData(self.desk.engine.instruments), Follower()
        for symbol in self.desk.engine.instruments:
            self.follower.take(self.data.snapshot(symbol))
        self.look = CrossLook(self.desk.engine, SystemClock())
        self.told = ()

    def do(self, events):
        self.told = self.data.fold(Happened(self.data.journal_seq + 1, self.desk.engine.clock, events))
        for message in self.told:
            self.follower.take(message)
        return self

    def indicate(self):
        found = self.look.changed()
        self.told = () if found is None else self.data.indicate(found.found, found.at)
        for message in self.told:
            self.follower.take(message)
        return self

    @property
    def book(self):
        return self.follower.book("AAA")

    def late(self):
        """What somebody knows who joins now."""
        follower = Follower()
        follower.take(self.data.snapshot("AAA"))
        follower.take(self.data.status(0))
        return follower

    def kinds(self):
        return [type(one) for one in self.told]


def test_a_limit_state_is_told_with_its_band_and_its_pause_with_its_end():
    plant = Plant(MOVING, venue=Venue(limit_state_seconds=5, pause_seconds=20))
    plant.do(plant.desk.buy(5, 1_050))
    assert plant.told[0].standing == Standing(P.CONTINUOUS, 0, True, 950, 1_050)
    assert (plant.book.limited, plant.late().book("AAA").upper) == (True, 1_050)
    plant.do(plant.desk.wait(5).tick())
    until = plant.desk.engine.paused_until("AAA")
    assert until > 0
    assert plant.told[0].standing == Standing(P.CONTINUOUS, until, False, 0, 0)
    assert plant.late().book("AAA").paused_until == until
    plant.do(plant.desk.wait(20).tick())
    assert plant.book.paused_until == 0


def test_a_limit_state_that_ends_by_itself_is_told():
    plant = Plant(MOVING)
    plant.do(plant.desk.buy(5, 1_050))
    plant.do(plant.desk.cancel(1))
    assert plant.told[0].standing == Standing(P.CONTINUOUS, 0, False, 0, 0)


def test_a_delta_that_changes_no_standing_carries_none():
    plant = Plant()
    assert plant.do(plant.desk.buy(5, 100)).told[0].standing is None


def test_a_breaker_tells_its_level_and_how_long_all_pause():
    plant = Plant(venue=Venue(breakers=True, breaker_seconds=60))
    plant.do(plant.desk.buy(1, 92)).do(plant.desk.sell(1, 92))
    [market] = [one for one in plant.told if isinstance(one, MarketStatus)]
    assert (market.breaker_level, market.paused_until) == (1, plant.desk.engine.market_paused_until)
    assert plant.late().market == structs.replace(market, at=0)
    plant.do(plant.desk.wait(60).tick())
    assert plant.follower.market.paused_until == 0
    assert plant.follower.market.breaker_level == 1


def test_a_turn_of_the_market_tells_every_symbols_phase():
    plant = Plant(MOVING, Instrument("BBB", 100, 50))
    plant.do(plant.desk.turn(P.CLOSING_AUCTION, "BBB"))
    assert plant.follower.book("BBB").phase is P.CLOSING_AUCTION
    assert plant.follower.market is None
    assert plant.data.status(0).phases == {"BBB": P.CLOSING_AUCTION}
    plant.do(plant.desk.turn(P.POST_CLOSE))
    assert (plant.follower.market.phase, plant.follower.market.phases) == (P.POST_CLOSE, {})
    assert {plant.follower.book(one).phase for one in ("AAA", "BBB")} == {P.POST_CLOSE}


def test_a_lost_market_shows_by_the_next_heartbeat_and_an_older_one_is_left_alone():
    plant = Plant()
    old = plant.do(plant.desk.turn(P.PRE_OPEN)).told[0]
    lost = plant.data.fold(Happened(2, 0, plant.desk.turn(P.CONTINUOUS)))
    follower = plant.follower
    assert follower.gapped == frozenset()
    assert follower.take(plant.data.heartbeat(0)) == ()
    assert follower.gapped == {MARKET}
    assert follower.market is None
    follower.take(lost[0])
    assert (follower.gapped, follower.market.phase) == (frozenset(), P.CONTINUOUS)
    follower.take(old)
    assert follower.market.phase is P.CONTINUOUS


def test_what_a_cross_would_do_is_told_when_it_changes_and_only_then():
    plant = Plant()
    plant.do(plant.desk.turn(P.OPENING_AUCTION))
    assert plant.indicate().told == ()
    plant.do(plant.desk.buy(5, 101)).do(plant.desk.sell(3, 99))
    [told] = plant.indicate().told
    assert (told.quantity, told.surplus, told.final) == (3, 2, False)
    assert plant.book.indicative == Indication(told.price, 3, 2)
    assert plant.indicate().told == ()
    plant.do(plant.desk.buy(1, 60))
    assert plant.indicate().told == ()
    plant.do(plant.desk.sell(1, 99))
    assert [one.quantity for one in plant.indicate().told] == [4]


def test_what_is_hidden_and_market_orders_count_in_the_indicative_price():
    plant = Plant()
    plant.do(plant.desk.turn(P.OPENING_AUCTION))
    plant.do(plant.desk.buy(50, 101, display=1)).do(plant.desk.sell(30))
    assert [one.quantity for one in plant.indicate().told] == [30]
    assert plant.book.bids.depth() == ((101, 1),)


def test_the_end_of_the_gathering_tells_what_the_cross_did():
    plant = Plant()
    plant.do(plant.desk.turn(P.OPENING_AUCTION)).do(plant.desk.buy(5, 101)).do(plant.desk.sell(3, 99))
    plant.do(plant.desk.turn(P.CONTINUOUS))
    assert plant.kinds() == [MarketStatus, Delta, IndicativePrice]
    final = plant.told[-1]
    assert (final.final, final.quantity, final.surplus, final.seq) == (True, 3, 2, plant.book.seq)
    assert final.price == plant.told[1].trades[0].price
    assert plant.book.indicative is None


def test_an_auction_that_ends_with_no_trade_after_something_was_told_says_so():
    plant = Plant()
    plant.do(plant.desk.turn(P.OPENING_AUCTION)).do(plant.desk.buy(5, 101)).do(plant.desk.sell(3, 99)).indicate()
    plant.do(plant.desk.mass_cancel())
    assert [(one.quantity, one.final) for one in plant.indicate().told] == [(0, False)]
    plant.do(plant.desk.buy(5, 101)).do(plant.desk.sell(3, 99)).indicate()
    plant.do(plant.desk.mass_cancel())
    plant.do(plant.desk.turn(P.CONTINUOUS))
    assert [(one.quantity, one.final) for one in plant.told if isinstance(one, IndicativePrice)] == [(0, True)]


def test_who_joins_late_has_the_indicative_price_in_the_snapshot():
    plant = Plant()
    plant.do(plant.desk.turn(P.OPENING_AUCTION)).do(plant.desk.buy(5, 101)).do(plant.desk.sell(3, 99)).indicate()
    assert plant.late().book("AAA").indicative == plant.book.indicative
    assert plant.book.indicative is not None


@pytest.mark.parametrize("late", [-1, 1])
def test_an_indicative_price_of_another_time_is_left_alone(late):
    plant = Plant()
    plant.do(plant.desk.turn(P.OPENING_AUCTION)).do(plant.desk.buy(5, 101)).do(plant.desk.sell(3, 99)).indicate()
    known = plant.book.indicative
    assert plant.follower.take(IndicativePrice("AAA", plant.book.seq + late, 0, 7, 7, 7)) == ()
    assert plant.book.indicative == known


def test_conflation_holds_no_turn_back():
    plant, conflation = Plant(MOVING), Conflation()
    out = conflation.take(plant.do(plant.desk.buy(1, 990)).told, 0.1)
    assert out == []
    plant.do(plant.desk.buy(5, 1_050))
    held, told = conflation.take(plant.told, 0.1)
    assert (held.standing, told.standing.limited) == (None, True)


def test_a_look_keeps_no_commit_waiting_and_comes_to_every_symbol():
    symbols = [Symbol(f"S{number:02}") for number in range(20)]
    market = Engine([Instrument(one, 100, 50) for one in symbols])
    market.apply(SetPhase("k", P.OPENING_AUCTION))
    ticks = iter(range(1_000_000))
    look = CrossLook(market, SystemClock(), timer=lambda: next(ticks) * 0.002)
    counts = [len(found.found) for _ in range(10) if (found := look.changed()) is not None]
    assert counts == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]


def test_the_engines_books_hold_how_each_symbol_stands():
    desk = Desk(MOVING)
    desk.buy(5, 1_050)
    [book] = books_of(desk.engine).books
    assert (book.limited, book.lower, book.upper) == (True, 950, 1_050)


# --- over real connections -------------------------------------------------------------------------------------------


async def test_an_auction_is_followed_to_its_cross_at_most_ten_times_a_second(tmp_path):
    heard = []
    async with (
        engine(tmp_path) as running,
        client_of(running.port) as client,
        feed(running.port) as published,
        following(published.port, heard=lambda message, _: heard.append(message)) as (follower, _),
    ):
        await running.server.command(SetPhase("open", P.OPENING_AUCTION))
        await client.submit(order("s", Side.SELL, quantity=500), 60)
        began = time.monotonic()
        for number in range(60):
            await client.submit(order(f"b{number}", who="bob", quantity=1), 60)
            await asyncio.sleep(0.01)
        await eventually(lambda: follower.book(AAA).indicative == Indication(1000, 60, -440))
        told = [one for one in heard if isinstance(one, IndicativePrice)]
        assert 1 < len(told) <= (time.monotonic() - began) / INDICATIVE_S + 1
        async with following(published.port) as (late, _):
            assert late.book(AAA).indicative == Indication(1000, 60, -440)
            assert late.market().phase is P.OPENING_AUCTION
        await running.server.command(SetPhase("go", P.CONTINUOUS))
        await eventually(lambda: any(one.final for one in heard if isinstance(one, IndicativePrice)))
        final = [one for one in heard if isinstance(one, IndicativePrice)][-1]
        assert (final.symbol, final.price, final.quantity, final.surplus) == (AAA, 1000, 60, -440)
        assert follower.book(AAA).indicative is None
        assert follower.book(BBB).phase is P.CONTINUOUS


async def test_a_client_that_lost_a_market_asks_for_it(tmp_path):
    async with engine(tmp_path) as running, feed(running.port) as published, following(published.port) as (client, _):
        await running.server.command(Halt("h", None, HaltReason.OPERATOR))
        await eventually(lambda: client.market() is not None and client.market().halted)
        data = published.server._data
        data.fold(0, Happened(data.journal_seq + 1, 0, running.server._sequencer.engine.apply(Resume("r", None))))
        await eventually(lambda: client.market() is not None and not client.market().halted)
        assert client.lost == {}


# --- for people --------------------------------------------------------------------------------------------------


def drawn(**members):
    book = {"symbol": "MOVA", "seq": 7, "bids": [], "asks": [], **members}
    console = Console(file=io.StringIO(), width=200)
    console.print(ladder.ladder(book, 5))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("members", "shown"),
    [
        ({"phase": "opening_auction", "gathering": True}, "opening_auction"),
        ({"limited": True, "lower": 950, "upper": 1050}, "limit state, band 950 to 1050"),
        ({"paused_until": 5 * SECOND}, f"paused until {to_rfc3339(5 * SECOND)}"),
        ({"gathering": True, "indicative": [1000, 60, -440]}, "a cross would trade 60 at 1000, 440 left to sell"),
        ({"gathering": True, "indicative": [1000, 60, 3]}, "a cross would trade 60 at 1000, 3 left to buy"),
        ({"gathering": True, "indicative": [1000, 60, 0]}, "a cross would trade 60 at 1000, nothing left"),
        ({"gathering": True, "indicative": None}, "a cross would trade nothing"),
        ({"halted": True}, "halted"),
    ],
)
def test_the_ladder_shows_how_the_symbol_stands(members, shown):
    assert shown in drawn(**members)


def test_a_snapshot_in_continuous_trading_shows_nothing_more_than_before():
    assert "cross" not in drawn(phase="continuous", gathering=False, indicative=None)
    assert Snapshot("AAA", 0, (), (), False).indicative is None
