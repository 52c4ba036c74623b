"""The services of settlement as they run: whatever dies or comes twice, every saga ends and no sum changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest

from exchange.adapters.saga_store import SagaBook
from exchange.messaging import Outgoing
from exchange.saga import Rules, Service
from exchange.saga_messages import Style
from exchange.tracing import Concluded, NoTracer
from exchange.types import AccountId
from tests.exchange.saga_plant import MONEY, Plant, Points, files, some_trades, trade

STYLES = list(Style)


@pytest.mark.parametrize("style", STYLES)
async def test_trades_are_settled_once_each(style, place):
    plant = Plant(place, style, some_trades(40))
    assert await plant.run() == {"settled": 40}
    plant.judge()
    told = plant.telemetry["coordinator"]
    assert (told.begun_sagas, dict(told.ends), told.seq) == (40, {"settled": 40}, 40)


class KeepingTracer(NoTracer):
    """Keeps what is told of sagas' ends."""

    def __init__(self) -> None:
        self.ends: dict[int, Concluded] = {}

    def concluded(self, one: Concluded) -> None:
        assert one.trade_id not in self.ends, "told twice"
        self.ends[one.trade_id] = one


@pytest.mark.parametrize("style", STYLES)
async def test_who_begins_sagas_tells_the_tracer_of_each_end(style, place):
    tracer = KeepingTracer()
    plant = Plant(place, style, some_trades(12), rules=Rules(suspended=frozenset({AccountId("r")})), tracer=tracer)
    states = await plant.run()
    assert Counter(one.end.value for one in tracer.ends.values()) == states
    assert all(0 < one.began_at <= one.ended_at for one in tracer.ends.values())


@pytest.mark.parametrize("style", STYLES)
async def test_what_clearing_refuses_is_taken_back_whole(style, place):
    plant = Plant(place, style, some_trades(30), rules=Rules(suspended=frozenset({AccountId("r")})))
    states = await plant.run()
    assert set(states) == {"settled", "cancelled"}
    plant.judge()


@pytest.mark.parametrize("style", STYLES)
async def test_an_account_with_a_bound_of_its_own_never_has_less_and_the_others_settle(style, place):
    bound = -300 * MONEY
    plant = Plant(place, style, some_trades(60), rules=Rules(least_of={AccountId("p"): bound}))
    states = await plant.run()
    assert set(states) == {"settled", "cancelled"}
    plant.judge()
    for name in ("cash", "securities", "fees"):
        with contextlib.closing(SagaBook(Service(name), place(name), Rules())) as book:
            held = book.balances()
            assert min(amount for (account, _), amount in held.items() if account == "p") >= bound
    with contextlib.closing(SagaBook(Service.CASH, place("cash"), Rules())) as book:
        assert min(book.balances().values()) < bound


@pytest.mark.parametrize("each", [pytest.param(1, marks=pytest.mark.long), 4])
@pytest.mark.parametrize("style", STYLES)
async def test_a_part_that_dies_at_any_point_loses_nothing_and_does_nothing_twice(style, each, tmp_path, laid):
    deaths, first = 0, Plant(files(tmp_path, laid), style, [trade(1)])
    await first.run()
    points = len(first.points.met)
    assert points > 20
    for deadly in range(points % each, points, each):
        place = files(tmp_path / str(deadly), laid)
        plant = Plant(place, style, [trade(1)], points=Points(frozenset({deadly})))
        assert await plant.run() == {"settled": 1}, plant.points.met
        plant.judge()
        deaths += plant.deaths
    assert deaths > 5  # the last points may not be met again: how often something is said twice is the clock's to say


@pytest.mark.parametrize("style", STYLES)
async def test_repeats_and_disorder_do_no_harm(style, place):
    plant = Plant(place, style, some_trades(60), storm=0.3)
    assert await plant.run() == {"settled": 60}
    plant.judge()
    assert sum(one.repeats for one in plant.telemetry.values()) > 10


@pytest.mark.parametrize("style", STYLES)
async def test_a_message_that_nobody_understands_is_buried_and_the_rest_goes_on(style, place):
    plant = Plant(place, style, some_trades(10))
    key = "saga.ask.cash" if style is Style.ORCHESTRATED else "saga.said.begin.done"
    bad = [b"{", b'{"version":9}', b'{"version":1}', b'{"version":1,"ask":{"step":"begin"}}', b"\xff\xfe"]
    await plant.publisher().publish(
        [Outgoing(routing_key=key, body=body, message_id=f"bad-{number}") for number, body in enumerate(bad)]
    )
    assert await plant.run() == {"settled": 10}
    queue = "saga.cash" if style is Style.ORCHESTRATED else "saga.cash.events"
    assert [dead.delivery.message_id for dead in plant.broker.dead(queue)] == [f"bad-{n}" for n in range(len(bad))]
    assert "of version 9, this program reads 1" in plant.broker.dead(queue)[1].why


@pytest.mark.parametrize("style", STYLES)
async def test_a_broker_that_goes_away_in_the_middle_is_waited_for(style, place):
    plant = Plant(place, style, some_trades(40))

    async def trouble() -> None:
        for _ in range(3):
            await asyncio.sleep(0.05)
            await plant.broker.go_away()
            await asyncio.sleep(0.1)
            await plant.broker.come_back()

    troubled = asyncio.create_task(trouble())
    assert await plant.run() == {"settled": 40}
    await troubled
    plant.judge()
