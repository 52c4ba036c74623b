"""Messages through RabbitMQ: a publisher that waits for confirmations, and a consumer that acknowledges by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, cast

import aiormq
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage, HeadersType
from aiormq.exceptions import PublishError

from exchange.adapters.rabbit_link import (
    CAME,
    KEY,
    RPC_S,
    TRACE,
    WHY,
    RabbitLink,
    close,
    declare_on,
    declare_queue,
    delivery_of,
    heed_cancellation,
    why_dead,
)
from exchange.adapters.rabbit_topology import DEAD, TOPOLOGY, Topology
from exchange.messaging import DeadLetter, Delivery, Handle, Outgoing, PoisonError
from kernel.errors import PermanentError, TapewatchError, TemporaryError

IN_FLIGHT: Final = 512
"""Messages sent and not yet confirmed, of one publisher."""
CONFIRM_S: Final = 10.0
"""How long a confirmation may take. A broker short of memory or disk takes nothing and says nothing."""
BATCH: Final = 64
LONGEST_WHY: Final = 500
_RECONNECT_S: Final = (0.1, 2.0)
_LOOK_S: Final = 1.0


class RabbitPublisher:
    """The port `Publisher` on one connection, opened with the first message and anew after a loss.

    Each time it is opened the topology is declared: a broker that was killed may have forgotten what was new.
    """

    def __init__(
        self,
        link: RabbitLink,
        *,
        topology: Topology = TOPOLOGY,
        in_flight: int = IN_FLIGHT,
        confirm_within_s: float = CONFIRM_S,
    ) -> None:
        """Nothing is opened yet."""
        self._link: Final = link
        self._topology: Final = topology
        self._room: Final = asyncio.Semaphore(in_flight)
        self._confirm_within_s: Final = confirm_within_s
        self._opening: Final = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None
        self._flying: Final[dict[str, asyncio.Event]] = {}
        self.confirmed = 0
        """Messages that the broker confirmed."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Hand messages over in their order; returns when every one is confirmed.

        Raises:
            TemporaryError: some were not; all are to be published again.
            PermanentError: the broker refuses for good, or no queue is bound for a routing key.
        """
        if not messages:
            return
        exchange = await self._opened()
        heed_cancellation()
        results = await asyncio.gather(*(self._one(exchange, each) for each in messages), return_exceptions=True)
        errors = [each for each in results if isinstance(each, BaseException)]
        self.confirmed += len(results) - len(errors)
        if not errors:
            return
        for error in errors:
            if not isinstance(error, TapewatchError):
                raise error
        refused = [error for error in errors if isinstance(error, PermanentError)]
        if not refused:
            # Which of them were taken is not known; a new connection has no part in what is still under way.
            await self.close()
        raise (refused or errors)[0]

    async def close(self) -> None:
        """End the connection; the next message opens another."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            await close(connection)

    async def _opened(self) -> AbstractExchange:
        async with self._opening:
            if self._exchange is not None and self._channel is not None and not self._channel.is_closed:
                return self._exchange
            await self.close()
            self._connection = await self._link.open()
            async with self._link.errors("the queues cannot be declared"):
                await declare_on(self._connection, self._topology)
                self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
                self._exchange = await self._channel.get_exchange(self._topology.exchange, ensure=False)
                return self._exchange

    async def _one(self, exchange: AbstractExchange, message: Outgoing) -> None:
        async with self._room:
            # The library finds the message that came back by its id: of one id, one is under way.
            while (other := self._flying.get(message.message_id)) is not None:
                await other.wait()
            mine = self._flying[message.message_id] = asyncio.Event()
            try:
                await self._confirmed(exchange, message)
            finally:
                del self._flying[message.message_id]
                mine.set()

    async def _confirmed(self, exchange: AbstractExchange, message: Outgoing) -> None:
        letter = Message(
            message.body, message_id=message.message_id, delivery_mode=DeliveryMode.PERSISTENT,
            headers={TRACE: message.trace} if message.trace else None,
        )  # fmt: skip
        try:
            async with self._link.errors(f"message {message.message_id} is not confirmed"):
                await exchange.publish(letter, message.routing_key, mandatory=True, timeout=self._confirm_within_s)
        except TapewatchError as error:
            if isinstance(error.__cause__, PublishError):
                words = f"no queue is bound for {message.routing_key}: message {message.message_id} is refused"
                if self._topology.taking(message.routing_key):
                    # One should be, so the broker forgot it: it is declared again with the next connection.
                    raise TemporaryError(words) from error
                raise PermanentError(words) from error
            raise


