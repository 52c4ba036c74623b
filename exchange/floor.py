"""The trading floor: everything the exchange knows, and the few moves all its rules are made of.

The rules themselves stand beside it (`matching`, `stops`, `auction`, `bands`, `session`) as functions over a floor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappush
from typing import TYPE_CHECKING, Final

from exchange.book import ALL_OR_NONE, LIMIT, MARKET, STOP, Account, Amount, Book, BookSide, Order
from exchange.events import Canceled, Event, Replenished, Rested, Traded
from exchange.ledger import FEES
from exchange.types import (
    GATHERING,
    AccountId,
    CancelReason,
    ClientId,
    HaltReason,
    Instrument,
    Lots,
    MarketRemainder,
    OrderId,
    Side,
    Symbol,
    Ticks,
    TradingPhase,
    Venue,
)
from kernel.errors import InputError

if TYPE_CHECKING:
    from mypy_extensions import i64  # a machine word in compiled code, an `int` in sources

NEVER: Final = (1 << 62) - 1
"""Later than every instant."""
EXPIRY: Final = 0
"""Kinds of things that become due, in the order of rule T2."""
LIMIT_STATE_END: Final = 1
PAUSE_END: Final = 2
MARKET_PAUSE_END: Final = 3
CONTINUATION: Final = 4
MILLION: Final = 1_000_000
_HALF: Final = 500_000
_UP: Final = 999_999

AUCTIONS: Final = GATHERING - {TradingPhase.PRE_OPEN}

_BUY: Final = Side.BUY
_canceled: Final[Callable[..., Event]] = Canceled
_rested: Final[Callable[..., Event]] = Rested
_traded: Final[Callable[..., Event]] = Traded
"""Made a million times: a wrapper such as `Lots(...)` around each figure costs more than the event itself."""
_NOTHING: Final = Lots(0)
_WITHOUT_PRICE: Final = frozenset({MARKET, STOP})
_CONTINUOUS: Final = TradingPhase.CONTINUOUS


class Floor:
    """All books, live orders, accounts, phases and timers."""

    __slots__ = (
        "accounts",
        "ages",
        "books",
        "breaker_level",
        "cash",
        "clock",
        "disabled",
        "fees",
        "halt",
        "holds",
        "horizon",
        "index_reference",
        "market_rests",
        "met_before",
        "most",
        "most_met",
        "moving",
        "next_due",
        "orders",
        "orders_made",
        "paused_until",
        "phase",
        "prevented",
        "rated",
        "sorted_books",
        "timers",
        "trades_made",
        "venue",
        "watches",
    )

    def __init__(self, instruments: Sequence[Instrument], venue: Venue) -> None:
        if not instruments:
            raise InputError("instruments", "there are none", right="name at least one")
        self.venue: Final = venue
        self.holds: Final = venue.holds
        self.rated: Final = venue.orders_per_second > 0
        self.most: Final = venue.orders_per_second or NEVER
        """How many new and replaced orders of an account a second may hold."""
        self.most_met: Final = venue.max_trades_per_command or NEVER
        """How many resting orders one order may meet at once."""
        self.market_rests: Final = venue.market_remainder is MarketRemainder.REST
        self.books: Final = {instrument.symbol: Book(instrument) for instrument in instruments}
        if len(self.books) != len(instruments):
            raise InputError("instruments", "a symbol stands twice", right="name each symbol once")
        self.sorted_books: Final = [self.books[symbol] for symbol in sorted(self.books)]
        self.moving: Final = [book for book in self.sorted_books if book.luld_ppm]
        """The books with a moving band."""
        self.watches: Final = bool(self.moving) or venue.breakers
        """Whether anything is to be looked at after each command."""
        self.index_reference: Final = sum(instrument.reference for instrument in instruments)
        self.orders: Final[dict[OrderId, Order]] = {}
        self.clock = 0
        self.orders_made = 0
        self.trades_made = 0
        self.ages = 0
        self.prevented = 0
        """How often self-trade prevention kept two orders apart; no part of the state."""
        self.met_before = 0
        """How many had been met when this command, or what was due before it, began; no part of the state."""
        self.horizon = 0
        """The instant up to which what is due happens: what is put off comes after it; no part of the state."""
        self.phase = TradingPhase.CONTINUOUS
        self.halt: HaltReason | None = None
        self.paused_until = 0
        self.breaker_level = 0
        """The highest that was reached this session."""
        self.disabled: set[AccountId] = set()
        self.cash: dict[AccountId, Amount] = {}
        self.accounts: dict[str, Account] = {}
        """Every account that sent a request under a good id, or has anything; no part of the state by itself."""
        self.fees: Final = self.cash_of(FEES)
        self.timers: list[tuple[int, int, OrderId, Symbol]] = []
        """A heap of (instant, kind, order, symbol); what is no longer so is left in it and passed over."""
        self.next_due = NEVER

    def find(self, symbol: object) -> Book | None:
        """Return the book of a symbol, whatever was given for one; None when it is unknown."""
        return self.books.get(Symbol(symbol)) if type(symbol) is str else None

    # --- phases and time -------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Find out anew which books match orders; to be called whenever a phase, halt or pause changed."""
        stands = self.halt is not None or self.paused_until > 0 or self.phase is TradingPhase.CLOSED
        for book in self.sorted_books:
            book.trading = (
                not stands and book.halt is None and not book.paused_until and book.phase is TradingPhase.CONTINUOUS
            )

    def schedule(self, at: int, kind: int, order_id: OrderId, symbol: Symbol) -> None:
        """Note that something becomes due."""
        if len(self.timers) > 2 * len(self.orders) + 1_000:
            self.timers = [timer for timer in self.timers if self.stands(timer)]
            heapify(self.timers)
        heappush(self.timers, (at, kind, order_id, symbol))
        self.next_due = self.timers[0][0]

    def stands(self, timer: tuple[int, int, OrderId, Symbol]) -> bool:
        """Tell whether what a timer was set for is still to happen then."""
        at, kind, order_id, symbol = timer
        if kind == EXPIRY:
            order = self.orders.get(order_id)
            return order is not None and order.expires_at == at
        if kind == MARKET_PAUSE_END:
            return self.paused_until == at
        book = self.books[symbol]
        if kind == CONTINUATION:
            return at == book.continue_at
        return at == book.limit_until if kind == LIMIT_STATE_END else at in {book.paused_until, book.reopening_until}

    # --- the limit of trades ----------------------------------------------------------------------------------------

    def begin_counting(self) -> None:
        """Count anew what is met: a command begins, or what is due before it (L1)."""
        self.met_before = self.trades_made + self.prevented

    def spent(self) -> bool:
        """Tell whether so much was met that nothing further may begin (L3)."""
        return self.trades_made + self.prevented - self.met_before >= self.most_met

    def put_off(self, book: Book) -> None:
        """Let all-or-nones and stops of a symbol be looked at again right after this command (L3)."""
        if not book.continue_at:
            book.continue_at = max(self.clock, self.horizon) + 1
            self.schedule(book.continue_at, CONTINUATION, OrderId(0), book.symbol)

    # --- moves of orders -------------------------------------------------------------------------------------------

    def show(self, events: list[Event], order: Order) -> None:
        """Put a limit order into its book, behind all others at its price."""
        book = order.book
        if order.display and order.quantity > order.display:
            order.hidden = order.quantity - order.display
            order.quantity = order.display
        self.ages += 1
        order.age = self.ages
        (book.bids if order.side is _BUY else book.asks).rest(order)
        self.orders[order.order_id] = order
        if self.holds:
            # As `hold` does, without its call.
            lots = order.quantity + order.hidden
            if order.side is _BUY:
                wanted = need(book, _BUY, order.price, lots)
                order.cash.held += wanted - order.held
                order.held = wanted
            else:
                order.stock.held += lots - order.held
                order.held = lots
        seq = book.symbol_seq = book.symbol_seq + 1
        events.append(_rested(order.order_id, book.symbol, seq, order.side, order.price, order.quantity))

    def wait(self, order: Order) -> None:
        """Put an order that is not shown where it waits, as the youngest."""
        self.ages += 1
        order.age = self.ages
        order.book.side(order.side).wait(order)
        self.orders[order.order_id] = order
        if self.holds:
            self.hold(order)

    def leave(self, order: Order) -> None:
        """Take an order from wherever it stands, with its hold."""
        side: BookSide = order.book.bids if order.side is _BUY else order.book.asks
        if order.kind == LIMIT:
            side.remove(order)
        else:
            side.forget(order)
        del self.orders[order.order_id]
        if order.held:
            self.release(order)

    def cancel(
        self, events: list[Event], order: Order, client_id: ClientId, reason: CancelReason, *, live: bool
    ) -> None:
        """Cancel all that is open of an order; `live`: it stands or waits somewhere, else it is just coming in."""
        book = order.book
        if live:
            self.leave(order)
        shown = live and order.kind == LIMIT
        seq = book.symbol_seq = book.symbol_seq + 1
        events.append(
            _canceled(
                order.order_id,
                order.account,
                client_id,
                book.symbol,
                seq,
                order.side,
                None if order.kind in _WITHOUT_PRICE else order.price,
                order.quantity + order.hidden,
                reason,
                shown,
                _NOTHING,
                order.hidden if shown else _NOTHING,
            )
        )
        order.quantity = order.hidden = 0

    def replenish(self, events: list[Event], order: Order, *, keeps_place: bool) -> None:
        """Let an iceberg whose shown part is used up show a new one."""
        book = order.book
        side = book.side(order.side)
        if not keeps_place:
            side.remove(order)
        part = min(order.display, order.hidden)
        order.hidden -= part
        order.quantity += part
        if keeps_place:
            assert order.level is not None, f"order {order.order_id} does not rest"
            order.level.total += part
            order.level.hidden -= part
        else:
            self.ages += 1
            order.age = self.ages
            side.rest(order)
        book.symbol_seq += 1
        events.append(
            Replenished(
                order.order_id, book.symbol, book.symbol_seq, order.side, Ticks(order.price), Lots(order.quantity)
            )
        )

    # --- trades and money --------------------------------------------------------------------------------------------

    def trade(self, events: list[Event], maker: Order, taker: Order, lots: int) -> None:
        """Let a resting order trade with one that comes in, at the maker's price (F1, F2)."""
        book = maker.book
        price = maker.price
        left = maker.quantity - lots
        taker.quantity -= lots
        taker.filled += lots
        maker.filled += lots
        unseen = 0
        level = maker.level
        if level is None:
            unseen = lots
            self.leave(maker)
        elif left or maker.hidden:
            maker.quantity = left
            level.total -= lots
            if self.holds:
                self.hold(maker)
        else:
            (book.bids if maker.side is _BUY else book.asks).remove(maker)
            del self.orders[maker.order_id]
            maker.quantity = 0
            if maker.held:
                (maker.cash if maker.side is _BUY else maker.stock).held -= maker.held
                maker.held = 0
        buys = taker.side is _BUY
        bid, ask = (taker, maker) if buys else (maker, taker)
        cost, taker_fee, maker_fee = charges(book, price, lots)
        buyer_fee, seller_fee = (taker_fee, maker_fee) if buys else (maker_fee, taker_fee)
        self.settle(bid, ask, lots, cost, buyer_fee, seller_fee)
        if book.luld_ppm:
            self.note_trade(book, price)
        book.last_price = price
        trade_id = self.trades_made = self.trades_made + 1
        seq = book.symbol_seq = book.symbol_seq + 1
        events.append(
            _traded(
                trade_id,
                book.symbol,
                seq,
                price,
                lots,
                maker.order_id,
                taker.order_id,
                taker.side,
                bid.account,
                ask.account,
                left,
                buyer_fee,
                seller_fee,
                unseen,
                taker.kind == ALL_OR_NONE,
            )
        )
        if not left and maker.hidden:
            self.replenish(events, maker, keeps_place=False)

    def settle(self, bid: Order, ask: Order, lots: int, cost: int, buyer_fee: int, seller_fee: int) -> None:
        """Move what a trade moves, `cost` and fees in millionths; nothing else moves money by trading (M1, M2)."""
        self.fees.has += buyer_fee + seller_fee
        bid.cash.has -= cost + buyer_fee
        ask.cash.has += cost - seller_fee
        bid.stock.has += lots
        ask.stock.has -= lots

    def note_trade(self, book: Book, price: int) -> None:
        """Remember a trade for the moving band (B2)."""
        book.unlooked = True
        recent = book.recent
        if recent and recent[-1][0] == self.clock:
            at, total, count = recent[-1]
            recent[-1] = (at, total + price, count + 1)
        else:
            recent.append((self.clock, price, 1))

    def hold(self, order: Order) -> None:
        """Hold what an order needs now, and give back what it does not need any more (M5)."""
        lots = order.quantity + order.hidden
        if order.side is _BUY:
            wanted = need(order.book, _BUY, order.price, lots)
            order.cash.held += wanted - order.held
            order.held = wanted
        else:
            order.stock.held += lots - order.held
            order.held = lots

    def release(self, order: Order) -> None:
        """Give back all that is held for an order."""
        (order.cash if order.side is _BUY else order.stock).held -= order.held
        order.held = 0

    def account(self, name: AccountId) -> Account:
        """Return an account; there is none before it is asked for first."""
        found = self.accounts.get(name)
        if found is None:
            found = self.accounts[name] = Account(name, self.cash_of(name))
        return found

    def cash_of(self, account: AccountId) -> Amount:
        """Return an account's cash; there is none before it is asked for first."""
        amount = self.cash.get(account)
        if amount is None:
            amount = self.cash[account] = Amount()
        return amount

    def stock_of(self, book: Book, account: AccountId) -> Amount:
        """Return an account's position; there is none before it is asked for first."""
        amount = book.positions.get(account)
        if amount is None:
            amount = book.positions[account] = Amount()
        return amount


