"""Where settlement has its events from: the engine's own stream, or Kafka."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeVar

from exchange.adapters.connection import LOOPBACK
from exchange.adapters.engine_client import follow_events
from exchange.consuming import Effect
from exchange.events import Happened
from exchange.protocol import Stream, Subscribe
from kernel.errors import TemporaryError

MAX_WAITING: Final = 32
"""Messages of the engine's stream kept; beyond that the engine keeps them."""
MAX_TOGETHER: Final = 2048
"""Commands whose effect is brought about in one go."""
RETRY_S: Final = 0.25
_T = TypeVar("_T")


class EventSource(Protocol):
    """Reads events on from where the effect is, in order, and has them carried out."""

    @property
    def keeps_place(self) -> bool:
        """Whether it keeps a place of its own, which may not come before the effect's.

        Then a stretch without trades has to be made durable, too.
        """
        ...

    def ready(self) -> tuple[bool, str]:
        """Tell whether events are read."""
        ...

    async def run(self, effect: Effect, told: Callable[[bool], None]) -> None:
        """Read and have it carried out until cancelled; `told` hears when there is a connection, and when none.

        Raises:
            PermanentError: the effect, or the source, refuses for good.
        """
        ...


class EngineSource:
    """The stream of one engine, as partition 0. What the effect is too slow for waits in memory, then at the engine."""

    keeps_place: Final = False

    def __init__(self, port: int, *, host: str = LOOPBACK) -> None:
        """Follow the engine on `port` of `host`."""
        self._port: Final = port
        self._host: Final = host
        self._waiting: Final[asyncio.Queue[Stream]] = asyncio.Queue(MAX_WAITING)
        self._read_seq = 0
        self._connected = False

    def ready(self) -> tuple[bool, str]:
        """Tell whether events are read."""
        return self._connected, "the event stream stands" if self._connected else "no event stream from the engine"

    async def run(self, effect: Effect, told: Callable[[bool], None]) -> None:
        """See `EventSource`."""

        def heard(connected: bool) -> None:  # noqa: FBT001 - a callback's one argument
            self._connected = connected
            told(connected)

        self._read_seq = await _until_it_can(lambda: effect.reached(0))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._carry_out(effect))
            stream = follow_events(self._port, self._request, heard, host=self._host)
            async with contextlib.aclosing(stream):
                async for message in stream:
                    if isinstance(message, Stream):
                        self._read_seq = message.happened[-1].seq
                        effect.read(0, message.happened)
                        await self._waiting.put(message)

    def _request(self) -> Subscribe:
        return Subscribe(from_seq=self._read_seq + 1)

    async def _carry_out(self, effect: Effect) -> None:
        while True:
            message = await self._waiting.get()
            happened: list[Happened] = []
            while True:
                happened.extend(message.happened)
                if self._waiting.empty() or len(happened) >= MAX_TOGETHER:
                    break
                message = self._waiting.get_nowait()
            await _until_it_can(partial(effect.apply, 0, happened))


async def _until_it_can(work: Callable[[], Awaitable[_T]]) -> _T:
    while True:
        try:
            return await work()
        except TemporaryError:  # whoever could not has said so
            await asyncio.sleep(RETRY_S)
