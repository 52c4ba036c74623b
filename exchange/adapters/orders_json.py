"""Orders as participants write them in JSON, read strictly: what does not fit is named, with where it stands."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from exchange.commands import (
    CancelOrder,
    Limit,
    Market,
    MassCancel,
    PlaceOrder,
    ReplaceOrder,
    Stop,
    StopLimit,
    Terms,
)
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
from kernel.time import Instant

MAX_NUMBER: Final = 2**53 - 1
"""What every JSON reader keeps exactly. The rules of the exchange are narrower, and answer 422."""

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[!-~]+$")]
Number = Annotated[int, msgspec.Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]


class OrderType(StrEnum):
    """FIX OrdType, as far as there is one."""

    LIMIT = "limit"
    MARKET = "market"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"


class PlaceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Body of `POST /v1/orders`. Prices in ticks, quantities in lots. `docs/exchange-rules.md` tells what each does."""

    account: Identifier
    client_id: Identifier
    symbol: Identifier
    side: Side
    quantity: Number
    type: OrderType = OrderType.LIMIT
    price: Number | None = None
    """Needed for a limit and a stop-limit order, forbidden for the others."""
    time_in_force: TimeInForce = TimeInForce.DAY
    trigger: Number | None = None
    """Needed for a stop and a stop-limit order, forbidden for the others."""
    post_only: bool = False
    display: Number = 0
    """How much of a limit or stop-limit order the book shows at a time; 0: all of it."""
    all_or_none: bool = False
    expires_at: Number = 0
    """When a good-till-time order expires, in nanoseconds since 1970."""
    self_trade: SelfTrade = SelfTrade.NONE
    session: Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)] = ""
    """What a mass cancel can cancel by."""


class ReplaceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Body of `PATCH /v1/orders/{order_id}`: the new open quantity and price, and a stop's new trigger."""

    account: Identifier
    client_id: Identifier
    quantity: Number
    price: Number
    """Not looked at for an order without a limit price."""
    trigger: Number | None = None


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The query of `DELETE /v1/orders/{order_id}`."""

    account: Identifier
    client_id: Identifier


class MassCancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The query of `DELETE /v1/orders`: whose orders, and which of them."""

    account: Identifier
    client_id: Identifier
    symbol: Identifier | None = None
    side: Side | None = None
    session: Identifier | None = None


_place: Final = msgspec.json.Decoder(PlaceBody)
_replace: Final = msgspec.json.Decoder(ReplaceBody)


class BadOrderError(ValueError):
    """A request that is no order; the message says where and what."""


def read_place(body: bytes) -> PlaceOrder:
    """Read a new order.

    Raises:
        BadOrderError: it is none.
    """
    try:
        order = _place.decode(body)
    except msgspec.DecodeError as error:
        raise _bad(error) from error
    return PlaceOrder(
        AccountId(order.account),
        ClientId(order.client_id),
        Symbol(order.symbol),
        order.side,
        Lots(order.quantity),
        _terms(order),
        order.time_in_force,
        Instant(order.expires_at),
        order.self_trade,
        SessionId(order.session),
    )


_PRICED: Final = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_TRIGGERED: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})


def _terms(order: PlaceBody) -> Terms:
    """Return the terms of an order; a field that its type has no use for is named."""
    kind, price, trigger = order.type, order.price, order.trigger
    words = f"a {kind.value.replace('_', '-')} order"
    if (price is None) is (kind in _PRICED):
        raise BadOrderError(f"price: {words} {'needs one, in ticks' if price is None else 'has none'}")
    if (trigger is None) is (kind in _TRIGGERED):
        raise BadOrderError(f"trigger: {words} {'needs one, in ticks' if trigger is None else 'has none'}")
    if kind is not OrderType.LIMIT and (order.post_only or order.all_or_none):
        raise BadOrderError(f"{'post_only' if order.post_only else 'all_or_none'}: for limit orders only")
    if kind not in _PRICED and order.display:
        raise BadOrderError("display: for orders with a limit price only")
    if trigger is not None and price is not None:
        return StopLimit(Ticks(trigger), Ticks(price), Lots(order.display))
    if trigger is not None:
        return Stop(Ticks(trigger))
    if price is not None:
        return Limit(Ticks(price), order.post_only, Lots(order.display), order.all_or_none)
    return Market()


def read_replace(order_id: str, body: bytes) -> ReplaceOrder:
    """Read a change of an order.

    Raises:
        BadOrderError: it is none.
    """
    try:
        change = _replace.decode(body)
    except msgspec.DecodeError as error:
        raise _bad(error) from error
    return ReplaceOrder(
        AccountId(change.account),
        ClientId(change.client_id),
        _order_id(order_id),
        Lots(change.quantity),
        Ticks(change.price),
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
        raise BadOrderError(f"query: {_words(error)}") from error
    return CancelOrder(AccountId(cancel.account), ClientId(cancel.client_id), _order_id(order_id))


def read_mass_cancel(query: dict[str, str]) -> MassCancel:
    """Read a mass cancel from its query.

    Raises:
        BadOrderError: it is none.
    """
    try:
        cancel = msgspec.convert(query, MassCancelBody)
    except msgspec.ValidationError as error:
        raise BadOrderError(f"query: {_words(error)}") from error
    return MassCancel(
        AccountId(cancel.account),
        ClientId(cancel.client_id),
        None if cancel.symbol is None else Symbol(cancel.symbol),
        cancel.side,
        None if cancel.session is None else SessionId(cancel.session),
    )


def _order_id(text: str) -> OrderId:
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_NUMBER)) - 1):
        raise BadOrderError("order_id: a whole number is needed")
    return OrderId(int(text))


def _bad(error: msgspec.DecodeError) -> BadOrderError:
    if isinstance(error, msgspec.ValidationError):
        return BadOrderError(f"body: {_words(error)}")
    return BadOrderError(f"body: no JSON: {_words(error)}")


def _words(error: Exception) -> str:
    """Return msgspec's sentence with our path notation (`$.price` is the field `price`)."""
    return str(error).replace("`$.", "`")
