"""Order entry over HTTP: stateless, every answer durable, every refusal honest.

    request -> token -> strict JSON -> budgets -> admission -> engine -> answer

- 201 accepted, canceled or replaced; 422 refused by a rule (the reason is journalled) or a client id used for another
  body.
- 503 was **never** sequenced: send it again. 504 is unknown: look it up by client id. 409 is being decided right now.
- The client id is the idempotency key. A repeated request is given the first answer, and `Idempotent-Replayed: true`.
- 401 has no token that is taken (`exchange.adapters.tokens`), 403 one that is not for this, 429 used its budget up.
- 400 names the member that does not fit and what would; it never reached the engine (`exchange.adapters.orders_json`).

Every answer has an `X-Request-ID`: the client's own, if it is well-formed. `exchange.adapters.order_socket` takes the
same requests over one WebSocket.

The order routes are answered before FastAPI's machinery: at thousands of orders a second its dependency solving
would cost more than the matching. They stand in the OpenAPI document all the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from exchange.adapters.cached import STEADY, cacheable
from exchange.adapters.disconnect import DisconnectCancels
from exchange.adapters.door import Door, Heads, RequestIds, heads_of
from exchange.adapters.engine_client import Engines
from exchange.adapters.gateway_openapi import order_paths, order_schemas, other_paths, security_schemes
from exchange.adapters.http import MAX_BODY_BYTES, common_routes, json_response, words_of_no_route
from exchange.adapters.order_desk import ENGINE_TIMEOUT_S, OrderDesk, Problem, Verdict, budget_of, problem
from exchange.adapters.order_socket import ORDER_SOCKET, OrderSockets
from exchange.adapters.orders_json import BadOrderError, read_cancel, read_mass_cancel, read_place, read_replace
from exchange.adapters.tokens import SharedSecret, SignedTokens, TokenError
from exchange.bearer import Bearer, TokenFault
from exchange.calendar_page import CalendarTold, always_open
from exchange.commands import ParticipantCommand
from exchange.limits import NO_RATES, Budget, Rates, Standing
from exchange.listing import Listing
from exchange.ports import Exposition, GatewayTelemetry, Log, ReferenceAnswer, RequestOutcome
from exchange.tracing import Tracer
from exchange.types import AccountId, ClientId

_ORDERS: Final = "/v1/orders"
_ORDER: Final = "/v1/orders/"
_BY_CLIENT_ID: Final = "/v1/orders/by-client-id/"
_encode: Final = msgspec.json.Encoder().encode

_Header = tuple[bytes, bytes]
_JSON_HEADER: Final = (b"content-type", b"application/json")
_REPLAYED_HEADER: Final = (b"idempotent-replayed", b"true")
_CLOSE_HEADER: Final = (b"connection", b"close")


class _Reply(msgspec.Struct, frozen=True, gc=False):
    """An HTTP answer in the making."""

    verdict: Verdict
    headers: tuple[_Header, ...] = ()
    command: ParticipantCommand | None = None
    """What was asked, when it was understood and is no look-up."""


async def _no_route(request: Request, error: Exception) -> Response:
    """Answer what no route takes as every other error is told."""
    assert isinstance(error, HTTPException)
    words = words_of_no_route(request, error.status_code)
    return json_response(Problem(RequestOutcome.BAD_REQUEST, words), error.status_code, error.headers)


class _GoneError(Exception):
    """The client left in the middle of its request."""


class Gateway(FastAPI):
    """One gateway: holds a connection to the engine and budgets, and nothing else."""

    def __init__(  # noqa: PLR0913 - ports to the world around it, each with a name
        self,
        engine: Engines,
        telemetry: GatewayTelemetry,
        exposition: Exposition,
        *,
        replica: str,
        trade_secret: str = "",
        tokens: SignedTokens | None = None,
        capacity_per_s: float,
        rates: Rates = NO_RATES,
        engine_timeout_s: float = ENGINE_TIMEOUT_S,
        sessions: Path | None = None,
        listing: Listing | None = None,
        calendar: Callable[[], CalendarTold] = always_open,
        tracer: Tracer | None = None,
        log: Log | None = None,
    ) -> None:
        """Take orders of those who bring `trade_secret` or one of `tokens`.

        `sessions` is a directory that keeps which sessions' orders are still to be cancelled over a restart, `listing`
        what is traded, `calendar` when.
        """
        super().__init__(title="Order entry", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json")
        self.add_exception_handler(HTTPException, _no_route)
        self._engine: Final = engine
        self._meter: Final = telemetry
        self._door: Final = Door(SharedSecret(trade_secret) if trade_secret else None, tokens)
        self._log: Final = log
        self._request_ids: Final = RequestIds(replica)
        self._desk: Final = OrderDesk(
            engine, telemetry, capacity_per_s=capacity_per_s, rates=rates, engine_timeout_s=engine_timeout_s,
            tracer=tracer, log=log,
        )  # fmt: skip
        self._policies: Final = {budget: self._desk.limits.policies(budget).encode() for budget in Budget}
        self._cancels: Final = DisconnectCancels(engine, telemetry, replica=replica, directory=sessions, log=log)
        self._sockets: Final = OrderSockets(self._desk, self._door, self._cancels)
        self.router.routes.extend(common_routes(exposition, self.ready))
        if listing is not None:
            self._offer("/v1/instruments", lambda: listing)
        self._offer("/v1/calendar", calendar)

    def ready(self) -> tuple[bool, str]:
        """Tell whether orders can reach the engine."""
        if self._sockets.stopping:
            return False, "the gateway is stopping"
        if self._engine.connected:
            return True, "the engine is connected"
        return False, "there is no connection to the engine"

    def start(self) -> None:
        """Cancel what sessions of the gateway's life before left behind; call it once, in a running loop."""
        self._cancels.go_on()

    async def stop(self) -> None:
        """End every WebSocket, and cancel what its session is to have cancelled."""
        await self._sockets.stop()
        await self._cancels.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an order request at once; hand everything else to FastAPI."""
        if scope["type"] == "http":
            heads = heads_of(scope["headers"])
            path: str = scope["path"]
            if path.startswith(_ORDERS) and (len(path) == len(_ORDERS) or path.startswith(_ORDER)):
                await self._order_route(scope, receive, send, heads)
                return
            await super().__call__(scope, receive, _named(send, heads.request_id or self._request_ids.next()))
            return
        if scope["type"] == "websocket" and scope["path"] == ORDER_SOCKET:
            heads = heads_of(scope["headers"])
            await self._sockets.serve(scope, receive, send, heads, heads.request_id or self._request_ids.next())
            return
        await super().__call__(scope, receive, send)

    async def _order_route(self, scope: Scope, receive: Receive, send: Send, heads: Heads) -> None:
        try:
            body = await _read(receive) if heads.length <= MAX_BODY_BYTES else None
        except _GoneError:
            return
        started = time.perf_counter()
        request_id = heads.request_id or self._request_ids.next()
        reply = await self._reply(scope, body, heads, request_id)
        verdict = reply.verdict
        sent = _encode(verdict.body)
        headers: list[_Header] = [
            _JSON_HEADER,
            (b"content-length", str(len(sent)).encode()),
            (b"x-request-id", request_id.encode()),
            *reply.headers,
        ]
        if verdict.replayed:
            headers.append(_REPLAYED_HEADER)
        if verdict.retry_s:
            headers.append((b"retry-after", str(verdict.retry_s).encode()))
        if body is None:
            headers.append(_CLOSE_HEADER)
        start: Message = {"type": "http.response.start", "status": verdict.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": sent})
        seconds = time.perf_counter() - started
        if reply.command is None:
            self._meter.answered(verdict.outcome, seconds)
        else:
            self._desk.tell(verdict, reply.command, heads.trace, request_id, seconds)

    async def _reply(  # noqa: PLR0911 - one return a route, and one for each way to be turned away before it
        self, scope: Scope, body: bytes | None, heads: Heads, request_id: str
    ) -> _Reply:
        try:
            bearer = self._door.bearer(heads.token)
        except TokenError as error:
            return self._not_let_in(error, request_id)
        if body is None:
            return _Reply(problem(413, RequestOutcome.BAD_REQUEST, f"body: longer than {MAX_BODY_BYTES} bytes"))
        path: str = scope["path"]
        method: str = scope["method"]
        if path.startswith(_BY_CLIENT_ID):
            if method != "GET":
                return _not_allowed("GET")
            return await self._look_up(bearer, _as_sent(scope))
        try:
            if path == _ORDERS:
                if method == "DELETE":
                    return await self._submit(bearer, read_mass_cancel(_query(scope)), heads.trace)
                if method != "POST":
                    return _not_allowed("DELETE, POST")
                return await self._submit(bearer, read_place(body), heads.trace)
            return await self._change(scope, bearer, body, heads.trace)
        except BadOrderError as error:
            return _Reply(problem(400, RequestOutcome.BAD_REQUEST, str(error)))

    async def _change(self, scope: Scope, bearer: Bearer, body: bytes, trace: str) -> _Reply:
        method: str = scope["method"]
        order_id = scope["path"][len(_ORDER) :]
        if method == "DELETE":
            return await self._submit(bearer, read_cancel(order_id, _query(scope)), trace)
        if method == "PATCH":
            return await self._submit(bearer, read_replace(order_id, body), trace)
        return _not_allowed("DELETE, PATCH")

    def _not_let_in(self, error: TokenError, request_id: str) -> _Reply:
        self._meter.token_refused(error.fault)
        if self._log is not None and self._desk.may_log():
            self._log.event("bearer-refused", severity="warning", reason=str(error.fault), request_id=request_id)
        words = str(error)
        challenge = "Bearer"
        if error.fault is not TokenFault.MISSING:  # RFC 6750, 3: who brought none is told of no error
            challenge += f' error="invalid_token", error_description="{words.replace("`", "")}"'
        header = (b"www-authenticate", challenge.encode())
        return _Reply(problem(401, RequestOutcome.UNAUTHORIZED, words, error.fault), (header,))

    async def _submit(self, bearer: Bearer, command: ParticipantCommand, trace: str) -> _Reply:
        verdict, standing = self._desk.turned_away(bearer, command)
        if verdict is None:
            verdict = await self._desk.decide(command, trace)
        return _Reply(verdict, self._budget_headers(budget_of(command), standing), command)

    async def _look_up(self, bearer: Bearer, path: str) -> _Reply:
        account, slash, client_id = path[len(_BY_CLIENT_ID) :].partition("/")
        if not (account and slash and client_id):
            words = "path: /v1/orders/by-client-id/{account}/{client_id}"
            return _Reply(problem(404, RequestOutcome.BAD_REQUEST, words))
        account, client_id = unquote(account), unquote(client_id)
        verdict, standing = self._desk.look_up_turned_away(bearer, AccountId(account))
        if verdict is None:
            verdict = await self._desk.look_up(AccountId(account), ClientId(client_id))
        return _Reply(verdict, self._budget_headers(Budget.LOOK_UPS, standing))

    def _budget_headers(self, budget: Budget, standing: Standing | None) -> tuple[_Header, ...]:
        if standing is None:
            return ()
        told = f'"{standing.policy}";r={standing.remaining};t={math.ceil(standing.wait_s)}'
        return (b"ratelimit-policy", self._policies[budget]), (b"ratelimit", told.encode())

    def _offer(self, path: str, reference: Callable[[], object]) -> None:
        """Offer what changes rarely, to be kept by whoever stands between."""

        async def answer(request: Request) -> Response:
            response = cacheable(request, reference(), STEADY)
            kept = response.status_code == 304  # noqa: PLR2004 - Not Modified
            self._meter.reference_told(ReferenceAnswer.NOT_MODIFIED if kept else ReferenceAnswer.SENT)
            return response

        self.router.routes.append(Route(path, answer, methods=["GET"]))

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, the order routes included."""
        if self.openapi_schema is None:
            document = super().openapi()
            document["paths"].update(order_paths() | other_paths())
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(order_schemas())
            components["securitySchemes"] = security_schemes()
            self.openapi_schema = document
        return self.openapi_schema


def _named(send: Send, request_id: str) -> Send:
    """Return a `send` that gives the answer its request's name."""
    header = (b"x-request-id", request_id.encode())

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), header]}
        await send(message)

    return named


def _as_sent(scope: Scope) -> str:
    """Return the path before its `%xx` were read: a client id may hold a slash or a per cent sign itself."""
    sent: str = scope.get("raw_path", b"").partition(b"?")[0].decode("latin-1")
    path: str = scope["path"]
    return sent if sent.startswith(_BY_CLIENT_ID) else path


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


async def _read(receive: Receive) -> bytes | None:
    """Read a request's body whole; None when it is too long.

    Raises:
        _GoneError: the client left before it was whole.
    """
    parts = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        body: bytes = message.get("body", b"")
        parts = parts + body if parts else body
        if len(parts) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return parts


def _not_allowed(methods: str) -> _Reply:
    verdict = problem(405, RequestOutcome.BAD_REQUEST, f"method: only {methods}")
    return _Reply(verdict, ((b"allow", methods.encode()),))
