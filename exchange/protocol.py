"""What gateways, consumers and the engine say to each other, and how it is framed.

A frame is a length (4 bytes, big-endian) and that many bytes of MessagePack holding one message of `ToEngine` or
`FromEngine`. One connection carries requests (`Submit`, `Submits`, `LookUp`, answered by `id` in any order) or, after
`Subscribe`, the event stream. Loopback only: who may connect is decided by who may reach the port.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from exchange.commands import ParticipantCommand
from exchange.events import Event, Happened
from exchange.feed_messages import Indication, Snapshot
from exchange.ports import Refusal
from exchange.types import AccountId, ClientId, Lots, OrderId, Symbol, TradingPhase
from kernel.time import Instant

MAX_REQUEST_BYTES: Final = 64 * 1024
"""No request comes near it; a longer frame is noise, and the connection is closed."""
MAX_REPLY_BYTES: Final = 1024 * 1024 * 1024
"""Full books of every symbol fit many times over."""
_LENGTH: Final = struct.Struct(">I")


class Submit(msgspec.Struct, frozen=True, tag="submit", omit_defaults=True):
    """Give this command a place in the journal. Answered by `Answer` or `Refused` with the same `id`.

    Participants' commands only: halts and sessions go through the engine's HTTP, which asks who is there.
    """

    id: int
    command: ParticipantCommand
    trace: str = ""
    """The client's `traceparent`; no part of the request as far as asking again is concerned."""


class Submits(msgspec.Struct, frozen=True, tag="submits", omit_defaults=True):
    """Many of `Submit` in one: the first has the number `id`, each the next.

    Whoever sends it takes `Answers`, which also hold the answers to what was asked one by one on the same connection.
    """

    id: int
    commands: tuple[ParticipantCommand, ...]
    traces: dict[int, str] = {}
    """The clients' `traceparent`s, by the commands' places from 0."""


MAX_SUBMITS: Final = 64
"""Commands of one `Submits`: with names as long as they may be they stay within `MAX_REQUEST_BYTES`."""


class LookUp(msgspec.Struct, frozen=True, tag="look_up"):
    """What became of a request? Answered by `Answer` (replayed), `Refused` (in flight) or `NotFound`."""

    id: int
    account: AccountId
    client_id: ClientId


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    """Send everything that happened from journal number `from_seq` on.

    With `books`, `from_seq` is ignored: the answer is one `Books` and then everything after it.
    """

    from_seq: int = 1
    books: bool = False
    indications: bool = False
    """Whether `Indications` come, too: at most ten a second, while they change."""


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """A command is durable; this is all it caused. `replayed`: it was so before this request."""

    id: int
    seq: int
    events: tuple[Event, ...]
    replayed: bool = False


class AllRests(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer to most orders of a `Submits`, in four numbers: durable, nothing of it traded, and all of it rests."""

    id: int
    seq: int
    order_id: OrderId
    quantity: Lots


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """A request got no place in the journal, and this is why."""

    id: int
    reason: Refusal
    detail: str = ""


class NotFound(msgspec.Struct, frozen=True, tag="not_found"):
    """No request of that account and client id is known."""

    id: int


class Answers(msgspec.Struct, frozen=True, tag="answers", omit_defaults=True):
    """What one turn of the engine has to say to a connection that sends `Submits`."""

    rest: tuple[AllRests, ...] = ()
    """In the journal's order, which is the order in which they were sent."""
    others: tuple[Answer | Refused | NotFound, ...] = ()


class Books(msgspec.Struct, frozen=True, tag="books"):
    """Every symbol's book after journal number `seq`."""

    seq: int
    market_halted: bool
    books: tuple[Snapshot, ...]
    market_paused_until: Instant = Instant(0)
    market_phase: TradingPhase = TradingPhase.CONTINUOUS
    breaker_level: int = 0


class Indications(msgspec.Struct, frozen=True, tag="indications"):
    """What crosses would do after journal number `seq`: all symbols that gather orders, each with its own number."""

    seq: int
    at: Instant
    found: tuple[tuple[Symbol, int, Indication], ...]


class Stream(msgspec.Struct, frozen=True, tag="stream"):
    """What happened next, in the journal's order without gaps."""

    happened: tuple[Happened, ...]


class StreamRaw(msgspec.Struct, frozen=True, tag="stream"):
    """`Stream` as the engine sends it: each `Happened` was encoded once, for all subscribers and the event log."""

    happened: tuple[msgspec.Raw, ...]


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Nothing happened after `seq` until `at`: the stream is alive."""

    seq: int
    at: Instant


class Cut(msgspec.Struct, frozen=True, tag="cut"):
    """The engine closes this stream; subscribe again from where you are."""

    reason: str


ToEngine = Submit | Submits | LookUp | Subscribe
FromEngine = Answer | Answers | Refused | NotFound | Books | Stream | Indications | Heartbeat | Cut

_encoder: Final = msgspec.msgpack.Encoder()
_to_engine: Final[msgspec.msgpack.Decoder[ToEngine]] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: Final[msgspec.msgpack.Decoder[FromEngine]] = msgspec.msgpack.Decoder(FromEngine)


def frame(message: ToEngine | FromEngine | StreamRaw) -> bytes:
    """Return a message as a frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def read_request(body: bytes) -> ToEngine:
    """Read a frame's body as a message to the engine.

    Raises:
        msgspec.DecodeError: it is none (`msgspec.ValidationError`, a subclass, when only the shape is wrong).
    """
    return _to_engine.decode(body)


def read_reply(body: bytes) -> FromEngine:
    """Read a frame's body as a message from the engine.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _from_engine.decode(body)


class FrameTooLongError(Exception):
    """The other side announced a frame longer than allowed: it does not speak this protocol."""


class FrameReader:
    """Cuts a stream of bytes into the bodies of frames, whatever the pieces it arrives in."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the bodies that are complete after `data`.

        Raises:
            FrameTooLongError: a frame announces more than `max_bytes`.
        """
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        try:
            while end - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if length > self._max_bytes:
                    raise FrameTooLongError(f"a frame of {length} bytes where {self._max_bytes} are allowed")
                stop = start + _LENGTH.size + length
                if stop > end:
                    break
                body = bytes(buffer[start + _LENGTH.size : stop])
                start = stop
                yield body
        finally:
            del buffer[:start]
