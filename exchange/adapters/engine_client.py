"""The other end of the engine's port: requests with answers, and the event stream, both over broken connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Final, Protocol

import msgspec

from exchange.adapters.connection import LOOPBACK, connect
from exchange.commands import ParticipantCommand
from exchange.protocol import (
    MAX_REPLY_BYTES,
    MAX_SUBMITS,
    AllRests,
    Answer,
    Answers,
    Books,
    FrameReader,
    FrameTooLongError,
    Heartbeat,
    Indications,
    LookUp,
    NotFound,
    Refused,
    Stream,
    Submit,
    Submits,
    Subscribe,
    frame,
    read_reply,
)
from exchange.types import AccountId, ClientId
from kernel.errors import TemporaryError

RETRY_S_MIN: Final = 0.05
RETRY_S_MAX: Final = 0.5
"""Trying twice a second costs next to nothing, and a recovered engine is found at once, wherever it is by then."""
SILENCE_S: Final = 3.0
"""A stream that brings neither events nor the five heartbeats a second for so long is dead."""
_READ_BYTES: Final = 256 * 1024


class NotConnectedError(TemporaryError):
    """There is no connection to the engine: the request was never sent."""


class AnswerLostError(TemporaryError):
    """The request was sent and no answer came: whether it was carried out is unknown. Look it up."""


EngineReply = Answer | Refused | NotFound
Answered = Callable[[EngineReply | AnswerLostError], None]
"""Called once, from the loop, with what came of a request that was sent."""
ReplyOfMany = EngineReply | AllRests | AnswerLostError | NotConnectedError
AnsweredSome = Callable[[Sequence[tuple[int, ReplyOfMany]]], None]
"""Called from the loop with what came of some of the commands that were sent together, each by its place from 0, until
all have been told, each once."""


class Engines(Protocol):
    """The way to whoever carries out requests: one engine (`EngineClient`) or several (`engine_router`)."""

    @property
    def connected(self) -> bool:
        """Whether a request could be sent now."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        ...

    def send(self, command: ParticipantCommand, trace: str, answered: Answered) -> int:
        """Send a command; see `EngineClient.send`."""
        ...

    def send_many(
        self, commands: Sequence[ParticipantCommand], traces: Mapping[int, str], answered: AnsweredSome
    ) -> int:
        """Send commands together; see `EngineClient.send_many`."""
        ...

    def send_look_up(self, account: AccountId, client_id: ClientId, answered: Answered) -> int:
        """Ask what became of a request; see `EngineClient.send_look_up`."""
        ...

    def waits(self, request_id: int) -> bool:
        """Tell whether a request that was sent is still to be answered."""
        ...

    def give_up(self, request_id: int) -> None:
        """Wait no longer: if no answer came, the request's is lost."""
        ...

    async def submit(self, command: ParticipantCommand, timeout_s: float, trace: str = "") -> EngineReply:
        """Send a command and wait for its answer; see `EngineClient.submit`."""
        ...

    async def look_up(self, account: AccountId, client_id: ClientId, timeout_s: float) -> EngineReply:
        """Ask what became of a request and wait; see `EngineClient.look_up`."""
        ...

    async def run(self) -> None:
        """Keep what is connected; returns only when cancelled."""
        ...


class _Together:
    """Commands that were sent together: who is told of them, and the number of the first."""

    __slots__ = ("first", "told")

    def __init__(self, first: int, told: AnsweredSome) -> None:
        self.first, self.told = first, told


