# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""Each bug that public matching engines were found to have, excluded by name."""

import gc

import pytest
from msgspec import structs

from exchange.commands import (
    CancelOrder,
    CloseSession,
    Halt,
    Limit,
    Market,
    OpenSession,
    PlaceOrder,
    ReplaceOrder,
    Resume,
    Sequenced,
)
from exchange.engine import ADMIN, Engine, fingerprint
from exchange.events import Accepted, Canceled, Expired, Halted, Rejected, Replaced, Rested, Traded
from exchange.types import CancelReason, HaltReason, Instrument, RejectReason, Side, TimeInForce, Venue
from kernel.errors import InputError, PermanentError

AAA = Instrument("AAA", 100, 50)


class Desk:
    """Numbers commands and makes client ids."""

    def __init__(self, *instruments):
        self.engine = Engine(instruments or (AAA,))
        self.ids = 0

    def give(self, command):
        return self.engine.apply(Sequenced(self.engine.sequence + 1, 0, command))

    def next_id(self):
        self.ids += 1
        return f"id-{self.ids}"

    def buy(self, price, quantity, **more):
        return self.order(Side.BUY, price, quantity, **more)

    def sell(self, price, quantity, **more):
        return self.order(Side.SELL, price, quantity, **more)

    def order(self, side, price, quantity, account="p", lasts=TimeInForce.DAY, symbol="AAA"):
        terms = Market() if price is None else Limit(price)
        return self.give(PlaceOrder(account, self.next_id(), symbol, side, quantity, terms, lasts))

    def cancel(self, order_id, account="p"):
        return self.give(CancelOrder(account, self.next_id(), order_id))

    def replace(self, order_id, quantity, price, account="p"):
        return self.give(ReplaceOrder(account, self.next_id(), order_id, quantity, price))


def trades(events):
    return [(one.maker_order_id, one.price, one.quantity) for one in events if isinstance(one, Traded)]


def reason(events):
    (only,) = events
    assert isinstance(only, Rejected)
    return only.reason


def test_a_partly_filled_maker_keeps_its_place():
    desk = Desk()
    desk.buy(100, 5)
    desk.buy(100, 5)
    assert trades(desk.sell(100, 2)) == [(1, 100, 2)]
    assert trades(desk.sell(100, 4)) == [(1, 100, 3), (2, 100, 1)]


def test_a_trade_prints_at_the_makers_price():
    desk = Desk()
    desk.sell(98, 1)
    assert trades(desk.buy(105, 1)) == [(1, 98, 1)]


def test_what_an_ioc_order_cannot_trade_never_rests():
    desk = Desk()
    desk.sell(100, 1)
    *_, last = desk.buy(100, 3, lasts=TimeInForce.IOC)
    assert isinstance(last, Canceled)
    assert (last.quantity, last.reason, last.resting) == (2, CancelReason.IOC_REMAINDER, False)
    assert desk.engine.resting_orders == 0


@pytest.mark.parametrize("gone", [1, 2, 3], ids=["head", "middle", "tail"])
def test_a_cancel_leaves_the_neighbours_in_place(gone):
    desk = Desk()
    for _ in range(3):
        desk.buy(100, 1)
    desk.cancel(gone)
    assert [maker for maker, _, _ in trades(desk.sell(100, 3))] == [one for one in (1, 2, 3) if one != gone]


def test_an_emptied_level_is_no_phantom_best():
    desk = Desk()
    desk.buy(101, 1)
    desk.buy(100, 1)
    desk.cancel(1)
    assert desk.engine.top("AAA").bid == 100
    assert trades(desk.sell(100, 1)) == [(2, 100, 1)]
    assert desk.engine.top("AAA") == (None, 0, None, 0)


def test_a_cancel_after_the_fill_is_too_late_and_one_of_nothing_is_unknown():
    desk = Desk()
    desk.buy(100, 1)
    desk.sell(100, 1)
    assert reason(desk.cancel(1)) is RejectReason.TOO_LATE
    assert reason(desk.cancel(99)) is RejectReason.UNKNOWN_ORDER
    assert reason(desk.replace(1, 1, 100)) is RejectReason.TOO_LATE


