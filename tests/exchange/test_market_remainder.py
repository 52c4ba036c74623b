# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""What is left of a market order where the venue lets it rest (F3)."""

import pytest

from exchange.snapshot import dump, load
from exchange.types import Instrument, MarketRemainder, SelfTrade, TimeInForce, TradingPhase, Venue
from kernel.errors import InputError
from tests.exchange.desk import AAA, Desk, cancels, expired, kinds, reason, trades

REST = Venue(market_remainder=MarketRemainder.REST)


def rested(**more):
    """A seller of seven met bids of two at 100 and one at 98."""
    desk = Desk(venue=REST)
    desk.buy(2, 100)
    desk.buy(1, 98)
    return desk, desk.sell(7, who="q", **more)


def test_it_stands_at_the_price_of_its_last_trade_and_may_be_changed_like_any_other():
    desk, events = rested()
    assert kinds(events) == ["Accepted", "Traded", "Traded", "Rested"]
    assert (trades(events), desk.asks()) == ([(1, 100, 2), (2, 98, 1)], ((98, 4),))
    view = desk.engine.order(3)
    assert (view.status.value, view.price, view.filled, view.open) == ("resting", 98, 3, 4)
    desk.replace(3, 3, 99, who="q")
    assert trades(desk.buy(5)) == [(3, 99, 3)]
    assert desk.bids() == ((99, 2),)
    assert expired(desk.close()) == [4]


def test_it_is_cancelled_where_the_venue_says_nothing():
    desk = Desk()
    desk.buy(2, 100)
    assert cancels(desk.sell(7)) == [(2, 5, "market_remainder")]


def test_an_immediate_one_never_rests():
    desk, events = rested(lasts=TimeInForce.IOC)
    assert (cancels(events), desk.asks()) == ([(3, 4, "market_remainder")], ())


def test_one_that_met_nobody_is_refused_and_one_that_met_only_its_own_is_cancelled():
    desk = Desk(venue=REST)
    assert reason(desk.sell(1)) == "no_liquidity"
    desk.buy(1, 100)
    events = desk.sell(3, self_trade=SelfTrade.CANCEL_OLDEST)
    assert cancels(events) == [(1, 1, "self_trade"), (2, 3, "market_remainder")]


def test_what_a_stop_leaves_rests_too():
    desk = Desk(venue=REST)
    desk.buy(1, 99)
    desk.buy(1, 98)
    desk.sell(4, trigger=99)
    assert trades(desk.sell(1, 99)) == [(1, 99, 1), (2, 98, 1)]
    assert desk.asks() == ((98, 3),)


def test_a_cross_cancels_it_all_the_same():
    desk = Desk(venue=REST)
    desk.turn(TradingPhase.OPENING_AUCTION)
    desk.buy(1, 100)
    desk.sell(3)
    assert cancels(desk.turn(TradingPhase.CONTINUOUS)) == [(2, 2, "market_remainder")]


def test_it_holds_what_it_needs_at_its_price():
    desk = Desk(Instrument("AAA", 100, 50), venue=Venue(holds=True, market_remainder=MarketRemainder.REST))
    desk.fund("s", "AAA", 2)
    desk.fund("b", "$cash", 5 * 150 * 10_000)
    desk.sell(2, 100, who="s")
    desk.buy(5, who="b")
    assert (desk.bids(), desk.engine.held("b", "$cash")) == (((100, 3),), 300 * 10_000)
    desk.cancel(2, who="b")
    assert desk.engine.held("b", "$cash") == 0


def test_a_snapshot_keeps_it():
    desk, _ = rested()
    back = load(dump(desk.engine), [AAA], REST)
    assert (back.state_hash(), back.order(3)) == (desk.engine.state_hash(), desk.engine.order(3))


@pytest.mark.parametrize("value", ["rest", "stay", None])
def test_a_word_that_is_none_is_refused_and_told_what_would_be_one(value):
    with pytest.raises(InputError, match=r"venue\.market_remainder: .* is none; write cancel or rest") as caught:
        Desk(venue=Venue(market_remainder=value))
    assert ("in Python MarketRemainder.REST" in str(caught.value)) is (value == "rest")
