# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The rules of moving bands, limit states, pauses and breakers, one example each."""

import pytest

from exchange.events import Breaker, LimitState, Paused, PhaseChanged
from exchange.types import Instrument, TimeInForce, TradingPhase, Venue
from tests.exchange.desk import Desk, cancels, crossed, kinds, reason, trades

MOVING = Instrument("AAA", 1_000, 500, luld_ppm=50_000)
"""Band of 950 to 1,050 before any trade."""


def states(events):
    return [(one.entered, one.lower, one.upper) for one in events if isinstance(one, LimitState)]


def test_b3_a_taker_stops_at_the_band_and_a_limit_order_rests_there():
    desk = Desk(MOVING)
    desk.sell(1, 1_040)
    desk.sell(1, 1_060)
    events = desk.buy(3, 1_100)
    assert trades(events) == [(1, 1_040, 1)]
    assert desk.bids() == ((1_050, 2),)
    assert events[0].price == 1_100


def test_b3_what_is_left_of_a_market_order_is_cancelled():
    desk = Desk(MOVING)
    desk.buy(1, 960)
    desk.buy(1, 940)
    assert cancels(desk.sell(3)) == [(3, 2, "market_remainder")]
    empty = Desk(MOVING)
    empty.buy(1, 940)
    assert cancels(empty.sell(1, 900, lasts=TimeInForce.IOC)) == [(2, 1, "ioc_remainder")]


def test_b2_the_reference_moves_with_the_mean_when_that_is_a_hundredth_away():
    desk = Desk(MOVING)
    for price, lower in ((1_009, 950), (1_011, 960)):
        desk.sell(1, price)
        desk.buy(1, price)
        desk.sell(1, 900)
        assert desk.asks() == ((lower, 1),)
        desk.mass_cancel()


@pytest.mark.parametrize(("reference", "lower", "upper"), [(27, 26, 28), (26, 26, 26), (1, 2, 2)])
def test_b2_a_band_that_holds_no_step_ends_at_the_steps_beside_its_reference(reference, lower, upper):
    """Else its lower end would be above its upper one, and whoever crosses would rest beyond the other."""
    desk = Desk(Instrument("AAA", reference, 30, tick_step=2, luld_ppm=20_000))
    assert states(desk.sell(1, 2)) == [(True, lower, upper)]
    assert desk.asks() == ((lower, 1),)
    events = desk.buy(2, 28)
    assert trades(events) == [(1, lower, 1)]
    assert desk.bids() == ((upper, 1),)


@pytest.mark.parametrize(("reference", "step", "ppm"), [(2, 5, 1_000_000), (1, 3, 1_000_000), (3, 10, 900_000)])
def test_b2_a_band_that_ends_below_the_first_step_is_that_step(reference, step, ppm):
    """Else its upper end would be 0, which is no limit: a buyer would take at any price and rest at none."""
    desk = Desk(Instrument("AAA", reference, 30, tick_step=step, luld_ppm=ppm))
    desk.sell(1, step)
    desk.sell(1, 2 * step)
    assert trades(desk.buy(5, 2 * step)) == [(1, step, 1)]
    assert (desk.bids(), desk.asks()) == (((step, 4),), ((2 * step, 1),))


def test_b2_trades_older_than_five_minutes_are_forgotten():
    desk = Desk(MOVING)
    desk.sell(1, 1_000)
    desk.buy(1, 1_000)
    desk.wait(300).sell(1, 1_020)
    desk.buy(1, 1_020)
    desk.sell(1, 900)
    assert desk.asks() == ((969, 1),)


def test_b4_the_limit_state_is_entered_and_left_after_a_command():
    desk = Desk(MOVING)
    assert states(desk.buy(1, 1_100)) == [(True, 950, 1_050)]
    assert states(desk.buy(1, 1_100)) == []
    assert states(desk.cancel(1)) == []
    assert states(desk.cancel(2)) == [(False, 950, 1_050)]
    assert desk.engine.due_at() is None


def test_b5_a_limit_state_that_lasts_becomes_a_pause_and_ends_in_a_cross():
    desk = Desk(MOVING)
    desk.buy(2, 1_100)
    assert desk.engine.due_at() == 15 * 10**9
    events = desk.wait(15).tick()
    assert kinds(events) == ["Paused", "Ticked"]
    assert [one.until for one in events if isinstance(one, Paused)] == [315 * 10**9]
    assert kinds(desk.sell(1, 1_040)) == ["Accepted", "Rested"]
    assert reason(desk.buy(1, 1_050, lasts=TimeInForce.IOC)) == "wrong_phase"
    events = desk.wait(300).tick()
    assert kinds(events) == ["Crossed", "Traded", "PhaseChanged", "Ticked"]
    assert crossed(events) == [(1_050, 1, 1)]
    desk.cancel(1)
    desk.sell(1, 900)
    assert desk.asks() == ((998, 1),)


