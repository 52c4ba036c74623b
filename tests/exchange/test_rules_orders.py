# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""The rules of continuous trading, one example each: types, times in force, flags, prevention, checks."""

import math

import pytest
from msgspec import structs

from exchange.commands import (
    CancelOrder,
    DisableAccount,
    EnableAccount,
    Fund,
    Halt,
    Limit,
    Market,
    MassCancel,
    PlaceOrder,
    ReplaceOrder,
    Resume,
    Sequenced,
    SetPhase,
    Stop,
    StopLimit,
    Tick,
)
from exchange.engine import Engine
from exchange.events import Accepted, Canceled, Rejected, Replaced, Replenished, Rested, Triggered
from exchange.types import (
    HaltReason,
    Instrument,
    ReplaceQuantity,
    SelfTrade,
    Side,
    StopReached,
    TimeInForce,
    TradingPhase,
    Venue,
)
from exchange.views import OrderStatus
from kernel.errors import PermanentError
from tests.exchange.desk import AAA, Desk, cancels, expired, kinds, reason, trades

FOK, IOC, GTC, GTT = TimeInForce.FOK, TimeInForce.IOC, TimeInForce.GTC, TimeInForce.GTT


def test_f7_fok_trades_whole_or_not_at_all():
    desk = Desk()
    desk.sell(2, 100)
    desk.sell(2, 101)
    assert cancels(desk.buy(5, 101, lasts=FOK)) == [(3, 5, "fok_unfilled")]
    assert cancels(desk.buy(3, 100, lasts=FOK)) == [(4, 3, "fok_unfilled")]
    assert trades(desk.buy(4, 101, lasts=FOK)) == [(1, 100, 2), (2, 101, 2)]


def test_f7_fok_counts_hidden_quantity_and_no_order_that_prevention_keeps_it_from():
    desk = Desk()
    desk.sell(6, 100, display=2)
    desk.sell(4, 100, who="q")
    mode = {"who": "q", "self_trade": SelfTrade.CANCEL_OLDEST}
    assert cancels(desk.buy(8, 100, lasts=FOK, **mode)) == [(3, 8, "fok_unfilled")]
    assert sum(lots for _, _, lots in trades(desk.buy(6, 100, lasts=FOK, **mode))) == 6


def test_f8_day_orders_expire_at_the_close_and_gtc_orders_live_on():
    desk = Desk()
    desk.buy(1, 99)
    desk.buy(1, 98, lasts=GTC)
    assert expired(desk.close()) == [1]
    desk.open()
    assert trades(desk.sell(1, 98)) == [(2, 98, 1)]


def test_f8_gtt_orders_expire_at_their_instant_before_the_command_that_brings_it():
    desk = Desk()
    desk.buy(1, 99, lasts=GTT, expires_at=10)
    assert desk.engine.due_at() == 10
    desk.at = 9
    assert kinds(desk.tick()) == ["Ticked"]
    desk.at = 10
    assert kinds(desk.sell(1, 99)) == ["Expired", "Accepted", "Rested"]
    assert desk.engine.due_at() is None


def test_c13_an_instant_that_has_passed_is_refused():
    desk = Desk()
    desk.at = 5
    assert reason(desk.buy(1, 99, lasts=GTT, expires_at=5)) == "bad_expiry"
    assert reason(desk.buy(1, 99, lasts=GTT, expires_at=1 << 70)) == "bad_expiry"


def test_t1_the_clock_never_goes_back():
    desk = Desk()
    desk.buy(1, 99, lasts=GTT, expires_at=10)
    desk.at = 7
    desk.tick()
    desk.at = 3
    desk.tick()
    assert desk.engine.clock == 7


def test_f9_a_post_only_order_that_would_trade_is_refused_new_or_replaced():
    desk = Desk()
    desk.sell(1, 101)
    assert reason(desk.buy(1, 101, post_only=True)) == "post_only_would_trade"
    assert kinds(desk.buy(1, 100, post_only=True)) == ["Accepted", "Rested"]
    assert reason(desk.replace(2, 1, 101)) == "post_only_would_trade"
    assert desk.bids() == ((100, 1),)


