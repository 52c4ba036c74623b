"""Order entry over one WebSocket: authenticated once, pipelined, answered in any order (`order_messages`).

    GET /v1/ws/orders[?session=NAME[&cancel_on_disconnect=true]]      Authorization: Bearer ...

What is bounded, and what happens at the bound:
  - requests that wait for the engine: the gateway reads no further, and TCP tells the client.
  - answers the client does not read: it is cut off with code 1013, and its session ends.
  - silence: a ping that is not answered ends the session (uvicorn pings; `HttpServer` says how often).
  - the token: when it expires, or its key is taken out, the connection ends with code 4401.

With `cancel_on_disconnect` the orders this connection placed leave the book when it ends, however it ends
(`exchange.adapters.disconnect`). The same bearer opening the same session anew takes it over: the old connection ends
with 4409, its orders are cancelled, and only then the new one is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from exchange.adapters.disconnect import DisconnectCancels, Promise
from exchange.adapters.door import Door, Heads
from exchange.adapters.engine_client import AnswerLostError, EngineReply, NotConnectedError
from exchange.adapters.http import PING_S
from exchange.adapters.order_desk import OrderDesk, Problem, Verdict, decided, found, lost, problem, unasked
from exchange.adapters.order_messages import (
    MAX_MESSAGES,
    Asked,
    Greeting,
    Hello,
    LookUpMessage,
    PingMessage,
    Reply,
    read_frame,
)
from exchange.adapters.orders_json import BadOrderError, Identifier
from exchange.adapters.patient_socket import HEARTBEAT_MISSED
from exchange.adapters.tokens import TokenError
from exchange.answers import OrderAnswer
from exchange.bearer import Bearer
from exchange.commands import ParticipantCommand, PlaceOrder
from exchange.ports import RequestOutcome, SocketEnd
from exchange.types import AccountId, ClientId, SessionId
from kernel.trace import parse_traceparent, traceparent

ORDER_SOCKET: Final = "/v1/ws/orders"
MAX_OPEN: Final = 4096
"""Requests of one connection that wait for the engine: what a group commit of a busy disk answers at once."""
MAX_UNREAD: Final = 16_384
"""Answers that a client may leave unread, beside what the sockets' buffers hold."""
MAX_ANSWERS: Final = 1000
"""Answers in one frame."""
MAX_SOCKETS: Final = 1000
LOOK_S: Final = 0.25
CLOSE_S: Final = 1.0
_CODES: Final[dict[SocketEnd, int]] = {
    SocketEnd.TOO_SLOW: 1013,
    SocketEnd.TOKEN_ENDED: 4401,
    SocketEnd.TAKEN_OVER: 4409,
    SocketEnd.STOPPING: 1012,
}
_encode: Final = msgspec.json.Encoder().encode


class SocketWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of the WebSocket's address."""

    session: Identifier = ""
    cancel_on_disconnect: bool = False


class _Turned(NamedTuple):
    """Why a WebSocket is not opened."""

    status: int
    words: str
    header: tuple[bytes, bytes] | None = None
    status_word: str = "refused"
    reason: str | None = None