class EngineClient:
    """One connection for all requests of a process, made anew whenever it breaks."""

    def __init__(self, port: int, connected: Callable[[bool], None], *, host: str = LOOPBACK) -> None:
        """Talk to the engine on `port` of `host`; `connected` is told of every change."""
        self._port: Final = port
        self._host: Final = host
        self._told: Final = connected
        self._waiting: Final[dict[int, Answered | _Together]] = {}
        self._next_id = 0
        self._unsent: list[bytes] = []
        self._writer: asyncio.StreamWriter | None = None

    @property
    def connected(self) -> bool:
        """Whether a request could be sent now."""
        return self._writer is not None

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return len(self._waiting)

    def send(self, command: ParticipantCommand, trace: str, answered: Answered) -> int:
        """Send a command, and the client's `traceparent` with it; return a number to give it up by.

        Nothing but `give_up` ends the waiting for an engine that is there and silent.

        Raises:
            NotConnectedError: it was never sent, and `answered` will not be called.
        """
        request_id = self._take_id()
        self._write(request_id, frame(Submit(request_id, command, trace)), answered)
        return request_id

    def send_many(
        self, commands: Sequence[ParticipantCommand], traces: Mapping[int, str], answered: AnsweredSome
    ) -> int:
        """Send commands together, with the `traceparent`s of some by their places; return the number of the first.

        Each of the others has the next number. A command costs a third of what `send` costs for it.

        Raises:
            NotConnectedError: none was sent, and `answered` will not be called.
        """
        first = self._next_id + 1
        frames = [
            frame(
                Submits(
                    first + at, tuple(commands[at : at + MAX_SUBMITS]),
                    {place - at: trace for place, trace in traces.items() if at <= place < at + MAX_SUBMITS},
                )
            )
            for at in range(0, len(commands), MAX_SUBMITS)
        ]  # fmt: skip
        self._send(b"".join(frames))
        self._next_id += len(commands)
        self._waiting.update(dict.fromkeys(range(first, first + len(commands)), _Together(first, answered)))
        return first

    def send_look_up(self, account: AccountId, client_id: ClientId, answered: Answered) -> int:
        """Ask what became of a request; as `send`."""
        request_id = self._take_id()
        self._write(request_id, frame(LookUp(request_id, account, client_id)), answered)
        return request_id

    def waits(self, request_id: int) -> bool:
        """Tell whether a request that was sent is still to be answered."""
        return request_id in self._waiting

    def give_up(self, request_id: int) -> None:
        """Wait no longer: if no answer came, the request's is lost."""
        self._tell([(request_id, AnswerLostError("the engine did not answer in time"))])

    async def submit(self, command: ParticipantCommand, timeout_s: float, trace: str = "") -> EngineReply:
        """Send a command, and the client's `traceparent` with it, and wait for its answer.

        Raises:
            NotConnectedError: it was never sent.
            AnswerLostError: it was sent, and no answer came within `timeout_s` or before the connection broke.
        """
        answer: asyncio.Future[EngineReply] = asyncio.get_running_loop().create_future()
        return await self._wait(self.send(command, trace, into(answer)), answer, timeout_s)

    async def look_up(self, account: AccountId, client_id: ClientId, timeout_s: float) -> EngineReply:
        """Ask what became of a request.

        Raises:
            NotConnectedError, AnswerLostError: as `submit`.
        """
        answer: asyncio.Future[EngineReply] = asyncio.get_running_loop().create_future()
        return await self._wait(self.send_look_up(account, client_id, into(answer)), answer, timeout_s)

    async def run(self) -> None:
        """Keep the connection; returns only when cancelled."""
        pause_s = RETRY_S_MIN
        while True:
            try:
                reader, writer = await connect(self._host, self._port)
            except OSError:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_S_MAX)
                continue
            pause_s = RETRY_S_MIN
            self._writer = writer
            self._told(True)  # noqa: FBT003 - a callback's one argument
            try:
                await self._read(reader)
            finally:
                self._broke()
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            await asyncio.sleep(pause_s)

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _write(self, request_id: int, data: bytes, answered: Answered) -> None:
        self._send(data)
        self._waiting[request_id] = answered

    def _send(self, data: bytes) -> None:
        if self._writer is None:
            raise NotConnectedError("the engine is not connected")
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(data)

    async def _wait(self, request_id: int, answer: asyncio.Future[EngineReply], timeout_s: float) -> EngineReply:
        # A timer of our own: asyncio.timeout costs a task's cancellation machinery on every order.
        timer = asyncio.get_running_loop().call_later(timeout_s, self.give_up, request_id)
        try:
            return await answer
        finally:
            timer.cancel()
            self._waiting.pop(request_id, None)

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        # A connection that is closing takes nothing; `_broke` then answers whoever waits on it.
        if self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(data)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        frames = FrameReader(MAX_REPLY_BYTES)
        with contextlib.suppress(OSError, FrameTooLongError, msgspec.DecodeError):
            while data := await reader.read(_READ_BYTES):
                for body in frames.feed(data):
                    reply = read_reply(body)
                    if isinstance(reply, Answers):
                        self._tell([(one.id, one) for one in chain(reply.rest, reply.others)])
                    elif isinstance(reply, Answer | Refused | NotFound):
                        self._tell([(reply.id, reply)])

    def _tell(self, replies: Sequence[tuple[int, EngineReply | AllRests | AnswerLostError]]) -> None:
        """Tell those who wait of what came; those of one `send_many` that stand together, together."""
        pop = self._waiting.pop
        found = [(pop(number, None), number, reply) for number, reply in replies]
        for answered, some in groupby(found, itemgetter(0)):
            if isinstance(answered, _Together):
                first = answered.first
                answered.told([(number - first, reply) for _, number, reply in some])
            elif answered is not None:
                for _, _, reply in some:
                    assert not isinstance(reply, AllRests), "what is sent alone is answered with its events"
                    answered(reply)

    def _broke(self) -> None:
        self._writer = None
        self._told(False)  # noqa: FBT003 - a callback's one argument
        lost = AnswerLostError("the connection to the engine broke")
        self._tell([(number, lost) for number in self._waiting])


def into(answer: asyncio.Future[EngineReply]) -> Answered:
    """Return what puts an answer into a future that somebody may have stopped waiting on."""

    def answered(reply: EngineReply | AnswerLostError) -> None:
        if answer.done():
            return
        if isinstance(reply, AnswerLostError):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    return answered


StreamMessage = Books | Stream | Indications | Heartbeat


async def follow_events(
    port: int, request: Callable[[], Subscribe], connected: Callable[[bool], None], *, host: str = LOOPBACK
) -> AsyncGenerator[StreamMessage, None]:
    """Yield the event stream for ever, over broken connections.

    `request` is asked at each new connection and says where to go on; `connected` is told of every change. The
    consumer's own slowness is the engine's to judge: nothing is read ahead of it but one buffer.
    """
    pause_s = RETRY_S_MIN
    while True:
        try:
            reader, writer = await connect(host, port, limit=_READ_BYTES)
        except OSError:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_S_MAX)
            continue
        try:
            writer.write(frame(request()))
            async for message in _messages(reader):
                if pause_s:
                    connected(True)  # noqa: FBT003 - a callback's one argument
                    pause_s = 0.0
                yield message
        except (OSError, TimeoutError, FrameTooLongError, msgspec.DecodeError):
            pass  # whatever it was, a new connection begins where this one got to
        finally:
            connected(False)  # noqa: FBT003 - a callback's one argument
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
        pause_s = RETRY_S_MIN
        await asyncio.sleep(pause_s)


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[StreamMessage]:
    frames = FrameReader(MAX_REPLY_BYTES)
    while True:
        async with asyncio.timeout(SILENCE_S):
            data = await reader.read(_READ_BYTES)
        if not data:
            return
        for body in frames.feed(data):
            message = read_reply(body)
            if isinstance(message, Books | Stream | Indications | Heartbeat):
                yield message
            else:
                return
