"""A broker of messages in memory, for rehearsals and tests: what `exchange.adapters.rabbit` promises, without a server.

All of it lives in one event loop. `go_away` is the death of the broker: who publishes is told, who consumes waits, what
was under way comes again; what was confirmed is there when it comes back.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Sequence
from typing import Final

import msgspec

from exchange.adapters.rabbit_topology import DEAD, TOPOLOGY, Queue, Topology
from exchange.messaging import DeadLetter, Delivery, Handle, Outgoing, PoisonError
from kernel.errors import PermanentError, TemporaryError

TOO_OFTEN: Final = "it came too often: whoever took it ended, or refused it, each time"
_AWAY: Final = "the broker is away"


class _Letter(msgspec.Struct):
    delivery: Delivery
    why: str = ""


class MemoryBroker:
    """The queues of a topology."""

    def __init__(self, topology: Topology = TOPOLOGY) -> None:
        """All queues are there and empty."""
        self.topology: Final = topology
        names = [name for queue in topology.queues for name in (queue.name, queue.dead)]
        self._queues: Final = {name: collections.deque[_Letter]() for name in names}
        self._changed: Final = asyncio.Condition()
        self._out: Final[list[_Held]] = []
        self._away = False

    # --- its users --------------------------------------------------------------------------------------------------

    def publisher(self) -> MemoryPublisher:
        """Return a port to publish by."""
        return MemoryPublisher(self)

    def consumer(self, queue: str, *, batch: int = 64, pauses_s: tuple[float, float] = (0.1, 5.0)) -> MemoryConsumer:
        """Return a port to read a queue by; see `RabbitConsumer` for the arguments.

        Raises:
            InputError: there is no such queue.
        """
        return MemoryConsumer(self, self.topology.queue(queue), batch=batch, pauses_s=pauses_s)

    def dead(self, queue: str) -> list[DeadLetter]:
        """Return the dead letters of a queue, the oldest first; they stay."""
        return [DeadLetter(delivery=each.delivery, why=each.why) for each in self._queues[queue + DEAD]]

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue; those handed out are not among them."""
        return len(self._queues[queue])

    # --- faults -----------------------------------------------------------------------------------------------------

    async def go_away(self) -> None:
        """Break every connection; what was handed out and not acknowledged comes again later."""
        self._away = True
        for held in list(self._out):
            self._give_back(held)

    async def come_back(self) -> None:
        """Be there again, with what was confirmed."""
        async with self._changed:
            self._away = False
            self._changed.notify_all()

    # --- what its ports do ------------------------------------------------------------------------------------------

    async def _accept(self, message: Outgoing) -> None:
        if self._away:
            raise TemporaryError(_AWAY)
        taking = self.topology.taking(message.routing_key)
        if not taking:
            raise PermanentError(
                f"no queue is bound for {message.routing_key}: message {message.message_id} is refused"
            )
        if any(len(self._queues[queue.name]) >= queue.longest for queue in taking):
            raise TemporaryError(f"message {message.message_id} is not confirmed: a queue is full")
        delivery = Delivery(
            routing_key=message.routing_key, body=message.body, message_id=message.message_id, trace=message.trace
        )
        async with self._changed:
            for queue in taking:
                self._queues[queue.name].append(_Letter(delivery))
            self._changed.notify_all()

    async def _take(self, queue: Queue, most: int) -> _Held:
        waiting = self._queues[queue.name]
        async with self._changed:
            await self._changed.wait_for(lambda: bool(waiting) and not self._away)
            held = _Held(queue, [waiting.popleft() for _ in range(min(most, len(waiting)))])
            self._out.append(held)
            return held

    def _give_back(self, held: _Held) -> None:
        """Put what a consumer holds before its queue again; what has come too often goes to the dead letters."""
        if held not in self._out:
            return
        self._out.remove(held)
        again = []
        for letter in held.letters:
            if _spent(held.queue, letter.delivery):
                self._bury(held.queue, letter, TOO_OFTEN)
            else:
                attempt = letter.delivery.attempt + 1
                again.append(_Letter(msgspec.structs.replace(letter.delivery, attempt=attempt), letter.why))
        self._queues[held.queue.name].extendleft(reversed(again))

    def _bury(self, queue: Queue, letter: _Letter, why: str) -> None:
        dead = msgspec.structs.replace(letter.delivery, attempt=1)
        self._queues[queue.name.removesuffix(DEAD) + DEAD].append(_Letter(dead, why))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _spent(queue: Queue, delivery: Delivery) -> bool:
    return not queue.name.endswith(DEAD) and delivery.attempt > queue.redeliveries


