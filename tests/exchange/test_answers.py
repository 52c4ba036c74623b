"""What an answer says of an order, held against the engine's own view of it, whatever was asked."""

# mypy: disable-error-code="arg-type"
# (plain numbers and texts stand for ids and amounts)
from __future__ import annotations

import random

import msgspec
import pytest

from exchange import answers
from exchange.accounting import LoadLine, Replayed, account
from exchange.answers import OrderState, Status, answer_of
from exchange.commands import (
    Limit,
    Market,
    MassCancel,
    PlaceOrder,
    ReplaceOrder,
    Sequenced,
    SetPhase,
    Stop,
    StopLimit,
)
from exchange.engine import Engine
from exchange.ports import ClientOutcome
from exchange.types import CancelReason, Instrument, SelfTrade, Side, TimeInForce, TradingPhase, Venue
from exchange.views import OrderStatus
from kernel.time import Instant
from tests.exchange.plant import order

AAA = Instrument("AAA", 1000, 500)


def wishes(chance, count):
    for number in range(count):
        who, side = chance.choice(("ann", "bob")), chance.choice(list(Side))
        price, lots = chance.randrange(997, 1004), chance.randrange(1, 12)
        terms = chance.choice([
            Limit(price), Limit(price), Limit(price, display=chance.randrange(1, lots + 1)),
            Limit(price, all_or_none=True), Limit(price, post_only=True), Market(), Stop(price),
            StopLimit(price, price),
        ])  # fmt: skip
        lasts = chance.choice([TimeInForce.DAY, TimeInForce.DAY, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK])
        modes = chance.choice(list(SelfTrade))
        if chance.random() < 0.2:
            yield ReplaceOrder(who, f"r{number}", chance.randrange(1, max(2, number)), lots, price)
        elif chance.random() < 0.02:
            yield SetPhase(f"p{number}", chance.choice([TradingPhase.INTRADAY_AUCTION, TradingPhase.CONTINUOUS]), "AAA")
        else:
            yield PlaceOrder(who, f"o{number}", "AAA", side, lots, terms, lasts, 0, modes)


@pytest.mark.parametrize("seed", range(20))
def test_every_answer_agrees_with_the_order_as_the_engine_has_it(seed):
    assert states_of(seed) > {OrderState.RESTING, OrderState.CANCELED, OrderState.WAITING}


def test_the_walks_come_by_every_state_that_an_answer_tells_in_continuous_trading():
    assert set.union(*map(states_of, range(4))) == set(OrderState) - {OrderState.EXPIRED}


def states_of(seed):
    engine, seen = Engine([AAA]), set()
    for command in wishes(random.Random(seed), 400):
        events = engine.apply(command)
        if isinstance(command, SetPhase):
            continue
        told = answer_of(engine.sequence, command.client_id, events)
        if told.status is Status.REJECTED:
            assert (told.state, told.order_id) == (None, None)
            continue
        assert told.filled + told.resting + told.canceled == command.quantity
        view = engine.order(told.order_id)
        seen.add(told.state)
        if told.resting:
            shown = {row.order_id for row in engine.queue("AAA", view.side)}
            assert view.open == told.resting
            assert (told.state is OrderState.WAITING) == (told.order_id not in shown)
            assert (view.status is OrderStatus.WAITING) == (told.state is OrderState.WAITING)
            continue
        assert view.status.value == told.state.value
        assert told.state is (OrderState.CANCELED if told.canceled else OrderState.FILLED)
        assert (told.cancel_reason is not None) == bool(told.canceled)
    return seen


def test_an_order_that_the_breaker_closed_upon_is_told_as_expired():
    engine = Engine([AAA], Venue(breakers=True))
    engine.apply(order("a", Side.SELL, 700, 1, who="bob"))
    told = answer_of(2, "b", engine.apply(order("b", Side.BUY, 700, 5)))
    assert (told.state, told.filled, told.resting, told.canceled) == (OrderState.EXPIRED, 1, 0, 4)


def test_what_was_due_before_a_request_is_not_its_own():
    engine = Engine([AAA])
    engine.apply(order("a", Side.BUY, 1000, 5))
    told = answer_of(2, "m", engine.apply(MassCancel("ann", "m", side=Side.SELL)))
    assert (told.orders, told.canceled, told.cancel_reason, told.state) == (0, 0, None, None)
    told = answer_of(3, "n", engine.apply(MassCancel("ann", "n")))
    assert (told.orders, told.canceled, told.cancel_reason) == (1, 5, CancelReason.MASS_CANCEL)


def test_a_line_written_before_answers_told_the_state_is_no_mismatch():
    engine = Engine([AAA])
    said = answer_of(1, "a", engine.apply(order("a")))
    old = msgspec.structs.replace(said, state=None, cancel_reason=None)
    wrong = msgspec.structs.replace(said, state=OrderState.FILLED)
    journal = Replayed(1, {("ann", "a"): said}, {})
    for answer, mismatched in ((said, 0), (old, 0), (wrong, 1)):
        line = LoadLine("ann", "a", "place", 1, 1, 2, ClientOutcome.ACKNOWLEDGED, 1, answer)
        assert account([line], journal).mismatched == mismatched


@pytest.mark.parametrize("quantity", [1, 7])
@pytest.mark.parametrize("display", [0, 1])
def test_the_answer_to_a_plain_order_is_the_same_read_at_once_or_event_by_event(quantity, display):
    engine = Engine([Instrument("AAA", 1000, 500)])
    for number, (side, price) in enumerate([(Side.BUY, 990), (Side.SELL, 1010), (Side.BUY, 1010), (Side.BUY, 9_999)]):
        placed = PlaceOrder("ann", f"a{number}", "AAA", side, quantity, Limit(price, display=display))
        events = tuple(engine.apply(Sequenced(number + 1, Instant(number + 1), placed)))
        assert answer_of(number, "a", events) == answers._read(number, "a", events)
