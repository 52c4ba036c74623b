"""What an order must be to be taken (rules C3 to C16), in that order; the first that fails is the reason.

Nothing here trusts the type of a field: whoever uses the engine as a library may give anything. So a field is read as
`Any` until it was looked at; compiled code would raise an error where a wrong type is met, not refuse it.
"""

from __future__ import annotations

from typing import Any, Final

from exchange.bands import edges
from exchange.book import ALL_OR_NONE, MARKET, STOP, STOP_LIMIT, Account, Book, Order
from exchange.commands import Limit, Market, ReplaceOrder, Stop, StopLimit
from exchange.floor import Floor, need
from exchange.matching import would_trade
from exchange.types import (
    GATHERING,
    MAX_ID_LENGTH,
    MAX_PRICE_TICKS,
    RejectReason,
    ReplaceQuantity,
    SelfTrade,
    Side,
    StopReached,
    TimeInForce,
    TradingPhase,
)
from kernel.time import SECOND

MOST_PARTS: Final = 10_000
"""In so many parts an iceberg may be shown at most: one command trades with all of them (C10)."""
MAX_INSTANT: Final = (1 << 63) - 1
"""No later instant fits into a journal."""

_BUY: Final = Side.BUY
_CLOSED: Final = TradingPhase.CLOSED
_GTT: Final = TimeInForce.GTT
_AT_ONCE: Final = frozenset({TimeInForce.IOC, TimeInForce.FOK})
_NO_SELF_TRADE: Final = SelfTrade.NONE
_LIMIT: Final = Limit
_SIDE: Final = Side
_LASTS: Final = TimeInForce
_SELF_TRADE: Final = SelfTrade
_SECOND: Final[int] = SECOND
"""Names of other modules are looked up each time they are used; these are not."""
_STOPS: Final = frozenset({Stop, StopLimit})
_FOR_LONG: Final = frozenset({TimeInForce.GTC, TimeInForce.GTT})


def is_id(text: object) -> bool:
    """Tell whether an account or client id is one (C1)."""
    # A subclass of str is none: no journal and no snapshot would hold it.
    return type(text) is str and 0 < len(text) <= MAX_ID_LENGTH and text.isascii() and text.isprintable()


def refuse_account(floor: Floor, account: Account) -> RejectReason | None:
    """Return why an account may not send a new or replaced order now (C3, C4)."""
    if account.name in floor.disabled:
        return RejectReason.ACCOUNT_DISABLED
    sent = account.sent
    if sent:
        oldest = floor.clock - _SECOND
        while sent and sent[0] <= oldest:
            sent.popleft()
        if len(sent) >= floor.most:
            return RejectReason.RATE_LIMITED
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