def test_f10_an_iceberg_shows_a_part_and_each_new_part_goes_behind_all_others():
    desk = Desk()
    events = desk.sell(10, 100, display=3)
    assert (events[0].quantity, events[1].quantity) == (10, 3)
    desk.sell(2, 100)
    assert desk.asks() == ((100, 5),)
    events = desk.buy(6, 100)
    assert trades(events) == [(1, 100, 3), (2, 100, 2), (1, 100, 1)]
    assert [one.quantity for one in events if isinstance(one, Replenished)] == [3]
    assert desk.asks() == ((100, 2),)
    (gone,) = desk.cancel(1)
    assert (gone.quantity, gone.hidden) == (6, 4)


def test_f10_an_iceberg_takes_with_its_whole_quantity():
    desk = Desk()
    desk.sell(5, 100)
    assert trades(desk.buy(7, 100, display=2)) == [(1, 100, 5)]
    assert desk.bids() == ((100, 2),)


def test_f15_hidden_quantity_is_taken_off_first():
    desk = Desk()
    desk.sell(10, 100, display=3)
    (told,) = desk.replace(1, 5, 100)
    assert (told.kept_priority, told.old_hidden, told.hidden) == (True, 7, 2)
    (told,) = desk.replace(1, 2, 100)
    assert (told.hidden, desk.asks()) == (0, ((100, 2),))


def test_f11_an_all_or_none_order_waits_unseen_and_never_trades_in_part():
    desk = Desk()
    assert kinds(desk.buy(5, 100, all_or_none=True)) == ["Accepted"]
    assert desk.bids() == ()
    assert trades(desk.sell(3, 100)) == []
    assert desk.engine.order(1).status is OrderStatus.WAITING


def test_f12_an_all_or_none_order_trades_whole_when_it_comes_in():
    desk = Desk()
    desk.sell(2, 99)
    desk.sell(6, 100, display=1)
    assert sum(lots for _, _, lots in trades(desk.buy(7, 100, all_or_none=True))) == 7


def test_f13_a_taker_passes_over_an_all_or_none_order_that_is_too_large():
    desk = Desk()
    desk.sell(5, 99, all_or_none=True)
    desk.sell(2, 100)
    assert trades(desk.buy(3, 100)) == [(2, 100, 2)]
    desk.cancel(3)
    assert trades(desk.buy(5, 100)) == [(1, 99, 5)]


def test_f14_when_enough_rests_a_waiting_all_or_none_order_takes_it_at_the_makers_price():
    desk = Desk()
    desk.buy(5, 101, all_or_none=True)
    desk.sell(3, 100, who="q")
    events = desk.sell(4, 101, who="q")
    assert trades(events) == [(2, 100, 3), (3, 101, 2)]
    assert {one.taker_order_id for one in events if hasattr(one, "taker_order_id")} == {1}
    assert desk.asks() == ((101, 2),)


def test_f15_a_smaller_all_or_none_order_is_looked_at_at_once():
    desk = Desk()
    desk.buy(5, 100, all_or_none=True)
    desk.sell(3, 100)
    assert trades(desk.replace(1, 3, 100)) == [(2, 100, 3)]


def test_f4_a_stop_waits_and_then_trades_under_its_own_id():
    desk = Desk()
    assert kinds(desk.buy(1, trigger=105)) == ["Accepted"]
    desk.sell(1, 105)
    desk.sell(1, 106)
    events = desk.buy(1, 105)
    assert kinds(events) == ["Accepted", "Traded", "Triggered", "Traded"]
    assert trades(events) == [(2, 105, 1), (3, 106, 1)]


def test_f5_a_cascade_is_looked_at_again_after_each_stop():
    desk = Desk()
    desk.buy(1, 98)
    desk.buy(1, 97)
    desk.buy(1, 96)
    desk.sell(1, trigger=97, who="q")
    desk.sell(1, trigger=98, who="q")
    events = desk.sell(1, 98)
    assert [one.order_id for one in events if isinstance(one, Triggered)] == [5, 4]
    assert trades(events) == [(1, 98, 1), (2, 97, 1), (3, 96, 1)]


