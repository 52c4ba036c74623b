# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Examples that venues and public engines publish: their figures, asked of this engine. Each names where it stands."""

import pytest

from exchange.types import CrossPrices, Instrument, SelfTrade, Side, TimeInForce, TradingPhase, Venue
from tests.exchange.desk import Desk, cancels, crossed, reason, trades

M = None
"""A market order's price."""
LIMITS = CrossPrices.LIMITS
OPENING, CONTINUOUS = TradingPhase.OPENING_AUCTION, TradingPhase.CONTINUOUS


def gathered(buys, sells, reference, cross_prices=CrossPrices.LIMITS_AND_REFERENCE):
    """A desk whose auction holds orders of price and quantity."""
    desk = Desk(Instrument("AAA", reference, 1_000_000), venue=Venue(cross_prices=cross_prices))
    desk.turn(OPENING)
    for price, quantity in buys:
        desk.buy(quantity, price)
    for price, quantity in sells:
        desk.sell(quantity, price)
    return desk


# --- crosses ---------------------------------------------------------------------------------------------------------

XETRA = {
    # Market Model Equities, chapter on auctions: one limit, bid surplus, ask surplus, both, none, market orders only.
    "1": ([(202, 200), (201, 200), (200, 300)], [(200, 100), (198, 200), (197, 400)]),
    "2": ([(202, 400), (201, 200)], [(199, 300), (198, 200)]),
    "3": ([(202, 300), (201, 200)], [(199, 400), (198, 200)]),
    "4": ([(M, 100), (199, 100)], [(M, 100), (202, 100)]),
    "5": ([(202, 300), (201, 200)], [(198, 200), (199, 300)]),
    "6": ([(M, 900)], [(M, 800)]),
}


@pytest.mark.parametrize(
    ("example", "reference", "right"),
    [
        ("1", 150, (200, 700, 0)), ("1", 250, (200, 700, 0)), ("2", 150, (201, 500, 100)),
        ("2", 250, (201, 500, 100)), ("3", 150, (199, 500, -100)), ("3", 250, (199, 500, -100)),
        ("4", 199, (199, 100, 100)), ("4", 200, (199, 100, 100)), ("4", 201, (202, 100, -100)),
        ("4", 205, (202, 100, -100)), ("5", 200, (201, 500, 0)), ("5", 202, (201, 500, 0)),
        ("5", 198, (199, 500, 0)), ("6", 250, (250, 800, 100)), ("6", 99, (99, 800, 100)),
    ],
)  # fmt: skip
def test_xetras_examples_of_auction_prices_come_out_where_only_limits_are_prices(example, reference, right):
    assert crossed(gathered(*XETRA[example], reference, LIMITS).turn(CONTINUOUS)) == [right]


@pytest.mark.parametrize(
    ("example", "reference", "right"),
    [
        ("1", 150, (200, 700, 0)), ("1", 250, (200, 700, 0)), ("2", 250, (201, 500, 100)),
        ("3", 150, (199, 500, -100)), ("4", 200, (200, 100, 0)), ("4", 205, (202, 100, -100)),
        ("4", 190, (199, 100, 100)), ("5", 200, (200, 500, 0)), ("5", 250, (201, 500, 0)),
        ("5", 150, (199, 500, 0)), ("6", 99, (99, 800, 100)),
    ],
)  # fmt: skip
def test_else_the_reference_is_a_price_between_the_limits_and_none_beyond_them(example, reference, right):
    assert crossed(gathered(*XETRA[example], reference).turn(CONTINUOUS)) == [right]


def test_xetra_example_7_of_orders_that_do_not_meet_nothing_trades():
    desk = gathered([(200, 80), (199, 80)], [(201, 80)], 200)
    assert desk.engine.indicative("AAA") is None
    assert trades(desk.turn(CONTINUOUS)) == []


def test_xetra_time_decides_who_is_filled_in_part():
    assert trades(gathered([(200, 300), (200, 300)], [(200, 400)], 200).turn(CONTINUOUS)) == [
        (1, 200, 300),
        (2, 200, 100),
    ]


