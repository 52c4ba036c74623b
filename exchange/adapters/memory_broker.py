"""A broker of messages in memory, for rehearsals and tests: what `exchange.adapters.rabbit` promises, without a server.

All of it lives in one event loop. `go_away` is the death of the broker: who publishes is told, who consumes waits, what
was under way comes again; what was confirmed is there when it comes back.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from exchange.adapters.rabbit_topology import DEAD, TOPOLOGY, Queue, Topology
from exchange.letters import Deed, Witness, letter_id, refuse_missing
from exchange.letters import Letter as DeadOne
from exchange.messaging import DeadLetter, Delivery, Handle, Outgoing, PoisonError
from kernel.errors import PermanentError, TemporaryError

TOO_OFTEN: Final = "it came too often: whoever took it ended, or refused it, each time"
_AWAY: Final = "the broker is away"


class _Letter(msgspec.Struct):
    delivery: Delivery
    why: str = ""
    came: int | None = None


class _Held:
    """What a consumer has of a queue and did not acknowledge yet."""

    def __init__(self, queue: Queue, letters: list[_Letter]) -> None:
        self.queue = queue
        self.letters = letters


class _Shelves:
    """All that the broker has: what waits in each queue, and what is handed out."""

    def __init__(self, topology: Topology) -> None:
        self.topology: Final = topology
        names = [name for queue in topology.queues for name in (queue.name, queue.dead)]
        self.waiting: Final = {name: collections.deque[_Letter]() for name in names}
        self.out: Final[list[_Held]] = []
        self.away = False
        self._changed: Final = asyncio.Condition()

    async def accept(self, message: Outgoing) -> None:
        if self.away:
            raise TemporaryError(_AWAY)
        taking = self.topology.taking(message.routing_key)
        if not taking:
            raise PermanentError(
                f"no queue is bound for {message.routing_key}: message {message.message_id} is refused"
            )
        full = [queue for queue in taking if len(self.waiting[queue.name]) >= queue.longest]
        if any(not queue.drops_oldest for queue in full):
            raise TemporaryError(f"message {message.message_id} is not confirmed: a queue is full")
        delivery = Delivery(
            routing_key=message.routing_key, body=message.body, message_id=message.message_id, trace=message.trace
        )
        for queue in full:
            self.waiting[queue.name].popleft()
        for queue in taking:
            self.waiting[queue.name].append(_Letter(delivery))
        await self.tell()

    async def take(self, queue: Queue, most: int) -> _Held:
        waiting = self.waiting[queue.name]
        async with self._changed:
            await self._changed.wait_for(lambda: bool(waiting) and not self.away)
            held = _Held(queue, [waiting.popleft() for _ in range(min(most, len(waiting)))])
            self.out.append(held)
            return held

    def give_back(self, held: _Held) -> None:
        """Put what a consumer holds before its queue again; what has come too often goes to the dead letters."""
        if held not in self.out:
            return
        self.out.remove(held)
        again = []
        for letter in held.letters:
            if _spent(held.queue, letter.delivery):
                self.bury(held.queue, letter, TOO_OFTEN)
            else:
                attempt = letter.delivery.attempt + 1
                again.append(_Letter(msgspec.structs.replace(letter.delivery, attempt=attempt), letter.why))
        self.waiting[held.queue.name].extendleft(reversed(again))

    def bury(self, queue: Queue, letter: _Letter, why: str) -> None:
        dead = msgspec.structs.replace(letter.delivery, attempt=1)
        self.waiting[queue.name.removesuffix(DEAD) + DEAD].append(_Letter(dead, why, letter.delivery.attempt))

    async def tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _spent(queue: Queue, delivery: Delivery) -> bool:
    return not queue.name.endswith(DEAD) and delivery.attempt > queue.redeliveries


class MemoryBroker:
    """The queues of a topology."""

    def __init__(self, topology: Topology = TOPOLOGY) -> None:
        """All queues are there and empty."""
        self.topology: Final = topology
        self._shelves: Final = _Shelves(topology)

    def publisher(self) -> MemoryPublisher:
        """Return a port to publish by."""
        return MemoryPublisher(self._shelves)

    def consumer(self, queue: str, *, batch: int = 64, pauses_s: tuple[float, float] = (0.1, 5.0)) -> MemoryConsumer:
        """Return a port to read a queue by; see `RabbitConsumer` for the arguments.

        Raises:
            InputError: there is no such queue.
        """
        return MemoryConsumer(self._shelves, self.topology.queue(queue), batch=batch, pauses_s=pauses_s)

    def dead(self, queue: str) -> list[DeadLetter]:
        """Return the dead letters of a queue, the oldest first; they stay."""
        return [DeadLetter(delivery=each.delivery, why=each.why) for each in self._shelves.waiting[queue + DEAD]]

    def letters(self) -> MemoryLetters:
        """Return the dead letters of all queues, as a person sees them."""
        return MemoryLetters(self._shelves)

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue; those handed out are not among them."""
        return len(self._shelves.waiting[queue])

    async def go_away(self) -> None:
        """Break every connection; what was handed out and not acknowledged comes again later."""
        self._shelves.away = True
        for held in list(self._shelves.out):
            self._shelves.give_back(held)

    async def come_back(self) -> None:
        """Be there again, with what was confirmed."""
        self._shelves.away = False
        await self._shelves.tell()


