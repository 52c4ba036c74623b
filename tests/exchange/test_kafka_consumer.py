# mypy: disallow-untyped-calls=False, check-untyped-defs=False, disable-error-code="arg-type"
"""A group on real brokers: whatever comes and goes, each event is carried out once and in order."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from exchange.adapters.kafka_consumer import With
from exchange.adapters.kafka_topics import prepare
from exchange.consuming import Missing
from tests.exchange.ledger_from_kafka import Kept, Member, event, producer_of, publish
from tests.kafka_brokers import new_place
from tests.standing import stop

pytestmark = pytest.mark.kafka


@pytest.fixture
def place(kafka):
    made = new_place(kafka, partitions=4)
    prepare(made)
    return made


@pytest.fixture
def effect(tmp_path):
    return Kept(tmp_path / "done.sqlite")


def wanted(partitions, count):
    return {partition: list(range(1, count + 1)) for partition in range(partitions)}


def committed(place, partition=0):
    consumer = Consumer(place.client({"group.id": "test"}))
    try:
        (told,) = consumer.committed([TopicPartition(place.events, partition)], timeout=60)
        return told.offset
    finally:
        consumer.close()


def dead_letters(place, count):
    consumer = Consumer(place.client({"group.id": "looks", "auto.offset.reset": "earliest"}))
    consumer.assign([TopicPartition(place.dead, partition, 0) for partition in range(place.partitions)])
    try:
        return consumer.consume(count, timeout=60)
    finally:
        consumer.close()


class Load:
    """Publishes on a thread of its own until it is ended, 30 % of it twice: 25 events for each partition at a time."""

    def __init__(self, place):
        self._place, self._ending, self.published = place, threading.Event(), 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        dice, producer = random.Random(5), producer_of(self._place)
        while not self._ending.wait(0.05):
            for partition in range(self._place.partitions):
                values = []
                for seq in range(self.published + 1, self.published + 26):
                    values.append(event(seq))
                    if dice.random() < 0.3:
                        values.append(event(max(1, seq - dice.randrange(20))))
                publish(self._place, partition, values, producer)
            self.published += 25
            producer.poll(0)
        assert producer.flush(60) == 0

    def end(self):
        """Return how many events each partition has."""
        self._ending.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.published


@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_members_that_come_and_go_all_the_time_lose_nothing_and_do_nothing_twice(place, effect, eager):
    load, dice = Load(place), random.Random(7)
    steady, members, past = Member(place, effect, eager=eager), [], []
    async with asyncio.timeout(240):
        # A member that keeps all it has hears nothing of a cooperative rebalance, and some leave before they have any.
        while len(past) < 8 or steady.telemetry.rebalances < 2 or not any(one.telemetry.rebalances for one in past):
            if len(members) < 3 and dice.random() < 0.6:
                members.append(Member(place, effect, eager=eager, with_=With(check=lambda _: None)))
            elif members:
                past.append(members.pop(dice.randrange(len(members))))
                await past[-1].stop()
            await asyncio.sleep(dice.uniform(0.1, 0.4))
    count = await asyncio.to_thread(load.end)
    await steady.until(lambda: effect.count() == 4 * count, within_s=180)
    for member in (steady, *members):
        await member.stop()
    assert effect.all() == wanted(4, count)
    for one in effect.order.values():
        assert one == sorted(one)


async def test_killed_between_the_effect_and_its_commit_everything_comes_once(place, tmp_path):
    path = tmp_path / "done.sqlite"
    effect = Kept(path)
    argv = [sys.executable, "-m", "tests.exchange.ledger_from_kafka", place.bootstrap, place.topic, "4", str(path)]
    reached = 0
    for first in (1, 501):  # the second finds something to do, however far the first came
        for partition in range(4):
            publish(place, partition, [event(seq) for seq in range(first, first + 500)])
        with subprocess.Popen(argv) as process:  # noqa: ASYNC220 - it returns at once
            until = time.monotonic() + 90
            while effect.count() <= reached:
                assert time.monotonic() < until
                await asyncio.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        reached = effect.count()
    member = Member(place, effect)
    await member.until(lambda: effect.count() == 4_000)
    await member.until(lambda: committed(place) == 1_000)
    await member.stop()
    assert effect.all() == wanted(4, 1_000)


async def test_one_of_three_is_killed_and_nothing_is_lost_or_there_twice(kafka, place, effect):
    member = Member(place, effect)
    publish(place, 0, [event(seq) for seq in range(1, 201)])
    await member.until(lambda: effect.count() == 200)
    # Every broker leads something here: a partition, or the group.
    kafka.kill(1)
    try:
        publish(place, 0, [event(seq) for seq in range(201, 401)])
        await member.until(lambda: effect.count() == 400)
        await member.until(lambda: member.consumer.ready()[0])
    finally:
        kafka.start_one(1)
    publish(place, 0, [event(seq) for seq in range(401, 601)])
    await member.until(lambda: effect.count() == 600)
    await member.until(lambda: committed(place) == 600)
    await member.until(lambda: member.telemetry.lags[0] == (0, 0))
    await member.stop()
    assert effect.all() == wanted(1, 600)


@contextlib.contextmanager
def silent(kafka):
    """Brokers that are there and say nothing, none of them."""
    for pid in kafka.pids.values():
        stop(pid)
    try:
        yield
    finally:
        for pid in kafka.pids.values():
            os.kill(pid, signal.SIGCONT)


@pytest.mark.long
async def test_without_any_broker_it_waits_and_says_so_and_ends_when_it_is_told_to(kafka, place, effect):
    member, other = Member(place, effect), Member(place, effect)
    publish(place, 0, [event(seq) for seq in range(1, 101)])
    await member.until(lambda: effect.count() == 100)
    await member.until(lambda: member.consumer.ready()[0] and other.consumer.ready()[0])
    with silent(kafka):
        await member.until(lambda: member.consumer.ready() == (False, "no Kafka broker answers"))
        assert (member.telemetry.is_connected, member.log.names()[-1]) == (False, "kafka-lost")
        began = time.monotonic()
        await other.stop()
        assert time.monotonic() - began < 15
        late = Member(place, effect)
        await late.until(lambda: "kafka-lost" in late.log.names())
    publish(place, 0, [event(seq) for seq in range(101, 201)])
    await member.until(lambda: effect.count() == 200)
    await member.until(lambda: member.consumer.ready()[0])
    await late.until(lambda: late.consumer.ready()[0])
    await member.stop()
    await late.stop()
    assert effect.all() == wanted(1, 200)


async def test_an_effect_that_cannot_be_brought_about_now_is_tried_again_and_the_group_is_kept(place, effect):
    publish(place, 0, [event(seq) for seq in range(1, 21)])
    effect.failing = True
    member = Member(place, effect)
    await member.until(lambda: "effect-failed" in member.log.names())
    publish(place, 0, [event(seq) for seq in range(21, 41)])
    other = Member(place, effect)
    await other.until(lambda: len(other.consumer.partitions) == 2)
    effect.failing = False
    await member.until(lambda: effect.count() == 40)
    await member.stop()
    await other.stop()
    assert (effect.all(), effect.met_again) == (wanted(1, 40), 0)


async def test_messages_that_cannot_be_read_go_to_the_dead_letters_and_a_lost_record_stops_its_partition(place, effect):
    damaged = event(3)[:-1] + b"\x00"
    publish(place, 0, [event(1), b"{}", event(2), damaged, event(4), event(5)])
    publish(place, 1, [event(1), None, event(1), event(2)])
    member = Member(place, effect)
    await member.until(lambda: member.telemetry.standing == {0})
    publish(place, 1, [event(3)])
    await member.until(lambda: effect.all() == {0: [1, 2], 1: [1, 2, 3]})
    ready, why = member.consumer.ready()
    assert not ready
    assert why == (
        f"{place.events}, partition 0, offset 4: record 4 stands where 3 should; the message at offset 3 cannot be "
        "read: it does not fit its checksum; nothing behind it is carried out until a person has decided"
    )
    # The stranger's message is done with; what stands at the missing record and behind it is not.
    await member.until(lambda: committed(place) == 3)
    await member.until(lambda: member.telemetry.lags.get(0) == (3, 3))
    await member.stop()
    letters = {(dict(one.headers())["partition"], dict(one.headers())["offset"]): one for one in dead_letters(place, 3)}
    assert set(letters) == {(b"0", b"1"), (b"0", b"3"), (b"1", b"1")}
    one = letters[b"0", b"3"]
    assert (one.value(), dict(one.headers())) == (damaged, {
        "reason": b"damaged", "why": b"it does not fit its checksum", "topic": place.events.encode(), "partition": b"0",
        "offset": b"3", "group": b"test",
    })  # fmt: skip
    assert member.telemetry.dead.total() == 3
    # A member of later stands at the same place; one that may go on without does not.
    later = Member(place, effect)
    await later.until(lambda: later.telemetry.standing == {0})
    await later.stop()
    passing = Member(place, effect, missing=Missing.PASSES)
    await passing.until(lambda: effect.all()[0] == [1, 2, 4, 5])
    await passing.stop()


async def test_an_effect_that_went_back_finds_the_record_that_is_due_and_a_new_group_begins_at_the_first(
    place, tmp_path
):
    publish(place, 0, [event(seq) for seq in range(1, 301)])
    first = Kept(tmp_path / "first.sqlite")
    member = Member(place, first)
    await member.until(lambda: first.count() == 300)
    await member.stop()
    assert committed(place) == 300
    publish(place, 0, [event(seq) for seq in range(301, 351)])
    anew = Kept(tmp_path / "anew.sqlite")
    member = Member(place, anew)
    await member.until(lambda: anew.count() == 350)
    await member.stop()
    assert anew.all() == wanted(1, 350)