def test_f5_of_equal_triggers_the_older_stop_goes_first_and_buys_before_sells():
    desk = Desk()
    desk.sell(1, trigger=100)
    desk.buy(1, trigger=100)
    desk.buy(1, trigger=100)
    desk.sell(1, 100)
    events = desk.buy(1, 100)
    assert [one.order_id for one in events if isinstance(one, Triggered)] == [2, 3, 1]
    assert cancels(events) == [(2, 1, "market_remainder"), (3, 1, "market_remainder"), (1, 1, "market_remainder")]


def test_f6_a_stop_whose_trigger_is_reached_triggers_at_once_or_is_refused():
    for venue, right in ((Venue(), None), (Venue(stop_reached=StopReached.REJECT), "stop_reached")):
        desk = Desk(venue=venue)
        desk.sell(2, 100)
        desk.buy(1, 100)
        events = desk.buy(1, 100, trigger=99)
        if right is None:
            assert kinds(events) == ["Accepted", "Triggered", "Traded"]
        else:
            assert reason(events) == right


def test_f16_a_waiting_stop_can_be_replaced_and_keeps_its_age():
    desk = Desk()
    desk.buy(2, 110, trigger=105)
    desk.buy(1, 110, trigger=104)
    (told,) = desk.replace(1, 1, 109, trigger=104)
    assert (type(told), told.kept_priority, told.old_price, told.price) == (Replaced, True, 110, 109)
    desk.sell(1, 104)
    events = desk.buy(1, 104)
    assert [one.order_id for one in events if isinstance(one, Triggered)] == [1, 2]


def test_f15_the_quantity_of_a_replacement_may_count_the_total():
    desk = Desk(venue=Venue(replace_quantity=ReplaceQuantity.TOTAL))
    desk.buy(5, 100)
    desk.sell(2, 100)
    (told,) = desk.replace(1, 4, 100)
    assert (told.old_quantity, told.quantity) == (3, 2)
    assert reason(desk.replace(1, 2, 100)) == "too_late"


@pytest.mark.parametrize(
    ("mode", "right", "left"),
    [
        (SelfTrade.NONE, [], ((100, 1),)),
        (SelfTrade.CANCEL_NEWEST, [(3, 3, "self_trade")], ((100, 4),)),
        (SelfTrade.CANCEL_OLDEST, [(1, 2, "self_trade")], ()),
        (SelfTrade.CANCEL_BOTH, [(1, 2, "self_trade"), (3, 3, "self_trade")], ((100, 2),)),
        (SelfTrade.DECREMENT, [(1, 2, "self_trade"), (3, 2, "self_trade")], ((100, 1),)),
    ],
)
def test_s1_the_takers_mode_says_what_happens_between_orders_of_one_account(mode, right, left):
    desk = Desk()
    desk.sell(2, 100)
    desk.sell(2, 100, who="q")
    assert cancels(desk.buy(3, 100, self_trade=mode)) == right
    assert desk.asks() == left


def test_s3_a_decrement_tells_what_is_left_and_replenishes_the_maker():
    desk = Desk()
    desk.sell(6, 100, display=2)
    events = desk.buy(3, 100, self_trade=SelfTrade.DECREMENT)
    told = [(one.order_id, one.quantity, one.left) for one in events if isinstance(one, Canceled)]
    assert told == [(1, 2, 4), (2, 2, 1), (1, 1, 3), (2, 1, 0)]
    assert kinds(events) == ["Accepted", "Canceled", "Canceled", "Replenished", "Canceled", "Canceled"]
    assert desk.asks() == ((100, 1),)


def test_s5_an_all_or_none_order_passes_over_its_own():
    desk = Desk()
    desk.sell(2, 99)
    desk.sell(2, 100, who="q")
    mode = {"self_trade": SelfTrade.CANCEL_OLDEST, "all_or_none": True}
    assert trades(desk.buy(3, 100, **mode)) == []
    assert trades(desk.buy(2, 100, **mode)) == [(2, 100, 2)]
    assert desk.asks() == ((99, 2),)


