"""Order entry as OpenAPI tells it: the routes that are answered before FastAPI's machinery, which cannot know them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from exchange.adapters.order_desk import Problem
from exchange.adapters.orders_json import MAX_NUMBER, CancelBody, PlaceBody, ReplaceBody
from exchange.answers import OrderAnswer
from exchange.calendar_page import CalendarTold
from exchange.listing import Listing
from exchange.types import MAX_ID_LENGTH

SECURITY: Final = "bearer"
_IDENTIFIER: Final = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH, "pattern": "^[!-~]+$"}
_KINDS: Final[dict[str, dict[str, Any]]] = {
    "side": {"$ref": "#/components/schemas/Side"},
    "order_id": {"type": "integer", "minimum": 1, "maximum": MAX_NUMBER // 10},
}
_ANSWERS: Final = {
    "200": "The first answer.",
    "201": "Durable, and this is what it did.",
    "422": "Refused by a rule, or the client id belongs to another request.",
}
_PROBLEMS: Final = {
    "400": "The request is malformed; `error` names what does not fit and what would.",
    "401": "There is no token, or one that is not taken; `reason` says why.",
    "403": "The token is not for this account, or lacks the scope.",
    "404": "Not known.",
    "408": "The request was not whole in time.",
    "409": "Being decided right now.",
    "413": "Too long.",
    "429": "The budget of this key or this account is used up; nothing was done.",
    "431": "The headers are too long.",
    "502": "The engine did not take the gateway's message.",
    "503": "Never sequenced: send it again.",
    "504": "Unknown: look it up by client id.",
}
_USUAL: Final = ("201", "400", "401", "403", "404", "408", "409", "413", "422", "429", "431", "502", "503", "504")
_ASKED: Final = ("200", "401", "403", "404", "408", "409", "413", "422", "429", "431", "502", "503", "504")
_RETRIED: Final = frozenset({"409", "429", "503"})
_STRING: Final = {"schema": {"type": "string"}}
_NAMED: Final = {"description": "The request's name: the client's own, or one made here."} | _STRING
_REQUEST_ID: Final = {"X-Request-ID": _NAMED}
_BUDGET: Final = {
    name: {"description": "As the IETF's draft tells of budgets; only where one is kept."} | _STRING
    for name in ("RateLimit", "RateLimit-Policy")
}
_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def order_schemas() -> dict[str, Any]:
    """Return the schemas of every body of order entry, by name."""
    bodies = (PlaceBody, ReplaceBody, CancelBody, OrderAnswer, Problem, Listing, CalendarTold)
    _, schemas = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    return schemas


def security_schemes() -> dict[str, Any]:
    """Return how a client shows who it is."""
    return {SECURITY: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}


def _schema(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _answers(*statuses: str) -> dict[str, Any]:
    return {code: _answer(code) for code in statuses}


def _answer(code: str) -> dict[str, Any]:
    if code in _PROBLEMS:
        headers = _REQUEST_ID | (_RETRY if code in _RETRIED else {}) | (_BUDGET if code == "429" else {})
        return {"description": _PROBLEMS[code], "content": _schema("Problem"), "headers": headers}
    body = _schema("OrderAnswer")
    if code == "422":  # a rule's refusal is an answer of the engine, a client id's misuse a problem
        body = {"application/json": {"schema": {"anyOf": [_ref("OrderAnswer"), _ref("Problem")]}}}
    replayed = {"Idempotent-Replayed": {"schema": {"type": "string", "enum": ["true"]}}}
    return {"description": _ANSWERS[code], "content": body, "headers": _REQUEST_ID | _BUDGET | replayed}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(where: str, name: str, *, required: bool = True) -> dict[str, Any]:
    return {"in": where, "name": name, "required": required, "schema": _KINDS.get(name, _IDENTIFIER)}


def _route(summary: str, statuses: tuple[str, ...], *parameters: dict[str, Any], body: str = "") -> dict[str, Any]:
    told: dict[str, Any] = {"summary": summary, "security": [{SECURITY: []}], "responses": _answers(*statuses)}
    if parameters:
        told["parameters"] = list(parameters)
    if body:
        told["requestBody"] = {"required": True, "content": _schema(body)}
    return told


def order_paths() -> dict[str, Any]:
    """Return the routes of order entry."""
    order_id = _parameter("path", "order_id")
    account, client_id = _parameter("query", "account"), _parameter("query", "client_id")
    narrower = [_parameter("query", name, required=False) for name in ("symbol", "side", "session")]
    return {
        "/v1/orders": {
            "post": _route("Place an order", _USUAL, body="PlaceBody"),
            "delete": _route(
                "Cancel all orders of an account, or those of a symbol, side or session",
                _USUAL,
                account,
                client_id,
                *narrower,
            ),
        },
        "/v1/orders/{order_id}": {
            "delete": _route("Cancel an order", _USUAL, order_id, account, client_id),
            "patch": _route("Change an order", _USUAL, order_id, body="ReplaceBody"),
        },
        "/v1/orders/by-client-id/{account}/{client_id}": {
            "get": _route(
                "What became of a request of any kind",
                _ASKED,
                _parameter("path", "account"),
                _parameter("path", "client_id"),
            )
        },
    }


def other_paths() -> dict[str, Any]:
    """Return what needs no token: reference data and health."""
    health = {"content": {"application/json": {"schema": {"type": "object"}}}, "headers": _REQUEST_ID}
    return {
        "/v1/instruments": _kept("What is traded", "Everything that is traded, and by which conventions.", "Listing"),
        "/v1/calendar": _kept("When it is traded", "Today's phases and those of a week ahead.", "CalendarTold"),
        "/health/live": {
            "get": {"summary": "Is it there", "security": [], "responses": {"200": {"description": "Yes."} | health}}
        },
        "/health/ready": {
            "get": {
                "summary": "Can orders reach the engine",
                "security": [],
                "responses": {"200": {"description": "Yes."} | health, "503": {"description": "No."} | health},
            }
        },
    }


def _kept(summary: str, what: str, schema: str) -> dict[str, Any]:
    """Return a route of what changes rarely."""
    told = {
        "200": {
            "description": what,
            "content": _schema(schema),
            "headers": _REQUEST_ID | dict.fromkeys(("ETag", "Cache-Control"), _STRING),
        },
        "304": {"description": "As it was when it had this `ETag`.", "headers": _REQUEST_ID},
    }
    known = {"in": "header", "name": "If-None-Match", "required": False} | _STRING
    return {"get": {"summary": summary, "parameters": [known], "security": [], "responses": told}}