class MemoryPublisher:
    """The port `Publisher` of a broker in memory."""

    def __init__(self, shelves: _Shelves) -> None:
        self._shelves: Final = shelves
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
                await self._shelves.accept(message)
                self.confirmed += 1
            except (TemporaryError, PermanentError) as error:
                errors.append(error)
        if errors:
            raise min(errors, key=lambda each: isinstance(each, TemporaryError))

    async def close(self) -> None:
        """Nothing is open."""


class MemoryLetters:
    """The port `Letters` of a broker in memory; it keeps no times."""

    def __init__(self, shelves: _Shelves) -> None:
        self._shelves: Final = shelves

    async def look(self, most: int) -> list[DeadOne]:
        """See `Letters`."""
        return [letter for letter, _ in self._lying(most)]

    async def settle(self, ids: Collection[str], deed: Deed, witness: Witness) -> list[DeadOne]:
        """See `Letters`."""
        wanted = [each for each in self._lying(None) if each[0].id in ids]
        refuse_missing(ids, {letter.id for letter, _ in wanted})
        for letter, copies in wanted:
            if deed is Deed.REQUEUED:
                self._put_back(self._shelves.topology.queue(letter.came_from), copies[0])
            witness(letter)
            for copy in copies:
                self._shelves.waiting[letter.lies_in].remove(copy)
        await self._shelves.tell()
        return [letter for letter, _ in wanted]

    def _put_back(self, queue: Queue, dead: _Letter) -> None:
        waiting = self._shelves.waiting[queue.name]
        if len(waiting) >= queue.longest:
            if not queue.drops_oldest:
                raise TemporaryError(f"message {dead.delivery.message_id} is not confirmed: queue {queue.name} is full")
            waiting.popleft()
        waiting.append(_Letter(dead.delivery))

    def _lying(self, most: int | None) -> list[tuple[DeadOne, list[_Letter]]]:
        if self._shelves.away:
            raise TemporaryError(_AWAY)
        return [
            (_dead_one(queue, name, copies), copies)
            for queue in self._shelves.topology.queues
            for name, copies in _by_id(queue, list(self._shelves.waiting[queue.dead])[:most]).items()
        ]


def _by_id(queue: Queue, letters: Sequence[_Letter]) -> dict[str, list[_Letter]]:
    found: dict[str, list[_Letter]] = {}
    for each in letters:
        found.setdefault(letter_id(queue.name, each.delivery.message_id, each.delivery.body), []).append(each)
    return found


def _dead_one(queue: Queue, name: str, copies: Sequence[_Letter]) -> DeadOne:
    one = copies[0]
    return DeadOne(
        id=name, lies_in=queue.dead, came_from=queue.name, key=one.delivery.routing_key, why=one.why,
        body=one.delivery.body, deliveries=one.came, copies=len(copies),
    )  # fmt: skip


class MemoryConsumer:
    """The port `Consumer` of a broker in memory."""

    def __init__(self, shelves: _Shelves, queue: Queue, *, batch: int, pauses_s: tuple[float, float]) -> None:
        self._shelves: Final = shelves
        self._queue: Final = queue
        self._batch: Final = batch
        self._pauses_s: Final = pauses_s
        self.handled = self.repeated = self.buried = 0
        """As those of `RabbitConsumer`."""

    @property
    def connected(self) -> bool:
        """Whether messages can come."""
        return not self._shelves.away

    async def run(self, handle: Handle) -> None:
        """Hand deliveries to `handle` until cancelled; a broker that is away is waited for."""
        while True:
            held = await self._shelves.take(self._queue, self._batch)
            try:
                await self._hand(held, handle)
            finally:
                self._shelves.give_back(held)
                await self._shelves.tell()

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
        return held in self._shelves.out

    async def _pause(self, deliveries: Sequence[Delivery]) -> None:
        first, longest = self._pauses_s
        await asyncio.sleep(min(first * 2.0 ** (max(each.attempt for each in deliveries) - 1), longest))

    def _again(self, held: _Held, error: TemporaryError) -> None:
        for letter in [each for each in held.letters if _spent(self._queue, each.delivery)]:
            held.letters.remove(letter)
            self._bury(letter, f"it came {letter.delivery.attempt} times; at last: {error}")
        self.repeated += len(held.letters)

    def _bury(self, letter: _Letter, why: str) -> None:
        self._shelves.bury(self._queue, letter, why)
        self.buried += 1
