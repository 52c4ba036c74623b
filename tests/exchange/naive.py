# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
# Literals stand for NewTypes here: a test reads best as the values themselves.
"""An exchange that does everything in the most obvious way: one list of orders, sorted anew for every question.

It is written from `docs/exchange-rules.md` and knows nothing of the engine; comments name the rules.
"""

from __future__ import annotations

from copy import copy

from exchange import commands as c
from exchange import events as e
from exchange.types import (
    CancelReason,
    HaltReason,
    MarketRemainder,
    RejectReason,
    SelfTrade,
    Side,
    StopReached,
    TimeInForce,
    TradingPhase,
)
from tests.exchange.naive_orders import fills_whole, hold_of, in_line, meet, order_of
from tests.exchange.naive_rules import (
    SECOND,
    c3_to_c5,
    good_text,
    keeps_place,
    open_quantity,
    refused,
    refused_place,
    whole,
)
from tests.exchange.naive_state import GATHERING, NaiveState

NAMES = {
    c.PlaceOrder: "place",
    c.CancelOrder: "cancel",
    c.ReplaceOrder: "replace",
    c.MassCancel: "mass_cancel",
    c.Halt: "halt",
    c.Resume: "resume",
    c.SetPhase: "set_phase",
    c.CloseSession: "close_session",
    c.OpenSession: "open_session",
    c.Fund: "fund",
    c.DisableAccount: "disable_account",
    c.EnableAccount: "enable_account",
    c.Tick: "tick",
}
PARTICIPANT = c.PlaceOrder | c.CancelOrder | c.ReplaceOrder | c.MassCancel