BOOKS = {
    # CME, rules of the indicative opening price: largest matching quantity; least left over; highest price of buyers.
    "CME 1": (
        [(51, 10), (50, 20), (49, 30), (48, 40), (47, 50), (46, 70), (45, 100)],
        [(51, 30), (50, 100), (49, 1), (48, 25), (47, 1), (46, 100), (45, 90), (44, 4), (43, 6)],
        (46, 200, 20),
    ),
    "CME 2": (
        [(51, 10), (50, 20), (49, 30), (48, 40), (47, 50), (46, 30), (45, 100)],
        [(51, 30), (50, 100), (49, 1), (48, 25), (46, 50), (45, 90), (44, 4), (43, 6)],
        (47, 150, 0),
    ),
    "CME 3": (
        [(51, 10), (50, 20), (49, 30), (48, 40), (47, 80), (45, 20), (44, 30), (43, 30)],
        [(51, 30), (50, 100), (49, 1), (48, 25), (46, 50), (45, 90), (44, 4), (43, 6)],
        (47, 150, 30),
    ),
    # ASX, the four principles of the call auction: surplus to buy at every price of the most volume.
    "ASX": (
        [(640, 500), (639, 500), (639, 500), (634, 1000), (633, 500)],
        [(610, 1000), (640, 500), (641, 520), (642, 550), (643, 519)],
        (639, 1000, 500),
    ),
    # MarketGrid, single-price auction.
    "MarketGrid": (
        [(13100, 35), (13000, 10), (12900, 95), (12800, 25), (12700, 35), (12600, 25), (12500, 55), (12400, 200)],
        [(12200, 10), (12300, 125), (12400, 155), (12500, 90), (12600, 20), (12700, 10), (12800, 15), (12900, 10)],
        (12400, 290, 190),
    ),
    # Euronext's rules as EuronextClone puts them: who buys at any price pays the offer that clears most.
    "Euronext": ([(M, 80)], [(1002, 40), (1004, 40)], (1004, 80, 0)),
    "Euronext, sold": ([(998, 40), (996, 40)], [(M, 80)], (996, 80, 0)),
}


@pytest.mark.parametrize("cross_prices", CrossPrices)
@pytest.mark.parametrize("name", BOOKS)
@pytest.mark.parametrize("away", [-300, 0, 300])
def test_published_books_cross_where_they_say_whatever_the_reference(name, away, cross_prices):
    buys, sells, right = BOOKS[name]
    assert crossed(gathered(buys, sells, max(1, right[0] + away), cross_prices).turn(CONTINUOUS)) == [right]


@pytest.mark.parametrize(
    ("bids", "asks", "price"),
    [
        ([(10550, 10000), (10450, 5600), (10400, 200)], [(10300, 6900), (10450, 1000), (10600, 200), (M, 2500)], 10450),
        ([(10550, 10000), (10450, 5600), (10400, 200)], [(10300, 6900), (10400, 1000), (10600, 200), (M, 2500)], 10450),
        (
            [(10550, 10000), (10500, 5600), (10400, 1000)],
            [(10300, 6900), (10400, 1000), (10600, 200), (M, 2500)],
            10500,
        ),
    ],
)
def test_cointossx_auctions_fill_whom_they_say(bids, asks, price):
    """Its three tests: the total, the price and what is left; it pairs in another order than A5."""
    desk = gathered(bids, asks, 15_000)
    events = desk.turn(CONTINUOUS)
    assert crossed(events) == [(price, 10_400, 5_200)]
    assert desk.bids() == ((price, 5_200), bids[2])
    assert desk.asks() == ((10600, 200),)
    assert cancels(events) == []


def test_an_instruments_reference_between_two_steps_is_no_price():
    desk = Desk(Instrument("AAA", 103, 50, tick_step=5))
    desk.turn(OPENING)
    desk.buy(2)
    desk.sell(1)
    assert crossed(desk.turn(CONTINUOUS)) == [(100, 1, 1)]


# --- continuous trading ----------------------------------------------------------------------------------------------


def test_exchange_cores_full_cycle_moves_an_order_into_the_book_of_the_other_side():
    """basic.feature: the order that is moved takes, at the price of the one that stands."""
    desk = Desk(Instrument("AAA", 1_600, 1_000))
    desk.sell(7, 1600, who="alice")
    desk.buy(4, 1550, who="alice")
    assert trades(desk.buy(2, 1700, who="bob", lasts=TimeInForce.IOC)) == [(1, 1600, 2)]
    assert trades(desk.buy(4, 1583, who="bob")) == []
    assert (desk.bids(), desk.asks()) == (((1583, 4), (1550, 4)), ((1600, 5),))
    assert trades(desk.replace(1, 5, 1580, who="alice")) == [(4, 1583, 4)]
    assert (desk.bids(), desk.asks()) == (((1550, 4),), ((1580, 1),))


