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
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Receive, Scope, Send

from exchange.adapters.disconnect import DisconnectCancels, Promise
from exchange.adapters.door import Door, Heads
from exchange.adapters.engine_client import AnswerLostError, EngineReply, NotConnectedError, ReplyOfMany
from exchange.adapters.http import PING_S
from exchange.adapters.order_desk import OrderDesk, Problem, Verdict, decided, found, lost, unasked
from exchange.adapters.order_messages import (
    MAX_MESSAGES,
    Asked,
    Greeting,
    Hello,
    LookUpMessage,
    Reply,
    read_frame,
)
from exchange.adapters.orders_json import BadOrderError, Identifier
from exchange.adapters.patient_socket import HEARTBEAT_MISSED
from exchange.adapters.tokens import TokenError
from exchange.answers import OrderAnswer, resting
from exchange.bearer import Bearer
from exchange.commands import ParticipantCommand, PlaceOrder
from exchange.ports import RequestOutcome, SocketEnd
from exchange.protocol import AllRests
from exchange.types import AccountId, ClientId, SessionId
from kernel.trace import parse_traceparent, traceparent

ORDER_SOCKET: Final = "/v1/ws/orders"
MAX_OPEN: Final = 4096
"""Requests of one connection that wait for the engine: what a group commit of a busy disk answers at once."""
MAX_UNREAD: Final = 16_384
"""Answers that a client may leave unread, beside what the sockets' buffers hold."""
MAX_TOGETHER: Final = 1024
"""Commands of one connection that are sent to the engine in one turn of the loop before the turn is over."""
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


class _Due(NamedTuple):
    """By when the answers to some requests have to be there, and the numbers to give them up by."""

    at: float
    first: int
    many: int


class _Sent:
    """Commands that were sent to the engine together."""

    __slots__ = ("asked", "commands", "started", "traces")

    def __init__(self, asked: list[Asked], started: float) -> None:
        self.asked, self.started = asked, started
        self.commands: list[ParticipantCommand] = [cast(ParticipantCommand, one.what) for one in asked]
        self.traces: dict[int, str] = {}
        """The `traceparent`s of those that brought a good one."""
        for place, one in enumerate(asked):
            context = parse_traceparent(one.trace) if one.trace else None
            if context is not None:
                self.traces[place] = traceparent(context)

    def trace_of(self, place: int) -> str:
        """Return the `traceparent` of a command; empty when it has none."""
        return self.traces.get(place, "")


