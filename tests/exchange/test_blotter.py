# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""How orders ended, read from the engine until the market opens anew (E8)."""

from fractions import Fraction

import pytest

from exchange.commands import Tick
from exchange.engine import ADMIN, Engine
from exchange.snapshot import dump, load
from exchange.types import CancelReason, Instrument, SelfTrade, Side, TimeInForce, TradingPhase, Venue
from exchange.views import OrderStatus, OrderView
from kernel.time import SECOND
from tests.exchange.desk import AAA, Desk, kinds, reason

GTC, GTT, IOC = TimeInForce.GTC, TimeInForce.GTT, TimeInForce.IOC


def how(engine, order_id):
    view = engine.order(order_id)
    return view.status.value, view.filled, view.canceled, view.reason and view.reason.value


@pytest.fixture
def desk():
    """Seven orders that ended, each in another way, and one that lives."""
    desk = Desk(venue=Venue(max_trades_per_command=3))
    desk.sell(5, 101)
    desk.sell(5, 102, who="q")
    desk.buy(7, 102, who="r")  # 3: filled at two prices, as is 1; of 2 three are left
    desk.cancel(2, who="q")
    desk.buy(4, 100, lasts=IOC)
    desk.buy(1, 99, lasts=GTT, expires_at=2 * SECOND)
    desk.sell(9, 98, who="r", lasts=IOC)
    desk.buy(6, 97, who="s")
    desk.buy(3, 96, who="s")
    desk.mass_cancel("s", side=Side.BUY)
    desk.buy(3, 95, who="s")
    desk.wait(2).tick()
    return desk


RIGHT = {
    1: ("filled", 5, 0, None),
    2: ("canceled", 2, 3, "requested"),
    3: ("filled", 7, 0, None),
    4: ("canceled", 0, 4, "ioc_remainder"),
    5: ("filled", 1, 0, None),
    6: ("canceled", 1, 8, "ioc_remainder"),
    7: ("canceled", 0, 6, "mass_cancel"),
    8: ("canceled", 0, 3, "mass_cancel"),
    9: ("resting", 0, 0, None),
}


def test_an_order_that_ended_tells_how_and_what_traded(desk):
    assert {number: how(desk.engine, number) for number in RIGHT} == RIGHT
    assert desk.engine.order(10) is None
    view = desk.engine.order(2)
    assert (view.account, view.symbol, view.side, view.price, view.client_id) == ("q", "AAA", Side.SELL, 102, "id-2")


def test_an_orders_trades_and_their_mean_price_are_told(desk):
    assert [(one.trade_id, one.price, one.quantity) for one in desk.engine.fills(3)] == [(1, 101, 5), (2, 102, 2)]
    assert desk.engine.average_price(3) == Fraction(5 * 101 + 2 * 102, 7)
    assert (desk.engine.fills(7), desk.engine.average_price(7)) == ((), None)


def test_who_asks_as_things_happen_and_who_asks_at_the_end_are_told_the_same(desk):
    asked = Desk(venue=desk.engine.venue)
    for command in (desk.engine.known(who, f"id-{number}") for number in range(1, 12) for who in "pqrs"):
        if command is not None:
            asked.give(command.request)
            asked.engine.order(1)
    assert [asked.engine.order(number) for number in range(1, 9)] == [desk.engine.order(n) for n in range(1, 9)]


def test_a_snapshot_knows_it_too(desk):
    back = load(dump(desk.engine), [AAA], desk.engine.venue)
    assert {number: how(back, number) for number in RIGHT} == RIGHT
    assert back.fills(3) == desk.engine.fills(3)


def test_what_expired_before_a_request_that_is_not_remembered_is_told(desk):
    desk.buy(2, 90, lasts=GTT, expires_at=9 * SECOND)
    desk.fund("p", "$cash", 1)
    desk.wait(30)
    desk.ids -= 1
    assert reason(desk.tick()) == "duplicate_client_id"
    assert how(desk.engine, 10) == ("expired", 0, 2, None)
    back = load(dump(desk.engine), [AAA], desk.engine.venue)
    assert (how(back, 10), back.state_hash()) == (how(desk.engine, 10), desk.engine.state_hash())