def test_exchange_cores_risk_check_refuses_what_is_one_short_and_gives_back_what_a_cancel_frees():
    """risk.feature, in cents of an instrument whose lot costs a cent a tick."""
    desk = Desk(Instrument("AAA", 30_000, 20_000, tick_size="0.000001"), venue=Venue(holds=True))
    desk.fund("alice", "$cash", 30_000 * 7 - 1)
    desk.fund("bob", "AAA", 6)
    assert reason(desk.buy(7, 30_000, who="alice")) == "insufficient_funds"
    assert reason(desk.sell(7, 30_000, who="bob", lasts=TimeInForce.IOC)) == "insufficient_position"
    desk.fund("alice", "$cash", 1)
    desk.fund("bob", "AAA", 1)
    desk.buy(7, 30_000, who="alice")
    assert desk.engine.free("alice", "$cash") == 0
    assert reason(desk.replace(1, 7, 30_001, who="alice")) == "insufficient_funds"
    desk.replace(1, 7, 25_000, who="alice")
    assert desk.engine.free("alice", "$cash") == 5_000 * 7
    assert trades(desk.sell(7, 20_000, who="bob", lasts=TimeInForce.IOC)) == [(1, 25_000, 7)]
    assert desk.engine.balances() == {
        ("alice", "$cash"): 5_000 * 7, ("alice", "AAA"): 7, ("bob", "$cash"): 25_000 * 7
    }  # fmt: skip
    assert desk.engine.held("alice", "$cash") == desk.engine.held("bob", "AAA") == 0


def ladder():
    """CppTrader's book: three orders at each of three prices a side, 10 to 60, 180 lots a side."""
    desk = Desk(Instrument("AAA", 40, 39))
    for price in (10, 20, 30):
        for quantity in (10, 20, 30):
            desk.buy(quantity, price)
    for price in (40, 50, 60):
        for quantity in (30, 20, 10):
            desk.sell(quantity, price)
    return desk


def left(desk):
    """Orders and lots of each side."""
    views = [desk.engine.order(order_id) for order_id, _ in desk.engine.live()]
    return tuple(
        (len([one for one in views if one.side is side]), sum(one.open for one in views if one.side is side))
        for side in Side
    )


def test_cpptraders_market_orders_leave_what_it_says():
    desk = ladder()
    desk.sell(15)
    assert left(desk) == ((8, 165), (9, 180))
    desk.sell(100, 30, lasts=TimeInForce.IOC)  # its market order without slippage
    assert left(desk) == ((6, 120), (9, 180))
    desk.buy(160, 60, lasts=TimeInForce.IOC)
    assert left(desk) == ((6, 120), (2, 20))
    desk.sell(1000)
    assert left(desk) == ((0, 0), (2, 20))
    desk.buy(1000)
    assert left(desk) == ((0, 0), (0, 0))


def test_cpptraders_limit_orders_and_moves_leave_what_it_says():
    desk = ladder()
    for quantity in (5, 25, 15, 20):
        desk.sell(quantity, 30)
    assert left(desk) == ((6, 120), (10, 185))
    desk.buy(105, 60)
    assert left(desk) == ((6, 120), (5, 80))
    desk.replace(15, 20, 20)
    assert left(desk) == ((5, 100), (4, 70))


@pytest.mark.parametrize(("quantity", "right"), [(40, ((2, 20), (0, 0))), (100, ((3, 60), (0, 0)))])
def test_cpptraders_fill_or_kill_takes_all_or_nothing(quantity, right):
    desk = Desk(Instrument("AAA", 40, 39))
    for price in (10, 20, 30):
        desk.buy(price, price)
    desk.sell(quantity, 10, lasts=TimeInForce.FOK)
    assert left(desk) == right