def refuse_new(  # noqa: C901, PLR0911, PLR0912 - the table in its order; fields are read once
    floor: Floor,
    book: Book | None,
    account: Account,
    fields: tuple[Any, ...],
    limit: tuple[Any, ...],
) -> RejectReason | None:
    """Return why a new order is refused, if it is; `fields` of `PlaceOrder`, `limit` those of `Limit`, or empty."""
    _, _, _, side, quantity, terms, lasts, expires_at, self_trade, session = fields
    plain = bool(limit)
    sent = account.sent
    if floor.disabled or (sent and (sent[0] <= floor.clock - _SECOND or len(sent) >= floor.most)):
        reason = refuse_account(floor, account)
        if reason is not None:
            return reason
    if book is None or not book.trading:
        at_once = type(terms) not in _STOPS and _is_at_once(lasts)  # a stop waits, whatever it does then
        reason = refuse_phase(floor, book, at_once=at_once or (plain and bool(limit[1] or limit[3])))
        if reason is not None:
            return reason
        if book is None:
            return RejectReason.UNKNOWN_SYMBOL
    if type(lasts) is not _LASTS or type(side) is not _SIDE or type(self_trade) is not _SELF_TRADE:
        return RejectReason.BAD_COMBINATION
    is_timed = type(expires_at) is int and (lasts is _GTT) == (expires_at != 0)
    if not is_timed or type(session) is not str or (session and not is_id(session)):
        return RejectReason.BAD_COMBINATION
    if not plain:
        return _refuse_other(floor, book, account, side, quantity, terms, lasts, expires_at)
    price, post_only, display, hides = limit
    if type(post_only) is not bool or type(hides) is not bool:
        return RejectReason.BAD_COMBINATION
    if (hides or lasts in _AT_ONCE) and _contradict(lasts, post_only, hides, display):
        return RejectReason.BAD_COMBINATION
    lots: int = quantity if type(quantity) is int else 0
    if not book.least <= lots <= book.most or lots % book.lot_step:
        return RejectReason.BAD_QUANTITY
    ticks: int = price if type(price) is int else 0
    if not 0 < ticks <= MAX_PRICE_TICKS or ticks % book.tick_step:
        return RejectReason.BAD_PRICE
    if type(display) is not int or (display and not _is_display(book, display, lots)):
        return RejectReason.BAD_DISPLAY
    if not book.low <= ticks <= book.high:
        return RejectReason.PRICE_OUT_OF_BAND
    if book.notional_limits and not _is_notional(book, ticks, lots):
        return RejectReason.BAD_NOTIONAL
    if lasts is _GTT and not floor.clock < expires_at <= MAX_INSTANT:
        return RejectReason.BAD_EXPIRY
    if floor.holds:
        if side is _BUY:
            wanted = need(book, side, ticks, lots)
            short = wanted > account.cash.has - account.cash.held
        else:
            stock = book.positions.get(account.name)
            short = stock is None or lots > stock.has - stock.held
        if short:
            return refuse_funds(side)
    if post_only and would_trade_at(book, side, ticks, lots):
        return RejectReason.POST_ONLY_WOULD_TRADE
    return None


def _is_at_once(time_in_force: object) -> bool:
    return isinstance(time_in_force, TimeInForce) and time_in_force in _AT_ONCE


def _contradict(lasts: TimeInForce, post_only: bool, unseen: bool, display: Any) -> bool:  # noqa: FBT001 - flags
    """Tell whether a limit order's time in force and flags do not go together (C7, F17)."""
    displays = bool(display)
    return (post_only or unseen or displays) if lasts in _AT_ONCE else unseen and (post_only or displays)


def is_quantity(book: Book, quantity: object) -> bool:
    """Tell whether a quantity is one of the instrument (C8)."""
    if type(quantity) is not int:
        return False
    return book.least <= quantity <= book.most and not quantity % book.lot_step


def _is_price(book: Book, price: object) -> bool:
    return type(price) is int and 0 < price <= MAX_PRICE_TICKS and not price % book.tick_step


def _is_display(book: Book, display: object, quantity: int) -> bool:
    if type(display) is not int or not 0 <= display <= quantity or display % book.lot_step:
        return False
    return not display or (quantity <= display * MOST_PARTS and display >= book.instrument.min_display)


def _is_notional(book: Book, price: int, quantity: int) -> bool:
    instrument = book.instrument
    least, most = instrument.min_notional, instrument.max_notional
    if not (least or most):
        return True
    notional = price * quantity * book.money
    return least <= notional and (not most or notional <= most)


def _is_unfunded(book: Book, side: Side, account: Account, price: int, quantity: int, held: int = 0) -> bool:
    """Tell whether an account has too little for an order; `held` is what the order holds already (C14)."""
    if side is _BUY:
        return need(book, side, price, quantity) - held > account.cash.has - account.cash.held
    stock = book.positions.get(account.name)
    return quantity - held > (0 if stock is None else stock.has - stock.held)


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


