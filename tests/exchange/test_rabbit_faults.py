"""A real broker that is killed and stalled, and readers that are killed: what was confirmed has its effect, once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from control.servers.rabbit import Rabbit
from exchange.adapters.memory_broker import MemoryBroker
from exchange.adapters.rabbit import CONFIRM_S, RabbitConsumer, RabbitPublisher, dead_letters
from exchange.adapters.rabbit_link import DECLARED_AFTER_S, RabbitLink, declare
from exchange.adapters.rabbit_topology import Queue, Topology
from exchange.messaging import Delivery, Outgoing
from kernel.errors import TemporaryError
from tests.standing import stop

PLAN = Topology(queues=(Queue(name="work", patterns=("work",), redeliveries=6),))


class Breakable:
    """A broker of this module's own. One thread starts it, for it would die with any other."""

    def __init__(self, server: Rabbit) -> None:
        self.server = server
        self._life = ThreadPoolExecutor(1)

    def call(self, work: Callable[[], Any]) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self._life, work)

    def end(self) -> None:
        self._life.submit(self.server.close).result()
        self._life.shutdown()


@pytest.fixture(scope="module")
def breakable(rabbit_scripts) -> Iterator[Breakable]:
    made = Breakable(Rabbit(rabbit_scripts))
    try:
        made._life.submit(made.server.start).result()
        yield made
    finally:
        made.end()


@pytest.fixture
async def link(breakable) -> RabbitLink:
    name = f"t{uuid.uuid4().hex[:10]}"
    made = RabbitLink(breakable.server.make_vhost(name), password=breakable.server.password)
    await declare(made, PLAN)
    # It is not dropped: RabbitMQ 3.10 answers INTERNAL_ERROR to everybody once a virtual host went while the worker of
    # one of its queues' dead letters was beginning.
    return made


class Books:
    """Whoever consumes keeps effect and id together: here a set and a count in one step."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self.deliveries = 0

    async def carry_out(self, batch: Sequence[Delivery]) -> None:
        self.deliveries += len(batch)
        for each in batch:
            if each.message_id not in self.effects:
                self.effects[each.message_id] += 1


def letters(first: int, count: int) -> list[Outgoing]:
    return [Outgoing(routing_key="work", body=b"x" * 200, message_id=f"m{n}") for n in range(first, first + count)]


async def until(condition: Callable[[], Any], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)


async def test_every_confirmed_message_has_its_effect_once_though_the_broker_is_killed_under_load(breakable, link):
    books, confirmed, told = Books(), set(), []
    out, consumer = RabbitPublisher(link, topology=PLAN), RabbitConsumer(link, "work", topology=PLAN, batch=16)
    reading = asyncio.create_task(consumer.run(books.carry_out))

    async def publish() -> None:
        first = 0
        while first < 1000 or not told:  # one of its tries meets a broker that is away
            batch = letters(first, 50)
            try:
                await out.publish(batch)
            except TemporaryError as error:
                told.append(str(error))
                await asyncio.sleep(0.05)
                continue
            confirmed.update(each.message_id for each in batch)
            first += 50
            await asyncio.sleep(0.02)

    publishing = asyncio.create_task(publish())
    await until(lambda: len(confirmed) >= 300)
    await asyncio.sleep(DECLARED_AFTER_S)
    await breakable.call(breakable.server.kill)
    at_death = set(confirmed)
    await until(lambda: told and not consumer.connected)
    await breakable.call(breakable.server.start)
    await asyncio.wait_for(publishing, 60)
    await until(lambda: confirmed <= books.effects.keys())
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await out.close()
    assert len(at_death) >= 300
    assert set(books.effects.values()) == {1}
    assert books.deliveries >= len(confirmed)
    assert await dead_letters(link, "work", topology=PLAN) == []


HANG = """
import asyncio, sys
from exchange.adapters.rabbit import RabbitConsumer
from exchange.adapters.rabbit_link import RabbitLink
from exchange.adapters.rabbit_topology import Queue, Topology