FLAGS = [
    {"price": 100, "lasts": IOC, "post_only": True},
    {"price": 100, "lasts": FOK, "display": 1},
    {"price": 100, "lasts": IOC, "all_or_none": True},
    {"price": 100, "all_or_none": True, "display": 1},
    {"price": 100, "all_or_none": True, "post_only": True},
    {"price": 100, "lasts": GTT},
    {"price": 100, "expires_at": 5},
    {"lasts": GTC},
    {"price": 100, "trigger": 100, "lasts": IOC, "display": 1},
    {"price": 100, "trigger": 100, "lasts": FOK, "display": 1},
]


@pytest.mark.parametrize("flags", FLAGS)
def test_f17_what_does_not_go_together_is_refused(flags):
    assert reason(Desk().buy(2, **flags)) == "bad_combination"


@pytest.mark.parametrize(
    ("lasts", "price", "traded", "gone"),
    [
        (IOC, None, [(3, 100, 2)], [(4, 3, "market_remainder")]),
        (IOC, 100, [(3, 100, 2)], [(4, 3, "ioc_remainder")]),
        (FOK, None, [], [(4, 5, "fok_unfilled")]),
        (FOK, 100, [], [(4, 5, "fok_unfilled")]),
    ],
)
def test_f4_a_stop_that_is_immediate_waits_and_is_immediate_when_it_triggers(lasts, price, traded, gone):
    desk = Desk()
    desk.sell(1, 100)
    desk.turn(TradingPhase.INTRADAY_AUCTION)
    desk.turn(TradingPhase.CONTINUOUS)
    desk.sell(1, 99, who="q")
    desk.sell(2, 100)
    desk.turn(TradingPhase.INTRADAY_AUCTION)  # it waits for its trigger: no phase that gathers orders refuses it
    desk.buy(5, price, trigger=100, lasts=lasts)
    desk.turn(TradingPhase.CONTINUOUS)
    assert desk.engine.order(4).status is OrderStatus.WAITING
    events = desk.buy(2, 100)
    assert trades(events) == [(2, 99, 1), (1, 100, 1), *traded]
    assert (cancels(events), desk.bids()) == (gone, ())


@pytest.mark.parametrize("lasts", [IOC, FOK])
def test_p2_a_stop_that_is_immediate_waits_for_a_day(lasts):
    desk = Desk()
    desk.buy(5, 100, trigger=100, lasts=lasts)
    desk.replace(1, 4, 101, trigger=102)
    assert expired(desk.close()) == [1]


STEPS = Instrument("AAA", 100, 50, tick_step=5, lot_step=10, min_quantity=20, max_quantity=100,
                   min_notional=20_000_000, max_notional=90_000_000)  # fmt: skip


@pytest.mark.parametrize(
    ("quantity", "price", "more", "right"),
    [
        (25, 100, {}, "bad_quantity"),
        (10, 100, {}, "bad_quantity"),
        (110, 100, {}, "bad_quantity"),
        (20, 101, {}, "bad_price"),
        (20, 100, {"display": 5}, "bad_display"),
        (20, 100, {"display": 30}, "bad_display"),
        (20, 95, {}, "bad_notional"),
        (100, 100, {}, "bad_notional"),
        (20, 100, {"trigger": 102}, "bad_price"),
        (20, 100, {"trigger": 155}, "price_out_of_band"),
    ],
)
def test_c8_to_c12_steps_and_limits_of_the_instrument(quantity, price, more, right):
    assert reason(Desk(STEPS).buy(quantity, price, **more)) == right


def test_c4_an_account_sends_so_many_orders_a_second_and_refused_ones_do_not_count():
    desk = Desk(venue=Venue(orders_per_second=2))
    desk.buy(1, 90)
    assert reason(desk.buy(0, 90)) == "bad_quantity"
    desk.replace(1, 1, 91)
    assert reason(desk.buy(1, 90)) == "rate_limited"
    assert kinds(desk.cancel(1)) == ["Canceled"]
    assert kinds(desk.buy(1, 90, who="q")) == ["Accepted", "Rested"]
    assert kinds(desk.wait(1).buy(1, 90)) == ["Accepted", "Rested"]