def test_nobody_touches_anothers_order():
    desk = Desk()
    desk.buy(100, 1)
    assert reason(desk.cancel(1, account="q")) is RejectReason.NOT_YOUR_ORDER
    assert reason(desk.replace(1, 1, 101, account="q")) is RejectReason.NOT_YOUR_ORDER
    assert desk.engine.top("AAA").bid_quantity == 1


def test_a_duplicate_client_id_is_refused_and_changes_nothing():
    desk = Desk()
    first = PlaceOrder("p", "same", "AAA", Side.BUY, 1, Limit(100))
    events = desk.give(first)
    assert (
        reason(desk.give(PlaceOrder("p", "same", "AAA", Side.BUY, 2, Limit(100)))) is RejectReason.DUPLICATE_CLIENT_ID
    )
    known = desk.engine.known("p", "same")
    assert (known.seq, known.fingerprint, known.events) == (1, fingerprint(first), events)
    assert desk.engine.known("q", "same") is None
    assert isinstance(desk.give(PlaceOrder("q", "same", "AAA", Side.BUY, 1, Limit(99)))[0], Accepted)


def test_the_hash_is_the_same_whether_asked_for_once_or_after_every_command_of_many_accounts():
    often, once = Desk(), Desk()
    for number in range(12):
        for desk in (often, once):
            desk.buy(90 + number, 1, account="zxy"[number % 3])
        often.engine.state_hash()
    for desk in (often, once):
        desk.buy(0, 1, account="a")  # refused, and remembered
    assert often.engine.state_hash() == once.engine.state_hash()
    back = Engine.thaw(once.engine.snapshot(), (AAA,))
    assert back.state_hash() == once.engine.state_hash()
    assert back.snapshot() == once.engine.snapshot()
    assert back.known("a", "id-13").events == once.engine.known("a", "id-13").events


def test_the_empty_account_is_refused_although_admin_commands_are_remembered_under_it():
    desk = Desk()
    desk.give(CloseSession("k"))
    assert reason(desk.order(Side.BUY, 100, 1, account=ADMIN)) is RejectReason.BAD_CLIENT_ID


def test_client_ids_are_kept_for_the_session():
    desk = Desk()
    place = PlaceOrder("p", "same", "AAA", Side.BUY, 1, Limit(100))
    desk.give(place)
    desk.give(OpenSession("open-1"))  # already open: nothing is forgotten
    assert reason(desk.give(place)) is RejectReason.DUPLICATE_CLIENT_ID
    desk.give(CloseSession("close-1"))
    desk.give(OpenSession("open-2"))
    assert isinstance(desk.give(place)[0], Accepted)


def test_a_replace_into_a_cross_trades_and_never_rests_crossed():
    desk = Desk()
    desk.sell(102, 2)
    desk.buy(100, 5)
    events = desk.replace(2, 5, 103)
    assert trades(events) == [(1, 102, 2)]
    assert desk.engine.top("AAA") == (103, 3, None, 0)
    assert [type(one) for one in events] == [Replaced, Traded, Rested]


def test_a_limit_never_sweeps_past_its_own_price():
    desk = Desk()
    desk.sell(100, 1)
    desk.sell(101, 1)
    assert trades(desk.buy(100, 5)) == [(1, 100, 1)]
    assert desk.engine.top("AAA") == (100, 4, 101, 1)


def test_no_trade_has_quantity_zero():
    desk = Desk()
    desk.sell(100, 2)
    desk.sell(100, 2)
    assert trades(desk.buy(100, 2)) == [(1, 100, 2)]


@pytest.mark.parametrize("quantity", [0, -1, 1_000_001])
def test_bad_quantities_are_refused(quantity):
    assert reason(Desk().buy(100, quantity)) is RejectReason.BAD_QUANTITY


