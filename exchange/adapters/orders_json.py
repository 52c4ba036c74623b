"""Orders as participants write them in JSON, read strictly: what does not fit is named, with where it stands."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from exchange.commands import CancelOrder, Limit, Market, PlaceOrder, ReplaceOrder
from exchange.types import MAX_ID_LENGTH, AccountId, ClientId, Lots, OrderId, Side, Symbol, Ticks, TimeInForce

MAX_NUMBER: Final = 2**53 - 1
"""What every JSON reader keeps exactly. The rules of the exchange are narrower, and answer 422."""

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[!-~]+$")]
Number = Annotated[int, msgspec.Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]


class OrderType(StrEnum):
    """FIX OrdType, as far as there is one."""

    LIMIT = "limit"
    MARKET = "market"


class PlaceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Body of `POST /v1/orders`. Price in ticks, quantity in lots."""

    account: Identifier
    client_id: Identifier
    symbol: Identifier
    side: Side
    quantity: Number
    type: OrderType = OrderType.LIMIT
    price: Number | None = None
    """Needed for a limit order, forbidden for a market order."""
    time_in_force: TimeInForce = TimeInForce.DAY


class ReplaceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Body of `PATCH /v1/orders/{order_id}`: the new open quantity and price."""

    account: Identifier
    client_id: Identifier
    quantity: Number
    price: Number


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The query of `DELETE /v1/orders/{order_id}`."""

    account: Identifier
    client_id: Identifier


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
    if order.type is OrderType.MARKET:
        if order.price is not None:
            raise BadOrderError("price: a market order has none")
        terms: Limit | Market = Market()
    elif order.price is None:
        raise BadOrderError("price: a limit order needs one, in ticks")
    else:
        terms = Limit(Ticks(order.price))
    return PlaceOrder(
        AccountId(order.account),
        ClientId(order.client_id),
        Symbol(order.symbol),
        order.side,
        Lots(order.quantity),
        terms,
        order.time_in_force,
    )


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