class OrderSockets:
    """All WebSockets of order entry of one gateway."""

    def __init__(self, desk: OrderDesk, door: Door, cancels: DisconnectCancels) -> None:
        """Let in through `door`, decide at `desk`, cancel by `cancels`."""
        self.stopping = False
        self._desk: Final = desk
        self._door: Final = door
        self._cancels: Final = cancels
        self._open: Final[set[_OrderSocket]] = set()
        self._claims: Final[dict[tuple[str, str], _Claim]] = {}

    async def serve(self, scope: Scope, receive: Receive, send: Send, heads: Heads, request_id: str) -> None:
        """Serve one connection until it ends."""
        await receive()  # websocket.connect
        name = (b"x-request-id", request_id.encode())
        let_in = await self._let_in(scope, heads, request_id)
        if isinstance(let_in, _Turned):
            body = _encode(Problem(let_in.status_word, let_in.words, let_in.reason))
            headers = [(b"content-type", b"application/json"), name, *([let_in.header] if let_in.header else ())]
            await send({"type": "websocket.http.response.start", "status": let_in.status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
            return
        bearer, wish = let_in
        claim = self._claim(bearer, wish) if wish.cancel_on_disconnect else None
        socket = _OrderSocket(self._desk, self._door, bearer, wish, request_id, self._cancels)
        self._open.add(socket)
        if claim is not None:
            claim.socket = socket
        try:
            if claim is not None:
                await claim.before()
            await send({"type": "websocket.accept", "headers": [name]})
            await self._told(socket, receive, send)
        finally:
            self._open.discard(socket)
            self._desk.meter.sockets(len(self._open))
            if claim is not None:
                self._leave(bearer, wish, claim, socket)

    async def stop(self) -> None:
        """End every connection."""
        self.stopping = True
        for socket in list(self._open):
            socket.end(SocketEnd.STOPPING)
        deadline = time.monotonic() + CLOSE_S * 2
        while self._open and time.monotonic() < deadline:  # noqa: ASYNC110 - a set has no event
            await asyncio.sleep(0.01)

    async def _told(self, socket: _OrderSocket, receive: Receive, send: Send) -> None:
        desk = self._desk
        desk.meter.sockets(len(self._open))
        end = SocketEnd.CLOSED
        try:
            end = await socket.run(receive, send)
        finally:
            desk.meter.socket_ended(end)
            if desk.log is not None and (end is not SocketEnd.CLOSED or socket.promises):
                severity = "info" if end in {SocketEnd.CLOSED, SocketEnd.STOPPING} else "warning"
                desk.log.event("order-socket-ended", severity=severity, reason=str(end), key=socket.bearer.key,
                               session=socket.session, request_id=socket.request_id)  # fmt: skip

    async def _let_in(self, scope: Scope, heads: Heads, request_id: str) -> tuple[Bearer, SocketWish] | _Turned:
        try:
            bearer = self._door.bearer(heads.token)
        except TokenError as error:
            self._desk.meter.token_refused(error.fault)
            self._desk.meter.answered(RequestOutcome.UNAUTHORIZED, 0.0)
            if self._desk.log is not None and self._desk.may_log():
                self._desk.log.event(
                    "bearer-refused", severity="warning", reason=str(error.fault), request_id=request_id
                )
            challenge = (b"www-authenticate", b"Bearer")
            return _Turned(401, str(error), challenge, RequestOutcome.UNAUTHORIZED, error.fault)
        if not bearer.scopes:
            return _Turned(403, "token: it has none of the scopes trade, read, admin")
        if self.stopping or len(self._open) >= MAX_SOCKETS:
            return _Turned(503, "this gateway takes no more connections; try another", (b"retry-after", b"1"))
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        try:
            wish = msgspec.convert(query, SocketWish, strict=False)
        except msgspec.ValidationError as error:
            return _Turned(400, f"query: {str(error).replace('`$.', '`')}; there are session, cancel_on_disconnect")
        if wish.cancel_on_disconnect and not wish.session:
            return _Turned(400, "query: cancel_on_disconnect needs a session to cancel: name one")
        return bearer, wish

    def _claim(self, bearer: Bearer, wish: SocketWish) -> _Claim:
        """Take a session; whoever has it ends."""
        name = (bearer.key, wish.session)
        older = self._claims.get(name)
        if older is not None and older.socket is not None:
            older.socket.end(SocketEnd.TAKEN_OVER)
        claim = self._claims[name] = _Claim(older)
        return claim

    def _leave(self, bearer: Bearer, wish: SocketWish, claim: _Claim, socket: _OrderSocket) -> None:
        """Cancel what was promised, and let the next one in when that is done."""
        work = self._cancels.keep(socket.promises.values())
        name = (bearer.key, wish.session)

        def over() -> None:
            claim.over.set()
            if self._claims.get(name) is claim:
                del self._claims[name]

        if not work:
            over()
            return
        whole = asyncio.gather(*work, return_exceptions=True)
        whole.add_done_callback(lambda _: over())


class _Claim:
    """A session that somebody has."""

    def __init__(self, older: _Claim | None) -> None:
        self.socket: _OrderSocket | None = None
        self.over: Final = asyncio.Event()
        self._older = older

    async def before(self) -> None:
        """Wait until whoever had the session before has left, with its orders."""
        older, self._older = self._older, None
        if older is not None:
            await older.over.wait()


class _OrderSocket:
    """One connection."""

    def __init__(
        self,
        desk: OrderDesk,
        door: Door,
        bearer: Bearer,
        wish: SocketWish,
        request_id: str,
        cancels: DisconnectCancels,
    ) -> None:
        self.bearer: Final = bearer
        self.session: Final = wish.session
        self.request_id: Final = request_id
        self.promises: Final[dict[AccountId, Promise]] = {}
        self._desk: Final = desk
        self._door: Final = door
        self._cancels: Final = cancels
        self._cancel: Final = wish.cancel_on_disconnect
        self._end: Final[asyncio.Future[SocketEnd]] = asyncio.get_running_loop().create_future()
        self._replies: list[Reply] = []
        self._wake: Final = asyncio.Event()
        self._waiting: Final[deque[tuple[float, int]]] = deque()
        """By when the engine's answer has to be there, and the number to give it up by."""
        self._open = 0
        self._room: Final = asyncio.Event()

    def end(self, end: SocketEnd) -> None:
        """Let the connection end for a reason; the first one counts."""
        if not self._end.done():
            self._end.set_result(end)
            self._room.set()

    async def run(self, receive: Receive, send: Send) -> SocketEnd:
        """Read and answer until the connection ends; return why it did."""
        hello = Hello(self.request_id, self.session, self._cancel, PING_S, MAX_OPEN, MAX_MESSAGES)
        work = (
            asyncio.create_task(self._read(receive)),
            asyncio.create_task(self._write(send, hello)),
            asyncio.create_task(self._watch()),
        )
        try:
            await asyncio.wait((*work, self._end), return_when=asyncio.FIRST_COMPLETED)
            self.end(SocketEnd.CLOSED)  # if nobody said why
            return self._end.result()
        finally:
            self.end(SocketEnd.STOPPING)
            for task in work:
                task.cancel()
            for outcome in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
                    raise outcome
            asyncio.get_running_loop().call_later(self._desk.timeout_s, self._give_up, float("inf"))
            code = _CODES.get(self._end.result())
            if code is not None:
                with contextlib.suppress(OSError, TimeoutError, RuntimeError):
                    async with asyncio.timeout(CLOSE_S):
                        await send({"type": "websocket.close", "code": code, "reason": str(self._end.result())})

    # --- in --------------------------------------------------------------------------------------------------------

    async def _read(self, receive: Receive) -> None:
        session, own = self.session, self._cancel
        while not self._end.done():
            message = await receive()
            if message["type"] == "websocket.disconnect":
                missed = message.get("reason") == HEARTBEAT_MISSED
                self.end(SocketEnd.HEARTBEAT_MISSED if missed else SocketEnd.CLOSED)
                return
            for asked in read_frame(message.get("text") or message.get("bytes") or b"", session, own_session=own):
                self._take(asked)
            while self._open >= MAX_OPEN and not self._end.done():
                self._room.clear()
                await self._room.wait()

    def _take(self, asked: Asked) -> None:
        started, what = time.perf_counter(), asked.what
        if isinstance(what, PlaceOrder):  # most are
            self._submit(asked, what, started)
        elif isinstance(what, BadOrderError):
            self._answer(asked.id, problem(400, RequestOutcome.BAD_REQUEST, str(what)))
        elif isinstance(what, PingMessage):
            self._put(Reply(asked.id, 200))
        elif isinstance(what, LookUpMessage):
            self._look_up(asked.id, AccountId(what.account), ClientId(what.client_id), started)
        else:
            self._submit(asked, what, started)

    def _submit(self, asked: Asked, command: ParticipantCommand, started: float) -> None:
        trace = ""
        if asked.trace:
            context = parse_traceparent(asked.trace)
            trace = "" if context is None else traceparent(context)
        verdict, _ = self._desk.turned_away(self.bearer, command)
        if verdict is None:
            if self._cancel and isinstance(command, PlaceOrder) and command.account not in self.promises:
                self.promises[command.account] = self._cancels.promise(
                    command.account, SessionId(self.session), self.request_id
                )
            try:
                told = partial(self._decided, asked.id, command, trace, started)
                number = self._desk.engine.send(command, trace, told)
            except NotConnectedError as error:
                verdict = lost(error)
            else:
                self._opened(number, started)
                return
        self._answer(asked.id, verdict, command, trace, started)

    def _look_up(self, named: int | str | None, account: AccountId, client_id: ClientId, started: float) -> None:
        verdict, _ = self._desk.look_up_turned_away(self.bearer, account)
        if verdict is None:
            try:
                told = partial(self._found, named, client_id)
                number = self._desk.engine.send_look_up(account, client_id, told)
            except NotConnectedError as error:
                verdict = unasked(error)
            else:
                self._opened(number, started)
                return
        self._answer(named, verdict)

    # --- the engine ------------------------------------------------------------------------------------------------

    def _opened(self, number: int, started: float) -> None:
        self._open += 1
        self._waiting.append((started + self._desk.timeout_s, number))

    def _closed(self) -> None:
        self._open -= 1
        self._room.set()

    def _decided(
        self,
        named: int | str | None,
        command: ParticipantCommand,
        trace: str,
        started: float,
        reply: EngineReply | AnswerLostError,
    ) -> None:
        self._closed()
        verdict = lost(reply) if isinstance(reply, AnswerLostError) else decided(command, reply)
        self._answer(named, verdict, command, trace, started)

    def _found(self, named: int | str | None, client_id: ClientId, reply: EngineReply | AnswerLostError) -> None:
        self._closed()
        self._answer(named, unasked(reply) if isinstance(reply, AnswerLostError) else found(client_id, reply))

    async def _watch(self) -> None:
        """Give up what the engine does not answer, and end with the token."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._give_up(time.perf_counter())
            self._desk.meter.in_flight(self._desk.engine.in_flight)
            if not self._door.stands(self.bearer):
                self.end(SocketEnd.TOKEN_ENDED)
                return

    def _give_up(self, now: float) -> None:
        engine = self._desk.engine
        while self._waiting:
            due, number = self._waiting[0]
            if due > now and engine.waits(number):
                return
            self._waiting.popleft()
            engine.give_up(number)  # nothing, if it was answered

    # --- out -------------------------------------------------------------------------------------------------------

    def _answer(
        self,
        named: int | str | None,
        verdict: Verdict,
        command: ParticipantCommand | None = None,
        trace: str = "",
        started: float = 0.0,
    ) -> None:
        body = verdict.body
        if isinstance(body, OrderAnswer):
            self._put(Reply(named, verdict.status, answer=body, replayed=verdict.replayed))
        else:
            self._put(Reply(named, verdict.status, problem=body, retry_after=verdict.retry_s))
        if command is None:
            self._desk.meter.answered(verdict.outcome, 0.0)
        else:
            request_id = f"{self.request_id}/{named}"
            self._desk.tell(verdict, command, trace, request_id, time.perf_counter() - started)

    def _put(self, reply: Reply) -> None:
        if self._end.done():
            return
        if len(self._replies) >= MAX_UNREAD:
            self.end(SocketEnd.TOO_SLOW)
            return
        self._replies.append(reply)
        self._wake.set()

    async def _write(self, send: Send, hello: Hello) -> None:
        await send({"type": "websocket.send", "text": _encode([Greeting(hello)]).decode()})
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._replies:
                replies, self._replies = self._replies[:MAX_ANSWERS], self._replies[MAX_ANSWERS:]
                await send({"type": "websocket.send", "text": _encode(replies).decode()})
