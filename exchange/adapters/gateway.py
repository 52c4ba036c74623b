"""Order entry over HTTP: stateless, every answer durable, every refusal honest.

    request -> token -> strict JSON -> admission -> engine -> answer

- 201 accepted, canceled or replaced; 422 refused by a rule (the reason is journalled) or a client id used for another
  body.
- 503 was **never** sequenced: send it again. 504 is unknown: look it up by client id. 409 is being decided right now.
- The client id is the idempotency key. A repeated request is given the first answer, and `Idempotent-Replayed: true`.
- 400 names the member that does not fit and what would; it never reached the engine (`exchange.adapters.orders_json`).

The order routes are answered before FastAPI's machinery: at thousands of orders a second its dependency solving
would cost more than the matching. They stand in the OpenAPI document all the same.
"""

from __future__ import annotations

import hmac
import itertools
import math
import time
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from exchange.adapters.engine_client import AnswerLostError, EngineClient, NotConnectedError
from exchange.adapters.http import MAX_BODY_BYTES, common_routes
from exchange.adapters.orders_json import (
    BadOrderError,
    CancelBody,
    PlaceBody,
    ReplaceBody,
    read_cancel,
    read_mass_cancel,
    read_place,
    read_replace,
)
from exchange.admission import TokenBucket
from exchange.answers import OrderAnswer, Status, answer_of
from exchange.commands import ParticipantCommand, PlaceOrder
from exchange.ports import AnsweredOrder, Exposition, GatewayTelemetry, Log, Refusal, RequestOutcome
from exchange.protocol import Answer, NotFound, Refused
from exchange.tracing import Answered, Tracer
from exchange.types import AccountId, ClientId
from kernel.time import SECOND, Instant
from kernel.trace import MAX_TRACEPARENT, order_trace_id, parse_traceparent, traceparent

ENGINE_TIMEOUT_S: Final = 5.0
"""Longer than a recovery takes to begin, shorter than a participant waits."""
SLOW_S: Final = 0.25
"""An order that waited longer for its answer is told in the log."""
LOGGED_PER_S: Final = 10.0
_ORDERS: Final = "/v1/orders"
_ORDER: Final = "/v1/orders/"
_BY_CLIENT_ID: Final = "/v1/orders/by-client-id/"
_encode: Final = msgspec.json.Encoder().encode

_JSON_HEADER: Final = (b"content-type", b"application/json")
_REPLAYED_HEADER: Final = (b"idempotent-replayed", b"true")


class _Reply(msgspec.Struct, frozen=True, gc=False):
    """An HTTP answer in the making."""

    status: int
    body: bytes
    outcome: RequestOutcome
    headers: tuple[tuple[bytes, bytes], ...] = ()
    command: ParticipantCommand | None = None
    """What was asked, when it was understood and is no look-up."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer that is no `OrderAnswer`."""

    status: str
    error: str
    reason: str | None = None


_REFUSALS: Final[dict[Refusal, tuple[int, RequestOutcome, str]]] = {
    Refusal.IN_FLIGHT: (409, RequestOutcome.IN_FLIGHT, "this client id is being decided right now; look it up"),
    Refusal.MISMATCH: (422, RequestOutcome.MISMATCH, "this client id was used for another request; choose a new one"),
    Refusal.UNDECIDED: (504, RequestOutcome.UNKNOWN, "unknown: the journal failed in the middle; look it up later"),
    Refusal.HALTED: (503, RequestOutcome.HALTED, "trading stands still; nothing was done, send it again later"),
    Refusal.OVERLOADED: (503, RequestOutcome.SHED, "the engine is full; nothing was done, send it again"),
    Refusal.NOT_READY: (503, RequestOutcome.UNAVAILABLE, "the engine is not ready; nothing was done, send it again"),
    Refusal.JOURNAL_FAILED: (503, RequestOutcome.UNAVAILABLE, "the journal failed; nothing was done"),
}


