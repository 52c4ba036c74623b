"""A participant's command as the gateway's HTTP takes it: the other way round than `orders_json` reads."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from exchange.commands import CancelOrder, MassCancel, ParticipantCommand, PlaceOrder, ReplaceOrder
from exchange.types import SelfTrade


def request_of(command: ParticipantCommand) -> tuple[str, str, bytes | None]:
    """Return a command as method, path and body."""
    who = {"account": command.account, "client_id": command.client_id}
    match command:
        case PlaceOrder():
            return "POST", "/v1/orders", msgspec.json.encode(_body(command))
        case CancelOrder():
            return "DELETE", f"/v1/orders/{command.order_id}?{urlencode(who)}", None
        case ReplaceOrder():
            change: dict[str, Any] = {**who, "quantity": command.quantity}
            change |= {"price": command.price} if command.price else {}
            change |= {} if command.trigger is None else {"trigger": command.trigger}
            return "PATCH", f"/v1/orders/{command.order_id}", msgspec.json.encode(change)
        case MassCancel():
            which = {name: getattr(command, name) for name in ("symbol", "side", "session")}
            query = who | {name: value for name, value in which.items() if value is not None}
            return "DELETE", f"/v1/orders?{urlencode(query)}", None


def _body(order: PlaceOrder) -> dict[str, Any]:
    terms = order.terms
    body: dict[str, Any] = {
        "account": order.account,
        "client_id": order.client_id,
        "symbol": order.symbol,
        "side": order.side,
        "quantity": order.quantity,
        "type": terms.__struct_config__.tag,
        "time_in_force": order.time_in_force,
    }
    for name in terms.__struct_fields__:
        if getattr(terms, name) or name in {"price", "trigger"}:
            body[name] = getattr(terms, name)
    if order.expires_at:
        body["expires_at"] = order.expires_at
    if order.self_trade is not SelfTrade.NONE:
        body["self_trade"] = order.self_trade
    if order.session:
        body["session"] = order.session
    return body
