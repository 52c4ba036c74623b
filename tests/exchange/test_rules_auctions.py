# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The rules of phases, halts and crosses, one example each."""

import pytest

from exchange.events import Crossed, Expired, PhaseChanged
from exchange.types import Instrument, SelfTrade, Side, TimeInForce, TradingPhase
from tests.exchange.desk import AAA, Desk, cancels, crossed, expired, kinds, reason, trades

PRE_OPEN, CONTINUOUS, CLOSED = TradingPhase.PRE_OPEN, TradingPhase.CONTINUOUS, TradingPhase.CLOSED
OPENING, INTRADAY, CLOSING = (
    TradingPhase.OPENING_AUCTION,
    TradingPhase.INTRADAY_AUCTION,
    TradingPhase.CLOSING_AUCTION,
)
POST_CLOSE, GTC = TradingPhase.POST_CLOSE, TimeInForce.GTC
BBB = Instrument("BBB", 100, 50)


def gathering(*instruments, phase=OPENING):
    desk = Desk(*(instruments or (AAA,)))
    desk.turn(phase)
    return desk


def test_an_auction_gathers_orders_and_its_book_may_stand_crossed():
    desk = gathering()
    desk.buy(2, 103)
    assert kinds(desk.sell(2, 99)) == ["Accepted", "Rested"]
    assert desk.follower.crossed == frozenset()
    assert desk.engine.gathers("AAA")


@pytest.mark.parametrize(
    ("flags", "right"),
    [
        ({"lasts": TimeInForce.IOC}, "wrong_phase"),
        ({"lasts": TimeInForce.FOK}, "wrong_phase"),
        ({"post_only": True}, "wrong_phase"),
        ({"all_or_none": True}, "wrong_phase"),
    ],
)
@pytest.mark.parametrize("phase", [PRE_OPEN, OPENING, INTRADAY, CLOSING])
def test_f17_an_auction_takes_no_order_that_cannot_wait(flags, right, phase):
    assert reason(gathering(phase=phase).buy(1, 100, **flags)) == right


def test_phases_without_orders_refuse_them_and_cancels_pass():
    desk = Desk()
    desk.buy(1, 99, lasts=GTC)
    desk.turn(POST_CLOSE)
    assert reason(desk.buy(1, 99)) == "wrong_phase"
    assert reason(desk.replace(1, 1, 98)) == "wrong_phase"
    desk.turn(CLOSED)
    assert reason(desk.buy(1, 99)) == "session_closed"
    assert kinds(desk.cancel(1)) == ["Canceled"]


def test_p6_crosses_come_by_symbol_whether_an_auction_ends_or_a_symbol_begins_to_trade():
    desk = gathering(AAA, BBB)
    desk.buy(1, 101)
    desk.sell(1, 99)
    desk.halt("AAA")
    desk.turn(POST_CLOSE)  # it stands: no cross, what it gathered stays
    desk.resume("AAA")
    desk.turn(OPENING, "BBB")
    desk.buy(1, 101, symbol="BBB")
    desk.sell(1, 99, symbol="BBB")
    events = desk.turn(CONTINUOUS)
    assert [one.symbol for one in events if isinstance(one, Crossed)] == ["AAA", "BBB"]


@pytest.mark.parametrize("phase", [PRE_OPEN, CLOSING, POST_CLOSE])
def test_p7_a_symbol_that_was_halted_in_an_auction_crosses_when_it_trades_again_not_before(phase):
    desk = gathering()
    desk.turn(phase)
    desk.turn(OPENING, "AAA")
    desk.buy(1, 101)
    desk.sell(1, 99)
    desk.halt("AAA")
    assert kinds(desk.resume("AAA")) == ["Resumed"]
    assert desk.engine.phase("AAA") is phase
    assert crossed(desk.turn(CONTINUOUS)) == [(100, 1, 0)]


def test_a2_most_volume_decides():
    desk = gathering()
    for quantity, price in ((5, 104), (5, 102), (5, 100)):
        desk.buy(quantity, price)
    for quantity, price in ((3, 99), (3, 101), (10, 103)):
        desk.sell(quantity, price)
    events = desk.turn(CONTINUOUS)
    assert crossed(events) == [(102, 6, 4)]


def test_a2_of_equal_volume_the_least_surplus_decides():
    desk = gathering()
    desk.buy(5, 104)
    desk.buy(3, 102)
    desk.sell(5, 101)
    assert crossed(desk.turn(CONTINUOUS)) == [(104, 5, 0)]