def test_cpptraders_icebergs_count_whole_and_show_half():
    desk = Desk(Instrument("AAA", 40, 39))
    for price in (10, 20, 30):
        desk.buy(price, price, display=price // 2)
    assert desk.bids() == ((30, 15), (20, 10), (10, 5))
    desk.sell(55)
    assert (left(desk), desk.bids()) == (((1, 5), (0, 0)), ((10, 5),))


@pytest.mark.parametrize(
    ("quantity", "price", "right", "rests"),
    [
        (350, 1251, [(2, 1251, 200), (1, 1251, 150)], ()),
        (700, 1250, [(2, 1251, 200), (1, 1251, 301), (3, 1250, 100)], ((1250, 99),)),
    ],
)
def test_liquibook_sweeps_levels_at_the_makers_prices_and_puts_a_larger_replacement_behind(
    quantity, price, right, rests
):
    desk = Desk(Instrument("AAA", 1_250, 500))
    desk.buy(300, 1251)
    desk.buy(200, 1251)
    desk.buy(100, 1250)
    desk.replace(1, 301, 1251)
    assert trades(desk.sell(quantity, price)) == right
    assert desk.asks() == rests


def test_liquibook_an_all_or_none_that_is_passed_over_is_filled_when_enough_stands():
    """ut_all_or_none.cpp, but for the depth: there all-or-nones are shown, here they are not (F11)."""
    desk = Desk(Instrument("AAA", 1_250, 500))
    desk.buy(100, 1250)
    desk.sell(200, 1251, all_or_none=True)
    desk.sell(100, 1251, all_or_none=True)
    desk.sell(100, 1252)
    assert trades(desk.buy(100, 1251)) == [(3, 1251, 100)]
    assert trades(desk.buy(100, 1251)) == []
    assert trades(desk.buy(100, 1251)) == [(6, 1251, 100), (7, 1251, 100)]
    assert desk.engine.live() == ((1, 100), (4, 100))


# --- stops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buys", [True, False])
def test_cointossx_stops_furthest_from_the_last_price_go_first_and_of_two_as_far_the_older(buys):
    desk = Desk(Instrument("AAA", 9_000, 5_000))
    sign = 1 if buys else -1
    give, take = (desk.sell, desk.buy) if buys else (desk.buy, desk.sell)
    for quantity, away in ((1000, 0), (2000, 200), (1000, 400)):
        give(quantity, 9_000 + sign * away)
    for quantity, away in ((1000, -1000), (500, -2000), (300, -1000)):
        take(quantity, trigger=9_000 + sign * away)
    assert trades(take(1000, 9_000)) == [
        (1, 9_000, 1000), (2, 9_000 + sign * 200, 500), (2, 9_000 + sign * 200, 1000),
        (2, 9_000 + sign * 200, 300),
    ]  # fmt: skip
    assert [lots for _, lots in (desk.asks() if buys else desk.bids())] == [200, 1000]


def test_cointossx_a_stop_whose_trigger_is_moved_to_the_last_price_takes():
    desk = Desk(Instrument("AAA", 9_000, 5_000))
    desk.sell(1000, 9_000)
    desk.sell(2000, 8_000, trigger=8_000)
    desk.buy(1000, 9_000)
    desk.buy(1000, 9_000)
    assert trades(desk.replace(2, 2000, 8_000, trigger=9_000)) == [(4, 9_000, 1000)]
    assert desk.asks() == ((8_000, 1000),)


# --- self-trade prevention -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "right", "gone", "asks"),
    [
        (SelfTrade.CANCEL_NEWEST, [(1, 100, 3)], [(5, 47, "self_trade")], ((100, 5 + 4 + 6),)),
        (SelfTrade.CANCEL_OLDEST, [(1, 100, 3), (3, 100, 4)],
         [(2, 5, "self_trade"), (4, 6, "self_trade"), (5, 43, "market_remainder")], ()),
        (SelfTrade.CANCEL_BOTH, [(1, 100, 3)], [(2, 5, "self_trade"), (5, 47, "self_trade")], ((100, 4 + 6),)),
        (SelfTrade.DECREMENT, [(1, 100, 3), (3, 100, 4)],
         [(2, 5, "self_trade"), (5, 5, "self_trade"), (4, 6, "self_trade"), (5, 6, "self_trade"),
          (5, 32, "market_remainder")], ()),
    ],
)  # fmt: skip
def test_own_orders_among_others_are_met_in_the_order_of_time(mode, right, gone, asks):
    """OrderBook-rs: what stands before the first own order trades; the later own order outlives cancel_both.

    Coinbase and FIX for decrement: the smaller quantity is taken off both.
    """
    desk = Desk()
    for quantity, who in ((3, "x"), (5, "own"), (4, "x"), (6, "own")):
        desk.sell(quantity, 100, who=who)
    events = desk.buy(50, who="own", self_trade=mode)
    assert (trades(events), cancels(events), desk.asks()) == (right, gone, asks)


def test_orderbook_rs_a_fill_or_kill_that_finds_only_own_orders_touches_none():
    desk = Desk()
    desk.sell(10, 100, who="own")
    events = desk.buy(10, 100, who="own", lasts=TimeInForce.FOK, self_trade=SelfTrade.CANCEL_OLDEST)
    assert cancels(events) == [(2, 10, "fok_unfilled")]
    assert desk.asks() == ((100, 10),)
