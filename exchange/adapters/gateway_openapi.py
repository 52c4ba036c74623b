"""Order entry as OpenAPI tells it: the routes that are answered before FastAPI's machinery, which cannot know them."""

from __future__ import annotations

from typing import Any

import msgspec

from exchange.adapters.order_desk import Problem
from exchange.adapters.orders_json import CancelBody, PlaceBody, ReplaceBody
from exchange.answers import OrderAnswer


def order_schemas() -> dict[str, Any]:
    """Return the schemas of every body of order entry, by name."""
    bodies = (PlaceBody, ReplaceBody, CancelBody, OrderAnswer, Problem)
    _, schemas = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    return schemas


def _schema(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _answers(*statuses: str) -> dict[str, Any]:
    told = {
        "200": "The first answer.",
        "201": "Durable, and this is what it did.",
        "422": "Refused by a rule, or the client id belongs to another request.",
    }
    known = {code: {"description": words, "content": _schema("OrderAnswer")} for code, words in told.items()}
    other = {
        "400": "The request is malformed.",
        "401": "The bearer token is missing or wrong.",
        "404": "Not known.",
        "409": "Being decided right now.",
        "413": "Too long.",
        "503": "Never sequenced: send it again.",
        "504": "Unknown: look it up by client id.",
    }
    problems = {code: {"description": words, "content": _schema("Problem")} for code, words in other.items()}
    return {code: (known | problems)[code] for code in statuses}


def _parameter(where: str, name: str, *, required: bool = True) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Side"} if name == "side" else {"type": "string"}
    return {"in": where, "name": name, "required": required, "schema": schema}


def order_paths() -> dict[str, Any]:
    """Return the routes of order entry."""
    order_id = _parameter("path", "order_id")
    usual = ("201", "400", "401", "409", "413", "422", "503", "504")
    return {
        "/v1/orders": {
            "post": {
                "summary": "Place an order",
                "requestBody": {"required": True, "content": _schema("PlaceBody")},
                "responses": _answers(*usual),
            },
            "delete": {
                "summary": "Cancel all orders of an account, or those of a symbol, side or session",
                "parameters": [
                    _parameter("query", "account"),
                    _parameter("query", "client_id"),
                    *(_parameter("query", name, required=False) for name in ("symbol", "side", "session")),
                ],
                "responses": _answers(*usual),
            },
        },
        "/v1/orders/{order_id}": {
            "delete": {
                "summary": "Cancel an order",
                "parameters": [order_id, _parameter("query", "account"), _parameter("query", "client_id")],
                "responses": _answers(*usual),
            },
            "patch": {
                "summary": "Change an order",
                "parameters": [order_id],
                "requestBody": {"required": True, "content": _schema("ReplaceBody")},
                "responses": _answers(*usual),
            },
        },
        "/v1/orders/by-client-id/{account}/{client_id}": {
            "get": {
                "summary": "What became of a request of any kind",
                "parameters": [_parameter("path", "account"), _parameter("path", "client_id")],
                "responses": _answers("200", "401", "404", "409", "503", "504"),
            }
        },
    }