def fee(notional: int, ppm: int) -> int:
    """Return a share of a notional, rounded half away from zero to a millionth (M2)."""
    product = notional * ppm
    return (product + _HALF) // MILLION if product >= 0 else -((_HALF - product) // MILLION)


def charges(book: Book, price: int, lots: int) -> tuple[int, int, int]:
    """Return what a trade in continuous trading costs, and the taker's and the maker's fee (M2), in millionths."""
    if book.wide:
        whole = price * lots * book.money
        return whole, fee(whole, book.taker_ppm), fee(whole, book.maker_ppm)
    ticks: i64 = price
    quantity: i64 = lots
    money: i64 = book.money
    cost = ticks * quantity * money
    if not book.fees:
        return cost, 0, 0
    # As `fee` does, without its calls.
    ppm: i64 = book.taker_ppm
    share = cost * ppm
    taker_fee = (share + _HALF) // MILLION if share >= 0 else -((_HALF - share) // MILLION)
    ppm = book.maker_ppm
    share = cost * ppm
    return cost, taker_fee, (share + _HALF) // MILLION if share >= 0 else -((_HALF - share) // MILLION)


def need(book: Book, side: Side, price: int, lots: int) -> int:
    """Return what an order holds: lots of a sell; of a buy its cost and the highest fee, rounded up (M4).

    Without a price the upper end of the static band counts.
    """
    if side is not _BUY:
        return lots
    if book.wide:
        whole = (price or book.high) * lots * book.money
        return whole + (whole * book.highest_ppm + _UP) // MILLION
    ticks: i64 = price or book.high
    quantity: i64 = lots
    money: i64 = book.money
    ppm: i64 = book.highest_ppm
    notional = ticks * quantity * money
    return notional + (notional * ppm + _UP) // MILLION
