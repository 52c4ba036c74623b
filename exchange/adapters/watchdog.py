"""The watchdog: a subscriber like any participant's, which trusts nothing and calls out at once.

It follows the feed with its own copy of the books. What no rule should have to find out a second later it posts itself:
a gap in a symbol's sequence, a crossed book, a failed journal.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exchange.adapters.connection import Address, connect
from exchange.adapters.http import common_routes, json_response
from exchange.adapters.market_data_client import FeedConnection, follow_feed
from exchange.alarms import AlarmBoard
from exchange.market_data import Delta, Finding, Follower, Snapshot, Trouble, trade_throughs
from exchange.ports import Alarm, Alarms, Exposition, Log, PostResult, WatchdogTelemetry
from exchange.types import Symbol
from kernel.time import Clock

TICK_S: Final = 0.1
STATUS_S: Final = 0.5
_TROUBLES: Final = {Trouble.GAP: Alarm.SEQUENCE_GAP, Trouble.CROSSED: Alarm.BOOK_CROSSED}


class _EngineStatus(msgspec.Struct, frozen=True):
    """The part of the engine's status that the watchdog reads."""

    journal_failed: bool


class Watchdog:
    """One watchdog over one feed."""

    def __init__(
        self,
        symbols: Sequence[Symbol],
        *,
        market_data: Address,
        engine: Address,
        alarms: Alarms,
        clock: Clock,
        telemetry: WatchdogTelemetry,
        log: Log,
    ) -> None:
        self._symbols: Final = tuple(symbols)
        self._feed: Final = market_data
        self._engine: Final = engine
        self._alarms: Final = alarms
        self._clock: Final = clock
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._board: Final = AlarmBoard()
        self._urgent: Final = asyncio.Event()
        self._connected = False

    def ready(self) -> tuple[bool, str]:
        """Tell whether the feed is watched."""
        return self._connected, "the feed is watched" if self._connected else "not subscribed to the feed"

    async def run(self) -> None:
        """Watch until cancelled."""
        self._telemetry.feed_connected(connected=False)
        self._tell_symbols()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow_feed(self._feed, self._follow, self._told, self._log))
            tasks.create_task(self._watch_engine())
            tasks.create_task(self._post())

    def standing(self) -> list[dict[str, object]]:
        """Return the alarms that stand now."""
        now = self._clock.now()
        return [
            {"alarm": alarm, "symbol": symbol}
            for alarm in (Alarm.SEQUENCE_GAP, Alarm.BOOK_CROSSED, Alarm.JOURNAL_FAILED)
            for symbol in (*self._symbols, None)
            if self._board.stands(alarm, symbol, now)
        ]

    # --- the feed ---------------------------------------------------------------------------------------------------

    def _told(self, connected: bool) -> None:  # noqa: FBT001 - a callback's one argument
        self._connected = connected
        self._telemetry.feed_connected(connected=connected)

    async def _follow(self, feed: FeedConnection) -> None:
        follower = Follower()
        while True:
            messages = await feed.messages()
            for message in messages:
                if isinstance(message, Delta) and message.trades:
                    self._check_prices(follower, message)
                for finding in follower.take(message):
                    await self._found(finding, feed)
                if isinstance(message, Snapshot):
                    self._board.clear(Alarm.SEQUENCE_GAP, message.symbol)
            crossed = follower.crossed
            for symbol in self._symbols:
                if symbol not in crossed:
                    self._board.clear(Alarm.BOOK_CROSSED, symbol)
            self._telemetry.checked(len(messages))

    def _check_prices(self, follower: Follower, delta: Delta) -> None:
        """Compare the trades of a delta with the book that was published before it."""
        book = follower.book(delta.symbol)
        if book is None or book.seq != delta.previous:
            return  # what was lost or is not known yet cannot be compared
        through = trade_throughs(book.top(), delta.trades)
        if through:
            self._telemetry.trade_through(delta.symbol, through)
            self._log.event("trade-through", severity="critical", symbol=delta.symbol, seq=delta.seq, trades=through)

    async def _found(self, finding: Finding, feed: FeedConnection) -> None:
        symbol, now = finding.symbol, self._clock.now()
        if self._board.raise_alarm(_TROUBLES[finding.trouble], symbol, now):
            self._urgent.set()
        if finding.trouble is Trouble.GAP:
            self._telemetry.gap_seen(symbol)
            await feed.resync(symbol)
        self._tell_symbols()
        self._log.event("feed-wrong", severity="critical", trouble=finding.trouble, symbol=symbol,
                        expected=finding.expected, got=finding.got)  # fmt: skip

    # --- the engine -------------------------------------------------------------------------------------------------

    async def _watch_engine(self) -> None:
        while True:
            status = await self._engine_status()
            if status is not None:
                if status.journal_failed:
                    if self._board.raise_alarm(Alarm.JOURNAL_FAILED, None, self._clock.now()):
                        self._urgent.set()
                else:
                    self._board.clear(Alarm.JOURNAL_FAILED, None)
            await asyncio.sleep(STATUS_S)

    async def _engine_status(self) -> _EngineStatus | None:
        """Ask the engine; None when it does not answer, which is for the rules to notice."""
        request = f"GET /v1/status HTTP/1.1\r\nHost: {self._engine[0]}\r\nConnection: close\r\n\r\n".encode()
        try:
            async with asyncio.timeout(STATUS_S):
                reader, writer = await connect(*self._engine)
                try:
                    writer.write(request)
                    answer = await reader.read()
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            return msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=_EngineStatus)
        except (OSError, TimeoutError, msgspec.DecodeError):
            return None

    # --- calling out ------------------------------------------------------------------------------------------------

    async def _post(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._urgent.wait()
            self._urgent.clear()
            self._tell_symbols()
            due = self._board.due(self._clock.now())
            if due:
                result = await self._alarms.post(due)
                self._telemetry.posted(result)
                self._board.posted(due, self._clock.now(), accepted=result is PostResult.ACCEPTED)

    def _tell_symbols(self) -> None:
        now = self._clock.now()
        for symbol in self._symbols:
            self._telemetry.gap(symbol, standing=self._board.stands(Alarm.SEQUENCE_GAP, symbol, now))
            self._telemetry.crossed(symbol, standing=self._board.stands(Alarm.BOOK_CROSSED, symbol, now))


def watchdog_app(watchdog: Watchdog, exposition: Exposition) -> ASGIApp:
    """Return the watchdog's HTTP application."""

    async def alarms(_: Request) -> Response:
        return json_response(watchdog.standing())

    return Starlette(routes=[*common_routes(exposition, watchdog.ready), Route("/v1/alarms", alarms, methods=["GET"])])
