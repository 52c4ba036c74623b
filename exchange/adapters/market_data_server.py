"""Market data: the engine's events become books, and a sequenced feed for everybody.

A frame of the feed is a JSON list of `exchange.feed_messages`. It begins with a snapshot of every symbol and how the
market stands, goes on with deltas, turns of the market and indicative prices, and brings a heartbeat five times a
second. A subscriber that lost something sends `{"resync": "SYMBOL"}` and gets a new snapshot in the same order of
messages. Whoever does not keep up is cut off with code 1013.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from exchange.adapters.cached import MOVING, UNKEPT, cacheable
from exchange.adapters.connection import LOOPBACK
from exchange.adapters.engine_client import StreamMessage, follow_events
from exchange.adapters.http import Faults, common_routes, problem
from exchange.adapters.wear import LEAK, Leak
from exchange.conflation import Conflation
from exchange.events import Happened, Traded
from exchange.feed_messages import MARKET, Snapshot
from exchange.market_data import Delta, FeedMessage
from exchange.market_parts import MarketParts
from exchange.ports import BookShape, Exposition, FeedTelemetry, Log
from exchange.protocol import Books, Indications, Stream, Subscribe
from exchange.tracing import Handled, Tracer
from exchange.types import Symbol, TradingPhase
from kernel.time import Clock, Instant, to_seconds

HEARTBEAT_S: Final = 0.2
MAX_WAITING_FRAMES: Final = 512
"""What a subscriber may leave unread: a second or two of a busy market."""
STALL: Final = "feed-stall"
GAP: Final = "feed-gap"
CONFLATION: Final = "feed-conflation"
"""A fault: the share of all updates that still goes out; the rest goes out within others."""
FEED_FAULTS: Final = frozenset({STALL, GAP, CONFLATION, LEAK})
_TRY_AGAIN_LATER: Final = 1013
_encode: Final = msgspec.json.Encoder().encode


class Resync(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A subscriber asks for a symbol's snapshot, or with `MARKET` for how the whole market stands."""

    resync: Symbol


class SymbolStanding(msgspec.Struct, frozen=True):
    """How one symbol stands."""

    phase: TradingPhase
    halted: bool
    paused_until: Instant
    """When its own pause ends; 0: none."""


class MarketStanding(msgspec.Struct, frozen=True):
    """The body of `/v1/market`: the phase of the whole market and of each symbol."""

    phase: TradingPhase
    halted: bool
    paused_until: Instant
    symbols: dict[Symbol, SymbolStanding]


class FeedPart(NamedTuple):
    """One of several engines that the books come from."""

    symbols: tuple[Symbol, ...]
    port: int
    """Of its framed TCP."""
    host: str = LOOPBACK


DEPTH_LEVELS: Final = 5
"""Levels of a side that count as its depth: what a participant of usual size trades against."""


