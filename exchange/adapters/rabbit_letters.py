"""The dead letters of RabbitMQ's queues, for a person: `exchange.letters.Letters`.

A letter is looked at by taking it without an acknowledgement; when the connection ends the broker puts it where it was.
So two who look at the same moment each see a part.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, HeadersType

from exchange.adapters.rabbit import CONFIRM_S
from exchange.adapters.rabbit_link import CAME, KEY, RPC_S, TRACE, RabbitLink, dead_since, delivery_of, why_dead
from exchange.adapters.rabbit_topology import TOPOLOGY, Queue, Topology
from exchange.letters import Deed, Letter, Witness, letter_id, refuse_missing
from kernel.time import SECOND, Instant

READ_MOST: Final = 10_000
"""So far is a queue of dead letters searched for an id."""


class RabbitLetters:
    """All queues of dead letters of a topology."""

    def __init__(self, link: RabbitLink, *, topology: Topology = TOPOLOGY) -> None:
        """Nothing is opened yet."""
        self._link: Final = link
        self._topology: Final = topology

    async def look(self, most: int) -> list[Letter]:
        """See `Letters`."""
        found: list[Letter] = []
        async with self._link.connection() as connection, self._link.errors("the dead letters cannot be read"):
            channel = await connection.channel()
            for queue in self._topology.queues:
                taken = await _taken(channel, queue, most)
                found += [_letter(queue, copies) for copies in taken.values()]
        return found

    async def settle(self, ids: Collection[str], deed: Deed, witness: Witness) -> list[Letter]:
        """See `Letters`."""
        async with self._link.connection() as connection, self._link.errors("the dead letters cannot be settled"):
            wanted = await self._wanted(connection, ids)
            out = await connection.channel(publisher_confirms=True, on_return_raises=True)
            done: list[Letter] = []
            for queue, copies in wanted:
                letter = _letter(queue, copies)
                if deed is Deed.REQUEUED:
                    await self._put_back(out, queue, copies[0])
                witness(letter)
                for copy in copies:
                    await copy.ack()
                done.append(letter)
        return done

    async def _wanted(
        self, connection: AbstractConnection, ids: Collection[str]
    ) -> list[tuple[Queue, list[AbstractIncomingMessage]]]:
        """Take the letters with these ids, all of them or none."""
        channel = await connection.channel()
        left, wanted = set(ids), []
        for queue in self._topology.queues:
            if not left:
                break
            for name, copies in (await _taken(channel, queue, READ_MOST)).items():
                if name in left:
                    left.remove(name)
                    wanted.append((queue, copies))
        refuse_missing(left, ())
        return wanted

    async def _put_back(self, channel: AbstractChannel, queue: Queue, dead: AbstractIncomingMessage) -> None:
        """Publish a letter to its queue alone, others that had it by the same key have carried it out; confirmed."""
        delivery = delivery_of(dead)
        headers: HeadersType = {KEY: delivery.routing_key}
        if delivery.trace:
            headers[TRACE] = delivery.trace
        again = Message(
            dead.body, message_id=dead.message_id, delivery_mode=DeliveryMode.PERSISTENT, headers=headers
        )  # fmt: skip
        async with self._link.errors(f"message {delivery.message_id} is not confirmed by queue {queue.name}"):
            await channel.default_exchange.publish(again, queue.name, mandatory=True, timeout=CONFIRM_S)


async def _taken(channel: AbstractChannel, queue: Queue, most: int) -> dict[str, list[AbstractIncomingMessage]]:
    """Take at most so many dead letters of a queue, the oldest first, copies of one together."""
    graves = await channel.get_queue(queue.dead, ensure=True)
    taken: dict[str, list[AbstractIncomingMessage]] = {}
    for _ in range(most):
        letter = await graves.get(fail=False, timeout=RPC_S)
        if letter is None:
            break
        taken.setdefault(letter_id(queue.name, letter.message_id or "", letter.body), []).append(letter)
    return taken


def _letter(queue: Queue, copies: list[AbstractIncomingMessage]) -> Letter:
    one = copies[0]
    came = one.headers.get(CAME)
    return Letter(
        id=letter_id(queue.name, one.message_id or "", one.body), lies_in=queue.dead, came_from=queue.name,
        key=delivery_of(one).routing_key, why=why_dead(one), body=one.body, at=_instant(dead_since(one)),
        deliveries=came if isinstance(came, int) else None, copies=len(copies),
    )  # fmt: skip


def _instant(at: datetime | None) -> Instant | None:
    """Return the broker's time, whose unit is a second."""
    if at is None:
        return None
    return Instant(round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()) * SECOND)
