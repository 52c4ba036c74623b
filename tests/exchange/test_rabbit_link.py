"""The way to a broker: queues are made or checked, refusals are told from absence, and no secret is in a message."""

import asyncio
import contextlib
import gc

import pytest
from yarl import URL

from control.plan import free_ports
from exchange.adapters import rabbit_link
from exchange.adapters.rabbit import RabbitConsumer, RabbitPublisher
from exchange.adapters.rabbit_link import OwnConnection, RabbitLink, heed_cancellation
from exchange.adapters.rabbit_topology import TOPOLOGY, Queue, Topology
from exchange.messaging import Outgoing
from kernel.errors import InputError, PermanentError, TemporaryError

ONE = Topology(queues=(Queue(name="one", patterns=("one",), redeliveries=3),))


async def nothing(_):
    pass


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("a.b", "a.b", True), ("a.b", "a.c", False), ("a.b", "a", False), ("a", "a.b", False),
        ("a.*", "a.b", True), ("a.*", "a", False), ("a.*", "a.b.c", False), ("*.b", "a.b", True),
        ("#", "", True), ("#", "a.b.c", True), ("a.#", "a", True), ("a.#", "a.b.c", True), ("a.#", "b.a", False),
        ("#.z", "a.b.z", True), ("#.z", "z", True), ("#.z", "a.b", False), ("a.#.z", "a.z", True),
        ("a.#.*", "a", False), ("a.#.*", "a.b", True),
    ],
)  # fmt: skip
def test_a_pattern_fits_as_it_does_at_the_broker(pattern, key, fits):
    assert Queue(name="q", patterns=(pattern,)).takes(key) is fits


def test_a_topology_with_a_queue_twice_or_named_like_dead_letters_is_refused():
    with pytest.raises(InputError, match="named twice"):
        Topology(queues=(Queue(name="a", patterns=()), Queue(name="a", patterns=("x",))))
    with pytest.raises(InputError, match="ending of dead letters"):
        Topology(queues=(Queue(name="a.dead", patterns=()),))


def test_every_message_of_settlement_reaches_whom_it_is_for():
    keys = ("saga.ask.cash", "saga.answer", "saga.said.reserve_cash.done", "notice.trade.settled", "nobody")
    assert {key: [queue.name for queue in TOPOLOGY.taking(key)] for key in keys} == {
        "saga.ask.cash": ["saga.cash"],
        "saga.answer": ["saga.coordinator"],
        "saga.said.reserve_cash.done": ["saga.securities.events"],
        "notice.trade.settled": ["notices"],
        "nobody": [],
    }


async def test_declaring_again_changes_nothing(rabbit_link):
    from exchange.adapters.rabbit_link import declare

    await declare(rabbit_link, TOPOLOGY)
    out = RabbitPublisher(rabbit_link)
    await out.publish([Outgoing(routing_key="notice.x", body=b"", message_id="kept")])
    await declare(rabbit_link, TOPOLOGY)
    got = []

    async def keep(batch):
        got.extend(each.message_id for each in batch)

    reading = asyncio.create_task(RabbitConsumer(rabbit_link, "notices").run(keep))
    async with asyncio.timeout(60):
        while not got:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    reading.cancel()
    await out.close()
    assert got == ["kept"]


async def test_a_queue_that_exists_otherwise_is_refused_by_who_declares_and_by_who_reads(rabbit_link):
    from exchange.adapters.rabbit_link import declare

    await declare(rabbit_link, ONE)
    other = Topology(queues=(Queue(name="one", patterns=("one",), redeliveries=7),))
    with pytest.raises(PermanentError, match=r"inequivalent arg 'x-delivery-limit'"):
        await declare(rabbit_link, other)
    with pytest.raises(PermanentError, match=r"inequivalent arg 'x-delivery-limit'"):
        await RabbitConsumer(rabbit_link, "one", topology=other).run(nothing)


async def test_a_missing_queue_is_refused_and_not_made(rabbit_link, rabbit):
    with pytest.raises(PermanentError, match="NOT_FOUND - no queue 'one'"):
        await RabbitConsumer(rabbit_link, "one", topology=ONE).run(nothing)
    assert not [each for each in rabbit.ask("/api/queues") if each["name"] == "one"]


async def test_who_publishes_makes_what_the_broker_forgot(rabbit_link, rabbit):
    out = RabbitPublisher(rabbit_link, topology=ONE)
    await out.publish([Outgoing(routing_key="one", body=b"", message_id="1")])
    vhost = rabbit_link._url.path.strip("/")
    await asyncio.to_thread(rabbit.ask, f"/api/bindings/{vhost}/e/tapewatch/q/one/one", "DELETE")
    with pytest.raises(TemporaryError, match="no queue is bound for one"):
        await out.publish([Outgoing(routing_key="one", body=b"", message_id="2")])
    await out.publish([Outgoing(routing_key="one", body=b"", message_id="2")])
    await out.close()


async def test_a_reader_is_told_when_its_queue_is_taken_away(rabbit_link, rabbit):
    from exchange.adapters.rabbit_link import declare

    await declare(rabbit_link, ONE)
    consumer = RabbitConsumer(rabbit_link, "one", topology=ONE)
    reading = asyncio.create_task(consumer.run(nothing))
    async with asyncio.timeout(60):
        while not consumer.connected:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    vhost = rabbit_link._url.path.strip("/")
    await asyncio.to_thread(rabbit.ask, f"/api/queues/{vhost}/one", "DELETE")
    with pytest.raises(PermanentError, match="no queue 'one'"):
        await asyncio.wait_for(reading, 60)
    assert not consumer.connected


async def test_a_wrong_password_is_refused_for_good_and_not_told(rabbit):
    wrong = RabbitLink(rabbit.url(), password="canary-7f3a")
    with pytest.raises(PermanentError) as refused:
        await wrong.open()
    assert "canary-7f3a" not in f"{refused.value}{refused.value.__cause__}"


async def test_a_missing_virtual_host_is_named(rabbit):
    missing = RabbitLink(rabbit.url("nowhere"), password=rabbit.password)
    with pytest.raises(TemporaryError, match="refuses virtual host nowhere: it is missing"):
        await missing.open()


async def test_nobody_at_the_address_is_for_now_only():
    away = RabbitLink(f"amqp://tapewatch@127.0.0.1:{free_ports(1)[0]}/", password="x")
    with pytest.raises(TemporaryError, match="cannot be reached"):
        await RabbitPublisher(away).publish([Outgoing(routing_key="one", body=b"", message_id="1")])
    with pytest.raises(TemporaryError):
        await rabbit_link.declare(away, ONE, within_s=0.3)


async def test_a_cancellation_that_a_time_limit_swallowed_is_heeded_at_the_next_look():
    went_on: list[str] = []

    async def reader() -> None:
        asyncio.get_running_loop().call_soon(task.cancel)
        with contextlib.suppress(asyncio.CancelledError):  # what 3.11's own `wait_for` does with an answer in hand
            await asyncio.Event().wait()
        went_on.append("the limit returned")
        heed_cancellation()
        went_on.append("for ever")

    task = asyncio.create_task(reader())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert went_on == ["the limit returned"]


async def test_nobody_who_was_not_told_to_end_is_ended_by_a_look():
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    heed_cancellation()


async def test_a_connection_that_never_opened_is_collected_in_any_thread_without_a_word():
    made = [OwnConnection(URL("amqp://guest@127.0.0.1/"), loop=asyncio.get_running_loop())]
    await asyncio.to_thread(made.clear)  # a warning that nobody sees fails a test at its end
    gc.collect()
