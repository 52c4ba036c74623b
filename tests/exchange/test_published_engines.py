# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""What further public engines hold their own books to: their orders, asked of this engine. Each names where it stands.

`test_published_examples.py` has the first ones. Told are facts only: who sends what, who trades, what is left.
"""

from fractions import Fraction

import pytest

from exchange.types import (
    Instrument,
    MarketRemainder,
    ReplaceQuantity,
    SelfTrade,
    StopReached,
    TimeInForce,
    TradingPhase,
    Venue,
)
from tests.exchange.desk import Desk, cancels, crossed, expired, reason, trades

NEWEST, OLDEST, BOTH, DECREMENT = (
    SelfTrade.CANCEL_NEWEST, SelfTrade.CANCEL_OLDEST, SelfTrade.CANCEL_BOTH, SelfTrade.DECREMENT
)  # fmt: skip
GTC, GTT, IOC, FOK = TimeInForce.GTC, TimeInForce.GTT, TimeInForce.IOC, TimeInForce.FOK
CONTINUOUS = TradingPhase.CONTINUOUS


def how(desk, order_id):
    view = desk.engine.order(order_id)
    return view.status.value, view.filled, view.open


# --- parity (Java) ---------------------------------------------------------------------------------------------------


def test_parity_several_levels_are_taken_from_the_best_on():
    desk = Desk(Instrument("AAA", 1_000, 500))
    for price, quantity in ((1000, 100), (1001, 100), (999, 50)):
        desk.sell(quantity, price)
    assert trades(desk.buy(100, 1000)) == [(3, 999, 50), (1, 1000, 50)]
    assert desk.asks() == ((1000, 50), (1001, 100))


def test_parity_a_bid_is_filled_by_three_and_the_last_rests():
    desk = Desk(Instrument("AAA", 1_000, 500))
    desk.buy(100, 1000)
    assert [trades(desk.sell(50, 1000)) for _ in range(3)] == [[(1, 1000, 50)], [(1, 1000, 50)], []]
    assert (desk.bids(), desk.asks(), how(desk, 1)) == ((), ((1000, 50),), ("filled", 100, 0))


def test_parity_what_a_partial_cancel_leaves_trades():
    desk = Desk(Instrument("AAA", 1_000, 500))
    desk.buy(100, 1000)
    desk.replace(1, 75, 1000)
    assert trades(desk.sell(100, 1000)) == [(1, 1000, 75)]
    assert desk.asks() == ((1000, 25),)


# --- a teaching engine of Tehran's exchange (Haskell) ----------------------------------------------------------------


def test_tehran_icebergs_meet_part_by_part_and_a_replacement_takes():
    """testcases/test1.txt: shares and credit as it sets them; the first order sells more than its owner has."""
    desk = Desk(Instrument("AAA", 10, 9), venue=Venue(holds=True))
    for who, lots, credit in (("1", 16, 98), ("3", 9, 65), ("4", 7, 195), ("6", 19, 100), ("7", 0, 100)):
        desk.fund(who, "AAA", lots)
        desk.fund(who, "$cash", credit * 10_000)
    assert reason(desk.sell(9, 10, who="4", display=4)) == "insufficient_position"
    desk.sell(2, 3, who="3")
    desk.cancel(1, who="3")
    desk.buy(3, 9, who="1")
    desk.sell(2, 10, who="3")
    assert trades(desk.replace(3, 2, 3, who="3")) == [(2, 9, 2)]
    assert trades(desk.sell(19, 3, who="6", display=4)) == [(2, 9, 1)]
    assert trades(desk.buy(19, 3, who="7", display=4)) == [(4, 3, 4)] * 4 + [(4, 3, 2)]
    assert (desk.bids(), desk.asks()) == (((3, 1),), ())
    assert how(desk, 5) == ("resting", 18, 1)


# --- nodejs-order-book (TypeScript) ----------------------------------------------------------------------------------


def ladder(lots=2, who="x", venue=None):
    """Bids at 50 to 90, offers at 100 to 140: the book that it and two Go engines begin with."""
    desk = Desk(Instrument("AAA", 100, 99), venue=venue)
    for price in range(50, 100, 10):
        desk.buy(lots, price, who=who)
    for price in range(100, 150, 10):
        desk.sell(lots, price, who=who)
    return desk


def test_nodejs_order_book_limit_orders_sweep_and_rest():
    desk = ladder()
    assert trades(desk.buy(1, 100)) == [(6, 100, 1)]
    assert trades(desk.buy(10, 150)) == [(6, 100, 1), (7, 110, 2), (8, 120, 2), (9, 130, 2), (10, 140, 2)]
    assert desk.bids()[0] == (150, 1)
    events = desk.sell(11, 40)
    assert (len(trades(events)), sum(lots for _, _, lots in trades(events))) == (6, 11)
    assert (desk.engine.last_price("AAA"), desk.bids(), desk.asks()) == (50, (), ())


@pytest.mark.parametrize(
    ("side", "quantity", "price", "traded"),
    [("buy", 3, 100, 0), ("sell", 3, 90, 0), ("buy", 30, 100, 0), ("buy", 2, 120, 2), ("sell", 4, 70, 4)],
)
def test_nodejs_order_book_fill_or_kill(side, quantity, price, traded):
    desk = ladder()
    events = getattr(desk, side)(quantity, price, lasts=FOK)
    assert sum(lots for _, _, lots in trades(events)) == traded
    assert how(desk, 11) == ("filled" if traded else "canceled", traded, 0)


@pytest.mark.parametrize(
    ("mode", "traded", "gone", "left"),
    [
        (OLDEST, [(2, 100, 5)], [(1, 5, "self_trade")], ((), ((90, 3),))),
        (NEWEST, [], [(3, 8, "self_trade")], (((100, 10),), ())),
        (BOTH, [], [(1, 5, "self_trade"), (3, 8, "self_trade")], (((100, 5),), ())),
    ],
)
def test_nodejs_order_book_one_of_two_makers_is_the_takers_own(mode, traded, gone, left):
    """Its scenario I with each of its modes: the taker's mode decides, whatever the maker's is."""
    desk = Desk(Instrument("AAA", 100, 50))
    desk.buy(5, 100, who="alice", self_trade=NEWEST)
    desk.buy(5, 100, who="bob")
    events = desk.sell(8, 90, who="alice", self_trade=mode)
    assert (trades(events), cancels(events), (desk.bids(), desk.asks())) == (traded, gone, left)


def test_nodejs_order_book_a_market_order_that_expires_its_own_makers_finds_nobody():
    desk = Desk()
    desk.buy(5, 100, who="alice")
    events = desk.sell(3, who="alice", self_trade=OLDEST)
    assert cancels(events) == [(1, 5, "self_trade"), (2, 3, "market_remainder")]


@pytest.mark.parametrize(("trigger", "refused"), [(100, True), (110, True), (120, False)])
def test_nodejs_order_book_refuses_stops_that_are_reached(trigger, refused):
    desk = ladder(venue=Venue(stop_reached=StopReached.REJECT))
    desk.buy(3)
    events = desk.buy(1, trigger=trigger)
    assert (type(events[-1]).__name__ == "Rejected") is refused


# --- geseq/orderbook (Go) --------------------------------------------------------------------------------------------


def test_geseq_stops_follow_the_last_price_of_a_ladder():
    """TestStopProcess, but for its limit order with a trigger, that rests at once when it is reached: so here."""
    desk = ladder()
    assert trades(desk.buy(2)) == [(6, 100, 2)]
    assert trades(desk.buy(1, 100, trigger=110)) == []
    assert trades(desk.buy(2)) == [(7, 110, 2)]  # triggers the stop, which rests at 100
    assert desk.bids()[0] == (100, 1)
    assert trades(desk.sell(2)) == [(12, 100, 1), (5, 90, 1)]
    assert trades(desk.buy(1)) == [(8, 120, 1)]
    assert trades(desk.buy(2, trigger=110)) == [(8, 120, 1), (9, 130, 1)]
    assert trades(desk.buy(1)) == [(9, 130, 1)]
    assert trades(desk.sell(1)) == [(5, 90, 1)]
    assert trades(desk.sell(2, trigger=100)) == [(4, 80, 2)]
    assert trades(desk.sell(1)) == [(3, 70, 1)]


@pytest.mark.parametrize(
    ("price", "right"),
    [(90, [(5, 90, 2)]), (None, [(5, 90, 2), (4, 80, 1)])],
)
def test_geseq_a_stop_sells_into_what_the_order_left_that_set_it_off(price, right):
    desk = ladder()
    desk.buy(1)
    desk.sell(1, price, trigger=90)
    desk.buy(1)
    assert trades(desk.sell(2)) == right
    assert trades(desk.buy(1)) == ([(12, 90, 1)] if price else [(7, 110, 1)])
    assert trades(desk.sell(1)) == [(4, 80, 1)]


# --- 0x5487/matching-engine (Go) -------------------------------------------------------------------------------------


def test_0x5487_icebergs_are_replenished_when_the_shown_part_is_gone_and_not_before():
    desk = Desk()
    desk.sell(60, 100, display=10)
    desk.buy(5, 100)
    assert desk.asks() == ((100, 5),)
    desk.buy(5, 100)
    assert (desk.asks(), how(desk, 1)) == (((100, 10),), ("resting", 10, 50))


def test_0x5487_a_smaller_iceberg_keeps_its_place_and_a_larger_one_goes_behind():
    desk = Desk()
    desk.sell(100, 100, display=10)
    desk.sell(10, 100)
    desk.replace(1, 50, 100)
    assert trades(desk.buy(5, 100)) == [(1, 100, 5)]
    desk.replace(1, 200, 100)
    assert trades(desk.buy(10, 100)) == [(2, 100, 10)]


def test_0x5487_an_iceberg_takes_with_all_of_it():
    desk = Desk()
    for _ in range(5):
        desk.sell(20, 100)
    assert [lots for _, _, lots in trades(desk.buy(80, 100, display=10))] == [20] * 4
    assert (desk.bids(), desk.asks()) == ((), ((100, 20),))


# --- intrepidkarthi/orderbook (Go): its fingerprint of behaviour -----------------------------------------------------


def test_intrepidkarthi_stops_at_the_last_price_trigger_on_either_side():
    """The conditional scenario, 0 to 22: a stop through its trigger, one exactly on it, a cascade of one."""
    desk = Desk(Instrument("AAA", 100, 99))
    desk.sell(10, 105)
    desk.sell(10, 106)
    desk.buy(10, 95)
    desk.buy(10, 94)
    assert trades(desk.buy(4, 105)) == [(1, 105, 4)]
    desk.sell(3, 90, trigger=96)
    assert trades(desk.sell(2, 95)) == [(3, 95, 2), (3, 95, 3)]
    assert trades(desk.buy(2, 110, trigger=90)) == [(1, 105, 2)]
    desk.sell(2, 101)
    assert trades(desk.buy(2, 101)) == [(9, 101, 2)]
    assert trades(desk.sell(1, 80, trigger=101)) == [(3, 95, 1)]
    assert trades(desk.buy(1, 120, trigger=101)) == []
    assert trades(desk.buy(5, 108)) == [(1, 105, 4), (2, 106, 1), (2, 106, 1)]
    assert (desk.bids()[0], desk.asks()[0]) == ((95, 4), (106, 8))


def test_intrepidkarthi_a_fill_or_kill_that_fails_leaves_queue_icebergs_and_last_price_as_they_were():
    desk = Desk()
    desk.sell(5, 103)
    desk.sell(9, 103, display=3)
    assert cancels(desk.buy(20, 103, lasts=FOK)) == [(3, 20, "fok_unfilled")]
    assert (desk.asks(), desk.engine.last_price("AAA")) == (((103, 8),), None)
    assert trades(desk.buy(1, 103)) == [(1, 103, 1)]
    desk.cancel(1)
    assert (desk.asks(), how(desk, 1)) == (((103, 3),), ("canceled", 1, 0))


def test_intrepidkarthi_a_stop_that_is_fill_or_kill_is_set_off_and_killed():
    """The conditional scenario, 86 to 88."""
    desk = Desk(Instrument("AAA", 100, 100))
    desk.sell(5, 106)
    desk.buy(50, 200, trigger=105, lasts=FOK)
    desk.sell(1, 105)
    events = desk.buy(1, 105)
    assert (trades(events), cancels(events)) == ([(3, 105, 1)], [(2, 50, "fok_unfilled")])
    assert desk.asks() == ((106, 5),)


def test_intrepidkarthi_the_modes_of_self_trade_prevention_one_after_another():
    desk = Desk()
    desk.sell(4, 101, self_trade=NEWEST)
    assert cancels(desk.buy(4, 101, self_trade=NEWEST)) == [(2, 4, "self_trade")]
    desk.sell(4, 101)
    assert cancels(desk.buy(4, 101, self_trade=OLDEST)) == [(1, 4, "self_trade"), (3, 4, "self_trade")]
    assert desk.bids() == ((101, 4),)
    assert cancels(desk.sell(4, 101, self_trade=BOTH)) == [(4, 4, "self_trade"), (5, 4, "self_trade")]
    assert (desk.bids(), desk.asks(), desk.engine.live()) == ((), (), ())


def test_intrepidkarthi_an_own_maker_goes_and_the_taker_goes_on():
    """The fifo scenario, 233: a taker of 6 fills five of another, cancels its own four, fills one behind."""
    desk = Desk()
    desk.sell(5, 103, who="u2")
    desk.sell(4, 103, who="u0")
    desk.sell(4, 103, who="u3")
    events = desk.buy(6, 104, who="u0", self_trade=OLDEST)
    assert (trades(events), cancels(events)) == ([(1, 103, 5), (3, 103, 1)], [(2, 4, "self_trade")])


# --- Vega (Go): features of its integration tests --------------------------------------------------------------------


def test_vega_a_passive_iceberg_among_others_gives_its_shown_part_first():
    """0014-ORDT-030: 2 shown of 10 before two of 7; a seller of 15 fills 2, 7 and 6."""
    desk = Desk()
    desk.buy(10, 100, display=2)
    desk.buy(7, 100)
    desk.buy(7, 100)
    assert trades(desk.sell(15, 100)) == [(1, 100, 2), (2, 100, 7), (3, 100, 6)]
    assert (how(desk, 1), desk.engine.order(1).hidden) == (("resting", 2, 8), 6)


def test_vega_an_amended_order_that_takes_replenishes_an_iceberg():
    """0014-ORDT-033."""
    desk = Desk()
    desk.sell(10, 105, display=2)
    desk.buy(7, 104)
    desk.sell(5, 105)
    assert trades(desk.replace(2, 7, 105)) == [(1, 105, 2), (3, 105, 5)]
    assert (how(desk, 1), desk.engine.order(1).hidden) == (("resting", 2, 8), 6)


@pytest.mark.parametrize(
    ("lots", "others", "right"),
    [(100, (30, 40, 50), ("filled", 100, 0)), (100, (30, 40), ("resting", 70, 30)), (8, (5, 5), ("filled", 8, 0))],
)
def test_vega_aggressive_icebergs(lots, others, right):
    """0014-ORDT-031, -032, -105."""
    desk = Desk()
    for quantity in others:
        desk.sell(quantity, 100)
    desk.buy(lots, 100, display=2)
    assert how(desk, len(others) + 1) == right
    assert sum(one.quantity for one in desk.engine.fills(len(others) + 1)) == right[1]


def test_vega_sizes_amended_by_target_count_what_has_traded():
    """0004-AMND-056, -057: ten, eight, three trade, a target of six leaves three; a larger target loses the place."""
    desk = Desk(venue=Venue(replace_quantity=ReplaceQuantity.TOTAL))
    desk.sell(10, 100)
    desk.sell(5, 100)
    desk.replace(1, 8, 100)
    assert trades(desk.buy(3, 100)) == [(1, 100, 3)]
    desk.replace(1, 6, 100)
    assert how(desk, 1) == ("resting", 3, 3)
    desk.replace(1, 10, 100)
    assert (how(desk, 1), trades(desk.buy(3, 100))) == (("resting", 3, 7), [(2, 100, 3)])


def test_vega_an_auction_uncrosses_in_time_and_price():
    """opening-auction-uncross.feature, its first and third scenario without what stands far away."""
    desk = Desk(Instrument("AAA", 10_000, 9_000))
    desk.turn(TradingPhase.OPENING_AUCTION)
    for give, quantity, price in (
        (desk.buy, 5, 10_000), (desk.sell, 5, 10_000), (desk.buy, 5, 10_000), (desk.sell, 5, 10_001),
        (desk.buy, 4, 3_000), (desk.sell, 3, 3_000),
    ):  # fmt: skip
        give(quantity, price)
    events = desk.turn(CONTINUOUS)
    assert crossed(events) == [(10_000, 8, 2)]
    assert [lots for _, _, lots in trades(events)] == [3, 2, 3]
    assert [how(desk, order_id)[0] for order_id in (1, 2, 6)] == ["filled"] * 3


def test_vega_a_stop_waits_for_the_end_of_an_auction_and_follows_its_price():
    """0014-ORDT-065, -066."""
    desk = Desk()
    desk.sell(1, 100)
    desk.buy(1, 100)
    desk.turn(TradingPhase.INTRADAY_AUCTION)
    desk.buy(2, 95)
    desk.sell(1, trigger=95)
    assert trades(desk.sell(1, 95)) == []
    assert trades(desk.turn(CONTINUOUS)) == [(3, 95, 1), (3, 95, 1)]


def test_vega_an_order_that_is_to_expire_in_the_past_is_refused():
    """0014-ORDT-085, and 0014-ORDT-052: it expires at its instant."""
    desk = Desk().wait(20)
    assert reason(desk.sell(1, 100, lasts=GTT, expires_at=10 * 10**9)) == "bad_expiry"
    desk.sell(1, 100, lasts=GTT, expires_at=25 * 10**9)
    assert (expired(desk.wait(5).tick()), how(desk, 1)) == ([1], ("expired", 0, 0))


# --- SimpleOrderbook (C++): all-or-none ------------------------------------------------------------------------------


def test_simpleorderbook_all_or_nones_that_come_last():
    """TEST_advanced_AON_1."""
    desk = Desk()
    desk.sell(100, 101)
    desk.sell(100, 102)
    assert trades(desk.buy(200, 102, all_or_none=True)) == [(1, 101, 100), (2, 102, 100)]
    desk.sell(100, 101)
    desk.sell(100, 102)
    assert trades(desk.buy(150, 102, all_or_none=True)) == [(4, 101, 100), (5, 102, 50)]
    assert desk.asks() == ((102, 50),)


def test_simpleorderbook_all_or_nones_that_come_first():
    """TEST_advanced_AON_2 and _3: one that is too large waits until the rest of a taker and another fill it."""
    desk = Desk()
    desk.sell(100, 101, all_or_none=True)
    desk.sell(100, 102, all_or_none=True)
    assert (desk.asks(), len(desk.engine.live())) == ((), 2)
    assert trades(desk.buy(150, 102)) == [(1, 101, 100)]
    assert desk.bids() == ((102, 50),)
    assert trades(desk.buy(50, 102)) == [(3, 102, 50), (4, 102, 50)]
    assert desk.engine.live() == ()


def test_simpleorderbook_a_market_order_passes_over_an_all_or_none_that_is_too_large():
    """TEST_advanced_AON_5, its beginning and its two of a price."""
    desk = Desk()
    desk.buy(100, 100)
    desk.buy(100, 100, all_or_none=True)
    desk.buy(100, 100)
    assert trades(desk.sell(150)) == [(1, 100, 100), (3, 100, 50)]
    desk.buy(50, 100, all_or_none=True)
    desk.cancel(3)
    assert trades(desk.sell(50, 100)) == [(5, 100, 50)]
    assert desk.engine.live() == ((2, 100),)


# --- order-matcher (C#) ----------------------------------------------------------------------------------------------


def test_order_matcher_a_cancelled_iceberg_leaves_with_all_that_is_open():
    desk = Desk(Instrument("AAA", 10, 9))
    desk.sell(5000, 10, display=500)
    desk.buy(500, 10)
    desk.buy(200, 10)
    assert desk.asks() == ((10, 300),)
    assert cancels(desk.cancel(1)) == [(1, 4300, "requested")]
    assert (how(desk, 1), desk.engine.average_price(1)) == (("canceled", 700, 0), 10)


@pytest.mark.parametrize(("taker", "gone"), [(1100, (1, 1000)), (900, (2, 900)), (1000, (1, 1000))])
def test_order_matcher_decrements_the_larger_and_cancels_the_smaller(taker, gone):
    desk = Desk()
    desk.buy(1000, 100)
    events = desk.sell(taker, 100, self_trade=DECREMENT)
    assert (gone[0], gone[1], "self_trade") in cancels(events)
    left = abs(taker - 1000)
    assert [lots for _, lots in desk.engine.live()] == ([left] if left else [])


def test_order_matcher_stops_of_one_trigger_go_by_age_and_a_higher_one_waits():
    desk = Desk(Instrument("AAA", 10, 9))
    desk.sell(500, 10)
    desk.buy(500, 11)
    for trigger in (11, 11, 13):
        desk.buy(500, 10, trigger=trigger)
    desk.sell(500, 12)
    assert trades(desk.buy(500, 12)) == [(6, 12, 500)]
    assert desk.engine.book("AAA").bids[0].order_ids == (3, 4)
    assert how(desk, 5) == ("waiting", 0, 500)


# --- peatio (Ruby) and others ----------------------------------------------------------------------------------------


def test_peatio_a_market_order_takes_three_levels_at_their_prices():
    desk = Desk(Instrument("AAA", 20, 19))
    for price in (10, 20, 30):
        desk.sell(10, price)
    assert trades(desk.buy(24)) == [(1, 10, 10), (2, 20, 10), (3, 30, 4)]
    assert desk.engine.average_price(4) == Fraction(10 * 10 + 20 * 10 + 30 * 4, 24)


def test_matching_engine_c_a_balanced_book_and_a_market_sell():
    """Scenarios 1 and 9: the tape of lines N, C and F that many exercises share; F cancels all."""
    desk = Desk(Instrument("IBM", 10, 9))
    symbol = {"symbol": "IBM"}
    desk.buy(100, 10, who="1", **symbol)
    desk.sell(100, 12, who="1", **symbol)
    desk.buy(100, 9, who="2", **symbol)
    desk.sell(100, 11, who="2", **symbol)
    assert trades(desk.buy(100, 11, who="1", **symbol)) == [(4, 11, 100)]
    assert trades(desk.sell(100, 10, who="2", **symbol)) == [(1, 10, 100)]
    assert (desk.bids("IBM"), desk.asks("IBM")) == (((9, 100),), ((12, 100),))
    assert trades(desk.sell(20, who="2", **symbol)) == [(3, 9, 20)]
    assert [one for who in "12" for one in cancels(desk.mass_cancel(who))] == [
        (2, 100, "mass_cancel"), (3, 80, "mass_cancel")
    ]  # fmt: skip


def test_limit_order_book_a_limit_order_sweeps_two_levels_and_rests_crossed_no_more():
    """Kautenja/limit-order-book: what is left of an order that crosses is the best of its side."""
    desk = Desk()
    desk.sell(50, 100)
    desk.sell(50, 101)
    assert trades(desk.buy(120, 101)) == [(1, 100, 50), (2, 101, 50)]
    assert desk.bids() == ((101, 20),)
    assert desk.asks() == ()


@pytest.mark.parametrize(
    ("book", "taker", "right", "rests"),
    [
        ([("buy", 5, 7000)], ("sell", 5, 8000), [], ((7000, 5), (8000, 5))),
        ([("buy", 5, 7000)], ("sell", 5, 7000), [(1, 7000, 5)], ()),
        ([("buy", 5, 7000)], ("sell", 1, 6000), [(1, 7000, 1)], ((7000, 4),)),
        ([("sell", 5, 7000)], ("buy", 1, 8000), [(1, 7000, 1)], ((7000, 4),)),
        ([("buy", 1, 7000), ("buy", 1, 6000)], ("sell", 2, 6000), [(1, 7000, 1), (2, 6000, 1)], ()),
        ([("buy", 1, 7000), ("buy", 2, 6000)], ("sell", 2, 6000), [(1, 7000, 1), (2, 6000, 1)], ((6000, 1),)),
        ([("buy", 5, 7000)], ("sell", 6, 6000), [(1, 7000, 5)], ((6000, 1),)),
        ([("sell", 5, 7000)], ("buy", 6, 8000), [(1, 7000, 5)], ((8000, 1),)),
        (
            [("buy", 10, 74), ("buy", 10, 75), ("buy", 10, 770), ("buy", 10, 760)], ("sell", 21, 770),
            [(3, 770, 10)], ((760, 10), (75, 10), (74, 10), (770, 11)),
        ),
    ],
)  # fmt: skip
def test_pantelwar_limit_orders_meet_a_book(book, taker, right, rests):
    """Pantelwar/matching-engine (Go), process_limit_order_test.go; bids first, then offers."""
    desk = Desk(Instrument("AAA", 5_000, 4_999))
    for side, quantity, price in book:
        getattr(desk, side)(quantity, price)
    side, quantity, price = taker
    assert trades(getattr(desk, side)(quantity, price)) == right
    assert (*desk.bids(), *desk.asks()) == rests


def test_fmstephe_three_bids_are_filled_one_by_one_and_a_used_cancel_is_told():
    """fmstephe/matching_engine (Go); where prices differ it trades in the middle, here at the maker's price (F1)."""
    desk = Desk(Instrument("AAA", 10, 9))
    for _ in range(3):
        desk.buy(1, 7)
    assert trades(desk.sell(3, 7)) == [(1, 7, 1), (2, 7, 1), (3, 7, 1)]
    assert (reason(desk.cancel(1)), reason(desk.cancel(9))) == ("too_late", "unknown_order")


