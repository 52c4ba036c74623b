# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""What goes wrong in public matching engines, one test a bug; each fails in an engine that has it."""

import gc
import random
import time

import pytest

from exchange.commands import CancelOrder, Limit, PlaceOrder
from exchange.engine import Engine
from exchange.types import Instrument, Side, TimeInForce
from tests.exchange.desk import Desk, cancels, kinds, reason, trades

WIDE = Instrument("AAA", 500_000_000, 499_999_999, max_quantity=900_000)


def test_a_partial_fill_does_not_send_the_maker_to_the_back():
    desk = Desk()
    desk.sell(5, 100)
    desk.sell(5, 100)
    desk.buy(2, 100)
    assert trades(desk.buy(2, 100)) == [(1, 100, 2)]


def test_a_trade_is_not_printed_at_the_takers_price():
    desk = Desk()
    desk.buy(1, 103)
    assert trades(desk.sell(1, 99)) == [(1, 103, 1)]


def test_an_ioc_remainder_does_not_rest():
    desk = Desk()
    desk.sell(1, 100)
    assert cancels(desk.buy(2, 100, lasts=TimeInForce.IOC)) == [(2, 1, "ioc_remainder")]
    assert desk.bids() == ()


def test_fok_looks_at_the_sum_not_at_each_maker():
    desk = Desk()
    for _ in range(3):
        desk.sell(1, 100)
    assert len(trades(desk.buy(3, 100, lasts=TimeInForce.FOK))) == 3


@pytest.mark.parametrize("gone", [1, 2, 3], ids=["head", "middle", "tail"])
def test_a_cancel_loses_no_neighbour(gone):
    desk = Desk()
    for _ in range(3):
        desk.sell(1, 100)
    desk.cancel(gone)
    assert [maker for maker, _, _ in trades(desk.buy(3, 100))] == [one for one in (1, 2, 3) if one != gone]


@pytest.mark.parametrize("how", ["cancel", "fill", "replace", "expire"])
def test_an_emptied_level_is_no_phantom_best(how):
    desk = Desk()
    desk.buy(1, 101, lasts=TimeInForce.GTT, expires_at=10)
    desk.buy(1, 100)
    if how == "cancel":
        desk.cancel(1)
    elif how == "fill":
        desk.sell(1, 101)
    elif how == "replace":
        desk.replace(1, 1, 99)
    else:
        desk.wait(1).tick()
    assert desk.engine.top("AAA").bid == 100
    assert trades(desk.sell(1, 100)) == [(2, 100, 1)]


@pytest.mark.parametrize("how", ["fill", "cancel", "expire"])
def test_a_cancel_that_comes_too_late_is_told_so(how):
    desk = Desk()
    desk.buy(1, 100, lasts=TimeInForce.GTT, expires_at=10)
    if how == "fill":
        desk.sell(1, 100)
    elif how == "cancel":
        desk.cancel(1)
    else:
        desk.wait(1).tick()
    assert reason(desk.cancel(1)) == "too_late"
    assert reason(desk.replace(1, 1, 100)) == "too_late"


def test_a_duplicate_live_id_is_refused_and_so_is_one_after_a_fill():
    engine = Engine((WIDE,))
    place = PlaceOrder("p", "same", "AAA", Side.BUY, 1, Limit(100))
    engine.apply(place)
    assert engine.apply(place)[0].reason == "duplicate_client_id"
    engine.apply(PlaceOrder("q", "sell", "AAA", Side.SELL, 1, Limit(100)))
    assert engine.resting_orders == 0
    assert engine.apply(place)[0].reason == "duplicate_client_id"


def test_order_ids_are_never_used_again():
    desk = Desk()
    desk.buy(1, 100)
    desk.cancel(1)
    assert desk.buy(1, 100)[0].order_id == 2


def test_a_replace_into_a_cross_does_not_rest_crossed():
    desk = Desk()
    desk.sell(1, 101)
    desk.buy(2, 99)
    assert trades(desk.replace(2, 2, 102)) == [(1, 101, 1)]
    assert (desk.bids(), desk.asks()) == (((102, 1),), ())


def test_a_limit_does_not_sweep_past_its_price():
    desk = Desk()
    desk.buy(1, 100)
    desk.buy(1, 99)
    assert trades(desk.sell(2, 100)) == [(1, 100, 1)]
    assert (desk.bids(), desk.asks()) == (((99, 1),), ((100, 1),))


