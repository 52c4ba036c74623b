"""Orders as participants write them in JSON, read strictly: what does not fit is named, and what would have been right.

What is refused here never reaches the engine: members that are not known or of the wrong kind, numbers that are no
number of anything, members that the type of order does not have. What an order may be otherwise (table C of
`docs/exchange-rules.md`) is the engine's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final, get_type_hints

import msgspec

from exchange.commands import CancelOrder, Limit, Market, MassCancel, PlaceOrder, ReplaceOrder, Stop, StopLimit, Terms
from exchange.types import (
    MAX_ID_LENGTH,
    AccountId,
    ClientId,
    Lots,
    OrderId,
    SelfTrade,
    SessionId,
    Side,
    Symbol,
    Ticks,
    TimeInForce,
)
from kernel.time import Instant, from_rfc3339

MAX_NUMBER: Final = 2**53 - 1
"""What every JSON reader keeps exactly. The rules of the exchange are narrower, and answer 422."""
MAX_INSTANT: Final = 2**63 - 1
NO_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError)
"""What msgspec raises for bytes that are no JSON of ours: text that is no UTF-8 is no `DecodeError` to it."""
_MAX_WORDS: Final = 300
"""A sentence about a body need not hold the body."""

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[!-~]+$")]
Number = Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]
Moment = Annotated[int, msgspec.Meta(ge=1, le=MAX_INSTANT)] | Annotated[str, msgspec.Meta(max_length=40)]
"""RFC 3339 with up to nanoseconds, or nanoseconds since 1970: more of them than every JSON reader keeps exactly."""


class OrderType(StrEnum):
    """FIX OrdType, as far as there is one."""

    LIMIT = "limit"
    MARKET = "market"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"


_LIMIT: Final = OrderType.LIMIT
_GTT: Final = TimeInForce.GTT
_NEVER: Final = Instant(0)


class PlaceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Body of `POST /v1/orders`. Prices in ticks, quantities in lots."""

    account: Identifier
    client_id: Identifier
    symbol: Identifier
    side: Side
    quantity: Number
    type: OrderType = OrderType.LIMIT
    price: Number | None = None
    """Needed for limit and stop_limit orders, forbidden for the others."""
    time_in_force: TimeInForce = TimeInForce.DAY
    trigger: Number | None = None
    """Needed for stop and stop_limit orders, forbidden for the others."""
    expires_at: Moment | None = None
    """Needed for gtt orders, forbidden for the others: RFC 3339, or nanoseconds since 1970."""
    post_only: bool = False
    """Limit orders only: refused when it would trade at once."""
    display: Number | None = None
    """Limit and stop_limit orders only: how much the book shows at a time; without it all."""
    all_or_none: bool = False
    """Limit orders only: trades as a whole or waits, unseen."""
    self_trade: SelfTrade = SelfTrade.NONE
    session: Identifier | None = None
    """A name that a mass cancel can cancel by."""


class ReplaceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Body of `PATCH /v1/orders/{order_id}`: the new quantity, price and trigger."""

    account: Identifier
    client_id: Identifier
    quantity: Number
    """What is still to trade; the new total where the venue counts so."""
    price: Number | None = None
    """Needed for an order with a limit price, not looked at for the others."""
    trigger: Number | None = None
    """Of a waiting stop; without it the trigger stays."""


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The query of `DELETE /v1/orders/{order_id}`."""

    account: Identifier
    client_id: Identifier


class MassCancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The query of `DELETE /v1/orders`: all live orders of the account that fit every name given."""

    account: Identifier
    client_id: Identifier
    symbol: Identifier | None = None
    side: Side | None = None
    session: Identifier | None = None


_place: Final = msgspec.json.Decoder(PlaceBody)
_replace: Final = msgspec.json.Decoder(ReplaceBody)


class BadOrderError(ValueError):
    """A request that is no order; the message says where, what, and what would have been right."""


def read_place(body: bytes) -> PlaceOrder:
    """Read a new order.

    Raises:
        BadOrderError: it is none.
    """
    try:
        order = _place.decode(body)
    except NO_JSON as error:
        raise _bad(error, PlaceBody, body) from error
    return place_of(order)


def place_of(order: PlaceBody, session: str = "") -> PlaceOrder:
    """Return the new order that a body means; `session` is that of an order that names none.

    Raises:
        BadOrderError: it has members that its type does not have, or lacks some.
    """
    if is_plain(order):
        return plain_of(order, SessionId(order.session or session))
    return PlaceOrder(
        AccountId(order.account),
        ClientId(order.client_id),
        Symbol(order.symbol),
        order.side,
        Lots(order.quantity),
        _terms(order),
        order.time_in_force,
        _expiry(order),
        order.self_trade,
        SessionId(order.session or session),
    )


def is_plain(order: PlaceBody) -> bool:
    """Tell whether it is a limit order as most are: nothing of it is left to be looked at."""
    return (
        order.price is not None
        and order.type is _LIMIT
        and order.time_in_force is not _GTT
        and order.trigger is None
        and order.display is None
        and order.expires_at is None
        and not (order.post_only or order.all_or_none)
    )


def plain_of(order: PlaceBody, session: SessionId) -> PlaceOrder:
    """Return the new order that a plain body means, of a session. All gateways' orders pass here: no names are cast."""
    what: Any = order
    return PlaceOrder(
        what.account, what.client_id, what.symbol, what.side, what.quantity, Limit(what.price), what.time_in_force,
        _NEVER, what.self_trade, session,
    )  # fmt: skip