# --- TMX: order types and functionality guide ------------------------------------------------------------------------


def tmx(venue=None):
    desk = Desk(Instrument("AAA", 1_000, 100), venue=venue)
    desk.buy(100, 1000)
    desk.buy(100, 999)
    desk.sell(400, 1002)
    desk.sell(100, 1002)
    return desk


@pytest.mark.parametrize(
    ("price", "lasts", "right", "left"),
    [
        (1000, GTC, [(1, 1000, 100)], (((999, 100),), ((1000, 400), (1002, 500)))),
        (1000, IOC, [(1, 1000, 100)], (((999, 100),), ((1002, 500),))),
        (1000, FOK, [], (((1000, 100), (999, 100)), ((1002, 500),))),
        (None, TimeInForce.DAY, [(1, 1000, 100), (2, 999, 100)], ((), ((1002, 500),))),
    ],
)
def test_tmx_a_seller_of_500_meets_two_bids_of_100(price, lasts, right, left):
    """Its examples of limit, IOC, FOK and market orders; there the rest of a market order is booked at 9.99."""
    desk = tmx()
    assert trades(desk.sell(500, price, lasts=lasts)) == right
    assert (desk.bids(), desk.asks()) == left


def test_tmx_books_what_a_market_order_leaves_at_the_last_sale_price():
    desk = tmx(Venue(market_remainder=MarketRemainder.REST))
    assert trades(desk.sell(500)) == [(1, 1000, 100), (2, 999, 100)]
    assert (desk.bids(), desk.asks()) == ((), ((999, 300), (1002, 500)))
    assert desk.engine.order(5).price == 999