class RabbitConsumer:
    """The port `Consumer`: one queue, as long as `run` runs."""

    def __init__(
        self,
        link: RabbitLink,
        queue: str,
        *,
        topology: Topology = TOPOLOGY,
        batch: int = BATCH,
        pauses_s: tuple[float, float] = (0.1, 5.0),
    ) -> None:
        """Nothing is opened yet.

        Args:
            link: how the broker is reached.
            queue: its name; a queue of dead letters may be read, too.
            topology: where it stands.
            batch: at most so many are handed together; twice as many are taken from the queue ahead.
            pauses_s: before a batch that failed comes again: the first, and the longest; it doubles each time.

        Raises:
            InputError: there is no such queue.
        """
        self._link: Final = link
        self._topology: Final = topology
        self._queue: Final = topology.queue(queue)
        self._batch: Final = batch
        self._pauses_s: Final = pauses_s
        self._seen = False
        """Whether the queue was there since `run` began: a loss of the connection is then no reason to miss it."""
        self._lost = False
        self.connected = False
        """Whether messages can come."""
        self.handled = 0
        """Deliveries carried out and acknowledged."""
        self.repeated = 0
        """Deliveries given back to come again."""
        self.buried = 0
        """Deliveries sent to the dead letters by this consumer."""

    async def run(self, handle: Handle) -> None:
        """Hand deliveries to `handle` until cancelled; a broker that is away is waited for.

        Raises:
            PermanentError: the queue is not there or not as it was declared, or the broker refuses for good.
        """
        pause, longest = _RECONNECT_S
        self._seen = False
        while True:
            try:
                await self._while_connected(handle)
            except TemporaryError:
                pause = _RECONNECT_S[0] if self.connected else min(pause * 2, longest)
                self.connected = False
                await asyncio.sleep(pause)
            finally:
                self.connected = False

    async def _while_connected(self, handle: Handle) -> None:
        async with self._link.connection() as connection:
            if self._seen and self._lost:
                async with self._link.errors("the queues cannot be declared"):
                    await declare_on(connection, self._topology)  # a broker that was killed may have forgotten
            inbox = await _Inbox.open(self._link, connection, self._topology, self._queue.name, self._batch * 2)
            self.connected = self._seen = True
            try:
                while True:
                    await self._hand(inbox, await inbox.take(self._batch), handle)
            finally:
                self._lost = inbox.lost()

    async def _hand(self, inbox: _Inbox, letters: list[AbstractIncomingMessage], handle: Handle) -> None:
        while letters:
            deliveries = [delivery_of(each) for each in letters]
            try:
                await handle(deliveries)
            except PoisonError as poison:
                at = _place(deliveries, poison)
                if at:
                    await inbox.acknowledge(letters[at - 1])
                    self.handled += at
                await self._bury(inbox, letters[at], deliveries[at], poison.why)
                letters = letters[at + 1 :]  # not given back: it is not their fault, and would count as theirs
            except TemporaryError as error:
                await self._again(inbox, letters, deliveries, error)
                return
            else:
                await inbox.acknowledge(letters[-1])
                self.handled += len(letters)
                return

    async def _again(
        self, inbox: _Inbox, letters: list[AbstractIncomingMessage], deliveries: list[Delivery], error: TemporaryError
    ) -> None:
        """Give a batch back after a pause; what has come too often goes to the dead letters with the reason."""
        first, longest = self._pauses_s
        await asyncio.sleep(min(first * 2.0 ** (max(each.attempt for each in deliveries) - 1), longest))
        for letter, delivery in zip(letters, deliveries, strict=True):
            if not self._queue.name.endswith(DEAD) and delivery.attempt > self._queue.redeliveries:
                await self._bury(inbox, letter, delivery, f"it came {delivery.attempt} times; at last: {error}")
            else:
                await inbox.give_back(letter)
                self.repeated += 1

    async def _bury(self, inbox: _Inbox, letter: AbstractIncomingMessage, delivery: Delivery, why: str) -> None:
        """Send a letter to the dead ones, confirmed, before it leaves its queue: it may be twice, never nowhere."""
        await inbox.publish_dead(self._queue.name.removesuffix(DEAD), letter, delivery, why)
        await inbox.acknowledge(letter, alone=True)
        self.buried += 1


