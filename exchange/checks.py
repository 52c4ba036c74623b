"""What an order must be to be taken (rules C3 to C16), in that order; the first that fails is the reason.

Nothing here trusts the type of a field: whoever uses the engine as a library may give anything.
"""

from __future__ import annotations

from typing import Final

from exchange.bands import edges
from exchange.book import ALL_OR_NONE, MARKET, STOP, STOP_LIMIT, Book, Order
from exchange.commands import Limit, Market, PlaceOrder, ReplaceOrder, Stop, StopLimit
from exchange.floor import Floor, need
from exchange.matching import would_trade
from exchange.types import (
    GATHERING,
    MAX_ID_LENGTH,
    MAX_PRICE_TICKS,
    MAX_QUANTITY_LOTS,
    AccountId,
    RejectReason,
    ReplaceQuantity,
    SelfTrade,
    Side,
    StopReached,
    TimeInForce,
    TradingPhase,
)
from kernel.time import SECOND

MAX_INSTANT: Final = (1 << 63) - 1
"""No later instant fits into a journal."""

_BUY: Final = Side.BUY
_CLOSED: Final = TradingPhase.CLOSED
_DAY: Final = TimeInForce.DAY
_GTT: Final = TimeInForce.GTT
_AT_ONCE: Final = frozenset({TimeInForce.IOC, TimeInForce.FOK})
_NO_SELF_TRADE: Final = SelfTrade.NONE
_STOPS: Final = frozenset({Stop, StopLimit})
_FOR_LONG: Final = frozenset({TimeInForce.GTC, TimeInForce.GTT})


def is_id(text: object) -> bool:
    """Tell whether an account or client id is one (C1)."""
    return isinstance(text, str) and 0 < len(text) <= MAX_ID_LENGTH and text.isascii() and text.isprintable()


def refuse_account(floor: Floor, account: AccountId) -> RejectReason | None:
    """Return why an account may not send a new or replaced order now (C3, C4)."""
    if account in floor.disabled:
        return RejectReason.ACCOUNT_DISABLED
    most = floor.venue.orders_per_second
    if most:
        sent = floor.rates.get(account)
        if sent is not None:
            while sent and sent[0] <= floor.clock - SECOND:
                sent.popleft()
            if len(sent) >= most:
                return RejectReason.RATE_LIMITED
            if not sent:
                del floor.rates[account]
    return None


def refuse_phase(floor: Floor, book: Book | None, *, at_once: bool) -> RejectReason | None:
    """Return why the phase refuses an order; `at_once`: it could not wait for a cross (C5)."""
    phase = floor.phase if book is None else book.phase
    if floor.phase is _CLOSED:
        return RejectReason.SESSION_CLOSED
    if floor.halt is not None:
        return RejectReason.HALTED
    if phase is _CLOSED:
        return RejectReason.SESSION_CLOSED
    if book is not None and book.halt is not None:
        return RejectReason.HALTED
    if phase is TradingPhase.POST_CLOSE:
        return RejectReason.WRONG_PHASE
    gathers = phase in GATHERING or floor.paused_until or (book is not None and book.paused_until)
    return RejectReason.WRONG_PHASE if at_once and gathers else None


def refuse_new(  # noqa: C901, PLR0911, PLR0912 - the table in its order, without a call for each line of it
    floor: Floor, command: PlaceOrder, book: Book | None
) -> RejectReason | None:
    """Return why a new order is refused; None when it is taken."""
    if floor.disabled or floor.venue.orders_per_second:
        reason = refuse_account(floor, command.account)
        if reason is not None:
            return reason
    terms = command.terms
    if book is None or not book.trading:
        unseen = type(terms) is Limit and bool(terms.post_only or terms.all_or_none)
        reason = refuse_phase(floor, book, at_once=unseen or _is_at_once(command.time_in_force))
        if reason is not None:
            return reason
        if book is None:
            return RejectReason.UNKNOWN_SYMBOL
    if _bad_combination(command):
        return RejectReason.BAD_COMBINATION
    quantity = command.quantity
    if type(terms) is Limit:
        price = terms.price
        if not is_quantity(book, quantity):
            return RejectReason.BAD_QUANTITY
        if type(price) is not int or not 0 < price <= MAX_PRICE_TICKS or price % book.instrument.tick_step:
            return RejectReason.BAD_PRICE
        if type(terms.display) is not int or (terms.display and not _is_display(book, terms.display, quantity)):
            return RejectReason.BAD_DISPLAY
        if not book.low <= price <= book.high:
            return RejectReason.PRICE_OUT_OF_BAND
        if not _is_notional(book, price, quantity):
            return RejectReason.BAD_NOTIONAL
        if command.time_in_force is _GTT and not floor.clock < command.expires_at <= MAX_INSTANT:
            return RejectReason.BAD_EXPIRY
        if floor.holds and _is_unfunded(floor, book, command.side, command.account, price, quantity):
            return refuse_funds(command.side)
        if terms.post_only and would_trade_at(book, command.side, price, quantity):
            return RejectReason.POST_ONLY_WOULD_TRADE
        return None
    return _refuse_other(floor, command, book)