class _Held:
    """What a consumer has of a queue and did not acknowledge yet."""

    def __init__(self, queue: Queue, letters: list[_Letter]) -> None:
        self.queue = queue
        self.letters = letters


class MemoryPublisher:
    """The port `Publisher` of a broker in memory."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker: Final = broker
        self.confirmed = 0
        """Messages that the broker confirmed."""

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Hand messages over in their order; each counts, also when another of them is refused.

        Raises:
            TemporaryError: the broker is away, or a queue is full.
            PermanentError: no queue is bound for a routing key.
        """
        errors: list[TemporaryError | PermanentError] = []
        for message in messages:
            try:
                await self._broker._accept(message)
                self.confirmed += 1
            except (TemporaryError, PermanentError) as error:
                errors.append(error)
        for error in sorted(errors, key=lambda each: isinstance(each, TemporaryError)):
            raise error

    async def close(self) -> None:
        """Nothing is open."""


class MemoryConsumer:
    """The port `Consumer` of a broker in memory."""

    def __init__(self, broker: MemoryBroker, queue: Queue, *, batch: int, pauses_s: tuple[float, float]) -> None:
        self._broker: Final = broker
        self._queue: Final = queue
        self._batch: Final = batch
        self._pauses_s: Final = pauses_s
        self.handled = self.repeated = self.buried = 0
        """As those of `RabbitConsumer`."""

    @property
    def connected(self) -> bool:
        """Whether messages can come."""
        return not self._broker._away

    async def run(self, handle: Handle) -> None:
        """Hand deliveries to `handle` until cancelled; a broker that is away is waited for."""
        while True:
            held = await self._broker._take(self._queue, self._batch)
            try:
                await self._hand(held, handle)
            finally:
                self._broker._give_back(held)
                await self._broker._tell()

    async def _hand(self, held: _Held, handle: Handle) -> None:
        while held.letters:
            deliveries = [each.delivery for each in held.letters]
            try:
                await handle(deliveries)
            except PoisonError as poison:
                if not self._still(held):
                    return
                at = next((place for place, each in enumerate(deliveries) if each is poison.delivery), None)
                at = deliveries.index(poison.delivery) if at is None else at
                self.handled += at
                self._bury(held.letters[at], poison.why)
                del held.letters[: at + 1]
            except TemporaryError as error:
                await self._pause(deliveries)
                if self._still(held):
                    self._again(held, error)
                return
            else:
                if self._still(held):
                    self.handled += len(held.letters)
                    held.letters.clear()
                return

    def _still(self, held: _Held) -> bool:
        """Tell whether an acknowledgement counts: the connection that brought the letters lives."""
        return held in self._broker._out

    async def _pause(self, deliveries: Sequence[Delivery]) -> None:
        first, longest = self._pauses_s
        await asyncio.sleep(min(first * 2.0 ** (max(each.attempt for each in deliveries) - 1), longest))

    def _again(self, held: _Held, error: TemporaryError) -> None:
        for letter in [each for each in held.letters if _spent(self._queue, each.delivery)]:
            held.letters.remove(letter)
            self._bury(letter, f"it came {letter.delivery.attempt} times; at last: {error}")
        self.repeated += len(held.letters)

    def _bury(self, letter: _Letter, why: str) -> None:
        self._broker._bury(self._queue, letter, why)
        self.buried += 1
