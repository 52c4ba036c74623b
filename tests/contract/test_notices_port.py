"""Notices from events to where they are looked up, held against the broker in memory and a real RabbitMQ."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from exchange.adapters import notice_server, rabbit_link
from exchange.adapters.memory_broker import MemoryBroker
from exchange.adapters.notice_store import NoticeStore
from exchange.adapters.rabbit import RabbitConsumer, RabbitPublisher, dead_letters
from exchange.adapters.rabbit_topology import TOPOLOGY
from exchange.messaging import DeadLetter, Outgoing
from exchange.notices import QUEUE, Notice, NoticeKind, notices_of, telling
from kernel.errors import TemporaryError
from tests.exchange.notice_plant import NoticePlant, died
from tests.exchange.saga_plant import Points
from tests.exchange.test_settlement import happenings

BOTH = ["memory", pytest.param("rabbit", marks=pytest.mark.rabbit)]
PAUSES = (0.02, 0.05)


class Side:
    def __init__(self, place: Any, link: Any = None) -> None:
        self.broker = MemoryBroker()
        self.link = link
        self.place = place
        self.opened: list[RabbitPublisher] = []

    def publisher(self) -> Any:
        if self.link is None:
            return self.broker.publisher()
        self.opened.append(RabbitPublisher(self.link))
        return self.opened[-1]

    def inbox(self) -> Any:
        if self.link is None:
            return self.broker.consumer(QUEUE, batch=16, pauses_s=PAUSES)
        return RabbitConsumer(self.link, QUEUE, batch=16, pauses_s=PAUSES)

    async def dead(self) -> list[DeadLetter]:
        return self.broker.dead(QUEUE) if self.link is None else await dead_letters(self.link, QUEUE)

    def plant(self, count: int = 120) -> NoticePlant:
        return NoticePlant(self.place, happenings(count), self.publisher(), self.inbox)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notice_server, "TOGETHER_S", 0.0)
    monkeypatch.setattr(notice_server, "RETRY_S", 0.01)
    monkeypatch.setattr(notice_server, "LEDGER_S", 0.05)


@pytest.fixture(params=BOTH)
async def side(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Side]:
    link = None if request.param == "memory" else request.getfixturevalue("rabbit_link")
    if link is not None:
        await rabbit_link.declare(link, TOPOLOGY)
    made = Side(tmp_path / "notices.sqlite", link)
    yield made
    for each in made.opened:
        await each.close()


async def until(condition: Callable[[], Any], within_s: float = 120) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.005)


async def test_every_notice_is_published_and_kept_once_in_its_order(side):
    plant = side.plant()
    async with plant.process():
        await until(lambda: plant.telemetry.new == len(plant.owed))
        assert plant.server is not None
        assert plant.server.ready()[0]
    assert plant.kept() == plant.owed
    assert sum(plant.telemetry.kinds.values()) == len(plant.owed) > 20
    assert plant.telemetry.repeats == 0


async def test_whoever_dies_wherever_between_event_and_place_no_notice_is_lost_and_each_is_there_once(side):
    plant, points = side.plant(40), Points()
    async with plant.process(points):
        await until(lambda: plant.telemetry.new == len(plant.owed))
        await until(lambda: points.met.count("after the place is noted") == 2)
    assert len(points.met) >= 10
    # Each death costs a real broker seconds: there, the first of each kind.
    every = range(len(points.met)) if side.link is None else [points.met.index(name) for name in set(points.met)]
    for deadly in every:
        plant.place = side.place.with_name(f"crash-{deadly}.sqlite")
        plant.telemetry.new = 0
        async with plant.process(Points(frozenset({deadly}))) as task:
            await until(lambda task=task: died(task) or plant.telemetry.new == len(plant.owed))
        async with plant.process():
            await until(lambda: set(plant.kept()) == set(plant.owed))
        assert sorted(plant.kept()) == sorted(plant.owed), f"died at {deadly}: {points.met[deadly]}"


async def test_a_storm_of_repeats_in_any_order_has_each_effect_once(side):
    plant, rng = side.plant(80), random.Random(7)
    messages = [telling(one) for item in plant.happened for one in notices_of(0, item)]
    storm = [*messages, *rng.choices(messages, k=2 * len(messages))]
    rng.shuffle(storm)
    await side.publisher().publish(storm)
    async with plant.process():
        await until(lambda: plant.telemetry.new + plant.telemetry.repeats >= len(storm) + len(messages))
    assert sorted(plant.kept()) == sorted(plant.owed)
    assert plant.telemetry.new == len(messages)


async def test_what_is_no_notice_is_a_dead_letter_with_the_reason_and_stops_nobody(side):
    plant = side.plant(40)
    bad = [b"{", b'{"version":9}', b"[" * 50_000, b'{"version":1,"notice":{"id":"1","kind":"gossip","at":1}}']
    await side.publisher().publish(
        [Outgoing(routing_key="notice.market.halted", body=body, message_id=f"bad-{n}") for n, body in enumerate(bad)]
    )
    async with plant.process():
        await until(lambda: plant.telemetry.new == len(plant.owed))
        async with asyncio.timeout(120):
            while len(found := await side.dead()) < len(bad):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.02)
    assert plant.kept() == plant.owed
    assert "of version 9, this program reads 1" in found[1].why


async def test_a_reader_of_its_own_queue_gets_what_it_bound_for_and_takes_nothing_from_the_keeper(side):
    if side.link is None:
        pytest.skip("the broker in memory has the queues of its topology alone")
    plant = side.plant(80)
    got: list[str] = []
    async with side.link.connection() as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(TOPOLOGY.exchange, "notice.account.ann.#")

        async def take(letter: Any) -> None:
            got.append(letter.message_id)
            await letter.ack()

        tag = await queue.consume(take)
        async with plant.process():
            await until(lambda: plant.telemetry.new == len(plant.owed))
            mine = [one.id for item in plant.happened for one in notices_of(0, item) if one.account == "ann"]
            await until(lambda: len(got) == len(mine))
        await queue.cancel(tag)
    assert got == [f"notice.{name}" for name in mine]
    assert plant.kept() == plant.owed


async def test_nothing_is_told_as_settled_before_the_ledger_has_it(side):
    plant = side.plant(60)
    traded = [item.seq for item in plant.happened if any(type(one).__name__ == "Traded" for one in item.events)]
    plant.settled_to = traded[0] - 1
    async with plant.process():
        await until(lambda: "notices-wait" in plant.log.names())
        assert NoticeKind.TRADE_SETTLED not in plant.telemetry.kinds
        plant.settled_to = plant.happened[-1].seq
        await until(lambda: plant.telemetry.new == len(plant.owed))
    assert plant.kept() == plant.owed


async def test_a_broker_that_goes_away_in_the_middle_is_waited_for_and_told_of_once(tmp_path):
    side = Side(tmp_path / "notices.sqlite")
    plant = side.plant(120)
    await side.broker.go_away()
    async with plant.process():
        await until(lambda: "notices-wait" in plant.log.names())
        await until(lambda: plant.telemetry.count > 0)
        assert plant.server is not None
        assert plant.server.ready() == (False, "no connection to the queue of notices")
        await asyncio.sleep(0.1)
        await side.broker.come_back()
        await until(lambda: plant.telemetry.new == len(plant.owed))
    assert plant.kept() == plant.owed
    names = plant.log.names()
    assert (names.count("notices-wait"), names.count("notices-go-on")) == (1, 1)


async def test_a_database_that_is_away_after_the_broker_confirmed_tells_nobody_twice(tmp_path, monkeypatch):
    side = Side(tmp_path / "notices.sqlite")
    plant, real, failures = side.plant(60), NoticeStore.reach, 0

    def reach(self: NoticeStore, part: int, seq: int) -> None:
        nonlocal failures
        if failures < 20:
            failures += 1
            raise TemporaryError("the database is away")
        real(self, part, seq)

    monkeypatch.setattr(NoticeStore, "reach", reach)
    async with plant.process():
        await until(lambda: plant.telemetry.new == len(plant.owed))
    assert (failures, plant.publisher.confirmed) == (20, len(plant.owed))


async def test_what_cannot_be_kept_now_waits_in_the_hand_and_is_no_dead_letter(tmp_path, monkeypatch):
    side = Side(tmp_path / "notices.sqlite")
    plant, real, failures = side.plant(60), NoticeStore.keep, 0

    def keep(self: NoticeStore, notices: Sequence[Notice]) -> int:
        nonlocal failures
        if failures < 60:
            failures += 1
            raise TemporaryError("the database is away")
        return int(real(self, notices))

    monkeypatch.setattr(NoticeStore, "keep", keep)
    async with plant.process():
        await until(lambda: plant.telemetry.new == len(plant.owed))
    assert plant.kept() == plant.owed
    assert await side.dead() == []
    assert plant.log.names().count("notices-not-kept") == 1
