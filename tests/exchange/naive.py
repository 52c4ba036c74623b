# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""An exchange that does everything in the most obvious way: one list of orders, sorted anew for every question."""

from __future__ import annotations

from dataclasses import dataclass

from exchange import commands as c
from exchange import events as e
from exchange.types import MAX_PRICE_TICKS, MAX_QUANTITY_LOTS, CancelReason, RejectReason, Side, TimeInForce

NAMES = {
    c.PlaceOrder: "place",
    c.CancelOrder: "cancel",
    c.ReplaceOrder: "replace",
    c.Halt: "halt",
    c.Resume: "resume",
    c.CloseSession: "close_session",
    c.OpenSession: "open_session",
}


@dataclass
class Resting:
    order_id: int
    account: str
    symbol: str
    side: Side
    price: int
    quantity: int
    arrived: int


class NaiveEngine:
    def __init__(self, instruments):
        self.instruments = {one.symbol: one for one in instruments}
        self.orders = []
        self.ids = set()
        self.seqs = dict.fromkeys(self.instruments, 0)
        self.made = self.trades = self.clock = 0
        self.market_halted = False
        self.halted = set()
        self.open = True

    def apply(self, item):
        command = item.command
        participant = isinstance(command, c.PlaceOrder | c.CancelOrder | c.ReplaceOrder)
        account, client_id = (command.account, command.client_id) if participant else ("", command.key)
        good = all(
            1 <= len(text) <= 64 and all(" " <= letter <= "~" for letter in text)
            for text in ((account, client_id) if participant else (client_id,))
        )
        if not good:
            return (e.Rejected(account, client_id, RejectReason.BAD_CLIENT_ID),)
        if (account, client_id) in self.ids:
            return (e.Rejected(account, client_id, RejectReason.DUPLICATE_CLIENT_ID),)
        events = tuple(getattr(self, NAMES[type(command)])(command))
        self.ids.add((account, client_id))
        return events

    def number(self, symbol):
        self.seqs[symbol] += 1
        return self.seqs[symbol]

    def find(self, order_id):
        return next((order for order in self.orders if order.order_id == order_id), None)

    def standstill(self, symbol):
        if not self.open:
            return RejectReason.SESSION_CLOSED
        return RejectReason.HALTED if self.market_halted or symbol in self.halted else None

    def queue(self, symbol, side):
        own = [order for order in self.orders if order.symbol == symbol and order.side is side]
        return sorted(own, key=lambda one: (-one.price if side is Side.BUY else one.price, one.arrived))

    def figures(self, symbol, quantity, price):
        if quantity < 1 or quantity > MAX_QUANTITY_LOTS:
            return RejectReason.BAD_QUANTITY
        if price < 1 or price > MAX_PRICE_TICKS:
            return RejectReason.BAD_PRICE
        one = self.instruments[symbol]
        return RejectReason.PRICE_OUT_OF_BAND if abs(price - one.reference) > one.band else None

    def place(self, command):
        symbol, limit = command.symbol, isinstance(command.terms, c.Limit)
        other = Side.SELL if command.side is Side.BUY else Side.BUY
        reason = self.standstill(symbol)
        if reason is None and symbol not in self.instruments:
            reason = RejectReason.UNKNOWN_SYMBOL
        if reason is None and limit:
            reason = self.figures(symbol, command.quantity, command.terms.price)
        elif reason is None:
            if command.quantity < 1 or command.quantity > MAX_QUANTITY_LOTS:
                reason = RejectReason.BAD_QUANTITY
            elif not self.queue(symbol, other):
                reason = RejectReason.NO_LIQUIDITY
        if reason is not None:
            yield e.Rejected(command.account, command.client_id, reason, symbol if symbol in self.instruments else None)
            return
        self.made += 1
        order_id, price = self.made, command.terms.price if limit else None
        yield e.Accepted(
            order_id,
            command.account,
            command.client_id,
            symbol,
            self.number(symbol),
            command.side,
            command.quantity,
            price,
        )
        order = Resting(order_id, command.account, symbol, command.side, price, command.quantity, 0)
        yield from self.match(order)
        if order.quantity and limit and command.time_in_force is TimeInForce.DAY:
            yield self.rest(order)
        elif order.quantity:
            why = CancelReason.IOC_REMAINDER if limit else CancelReason.MARKET_REMAINDER
            yield e.Canceled(
                order_id,
                command.account,
                command.client_id,
                symbol,
                self.number(symbol),
                command.side,
                price,
                order.quantity,
                why,
                False,
            )

    def match(self, taker):
        buys = taker.side is Side.BUY
        while taker.quantity:
            makers = self.queue(taker.symbol, Side.SELL if buys else Side.BUY)
            if not makers:
                return
            maker = makers[0]
            if taker.price is not None and (maker.price > taker.price if buys else maker.price < taker.price):
                return
            lots = min(maker.quantity, taker.quantity)
            maker.quantity -= lots
            taker.quantity -= lots
            if not maker.quantity:
                self.orders.remove(maker)
            self.trades += 1
            buyer, seller = (taker, maker) if buys else (maker, taker)
            yield e.Traded(
                self.trades,
                taker.symbol,
                self.number(taker.symbol),
                maker.price,
                lots,
                maker.order_id,
                taker.order_id,
                taker.side,
                buyer.account,
                seller.account,
                maker.quantity,
            )

    def rest(self, order):
        self.clock += 1
        order.arrived = self.clock
        self.orders.append(order)
        return e.Rested(
            order.order_id, order.symbol, self.number(order.symbol), order.side, order.price, order.quantity
        )

    def absent(self, command, order):
        if order is not None:
            reason = RejectReason.NOT_YOUR_ORDER
        else:
            reason = RejectReason.TOO_LATE if 1 <= command.order_id <= self.made else RejectReason.UNKNOWN_ORDER
        return e.Rejected(command.account, command.client_id, reason)

    def cancel(self, command):
        order = self.find(command.order_id)
        if order is None or order.account != command.account:
            yield self.absent(command, order)
            return
        self.orders.remove(order)
        yield e.Canceled(
            order.order_id,
            order.account,
            command.client_id,
            order.symbol,
            self.number(order.symbol),
            order.side,
            order.price,
            order.quantity,
            CancelReason.REQUESTED,
            True,
        )

    def replace(self, command):
        order = self.find(command.order_id)
        symbol = None if order is None else order.symbol
        reason = self.standstill(symbol)
        if reason is None and (order is None or order.account != command.account):
            yield self.absent(command, order)
            return
        if reason is None:
            reason = self.figures(symbol, command.quantity, command.price)
        if reason is not None:
            yield e.Rejected(command.account, command.client_id, reason, symbol)
            return
        keeps = command.price == order.price and command.quantity <= order.quantity
        yield e.Replaced(
            order.order_id,
            order.account,
            command.client_id,
            symbol,
            self.number(symbol),
            order.side,
            order.price,
            order.quantity,
            command.price,
            command.quantity,
            keeps,
        )
        order.price, order.quantity = command.price, command.quantity
        if not keeps:
            self.orders.remove(order)
            yield from self.match(order)
            if order.quantity:
                yield self.rest(order)

    def halt(self, command):
        if command.symbol is None:
            self.market_halted = True
            yield e.Halted(None, 0, command.reason)
        elif command.symbol not in self.instruments:
            yield e.Rejected("", command.key, RejectReason.UNKNOWN_SYMBOL)
        else:
            self.halted.add(command.symbol)
            yield e.Halted(command.symbol, self.number(command.symbol), command.reason)

    def resume(self, command):
        if command.symbol is None:
            self.market_halted = False
            yield e.Resumed(None, 0)
        elif command.symbol not in self.instruments:
            yield e.Rejected("", command.key, RejectReason.UNKNOWN_SYMBOL)
        else:
            self.halted.discard(command.symbol)
            yield e.Resumed(command.symbol, self.number(command.symbol))

    def close_session(self, command):
        self.open = False
        for symbol in sorted(self.instruments):
            for order in self.queue(symbol, Side.BUY) + self.queue(symbol, Side.SELL):
                self.orders.remove(order)
                yield e.Expired(
                    order.order_id, order.account, symbol, self.number(symbol), order.side, order.price, order.quantity
                )
        yield e.SessionClosed()

    def open_session(self, command):
        if not self.open:
            self.open = True
            self.ids.clear()
        yield e.SessionOpened()
