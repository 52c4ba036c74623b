"""Where settlement by sagas reads the trades: a small port, and the engine's event stream behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from exchange.adapters.connection import LOOPBACK
from exchange.adapters.engine_client import follow_events
from exchange.adapters.saga_journal import Trade
from exchange.events import Happened, Traded
from exchange.order_trace import caused
from exchange.protocol import Stream, Subscribe
from exchange.saga import instruction
from exchange.types import Symbol


class Stretch(NamedTuple):
    """Some records of the event stream of one part of the exchange, in order."""

    part: int
    happened: Sequence[Happened]


class TradeSource(Protocol):
    """An event stream, or one for each part of the exchange."""

    def follow(self, after: Callable[[int], int], connected: Callable[[bool], None]) -> AsyncGenerator[Stretch, None]:
        """Yield what happened after record `after(part)` of each part, over broken connections.

        Records of a part come in order, without a gap; they may come again. `after` is asked at each new connection,
        and `connected` is told of every change.
        """
        ...


class EngineTrades:
    """The event stream of the one engine there is; its part is 0."""

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        """Nothing is connected yet."""
        self._port = port
        self._host = host

    async def follow(
        self, after: Callable[[int], int], connected: Callable[[bool], None]
    ) -> AsyncGenerator[Stretch, None]:
        """See `TradeSource`."""
        stream = follow_events(self._port, lambda: Subscribe(from_seq=after(0) + 1), connected, host=self._host)
        async with contextlib.aclosing(stream):
            async for message in stream:
                if isinstance(message, Stream):
                    yield Stretch(0, message.happened)


def trades_of(happened: Sequence[Happened], money: Mapping[Symbol, int], traced: float = 0.0) -> list[Trade]:
    """Return the trades of some records, each with the trace of the order that took.

    `money` is `money_per_tick` by symbol, `traced` the share of the orders whose traces are kept.
    """
    return [
        Trade(instruction(event, money[event.symbol], caused(item, traced)), item.at)
        for item in happened
        for event in item.events
        if isinstance(event, Traded)
    ]
