"""What trades cost and orders hold, with machine words and beyond them, against exact fractions."""

from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.book import Book
from exchange.floor import charges, need
from exchange.types import Instrument, Side

PPM = st.integers(-900, 5_000)
TICK_SIZES = ("0.0001", "0.01", "1", "1000")


def half_away(share):
    return floor(share + Fraction(1, 2)) if share >= 0 else -floor(-share + Fraction(1, 2))


@st.composite
def books(draw):
    reference = draw(st.sampled_from((100, 13_552, 10**6, 5 * 10**8)))
    return Book(
        Instrument(
            "A", reference, reference - 1, tick_size=draw(st.sampled_from(TICK_SIZES)),
            max_quantity=draw(st.sampled_from((100, 10**6, 10**12))),
            maker_fee_ppm=draw(PPM), taker_fee_ppm=draw(PPM),
        )
    )  # fmt: skip


@given(books(), st.data())
def test_costs_and_fees_are_exact_however_large(book, data):
    price, lots = data.draw(st.integers(1, book.high)), data.draw(st.integers(1, book.most))
    cost = price * lots * book.money
    exact = [half_away(Fraction(cost * ppm, 10**6)) for ppm in (book.taker_ppm, book.maker_ppm)]
    assert charges(book, price, lots) == (cost, *exact)


@given(books(), st.data())
def test_a_hold_is_the_cost_and_the_highest_fee_rounded_up_however_large(book, data):
    price, lots = data.draw(st.integers(0, book.high)), data.draw(st.integers(1, book.most))
    cost = (price or book.high) * lots * book.money
    assert need(book, Side.BUY, price, lots) == cost + ceil(Fraction(cost * book.highest_ppm, 10**6))
    assert need(book, Side.SELL, price, lots) == lots


@pytest.mark.parametrize(("reference", "most", "wide"), [(13_552, 10**6, False), (5 * 10**8, 10**12, True)])
def test_where_a_machine_word_might_not_do_none_is_used(reference, most, wide):
    assert Book(Instrument("A", reference, 1, max_quantity=most, taker_fee_ppm=300)).wide is wide