class Gateway(FastAPI):
    """One gateway: holds a connection to the engine and a bucket of tokens, and nothing else."""

    def __init__(  # noqa: PLR0913 - ports to the world around it, each with a name
        self,
        engine: EngineClient,
        telemetry: GatewayTelemetry,
        exposition: Exposition,
        *,
        replica: str,
        trade_secret: str,
        capacity_per_s: float,
        engine_timeout_s: float = ENGINE_TIMEOUT_S,
        tracer: Tracer | None = None,
        log: Log | None = None,
    ) -> None:
        super().__init__(title="Order entry", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
        self._engine: Final = engine
        self._meter: Final = telemetry
        self._expected: Final = f"Bearer {trade_secret}".encode()
        self._bucket: Final = TokenBucket(capacity_per_s, time.perf_counter())
        self._timeout_s: Final = engine_timeout_s
        self._tracer: Final = tracer
        self._log: Final = log
        self._log_bucket: Final = TokenBucket(LOGGED_PER_S, time.perf_counter())
        self._request_ids: Final = itertools.count(1)
        self._request_prefix: Final = f"{replica}-{time.time_ns():x}-"
        telemetry.capacity(capacity_per_s)
        telemetry.engine_connected(connected=engine.connected)
        self.router.routes.extend(common_routes(exposition, self.ready))

    def ready(self) -> tuple[bool, str]:
        """Tell whether orders can reach the engine."""
        if self._engine.connected:
            return True, "the engine is connected"
        return False, "there is no connection to the engine"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an order request at once; hand everything else to FastAPI."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(_ORDERS) and (len(path) == len(_ORDERS) or path.startswith(_ORDER)):
                await self._order_route(scope, receive, send, path)
                return
        await super().__call__(scope, receive, send)

    async def _order_route(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        body = await _read(receive)
        started = time.perf_counter()
        trace = _traceparent(scope)
        reply = await self._reply(scope, path, body, trace)
        request_id = f"{self._request_prefix}{next(self._request_ids):x}"
        headers = [
            _JSON_HEADER,
            (b"content-length", str(len(reply.body)).encode()),
            (b"x-request-id", request_id.encode()),
            *reply.headers,
        ]
        if body is None:
            headers.append((b"connection", b"close"))
        start: Message = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": reply.body})
        seconds = time.perf_counter() - started
        command = reply.command
        if command is None:
            self._meter.answered(reply.outcome, seconds)
            return
        symbol = command.symbol if isinstance(command, PlaceOrder) else None
        self._meter.answered(reply.outcome, seconds, AnsweredOrder(command.account, command.client_id, symbol, trace))
        self._tell(reply, command, trace, request_id, seconds)

    def _tell(self, reply: _Reply, command: ParticipantCommand, trace: str, request_id: str, seconds: float) -> None:
        """Tell of one answered request: to the tracer, and to the log when it was slow or its answer is unknown."""
        now = time.time_ns()
        if self._tracer is not None:
            received_at = Instant(now - round(seconds * SECOND))
            self._tracer.answered(
                Answered(command, trace, request_id, reply.outcome, reply.status, received_at, Instant(now))
            )
        unknown = reply.outcome is RequestOutcome.UNKNOWN
        if self._log is None or not (unknown or seconds >= SLOW_S):
            return
        # Bounded: when everything is slow, ten a second say so as well as ten thousand.
        if self._log_bucket.take(time.perf_counter()):
            self._log.event(
                "order-unanswered" if unknown else "order-slow", severity="warning", account=command.account,
                client_id=command.client_id, request_id=request_id, outcome=str(reply.outcome),
                duration_ns=round(seconds * SECOND), trace_id=order_trace_id(command.account, command.client_id, trace),
            )  # fmt: skip

    async def _reply(  # noqa: PLR0911 - one return a route, and one for each way to be turned away before it
        self, scope: Scope, path: str, body: bytes | None, trace: str
    ) -> _Reply:
        if not self._may_trade(scope):
            header = ((b"www-authenticate", b"Bearer"),)
            return _problem(401, RequestOutcome.UNAUTHORIZED, "authorization: a bearer token is needed", header)
        if body is None:
            return _problem(413, RequestOutcome.BAD_REQUEST, f"body: longer than {MAX_BODY_BYTES} bytes")
        method: str = scope["method"]
        if path.startswith(_BY_CLIENT_ID):
            if method != "GET":
                return _not_allowed("GET")
            return await self._look_up(_as_sent(scope))
        try:
            if path == _ORDERS:
                if method == "DELETE":
                    return await self._submit(read_mass_cancel(_query(scope)), trace)
                if method != "POST":
                    return _not_allowed("DELETE, POST")
                return await self._submit(read_place(body), trace)
            return await self._change(scope, path[len(_ORDER) :], body, trace)
        except BadOrderError as error:
            return _problem(400, RequestOutcome.BAD_REQUEST, str(error))

    async def _change(self, scope: Scope, order_id: str, body: bytes, trace: str) -> _Reply:
        method: str = scope["method"]
        if method == "DELETE":
            return await self._submit(read_cancel(order_id, _query(scope)), trace)
        if method == "PATCH":
            return await self._submit(read_replace(order_id, body), trace)
        return _not_allowed("DELETE, PATCH")

    def _may_trade(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                return hmac.compare_digest(value, self._expected)
        return False

    async def _submit(self, command: ParticipantCommand, trace: str) -> _Reply:
        return msgspec.structs.replace(await self._decided(command, trace), command=command)

    async def _decided(self, command: ParticipantCommand, trace: str) -> _Reply:
        if not self._bucket.take(time.perf_counter(), reserve=not isinstance(command, PlaceOrder)):
            return _again(RequestOutcome.SHED, "this gateway is full; nothing was done, send it again", "overloaded",
                          self._bucket.wait_s())  # fmt: skip
        self._meter.in_flight(self._engine.in_flight + 1)
        try:
            reply = await self._engine.submit(command, self._timeout_s, trace)
        except NotConnectedError:
            return _again(RequestOutcome.UNAVAILABLE, "the engine is not connected; nothing was done, send it again",
                          "not_connected")  # fmt: skip
        except AnswerLostError as error:
            return _problem(504, RequestOutcome.UNKNOWN, f"unknown: {error}; look it up by client id")
        finally:
            self._meter.in_flight(self._engine.in_flight)
        if isinstance(reply, Answer):
            return _answered(command.client_id, reply, command)
        assert isinstance(reply, Refused), "the engine looked up what was submitted"
        return _refused(reply)

    async def _look_up(self, path: str) -> _Reply:
        account, slash, client_id = path[len(_BY_CLIENT_ID) :].partition("/")
        if not (account and slash and client_id):
            return _problem(404, RequestOutcome.BAD_REQUEST, "path: /v1/orders/by-client-id/{account}/{client_id}")
        account, client_id = unquote(account), unquote(client_id)
        try:
            reply = await self._engine.look_up(AccountId(account), ClientId(client_id), self._timeout_s)
        except (NotConnectedError, AnswerLostError) as error:
            return _again(RequestOutcome.UNAVAILABLE, f"{error}; ask again", "not_connected")
        if isinstance(reply, Answer):
            found = _answered(ClientId(client_id), reply)
            return msgspec.structs.replace(found, status=200)
        if isinstance(reply, NotFound):
            return _problem(404, RequestOutcome.BAD_REQUEST, "no request of this account and client id is known")
        return _refused(reply)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, the order routes included."""
        if self.openapi_schema is None:
            document = super().openapi()
            document["paths"].update(_order_paths())
            bodies = (PlaceBody, ReplaceBody, CancelBody, OrderAnswer, Problem)
            _, schemas = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
            self.openapi_schema = document
        return self.openapi_schema


def _as_sent(scope: Scope) -> str:
    """Return the path before its `%xx` were read: a client id may hold a slash or a per cent sign itself."""
    sent: str = scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1")
    path: str = scope["path"]
    return sent if sent.startswith(_BY_CLIENT_ID) else path


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _traceparent(scope: Scope) -> str:
    """Return the client's `traceparent`, or nothing when there is none that means something."""
    for name, value in scope["headers"]:
        if name == b"traceparent":
            text: str = value[: MAX_TRACEPARENT * 4].decode("latin-1")
            context = parse_traceparent(text)
            return "" if context is None else traceparent(context)
    return ""


async def _read(receive: Receive) -> bytes | None:
    """Read a request's body whole; None when it is too long."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body if len(body) <= MAX_BODY_BYTES else None
    parts = bytearray(body)
    while message.get("more_body", False):
        message = await receive()
        parts += message.get("body", b"")
        if len(parts) > MAX_BODY_BYTES:
            return None
    return bytes(parts)


def _answered(client_id: ClientId, reply: Answer, command: ParticipantCommand | None = None) -> _Reply:
    answer = answer_of(reply.seq, client_id, reply.events, command)
    rejected = answer.status is Status.REJECTED
    outcome = RequestOutcome.REJECTED if rejected else RequestOutcome.ACCEPTED
    headers = (_REPLAYED_HEADER,) if reply.replayed else ()
    if reply.replayed:
        outcome = RequestOutcome.REPLAYED
    return _Reply(422 if rejected else 201, _encode(answer), outcome, headers)


def _refused(reply: Refused) -> _Reply:
    if reply.reason not in _REFUSALS:
        return _problem(502, RequestOutcome.UNAVAILABLE, f"the engine refused the message: {reply.detail}")
    status, outcome, words = _REFUSALS[reply.reason]
    headers = ((b"retry-after", b"1"),) if status in {409, 503} else ()
    return _Reply(status, _encode(Problem(outcome, words, reply.detail or reply.reason)), outcome, headers)


def _again(outcome: RequestOutcome, words: str, reason: str, wait_s: float = 1.0) -> _Reply:
    header = (b"retry-after", str(max(1, math.ceil(wait_s))).encode())
    return _Reply(503, _encode(Problem(outcome, words, reason)), outcome, (header,))


def _problem(status: int, outcome: RequestOutcome, words: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> _Reply:
    return _Reply(status, _encode(Problem(outcome, words)), outcome, headers)


def _not_allowed(methods: str) -> _Reply:
    return _problem(405, RequestOutcome.BAD_REQUEST, f"method: only {methods}", ((b"allow", methods.encode()),))


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


def _order_paths() -> dict[str, Any]:
    order_id = _parameter("path", "order_id")
    usual = ("201", "400", "401", "409", "413", "422", "503", "504")
    return {
        _ORDERS: {
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
