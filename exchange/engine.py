"""The exchange's state machine: sequenced commands in, events out, nothing else.

The same commands always give the same events and the same `state_hash`. A command the rules refuse comes back as
`Rejected` and changes nothing but the memory of its client id.

Order of the checks: shape of the ids, duplicate id, session and halts, symbol, quantity, price, band, liquidity.

Choices where exchanges differ:
  - A market order that meets an empty side is `Rejected(no_liquidity)`; one filled in part is `Canceled` for the rest.
  - A replace whose quantity is not greater at the same price keeps its place in the queue.
  - Halts refuse new orders and every replace; cancels still pass.
  - Client ids are remembered for the session: `OpenSession` forgets them (unless the session is already open).
  - Halting what is halted and resuming what is open changes nothing but is answered like the first time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, assert_never

import msgspec

from exchange.book import Book, Depth, Order, Top
from exchange.commands import (
    AdminCommand,
    CancelOrder,
    CloseSession,
    Command,
    Halt,
    Limit,
    Market,
    OpenSession,
    PlaceOrder,
    ReplaceOrder,
    Resume,
    Sequenced,
)
from exchange.events import (
    Accepted,
    Canceled,
    Event,
    Expired,
    Halted,
    Rejected,
    Replaced,
    Rested,
    Resumed,
    SessionClosed,
    SessionOpened,
    Traded,
)
from exchange.types import (
    MAX_ID_LENGTH,
    MAX_PRICE_TICKS,
    MAX_QUANTITY_LOTS,
    AccountId,
    CancelReason,
    ClientId,
    HaltReason,
    Instrument,
    Lots,
    OrderId,
    RejectReason,
    Side,
    Symbol,
    Ticks,
    TimeInForce,
    TradeId,
)
from kernel.errors import InputError, PermanentError

ADMIN: Final = AccountId("")
"""The account under which the keys of admin commands are remembered; no participant can have it."""

_WORST_KEY: Final = -(MAX_PRICE_TICKS + 1)
"""Below the key of every level: the limit of a market order."""

_encode: Final = msgspec.msgpack.Encoder().encode


class Known(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of a request under its client id."""

    seq: int
    fingerprint: bytes
    events: tuple[Event, ...]
    """The first answer, to be given again."""


def fingerprint(command: Command) -> bytes:
    """Return 16 bytes that are equal for equal commands and, for all practical purposes, for no others."""
    return hashlib.blake2b(_encode(command), digest_size=16).digest()


def identity(command: Command) -> tuple[AccountId, ClientId]:
    """Return under which account and id a command is remembered."""
    if isinstance(command, PlaceOrder | CancelOrder | ReplaceOrder):
        return command.account, command.client_id
    return ADMIN, command.key