def _is_at_once(time_in_force: object) -> bool:
    return isinstance(time_in_force, TimeInForce) and time_in_force in _AT_ONCE


def _bad_combination(command: PlaceOrder) -> bool:  # noqa: PLR0911 - a table of cases
    """Tell whether type, time in force and flags do not go together, or are not what they say (C7, F17)."""
    lasts, terms, expires_at = command.time_in_force, command.terms, command.expires_at
    if type(lasts) is not TimeInForce or type(command.side) is not Side or type(expires_at) is not int:
        return True
    if type(command.self_trade) is not SelfTrade or type(command.session) is not str:
        return True
    if (lasts is _GTT) != (expires_at != 0):
        return True
    if type(terms) is Limit:
        post_only: object = terms.post_only
        unseen: object = terms.all_or_none
        if type(post_only) is not bool or type(unseen) is not bool:
            return True
        if lasts is _DAY and not unseen:
            return False
        displays = bool(terms.display)
        return (post_only or unseen or displays) if lasts in _AT_ONCE else unseen and (post_only or displays)
    if type(terms) is Market:
        return lasts in _FOR_LONG
    return type(terms) not in _STOPS or lasts in _AT_ONCE


def is_quantity(book: Book, quantity: object) -> bool:
    """Tell whether a quantity is one of the instrument (C8)."""
    if type(quantity) is not int or not 0 < quantity <= MAX_QUANTITY_LOTS:
        return False
    instrument = book.instrument
    return instrument.min_quantity <= quantity <= instrument.max_quantity and not quantity % instrument.lot_step


def _is_price(book: Book, price: object) -> bool:
    return type(price) is int and 0 < price <= MAX_PRICE_TICKS and not price % book.instrument.tick_step


def _is_display(book: Book, display: object, quantity: int) -> bool:
    return type(display) is int and 0 <= display <= quantity and not display % book.instrument.lot_step


def _is_notional(book: Book, price: int, quantity: int) -> bool:
    instrument = book.instrument
    least, most = instrument.min_notional, instrument.max_notional
    if not (least or most):
        return True
    notional = price * quantity * book.money
    return least <= notional and (not most or notional <= most)


def _is_unfunded(
    floor: Floor, book: Book, side: Side, account: AccountId, price: int, quantity: int, held: int = 0
) -> bool:
    """Tell whether an account has too little for an order; `held` is what the order holds already (C14)."""
    wanted = need(book, side, price, quantity) - held
    return wanted > (floor.free_cash(account) if side is _BUY else floor.free_position(book, account))


def refuse_funds(side: Side) -> RejectReason:
    """Return what an order of that side lacks."""
    return RejectReason.INSUFFICIENT_FUNDS if side is _BUY else RejectReason.INSUFFICIENT_POSITION


def would_trade_at(book: Book, side: Side, price: int, quantity: int) -> bool:
    """Tell whether a limit order would trade at once within the moving band (C16)."""
    if book.luld_ppm:
        lower, upper = edges(book)
        price = min(price, upper) if side is _BUY else max(price, lower)
    other = book.asks if side is _BUY else book.bids
    return would_trade(side, other, price * other.sign, quantity)