def test_no_trade_has_quantity_zero():
    desk = Desk()
    desk.sell(2, 100, display=1)
    desk.sell(1, 100, all_or_none=True)
    events = desk.buy(3, 100)
    assert [lots for _, _, lots in trades(events)] == [1, 1, 1]
    assert kinds(events)[-1] == "Traded"


def test_a_stop_cascade_is_not_evaluated_once_only():
    desk = Desk()
    for price in (100, 99, 98, 97):
        desk.buy(1, price)
    for trigger in (99, 98, 100):
        desk.sell(1, trigger=trigger)
    assert trades(desk.sell(1, 100)) == [(1, 100, 1), (2, 99, 1), (3, 98, 1), (4, 97, 1)]


def test_equal_prices_keep_time_order_whatever_the_quantity():
    desk = Desk()
    for quantity in (9, 1, 5):
        desk.sell(quantity, 100)
    assert [maker for maker, _, _ in trades(desk.buy(15, 100))] == [1, 2, 3]


def test_no_price_is_out_of_an_arrays_bounds():
    desk = Desk(WIDE)
    for price in (1, 999_999_999, 123_456_789):
        assert kinds(desk.buy(1, price)) == ["Accepted", "Rested"] or trades(desk.sell(1, price))
        desk.mass_cancel()
        assert desk.engine.resting_orders == 0


def test_the_best_price_is_found_without_looking_at_every_level():
    """Emptying the best level costs the same beside 10 levels and beside 10,000; a scan would cost a thousandfold."""

    def cost(levels):
        engine = Engine((WIDE,))
        for number in range(levels):
            engine.apply(PlaceOrder("p", f"s{number}", "AAA", Side.SELL, 1, Limit(600_000_000 + 1_000 * number)))
        best = float("inf")
        for turn in range(300):
            engine.apply(PlaceOrder("p", f"a{turn}", "AAA", Side.SELL, 1, Limit(599_000_000)))
            began = time.perf_counter_ns()
            engine.apply(PlaceOrder("p", f"b{turn}", "AAA", Side.BUY, 1, Limit(599_000_000)))
            best = min(best, time.perf_counter_ns() - began)
        return best

    assert cost(10_000) < 10 * cost(10)


def test_waiting_orders_out_of_reach_cost_nothing():
    """Beside 3,000 unseen orders that nothing reaches, an order that rests costs what it costs beside none."""

    def cost(waiting):
        engine = Engine((WIDE,))
        for number in range(waiting):
            engine.apply(PlaceOrder("p", f"w{number}", "AAA", Side.BUY, 9, Limit(1_000, all_or_none=True)))
        best = float("inf")
        for turn in range(300):
            place = PlaceOrder("p", f"a{turn}", "AAA", Side.SELL, 1, Limit(2_000 + turn))
            began = time.perf_counter_ns()
            engine.apply(place)
            best = min(best, time.perf_counter_ns() - began)
        return best

    assert cost(3_000) < 10 * cost(1)


@pytest.mark.parametrize("kind", ["plain", "iceberg", "all_or_none", "stop", "gtt"])
def test_orders_that_end_leave_nothing_behind(kind):
    flags = {"iceberg": {"display": 1}, "all_or_none": {"all_or_none": True}, "stop": {"trigger": 140}}.get(kind, {})
    lasts = {"lasts": TimeInForce.GTT, "expires_at": 10**18} if kind == "gtt" else {}
    desk = Desk()
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            first = desk.buy(3, 90, **flags, **lasts)[0].order_id
            if kind in {"plain", "iceberg"}:
                desk.sell(1, 90)
            desk.cancel(first)
        floor, book = desk.engine._floor, desk.engine._floor.books["AAA"]
        assert not floor.orders
        assert not book.bids.levels
        assert (book.bids.keys, book.bids.all_or_none, book.bids.stops, book.bids.markets) == ([], [], [], [])
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_timers_of_cancelled_orders_do_not_pile_up():
    engine, rng = Engine((WIDE,)), random.Random(1)
    for number in range(1, 6_000):
        place = PlaceOrder("p", f"a{number}", "AAA", Side.BUY, 1, Limit(100), TimeInForce.GTT, rng.randrange(1, 10**18))
        engine.apply(place)
        engine.apply(CancelOrder("p", f"b{number}", number))
    assert len(engine._floor.timers) < 1_200
    assert engine.due_at() is None
