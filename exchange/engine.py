"""The exchange's state machine: sequenced commands in, events out, nothing else.

The same commands always give the same events and the same `state_hash`. A command the rules refuse comes back as
`Rejected` and changes nothing but the memory of its client id. `docs/exchange-rules.md` is the table of the rules; the
modules beside this one each hold a part of them and cite its numbers:

    checks      what an order must be           orders   place, replace, cancel
    matching    continuous trading              stops    triggers and cascades
    auction     crosses                         bands    moving band, limit state
    session     phases, halts, what is due      floor    the state all of them work on
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final, get_args

import msgspec
from msgspec.structs import astuple

from exchange.auction import equilibrium
from exchange.bands import edges
from exchange.blotter import Blotter, Carried
from exchange.book import Account, Amount, Book, Depth, Top
from exchange.checks import MAX_INSTANT, is_id, refuse_phase
from exchange.commands import (
    AdminCommand,
    CancelOrder,
    CloseSession,
    Command,
    DisableAccount,
    EnableAccount,
    Fund,
    Halt,
    MassCancel,
    OpenSession,
    PlaceOrder,
    ReplaceOrder,
    Resume,
    Sequenced,
    SetPhase,
    Tick,
)
from exchange.events import Event, Rejected, Ticked, Traded
from exchange.floor import Floor
from exchange.frozen import Frozen, Known, fingerprint, floor_of, frame_of
from exchange.ledger import CASH
from exchange.listing import refuse_contradictions
from exchange.operators import ADMIN, fund, switch
from exchange.orders import cancel, mass_cancel, place, replace
from exchange.session import (
    close_session,
    halt,
    let_due_happen,
    look_after,
    next_due,
    open_session,
    resume,
    turn,
)
from exchange.types import (
    GATHERING,
    MAX_ID_LENGTH,
    AccountId,
    ClientId,
    HaltReason,
    Instrument,
    Lots,
    OrderId,
    RejectReason,
    Side,
    Symbol,
    Ticks,
    TradingPhase,
    Venue,
)
from exchange.views import BookView, Indicative, OrderView, Queued, UnknownSymbolError, levels_of, view_of
from kernel.errors import PermanentError
from kernel.time import Instant

_BAD_CLIENT_ID: Final = RejectReason.BAD_CLIENT_ID
_PARTICIPANTS: Final = (PlaceOrder, CancelOrder, ReplaceOrder, MassCancel)
_FROM_ACCOUNTS: Final = frozenset(_PARTICIPANTS)
_FROM_OPERATORS: Final = frozenset(get_args(AdminCommand))
_KNOWN: Final = Known
_SEQUENCED: Final = Sequenced
_PLACE: Final = PlaceOrder
_CANCEL: Final = CancelOrder
_REPLACE: Final = ReplaceOrder
"""Names of other modules are looked up each time they are used; this is not."""
_encode: Final = msgspec.msgpack.Encoder().encode

__all__ = ["ADMIN", "Engine", "Frozen", "Known", "Queued", "fingerprint", "identity"]


def identity(command: Command) -> tuple[AccountId, ClientId]:
    """Return under which account and id a command is remembered."""
    if isinstance(command, _PARTICIPANTS):
        return command.account, command.client_id
    return ADMIN, command.key


class Engine:
    """A deterministic exchange: all books, accounts, phases, timers and the memory of client ids."""

    __slots__ = (
        "_blotter",
        "_carried",
        "_floor",
        "_known_hash",
        "_known_hashed",
        "_operators",
        "_sequence",
        "instruments",
    )

    def __init__(self, instruments: Sequence[Instrument], venue: Venue | None = None) -> None:
        venue = Venue() if venue is None else venue
        refuse_contradictions(instruments, venue)
        self._floor = Floor(instruments, venue)
        self.instruments: Final = {instrument.symbol: instrument for instrument in instruments}
        self._operators = Account(ADMIN, Amount())
        """Remembers the keys of admin commands; it has nothing."""
        self._known_hash = hashlib.blake2b()
        self._known_hashed = 0
        """Up to which sequence number the remembered requests are in the hash."""
        self._sequence = 0
        self._carried: tuple[Carried, ...] = ()
        """The orders that lived when the requests of the day before were forgotten."""
        self._blotter: Blotter | None = None
        """A reading of what is remembered; none before somebody asks for it."""

    # --- what is asked ---------------------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """The sequence number of the last command applied; 0 before the first."""
        return self._sequence

    @property
    def venue(self) -> Venue:
        """The conventions this exchange keeps."""
        return self._floor.venue

    @property
    def clock(self) -> Instant:
        """The latest instant the engine was given."""
        return Instant(self._floor.clock)

    @property
    def session_open(self) -> bool:
        """Whether the market is in any phase but closed, halts aside."""
        return self._floor.phase is not TradingPhase.CLOSED

    @property
    def market_halted(self) -> bool:
        """Whether the whole market stands still."""
        return self._floor.halt is not None

    @property
    def market_halt_reason(self) -> HaltReason | None:
        """Why the whole market stands still; None when it does not."""
        return self._floor.halt

    @property
    def market_phase(self) -> TradingPhase:
        """The phase of the whole market."""
        return self._floor.phase

    @property
    def market_paused_until(self) -> Instant:
        """When the market-wide pause ends; 0 when there is none."""
        return Instant(self._floor.paused_until)

    @property
    def breaker_level(self) -> int:
        """The highest level that the market's fall reached this session; 0: none."""
        return self._floor.breaker_level

    @property
    def resting_orders(self) -> int:
        """How many orders live: in all books, and waiting beside them."""
        return len(self._floor.orders)

    @property
    def orders_made(self) -> int:
        """How many order ids were given out."""
        return self._floor.orders_made

    def open_notional(self) -> int:
        """Return price times quantity of all that rests in the books, in ticks times lots.

        It looks at every level when it is asked, so that matching pays nothing for it.
        """
        return sum(book.bids.notional() + book.asks.notional() for book in self._floor.sorted_books)

    def halted_symbols(self) -> tuple[Symbol, ...]:
        """Return the symbols that stand still on their own, sorted."""
        return tuple(book.symbol for book in self._floor.sorted_books if book.halt is not None)

    def top(self, symbol: Symbol) -> Top:
        """Return a symbol's best bid and offer.

        Raises:
            UnknownSymbolError: the symbol is not listed (so with every question about a symbol); a `KeyError`, too.
        """
        return self._book(symbol).top()

    def depth(self, symbol: Symbol, levels: int) -> Depth:
        """Return the best `levels` levels of a symbol, as they are shown."""
        return self._book(symbol).depth(levels)

    def book(self, symbol: Symbol) -> BookView:
        """Return a symbol's shown book with the orders of each price in the order in which they trade."""
        book = self._book(symbol)
        return BookView(symbol, levels_of(book.bids), levels_of(book.asks))

    def queue(self, symbol: Symbol, side: Side) -> tuple[Queued, ...]:
        """Return the shown orders of a side, best price first, in the order in which they trade."""
        orders = self._book(symbol).side(side).orders()
        return tuple(Queued(Ticks(one.price), one.order_id, Lots(one.quantity)) for one in orders)

    def order(self, order_id: OrderId) -> OrderView | None:
        """Return what is known of an order; None when the id was never given out.

        How an order ended is known until the market opens from closed. Asked for one that ended, for `fills` or for an
        `average_price`, it reads what the commands since it was last asked did: the first time the whole day.
        """
        order = self._floor.orders.get(order_id)
        if order is not None:
            return view_of(order)
        return self._read().ended(order_id) if 0 < order_id <= self._floor.orders_made else None

    def fills(self, order_id: OrderId) -> tuple[Traded, ...]:
        """Return an order's trades since the market last opened from closed, the oldest first."""
        return self._read().fills(order_id)

    def average_price(self, order_id: OrderId) -> Fraction | None:
        """Return the mean price of what traded of an order, in ticks, exactly; None when nothing has.

        None, too, when some of it traded before the market last opened from closed.
        """
        return self._read().average_price(order_id)

    def _read(self) -> Blotter:
        blotter = Blotter(self._carried) if self._blotter is None else self._blotter
        self._blotter = blotter
        if blotter.read_to < self._sequence:
            for _, _, known in self._remembered(blotter.read_to):
                blotter.take(known.events)
            blotter.read_to = self._sequence
        return blotter

    def orders(self, account: AccountId) -> tuple[OrderView, ...]:
        """Return an account's live orders by id. Looks at every live order."""
        mine = [order for order in self._floor.orders.values() if order.account == account]
        return tuple(view_of(order) for order in sorted(mine, key=lambda order: order.order_id))

    def live(self) -> tuple[tuple[OrderId, Lots], ...]:
        """Return every live order, stops and unseen ones too, by id, with what is open of it."""
        orders = self._floor.orders
        return tuple((order_id, Lots(orders[order_id].open)) for order_id in sorted(orders))

    def balance(self, account: AccountId, asset: str) -> int:
        """Return what an account has: millionths of `$cash`, lots of a symbol."""
        amount = self._amounts(asset).get(account)
        return 0 if amount is None else amount.has

    def balances(self) -> dict[tuple[AccountId, str], int]:
        """Return every balance that is not zero, by account and asset."""
        found: dict[tuple[AccountId, str], int] = {
            (account, str(CASH)): amount.has for account, amount in self._floor.cash.items() if amount.has
        }
        for book in self._floor.sorted_books:
            for account, lots in book.positions.items():
                if lots.has:
                    found[account, str(book.symbol)] = lots.has
        return found

    def held(self, account: AccountId, asset: str) -> int:
        """Return how much of what an account has its orders hold (M4)."""
        amount = self._amounts(asset).get(account)
        return 0 if amount is None else amount.held

    def _book(self, symbol: Symbol) -> Book:
        book = self._floor.books.get(symbol)
        if book is None:
            raise UnknownSymbolError(symbol, self._floor.books)
        return book

    def _amounts(self, asset: str) -> dict[AccountId, Amount]:
        return self._floor.cash if asset == CASH else self._book(Symbol(asset)).positions

    def free(self, account: AccountId, asset: str) -> int:
        """Return what an account has less what is held (M5)."""
        return self.balance(account, asset) - self.held(account, asset)

    def disabled_accounts(self) -> tuple[AccountId, ...]:
        """Return the accounts that are switched off, sorted."""
        return tuple(sorted(self._floor.disabled))

    def last_price(self, symbol: Symbol) -> Ticks | None:
        """Return the price of a symbol's last trade; None before the first."""
        price = self._book(symbol).last_price
        return Ticks(price) if price else None

    def indicative(self, symbol: Symbol) -> Indicative | None:
        """Return what a cross of a symbol would do now; None when nothing would trade."""
        found = equilibrium(self._book(symbol), self._floor.venue.cross_prices)
        return None if found is None else Indicative(Ticks(found.price), Lots(found.volume), found.surplus)

    def phase(self, symbol: Symbol) -> TradingPhase:
        """Return a symbol's phase, its halts and pauses aside."""
        return self._book(symbol).phase

    def paused_until(self, symbol: Symbol) -> Instant:
        """Return when a symbol's own pause ends; 0 when there is none."""
        return Instant(self._book(symbol).paused_until)

    def limit_state(self, symbol: Symbol) -> tuple[Ticks, Ticks] | None:
        """Return the moving band at whose end a symbol's best price stands (B4); None when it does not."""
        book = self._book(symbol)
        lower, upper = edges(book) if book.limited else (0, 0)
        return (Ticks(lower), Ticks(upper)) if book.limited else None

    def gathers(self, symbol: Symbol) -> bool:
        """Tell whether a symbol's orders wait for a cross, so that its book may be crossed."""
        book = self._book(symbol)
        return book.gathered or (
            not book.trading and (book.phase in GATHERING or book.paused_until > 0 or self._floor.paused_until > 0)
        )

    def due_at(self) -> Instant | None:
        """Return the next instant at which something happens by itself; None when nothing will.

        A `Tick` then, or any later command, lets it happen.
        """
        due = next_due(self._floor)
        return None if due is None else Instant(due)

    def symbol_seq(self, symbol: Symbol) -> int:
        """Return the number of the symbol's last event; 0 before the first."""
        return self._book(symbol).symbol_seq

    def known(self, account: AccountId, client_id: ClientId) -> Known | None:
        """Return what is remembered of a request; `account` is `ADMIN` for the keys of admin commands."""
        who = self._operators if account == ADMIN else self._floor.accounts.get(account)
        found: Known | None = None if who is None else who.known.get(client_id)
        return found

    def would_refuse(self, command: Command) -> RejectReason | None:
        """Return why the session or a halt would refuse a command now; None if neither would.

        For the check before sequencing: whatever this refuses can be sent again later under the same client id.
        """
        if type(command) is _PLACE:
            book = self._floor.books.get(command.symbol)
            # A book that trades is refused by no phase: the usual case, told without a call.
            return None if book is not None and book.trading else refuse_phase(self._floor, book, at_once=False)
        if isinstance(command, ReplaceOrder):
            order = self._floor.orders.get(command.order_id)
            return refuse_phase(self._floor, None if order is None else order.book, at_once=False)
        return None

    # --- what is done ----------------------------------------------------------------------------------------------

    def apply(self, item: Sequenced | Command) -> tuple[Event, ...]:  # noqa: C901, PLR0912 - one pass: calls cost
        """Carry out the next command and return all it caused, in order, what was due before it first.

        A command on its own is taken as the next one, at the instant of the engine's clock.

        Raises:
            PermanentError: the sequence number is not the next one, what was given is no command, or the instant is
                none that a journal holds; nothing changed.
        """
        floor = self._floor
        events: list[Event] = []
        asked: Any = item  # nothing is known of the types of its fields yet
        seq = self._sequence + 1
        at: Any = floor.clock
        if type(item) is _SEQUENCED:
            given, at, asked, _ = astuple(item)
            if type(given) is not int or given != seq:
                raise self._wrong(f"command {given}; it takes the next one only")
        kind = type(asked)
        fields: tuple[Any, ...] = ()  # all in one call: each read of one costs compiled code a search
        whose: Any = ADMIN
        its: Any
        who: Account | None = self._operators
        if kind in _FROM_ACCOUNTS:
            fields = astuple(asked)
            whose, its = fields[0], fields[1]
            who = floor.accounts.get(whose) if type(whose) is str else None
        elif kind in _FROM_OPERATORS:
            its = asked.key
        else:
            raise self._wrong(f"a {kind.__name__}; it takes commands")
        if type(at) is not int or not -MAX_INSTANT <= at <= MAX_INSTANT:
            raise self._wrong(f"{at!r} for an instant")
        if at > floor.clock:
            if at >= floor.next_due:
                let_due_happen(floor, events, at)
            floor.clock = at
        self._sequence = seq
        if who is None and is_id(whose) and whose[0] != "$":
            who = floor.account(whose)
        # The whole of `is_id`, without a call: this one id is new with every request.
        if who is None or type(its) is not str or not (0 < len(its) <= MAX_ID_LENGTH and its.isascii()
                                                       and its.isprintable()):  # fmt: skip
            return self._refuse(events, Rejected(whose, its, _BAD_CLIENT_ID))
        if its in who.known:
            return self._refuse(events, Rejected(whose, ClientId(its), RejectReason.DUPLICATE_CLIENT_ID))
        traded, floor.met_before = floor.trades_made, floor.trades_made + floor.prevented
        if kind is _PLACE:
            place(floor, events, who, fields)
        elif kind is _CANCEL:
            cancel(floor, events, asked, fields)
        elif kind is _REPLACE:
            replace(floor, events, who, asked)
        else:
            self._carry_out_rarer(events, asked)
        if floor.watches:
            look_after(floor, events, traded)
        told = tuple(events)
        who.known[its] = _KNOWN(seq, asked, told)
        return told

    def _refuse(self, events: list[Event], refusal: Rejected) -> tuple[Event, ...]:
        """Return the answer to a request that is not remembered; what was due before it is, under a name of no key."""
        if events:
            self._operators.known[ClientId(f"\0{self._sequence}")] = _KNOWN(self._sequence, b"", tuple(events))
        return (*events, refusal)

    def _wrong(self, what: str) -> PermanentError:
        return PermanentError(f"engine at sequence {self._sequence} was given {what}")

    def _carry_out_rarer(self, events: list[Event], command: Command) -> None:
        """Carry out what is rarer than orders and cancels."""
        floor = self._floor
        match command:
            case MassCancel():
                mass_cancel(floor, events, command)
            case Tick():
                events.append(Ticked())
            case CloseSession():
                close_session(floor, events)
            case OpenSession():
                self._open_session(events, command)
            case Fund():
                fund(self._floor, events, command)
            case DisableAccount() | EnableAccount():
                switch(self._floor, events, command)
            case Halt() | Resume() | SetPhase():
                self._turn(events, command)
            case _:
                raise AssertionError(f"{type(command).__name__} is carried out elsewhere")

    def _turn(self, events: list[Event], command: Halt | Resume | SetPhase) -> None:
        floor = self._floor
        asked: Any = command
        symbol: Any = asked.symbol
        book = floor.find(symbol)
        if symbol is not None and book is None:
            events.append(Rejected(ADMIN, command.key, RejectReason.UNKNOWN_SYMBOL))
        elif isinstance(command, Halt) and type(asked.reason) is HaltReason:
            halt(floor, events, book, command.reason)
        elif isinstance(command, Resume) and type(asked.auction) is bool:
            resume(floor, events, book, auction=command.auction)
        elif isinstance(command, SetPhase) and type(asked.phase) is TradingPhase:
            turn(floor, events, book, command.phase)
        else:
            events.append(Rejected(ADMIN, command.key, RejectReason.BAD_COMBINATION))

    def _open_session(self, events: list[Event], command: OpenSession) -> None:
        asked: Any = command
        if type(asked.phase) is not TradingPhase or command.phase is TradingPhase.CLOSED:
            events.append(Rejected(ADMIN, command.key, RejectReason.BAD_COMBINATION))
            return
        if not self.session_open:
            self._forget_requests()
        open_session(self._floor, events, command.phase)

    def _forget_requests(self) -> None:
        """Forget every client id: a new day begins (C2)."""
        for who in (self._operators, *self._floor.accounts.values()):
            who.known = {}
        live = self._floor.orders
        self._carried = tuple((one, live[one].client_id, live[one].price, live[one].filled) for one in sorted(live))
        self._blotter = None
        self._known_hash, self._known_hashed = self._begun_hash(), 0

    # --- state as a whole --------------------------------------------------------------------------------------------

    def state_hash(self) -> str:
        """Return 64 hexadecimal digits over everything that can change an answer; equal states, equal hashes.

        Takes time in proportion to the live orders and the requests since the last call.
        """
        digest = hashlib.blake2b(_encode(frame_of(self._floor, self._sequence)), digest_size=32)
        for _, key, known in self._remembered(self._known_hashed):
            self._known_hash.update(_encode((key, known.kept())))
        self._known_hashed = self._sequence
        digest.update(self._known_hash.digest())
        return digest.hexdigest()

    def _remembered(self, after: int) -> list[tuple[int, str, Known]]:
        """Return the requests after a sequence number in their order: number, account and client id, what is known."""
        found: list[tuple[int, str, Known]] = []
        for who in (self._operators, *self._floor.accounts.values()):
            # What an account sent last stands last: nobody looks at what was there before.
            for client_id in reversed(who.known):
                known: Known = who.known[client_id]
                if known.seq <= after:
                    break
                found.append((known.seq, f"{who.name}\n{client_id}", known))
        found.sort(key=_by_seq)
        return found

    def freeze(self) -> Frozen:
        """Return the whole state as a value."""
        known = tuple((key, known.kept()) for _, key, known in self._remembered(0))
        return Frozen(frame_of(self._floor, self._sequence), known, self._carried)

    @classmethod
    def thaw(cls, frozen: Frozen, instruments: Sequence[Instrument], venue: Venue | None = None) -> Engine:
        """Return an engine in the state that `freeze` gave.

        Raises:
            InputError: the state belongs to other instruments or another venue.
        """
        engine = cls(instruments, venue)
        engine.restore(frozen)
        return engine

    def snapshot(self) -> Frozen:
        """Return the whole state as a value: `freeze` under the name users look for."""
        return self.freeze()

    def restore(self, frozen: Frozen) -> None:
        """Go back (or forth) to the state of a snapshot of the same instruments and venue.

        Raises:
            InputError: the state belongs to other instruments or another venue; nothing changed.
        """
        self._floor = floor_of(frozen.frame, tuple(self.instruments.values()), self.venue)
        self._sequence = frozen.frame.sequence
        self._operators = Account(ADMIN, Amount())
        for key, one in frozen.known:
            account, _, client_id = key.partition("\n")
            who = self._floor.account(AccountId(account)) if account else self._operators
            who.known[client_id] = Known(one.seq, one.fingerprint, one.events)
        self._carried, self._blotter = frozen.carried, None
        self._known_hash, self._known_hashed = self._begun_hash(), 0

    def _begun_hash(self) -> Any:
        """Return the hash of what is remembered when no request of the day is."""
        return hashlib.blake2b(_encode(self._carried) if self._carried else b"")


def _by_seq(one: tuple[int, str, Known]) -> int:
    return one[0]
