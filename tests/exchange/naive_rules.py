# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""The checks of `docs/exchange-rules.md`, C3 to C16, one function each, in the order of the table."""

from __future__ import annotations

from exchange.commands import ReplaceOrder
from exchange.types import (
    MAX_PRICE_TICKS,
    RejectReason,
    ReplaceQuantity,
    SelfTrade,
    Side,
    TimeInForce,
)
from tests.exchange.naive_orders import hold_of, meet

AT_ONCE = (TimeInForce.IOC, TimeInForce.FOK)
SECOND = 1_000_000_000


def whole(value):
    return type(value) is int


def good_text(value):
    return isinstance(value, str) and 1 <= len(value) <= 64 and all(" " <= letter <= "~" for letter in value)


def c3_to_c5(engine, account, order, symbol):
    """`order` as it is or would be, None when it does not live; `symbol` None: the market."""
    if account in engine.disabled:
        return RejectReason.ACCOUNT_DISABLED
    limit = engine.venue.orders_per_second
    if limit and sum(1 for who, at in engine.sent if who == account and engine.now - SECOND < at) >= limit:
        return RejectReason.RATE_LIMITED
    at_once = order is not None and order.lasts in AT_ONCE and not order.waits
    at_auction_refused = order is not None and (at_once or order.post_only or order.aon)
    return {
        "closed": RejectReason.SESSION_CLOSED,
        "halted": RejectReason.HALTED,
        "post_close": RejectReason.WRONG_PHASE,
        "gather": RejectReason.WRONG_PHASE if at_auction_refused else None,
        "continuous": None,
    }[engine.state(symbol)]


def c7_combination(order):
    right = (
        order.kind != "unknown"
        and isinstance(order.side, Side)
        and isinstance(order.lasts, TimeInForce)
        and isinstance(order.self_trade, SelfTrade)
        and isinstance(order.post_only, bool)
        and isinstance(order.aon, bool)
        and whole(order.expires_at)
        and (order.session == "" or good_text(order.session))
    )
    if not right:
        return RejectReason.BAD_COMBINATION
    wrong = (
        (order.lasts in AT_ONCE and (order.post_only or order.display or order.aon))
        or (order.lasts is TimeInForce.GTT) != (order.expires_at != 0)
        or (order.kind == "market" and order.lasts in (TimeInForce.GTC, TimeInForce.GTT))
        or (order.aon and (order.display or order.post_only))
    )
    return RejectReason.BAD_COMBINATION if wrong else None


def c8_quantity(order, instrument):
    lots = order.quantity
    good = (
        whole(lots) and instrument.min_quantity <= lots <= instrument.max_quantity and lots % instrument.lot_step == 0
    )
    return None if good else RejectReason.BAD_QUANTITY


def prices_of(order):
    """The prices that the kind of order has; `order_of` leaves None where it has none."""
    prices = []
    if order.kind in ("limit", "stop_limit"):
        prices.append(order.price)
    if order.waits:
        prices.append(order.trigger)
    return prices


def c9_to_c12(order, instrument, money, new):
    for price in prices_of(order):
        if not whole(price) or not 1 <= price <= MAX_PRICE_TICKS or price % instrument.tick_step:
            return RejectReason.BAD_PRICE
    display = order.display
    if new and (not whole(display) or not 0 <= display <= order.quantity or display % instrument.lot_step):
        return RejectReason.BAD_DISPLAY
    if display and (order.quantity > 10_000 * display or (new and display < instrument.min_display)):
        return RejectReason.BAD_DISPLAY
    if any(abs(price - instrument.reference) > instrument.band for price in prices_of(order)):
        return RejectReason.PRICE_OUT_OF_BAND
    if order.kind in ("limit", "stop_limit"):
        notional = order.price * order.quantity * money
        if notional < instrument.min_notional or 0 < instrument.max_notional < notional:
            return RejectReason.BAD_NOTIONAL
    return None


def c14_holds(engine, order, instead_of):
    if not engine.venue.holds:
        return None
    asset, amount = hold_of(order, engine.instruments[order.symbol], engine.money[order.symbol])
    free = engine.free(order.account, asset)
    if instead_of is not None:
        free += hold_of(instead_of, engine.instruments[order.symbol], engine.money[order.symbol])[1]
    if amount <= free:
        return None
    return RejectReason.INSUFFICIENT_FUNDS if order.buys else RejectReason.INSUFFICIENT_POSITION


def c15_c16(engine, order, instead_of):
    if engine.state(order.symbol) != "continuous" or (instead_of is not None and keeps_place(order, instead_of)):
        return None
    others = engine.opposite(order)
    if order.kind == "market" and not any(not one.aon or one.quantity <= order.quantity for one in others):
        return RejectReason.NO_LIQUIDITY
    if order.kind == "limit" and order.post_only and meet(order, others, engine.reach(order))[0]:
        return RejectReason.POST_ONLY_WOULD_TRADE
    return None


def keeps_place(order, instead_of):
    """F15, F16: a waiting stop does, and what is not larger at the same price."""
    return order.waits or (order.price == instead_of.price and order.quantity <= instead_of.quantity)


def refused(engine, order, instead_of=None):
    """C8 to C16 for an order as it would be."""
    instrument, money = engine.instruments[order.symbol], engine.money[order.symbol]
    reason = c8_quantity(order, instrument) or c9_to_c12(order, instrument, money, instead_of is None)
    if reason is None and order.lasts is TimeInForce.GTT and order.expires_at <= engine.now:
        reason = RejectReason.BAD_EXPIRY
    return reason or c14_holds(engine, order, instead_of) or c15_c16(engine, order, instead_of)


def refused_place(engine, order):
    known = order.symbol in engine.instruments
    reason = c3_to_c5(engine, order.account, order, order.symbol if known else None)
    if reason is None and not known:
        reason = RejectReason.UNKNOWN_SYMBOL
    return reason or c7_combination(order) or refused(engine, order)


def open_quantity(engine, command: ReplaceOrder, order):
    """What would be left to trade, and whether that is nothing (F15)."""
    lots = command.quantity
    if engine.venue.replace_quantity is ReplaceQuantity.TOTAL and whole(lots) and lots >= 1:
        return lots - order.traded, lots <= order.traded
    return lots, False