def _refuse_other(  # noqa: C901, PLR0911, PLR0913, PLR0917 - a table of reasons
    floor: Floor,
    book: Book,
    account: Account,
    side: Side,
    quantity: Any,
    terms: Any,
    lasts: TimeInForce,
    expires_at: int,
) -> RejectReason | None:
    """Check an order that is no limit order (C7 to C16)."""
    stops = type(terms) in _STOPS
    its: Any = terms
    if not stops and type(terms) is not Market:
        return RejectReason.BAD_COMBINATION
    if (type(terms) is StopLimit and its.display and lasts in _AT_ONCE) or (not stops and lasts in _FOR_LONG):
        return RejectReason.BAD_COMBINATION
    if not is_quantity(book, quantity):
        return RejectReason.BAD_QUANTITY
    price = 0
    if stops:
        reason = _refuse_stop_figures(book, terms, quantity)
        if reason is not None:
            return reason
        price = its.price if type(terms) is StopLimit else 0
    if lasts is _GTT and not floor.clock < expires_at <= MAX_INSTANT:
        return RejectReason.BAD_EXPIRY
    if floor.holds and _is_unfunded(book, side, account, price, quantity):
        return refuse_funds(side)
    if not stops:
        other = book.asks if side is _BUY else book.bids
        if book.trading and not other.keys and not any(one.quantity <= quantity for one in other.all_or_none):
            return RejectReason.NO_LIQUIDITY
    elif floor.venue.stop_reached is StopReached.REJECT:
        sign = 1 if side is _BUY else -1
        if book.last_price and its.trigger * sign <= book.last_price * sign:
            return RejectReason.STOP_REACHED
    return None


def _refuse_stop_figures(
    book: Book,
    terms: Any,
    quantity: int,
) -> RejectReason | None:
    limited = type(terms) is StopLimit
    its: Any = terms
    prices: list[Any] = [its.trigger]
    display: Any = 0
    if limited:
        prices.append(its.price)
        display = its.display
    if not all([_is_price(book, price) for price in prices]):  # noqa: C419 - a list is what compiled code makes of it
        return RejectReason.BAD_PRICE
    if not _is_display(book, display, quantity):
        return RejectReason.BAD_DISPLAY
    if not all([book.low <= price <= book.high for price in prices]):  # noqa: C419
        return RejectReason.PRICE_OUT_OF_BAND
    if limited and not _is_notional(book, its.price, quantity):
        return RejectReason.BAD_NOTIONAL
    return None


def refuse_replacement_now(floor: Floor, account: Account, order: Order | None) -> RejectReason | None:
    """Return why no replacement is taken from the account, or of that order, now (C3 to C5)."""
    if floor.disabled or floor.rated:
        reason = refuse_account(floor, account)
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


def refuse_replacement(  # noqa: C901, PLR0911 - a table of reasons
    floor: Floor, account: Account, command: ReplaceOrder, order: Order
) -> RejectReason | None:
    """Check an order as it would be after a replacement (C8 to C16)."""
    book = order.book
    its: Any = command
    given: Any = its.quantity
    if type(given) is not int or given < 1:
        return RejectReason.BAD_QUANTITY
    quantity = new_open(floor, order, given)
    if quantity < 1:
        return RejectReason.TOO_LATE
    if not is_quantity(book, quantity):
        return RejectReason.BAD_QUANTITY
    priced = order.kind not in {MARKET, STOP}
    stops = order.kind in {STOP, STOP_LIMIT}
    given_price: Any = its.price if priced else 0
    trigger: Any = order.trigger
    if stops and its.trigger is not None:
        trigger = its.trigger
    if (priced and not _is_price(book, given_price)) or (stops and not _is_price(book, trigger)):
        return RejectReason.BAD_PRICE
    if order.display and quantity > order.display * MOST_PARTS:
        return RejectReason.BAD_DISPLAY
    price: int = given_price
    if (priced and not book.low <= price <= book.high) or (stops and not book.low <= trigger <= book.high):
        return RejectReason.PRICE_OUT_OF_BAND
    if priced and not _is_notional(book, price, quantity):
        return RejectReason.BAD_NOTIONAL
    if floor.holds and _is_unfunded(book, order.side, account, price, quantity, order.held):
        return refuse_funds(order.side)
    moves = price != order.price or quantity > order.quantity + order.hidden
    if order.post_only and moves and would_trade_at(book, order.side, price, quantity):
        return RejectReason.POST_ONLY_WOULD_TRADE
    return None