def test_tmx_icebergs_give_what_all_show_before_what_is_hidden():
    """The rest is one trade of 600 there, six of the shown 100 here; the book after it is the same."""
    desk = Desk(Instrument("AAA", 1_000, 100))
    desk.buy(100, 1000)
    desk.sell(400, 1020)
    desk.buy(500, 990)
    desk.buy(10_000, 990, display=100)
    desk.buy(200, 990)
    told = trades(desk.sell(1500, 990))
    assert told == [(1, 1000, 100), (3, 990, 500), (4, 990, 100), (5, 990, 200), *[(4, 990, 100)] * 6]
    assert (how(desk, 4), desk.engine.order(4).hidden) == (("resting", 700, 9_300), 9_200)


def test_tmx_a_stop_that_a_trade_sets_off_waits_until_the_order_is_done():
    desk = Desk(Instrument("AAA", 1_000, 100))
    desk.buy(1000, 1000)
    desk.sell(1000, 1020)
    desk.buy(500, 990)
    desk.sell(1000, 990, trigger=990)
    desk.buy(1000, 980)
    assert trades(desk.sell(1500, 990)) == [(1, 1000, 1000), (3, 990, 500)]
    assert (desk.asks(), desk.bids()) == (((990, 1000), (1020, 1000)), ((980, 1000),))