def read_replace(order_id: str, body: bytes) -> ReplaceOrder:
    """Read a change of an order.

    Raises:
        BadOrderError: it is none.
    """
    try:
        change = _replace.decode(body)
    except NO_JSON as error:
        raise _bad(error, ReplaceBody, body) from error
    return ReplaceOrder(
        AccountId(change.account),
        ClientId(change.client_id),
        _order_id(order_id),
        Lots(change.quantity),
        Ticks(change.price or 0),  # 0: the engine tells who needs one
        None if change.trigger is None else Ticks(change.trigger),
    )


def read_cancel(order_id: str, query: dict[str, str]) -> CancelOrder:
    """Read a cancel from its path and query.

    Raises:
        BadOrderError: it is none.
    """
    try:
        cancel = msgspec.convert(query, CancelBody)
    except msgspec.ValidationError as error:
        raise BadOrderError(f"query: {_words(error, CancelBody)}") from error
    return CancelOrder(AccountId(cancel.account), ClientId(cancel.client_id), _order_id(order_id))


def read_mass_cancel(query: dict[str, str]) -> MassCancel:
    """Read a cancel of many orders from its query.

    Raises:
        BadOrderError: it is none.
    """
    try:
        wish = msgspec.convert(query, MassCancelBody)
    except msgspec.ValidationError as error:
        raise BadOrderError(f"query: {_words(error, MassCancelBody)}") from error
    return MassCancel(
        AccountId(wish.account),
        ClientId(wish.client_id),
        None if wish.symbol is None else Symbol(wish.symbol),
        wish.side,
        None if wish.session is None else SessionId(wish.session),
    )


# --- what goes with which type ---------------------------------------------------------------------------------------

_HAS: Final[dict[OrderType, frozenset[str]]] = {
    OrderType.LIMIT: frozenset({"price", "post_only", "display", "all_or_none"}),
    OrderType.MARKET: frozenset(),
    OrderType.STOP: frozenset({"trigger"}),
    OrderType.STOP_LIMIT: frozenset({"price", "trigger", "display"}),
}
"""The members that each type of order has beside those that all have."""
_NEEDS: Final = ("price", "trigger")
_ASKED: Final = ("price", "trigger", "post_only", "display", "all_or_none")


def _terms(order: PlaceBody) -> Terms:
    """Return an order's terms.

    Raises:
        BadOrderError: a member is missing that the type needs, or given that it does not have.
    """
    has = _HAS[order.type]
    kind = f"a {order.type} order"
    for name in _ASKED:
        if getattr(order, name) and name not in has:
            others = _listed(one for one, members in _HAS.items() if name in members)
            raise BadOrderError(f"{name}: {kind} has none; leave it out, or make `type` {others}")
    for name in _NEEDS:
        if name in has and getattr(order, name) is None:
            raise BadOrderError(f"{name}: {kind} needs one, in whole ticks from 1")
    price, trigger, display = Ticks(order.price or 0), Ticks(order.trigger or 0), Lots(order.display or 0)
    match order.type:
        case OrderType.LIMIT:
            return Limit(price, order.post_only, display, order.all_or_none)
        case OrderType.MARKET:
            return Market()
        case OrderType.STOP:
            return Stop(trigger)
        case OrderType.STOP_LIMIT:
            return StopLimit(trigger, price, display)