@pytest.mark.parametrize(
    ("price", "why"),
    [
        (0, RejectReason.BAD_PRICE),
        (-1, RejectReason.BAD_PRICE),
        (49, RejectReason.PRICE_OUT_OF_BAND),
        (151, RejectReason.PRICE_OUT_OF_BAND),
        (2_000_000_000, RejectReason.BAD_PRICE),
    ],
)
def test_prices_keep_their_limits(price, why):
    assert reason(Desk().buy(price, 1)) is why


@pytest.mark.parametrize("price", [50, 150])
def test_the_edge_of_the_band_is_allowed(price):
    assert isinstance(Desk().buy(price, 1)[0], Accepted)


@pytest.mark.parametrize(
    ("quantity", "price", "kept"), [(3, 100, True), (5, 100, True), (6, 100, False), (5, 101, False)]
)
def test_only_a_quantity_not_greater_at_the_same_price_keeps_priority(quantity, price, kept):
    desk = Desk()
    desk.buy(100, 5)
    desk.buy(price, 5)
    assert desk.replace(1, quantity, price)[0].kept_priority is kept
    assert trades(desk.sell(price, 1))[0][0] == (1 if kept else 2)


def test_a_market_order_without_liquidity_is_rejected_and_a_remainder_canceled():
    desk = Desk()
    assert reason(desk.buy(None, 1)) is RejectReason.NO_LIQUIDITY
    desk.sell(100, 1)
    desk.sell(150, 1)
    events = desk.buy(None, 3)
    assert trades(events) == [(1, 100, 1), (2, 150, 1)]
    assert (events[-1].quantity, events[-1].reason) == (1, CancelReason.MARKET_REMAINDER)


def test_a_halt_stops_orders_and_replaces_but_not_cancels():
    desk = Desk()
    desk.buy(100, 1)
    desk.buy(99, 1)
    assert isinstance(desk.give(Halt("h", "AAA", HaltReason.OPERATOR))[0], Halted)
    refused = PlaceOrder("p", "later", "AAA", Side.SELL, 1, Limit(100))
    assert desk.engine.would_refuse(refused) is RejectReason.HALTED
    assert reason(desk.sell(100, 1)) is RejectReason.HALTED
    assert reason(desk.replace(1, 1, 101)) is RejectReason.HALTED
    assert isinstance(desk.cancel(1)[0], Canceled)
    assert desk.engine.known(ADMIN, "h") is not None
    desk.give(Resume("r", "AAA"))
    assert desk.engine.would_refuse(refused) is None
    assert trades(desk.sell(99, 1)) == [(2, 99, 1)]


def test_resuming_the_market_leaves_a_symbol_halted_on_its_own():
    desk = Desk()
    desk.give(Halt("a", "AAA", HaltReason.SEQUENCE_GAP))
    desk.give(Halt("b", None, HaltReason.RECOVERY))
    desk.give(Resume("c", None))
    assert (desk.engine.market_halted, desk.engine.halted_symbols()) == (False, ("AAA",))
    assert reason(desk.buy(100, 1)) is RejectReason.HALTED


def test_closing_the_session_expires_every_day_order_and_refuses_new_ones():
    desk = Desk()
    desk.buy(100, 2)
    desk.sell(101, 3)
    events = desk.give(CloseSession("close"))
    assert [one.order_id for one in events if isinstance(one, Expired)] == [1, 2]
    assert reason(desk.buy(100, 1)) is RejectReason.SESSION_CLOSED


@pytest.mark.parametrize("account", ["", "x" * 65, "é", "a\nb"])
def test_odd_ids_are_refused_and_not_remembered(account):
    desk = Desk()
    assert reason(desk.buy(100, 1, account=account)) is RejectReason.BAD_CLIENT_ID
    assert desk.engine.known(account, "id-1") is None