def test_b5_the_times_are_those_of_the_things_due_not_of_the_command_that_brings_them():
    desk = Desk(MOVING)
    desk.buy(1, 1_100)
    events = desk.wait(10_000).tick()
    assert kinds(events)[:4] == ["Paused", "PhaseChanged", "LimitState", "Paused"]
    until = [one.until // 10**9 for one in events if isinstance(one, Paused)]
    assert until == [315 + 315 * number for number in range(len(until))]
    assert len(until) > 5


def test_a_pause_outlives_a_turn_of_the_market_and_a_halt_ends_it():
    desk = Desk(MOVING)
    desk.buy(1, 1_100)
    desk.wait(15).tick()
    assert kinds(desk.turn(TradingPhase.CONTINUOUS)) == ["PhaseChanged"]
    desk.sell(1, 1_000)
    assert desk.bids() == ((1_050, 1),)
    desk.halt()
    assert desk.engine.due_at() is None
    assert kinds(desk.resume()) == ["Crossed", "Traded", "Resumed"]


def test_p8_a_pause_ends_with_its_cross_where_the_market_does_not_trade():
    desk = Desk(MOVING)
    desk.turn(TradingPhase.POST_CLOSE)
    desk.turn(TradingPhase.CONTINUOUS, "AAA")
    desk.buy(1, 1_050)
    desk.wait(15).tick()
    desk.sell(1, 1_040)
    events = desk.wait(300).tick()
    assert (crossed(events), kinds(events)[-2:]) == ([(1_040, 1, 0)], ["PhaseChanged", "Ticked"])
    assert desk.engine.phase("AAA") is TradingPhase.POST_CLOSE


def test_p7_what_was_turned_to_post_close_while_it_was_paused_crosses_when_it_trades_again():
    desk = Desk(MOVING)
    desk.buy(1, 1_050)
    desk.wait(15).tick()
    desk.sell(1, 1_040)
    desk.turn(TradingPhase.POST_CLOSE)
    assert crossed(desk.wait(300).tick()) == []
    assert crossed(desk.turn(TradingPhase.CONTINUOUS)) == [(1_040, 1, 0)]


def test_b2_the_band_holds_in_continuous_trading_only():
    desk = Desk(MOVING)
    desk.turn(TradingPhase.OPENING_AUCTION)
    desk.buy(1, 1_200)
    assert desk.bids() == ((1_200, 1),)
    assert states(desk.turn(TradingPhase.CONTINUOUS)) == [(True, 950, 1_050)]


MARKET = (Instrument("AAA", 100, 50), Instrument("BBB", 100, 50))


def fall(desk, symbol, price):
    desk.buy(1, price, symbol=symbol)
    return desk.sell(1, price, symbol=symbol)


def test_b6_a_fall_pauses_the_market_by_level_and_at_last_closes_it():
    desk = Desk(*MARKET, venue=Venue(breakers=True))
    assert not [one for one in fall(desk, "AAA", 87) if isinstance(one, Breaker)]
    events = fall(desk, "AAA", 86)
    assert kinds(events)[-2:] == ["Breaker", "Paused"]
    assert kinds(desk.buy(1, 90)) == ["Accepted", "Rested"]
    desk.sell(1, 90, symbol="BBB")
    desk.buy(1, 90, symbol="BBB")
    events = desk.wait(900).tick()
    assert [(one.price, one.quantity) for one in events if type(one).__name__ == "Crossed"] == [(90, 1)]
    assert [one.symbol for one in events if isinstance(one, PhaseChanged)] == [None]
    assert not [one for one in events if isinstance(one, Breaker)]
    events = fall(desk, "BBB", 70)
    assert [one.level for one in events if isinstance(one, Breaker)] == [3]
    assert kinds(events)[-1] == "SessionClosed"
    assert reason(desk.buy(1, 90)) == "session_closed"


def test_b6_a_breaker_that_closes_crosses_what_an_auction_gathered_and_the_band_learns_of_it():
    """The trades of that cross are counted with this command: later ones may come when they are too old to be."""
    moving = Instrument("AAA", 100, 50, luld_ppm=100_000)
    desk = Desk(moving, Instrument("BBB", 100, 50), venue=Venue(breakers=True))
    desk.turn(TradingPhase.OPENING_AUCTION, "AAA")
    desk.buy(1, 90, lasts=TimeInForce.GTC)
    desk.sell(1, 90)
    desk.buy(1, 50, symbol="BBB")
    events = desk.sell(1, 50, symbol="BBB")
    assert kinds(events)[-4:] == ["Breaker", "Crossed", "Traded", "SessionClosed"]
    desk.wait(400).open()
    desk.buy(1, 120)
    assert desk.bids() == ((99, 1),)


def test_b6_a_level_is_used_once_a_session():
    desk = Desk(*MARKET, venue=Venue(breakers=True))
    assert [one.level for one in fall(desk, "AAA", 72) if isinstance(one, Breaker)] == [2]
    desk.wait(900).tick()
    assert not [one for one in fall(desk, "BBB", 100) if isinstance(one, Breaker)]
    desk.close()
    desk.open()
    assert [one.level for one in fall(desk, "BBB", 99) if isinstance(one, Breaker)] == [2]


@pytest.mark.parametrize("instruments", [(MOVING,), MARKET])
def test_without_trades_nothing_is_ever_due(instruments):
    desk = Desk(*instruments, venue=Venue(breakers=True))
    assert desk.engine.due_at() is None
