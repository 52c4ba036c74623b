# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Examples that venues and public engines publish: their figures, asked of this engine. Each names where it stands."""

import pytest

from exchange.types import CrossPrices, Instrument, TradingPhase, Venue
from tests.exchange.desk import Desk, cancels, crossed, trades

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