def test_r6_a_mass_cancel_takes_what_fits_by_order_id():
    desk = Desk(AAA, Instrument("BBB", 100, 50))
    desk.buy(1, 90, session="s1")
    desk.sell(1, 110, session="s2")
    desk.buy(1, 90, symbol="BBB", session="s1")
    desk.buy(1, trigger=120, session="s1")
    desk.buy(1, 91, who="q", session="s1")
    events = desk.mass_cancel(session="s1", symbol="AAA")
    assert cancels(events) == [(1, 1, "mass_cancel"), (4, 1, "mass_cancel")]
    assert events[-1].count == 2
    assert cancels(desk.mass_cancel(side=Side.SELL)) == [(2, 1, "mass_cancel")]
    assert [order.order_id for order in desk.engine.orders("p")] == [3]


def test_r7_the_kill_switch_cancels_all_and_refuses_until_it_is_lifted():
    desk = Desk()
    desk.buy(1, 90)
    assert kinds(desk.disable("p")) == ["Canceled", "MassCanceled", "AccountDisabled"]
    assert reason(desk.buy(1, 90)) == "account_disabled"
    assert kinds(desk.mass_cancel()) == ["MassCanceled"]
    desk.enable("p")
    assert kinds(desk.buy(1, 90)) == ["Accepted", "Rested"]


PLACE = PlaceOrder("p", "c", "AAA", Side.BUY, 5, Limit(100))
WRONG = ["5", None, 5.0, math.nan, True, [5]]
FIELDS = [
    (PLACE, "symbol", {"unknown_symbol"}),
    (PLACE, "side", {"bad_combination"}),
    (PLACE, "quantity", {"bad_quantity"}),
    (PLACE, "terms", {"bad_combination"}),
    (PLACE, "time_in_force", {"bad_combination"}),
    (PLACE, "expires_at", {"bad_combination"}),
    (PLACE, "self_trade", {"bad_combination"}),
    (PLACE, "session", {"bad_combination"}),
    (PLACE, "account", {"bad_client_id"}),
    (PLACE, "client_id", {"bad_client_id"}),
    (CancelOrder("p", "c", 1), "order_id", {"unknown_order"}),
    (ReplaceOrder("p", "c", 1, 5, 100), "order_id", {"unknown_order"}),
    (ReplaceOrder("p", "c", 1, 5, 100), "quantity", {"bad_quantity"}),
    (ReplaceOrder("p", "c", 1, 5, 100), "price", {"bad_price"}),
    (ReplaceOrder("p", "c", 2, 5, 100), "trigger", {"bad_price"}),
    (MassCancel("p", "c"), "side", {"bad_combination"}),
    (MassCancel("p", "c"), "session", {"bad_combination"}),
    (Halt("k", "AAA", HaltReason.OPERATOR), "symbol", {"unknown_symbol"}),
    (Halt("k", "AAA", HaltReason.OPERATOR), "reason", {"bad_combination"}),
    (Resume("k", "AAA"), "auction", {"bad_combination"}),
    (SetPhase("k", TradingPhase.CONTINUOUS), "phase", {"bad_combination"}),
    (Fund("k", "p", "$cash", 5), "account", {"bad_client_id"}),
    (Fund("k", "p", "$cash", 5), "asset", {"bad_asset"}),
    (Fund("k", "p", "$cash", 5), "amount", {"bad_quantity"}),
    (DisableAccount("k", "p"), "account", {"bad_client_id"}),
    (EnableAccount("k", "p"), "account", {"bad_client_id"}),
    (Tick("k"), "key", {"bad_client_id"}),
]
TEXT = {"account", "client_id", "session", "symbol", "asset", "key"}


