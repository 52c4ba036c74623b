# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""What the naive exchange knows, how it answers questions, and how it writes down a trade or a departure."""

from __future__ import annotations

from decimal import Decimal

from exchange import events as e
from exchange.types import CancelReason, CrossPrices, Side, TimeInForce, TradingPhase, Venue
from tests.exchange.naive_orders import cross_price, fee_of, in_line
from tests.exchange.naive_rules import SECOND, whole

GATHERING = (
    TradingPhase.PRE_OPEN,
    TradingPhase.OPENING_AUCTION,
    TradingPhase.INTRADAY_AUCTION,
    TradingPhase.CLOSING_AUCTION,
)
FIVE_MINUTES = 300 * SECOND


class NaiveState:
    def __init__(self, instruments, venue=None):
        self.venue = venue or Venue()
        self.instruments = {one.symbol: one for one in instruments}
        self.symbols = sorted(self.instruments)
        self.money = {
            one.symbol: int(Decimal(one.tick_size) * Decimal(one.lot_size) * 1_000_000) for one in instruments
        }
        self.orders, self.ids, self.told, self.ended = [], set(), [], {}
        self.ended_now, self.day_begun = [], False
        self.seqs = dict.fromkeys(self.symbols, 0)
        self.seq = self.made = self.trades = self.now = self.places = 0
        self.balances, self.disabled, self.sent = {}, set(), []
        self.market_phase = TradingPhase.CONTINUOUS
        self.phase = dict.fromkeys(self.symbols, TradingPhase.CONTINUOUS)
        self.market_halted, self.halted = False, set()
        self.market_paused, self.paused, self.reopening = None, {}, {}
        self.gathered = dict.fromkeys(self.symbols, False)
        self.last, self.traded, self.recent = {}, set(), {symbol: [] for symbol in self.symbols}
        self.moving = {one.symbol: one.reference for one in instruments}
        self.limit_since, self.levels_used = {}, set()
        self.most = self.venue.max_trades_per_command or 10**9
        self.continues = {}

    # Questions

    def find(self, order_id):
        return next((one for one in self.orders if whole(order_id) and one.order_id == order_id), None)

    def book(self, symbol, side):
        """One side's orders in the book, all-or-nones among them, in no order."""
        return [one for one in self.orders if one.symbol == symbol and one.side is side and one.place]

    def opposite(self, order):
        return self.book(order.symbol, Side.SELL if order.buys else Side.BUY)

    def shown(self, symbol, side):
        """The book as it is shown: (price, order id, lots), best first, in queue order."""
        line = in_line(one for one in self.book(symbol, side) if not one.aon and one.kind != "market")
        return [(one.price, one.order_id, one.shown) for one in line]

    def state(self, symbol):
        """What the symbol (None: the market) does with orders now (table P): the first that is so."""
        phase = self.market_phase if symbol is None else self.phase[symbol]
        return next(
            state
            for state, so in (
                ("closed", self.market_phase is TradingPhase.CLOSED),
                ("halted", self.market_halted),
                ("closed", phase is TradingPhase.CLOSED),
                ("halted", symbol in self.halted),
                ("post_close", phase is TradingPhase.POST_CLOSE),
                ("gather", phase in GATHERING or self.paused_now(symbol)),
                ("continuous", True),
            )
            if so
        )

    def paused_now(self, symbol):
        return symbol in self.paused or self.market_paused is not None

    def band(self, symbol):
        """The moving band (B2): lower and upper end, None without one."""
        ppm = self.instruments[symbol].luld_ppm
        if not ppm:
            return None
        width, step = self.moving[symbol] * ppm // 1_000_000, self.instruments[symbol].tick_step
        lower, upper = self.moving[symbol] - width, self.moving[symbol] + width
        inside = [price for price in range(lower, upper + 1) if price > 0 and price % step == 0]
        if not inside:
            inside = [price for price in range(lower - step, upper + step + 1) if price > 0 and price % step == 0]
        return inside[0], inside[-1]

    def reach(self, order):
        """How far an order may trade: its own price, the band, the moving band."""
        instrument = self.instruments[order.symbol]
        ends = [instrument.reference + instrument.band if order.buys else instrument.reference - instrument.band]
        if order.price is not None:
            ends = [order.price]
        if self.band(order.symbol) is not None:
            ends.append(self.band(order.symbol)[1 if order.buys else 0])
        return min(ends) if order.buys else max(ends)

    def cross_reference(self, symbol):
        """A4: an instrument's reference may stand between its steps; a last price never does."""
        instrument = self.instruments[symbol]
        steps = instrument.reference // instrument.tick_step or 1
        return self.last.get(symbol, steps * instrument.tick_step)

    def cross_found(self, symbol, orders):
        limits_only = self.venue.cross_prices is CrossPrices.LIMITS
        return cross_price(orders, self.cross_reference(symbol), limits_only)

    def indicative(self, symbol):
        return self.cross_found(symbol, [one for side in Side for one in self.book(symbol, side) if not one.aon])

    def dues(self):
        for order in self.orders:
            if order.lasts is TimeInForce.GTT:
                yield order.expires_at, 0, order.order_id
        for symbol, since in self.limit_since.items():
            yield since + self.venue.limit_state_seconds * SECOND, 1, symbol
        for symbol, until in [*self.paused.items(), *self.reopening.items()]:
            yield until, 2, symbol
        if self.market_paused is not None:
            yield self.market_paused, 3, ""
        for symbol, at in self.continues.items():
            yield at, 4, symbol

    def forget_the_day(self):
        """C2, E8: client ids, how orders ended, and of those that live what happened to them."""
        self.ids, self.ended, self.ended_now, self.day_begun = set(), {}, [], True
        for order in self.orders:
            order.trades, order.lost, order.why = (), 0, None

    # Changes of phases

    def halt_market(self):
        self.market_halted = True

    def resume_market(self, auctions):
        self.market_halted = False
        for symbol in auctions:
            self.reopen_by_auction(symbol)

    def reopen_by_auction(self, symbol):
        self.phase[symbol] = TradingPhase.INTRADAY_AUCTION
        self.reopening[symbol] = self.now + self.venue.reopening_seconds * SECOND

    def halt_symbol(self, symbol):
        self.halted.add(symbol)
        self.paused.pop(symbol, None)
        self.reopening.pop(symbol, None)

    def resume_symbol(self, symbol, auction):
        """Back to the phase of the market, through an auction if that is wanted."""
        if symbol in self.halted:
            self.halted.discard(symbol)
            self.phase[symbol] = self.market_phase
        if auction:
            self.reopen_by_auction(symbol)

    def end_pause(self, symbol):
        self.paused.pop(symbol, None)
        self.reopening.pop(symbol, None)
        self.phase[symbol] = self.market_phase

    def set_symbol(self, symbol, phase):
        self.phase[symbol] = phase
        self.reopening.pop(symbol, None)

    def end_market_pause(self):
        self.market_paused = None

    # The moving band

    def move_reference(self, symbol):
        recent = [price for at, price in self.recent[symbol] if self.now - FIVE_MINUTES < at]
        mean = sum(recent) // len(recent) if recent else self.moving[symbol]
        if abs(mean - self.moving[symbol]) * 100 >= self.moving[symbol]:
            self.moving[symbol] = mean

    def reopened(self, symbol, price):
        """B5: the price of the reopening cross is the reference; what traded before no longer counts."""
        self.moving[symbol] = price
        self.recent[symbol] = [one for one in self.recent[symbol] if one[0] == self.now]

    # Telling

    def tell(self, event):
        self.told.append(event)

    def number(self, symbol):
        self.seqs[symbol] += 1
        return self.seqs[symbol]

    def next_place(self):
        self.places += 1
        return self.places

    def tell_of(self, kind, order, quantity, price):
        self.tell(
            kind(
                order.order_id,
                order.account,
                order.client_id,
                order.symbol,
                self.number(order.symbol),
                order.side,
                quantity,
                price,
            )
        )

    def told_price(self, order):
        """A price where an event must have one: the limit, else a stop's trigger, else 0."""
        if order.price is not None:
            return order.price
        return order.trigger if order.waits else 0

    def tell_canceled(self, order, client_id, lots, reason, left):
        order.lost, order.why = order.lost + lots, reason
        resting = order.place > 0 and not order.aon and order.kind != "market"
        hidden = order.quantity - order.shown if resting and not left else 0
        self.tell(
            e.Canceled(
                order.order_id,
                order.account,
                client_id,
                order.symbol,
                self.number(order.symbol),
                order.side,
                order.price,
                lots,
                reason,
                resting,
                left,
                hidden,
            )
        )

    # Departures and trades

    def drop(self, order):
        self.orders = [one for one in self.orders if one is not order]
        self.ended[order.order_id] = order
        self.ended_now.append(order)

    def cancel_rest(self, order, client_id, reason: CancelReason):
        self.tell_canceled(order, client_id, order.quantity, reason, 0)
        order.quantity = 0
        self.drop(order)

    def expire(self, order):
        self.drop(order)
        order.lost, order.expired = order.lost + order.quantity, True
        self.tell(
            e.Expired(
                order.order_id,
                order.account,
                order.symbol,
                self.number(order.symbol),
                order.side,
                self.told_price(order),
                order.quantity,
                order.quantity - order.shown,
            )
        )

    def add(self, account, asset, amount):
        self.balances[account, asset] = self.balances.get((account, asset), 0) + amount

    def trade(self, maker, taker, price, lots, auction=False):
        symbol = maker.symbol
        maker.take(lots)
        taker.take(lots)
        maker.traded += lots
        taker.traded += lots
        self.trades += 1
        for order in (maker, taker):
            order.trades = (*order.trades, self.trades)
        self.last[symbol] = price
        self.traded.add(symbol)
        kept = [one for one in self.recent[symbol] if self.now - FIVE_MINUTES < one[0]]
        self.recent[symbol] = [*kept, (self.now, price)]
        instrument, notional = self.instruments[symbol], price * lots * self.money[symbol]
        buyer, seller = (maker, taker) if maker.buys else (taker, maker)
        fees = {}
        for order in (maker, taker):
            ppm = instrument.maker_fee_ppm if order is maker else instrument.taker_fee_ppm
            fees[order.order_id] = fee_of(notional, instrument.auction_fee_ppm if auction else ppm)
        self.add(buyer.account, symbol, lots)
        self.add(seller.account, symbol, -lots)
        self.add(buyer.account, "$cash", -notional - fees[buyer.order_id])
        self.add(seller.account, "$cash", notional - fees[seller.order_id])
        self.add("$fees", "$cash", sum(fees.values()))
        self.tell(
            e.Traded(
                self.trades,
                symbol,
                self.number(symbol),
                price,
                lots,
                maker.order_id,
                taker.order_id,
                taker.side,
                buyer.account,
                seller.account,
                maker.shown,
                fees[buyer.order_id],
                fees[seller.order_id],
                lots if maker.aon else 0,
                taker.aon,
            )
        )