def carried():
    """An order of yesterday of which five of twelve traded then, three today; and one that has ended yesterday."""
    desk = Desk()
    desk.sell(12, 101, lasts=GTC)
    desk.buy(5, 101, who="q")
    desk.close()
    desk.open()
    desk.buy(3, 101, who="q")
    return desk


@pytest.mark.parametrize("restored", [False, True])
def test_an_order_of_yesterday_counts_what_traded_then(restored):
    desk = carried()
    if restored:
        desk.engine = load(dump(desk.engine), [AAA])
    assert (desk.engine.order(1).filled, len(desk.engine.fills(1))) == (8, 1)
    assert desk.engine.average_price(1) is None
    assert desk.engine.average_price(3) == 101
    desk.replace(1, 4, 102)
    desk.buy(1, 102, who="q")
    desk.cancel(1)
    assert how(desk.engine, 1) == ("canceled", 9, 3, "requested")
    view = desk.engine.order(1)
    assert (view.account, view.symbol, view.side, view.price) == ("p", "AAA", Side.SELL, 102)
    assert desk.engine.order(2) == OrderView(2, OrderStatus.ENDED)


def test_an_order_of_yesterday_that_is_filled_today_keeps_its_price():
    desk = carried()
    desk.buy(9, 105, who="q")
    view = desk.engine.order(1)
    assert (view.status, view.filled, view.price, view.account, view.side) == (
        OrderStatus.FILLED, 12, 101, "p", Side.SELL
    )  # fmt: skip


def test_what_self_trade_prevention_took_of_an_order_left_without_trading():
    desk = Desk()
    desk.sell(5, 100)
    desk.buy(2, 100, self_trade=SelfTrade.DECREMENT)
    desk.buy(3, 100, who="q")
    assert how(desk.engine, 1) == ("canceled", 3, 2, "self_trade")


def test_the_price_is_the_one_that_the_moving_band_cut():
    desk = Desk(Instrument("AAA", 100, 50, luld_ppm=50_000))
    desk.buy(5, 110)
    desk.cancel(1)
    assert desk.engine.order(1).price == 105


def test_an_order_that_expired_right_before_the_market_opened_is_one_of_the_day_before():
    desk = Desk()
    desk.turn(TradingPhase.PRE_OPEN)
    desk.buy(2, 90, lasts=GTT, expires_at=9 * SECOND)
    desk.close()
    desk.wait(10).open()
    assert desk.engine.order(1) == OrderView(1, OrderStatus.ENDED)


def test_what_traded_right_before_the_market_opened_is_of_the_day_before():
    """A pause ended in a cross whose price closed the market, all of it due before the command that opens it."""
    desk = Desk(Instrument("AAA", 100, 50), venue=Venue(breakers=True, reopening_seconds=5))
    desk.halt()
    desk.resume(auction=True)
    desk.sell(10, 75, lasts=GTC)
    desk.buy(4, 75, who="q")
    events = desk.wait(10).open()
    assert kinds(events) == ["Crossed", "Traded", "PhaseChanged", "Breaker", "SessionClosed", "SessionOpened"]
    desk.cancel(1)
    assert (how(desk.engine, 1), desk.engine.fills(1)) == (("canceled", 4, 6, "requested"), ())
    assert desk.engine.order(2) == OrderView(2, OrderStatus.ENDED)


def test_what_an_opening_traded_is_of_the_day_even_when_it_closes_the_market_again():
    desk = Desk(Instrument("AAA", 100, 50), venue=Venue(breakers=True))
    desk.halt()
    desk.resume(auction=True)
    desk.sell(10, 75, lasts=GTC)
    desk.buy(4, 75, who="q", lasts=GTC)
    desk.halt()
    desk.close()
    desk.resume()
    assert kinds(desk.open()) == ["Crossed", "Traded", "SessionOpened", "Breaker", "SessionClosed"]
    assert (how(desk.engine, 2), len(desk.engine.fills(2))) == (("filled", 4, 0, None), 1)


def test_nobody_can_have_the_name_under_which_such_things_are_remembered():
    engine = Engine([AAA])
    assert engine.apply(Tick("\x001"))[0].reason == "bad_client_id"
    assert engine.known(ADMIN, "\x001") is None


def test_reasons_are_those_of_the_events(desk):
    assert desk.engine.order(7).reason is CancelReason.MASS_CANCEL