@pytest.mark.parametrize(("command", "field", "right"), FIELDS, ids=lambda one: getattr(one, "__name__", str(one)))
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_c7_a_field_of_another_type_is_refused_and_changes_nothing(command, field, right, value):
    if field in TEXT and isinstance(value, str):
        value = 5  # text is what it should be
    may_be_none = field == "trigger" or (isinstance(command, MassCancel | Halt) and field != "reason")
    if (value is None and may_be_none) or (field, value) == ("auction", True):
        pytest.skip("a value of the field")
    engine = Engine((AAA,))
    engine.apply(PlaceOrder("p", "first", "AAA", Side.SELL, 5, Limit(105)))
    engine.apply(PlaceOrder("p", "second", "AAA", Side.BUY, 5, StopLimit(110, 110)))
    before = engine.freeze().frame
    (told,) = engine.apply(structs.replace(command, **{field: value}))
    assert isinstance(told, Rejected)
    assert told.reason.value in right
    after = engine.freeze().frame
    assert structs.replace(after, sequence=before.sequence) == before
    assert engine.state_hash()


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize(
    ("terms", "field", "right"),
    [
        (Limit(100), "price", "bad_price"),
        (Limit(100), "display", "bad_display"),
        (Limit(100), "post_only", "bad_combination"),
        (Limit(100), "all_or_none", "bad_combination"),
        (Stop(100), "trigger", "bad_price"),
        (StopLimit(100, 100), "trigger", "bad_price"),
        (StopLimit(100, 100), "price", "bad_price"),
        (StopLimit(100, 100), "display", "bad_display"),
    ],
)
def test_c7_so_are_terms_of_another_type(terms, field, right, value):
    if field in {"post_only", "all_or_none"} and value is True:
        pytest.skip("a value of the field")
    engine = Engine((AAA,))
    before = engine.freeze().frame
    (told,) = engine.apply(structs.replace(PLACE, terms=structs.replace(terms, **{field: value})))
    assert isinstance(told, Rejected)
    assert told.reason.value == right
    assert structs.replace(engine.freeze().frame, sequence=0) == before


def test_numbers_no_journal_can_hold_are_refused_without_a_crash():
    engine = Engine((AAA,))
    (told,) = engine.apply(PlaceOrder("p", "c", "AAA", Side.BUY, 10**30, Market()))
    assert told.reason.value == "bad_quantity"
    (told,) = engine.apply(PlaceOrder("p", "d", "\ud800", Side.BUY, 1, Market()))
    assert told.reason.value == "unknown_symbol"
    assert len(engine.state_hash()) == 64


class Name(str):
    """Text to Python, but nothing that a journal could hold."""

    __slots__ = ()


@pytest.mark.parametrize("value", ["\ud800", "a\nb", "x" * 65, "é", Name("s")])
def test_c7_a_session_that_no_journal_could_hold_is_refused(value):
    engine = Engine((AAA,))
    (told,) = engine.apply(structs.replace(PLACE, session=value))
    assert told.reason.value == "bad_combination"
    assert len(engine.state_hash()) == 64


@pytest.mark.parametrize(
    ("command", "right"),
    [
        (structs.replace(PLACE, account=Name("p")), "bad_client_id"),
        (structs.replace(PLACE, client_id=Name("c")), "bad_client_id"),
        (structs.replace(PLACE, symbol=Name("AAA")), "unknown_symbol"),
        (Fund(Name("k"), "p", "$cash", 1), "bad_client_id"),
        (Fund("k", Name("p"), "$cash", 1), "bad_client_id"),
        (Fund("k", "p", Name("$cash"), 1), "bad_asset"),
        (Halt("k", Name("AAA"), HaltReason.OPERATOR), "unknown_symbol"),
        (DisableAccount("k", Name("p")), "bad_client_id"),
    ],
)
def test_a_subclass_of_text_is_refused_where_it_would_be_kept(command, right):
    engine = Engine((AAA,))
    (told,) = engine.apply(command)
    assert told.reason.value == right
    assert len(engine.state_hash()) == 64


class AlmostTick(Tick, frozen=True):
    """No command, for no journal knows it."""


@pytest.mark.parametrize("given", [None, 7, "tick", Limit(100), AlmostTick("k"), Sequenced])
def test_t1_what_is_no_command_is_refused_before_anything_happens(given):
    engine = Engine((AAA,))
    engine.apply(PlaceOrder("p", "c", "AAA", Side.BUY, 1, Limit(99), TimeInForce.GTT, 5))
    before = engine.state_hash()
    for item in (given, Sequenced(2, 10, given)):
        with pytest.raises(PermanentError, match="it takes commands"):
            engine.apply(item)
    assert (engine.state_hash(), engine.sequence, engine.resting_orders) == (before, 1, 1)