def _expiry(order: PlaceBody) -> Instant:
    """Return when an order expires, 0 for one that does not.

    Raises:
        BadOrderError: it has no instant and needs one, has one and needs none, or has one that is none.
    """
    lasts = order.time_in_force is TimeInForce.GTT
    given = order.expires_at
    if given is None:
        if lasts:
            raise BadOrderError(f"expires_at: an order of `time_in_force` gtt needs one; {_RIGHT['expires_at']}")
        return Instant(0)
    if not lasts:
        raise BadOrderError(
            f"expires_at: an order of `time_in_force` {order.time_in_force} has none; leave it out, or say gtt"
        )
    try:
        instant = from_rfc3339(given) if isinstance(given, str) else Instant(given)
    except ValueError as error:
        raise BadOrderError(_fit(f"expires_at: {error}; {_RIGHT['expires_at']}")) from error
    if not 0 < instant <= MAX_INSTANT:
        raise BadOrderError(f"expires_at: {given!r} is out of reach; {_RIGHT['expires_at']}")
    return instant


def _order_id(text: str) -> OrderId:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_NUMBER)) and int(text) <= MAX_NUMBER):
        raise BadOrderError("order_id: a whole number is needed, the `order_id` of the answer to the order")
    return OrderId(int(text))


# --- what is said of what does not fit -------------------------------------------------------------------------------


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else str(last)


_IDENTIFIER: Final = f"1 to {MAX_ID_LENGTH} printable ASCII characters without spaces"
_TICKS: Final = f"whole ticks, from 1 to {MAX_NUMBER}"
_LOTS: Final = f"whole lots, from 1 to {MAX_NUMBER}"
_FLAG: Final = "true or false"
_RIGHT: Final[dict[str, str]] = {
    "account": _IDENTIFIER,
    "client_id": _IDENTIFIER,
    "symbol": _IDENTIFIER,
    "session": _IDENTIFIER,
    "side": _listed(Side),
    "type": _listed(OrderType),
    "time_in_force": _listed(TimeInForce),
    "self_trade": _listed(SelfTrade),
    "quantity": _LOTS,
    "display": f"{_LOTS}; without it all is shown",
    "price": _TICKS,
    "trigger": _TICKS,
    "post_only": _FLAG,
    "all_or_none": _FLAG,
    "op": "place, replace, cancel, mass_cancel, look_up or ping",
    "expires_at": "RFC 3339 such as 2026-03-02T16:30:00Z, or whole nanoseconds since 1970, from 1 to 2^63-1",
}
_FIELD: Final = re.compile(r"`\$\.(\w+)")
_BYTE: Final = re.compile(r"\(byte (\d+)\)")
_OPEN_MEMBER: Final = re.compile(rb'"([A-Za-z_]{1,40})"\s*:\s*(?:[-+.\w]*,?\s*|"[^"]*)$')
_BEFORE: Final = 80
"""Bytes before a flaw in which the name of its member stands, if it is one of ours."""


def _bad(error: Exception, kind: type[msgspec.Struct], body: bytes) -> BadOrderError:
    if isinstance(error, msgspec.ValidationError):
        return BadOrderError(f"body: {_words(error, kind)}")
    return BadOrderError(_fit(f"body: no JSON: {error}{_member_at(error, body)}"))


def _member_at(error: Exception, body: bytes) -> str:
    """Tell which member's value is no JSON, such as NaN; nothing where that cannot be told."""
    place = _BYTE.search(str(error))
    if place is None:
        return ""
    at = int(place[1])
    name = _OPEN_MEMBER.search(body[max(0, at - _BEFORE) : at])
    if name is None:
        return ""
    field = name[1].decode()
    return f", the value of `{field}`" + (f"; right: {_RIGHT[field]}" if field in _RIGHT else "")


def _words(error: Exception, kind: type[msgspec.Struct]) -> str:
    """Return msgspec's sentence with our path notation (`$.price` is the field `price`), and what would be right."""
    text = str(error)
    field = _FIELD.search(text)
    if field is not None:
        right = f"; right: {_RIGHT[field[1]]}" if field[1] in _RIGHT else ""
    elif "unknown field" in text:
        right = f"; there are {', '.join(get_type_hints(kind))}"
    else:
        right = ""
    return _fit(text.replace("`$.", "`")) + right


def sentence(error: Exception) -> str:
    """Return what msgspec says of a message that does not fit, in our notation, and what would be right."""
    text = str(error)
    field = _FIELD.search(text)
    right = f"; right: {_RIGHT[field[1]]}" if field is not None and field[1] in _RIGHT else ""
    return _fit(text.replace("`$.", "`")) + right


def _fit(text: str) -> str:
    """Return a text that can be sent: not long, and without halves of characters."""
    return text[:_MAX_WORDS].encode("utf-8", "replace").decode()
