"""Requests of participants: new orders, replacements, cancels (rules F15, F16, R6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import astuple

from exchange.book import ALL_OR_NONE, LIMIT, MARKET, STOP, STOP_LIMIT, Account, Order
from exchange.checks import new_open, refuse_new, refuse_replacement, refuse_replacement_now
from exchange.commands import CancelOrder, Limit, Market, MassCancel, ReplaceOrder, Stop, StopLimit
from exchange.events import Accepted, Event, MassCanceled, Rejected, Replaced
from exchange.floor import EXPIRY, Floor
from exchange.matching import enter, try_to_fill
from exchange.stops import trigger_all
from exchange.types import (
    AccountId,
    CancelReason,
    ClientId,
    Lots,
    OrderId,
    RejectReason,
    Side,
    Ticks,
)

_LIMIT: Final = Limit
_NO_LIMIT: Final = (0, False, 0, False)
_accepted: Final[Callable[..., Event]] = Accepted
_REQUESTED: Final = CancelReason.REQUESTED


def place(floor: Floor, events: list[Event], who: Account, fields: tuple[Any, ...]) -> None:
    """Take a new order of an account; `fields` are those of `PlaceOrder`, nothing is known of their types yet."""
    account, client_id, symbol, side, quantity, terms, lasts, expires_at, self_trade, session = fields
    is_name = type(symbol) is str
    book = floor.books.get(symbol) if is_name else None
    limit: tuple[Any, ...] = astuple(terms) if type(terms) is _LIMIT else ()
    reason = refuse_new(floor, book, who, fields, limit)
    if reason is not None:
        events.append(Rejected(account, client_id, reason, None if book is None else book.symbol))
        return
    assert book is not None, "an unknown symbol was refused"
    floor.orders_made += 1
    order_id: Any = floor.orders_made
    stock = book.positions.get(account)
    if stock is None:
        stock = floor.stock_of(book, account)
    price, post_only, display, unseen = limit or _NO_LIMIT
    order = Order(order_id, account, client_id, book, side, LIMIT, quantity, lasts, self_trade, session, who.cash,
                  stock, expires_at, price, post_only, display)  # fmt: skip
    if unseen:
        order.kind = ALL_OR_NONE
    elif not limit:
        _take_terms(order, terms)
        price = order.price or None
    seq = book.symbol_seq = book.symbol_seq + 1
    events.append(_accepted(order_id, account, client_id, symbol, seq, side, quantity, price))
    if floor.rated:
        who.sent.append(floor.clock)
    if order.kind == LIMIT and book.trading:
        enter(floor, events, order)
        if book.bids.stops or book.asks.stops:
            trigger_all(floor, events, book)
    else:
        _come_in(floor, events, order)
    if expires_at and order_id in floor.orders:
        floor.schedule(order.expires_at, EXPIRY, order_id, book.symbol)


def _take_terms(order: Order, terms: Market | Stop | StopLimit) -> None:
    """Make an order what its terms say, other than a limit order."""
    if type(terms) is Stop:
        order.kind = STOP
        order.trigger = terms.trigger
    elif type(terms) is StopLimit:
        order.kind = STOP_LIMIT
        order.trigger = terms.trigger
        order.price = terms.price
        order.display = terms.display
    else:
        order.kind = MARKET


def _come_in(floor: Floor, events: list[Event], order: Order) -> None:
    """Let an order in, and everything that follows from it."""
    book = order.book
    if order.kind >= STOP:
        floor.wait(order)
    elif book.trading:
        enter(floor, events, order)
    else:
        book.gathered = True
        if order.kind == LIMIT:
            floor.show(events, order)
        else:
            floor.wait(order)
        return
    if book.bids.stops or book.asks.stops:
        trigger_all(floor, events, book)


def cancel(floor: Floor, events: list[Event], command: CancelOrder, fields: tuple[Any, ...]) -> None:
    """Take an order away as its owner asks; `fields` are those of the command."""
    account, client_id, order_id = fields
    is_number = type(order_id) is int
    order = floor.orders.get(order_id) if is_number else None
    if order is None or order.account != account:
        events.append(_not_there(floor, command, order))
        return
    floor.cancel(events, order, client_id, _REQUESTED, live=True)


def _found(floor: Floor, order_id: Any) -> Order | None:
    return floor.orders.get(OrderId(order_id)) if type(order_id) is int else None


def _not_there(floor: Floor, command: CancelOrder | ReplaceOrder, order: Order | None) -> Rejected:
    if order is not None:
        return Rejected(command.account, command.client_id, RejectReason.NOT_YOUR_ORDER)
    asked: Any = command
    order_id: Any = asked.order_id
    once_lived = type(order_id) is int and 0 < order_id <= floor.orders_made
    reason = RejectReason.TOO_LATE if once_lived else RejectReason.UNKNOWN_ORDER
    return Rejected(command.account, command.client_id, reason)


def replace(floor: Floor, events: list[Event], who: Account, command: ReplaceOrder) -> None:
    """Change a live order as its owner asks."""
    its: Any = command
    order = _found(floor, its.order_id)
    reason = refuse_replacement_now(floor, who, order)
    if reason is None and (order is None or order.account != command.account):
        events.append(_not_there(floor, command, order))
        return
    if reason is None and order is not None:
        reason = refuse_replacement(floor, who, command, order)
    if reason is not None or order is None:
        assert reason is not None, "an order that is not there was answered above"
        symbol = None if order is None else order.book.symbol
        events.append(Rejected(command.account, command.client_id, reason, symbol))
        return
    if floor.rated:
        who.sent.append(floor.clock)
    order.client_id = command.client_id
    quantity = new_open(floor, order, command.quantity)
    if order.kind >= STOP:
        _replace_stop(floor, events, command, order, quantity)
    elif order.kind == MARKET:
        keeps = quantity <= order.quantity
        _tell(events, order, quantity, 0, keeps=keeps)
        if keeps:
            order.quantity = quantity
            if floor.holds:
                floor.hold(order)
        else:
            floor.leave(order)
            order.quantity = quantity
            floor.wait(order)
    elif command.price == order.price and quantity <= order.quantity + order.hidden:
        _shrink(floor, events, order, quantity)
    else:
        _tell(events, order, quantity, command.price, keeps=False)
        floor.leave(order)
        order.price = command.price
        order.quantity = quantity
        order.hidden = 0
        _come_in(floor, events, order)


def _shrink(floor: Floor, events: list[Event], order: Order, quantity: int) -> None:
    """Take away from a limit order that keeps its place, hidden quantity first."""
    book = order.book
    old_shown, old_hidden = order.quantity, order.hidden
    hidden = max(0, quantity - old_shown)
    _tell(events, order, quantity, order.price, keeps=True, hidden=hidden)
    order.quantity = quantity - hidden
    order.hidden = hidden
    if order.level is not None:
        order.level.total -= old_shown - order.quantity
        order.level.hidden -= old_hidden - hidden
    if floor.holds:
        floor.hold(order)
    if order.kind == ALL_OR_NONE and book.trading:
        try_to_fill(floor, events, order)
    if book.bids.stops or book.asks.stops:
        trigger_all(floor, events, book)  # one that the limit of trades put off may be reached, whatever came of this


def _replace_stop(floor: Floor, events: list[Event], command: ReplaceOrder, order: Order, quantity: int) -> None:
    price = command.price if order.kind == STOP_LIMIT else 0
    trigger = order.trigger if command.trigger is None else command.trigger
    _tell(events, order, quantity, price or trigger, keeps=True)
    side = order.book.side(order.side)
    side.forget(order)
    order.quantity, order.price, order.trigger = quantity, price, trigger
    side.wait(order)
    if floor.holds:
        floor.hold(order)
    trigger_all(floor, events, order.book)


def _tell(events: list[Event], order: Order, quantity: int, price: int, *, keeps: bool, hidden: int = 0) -> None:
    book = order.book
    old_open = order.quantity + order.hidden
    unseen = order.kind != LIMIT
    book.symbol_seq += 1
    events.append(
        Replaced(
            order.order_id,
            order.account,
            order.client_id,
            book.symbol,
            book.symbol_seq,
            order.side,
            Ticks(order.price or order.trigger),
            Lots(old_open),
            Ticks(price),
            Lots(quantity),
            keeps,
            Lots(old_open if unseen else order.hidden),
            Lots(quantity if unseen and keeps else hidden),
        )
    )


def mass_cancel(floor: Floor, events: list[Event], command: MassCancel) -> None:
    """Cancel all live orders of an account that fit (R6)."""
    its: Any = command
    side: Any = its.side
    session: Any = its.session
    symbol: Any = its.symbol
    if not (side is None or type(side) is Side) or not (session is None or type(session) is str):
        events.append(Rejected(command.account, command.client_id, RejectReason.BAD_COMBINATION))
        return
    count = cancel_all(
        floor, events, command.account, command.client_id, CancelReason.MASS_CANCEL, symbol, side, session
    )
    events.append(MassCanceled(command.account, command.client_id, count))


def cancel_all(  # noqa: PLR0913, PLR0917 - whose, why, and which of them
    floor: Floor,
    events: list[Event],
    account: AccountId,
    client_id: ClientId,
    reason: CancelReason,
    symbol: object = None,
    side: Side | None = None,
    session: str | None = None,
) -> int:
    """Cancel an account's live orders that fit, by order id; return how many. Looks at every live order."""
    fitting = [
        order
        for order in floor.orders.values()
        if order.account == account
        and (symbol is None or order.book.symbol == symbol)
        and (side is None or order.side is side)
        and (session is None or order.session == session)
    ]
    fitting.sort(key=_by_id)
    for order in fitting:
        floor.cancel(events, order, client_id, reason, live=True)
    return len(fitting)


def _by_id(order: Order) -> int:
    return order.order_id