@pytest.mark.parametrize("at", [2**63, 2**70, 1.5, float("inf"), "9", None])
def test_t1_so_is_an_instant_that_no_journal_holds(at):
    engine = Engine((AAA,))
    engine.apply(PlaceOrder("p", "c", "AAA", Side.BUY, 1, Limit(99), TimeInForce.GTT, 1))
    before = engine.state_hash()
    with pytest.raises((PermanentError, TypeError)):  # compiled code looks at the type itself
        engine.apply(Sequenced(2, at, Tick("k")))
    assert (engine.state_hash(), engine.sequence, engine.clock) == (before, 1, 0)


def test_a_bare_command_is_the_next_one_at_the_engines_clock():
    engine = Engine((AAA,))
    assert [type(one) for one in engine.apply(PLACE)] == [Accepted, Rested]
    assert (engine.sequence, engine.clock) == (1, 0)


def test_the_engine_tells_of_orders_and_books():
    desk = Desk()
    desk.buy(5, 100, display=2)
    desk.buy(3, 100, who="q")
    desk.sell(1, 100)
    level = desk.engine.book("AAA").bids[0]
    assert (level.price, level.quantity, level.order_ids) == (100, 4, (1, 2))
    order = desk.engine.order(1)
    assert (order.status, order.open, order.hidden, order.filled) == (OrderStatus.RESTING, 4, 3, 1)
    assert desk.engine.order(3).status is OrderStatus.FILLED
    assert desk.engine.order(4) is None
    assert desk.engine.last_price("AAA") == 100


def test_c8_an_instrument_may_allow_orders_of_a_million_million_lots():
    """Engines of coins count in hundred-millionths: one of them is an order of 100,000,000 lots."""
    coins = Instrument("AAA", 100, 50, lot_size="0.00000001", tick_size="100", max_quantity=10**12)
    desk = Desk(coins)
    assert reason(desk.sell(10**12 + 1, 100)) == "bad_quantity"
    desk.sell(10**12, 100)
    assert trades(desk.buy(123_456_789, 100)) == [(1, 100, 123_456_789)]
    assert desk.asks() == ((100, 10**12 - 123_456_789),)
    assert desk.engine.balance("p", "AAA") == 0
    assert reason(Desk().sell(1_000_001, 100)) == "bad_quantity"


def test_c10_no_iceberg_is_shown_in_more_than_ten_thousand_parts():
    desk = Desk(Instrument("AAA", 100, 50, tick_size="0.000001", max_quantity=10**12))
    assert reason(desk.sell(10_001, 100, display=1)) == "bad_display"
    assert kinds(desk.sell(10_000, 100, display=1)) == ["Accepted", "Rested"]
    assert reason(desk.replace(1, 10_001, 100)) == "bad_display"
    assert kinds(desk.replace(1, 9_999, 100)) == ["Replaced"]
    assert reason(desk.sell(10**12, 110, trigger=90, display=99_999_999)) == "bad_display"


@pytest.mark.parametrize(("display", "taken"), [(0, True), (4, True), (6, True), (20, True), (2, False), (3, False)])
@pytest.mark.parametrize("trigger", [None, 120])
def test_c10_an_iceberg_shows_at_least_the_instruments_least_display(display, taken, trigger):
    desk = Desk(Instrument("AAA", 100, 50, lot_step=2, min_quantity=2, min_display=4))
    events = desk.buy(20, 100 if trigger is None else 120, trigger=trigger, display=display)
    assert isinstance(events[0], Accepted) if taken else reason(events) == "bad_display"


def test_c10_the_last_part_and_a_replaced_iceberg_may_show_less_than_the_least_display():
    desk = Desk(Instrument("AAA", 100, 50, min_display=4))
    desk.buy(6, 100, display=4)
    desk.sell(4, 100, who="q")
    assert desk.bids() == ((100, 2),)
    desk.replace(1, 1, 100)
    assert desk.bids() == ((100, 1),)