def _place(deliveries: Sequence[Delivery], poison: PoisonError) -> int:
    """Return where in its batch a refused delivery stands."""
    for at, delivery in enumerate(deliveries):
        if delivery is poison.delivery:
            return at
    return list(deliveries).index(poison.delivery)  # a copy of it


class _Inbox:
    """One queue's deliveries on one connection."""

    def __init__(self, link: RabbitLink, topology: Topology, name: str) -> None:
        self._link = link
        self._topology = topology
        self._name = name
        # The prefetch bounds it; None is the end of the connection.
        self._letters: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self._still: Callable[[], bool] = lambda: True
        self.lost: Callable[[], bool] = lambda: True
        """Whether the connection is gone, rather than the queue."""
        self._dead: AbstractExchange | None = None

    @classmethod
    async def open(
        cls, link: RabbitLink, connection: AbstractConnection, topology: Topology, name: str, prefetch: int
    ) -> _Inbox:
        inbox = cls(link, topology, name)
        async with link.errors(f"queue {name} cannot be read"):
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.set_qos(prefetch, timeout=RPC_S)
            await channel.get_queue(name, ensure=True)  # a missing one is told, not made
            queue = await declare_queue(channel, topology, topology.queue(name))
            inbox._dead = await channel.get_exchange(topology.dead, ensure=False)
            underlay = cast("aiormq.Channel", await channel.get_underlay_channel())
            tag = await queue.consume(inbox._letters.put, timeout=RPC_S)
            inbox.lost = lambda: channel.is_closed
            inbox._still = lambda: not channel.is_closed and tag in underlay.consumers
            channel.close_callbacks.add(lambda *_: inbox._letters.put_nowait(None))
        return inbox

    async def take(self, most: int) -> list[AbstractIncomingMessage]:
        """Wait for a letter, and return it with those that are there already."""
        letters: list[AbstractIncomingMessage] = []
        while not letters:
            heed_cancellation()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    self._keep(await self._letters.get(), letters)
            if not letters and not self._still():
                raise self._ended()
        while len(letters) < most and not self._letters.empty():
            self._keep(self._letters.get_nowait(), letters)
        return letters

    def _keep(self, letter: AbstractIncomingMessage | None, letters: list[AbstractIncomingMessage]) -> None:
        if letter is None:
            raise self._ended()
        letters.append(letter)

    def _ended(self) -> TemporaryError:
        return TemporaryError(f"RabbitMQ at {self._link.broker}: queue {self._name} or its connection ended")

    async def acknowledge(self, letter: AbstractIncomingMessage, *, alone: bool = False) -> None:
        """Acknowledge a letter, and all before it unless alone."""
        async with self._link.errors("an acknowledgement is lost"):
            await letter.ack(multiple=not alone)

    async def give_back(self, letter: AbstractIncomingMessage) -> None:
        """Have a letter come again. By `reject`: later versions of the broker count no `nack`."""
        async with self._link.errors("a letter cannot be given back"):
            await letter.reject(requeue=True)

    async def publish_dead(self, queue: str, letter: AbstractIncomingMessage, delivery: Delivery, why: str) -> None:
        """Publish a letter among the dead ones of a queue, with the reason."""
        assert self._dead is not None
        headers: HeadersType = {WHY: why[:LONGEST_WHY], KEY: delivery.routing_key, CAME: delivery.attempt}
        if delivery.trace:
            headers[TRACE] = delivery.trace
        dead = Message(
            letter.body, message_id=letter.message_id, delivery_mode=DeliveryMode.PERSISTENT, headers=headers,
            timestamp=datetime.now(UTC),
        )  # fmt: skip
        async with self._link.errors(f"dead letter {delivery.message_id} is not confirmed"):
            await self._dead.publish(dead, queue, mandatory=True, timeout=CONFIRM_S)


async def dead_letters(
    link: RabbitLink, queue: str, *, topology: Topology = TOPOLOGY, most: int = 100
) -> list[DeadLetter]:
    """Look at the oldest dead letters of a queue; they stay where they are.

    Raises:
        TemporaryError: the broker is away.
        PermanentError: there is no such queue.
    """
    found: list[DeadLetter] = []
    async with link.connection() as connection, link.errors(f"the dead letters of {queue} cannot be read"):
        channel: AbstractChannel = await connection.channel()
        graves = await channel.get_queue(topology.queue(queue).dead, ensure=True)
        while len(found) < most and (letter := await graves.get(fail=False, timeout=RPC_S)) is not None:
            found.append(DeadLetter(delivery=delivery_of(letter), why=why_dead(letter)))
    return found
