# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The rules of money: balances, fees, holds. One lot costs 10,000 millionths a tick here."""

import random

import pytest

from exchange.commands import Fund, Sequenced
from exchange.engine import Engine
from exchange.events import Traded
from exchange.floor import fee
from exchange.flow import OrderFlow
from exchange.ledger import FEES, Balances, money_per_tick, postings
from exchange.types import Instrument, TimeInForce, TradingPhase, Venue
from tests.exchange.desk import Desk, cancels, kinds, reason, trades

TICK = 10_000
PAID = Instrument("AAA", 100, 50, maker_fee_ppm=-100, taker_fee_ppm=300, auction_fee_ppm=200)
HOLDS = Venue(holds=True)


def test_m1_a_trade_moves_position_one_way_and_cash_the_other():
    desk = Desk()
    desk.sell(3, 100, who="ann")
    desk.buy(2, 100, who="bob")
    assert desk.engine.balances() == {
        ("ann", "$cash"): 200 * TICK,
        ("bob", "$cash"): -200 * TICK,
        ("ann", "AAA"): -2,
        ("bob", "AAA"): 2,
    }


def test_m2_makers_takers_and_crosses_pay_their_rates():
    desk = Desk(PAID)
    desk.sell(1, 100, who="ann")
    (trade,) = [one for one in desk.buy(1, 100, who="bob") if isinstance(one, Traded)]
    assert (trade.buyer_fee, trade.seller_fee) == (300, -100)
    assert desk.engine.balance(FEES, "$cash") == 200
    desk.turn(TradingPhase.CLOSING_AUCTION)
    desk.buy(1, 100, who="ann")
    desk.sell(1, 100, who="bob")
    (trade,) = [one for one in desk.turn(TradingPhase.CONTINUOUS) if isinstance(one, Traded)]
    assert (trade.buyer_fee, trade.seller_fee) == (200, 200)


@pytest.mark.parametrize(
    ("notional", "ppm", "right"),
    [(1, 500_000, 1), (1, 499_999, 0), (1, -500_000, -1), (1, -499_999, 0), (3, 500_000, 2), (0, 10, 0)],
)
def test_m2_fees_round_half_away_from_zero(notional, ppm, right):
    assert fee(notional, ppm) == right


def test_m3_fund_gives_and_takes_what_is_free():
    desk = Desk(venue=HOLDS)
    assert kinds(desk.fund("ann", "$cash", 5_000_000)) == ["Funded"]
    desk.fund("ann", "AAA", 4)
    desk.buy(2, 100, who="ann")
    desk.sell(3, 120, who="ann")
    assert desk.engine.free("ann", "$cash") == 3_000_000
    assert reason(desk.fund("ann", "$cash", -3_000_001)) == "insufficient_funds"
    assert reason(desk.fund("ann", "AAA", -2)) == "insufficient_position"
    assert kinds(desk.fund("ann", "$cash", -3_000_000)) == ["Funded"]
    assert reason(desk.fund("ann", "ZZZ", 1)) == "bad_asset"


def test_m4_a_buy_holds_its_cost_and_the_highest_fee_and_a_sell_its_lots():
    desk = Desk(PAID, venue=HOLDS)
    desk.fund("ann", "$cash", 2_000_600)
    assert reason(desk.buy(3, 100, who="ann")) == "insufficient_funds"
    desk.buy(2, 100, who="ann")
    assert desk.engine.held("ann", "$cash") == 2_000_600
    assert reason(desk.sell(1, 100, who="ann")) == "insufficient_position"
    desk.cancel(1, who="ann")
    assert desk.engine.held("ann", "$cash") == 0


def test_m4_an_order_without_a_price_counts_at_the_upper_end_of_the_band():
    desk = Desk(venue=HOLDS)
    desk.fund("ann", "$cash", 150 * TICK)
    desk.fund("bob", "AAA", 5)
    desk.sell(5, 100, who="bob")
    assert reason(desk.buy(2, who="ann")) == "insufficient_funds"
    assert kinds(desk.buy(1, trigger=120, who="ann")) == ["Accepted"]
    assert desk.engine.held("ann", "$cash") == 150 * TICK
    assert reason(desk.buy(1, who="ann")) == "insufficient_funds"
    desk.cancel(2, who="ann")
    assert trades(desk.buy(1, who="ann")) == [(1, 100, 1)]


def test_m5_every_way_an_order_ends_gives_its_hold_back():
    desk = Desk(venue=HOLDS)
    desk.fund("ann", "$cash", 10_000_000)
    desk.fund("bob", "AAA", 10)

    def held():
        return desk.engine.held("ann", "$cash"), desk.engine.held("bob", "AAA")

    desk.buy(4, 100, who="ann")
    desk.sell(1, 100, who="bob")
    assert held() == (300 * TICK, 0)
    desk.replace(1, 2, 100, who="ann")
    assert held() == (200 * TICK, 0)
    desk.replace(1, 2, 90, who="ann")
    assert held() == (180 * TICK, 0)
    desk.sell(5, 110, who="bob", display=1)
    desk.buy(2, 110, who="ann")
    assert held() == (180 * TICK, 3)
    desk.buy(1, 80, who="ann", lasts=TimeInForce.GTT, expires_at=desk.at + 1)
    desk.wait(1).tick()
    assert held() == (180 * TICK, 3)
    assert cancels(desk.mass_cancel("ann")) == [(1, 2, "mass_cancel")]
    desk.close()
    assert held() == (0, 0)
    assert desk.engine.free("bob", "AAA") == desk.engine.balance("bob", "AAA") == 7


def test_a_replacement_needs_only_what_it_holds_more():
    desk = Desk(venue=HOLDS)
    desk.fund("ann", "$cash", 200 * TICK)
    desk.buy(2, 90, who="ann")
    assert kinds(desk.replace(1, 2, 100, who="ann")) == ["Replaced", "Rested"]
    assert reason(desk.replace(1, 2, 101, who="ann")) == "insufficient_funds"


@pytest.mark.parametrize("holds", [False, True])
def test_m3_trading_keeps_the_sum_of_every_asset_and_the_ledger_agrees(holds):
    instruments = (PAID, Instrument("BBB", 500, 100, taker_fee_ppm=7))
    engine, ledger, rng = Engine(instruments, Venue(holds=holds)), Balances(), random.Random(3)
    flow = OrderFlow(11, instruments, ("p", "q", "r"))
    gifts = [Fund(f"g{who}{asset}", who, asset, 10**9 if asset == "$cash" else 500)
             for who in "pqr" for asset in ("$cash", "AAA", "BBB")]  # fmt: skip
    money = {one.symbol: money_per_tick(one) for one in instruments}
    for seq in range(1, 3_000):
        command = gifts.pop() if gifts else next(flow)
        events = engine.apply(Sequenced(seq, seq * rng.randrange(1, 5), command))
        flow.observe(events)
        for event in events:
            if isinstance(event, Traded):
                ledger.post(postings(event, money[event.symbol]))
    sums = {"$cash": 0, "AAA": 0, "BBB": 0}
    for (_, asset), amount in engine.balances().items():
        sums[asset] += amount
    assert sums == {"$cash": 3 * 10**9, "AAA": 1_500, "BBB": 1_500}
    assert ledger.imbalance() == 0
    for who in ("p", "q", "r"):
        for asset, gift in (("$cash", 10**9), ("AAA", 500), ("BBB", 500)):
            assert engine.balance(who, asset) == gift + ledger.amount(who, asset)
            assert not holds or engine.free(who, asset) >= 0
    assert ledger.amount(FEES, "$cash") == engine.balance(FEES, "$cash") != 0
