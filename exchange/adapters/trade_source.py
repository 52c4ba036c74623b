"""Where settlement by sagas reads the trades: a small port, and the engine's event stream behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from exchange.adapters.connection import LOOPBACK
from exchange.adapters.engine_client import follow_events
from exchange.adapters.saga_journal import Trade
from exchange.events import Happened, Traded
from exchange.order_trace import caused
from exchange.protocol import Stream, Subscribe
from exchange.saga import instruction
from exchange.shards import whole_id
from exchange.types import Symbol, TradeId


class Stretch(NamedTuple):
    """Some records of the event stream of one part of the exchange, in order."""

    part: int
    happened: Sequence[Happened]


class TradeSource(Protocol):
    """An event stream, or one for each part of the exchange."""

    @property
    def keeps_place(self) -> bool:
        """Whether it keeps a place of its own, which may not come before what the coordinator noted.

        Then a stretch without trades has to be noted, too.
        """
        ...

    def ready(self) -> tuple[bool, str]:
        """Tell whether the events of every part are read."""
        ...

    def follow(self, after: Callable[[int], int], connected: Callable[[bool], None]) -> AsyncGenerator[Stretch, None]:
        """Yield what happened after record `after(part)` of each part, over broken connections.

        Records of a part come in order, without a gap; they may come again. `after` is asked at each new connection,
        and `connected` is told of every change.
        """
        ...


class EngineTrades:
    """The event stream of the one engine there is; its part is 0."""

    keeps_place: Final = False

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        """Nothing is connected yet."""
        self._port = port
        self._host = host
        self._stands = False

    def ready(self) -> tuple[bool, str]:
        """Tell whether the stream stands."""
        return self._stands, "the event stream stands" if self._stands else "no event stream to read trades from"

    async def follow(
        self, after: Callable[[int], int], connected: Callable[[bool], None]
    ) -> AsyncGenerator[Stretch, None]:
        """See `TradeSource`."""

        def heard(stands: bool) -> None:  # noqa: FBT001 - a callback's one argument
            self._stands = stands
            connected(stands)

        stream = follow_events(self._port, lambda: Subscribe(from_seq=after(0) + 1), heard, host=self._host)
        async with contextlib.aclosing(stream):
            async for message in stream:
                if isinstance(message, Stream):
                    yield Stretch(0, message.happened)


def trades_of(stretch: Stretch, money: Mapping[Symbol, int], traced: float = 0.0) -> list[Trade]:
    """Return the trades of some records, each with the trace of the order that took.

    Every engine counts its trades from 1: their ids are made whole with the number of their part.

    `money` is `money_per_tick` by symbol, `traced` the share of the orders whose traces are kept.
    """
    return [
        Trade(instruction(_whole(event, stretch.part), money[event.symbol], caused(item, traced)), item.at)
        for item in stretch.happened
        for event in item.events
        if isinstance(event, Traded)
    ]


def _whole(trade: Traded, part: int) -> Traded:
    return msgspec.structs.replace(trade, trade_id=TradeId(whole_id(part, trade.trade_id))) if part else trade
