"""What a broker of messages promises, held against the one in memory and against a real RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from exchange.adapters import rabbit_link
from exchange.adapters.memory_broker import MemoryBroker
from exchange.adapters.rabbit import RabbitConsumer, RabbitPublisher, dead_letters
from exchange.adapters.rabbit_link import RabbitLink
from exchange.adapters.rabbit_topology import Queue, Topology
from exchange.messaging import Consumer, DeadLetter, Delivery, Handle, Outgoing, PoisonError, Publisher
from kernel.errors import InputError, PermanentError, TemporaryError

BOTH = ["memory", pytest.param("rabbit", marks=pytest.mark.rabbit)]
PLAN = Topology(
    queues=(
        Queue(name="cash", patterns=("ask.cash", "said.*.*"), redeliveries=2),
        Queue(name="fees", patterns=("ask.fees", "said.#")),
        Queue(name="small", patterns=("small",), longest=5),
        Queue(name="news", patterns=("news",), longest=5, drops_oldest=True),
    )
)
PAUSES = (0.02, 0.05)


class MemorySide:
    def __init__(self) -> None:
        self.broker = MemoryBroker(PLAN)

    def publisher(self) -> Publisher:
        return self.broker.publisher()

    def consumer(self, queue: str, batch: int = 64) -> Consumer:
        return self.broker.consumer(queue, batch=batch, pauses_s=PAUSES)

    async def dead(self, queue: str) -> list[DeadLetter]:
        return self.broker.dead(queue)

    async def end(self) -> None:
        pass


class RabbitSide:
    def __init__(self, link: RabbitLink) -> None:
        self.link = link
        self.publishers: list[RabbitPublisher] = []

    def publisher(self) -> Publisher:
        self.publishers.append(RabbitPublisher(self.link, topology=PLAN))
        return self.publishers[-1]

    def consumer(self, queue: str, batch: int = 64) -> Consumer:
        return RabbitConsumer(self.link, queue, topology=PLAN, batch=batch, pauses_s=PAUSES)

    async def dead(self, queue: str) -> list[DeadLetter]:
        return await dead_letters(self.link, queue, topology=PLAN)

    async def end(self) -> None:
        for each in self.publishers:
            await each.close()


Side = MemorySide | RabbitSide


@pytest.fixture(params=BOTH)
async def side(request: pytest.FixtureRequest) -> AsyncIterator[Side]:
    if request.param == "memory":
        yield MemorySide()
        return
    link = request.getfixturevalue("rabbit_link")
    await rabbit_link.declare(link, PLAN)
    made = RabbitSide(link)
    yield made
    await made.end()


def letters(*names: str, key: str = "ask.cash") -> list[Outgoing]:
    return [Outgoing(routing_key=key, body=name.encode(), message_id=name) for name in names]


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [each.message_id for each in deliveries]


@contextlib.asynccontextmanager
async def reading(consumer: Consumer, handle: Handle) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(consumer.run(handle))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Any], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.005)


async def seen(side: Side, queue: str, count: int, **more: Any) -> list[Delivery]:
    """Read so many from a queue."""
    got: list[Delivery] = []

    async def keep(batch: Sequence[Delivery]) -> None:
        got.extend(batch)

    async with reading(side.consumer(queue, **more), keep):
        await until(lambda: len(got) >= count)
    return got


async def buried(side: Side, queue: str, count: int, by: Any = None, new: int = 0) -> list[DeadLetter]:
    """Wait for so many dead letters, and until `by`, who buried the `new` of them, has let go of them where they were.

    A letter is among the dead ones before it leaves its queue; who ends in between finds it in both.
    """
    async with asyncio.timeout(60):
        while len(found := await side.dead(queue)) < count:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.02)
    await until(lambda: by is None or by.buried >= (new or count))
    return found


async def test_what_was_published_comes_out_as_it_went_in(side):
    message = Outgoing(routing_key="ask.cash", body=b"\x00pay", message_id="m-1", trace="00-aa-bb-01")
    await side.publisher().publish([message])
    assert await seen(side, "cash", 1) == [
        Delivery(routing_key="ask.cash", body=b"\x00pay", message_id="m-1", trace="00-aa-bb-01", attempt=1)
    ]


async def test_nothing_is_a_fine_batch_to_publish(side):
    await side.publisher().publish([])


async def test_messages_of_one_publisher_keep_their_order(side):
    names = [f"m{number}" for number in range(1500)]
    await side.publisher().publish(letters(*names))
    assert ids(await seen(side, "cash", 1500)) == names


async def test_a_message_reaches_every_queue_whose_pattern_fits_and_no_other(side):
    out = side.publisher()
    await out.publish(letters("two", key="said.hold.ok") + letters("deep", key="said.hold.ok.twice"))
    await out.publish(letters("bare", key="said") + letters("fee", key="ask.fees"))
    assert ids(await seen(side, "fees", 4)) == ["two", "deep", "bare", "fee"]
    assert ids(await seen(side, "cash", 1)) == ["two"]


async def test_a_message_that_no_queue_takes_is_refused_and_the_others_of_its_batch_are_there(side):
    with pytest.raises(PermanentError, match=r"no queue is bound for ask\.nobody: message lost is refused"):
        await side.publisher().publish(letters("a") + letters("lost", key="ask.nobody") + letters("b"))
    assert ids(await seen(side, "cash", 2)) == ["a", "b"]


async def test_one_id_published_twice_comes_twice(side):
    await side.publisher().publish(letters("same", "same"))
    assert ids(await seen(side, "cash", 2)) == ["same", "same"]


async def one_by_one(out: Publisher, count: int) -> None:
    for number in range(count):
        await out.publish(letters(f"m{number}", key="small"))


async def test_a_full_queue_takes_no_more_and_its_publisher_is_told(side):
    out = side.publisher()
    with pytest.raises(TemporaryError):
        await one_by_one(out, 100)
    await seen(side, "small", 5)
    await out.publish(letters("again", key="small"))


async def test_a_queue_of_news_takes_more_than_it_keeps_and_loses_the_oldest(side):
    out = side.publisher()
    for number in range(50):
        await out.publish(letters(f"m{number}", key="news"))
    assert ids(await seen(side, "news", 5))[-1] == "m49"
    assert await side.dead("news") == []


async def test_a_batch_is_never_larger_than_asked_for(side):
    await side.publisher().publish(letters(*(f"m{number}" for number in range(20))))
    sizes: list[int] = []

    async def measure(batch: Sequence[Delivery]) -> None:
        sizes.append(len(batch))

    async with reading(side.consumer("cash", batch=7), measure):
        await until(lambda: sum(sizes) == 20)
    assert max(sizes) <= 7


async def test_what_was_carried_out_does_not_come_again(side):
    await side.publisher().publish(letters("a", "b", "c"))
    await seen(side, "cash", 3)
    await side.publisher().publish(letters("d"))
    assert ids(await seen(side, "cash", 1)) == ["d"]


async def test_what_was_not_carried_out_when_its_reader_ended_comes_again_and_says_so(side):
    await side.publisher().publish(letters("a", "b"))
    reached = asyncio.Event()

    async def hang(_: Sequence[Delivery]) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with reading(side.consumer("cash"), hang):
        await asyncio.wait_for(reached.wait(), 60)
    again = await seen(side, "cash", 2)
    assert ids(again) == ["a", "b"]
    assert again[0].attempt == 2


async def test_a_fault_of_the_reader_ends_it_and_its_batch_comes_again(side):
    await side.publisher().publish(letters("a"))

    async def stumble(_: Sequence[Delivery]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(side.consumer("cash").run(stumble), 60)
    assert [each.attempt for each in await seen(side, "cash", 1)] == [2]


async def test_a_poisoned_one_goes_to_the_dead_letters_and_those_around_it_are_carried_out_once(side):
    await side.publisher().publish(letters("a", "b", "bad", "c", "worse", "d"))
    done: list[Delivery] = []

    async def careful(batch: Sequence[Delivery]) -> None:
        for each in batch:
            if each.message_id in ("bad", "worse"):
                raise PoisonError(each, f"{each.message_id} cannot be read")
            done.append(each)

    async with reading(side.consumer("cash"), careful):
        await until(lambda: len(done) == 4)
        graves = await buried(side, "cash", 2)
    assert ids(done) == ["a", "b", "c", "d"]
    assert {each.attempt for each in done} == {1}
    assert [(each.delivery.message_id, each.why) for each in graves] == [
        ("bad", "bad cannot be read"), ("worse", "worse cannot be read"),
    ]  # fmt: skip
    assert graves[0].delivery.routing_key == "ask.cash"
    assert graves[0].delivery.body == b"bad"


async def test_a_batch_that_failed_for_now_comes_again_whole_and_counts(side):
    await side.publisher().publish(letters("a", "b"))
    attempts: list[list[tuple[str, int]]] = []

    async def second_time(batch: Sequence[Delivery]) -> None:
        attempts.append([(each.message_id, each.attempt) for each in batch])
        if len(attempts) == 1:
            raise TemporaryError("the ledger is away")

    async with reading(side.consumer("cash"), second_time):
        await until(lambda: sum(map(len, attempts[1:])) == 2)
    assert attempts[0] == [("a", 1), ("b", 1)]
    assert [each for batch in attempts[1:] for each in batch] == [("a", 2), ("b", 2)]


async def test_what_fails_too_often_is_a_dead_letter_with_the_last_reason(side):
    await side.publisher().publish(letters("a"))
    calls = []

    async def never(batch: Sequence[Delivery]) -> None:
        calls.extend(each.attempt for each in batch)
        raise TemporaryError("the ledger is away")

    async with reading(side.consumer("cash"), never):
        (grave,) = await buried(side, "cash", 1)
    assert calls == [1, 2, 3]
    assert grave.why == "it came 3 times; at last: the ledger is away"
    assert grave.delivery.message_id == "a"


async def test_what_ends_its_reader_each_time_is_a_dead_letter_at_last(side):
    await side.publisher().publish(letters("deadly"))

    async def stumble(_: Sequence[Delivery]) -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(side.consumer("cash").run(stumble), 60)
    (grave,) = await buried(side, "cash", 1)
    assert "it came too often" in grave.why
    assert (grave.delivery.message_id, grave.delivery.routing_key) == ("deadly", "ask.cash")


async def test_dead_letters_can_be_read_like_any_queue(side):
    await side.publisher().publish(letters("bad"))

    async def refuse(batch: Sequence[Delivery]) -> None:
        raise PoisonError(batch[0], "no")

    async with reading(consumer := side.consumer("cash"), refuse):
        await buried(side, "cash", 1, consumer)
    assert [(each.message_id, each.routing_key) for each in await seen(side, "cash.dead", 1)] == [("bad", "ask.cash")]


async def test_readers_of_one_queue_share_its_messages(side):
    names = [f"m{number}" for number in range(40)]
    await side.publisher().publish(letters(*names))
    shares: tuple[list[Delivery], list[Delivery]] = ([], [])

    def slow(share: list[Delivery]) -> Callable[[Sequence[Delivery]], Awaitable[None]]:
        async def keep(batch: Sequence[Delivery]) -> None:
            share.extend(batch)
            await asyncio.sleep(0.01)

        return keep

    async with (
        reading(side.consumer("cash", batch=1), slow(shares[0])),
        reading(side.consumer("cash", batch=1), slow(shares[1])),
    ):
        await until(lambda: len(set(ids(shares[0] + shares[1]))) == 40)
    first = [each for each in shares[0] + shares[1] if each.attempt == 1]  # on a slow machine a connection may end
    assert sorted(ids(first)) == sorted(names)
    assert all(shares)


async def test_a_queue_that_nobody_planned_is_refused_and_the_planned_ones_are_named(side):
    with pytest.raises(InputError, match="queue nosuch: is not known; one of cash, fees, small, news"):
        side.consumer("nosuch")