def test_a_command_out_of_sequence_is_refused_and_changes_nothing():
    desk = Desk()
    before = desk.engine.state_hash()
    with pytest.raises(PermanentError, match="takes the next one only"):
        desk.engine.apply(Sequenced(2, 0, OpenSession("x")))
    assert desk.engine.state_hash() == before


def test_an_engine_needs_instruments_each_once():
    with pytest.raises(InputError):
        Engine(())
    with pytest.raises(InputError):
        Engine((AAA, AAA))


@pytest.mark.parametrize(
    "wrong",
    [
        {"tick_step": 0},
        {"lot_step": -1},
        {"reference": 0},
        {"band": -1},
        {"luld_ppm": -1},
        {"band": 10**9},
        {"taker_fee_ppm": 2_000_000},
    ],
)
def test_an_instrument_has_figures_an_exchange_can_work_with(wrong):
    with pytest.raises(InputError, match=r"^instruments\[0\] \(AAA\)\."):
        Engine((structs.replace(AAA, **wrong),))


@pytest.mark.parametrize("wrong", ["limit_state_seconds", "pause_seconds", "reopening_seconds", "breaker_seconds"])
def test_no_pause_is_without_an_end_or_a_length(wrong):
    with pytest.raises(InputError, match=r"^venue\."):
        Engine((AAA,), structs.replace(Venue(), **{wrong: 0}))


class Mute:
    """A value that cannot be told."""

    def __repr__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "terms",
    [
        pytest.param(lambda: Limit(10**5_000), id="a huge price"),
        pytest.param(lambda: Limit(Mute()), id="a mute price"),
        pytest.param(lambda: 10**5_000, id="a huge number"),
        pytest.param(Mute, id="mute"),
    ],
)
def test_a_refused_command_that_nobody_can_write_down_leaves_an_engine_that_tells_its_hash(terms):
    engine = Engine((Instrument("AAA", 1_000, 500),))
    (event,) = engine.apply(Sequenced(1, 1, PlaceOrder("p", "c1", "AAA", Side.BUY, 1, terms())))
    assert isinstance(event, Rejected)
    assert Engine.thaw(engine.freeze(), (Instrument("AAA", 1_000, 500),)).state_hash() == engine.state_hash()


def test_the_hash_sees_priority():
    """The same orders at the same price in another order of arrival are another state."""
    one, other = Desk(), Desk()
    for desk, first in ((one, 5), (other, 6)):
        desk.buy(100, 5)
        desk.buy(100, 5)
        desk.replace(1, first, 100)
        desk.replace(1, 5, 100)
    assert {one.engine.resting_orders, other.engine.resting_orders} == {2}
    assert one.engine.state_hash() != other.engine.state_hash()


def test_filled_and_cancelled_orders_leave_no_cycles():
    desk = Desk()
    gc.collect()
    gc.disable()
    try:
        for _ in range(300):
            desk.buy(100, 2)
            desk.sell(100, 1)
            desk.cancel(desk.engine.orders_made - 1)
            desk.buy(99, 1)
            desk.sell(99, 1)
        assert desk.engine.resting_orders == 0
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("at", [float("nan"), 1.5, True, -(10**30), 1 << 63, "7", None])
def test_no_instant_that_a_journal_cannot_hold_moves_the_engine(at):
    desk = Desk()
    desk.buy(100, 1)
    before, following = desk.engine.state_hash(), desk.engine.sequence + 1
    with pytest.raises(PermanentError, match="for an instant"):
        desk.engine.apply(Sequenced(following, at, PlaceOrder("p", "new", "AAA", Side.BUY, 1, Limit(100))))
    with pytest.raises(PermanentError, match="the next one only"):
        desk.engine.apply(Sequenced(float(following), 1, PlaceOrder("p", "new", "AAA", Side.BUY, 1, Limit(100))))
    assert desk.engine.state_hash() == before


def test_nobody_trades_as_the_account_of_the_fees():
    desk = Desk()
    assert reason(desk.order(Side.BUY, 100, 1, account="$fees")) is RejectReason.BAD_CLIENT_ID
