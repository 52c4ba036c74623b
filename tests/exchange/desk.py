# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""An engine with a desk in front of it: short words for requests, and for what the answers say."""

from __future__ import annotations

from exchange.commands import (
    CancelOrder,
    CloseSession,
    DisableAccount,
    EnableAccount,
    Fund,
    Halt,
    Limit,
    Market,
    MassCancel,
    OpenSession,
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
from exchange.events import Canceled, Crossed, Expired, Happened, Rejected, Traded
from exchange.market_data import Follower, MarketData
from exchange.types import HaltReason, Instrument, SelfTrade, Side, TimeInForce, Venue
from kernel.time import SECOND

AAA = Instrument("AAA", 100, 50)


class Desk:
    """Numbers commands, makes client ids, lets time pass, and holds the feed against the book after each command."""

    def __init__(self, *instruments, venue=None):
        self.engine = Engine(instruments or (AAA,), venue or Venue())
        self.data, self.follower = MarketData(self.engine.instruments), Follower()
        for symbol in self.engine.instruments:
            self.follower.take(self.data.snapshot(symbol))
        self.ids, self.at = 0, 0

    def wait(self, seconds):
        self.at += round(seconds * SECOND)
        return self

    def give(self, command):
        item = Sequenced(self.engine.sequence + 1, self.at, command)
        events = self.engine.apply(item)
        for message in self.data.fold(Happened(item.seq, item.at, events)):
            assert self.follower.take(message) == (), message
        for symbol in self.engine.instruments:
            book, depth = self.follower.book(symbol), self.engine.depth(symbol, 1000)
            assert (book.bids.depth(), book.asks.depth()) == depth == self.data.depth(symbol, 1000)
            assert book.seq == self.engine.symbol_seq(symbol)
        return events

    def key(self):
        self.ids += 1
        return f"id-{self.ids}"

    def buy(self, quantity, price=None, **more):
        return self.order(Side.BUY, quantity, price, **more)

    def sell(self, quantity, price=None, **more):
        return self.order(Side.SELL, quantity, price, **more)

    def order(  # noqa: PLR0917 - every field of an order
        self,
        side,
        quantity,
        price,
        who="p",
        lasts=TimeInForce.DAY,
        symbol="AAA",
        trigger=None,
        expires_at=0,
        self_trade=SelfTrade.NONE,
        session="",
        **flags,
    ):
        if trigger is not None:
            terms = Stop(trigger) if price is None else StopLimit(trigger, price, **flags)
        else:
            terms = Market() if price is None else Limit(price, **flags)
        return self.give(
            PlaceOrder(who, self.key(), symbol, side, quantity, terms, lasts, expires_at, self_trade, session)
        )

    def cancel(self, order_id, who="p"):
        return self.give(CancelOrder(who, self.key(), order_id))

    def replace(self, order_id, quantity, price, who="p", trigger=None):
        return self.give(ReplaceOrder(who, self.key(), order_id, quantity, price, trigger))

    def mass_cancel(self, who="p", **which):
        return self.give(MassCancel(who, self.key(), **which))

    def turn(self, phase, symbol=None):
        return self.give(SetPhase(self.key(), phase, symbol))

    def halt(self, symbol="AAA"):
        return self.give(Halt(self.key(), symbol, HaltReason.OPERATOR))

    def resume(self, symbol="AAA", *, auction=False):
        return self.give(Resume(self.key(), symbol, auction))

    def fund(self, who, asset, amount):
        return self.give(Fund(self.key(), who, asset, amount))

    def disable(self, who):
        return self.give(DisableAccount(self.key(), who))

    def enable(self, who):
        return self.give(EnableAccount(self.key(), who))

    def tick(self):
        return self.give(Tick(self.key()))

    def close(self):
        return self.give(CloseSession(self.key()))

    def open(self):
        return self.give(OpenSession(self.key()))

    def bids(self, symbol="AAA"):
        return self.engine.depth(symbol, 100).bids

    def asks(self, symbol="AAA"):
        return self.engine.depth(symbol, 100).asks


def kinds(events):
    return [type(one).__name__ for one in events]


def trades(events):
    """Maker, price and quantity of each trade."""
    return [(one.maker_order_id, one.price, one.quantity) for one in events if isinstance(one, Traded)]


def cancels(events):
    """Order, quantity and reason of each cancel."""
    return [(one.order_id, one.quantity, one.reason.value) for one in events if isinstance(one, Canceled)]


def expired(events):
    return [one.order_id for one in events if isinstance(one, Expired)]


def crossed(events):
    return [(one.price, one.quantity, one.surplus) for one in events if isinstance(one, Crossed)]


def reason(events):
    assert isinstance(events[-1], Rejected), events
    return events[-1].reason.value