def test_a2_pressure_decides_then_the_reference():
    buyers = gathering()
    buyers.buy(7, 104)
    buyers.sell(5, 101)
    assert crossed(buyers.turn(CONTINUOUS)) == [(104, 5, 2)]
    sellers = gathering()
    sellers.buy(5, 104)
    sellers.sell(7, 101)
    assert crossed(sellers.turn(CONTINUOUS)) == [(101, 5, -2)]
    even = gathering(Instrument("AAA", 102, 50))
    even.buy(5, 104)
    even.sell(5, 100)
    assert crossed(even.turn(CONTINUOUS)) == [(102, 5, 0)]
    tied = gathering(Instrument("AAA", 120, 50))
    tied.buy(5, 104)
    tied.sell(5, 100)
    assert crossed(tied.turn(CONTINUOUS)) == [(104, 5, 0)]


def test_a3_without_volume_there_is_no_cross_and_market_orders_go():
    desk = gathering()
    desk.buy(2)
    desk.buy(1, 99)
    desk.sell(1, 101)
    events = desk.turn(CONTINUOUS)
    assert (crossed(events), trades(events)) == ([(101, 1, 1)], [(1, 101, 1)])
    assert cancels(events) == [(1, 1, "market_remainder")]
    alone = gathering()
    alone.buy(2)
    assert cancels(alone.turn(CONTINUOUS)) == [(1, 2, "market_remainder")]


def test_a3_market_orders_alone_trade_at_the_reference():
    desk = gathering()
    desk.buy(3)
    desk.sell(2)
    events = desk.turn(CONTINUOUS)
    assert (crossed(events), trades(events)) == ([(100, 2, 1)], [(1, 100, 2)])


def test_a5_market_orders_first_then_price_then_age_and_the_older_is_the_maker():
    desk = gathering()
    desk.buy(2, 101)
    desk.buy(2, 102)
    desk.buy(2)
    desk.buy(2, 101)
    desk.sell(7, 101)
    events = desk.turn(CONTINUOUS)
    assert trades(events) == [(3, 101, 2), (2, 101, 2), (1, 101, 2), (4, 101, 1)]
    assert desk.bids() == ((101, 1),)


def test_a6_an_iceberg_trades_whole_and_shows_a_new_part_in_its_old_place():
    desk = gathering()
    desk.buy(10, 101, display=2)
    desk.buy(1, 101)
    desk.sell(5, 101)
    events = desk.turn(CONTINUOUS)
    assert trades(events) == [(1, 101, 5)]
    assert kinds(events) == ["Crossed", "Traded", "Replenished", "PhaseChanged"]
    assert [(one.order_id, one.shown) for one in desk.engine.queue("AAA", Side.BUY)] == [(1, 2), (2, 1)]


def test_s4_crosses_do_not_look_at_self_trade_prevention():
    desk = gathering()
    desk.buy(1, 101, self_trade=SelfTrade.CANCEL_BOTH)
    desk.sell(1, 101, self_trade=SelfTrade.CANCEL_BOTH)
    assert trades(desk.turn(CONTINUOUS)) == [(1, 101, 1)]


def test_a7_the_indicative_price_follows_the_book():
    desk = gathering()
    assert desk.engine.indicative("AAA") is None
    desk.buy(3, 103)
    desk.sell(2, 101)
    told = desk.engine.indicative("AAA")
    assert (told.price, told.volume, told.surplus) == (103, 2, 1)


def test_a8_stops_and_unseen_orders_are_looked_at_after_the_cross():
    desk = Desk()
    desk.sell(2, 102, all_or_none=True, lasts=GTC)
    desk.turn(OPENING)
    desk.buy(1, trigger=101)
    desk.buy(3, 102)
    desk.sell(1, 101)
    desk.sell(1, 104)
    events = desk.turn(CONTINUOUS)
    assert kinds(events) == ["Crossed", "Traded", "PhaseChanged", "Traded", "Triggered", "Traded"]
    assert trades(events) == [(3, 102, 1), (3, 102, 2), (5, 104, 1)]


def test_p4_pre_open_straight_to_continuous_makes_a_cross():
    desk = gathering(phase=PRE_OPEN)
    desk.buy(1, 101)
    desk.sell(1, 99)
    assert crossed(desk.open()) == [(100, 1, 0)]


def test_p7_pre_open_hands_its_orders_to_the_auction_and_one_auction_crosses_before_the_next():
    desk = gathering(phase=PRE_OPEN)
    desk.buy(1, 101)
    desk.sell(1, 99)
    assert kinds(desk.turn(OPENING)) == ["PhaseChanged"]
    assert crossed(desk.turn(CLOSING)) == [(100, 1, 0)]