# --- official examples of calls --------------------------------------------------------------------------------------

M = None
CALLS = {
    # NSE, equity market pre-open: 27,500 at 105.
    "NSE": (
        [(103, 13500), (104, 9500), (105, 12000), (106, 6500), (107, 5000), (108, 4000)],
        [(103, 11500), (104, 9800), (105, 15000), (106, 12000), (107, 12500)],
        105, 27_500,
    ),
    # HKEX, closing auction, example 1 in cents; then with an order at auction for 1,000.
    "HKEX": ([(2405, 200), (2400, 1000), (2395, 400)], [(2395, 400), (2400, 600), (2405, 800)], 2400, 1_000),
    "HKEX, later": (
        [(2405, 200), (2400, 1000), (2395, 400)], [(M, 1000), (2395, 400), (2400, 600), (2405, 800)], 2395, 1_400
    ),
    # TMX, calculated opening price, example of 9:00; previous close 10.02.
    "TMX": ([(1000, 1000), (999, 200), (999, 200)], [(M, 200), (999, 500), (1000, 100), (1001, 100)], 1000, 800),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("away", [-30, 0, 30])
def test_official_examples_of_calls_cross_where_they_say(name, away):
    buys, sells, price, volume = CALLS[name]
    desk = Desk(Instrument("AAA", price + away, 100))
    desk.turn(TradingPhase.OPENING_AUCTION)
    for lots_at, give in ((buys, desk.buy), (sells, desk.sell)):
        for limit, lots in lots_at:
            give(lots, limit)
    assert [one[:2] for one in crossed(desk.turn(CONTINUOUS))] == [(price, volume)]
