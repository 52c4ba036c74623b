"""The events of every partition in Kafka, as a source of trades for the sagas: `TradeSource` over a consumer group.

The coordinator keeps how far each partition was read in the transaction that begins the sagas. The group's committed
offset comes after it and only says where a new member begins: what was read before comes again and is left alone, and
where the coordinator's database went back, the reader looks for the record that is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from exchange.adapters.kafka_consumer import KafkaConsumer, With
from exchange.adapters.kafka_place import KafkaPlace
from exchange.adapters.trade_source import Stretch
from exchange.events import Happened
from exchange.ports import ConsumerTelemetry, Log
from kernel.errors import TemporaryError

GROUP: Final = "sagas"
PATIENCE_S: Final = 60.0
"""So long a stretch may wait for room among the open sagas before the consumer looks after its group again."""
PATIENCE_WITH_ALL_S: Final = 240.0
"""So long may the stretches of all partitions, which wait one after the other.

A member that did not look after its group for five minutes would lose its partitions.
"""


@dataclass
class _Handed:
    """A stretch that was handed over, and whether its sagas are begun."""

    stretch: Stretch
    begun: asyncio.Event = field(default_factory=asyncio.Event)


class _Bridge:
    """The effect of the consumer (`exchange.consuming.Effect`): each stretch is handed over, and waited for."""

    def __init__(self, after: Callable[[int], int], patience_s: float) -> None:
        self._after: Final = after
        self._patience_s: Final = patience_s
        self._waiting: Final[dict[int, _Handed]] = {}
        self.handed: Final[asyncio.Queue[_Handed]] = asyncio.Queue()

    async def reached(self, partition: int) -> int:
        """Return the last record of a partition whose sagas are begun."""
        self._waiting.pop(partition, None)  # of an earlier time as a member: what is due comes again
        return self._after(partition)

    def read(self, partition: int, happened: Sequence[Happened]) -> None:
        """Nothing is to be done before it is carried out."""

    async def apply(self, partition: int, happened: Sequence[Happened]) -> None:
        """Wait until the sagas of a stretch are begun.

        Raises:
            TemporaryError: they are not yet; asked again, the same stretch is waited for and not handed over twice.
        """
        mine = self._waiting.get(partition)
        if mine is None:
            mine = self._waiting[partition] = _Handed(Stretch(partition, happened))
            self.handed.put_nowait(mine)
        assert mine.stretch.happened[-1].seq == happened[-1].seq, "a consumer repeats a stretch before it goes on"
        try:
            async with asyncio.timeout(self._patience_s):
                await mine.begun.wait()
        except TimeoutError:
            raise TemporaryError(
                f"partition {partition}: the sagas up to record {happened[-1].seq} are not begun; too many are open"
            ) from None
        del self._waiting[partition]


class KafkaTrades:
    """The event streams of all engines: a partition is a part of the exchange."""

    keeps_place: Final = True

    def __init__(
        self,
        place: KafkaPlace,
        *,
        telemetry: ConsumerTelemetry,
        log: Log,
        with_: With | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Nothing is connected yet. `with_` is for tests."""
        self._place: Final = place
        self._telemetry: Final = telemetry
        self._log: Final = log
        self._with: Final = with_
        self._patience_s: Final = min(patience_s, PATIENCE_WITH_ALL_S / place.partitions)
        self._consumer: KafkaConsumer | None = None

    def ready(self) -> tuple[bool, str]:
        """Tell whether events of every partition are read."""
        return self._consumer.ready() if self._consumer is not None else (False, "Kafka is not asked yet")

    async def follow(
        self, after: Callable[[int], int], connected: Callable[[bool], None]
    ) -> AsyncGenerator[Stretch, None]:
        """See `TradeSource`; a stretch is behind the group once the next one is asked for.

        Raises:
            PermanentError: the brokers refuse for good.
        """
        bridge = _Bridge(after, self._patience_s)
        consumer = self._consumer = KafkaConsumer(
            self._place, GROUP, telemetry=self._telemetry, log=self._log, with_=self._with
        )
        running = asyncio.create_task(consumer.run(bridge, connected), name="kafka trades")
        taking: asyncio.Task[_Handed] | None = None
        try:
            while True:
                taking = asyncio.create_task(bridge.handed.get())
                await asyncio.wait((running, taking), return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    await running  # it never ends but by an error
                handed = await taking
                yield handed.stretch
                handed.begun.set()
        finally:
            for task in (running, taking):
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(one for one in (running, taking) if one is not None), return_exceptions=True)