def _reply(named: int | str | None, verdict: Verdict) -> Reply:
    body = verdict.body
    if isinstance(body, OrderAnswer):
        return Reply(named, verdict.status, answer=body, replayed=verdict.replayed)
    return Reply(named, verdict.status, problem=body, retry_after=verdict.retry_s)


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
        self._gathered: list[Asked] = []
        """Commands of this turn of the loop."""
        self._gathered_at = 0.0
        self._waiting: Final[deque[_Due]] = deque()
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
            self._submit()  # before whoever keeps this session's promises: afterwards nothing of it may come
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
            frame = message.get("text") or message.get("bytes") or b""
            started = time.perf_counter()
            for asked in read_frame(frame, session, own_session=own):
                what = asked.what
                if type(what) is PlaceOrder or isinstance(what, ParticipantCommand):  # nearly all are the first
                    self._gather(asked, started)
                else:
                    self._take(asked, started)
            if len(self._gathered) >= MAX_TOGETHER:
                self._submit()
            while self._open >= MAX_OPEN and not self._end.done():
                self._room.clear()
                await self._room.wait()

    def _take(self, asked: Asked, started: float) -> None:
        """Take a request that is no command."""
        what = asked.what
        if isinstance(what, BadOrderError):
            self._put([Reply(asked.id, 400, problem=Problem(RequestOutcome.BAD_REQUEST, str(what)))])
            self._desk.meter.answered(RequestOutcome.BAD_REQUEST, 0.0)
        elif isinstance(what, LookUpMessage):
            self._look_up(asked.id, AccountId(what.account), ClientId(what.client_id), started)
        else:
            self._put([Reply(asked.id, 200)])

    def _gather(self, asked: Asked, started: float) -> None:
        if not self._gathered:
            self._gathered_at = started
            asyncio.get_running_loop().call_soon(self._submit)
        self._gathered.append(asked)
        self._open += 1

    def _submit(self) -> None:
        """Send what frames of this turn of the loop asked for to the engine, together."""
        asked, self._gathered = self._gathered, []
        if not asked:
            return
        sent = _Sent(asked, self._gathered_at)
        desk, commands = self._desk, sent.commands
        if not desk.all_let_in(self.bearer, commands):
            sent = self._let_in(sent)
            commands = sent.commands
        if not commands:
            return
        if self._cancel:
            for account in {one.account for one in commands if isinstance(one, PlaceOrder)} - self.promises.keys():
                self.promises[account] = self._cancels.promise(account, SessionId(self.session), self.request_id)
        try:
            first = desk.engine.send_many(commands, sent.traces, partial(self._decided, sent))
        except NotConnectedError as error:
            self._decided(sent, [(place, error) for place in range(len(commands))])
        else:
            self._waiting.append(_Due(sent.started + desk.timeout_s, first, len(commands)))

    def _let_in(self, sent: _Sent) -> _Sent:
        """Look at each of many commands, and answer those that are turned away; return the others."""
        stay: list[Asked] = []
        for place, one in enumerate(sent.asked):
            verdict, _ = self._desk.turned_away(self.bearer, sent.commands[place])
            if verdict is None:
                stay.append(one)
            else:
                self._open -= 1
                self._put([self._told(sent, place, verdict)])
        return _Sent(stay, sent.started)

    def _look_up(self, named: int | str | None, account: AccountId, client_id: ClientId, started: float) -> None:
        verdict, _ = self._desk.look_up_turned_away(self.bearer, account)
        if verdict is None:
            self._submit()  # what was asked for before goes first
            try:
                number = self._desk.engine.send_look_up(account, client_id, partial(self._found, named, client_id))
            except NotConnectedError as error:
                verdict = unasked(error)
            else:
                self._open += 1
                self._waiting.append(_Due(started + self._desk.timeout_s, number, 1))
                return
        self._put([_reply(named, verdict)])
        self._desk.meter.answered(verdict.outcome, 0.0)

    # --- the engine ------------------------------------------------------------------------------------------------

    def _decided(self, sent: _Sent, heard: Sequence[tuple[int, ReplyOfMany]]) -> None:
        """Answer what the engine said of some of the commands that were sent together."""
        asked, seconds = sent.asked, time.perf_counter() - sent.started
        replies: list[Reply] = []
        resting_orders: list[tuple[PlaceOrder, int, str, int | str | None]] = []
        for place, reply in heard:
            one = asked[place]
            if type(reply) is AllRests:  # most are
                order: Any = one.what
                answer = resting(reply.seq, order.client_id, reply.order_id, reply.quantity)
                replies.append(Reply(one.id, 201, answer))
                resting_orders.append((order, reply.seq, sent.trace_of(place), one.id))
            else:
                told: Any = reply
                command = sent.commands[place]
                verdict = (
                    lost(told) if isinstance(told, AnswerLostError | NotConnectedError) else decided(command, told)
                )
                replies.append(self._told(sent, place, verdict))
        if resting_orders:
            self._desk.tell_resting(resting_orders, self.request_id, seconds, traced=bool(sent.traces))
        self._open -= len(heard)
        self._room.set()
        self._put(replies)

    def _told(self, sent: _Sent, place: int, verdict: Verdict) -> Reply:
        """Tell of how one command ended, and return what its sender is told."""
        named = sent.asked[place].id
        seconds = time.perf_counter() - sent.started
        self._desk.tell(verdict, sent.commands[place], sent.trace_of(place), f"{self.request_id}/{named}", seconds)
        return _reply(named, verdict)

    def _found(self, named: int | str | None, client_id: ClientId, reply: EngineReply | AnswerLostError) -> None:
        self._open -= 1
        self._room.set()
        verdict = unasked(reply) if isinstance(reply, AnswerLostError) else found(client_id, reply)
        self._put([_reply(named, verdict)])
        self._desk.meter.answered(verdict.outcome, 0.0)

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
            due = self._waiting[0]
            numbers = range(due.first, due.first + due.many)
            if due.at > now and any(engine.waits(number) for number in numbers):
                return
            self._waiting.popleft()
            for number in numbers:
                engine.give_up(number)  # nothing, if it was answered

    # --- out -------------------------------------------------------------------------------------------------------

    def _put(self, replies: list[Reply]) -> None:
        if self._end.done():
            return
        if len(self._replies) + len(replies) > MAX_UNREAD:
            self.end(SocketEnd.TOO_SLOW)
            return
        self._replies += replies
        self._wake.set()

    async def _write(self, send: Send, hello: Hello) -> None:
        await send({"type": "websocket.send", "text": _encode([Greeting(hello)]).decode()})
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._replies:
                replies, self._replies = self._replies[:MAX_ANSWERS], self._replies[MAX_ANSWERS:]
                await send({"type": "websocket.send", "text": _encode(replies).decode()})