async def hang(batch):
    print(len(batch), flush=True)
    await asyncio.Event().wait()

plan = Topology(queues=(Queue(name="work", patterns=("work",), redeliveries=6),))
link = RabbitLink(sys.argv[1], password=sys.argv[2])
asyncio.run(RabbitConsumer(link, "work", topology=plan).run(hang))
"""


async def test_what_a_killed_reader_had_is_given_to_another(breakable, link):
    out = RabbitPublisher(link, topology=PLAN)
    await out.publish(letters(0, 20))
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANG, str(link._url), breakable.server.password, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert reader.stdout is not None
    assert int(await asyncio.wait_for(reader.stdout.readline(), 60)) > 0
    reader.kill()
    await reader.wait()
    books = Books()
    reading = asyncio.create_task(RabbitConsumer(link, "work", topology=PLAN).run(books.carry_out))
    await until(lambda: len(books.effects) == 20)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await out.close()


async def test_duplicates_have_one_effect(breakable, link):
    books, out = Books(), RabbitPublisher(link, topology=PLAN)
    reading = asyncio.create_task(RabbitConsumer(link, "work", topology=PLAN).run(books.carry_out))
    for _ in range(3):
        await out.publish(letters(0, 100))
    await until(lambda: books.deliveries == 300)
    assert books.effects == {f"m{n}": 1 for n in range(100)}
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await out.close()


async def test_a_broker_that_stands_still_is_told_within_the_bound_and_used_again_when_it_moves(breakable, link):
    out = RabbitPublisher(link, topology=PLAN, confirm_within_s=0.5)
    await confirmed(out, letters(0, 1))
    stop(breakable.server.pid)
    try:
        began = asyncio.get_running_loop().time()
        with pytest.raises(TemporaryError, match="message m1 is not confirmed"):
            await out.publish(letters(1, 3))
        assert asyncio.get_running_loop().time() - began < CONFIRM_S, "sooner than usual, as it was told"
        with pytest.raises(TemporaryError):
            await asyncio.to_thread(breakable.server.shake_hands, 0.3)
    finally:
        os.kill(breakable.server.pid, signal.SIGCONT)
    await until(lambda: _takes(breakable))
    await confirmed(out, letters(1, 3))
    books = Books()
    reading = asyncio.create_task(RabbitConsumer(link, "work", topology=PLAN).run(books.carry_out))
    await until(lambda: len(books.effects) == 4)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await out.close()


async def confirmed(out: RabbitPublisher, messages: Sequence[Outgoing]) -> None:
    """Publish until it is confirmed: a broker in health may take longer than a short bound on a busy machine."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(TemporaryError):
                return await out.publish(messages)
            await asyncio.sleep(0.05)


def _takes(breakable: Breakable) -> bool:
    try:
        breakable.server.shake_hands()
    except TemporaryError:
        return False
    return True


async def test_in_memory_too_what_was_confirmed_has_its_effect_once_though_the_broker_goes_away():
    broker, books, confirmed = MemoryBroker(PLAN), Books(), set()
    out = broker.publisher()

    async def slowly(batch: Sequence[Delivery]) -> None:
        await books.carry_out(batch)
        await asyncio.sleep(0.001)

    reading = asyncio.create_task(broker.consumer("work", batch=5).run(slowly))
    for round_ in range(30):
        if round_ % 10 == 5:
            await broker.go_away()
            with pytest.raises(TemporaryError):
                await out.publish(letters(round_ * 10, 10))
            await broker.come_back()
        await out.publish(letters(round_ * 10, 10))
        confirmed.update(each.message_id for each in letters(round_ * 10, 10))
        await asyncio.sleep(0.002)
    await until(lambda: confirmed <= books.effects.keys() and not broker.depth("work"))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert books.deliveries > len(confirmed), "what was under way came again"
    assert set(books.effects.values()) == {1}