def _refuse_other(floor: Floor, command: PlaceOrder, book: Book) -> RejectReason | None:  # noqa: PLR0911 - a table of reasons
    """Check an order that is no plain limit order (C8 to C16)."""
    terms, quantity, side = command.terms, command.quantity, command.side
    if not is_quantity(book, quantity):
        return RejectReason.BAD_QUANTITY
    price = 0
    if isinstance(terms, Stop | StopLimit):
        reason = _refuse_stop_figures(book, terms, quantity)
        if reason is not None:
            return reason
        price = terms.price if isinstance(terms, StopLimit) else 0
    if command.time_in_force is _GTT and not floor.clock < command.expires_at <= MAX_INSTANT:
        return RejectReason.BAD_EXPIRY
    if floor.holds and _is_unfunded(floor, book, side, command.account, price, quantity):
        return refuse_funds(side)
    if isinstance(terms, Market):
        other = book.asks if side is _BUY else book.bids
        if book.trading and not other.keys and not any(one.quantity <= quantity for one in other.all_or_none):
            return RejectReason.NO_LIQUIDITY
    elif isinstance(terms, Stop | StopLimit) and floor.venue.stop_reached is StopReached.REJECT:
        sign = 1 if side is _BUY else -1
        if book.last_price and terms.trigger * sign <= book.last_price * sign:
            return RejectReason.STOP_REACHED
    return None


def _refuse_stop_figures(book: Book, terms: Stop | StopLimit, quantity: int) -> RejectReason | None:
    prices = (terms.price, terms.trigger) if isinstance(terms, StopLimit) else (terms.trigger,)
    if not all(_is_price(book, price) for price in prices):
        return RejectReason.BAD_PRICE
    if isinstance(terms, StopLimit) and not _is_display(book, terms.display, quantity):
        return RejectReason.BAD_DISPLAY
    if not all(book.low <= price <= book.high for price in prices):
        return RejectReason.PRICE_OUT_OF_BAND
    if isinstance(terms, StopLimit) and not _is_notional(book, terms.price, quantity):
        return RejectReason.BAD_NOTIONAL
    return None


def refuse_replacement_now(floor: Floor, command: ReplaceOrder, order: Order | None) -> RejectReason | None:
    """Return why no replacement is taken from the account, or of that order, now (C3 to C5)."""
    if floor.disabled or floor.venue.orders_per_second:
        reason = refuse_account(floor, command.account)
        if reason is not None:
            return reason
    book = None if order is None else order.book
    if book is not None and book.trading:
        return None
    unseen = order is not None and (order.post_only or order.kind == ALL_OR_NONE)
    return refuse_phase(floor, book, at_once=unseen)


def new_open(floor: Floor, order: Order, quantity: int) -> int:
    """Return what would be open of an order after a replacement to `quantity` (F15)."""
    return quantity - order.filled if floor.venue.replace_quantity is ReplaceQuantity.TOTAL else quantity


def refuse_replacement(  # noqa: PLR0911 - a table of reasons
    floor: Floor, command: ReplaceOrder, order: Order
) -> RejectReason | None:
    """Check an order as it would be after a replacement (C8 to C16)."""
    book, given = order.book, command.quantity
    if type(given) is not int or given < 1:
        return RejectReason.BAD_QUANTITY
    quantity = new_open(floor, order, given)
    if quantity < 1:
        return RejectReason.TOO_LATE
    if not is_quantity(book, quantity):
        return RejectReason.BAD_QUANTITY
    priced = order.kind not in {MARKET, STOP}
    price = command.price if priced else 0
    trigger = command.trigger if order.kind in {STOP, STOP_LIMIT} and command.trigger is not None else order.trigger
    prices = ((price,) if priced else ()) + ((trigger,) if order.kind in {STOP, STOP_LIMIT} else ())
    if not all(_is_price(book, one) for one in prices):
        return RejectReason.BAD_PRICE
    if not all(book.low <= one <= book.high for one in prices):
        return RejectReason.PRICE_OUT_OF_BAND
    if priced and not _is_notional(book, price, quantity):
        return RejectReason.BAD_NOTIONAL
    if floor.holds and _is_unfunded(floor, book, order.side, order.account, price, quantity, order.held):
        return refuse_funds(order.side)
    moves = price != order.price or quantity > order.quantity + order.hidden
    if order.post_only and moves and would_trade_at(book, order.side, price, quantity):
        return RejectReason.POST_ONLY_WOULD_TRADE
    return None