class _Subscriber:
    """What one subscriber has yet to be sent."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue(MAX_WAITING_FRAMES)
        self.too_slow = asyncio.Event()

    def put(self, frame: bytes) -> None:
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.too_slow.set()


class MarketDataServer:
    """The books, and everybody who follows them."""

    def __init__(  # noqa: PLR0913 - ports to the world around it, each with a name
        self,
        symbols: Sequence[Symbol],
        engine_port: int,
        *,
        engine_host: str = LOOPBACK,
        clock: Clock,
        telemetry: FeedTelemetry,
        log: Log,
        faults: Faults,
        tracer: Tracer | None = None,
        parts: Sequence[FeedPart] = (),
    ) -> None:
        """Follow the engine at `engine_port`; or `parts`, the engines of all partitions in their order."""
        self._tracer: Final = tracer
        self._symbols: Final = tuple(sorted(symbols))
        self._parts: Final = tuple(parts) or (FeedPart(self._symbols, engine_port, engine_host),)
        self._clock: Final = clock
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._faults: Final = faults
        self._data: Final = MarketParts([part.symbols for part in self._parts])
        self._subscribers: Final[set[_Subscriber]] = set()
        self._connected: Final = [False] * len(self._parts)
        self._restored: Final = [False] * len(self._parts)
        self._may_resume: Final = [False] * len(self._parts)
        self._stalled = False
        self._conflation: Final = Conflation()

    def ready(self) -> tuple[bool, str]:
        """Tell whether the books are current: of several engines' at least those of one."""
        if not all(self._restored):
            return False, "no books from the engine yet"
        if not any(self._connected):
            return False, "the event stream from the engine is broken"
        if not all(self._connected):
            return True, f"the books are current but for {', '.join(sorted(self._stale()))}"
        return True, "the books are current"

    def current(self, symbol: Symbol | None) -> tuple[bool, str]:
        """Tell whether a symbol's book is current, or how the whole market stands (None)."""
        is_ready, detail = self.ready()
        stands = all(self._connected) if symbol is None else self._connected[self._data.place_of(symbol)]
        if is_ready and not stands:
            return False, "the event stream from the engine is broken"
        return is_ready, detail

    def _stale(self) -> list[Symbol]:
        return [one for one in self._symbols if not self._connected[self._data.place_of(one)]]

    async def run(self) -> None:
        """Follow the engines and publish; returns only when cancelled."""
        for place in range(len(self._parts)):
            self._telemetry.engine_connected(connected=False, partition=place)
        self._telemetry.subscribers(0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(Leak(self._faults).run())
            for place in range(len(self._parts)):
                tasks.create_task(self._follow(place))

    async def _follow(self, place: int) -> None:
        part = self._parts[place]
        stream = follow_events(part.port, partial(self._request, place), partial(self._told, place), host=part.host)
        async with contextlib.aclosing(stream):
            async for message in stream:
                self._take(place, message)

    def snapshot(self, symbol: Symbol) -> Snapshot | None:
        """Return a symbol's whole book; None when there is no such symbol."""
        return self._data.snapshot(symbol) if symbol in self._symbols else None

    def standing(self) -> MarketStanding:
        """Return how the market stands, by the last command that was folded in."""
        data = self._data
        phases = {}
        for symbol in self._symbols:
            snapshot = data.snapshot(symbol)
            halted = snapshot.halted or data.stands_with_part(symbol)
            phases[symbol] = SymbolStanding(snapshot.phase, halted, snapshot.paused_until)
        return MarketStanding(data.market_phase, data.market_halted, Instant(data.market_paused_until), phases)

    async def serve(self, socket: WebSocket) -> None:
        """Serve one subscriber until it leaves or is cut off."""
        await socket.accept()
        subscriber = _Subscriber()
        self._release()
        subscriber.put(_encode(self._whole()))
        self._subscribers.add(subscriber)
        self._telemetry.subscribers(len(self._subscribers))
        work = (
            asyncio.create_task(self._send(socket, subscriber)),
            asyncio.create_task(self._listen(socket, subscriber)),
            asyncio.create_task(subscriber.too_slow.wait()),
        )
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            if subscriber.too_slow.is_set():
                self._telemetry.slow_consumer()
                self._log.event("slow-consumer", severity="warning")
                with contextlib.suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await socket.close(_TRY_AGAIN_LATER, "too slow")
        finally:
            self._subscribers.discard(subscriber)
            self._telemetry.subscribers(len(self._subscribers))
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    # --- from the engine ---------------------------------------------------------------------------------------------

    def _request(self, place: int) -> Subscribe:
        resumes, self._may_resume[place] = self._may_resume[place] and self._restored[place], False
        if resumes:
            return Subscribe(from_seq=self._data.reached(place) + 1, indications=True)
        return Subscribe(books=True, indications=True)

    def _told(self, place: int, connected: bool) -> None:  # noqa: FBT001 - a callback's last argument
        if connected != self._connected[place]:
            more = {"partition": place} if len(self._parts) > 1 else {}
            self._log.event("engine-connected" if connected else "engine-lost", severity="info", **more)
        self._connected[place] = connected
        self._telemetry.engine_connected(connected=connected, partition=place)

    def _take(self, place: int, message: StreamMessage) -> None:
        self._may_resume[place] = True
        match message:
            case Books():
                self._data.restore(place, message)
                self._restored[place] = True
                self._publish(self._whole())
            case Stream():
                began_at = self._clock.now()
                told: list[FeedMessage] = []
                for happened in message.happened:
                    told.extend(self._data.fold(place, happened))
                if not all(self._restored):
                    return  # whoever subscribed was told nothing yet
                if told:
                    self._publish(told)
                if told and not self._faults.active(STALL):
                    self._tell(message.happened, began_at)
            case Indications() if all(self._restored):
                if indicated := self._data.indicate(place, message.found, message.at):
                    self._publish(indicated)
            case _:
                pass

    # --- to the subscribers --------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            stalled = self._faults.active(STALL)
            if self._stalled and not stalled:
                self._stalled = False
                self._publish(self._whole())
            self._stalled = stalled
            if not all(self._restored):
                continue
            now = self._clock.now()
            self._publish([self._data.heartbeat(now)])
            if any(self._connected) and not stalled:
                stale = frozenset(self._stale())
                self._telemetry.books(now, {one: self._shape(one) for one in self._symbols if one not in stale})

    def _shape(self, symbol: Symbol) -> BookShape:
        top, depth = self._data.top(symbol), self._data.depth(symbol, DEPTH_LEVELS)
        spread = None if top.bid is None or top.ask is None else top.ask - top.bid
        return BookShape(spread, sum(lots for _, lots in depth.bids), sum(lots for _, lots in depth.asks))

    def _tell(self, happened: Sequence[Happened], began_at: Instant) -> None:
        """Tell what was published just now."""
        now = self._clock.now()
        self._telemetry.delayed([max(0.0, to_seconds(now - item.at)) for item in happened])
        traded = {event.symbol: item.at for item in happened for event in item.events if isinstance(event, Traded)}
        if traded:
            self._telemetry.traded(traded)
        if self._tracer is not None:
            self._tracer.published(Handled(happened, began_at, now))

    def _whole(self) -> list[FeedMessage]:
        """Return all that a subscriber has to know: every book, and how the whole market stands."""
        if not all(self._restored):
            return []
        return [*(self._data.snapshot(symbol) for symbol in self._symbols), self._data.status(self._clock.now())]

    def _publish(self, messages: Sequence[FeedMessage]) -> None:
        if self._faults.active(STALL):
            return
        messages = self._conflated(self._without_the_lost(messages))
        if messages:
            self._send_out(messages)

    def _send_out(self, messages: Sequence[FeedMessage]) -> None:
        frame = _encode(messages)
        for subscriber in self._subscribers:
            subscriber.put(frame)
        kinds = Counter(type(message).__name__.lower() for message in messages)
        self._telemetry.published(self._data.journal_seq, self._clock.now(), kinds)

    def _without_the_lost(self, messages: Sequence[FeedMessage]) -> Sequence[FeedMessage]:
        """Drop one delta of the symbol that the fault `feed-gap` names."""
        symbol = self._faults.peek(GAP)
        if symbol is None:
            return messages
        for index, message in enumerate(messages):
            if isinstance(message, Delta) and message.symbol == symbol:
                self._faults.take(GAP)
                return [*messages[:index], *messages[index + 1 :]]
        return messages

    def _conflated(self, messages: Sequence[FeedMessage]) -> Sequence[FeedMessage]:
        """Hold some of the updates back while the fault `feed-conflation` stands."""
        share = self._faults.number(CONFLATION)
        if share > 0:
            return self._conflation.take(messages, share)
        return [*self._conflation.flush(), *messages] if self._conflation.holds else messages

    def _release(self) -> None:
        """Send out what is held back, before somebody gets a whole book that contains it."""
        if self._conflation.holds:
            self._send_out(self._conflation.flush())

    async def _send(self, socket: WebSocket, subscriber: _Subscriber) -> None:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            while True:
                frame = await subscriber.frames.get()
                await socket.send_text(frame.decode())

    async def _listen(self, socket: WebSocket, subscriber: _Subscriber) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                try:
                    asked = msgspec.json.decode(await socket.receive_text(), type=Resync)
                    self._release()
                    snapshot: FeedMessage | None = self.snapshot(asked.resync)
                    if asked.resync == MARKET:
                        snapshot = self._data.status(self._clock.now())
                    words = f"resync: no symbol {asked.resync!r} here"
                except (msgspec.DecodeError, KeyError) as error:
                    snapshot, words = None, f"message: {error}"
                subscriber.put(_encode([snapshot] if snapshot is not None else {"error": words}))


def market_data_app(server: MarketDataServer, exposition: Exposition, faults: Faults, admin_secret: str) -> ASGIApp:
    """Return market data's HTTP and WebSocket application."""

    async def book(request: Request) -> Response:
        symbol = request.path_params["symbol"]
        snapshot = server.snapshot(Symbol(symbol))
        if snapshot is None:
            return problem(404, f"symbol: no {symbol[:70]!r} here", {"Cache-Control": UNKEPT})
        return _moving(request, snapshot, Symbol(symbol))

    async def market(request: Request) -> Response:
        return _moving(request, server.standing())

    def _moving(request: Request, value: object, symbol: Symbol | None = None) -> Response:
        is_ready, detail = server.current(symbol)
        if not is_ready:
            return problem(503, detail, {"Retry-After": "1", "Cache-Control": UNKEPT})
        return cacheable(request, value, MOVING)

    return Starlette(
        routes=[
            *common_routes(exposition, server.ready),
            Route("/v1/book/{symbol}", book, methods=["GET"]),
            Route("/v1/market", market, methods=["GET"]),
            WebSocketRoute("/v1/feed", server.serve),
            *faults.routes(admin_secret),
        ]
    )