class Engine:
    """A deterministic exchange: all books, halts, the session and the memory of client ids."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        if not instruments:
            raise InputError("instruments", "there are none", right="name at least one")
        self.instruments: Final = {instrument.symbol: instrument for instrument in instruments}
        if len(self.instruments) != len(instruments):
            raise InputError("instruments", "a symbol stands twice", right="name each symbol once")
        self._books: Final = {symbol: Book(symbol) for symbol in self.instruments}
        self._orders: Final[dict[OrderId, Order]] = {}
        # Keyed by one string, not a tuple: a dict of values the collector need not visit is skipped by it as a whole.
        self._known: dict[str, Known] = {}
        self._known_hash = hashlib.blake2b()
        self._known_hashed = 0
        self._sequence = 0
        self._orders_made = 0
        self._trades_made = 0
        self._market_halt: HaltReason | None = None
        self._halts: Final[dict[Symbol, HaltReason]] = {}
        self._session_open = True

    # --- what is asked ---------------------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """The sequence number of the last command applied; 0 before the first."""
        return self._sequence

    @property
    def session_open(self) -> bool:
        """Whether new orders are taken, halts aside."""
        return self._session_open

    @property
    def market_halted(self) -> bool:
        """Whether the whole market stands still."""
        return self._market_halt is not None

    @property
    def market_halt_reason(self) -> HaltReason | None:
        """Why the whole market stands still; None when it does not."""
        return self._market_halt

    @property
    def resting_orders(self) -> int:
        """How many orders rest in all books."""
        return len(self._orders)

    def open_notional(self) -> int:
        """Return price times quantity of all that rests in the books, in ticks times lots.

        It looks at every level when it is asked, so that matching pays nothing for it.
        """
        return sum(book.bids.notional() + book.asks.notional() for book in self._books.values())

    def halted_symbols(self) -> tuple[Symbol, ...]:
        """Return the symbols that stand still on their own, sorted."""
        return tuple(sorted(self._halts))

    def top(self, symbol: Symbol) -> Top:
        """Return a symbol's best bid and offer.

        Raises:
            KeyError: the symbol is unknown.
        """
        return self._books[symbol].top()

    def depth(self, symbol: Symbol, levels: int) -> Depth:
        """Return the best `levels` levels of a symbol.

        Raises:
            KeyError: the symbol is unknown.
        """
        return self._books[symbol].depth(levels)

    def symbol_seq(self, symbol: Symbol) -> int:
        """Return the number of the symbol's last event; 0 before the first."""
        return self._books[symbol].symbol_seq

    def known(self, account: AccountId, client_id: ClientId) -> Known | None:
        """Return what is remembered of a request; `account` is `ADMIN` for the keys of admin commands."""
        return self._known.get(f"{account}\n{client_id}")

    def would_refuse(self, command: Command) -> RejectReason | None:
        """Return why the session or a halt would refuse a command now; None if neither would.

        For the check before sequencing: whatever this refuses can be sent again later under the same client id.
        """
        if isinstance(command, PlaceOrder):
            return self._standstill(command.symbol)
        if isinstance(command, ReplaceOrder):
            order = self._orders.get(command.order_id)
            return self._standstill(None if order is None else order.book.symbol)
        return None

    # --- what is done ----------------------------------------------------------------------------------------------

    def apply(self, item: Sequenced) -> tuple[Event, ...]:
        """Carry out the next command and return all it caused, in order.

        Raises:
            PermanentError: the sequence number is not the next one; nothing changed.
        """
        if item.seq != self._sequence + 1:
            raise PermanentError(
                f"engine at sequence {self._sequence} was given command {item.seq}; it takes the next one only"
            )
        command = item.command
        account, client_id = identity(command)
        key = f"{account}\n{client_id}"
        self._sequence = item.seq
        if not _is_id(client_id) or not (_is_id(account) or isinstance(command, AdminCommand)):
            return (Rejected(account, client_id, RejectReason.BAD_CLIENT_ID),)
        if key in self._known:
            return (Rejected(account, client_id, RejectReason.DUPLICATE_CLIENT_ID),)
        events = self._carry_out(command)
        self._known[key] = Known(item.seq, fingerprint(command), events)
        return events

    def _carry_out(self, command: Command) -> tuple[Event, ...]:  # noqa: PLR0911 - one return a command
        match command:
            case PlaceOrder():
                return self._place(command)
            case CancelOrder():
                return self._cancel(command)
            case ReplaceOrder():
                return self._replace(command)
            case Halt():
                return self._halt(command)
            case Resume():
                return self._resume(command)
            case CloseSession():
                return self._close_session()
            case OpenSession():
                return self._open_session()
            case _:
                assert_never(command)

    # --- orders ----------------------------------------------------------------------------------------------------

    def _place(self, command: PlaceOrder) -> tuple[Event, ...]:
        reason = self._refusal(command)
        symbol = command.symbol
        if reason is not None:
            known_symbol = symbol if symbol in self._books else None
            return (Rejected(command.account, command.client_id, reason, known_symbol),)
        book = self._books[symbol]
        terms = command.terms
        price = terms.price if isinstance(terms, Limit) else None
        self._orders_made += 1
        order_id = OrderId(self._orders_made)
        account, client_id, side = command.account, command.client_id, command.side
        book.symbol_seq += 1
        accepted = Accepted(order_id, account, client_id, symbol, book.symbol_seq, side, command.quantity, price)
        events: list[Event] = [accepted]
        left = self._match(events, book, order_id, account, side, price, command.quantity)
        if not left:
            return tuple(events)
        if price is not None and command.time_in_force is not TimeInForce.IOC:
            self._rest(events, Order(order_id, account, book, side, price, left, command.time_in_force))
            return tuple(events)
        why = CancelReason.MARKET_REMAINDER if price is None else CancelReason.IOC_REMAINDER
        book.symbol_seq += 1
        events.append(
            Canceled(order_id, account, client_id, symbol, book.symbol_seq, side, price, left, why, resting=False)
        )
        return tuple(events)

    def _cancel(self, command: CancelOrder) -> tuple[Event, ...]:
        order = self._orders.get(command.order_id)
        if order is None or order.account != command.account:
            return (self._not_there(command, order),)
        book = order.book
        self._leave(order)
        book.symbol_seq += 1
        return (
            Canceled(
                order.order_id,
                order.account,
                command.client_id,
                book.symbol,
                book.symbol_seq,
                order.side,
                order.price,
                order.quantity,
                CancelReason.REQUESTED,
                resting=True,
            ),
        )

    def _replace(self, command: ReplaceOrder) -> tuple[Event, ...]:
        order = self._orders.get(command.order_id)
        reason = self._standstill(None if order is None else order.book.symbol)
        if reason is not None:
            symbol = None if order is None else order.book.symbol
            return (Rejected(command.account, command.client_id, reason, symbol),)
        if order is None or order.account != command.account:
            return (self._not_there(command, order),)
        book = order.book
        reason = self._bad_figures(book.symbol, command.quantity, command.price)
        if reason is not None:
            return (Rejected(command.account, command.client_id, reason, book.symbol),)
        keeps = command.price == order.price and command.quantity <= order.quantity
        book.symbol_seq += 1
        replaced = Replaced(
            order.order_id,
            order.account,
            command.client_id,
            book.symbol,
            book.symbol_seq,
            order.side,
            order.price,
            order.quantity,
            command.price,
            command.quantity,
            kept_priority=keeps,
        )
        if keeps:
            assert order.level is not None, f"order {order.order_id} is live but does not rest"
            order.level.total -= order.quantity - command.quantity
            order.quantity = command.quantity
            return (replaced,)
        return self._match_anew(replaced, order)

    def _match_anew(self, replaced: Replaced, order: Order) -> tuple[Event, ...]:
        """Treat a replaced order that lost its place as if it came in now."""
        self._leave(order)
        events: list[Event] = [replaced]
        book, side, price = order.book, order.side, replaced.price
        left = self._match(events, book, order.order_id, order.account, side, price, replaced.quantity)
        if left:
            self._rest(events, Order(order.order_id, order.account, book, side, price, left, order.time_in_force))
        return tuple(events)

    def _match(
        self,
        events: list[Event],
        book: Book,
        taker_id: OrderId,
        taker: AccountId,
        side: Side,
        price: Ticks | None,
        quantity: Lots,
    ) -> Lots:
        """Trade against the other side, best price first, oldest first, never past `price`; return what is left."""
        buys = side is Side.BUY
        other = book.asks if buys else book.bids
        sign, keys, levels = other.sign, other.keys, other.levels
        limit = _WORST_KEY if price is None else price * sign
        left = quantity
        while left and keys and keys[-1] >= limit:
            level = levels[keys[-1]]
            maker = level.head
            assert maker is not None, f"empty level {level.key} in {book.symbol}"
            lots = min(left, maker.quantity)
            left = Lots(left - lots)
            maker_left = Lots(maker.quantity - lots)
            if maker_left:
                maker.quantity = maker_left
                level.total -= lots
            else:
                other.remove(maker)
                del self._orders[maker.order_id]
            self._trades_made += 1
            book.symbol_seq += 1
            events.append(
                Traded(
                    TradeId(self._trades_made),
                    book.symbol,
                    book.symbol_seq,
                    maker.price,
                    lots,
                    maker.order_id,
                    taker_id,
                    side,
                    taker if buys else maker.account,
                    maker.account if buys else taker,
                    maker_left,
                )
            )
        return left

    def _rest(self, events: list[Event], order: Order) -> None:
        book = order.book
        book.side(order.side).rest(order)
        self._orders[order.order_id] = order
        book.symbol_seq += 1
        events.append(Rested(order.order_id, book.symbol, book.symbol_seq, order.side, order.price, order.quantity))

    def _leave(self, order: Order) -> None:
        order.book.side(order.side).remove(order)
        del self._orders[order.order_id]

    # --- checks ----------------------------------------------------------------------------------------------------

    def _standstill(self, symbol: Symbol | None) -> RejectReason | None:
        if not self._session_open:
            return RejectReason.SESSION_CLOSED
        if self._market_halt is not None or symbol in self._halts:
            return RejectReason.HALTED
        return None

    def _refusal(self, command: PlaceOrder) -> RejectReason | None:
        reason = self._standstill(command.symbol)
        if reason is not None:
            return reason
        book = self._books.get(command.symbol)
        if book is None:
            return RejectReason.UNKNOWN_SYMBOL
        terms = command.terms
        match terms:
            case Limit():
                return self._bad_figures(command.symbol, command.quantity, terms.price)
            case Market():
                if not 0 < command.quantity <= MAX_QUANTITY_LOTS:
                    return RejectReason.BAD_QUANTITY
                other = book.asks if command.side is Side.BUY else book.bids
                return None if other.keys else RejectReason.NO_LIQUIDITY
            case _:
                assert_never(terms)

    def _bad_figures(self, symbol: Symbol, quantity: int, price: int) -> RejectReason | None:
        if not 0 < quantity <= MAX_QUANTITY_LOTS:
            return RejectReason.BAD_QUANTITY
        if not 0 < price <= MAX_PRICE_TICKS:
            return RejectReason.BAD_PRICE
        instrument = self.instruments[symbol]
        if not -instrument.band <= price - instrument.reference <= instrument.band:
            return RejectReason.PRICE_OUT_OF_BAND
        return None

    def _not_there(self, command: CancelOrder | ReplaceOrder, order: Order | None) -> Rejected:
        if order is not None:
            return Rejected(command.account, command.client_id, RejectReason.NOT_YOUR_ORDER)
        once_lived = 0 < command.order_id <= self._orders_made
        reason = RejectReason.TOO_LATE if once_lived else RejectReason.UNKNOWN_ORDER
        return Rejected(command.account, command.client_id, reason)

    # --- halts and sessions ----------------------------------------------------------------------------------------

    def _halt(self, command: Halt) -> tuple[Event, ...]:
        if command.symbol is None:
            self._market_halt = command.reason
            return (Halted(None, 0, command.reason),)
        book = self._books.get(command.symbol)
        if book is None:
            return (Rejected(ADMIN, command.key, RejectReason.UNKNOWN_SYMBOL),)
        self._halts[command.symbol] = command.reason
        book.symbol_seq += 1
        return (Halted(command.symbol, book.symbol_seq, command.reason),)

    def _resume(self, command: Resume) -> tuple[Event, ...]:
        if command.symbol is None:
            self._market_halt = None
            return (Resumed(None, 0),)
        book = self._books.get(command.symbol)
        if book is None:
            return (Rejected(ADMIN, command.key, RejectReason.UNKNOWN_SYMBOL),)
        self._halts.pop(command.symbol, None)
        book.symbol_seq += 1
        return (Resumed(command.symbol, book.symbol_seq),)

    def _close_session(self) -> tuple[Event, ...]:
        self._session_open = False
        events: list[Event] = []
        for symbol in sorted(self._books):
            book = self._books[symbol]
            for order in (*book.bids.orders(), *book.asks.orders()):
                if order.time_in_force is not TimeInForce.DAY:
                    continue
                self._leave(order)
                book.symbol_seq += 1
                events.append(
                    Expired(
                        order.order_id, order.account, symbol, book.symbol_seq, order.side, order.price, order.quantity
                    )
                )
        events.append(SessionClosed())
        return tuple(events)

    def _open_session(self) -> tuple[Event, ...]:
        if not self._session_open:
            self._session_open = True
            self._known.clear()
            self._known_hash = hashlib.blake2b()
            self._known_hashed = 0
        return (SessionOpened(),)

    # --- state as a whole --------------------------------------------------------------------------------------------

    def state_hash(self) -> str:
        """Return 64 hexadecimal digits over everything that can change an answer; equal states, equal hashes.

        Takes time in proportion to the resting orders and the requests since the last call.
        """
        state = self._frame()
        digest = hashlib.blake2b(_encode(state), digest_size=32)
        for entry in islice(self._known.items(), self._known_hashed, None):
            self._known_hash.update(_encode(entry))
        self._known_hashed = len(self._known)
        digest.update(self._known_hash.digest())
        return digest.hexdigest()

    def freeze(self) -> Frozen:
        """Return the whole state as a value."""
        return Frozen(self._frame(), tuple((key, value) for key, value in self._known.items()))

    def _frame(self) -> Frame:
        return Frame(
            tuple(self.instruments[symbol] for symbol in sorted(self.instruments)),
            self._sequence,
            self._orders_made,
            self._trades_made,
            self._session_open,
            self._market_halt,
            tuple(sorted(self._halts.items())),
            tuple((symbol, self._books[symbol].symbol_seq) for symbol in sorted(self._books)),
            tuple(
                RestingOrder(
                    order.order_id, order.account, symbol, order.side, order.price, order.quantity, order.time_in_force
                )
                for symbol in sorted(self._books)
                for order in (*self._books[symbol].bids.orders(), *self._books[symbol].asks.orders())
            ),
        )

    @classmethod
    def thaw(cls, frozen: Frozen, instruments: Sequence[Instrument]) -> Engine:
        """Return an engine in the state that `freeze` gave.

        Raises:
            InputError: the state belongs to other instruments.
        """
        engine = cls(instruments)
        frame = frozen.frame
        if frame.instruments != engine._frame().instruments:
            raise InputError(
                "engine state", "it belongs to other instruments", right="give the instruments it was made with"
            )
        engine._sequence = frame.sequence
        engine._orders_made = frame.orders_made
        engine._trades_made = frame.trades_made
        engine._session_open = frame.session_open
        engine._market_halt = frame.market_halt
        engine._halts.update(frame.halts)
        for symbol, symbol_seq in frame.symbol_seqs:
            engine._books[symbol].symbol_seq = symbol_seq
        engine._put(frame.orders)
        engine._known.update(frozen.known)
        return engine

    def _put(self, orders: Iterable[RestingOrder]) -> None:
        for kept in orders:
            book = self._books[kept.symbol]
            order = Order(kept.order_id, kept.account, book, kept.side, kept.price, kept.quantity, kept.time_in_force)
            book.side(kept.side).rest(order)
            self._orders[kept.order_id] = order


class RestingOrder(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One resting order of a frozen state; the order of the list is the priority."""

    order_id: OrderId
    account: AccountId
    symbol: Symbol
    side: Side
    price: Ticks
    quantity: Lots
    time_in_force: TimeInForce


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """The state without the memory of client ids."""

    instruments: tuple[Instrument, ...]
    sequence: int
    orders_made: int
    trades_made: int
    session_open: bool
    market_halt: HaltReason | None
    halts: tuple[tuple[Symbol, HaltReason], ...]
    symbol_seqs: tuple[tuple[Symbol, int], ...]
    orders: tuple[RestingOrder, ...]


class Frozen(msgspec.Struct, frozen=True, array_like=True):
    """An engine's whole state as a value."""

    frame: Frame
    known: tuple[tuple[str, Known], ...]


def _is_id(text: str) -> bool:
    return 0 < len(text) <= MAX_ID_LENGTH and text.isascii() and text.isprintable()