class NaiveEngine(NaiveState):
    def apply(self, item):
        assert item.seq == self.seq + 1
        self.seq, self.told, self.met = item.seq, [], 0
        self.ended_now, self.day_begun = [], False
        self.until = until = max(self.now, item.at)
        while (due := min(self.dues(), default=None)) is not None and due[0] <= until:
            self.now = due[0]
            self.happen(*due)
            self.look()
        self.now, self.met = until, 0
        self.ask(item.command)
        self.look()
        return tuple(self.told)

    def ask(self, command):
        participant = isinstance(command, PARTICIPANT)
        account, client_id = (command.account, command.client_id) if participant else ("", command.key)
        texts = [client_id]
        if participant or isinstance(command, c.Fund | c.DisableAccount | c.EnableAccount):
            texts.append(command.account)
        if not all(good_text(text) for text in texts) or (participant and account.startswith("$")):
            self.reject(account, client_id, RejectReason.BAD_CLIENT_ID)
        elif (account, client_id) in self.ids:
            self.reject(account, client_id, RejectReason.DUPLICATE_CLIENT_ID)
        else:
            self.ids.add((account, client_id))
            getattr(self, NAMES[type(command)])(command)
            self.ids.add((account, client_id))

    def reject(self, account, client_id, reason, symbol=None):
        self.tell(e.Rejected(account, client_id, reason, symbol if symbol in self.instruments else None))

    # Orders

    def place(self, command):
        order = order_of(command, 0)
        reason = refused_place(self, order)
        if reason is None and self.venue.stop_reached is StopReached.REJECT and self.reached(order):
            reason = RejectReason.STOP_REACHED
        if reason is not None:
            self.reject(command.account, command.client_id, reason, command.symbol)
            return
        self.made += 1
        order.order_id = self.made
        self.sent.append((order.account, self.now))
        self.orders.append(order)
        self.tell_of(e.Accepted, order, order.quantity, order.price)
        if not order.waits:
            self.carry_out(order)
        self.stops(order.symbol)

    def absent(self, command, order):
        if order is not None:
            return RejectReason.NOT_YOUR_ORDER
        known = whole(command.order_id) and 1 <= command.order_id <= self.made
        return RejectReason.TOO_LATE if known else RejectReason.UNKNOWN_ORDER

    def cancel(self, command):
        order = self.find(command.order_id)
        if order is None or order.account != command.account:
            self.reject(command.account, command.client_id, self.absent(command, order))
            return
        self.cancel_rest(order, command.client_id, CancelReason.REQUESTED)

    def replace(self, command):
        order = self.find(command.order_id)
        symbol = None if order is None else order.symbol
        reason = c3_to_c5(self, command.account, order, symbol)
        if reason is not None:
            self.reject(command.account, command.client_id, reason, symbol)
            return
        if order is None or order.account != command.account:
            self.reject(command.account, command.client_id, self.absent(command, order))
            return
        would_be = copy(order)
        would_be.quantity, nothing = open_quantity(self, command, order)
        if order.kind in ("limit", "stop_limit"):
            would_be.price = command.price
        if order.waits and command.trigger is not None:
            would_be.trigger = command.trigger
        reason = RejectReason.TOO_LATE if nothing else refused(self, would_be, instead_of=order)
        if reason is not None:
            self.reject(command.account, command.client_id, reason, symbol)
            return
        self.sent.append((order.account, self.now))
        self.replaced(order, would_be, command.client_id)
        self.stops(symbol)

    def replaced(self, order, would_be, client_id):
        keeps = keeps_place(would_be, order)
        self.tell(
            e.Replaced(
                order.order_id,
                order.account,
                client_id,
                order.symbol,
                self.number(order.symbol),
                order.side,
                self.told_price(order),
                order.quantity,
                self.told_price(would_be),
                would_be.quantity,
                keeps,
                order.quantity - order.shown,
                max(0, would_be.quantity - order.shown) if keeps else 0,
            )
        )
        order.client_id = client_id
        order.quantity, order.price, order.trigger = would_be.quantity, would_be.price, would_be.trigger
        if not keeps:
            order.place = order.shown = 0
            self.carry_out(order)
        elif not order.waits:
            order.shown = min(order.shown, order.quantity)
            if order.aon and self.state(order.symbol) == "continuous":
                self.all_or_nones(order.symbol, order.side)

    def mass_cancel(self, command):
        if not isinstance(command.side, Side | None) or not isinstance(command.session, str | None):
            self.reject(command.account, command.client_id, RejectReason.BAD_COMBINATION)
            return
        gone = [
            order
            for order in sorted(self.orders, key=lambda one: one.order_id)
            if order.account == command.account
            and command.symbol in (None, order.symbol)
            and command.side in (None, order.side)
            and command.session in (None, order.session)
        ]
        for order in gone:
            self.cancel_rest(order, command.client_id, CancelReason.MASS_CANCEL)
        self.tell(e.MassCanceled(command.account, command.client_id, len(gone)))

    # Matching

    def carry_out(self, order):
        """F1 to F14 for an order that is in no book: match, then rest or leave; then the all-or-nones beside it."""
        if self.state(order.symbol) != "continuous":
            self.rest(order)
            return
        limit, makers = self.reach(order), self.opposite(order)
        steps, _left, prevented = meet(order, makers, limit)
        if (order.aon or order.lasts is TimeInForce.FOK) and not fills_whole(order, makers, limit, self.most):
            if order.lasts is TimeInForce.FOK:
                self.cancel_rest(order, order.client_id, CancelReason.FOK_UNFILLED)
            else:
                self.rest(order)
            return
        self.execute(order, steps[: self.most])
        if order.quantity == 0:
            self.drop(order)
        elif len(steps) > self.most:
            self.cancel_rest(order, order.client_id, CancelReason.TRADE_LIMIT)
        elif prevented:
            self.cancel_rest(order, order.client_id, CancelReason.SELF_TRADE)
        elif order.kind == "market" and not self.becomes_limit(order):
            self.cancel_rest(order, order.client_id, CancelReason.MARKET_REMAINDER)
        elif order.lasts is TimeInForce.IOC:
            self.cancel_rest(order, order.client_id, CancelReason.IOC_REMAINDER)
        else:
            self.rest(order)

    def becomes_limit(self, order):
        """F3 with `market_remainder = rest`: at the price of its last trade."""
        if self.venue.market_remainder is MarketRemainder.CANCEL or order.lasts is TimeInForce.IOC or not order.traded:
            return False
        order.kind, order.price = "limit", self.last[order.symbol]
        return True

    def execute(self, taker, steps):
        for what, maker_id, lots in steps:
            maker = self.find(maker_id)
            self.met += 1
            if what == "trade":
                self.trade(maker, taker, maker.price, lots)
            elif what in (SelfTrade.CANCEL_OLDEST, SelfTrade.CANCEL_BOTH):
                self.cancel_rest(maker, taker.client_id, CancelReason.SELF_TRADE)
            elif what is SelfTrade.DECREMENT:
                maker.take(lots)
                taker.take(lots)
                self.tell_canceled(maker, taker.client_id, lots, CancelReason.SELF_TRADE, maker.quantity)
                self.tell_canceled(taker, taker.client_id, lots, CancelReason.SELF_TRADE, taker.quantity)
            if maker.quantity == 0:
                self.drop(maker)
            elif maker.hollow:
                maker.place = self.next_place()
                self.replenish(maker)

    def rest(self, order):
        limit = self.reach(order)
        if self.state(order.symbol) == "continuous" and order.price is not None:
            order.price = limit
        order.place = self.next_place()
        order.show()
        if order.aon or order.kind == "market":
            return
        self.tell(
            e.Rested(order.order_id, order.symbol, self.number(order.symbol), order.side, order.price, order.shown)
        )
        if self.state(order.symbol) == "continuous":
            self.all_or_nones(order.symbol, Side.SELL if order.buys else Side.BUY)

    def all_or_nones(self, symbol, side):
        """F14: again from the first until none can."""
        while True:
            for order in in_line(one for one in self.book(symbol, side) if one.aon):
                makers = [one for one in self.opposite(order) if not one.aon]
                if fills_whole(order, makers, self.reach(order), self.most):
                    if self.put_off(symbol):
                        return
                    self.execute(order, meet(order, makers, self.reach(order))[0])
                    self.drop(order)
                    break
            else:
                return

    def put_off(self, symbol):
        """L3: whether so much was met in this command that nothing further begins; it goes on right after it."""
        if self.met < self.most:
            return False
        self.continues.setdefault(symbol, self.until + 1)
        return True

    def reached(self, order):
        last = self.last.get(order.symbol)
        if last is None or not order.waits:
            return False
        return last >= order.trigger if order.buys else last <= order.trigger

    def stops(self, symbol):
        """F5: one triggers and is carried out whole, then all are looked at again."""
        while self.state(symbol) == "continuous":
            reached = [one for one in self.orders if one.symbol == symbol and self.reached(one)]
            if not reached or self.put_off(symbol):
                return
            reached.sort(key=lambda one: (not one.buys, one.trigger if one.buys else -one.trigger, one.order_id))
            order = reached[0]
            self.tell(e.Triggered(order.order_id, symbol, self.number(symbol)))
            order.kind = "market" if order.kind == "stop" else "limit"
            self.carry_out(order)

    # Crosses

    def cross(self, symbol):
        self.gathered[symbol] = False
        orders = [one for side in Side for one in in_line(self.book(symbol, side)) if not one.aon]
        found = self.cross_found(symbol, orders)
        if found is not None:
            price, volume, surplus = found
            place, number = len(self.told), self.number(symbol)
            before = {one.order_id: one.quantity for one in orders}
            self.trade_at(price, volume, orders)
            touched = {(one.side, one.price) for one in orders if one.quantity < before[one.order_id]}
            bids, asks = (self.levels_after(orders, side, touched) for side in Side)
            self.told.insert(place, e.Crossed(symbol, number, price, volume, surplus, bids, asks))
        for order in orders:
            if order.quantity == 0:
                self.drop(order)
            elif order.kind == "market":
                self.cancel_rest(order, order.client_id, CancelReason.MARKET_REMAINDER)
        for order in orders:
            if order.hollow:
                self.replenish(order)
        return None if found is None else found[0]

    def levels_after(self, orders, side, touched):
        """The prices of a side at which something traded, best first, and what they show then."""
        prices = sorted({price for which, price in touched if which is side and price is not None})
        return tuple(
            (price, sum(one.shown for one in orders if one.side is side and one.price == price))
            for price in (reversed(prices) if side is Side.BUY else prices)
        )

    def trade_at(self, price, volume, orders):
        while volume:
            buy = next(one for one in orders if one.buys and one.quantity)
            sell = next(one for one in orders if not one.buys and one.quantity)
            lots = min(buy.quantity, sell.quantity, volume)
            maker, taker = sorted((buy, sell), key=lambda one: one.order_id)
            self.trade(maker, taker, price, lots, auction=True)
            self.met += 1
            taker.shown = min(taker.shown, taker.quantity)
            volume -= lots

    def replenish(self, order):
        order.show()
        self.tell(
            e.Replenished(order.order_id, order.symbol, self.number(order.symbol), order.side, order.price, order.shown)
        )

    # Phases

    def turn(self, symbols, change, announce, reopens=None):
        """Change phases, halts or pauses; cross what gathered, expire what closes, then look at stops."""
        before = {symbol: (self.state(symbol), self.phase[symbol]) for symbol in symbols}
        change()
        for symbol in symbols:
            self.gathered[symbol] = self.gathered[symbol] or before[symbol][0] == "gather"
            if self.crosses(symbol, *before[symbol]):
                price = self.cross(symbol)
                if price is not None and symbol == reopens:
                    self.reopened(symbol, price)
        self.expire_day([symbol for symbol in symbols if self.phase[symbol] is TradingPhase.CLOSED])
        announce()
        for symbol in symbols:
            if before[symbol][0] != "continuous" and self.state(symbol) == "continuous":
                self.all_or_nones(symbol, Side.BUY)
                self.all_or_nones(symbol, Side.SELL)
                self.stops(symbol)

    def crosses(self, symbol, state, phase):
        """Whether what was gathered is crossed, now that `state` and `phase` are left (P4, P5)."""
        now = self.state(symbol)
        stands = self.market_halted or symbol in self.halted or self.paused_now(symbol)
        if stands or not self.gathered[symbol]:
            return False
        if now == "continuous" or state != "gather":
            return now == "continuous"
        auction = phase in GATHERING and phase is not TradingPhase.PRE_OPEN
        return now != "gather" or (auction and phase is not self.phase[symbol])

    def expire_day(self, symbols):
        for symbol in symbols:
            for side in (Side.BUY, Side.SELL):
                for order in in_line(self.book(symbol, side)):
                    self.expire_if_day(order)
        for order in [one for one in self.orders if one.waits and one.symbol in symbols]:
            self.expire_if_day(order)

    def expire_if_day(self, order):
        if order.lasts not in (TimeInForce.GTC, TimeInForce.GTT):
            self.expire(order)

    def set_market(self, phase):
        if self.market_phase is TradingPhase.CLOSED and phase is not TradingPhase.CLOSED:
            self.levels_used = set()
        self.market_phase = phase
        self.phase = dict.fromkeys(self.phase, phase)
        self.reopening = {}

    def set_phase(self, command):
        symbol, phase = command.symbol, command.phase
        if self.wrong(command, symbol, isinstance(phase, TradingPhase)):
            return
        if symbol is None:
            self.turn(
                self.symbols,
                lambda: self.set_market(phase),
                lambda: self.tell(e.PhaseChanged(None, 0, phase)),
            )
        else:
            self.turn([symbol], lambda: self.set_symbol(symbol, phase), lambda: self.tell_phase(symbol))

    def tell_phase(self, symbol):
        self.tell(e.PhaseChanged(symbol, self.number(symbol), self.phase[symbol]))

    def close_session(self, command):
        self.turn(self.symbols, lambda: self.set_market(TradingPhase.CLOSED), lambda: self.tell(e.SessionClosed()))

    def open_session(self, command):
        opened = command.phase
        if self.wrong(command, None, isinstance(opened, TradingPhase) and opened is not TradingPhase.CLOSED):
            return
        if self.market_phase is TradingPhase.CLOSED:
            self.forget_the_day()
        self.turn(self.symbols, lambda: self.set_market(opened), lambda: self.tell(e.SessionOpened(opened)))

    def halt(self, command):
        symbol = command.symbol
        if self.wrong(command, symbol, isinstance(command.reason, HaltReason)):
            return
        if symbol is None:
            self.turn(self.symbols, self.halt_market, lambda: self.tell(e.Halted(None, 0, command.reason)))
        else:
            self.turn(
                [symbol],
                lambda: self.halt_symbol(symbol),
                lambda: self.tell(e.Halted(symbol, self.number(symbol), command.reason)),
            )

    def resume(self, command):
        """P9: an auction first, where that is wanted, something was halted, and the market trades."""
        symbol = command.symbol
        if self.wrong(command, symbol, isinstance(command.auction, bool)):
            return
        auctions = []
        if command.auction and self.market_phase is TradingPhase.CONTINUOUS:
            if symbol is None and self.market_halted:
                auctions = [one for one in self.symbols if one not in self.halted]
            elif symbol in self.halted:
                auctions = [symbol]

        def announce():
            self.tell(e.Resumed(symbol, 0 if symbol is None else self.number(symbol)))
            for one in auctions:
                self.tell_phase(one)

        if symbol is None:
            self.turn(self.symbols, lambda: self.resume_market(auctions), announce)
        else:
            self.turn([symbol], lambda: self.resume_symbol(symbol, bool(auctions)), announce)

    def wrong(self, command, symbol, members):
        """Whether an admin command names no symbol, or no member of a set; it is then refused."""
        if symbol is not None and symbol not in self.instruments:
            self.reject("", command.key, RejectReason.UNKNOWN_SYMBOL)
        elif not members:
            self.reject("", command.key, RejectReason.BAD_COMBINATION)
        else:
            return False
        return True

    # What comes due (T2), and what is looked at after each command

    def happen(self, at, kind, what):
        if kind == 0:
            self.expire(self.find(what))
        elif kind == 1:
            until = at + self.venue.pause_seconds * SECOND

            def pause():
                del self.limit_since[what]
                self.paused[what] = until

            self.turn([what], pause, lambda: self.tell(e.Paused(what, self.number(what), until)))
        elif kind == 2:
            reopens = what if what in self.paused else None
            self.turn([what], lambda: self.end_pause(what), lambda: self.tell_phase(what), reopens)
        elif kind == 4:
            del self.continues[what]
            if self.state(what) == "continuous":
                self.all_or_nones(what, Side.BUY)
                self.all_or_nones(what, Side.SELL)
                self.stops(what)
        else:
            self.turn(
                self.symbols,
                self.end_market_pause,
                lambda: self.tell(e.PhaseChanged(None, 0, self.market_phase)),
            )

    def look(self):
        """B2, B6 (again when closing by a breaker crossed what had gathered), then B4."""
        while self.traded:
            traded, self.traded = sorted(self.traded), set()
            for symbol in traded:
                self.move_reference(symbol)
            self.breakers()
        for symbol in self.symbols:
            self.limit_state(symbol)

    def limit_state(self, symbol):
        band = self.band(symbol)
        if band is None:
            return
        lower, upper = band
        bids = [one.price for one in self.book(symbol, Side.BUY) if not one.aon and one.price is not None]
        asks = [one.price for one in self.book(symbol, Side.SELL) if not one.aon and one.price is not None]
        at_limit = self.state(symbol) == "continuous" and (
            any(price >= upper for price in bids) or any(price <= lower for price in asks)
        )
        if at_limit != (symbol in self.limit_since):
            if at_limit:
                self.limit_since[symbol] = self.now
            else:
                del self.limit_since[symbol]
            self.tell(e.LimitState(symbol, self.number(symbol), at_limit, lower, upper))

    def breakers(self):
        if not self.venue.breakers or self.state(None) != "continuous":
            return
        before = sum(one.reference for one in self.instruments.values())
        now = sum(self.last.get(symbol, one.reference) for symbol, one in self.instruments.items())
        fallen = [level for level, share in ((1, 7), (2, 13), (3, 20)) if (before - now) * 100 >= before * share]
        if not fallen or (fallen[-1] in self.levels_used and fallen[-1] < 3):
            return
        level = fallen[-1]
        self.levels_used |= set(fallen)
        self.tell(e.Breaker(level))
        if level == 3:
            self.close_session(None)
            return
        until = self.now + self.venue.breaker_seconds * SECOND
        self.turn(
            self.symbols,
            lambda: setattr(self, "market_paused", until),
            lambda: self.tell(e.Paused(None, 0, until)),
        )

    # Accounts

    def fund(self, command):
        asset, amount = command.asset, command.amount
        if asset != "$cash" and asset not in self.instruments:
            self.reject("", command.key, RejectReason.BAD_ASSET)
        elif not whole(amount) or not 0 < abs(amount) <= 10**18:
            self.reject("", command.key, RejectReason.BAD_QUANTITY)
        elif amount < 0 and self.free(command.account, asset) + amount < 0:
            cash = asset == "$cash"
            reason = RejectReason.INSUFFICIENT_FUNDS if cash else RejectReason.INSUFFICIENT_POSITION
            self.reject("", command.key, reason)
        else:
            self.add(command.account, asset, amount)
            self.tell(e.Funded(command.account, asset, amount))

    def free(self, account, asset):
        held = 0
        if self.venue.holds:
            for order in self.orders:
                what, amount = hold_of(order, self.instruments[order.symbol], self.money[order.symbol])
                held += amount if (order.account, what) == (account, asset) else 0
        return self.balances.get((account, asset), 0) - held

    def disable_account(self, command):
        gone = sorted((one for one in self.orders if one.account == command.account), key=lambda one: one.order_id)
        for order in gone:
            self.cancel_rest(order, command.key, CancelReason.KILL_SWITCH)
        self.disabled.add(command.account)
        self.tell(e.MassCanceled(command.account, command.key, len(gone)))
        self.tell(e.AccountDisabled(command.account))

    def enable_account(self, command):
        self.disabled.discard(command.account)
        self.tell(e.AccountEnabled(command.account))

    def tick(self, command):
        self.tell(e.Ticked())
