# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""Orders as plain records, whom a taker meets, and the price of a cross: lists sorted anew for every question."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from fractions import Fraction

from exchange.commands import Limit, Market, Stop, StopLimit
from exchange.types import CancelReason, SelfTrade, Side, TimeInForce

KINDS = {Limit: "limit", Market: "market", Stop: "stop", StopLimit: "stop_limit"}


@dataclass
class Order:
    order_id: int
    account: str
    client_id: str
    symbol: str
    side: Side
    quantity: int
    kind: str
    price: int | None
    trigger: int | None
    display: int
    post_only: bool
    aon: bool
    lasts: TimeInForce
    expires_at: int
    self_trade: SelfTrade
    session: str
    traded: int = 0
    shown: int = 0
    place: int = 0
    """0: it is not in the book."""
    lost: int = 0
    """What left without trading."""
    why: CancelReason | None = None
    expired: bool = False
    trades: tuple[int, ...] = ()
    """Those of this day."""

    @property
    def waits(self):
        return self.kind in ("stop", "stop_limit")

    @property
    def buys(self):
        return self.side is Side.BUY

    def take(self, lots):
        """Take traded or prevented lots off; the shown part first."""
        self.quantity -= lots
        self.shown = max(0, self.shown - lots)

    def show(self):
        """Show what it shows when it comes into the book."""
        self.shown = 0 if self.aon or self.kind == "market" else min(self.display or self.quantity, self.quantity)

    @property
    def fate(self):
        """How it ended (E8): status, what traded, what left, why, then what is known of it besides."""
        status = "filled" if not self.lost else "expired" if self.expired else "canceled"
        why = None if self.expired else self.why
        # The band may have cut an all-or-none that was then filled: no event tells its price.
        price = None if self.aon and not self.lost else self.price
        name = self.client_id, self.account, self.symbol, self.side, price
        return status, self.traded, self.lost, why, *name, self.trades

    @property
    def hollow(self):
        """Whether an iceberg's shown part is gone."""
        return self.display > 0 and self.shown == 0 and self.quantity > 0


def order_of(command, order_id):
    terms = command.terms
    return Order(
        order_id,
        command.account,
        command.client_id,
        command.symbol,
        command.side,
        command.quantity,
        KINDS.get(type(terms), "unknown"),
        getattr(terms, "price", None),
        getattr(terms, "trigger", None),
        getattr(terms, "display", 0),
        getattr(terms, "post_only", False),
        getattr(terms, "all_or_none", False),
        command.time_in_force,
        command.expires_at,
        command.self_trade,
        command.session,
    )


def in_line(orders):
    """One side's orders, market orders first, best price first, oldest first."""
    return sorted(
        orders,
        key=lambda one: (one.price is not None, (-one.price if one.buys else one.price) if one.price else 0, one.place),
    )


def beyond(taker, price, limit):
    return limit is not None and (price > limit if taker.buys else price < limit)


def next_maker(taker, left, pool, limit):
    for maker in in_line(pool):
        if beyond(taker, maker.price, limit):
            return None
        if maker.aon and maker.quantity > left:
            continue
        if taker.aon and kept_apart(taker, maker):
            continue
        return maker
    return None


def kept_apart(taker, maker):
    return taker.account == maker.account and taker.self_trade is not SelfTrade.NONE


def meet(taker, makers, limit):
    """What would happen: steps of (what, maker's id, lots), what is left, and whether prevention ended it."""
    pool = [copy(maker) for maker in makers]
    last = max((maker.place for maker in pool), default=0)
    left, steps = taker.quantity, []
    while left > 0:
        maker = next_maker(taker, left, pool, limit)
        if maker is None:
            break
        lots = min(left, maker.quantity if maker.aon else maker.shown)
        what = taker.self_trade if kept_apart(taker, maker) else "trade"
        steps.append((what, maker.order_id, lots))
        if what in (SelfTrade.CANCEL_NEWEST, SelfTrade.CANCEL_BOTH):
            return steps, left, True
        if what is SelfTrade.CANCEL_OLDEST:
            pool.remove(maker)
            continue
        left -= lots
        maker.take(lots)
        if maker.quantity == 0:
            pool.remove(maker)
        elif maker.hollow:
            maker.show()
            last += 1
            maker.place = last
    return steps, left, False


def fills_whole(taker, makers, limit, most):
    """Whether all of it trades, with at most so many met (L2)."""
    steps, _, _ = meet(taker, makers, limit)
    return len(steps) <= most and sum(lots for what, _, lots in steps if what == "trade") == taker.quantity


def cross_price(orders, reference, limits_only):
    """Price, volume and surplus of the cross of these orders; None without volume."""

    def sides(price):
        buy = sum(one.quantity for one in orders if one.buys and (one.price is None or one.price >= price))
        sell = sum(one.quantity for one in orders if not one.buys and (one.price is None or one.price <= price))
        return buy, sell

    limits = {one.price for one in orders if one.price is not None}
    prices = sorted(limits) if limits_only and limits else sorted(limits | {reference})
    most = max(min(sides(price)) for price in prices)
    if most == 0:
        return None
    prices = [price for price in prices if min(sides(price)) == most]
    least = min(abs(sides(price)[0] - sides(price)[1]) for price in prices)
    prices = [price for price in prices if abs(sides(price)[0] - sides(price)[1]) == least]
    tied = limits.intersection(prices)
    if tied and not min(tied) <= reference <= max(tied):
        prices = sorted(tied)
    surplus = [sides(price)[0] - sides(price)[1] for price in prices]
    if all(one > 0 for one in surplus):
        price = max(prices)
    elif all(one < 0 for one in surplus):
        price = min(prices)
    else:
        price = min(prices, key=lambda one: (abs(one - reference), -one))
    return price, most, sides(price)[0] - sides(price)[1]


def fee_of(notional, ppm):
    """Rounded half away from zero to a millionth."""
    exact = Fraction(notional * ppm, 1_000_000)
    size = int(abs(exact) + Fraction(1, 2))
    return size if exact >= 0 else -size


def hold_of(order, instrument, money):
    """What a live order holds: asset and amount (M4)."""
    if not order.buys:
        return order.symbol, order.quantity
    price = order.price if order.price is not None else instrument.reference + instrument.band
    notional = price * order.quantity * money
    rate = max(0, instrument.maker_fee_ppm, instrument.taker_fee_ppm, instrument.auction_fee_ppm)
    return "$cash", notional + -(-notional * rate // 1_000_000)
