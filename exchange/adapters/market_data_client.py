"""A subscriber of the feed: keeps the books, finds what was lost, gets it again, over broken connections.

    connect -> snapshots of every symbol -> deltas -> gap? -> {"resync": symbol} -> snapshot -> deltas

`docs/market-data.md` describes the messages. Whoever is cut off for being slow (1013), or hears nothing for
`SILENCE_S`, connects anew and begins from whole books. What was missed meanwhile is missed, trades too.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as subscribe
from websockets.exceptions import ConnectionClosed, WebSocketException

from exchange.adapters.connection import Address
from exchange.market_data import (
    FeedMessage,
    Finding,
    Follower,
    Heartbeat,
    LevelBook,
    MarketStatus,
    Trouble,
)
from exchange.ports import Log
from exchange.types import Symbol

SILENCE_S: Final = 2.0
"""Ten heartbeats of the feed: a connection that quiet is made anew."""
RECONNECT_S: Final = 0.2
RESYNC_S: Final = 1.0
"""A snapshot that did not come for so long is asked for again."""
TOO_SLOW: Final = 1013
"""The code with which the feed cuts off a subscriber that does not keep up."""
_MAX_FRAME_BYTES: Final = 1024 * 1024 * 1024


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the feed answers to a request it cannot make sense of."""

    error: str


_frames: Final[msgspec.json.Decoder[list[FeedMessage] | Refused]] = msgspec.json.Decoder(list[FeedMessage] | Refused)


class FeedConnection:
    """One connection to the feed, as long as it holds."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket: Final = socket

    async def messages(self) -> list[FeedMessage]:
        """Return the messages of the next frame; none of one that answers a request with an error.

        Raises:
            TimeoutError: nothing came for `SILENCE_S`.
            WebSocketException: the connection is over.
            msgspec.DecodeError: the frame is none of this feed.
        """
        async with asyncio.timeout(SILENCE_S):
            frame = await self._socket.recv()
        messages = _frames.decode(frame)
        return [] if isinstance(messages, Refused) else messages

    async def resync(self, symbol: Symbol) -> None:
        """Ask for a symbol's whole book; it comes in the order of the messages."""
        await self._socket.send(msgspec.json.encode({"resync": symbol}).decode())


async def follow_feed(
    address: Address, follow: Callable[[FeedConnection], Awaitable[None]], told: Callable[[bool], None], log: Log
) -> None:
    """Let `follow` read the feed for ever, one connection after the other; `told` hears of every change.

    What `follow` knows of the books is worth nothing at the next connection: it begins with snapshots of all of them.
    """
    url = f"ws://{address[0]}:{address[1]}/v1/feed"
    while True:
        try:
            async with subscribe(
                url, max_size=_MAX_FRAME_BYTES, compression=None, ping_interval=None, proxy=None,
                open_timeout=SILENCE_S, close_timeout=1.0,
            ) as socket:  # fmt: skip
                told(True)  # noqa: FBT003 - a callback's one argument
                await follow(FeedConnection(socket))
        except msgspec.DecodeError as error:
            log.event("feed-unreadable", severity="error", why=str(error))
        except (OSError, TimeoutError, WebSocketException) as error:
            why = str(error) or type(error).__name__
            log.event("feed-lost", severity="warning", why=f"too slow: {why}" if _too_slow(error) else why)
        finally:
            told(False)  # noqa: FBT003 - a callback's one argument
        await asyncio.sleep(RECONNECT_S)


def _too_slow(error: Exception) -> bool:
    return isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == TOO_SLOW


Heard = Callable[[FeedMessage, Sequence[Finding]], None]
"""Told of each message once it is taken in, and of what was found wrong by it."""


class MarketDataClient:
    """The books of a feed, as far as they are known to be right."""

    def __init__(
        self, symbols: Sequence[Symbol], address: Address, log: Log, heard: Heard = lambda _message, _findings: None
    ) -> None:
        """Follow `symbols` of the feed at `address`; `heard` must not be slower than the market."""
        self._symbols: Final = frozenset(symbols)
        self._address: Final = address
        self._log: Final = log
        self._heard: Final = heard
        self._follower = Follower(self._symbols)
        self._asked: dict[Symbol, float] = {}
        self.connected = False
        self.connections = 0
        """How often the feed was connected to."""
        self.lost: Final[Counter[Symbol]] = Counter()
        """Gaps by symbol: how often something of it was lost within a connection."""
        self.market_halted = False
        """Whether the whole market stands still, as it was told last."""
        self.journal_seq = 0
        """How far the journal was published by the last heartbeat."""

    def book(self, symbol: Symbol) -> LevelBook | None:
        """Return a symbol's book; None while it is not known to be current."""
        return self._follower.book(symbol) if self.connected else None

    def market(self) -> MarketStatus | None:
        """Return how the whole market stands; None while that is not known to be current."""
        return self._follower.market if self.connected else None

    def ready(self) -> tuple[bool, str]:
        """Tell whether every book is current, and if not, which are not."""
        if not self.connected:
            return False, "not connected to the feed"
        missing = sorted(self._follower.missing & self._symbols)
        return not missing, f"no book of {', '.join(missing)}" if missing else "every book is current"

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        await follow_feed(self._address, self._follow, self._told, self._log)

    def _told(self, connected: bool) -> None:  # noqa: FBT001 - a callback's one argument
        self._follower = Follower(self._symbols)
        self._asked.clear()
        self.connected = connected
        self.connections += connected

    async def _follow(self, feed: FeedConnection) -> None:
        while True:
            for message in await feed.messages():
                symbol = getattr(message, "symbol", None)
                if symbol is not None and symbol not in self._symbols:
                    continue
                self._take(message)
            await self._ask(feed)

    def _take(self, message: FeedMessage) -> None:
        if isinstance(message, Heartbeat):
            self.journal_seq = message.journal_seq
            seqs = {symbol: seq for symbol, seq in message.seqs.items() if symbol in self._symbols}
            message = msgspec.structs.replace(message, seqs=seqs)
        elif isinstance(message, MarketStatus):
            self.market_halted = message.halted
        findings = self._follower.take(message)
        for finding in findings:
            if finding.trouble is Trouble.GAP:
                self.lost[finding.symbol] += 1
        self._heard(message, findings)

    async def _ask(self, feed: FeedConnection) -> None:
        """Ask for the books that have a gap, again when the answer does not come."""
        gapped, now = self._follower.gapped, time.monotonic()
        for symbol in self._asked.keys() - gapped:
            del self._asked[symbol]
        for symbol in gapped:
            if now - self._asked.get(symbol, -RESYNC_S) >= RESYNC_S:
                self._asked[symbol] = now
                await feed.resync(symbol)