@pytest.mark.parametrize("phase", [POST_CLOSE, CLOSED])
def test_p5_the_end_of_the_day_makes_the_cross_first(phase):
    desk = gathering(phase=CLOSING)
    desk.buy(2, 101)
    desk.sell(1, 99)
    events = desk.turn(phase)
    assert trades(events) == [(1, 101, 1)]
    assert expired(events) == ([1] if phase is CLOSED else [])


def test_p2_closing_expires_by_symbol_side_price_and_age_then_the_stops():
    desk = Desk(AAA, BBB)
    desk.buy(1, trigger=120, symbol="BBB")
    desk.sell(1, 110, symbol="AAA")
    desk.buy(1, 90, symbol="BBB")
    desk.buy(1, 91, symbol="AAA")
    desk.buy(1, 92, symbol="AAA")
    desk.buy(1, 95, symbol="AAA", all_or_none=True)
    desk.sell(1, trigger=80, symbol="AAA")
    desk.buy(1, 92, symbol="AAA")
    events = desk.close()
    assert expired(events) == [6, 5, 8, 4, 2, 3, 1, 7]
    assert [one.price for one in events if isinstance(one, Expired)][-2:] == [120, 80]


def test_p3_what_changes_nothing_is_answered_like_the_first_time():
    desk = Desk()
    assert kinds(desk.resume()) == ["Resumed"]
    desk.halt()
    assert kinds(desk.halt()) == ["Halted"]
    assert kinds(desk.turn(CONTINUOUS)) == ["PhaseChanged"]


def test_a_halt_in_an_auction_makes_no_cross_until_trading_begins_again():
    desk = gathering()
    desk.buy(1, 101)
    desk.sell(1, 99)
    desk.halt()
    assert kinds(desk.turn(CONTINUOUS)) == ["PhaseChanged"]
    assert reason(desk.buy(1, 100)) == "halted"
    assert desk.follower.crossed == frozenset()
    events = desk.resume()
    assert kinds(events) == ["Crossed", "Traded", "Resumed"]


def test_p9_a_resume_with_an_auction_gathers_first_and_crosses_when_it_is_due():
    desk = Desk()
    desk.halt()
    events = desk.resume(auction=True)
    assert kinds(events) == ["Resumed", "PhaseChanged"]
    assert desk.engine.phase("AAA") is INTRADAY
    desk.buy(1, 101)
    desk.sell(1, 100)
    assert desk.engine.due_at() == 300 * 10**9
    assert kinds(desk.wait(299).tick()) == ["Ticked"]
    events = desk.wait(1).tick()
    assert kinds(events) == ["Crossed", "Traded", "PhaseChanged", "Ticked"]
    assert desk.engine.phase("AAA") is CONTINUOUS


def test_a_resumed_market_may_begin_with_an_auction_of_every_symbol():
    desk = Desk(AAA, BBB)
    desk.halt("BBB")
    desk.halt(None)
    events = desk.resume(None, auction=True)
    assert [one.symbol for one in events if isinstance(one, PhaseChanged)] == ["AAA"]
    assert reason(desk.buy(1, 100, symbol="BBB")) == "halted"


def test_one_symbol_can_be_turned_and_a_turn_of_the_market_turns_it_too():
    desk = Desk(AAA, BBB)
    desk.turn(INTRADAY, "AAA")
    desk.buy(1, 100)
    assert trades(desk.sell(1, 100)) == []
    desk.buy(1, 100, symbol="BBB")
    assert trades(desk.sell(1, 100, symbol="BBB")) == [(3, 100, 1)]
    assert trades(desk.turn(CONTINUOUS)) == [(1, 100, 1)]


def test_f16_a_market_order_in_an_auction_can_be_replaced():
    desk = gathering()
    desk.buy(5)
    desk.buy(5)
    (told,) = desk.replace(1, 3, "what")
    assert (told.kept_priority, told.price) == (True, 0)
    (told,) = desk.replace(1, 6, None)
    assert told.kept_priority is False
    desk.sell(5, 100)
    assert trades(desk.turn(CONTINUOUS)) == [(2, 100, 5)]


def test_an_unknown_symbol_when_the_market_is_closed_is_told_as_closed():
    desk = Desk()
    assert reason(desk.buy(1, 100, symbol="ZZZ")) == "unknown_symbol"
    desk.halt(None)
    assert reason(desk.buy(1, 100, symbol="ZZZ")) == "halted"
    desk.close()
    assert reason(desk.buy(1, 100, symbol="ZZZ")) == "session_closed"
