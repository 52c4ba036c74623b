"""A question about a symbol that nobody lists is answered by what was asked and what there is."""

import pytest

from exchange.commands import Limit, PlaceOrder, Sequenced
from exchange.engine import Engine
from exchange.events import Rejected
from exchange.types import Instrument, RejectReason, Side
from kernel.errors import InputError

QUESTIONS = {
    "top": lambda engine, symbol: engine.top(symbol),
    "depth": lambda engine, symbol: engine.depth(symbol, 5),
    "book": lambda engine, symbol: engine.book(symbol),
    "queue": lambda engine, symbol: engine.queue(symbol, Side.BUY),
    "balance": lambda engine, symbol: engine.balance("p", symbol),
    "held": lambda engine, symbol: engine.held("p", symbol),
    "free": lambda engine, symbol: engine.free("p", symbol),
    "last_price": lambda engine, symbol: engine.last_price(symbol),
    "indicative": lambda engine, symbol: engine.indicative(symbol),
    "phase": lambda engine, symbol: engine.phase(symbol),
    "paused_until": lambda engine, symbol: engine.paused_until(symbol),
    "limit_state": lambda engine, symbol: engine.limit_state(symbol),
    "gathers": lambda engine, symbol: engine.gathers(symbol),
    "symbol_seq": lambda engine, symbol: engine.symbol_seq(symbol),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_error_names_the_symbol_and_those_that_are_listed_and_nothing_changes(question):
    engine = Engine([Instrument("BBB", 100, 50), Instrument("AAA", 100, 50)])
    before = engine.state_hash()
    with pytest.raises(InputError) as told:
        QUESTIONS[question](engine, "NOPE")
    assert str(told.value) == "symbol 'NOPE': is not listed; there are AAA, BBB"
    assert isinstance(told.value, KeyError)
    assert engine.state_hash() == before


def test_a_long_list_is_cut_and_counted():
    engine = Engine([Instrument(f"S{number:03}", 100, 50) for number in range(25)])
    with pytest.raises(InputError, match=r"S000, .*, S019 and 5 more$"):
        engine.book("x" * 500)


def test_an_order_for_it_is_rejected_as_ever():
    engine = Engine([Instrument("AAA", 100, 50)])
    (event,) = engine.apply(Sequenced(1, 0, PlaceOrder("p", "c1", "NOPE", Side.BUY, 1, Limit(100))))
    assert isinstance(event, Rejected)
    assert event.reason is RejectReason.UNKNOWN_SYMBOL
