"""What ended long ago is forgotten, and whatever still comes of it has no second effect."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from exchange.adapters.memory_broker import MemoryBroker
from exchange.adapters.saga_journal import SagaJournal
from exchange.adapters.saga_store import SagaBook
from exchange.adapters.saga_tables import BOOKS, HORIZON, JOURNAL, PROGRESS, SAGAS, SAID
from exchange.messaging import Outgoing, Publisher
from exchange.saga import Rules, Service
from exchange.saga_messages import Style
from exchange.types import AccountId
from kernel.time import SECOND, Duration
from tests.exchange.saga_plant import PARTS, Plant, some_trades
from tests.exchange.saga_rows import rows

STYLES = list(Style)
AT_ONCE = Duration(1)
REFUSING = Rules(suspended=frozenset({AccountId("r")}))
"""Some sagas are taken back: what comes late must not take anything back twice either."""


class Witness:
    """Keeps everything that is said."""

    def __init__(self, publisher: Publisher, said: list[Outgoing]) -> None:
        self._publisher, self._said = publisher, said

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        await self._publisher.publish(messages)
        self._said += messages


class WitnessedPlant(Plant):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.letters: list[Outgoing] = []

    def publisher(self) -> Publisher:
        return Witness(super().publisher(), self.letters)

    async def run_until(self, done: Callable[[], bool], within_s: float = 20.0) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self.keep_running(name)) for name in PARTS]
            async with asyncio.timeout(within_s):
                while not done():  # noqa: ASYNC110 - many things change it
                    await asyncio.sleep(0.02)
            for task in running:
                task.cancel()

    def is_idle(self) -> bool:
        return set(self.parts) == set(PARTS) and not any(self.broker.depth(name) for name in self.queues())

    def is_forgotten(self) -> bool:
        states = self.states()  # first: the parts write in threads of their own
        ended = "open" not in states and sum(states.values()) == len(self.trades)
        return ended and self.is_idle() and not any(self.kept().values())

    def kept(self) -> dict[str, int]:
        """How many rows each table has that grows with the trades."""
        found = {"sagas": len(rows(self.place("coordinator"), SAGAS))}
        # The entry with the highest number stays: by it a journal that went back is noticed.
        found["journal"] = max(0, len(rows(self.place("coordinator"), JOURNAL)) - 1)
        found["reader"] = len(rows(self.place("coordinator"), SAID.ends))
        for service in Service:
            tables = BOOKS[service]
            for table in (tables.remembered, tables.moves, tables.sayings, tables.ends):
                found[table.name] = len(rows(self.place(service.value), table))
        return found

    def balances(self) -> dict[str, Any]:
        told = {}
        for service in Service:
            with contextlib.closing(SagaBook(service, self.place(service.value), self.rules)) as book:
                assert book.drift() == 0
                told[service.value] = book.balances()
        return told


def forget_how_far(path: Path) -> None:
    with contextlib.closing(SagaJournal(path)) as journal:
        journal._database.run("be written", lambda one: one.execute(PROGRESS.delete()))


@pytest.mark.parametrize("style", STYLES)
async def test_all_that_was_said_and_all_that_was_read_comes_again_after_forgetting_and_has_no_effect(style, place):
    first = WitnessedPlant(place, style, some_trades(60), rules=REFUSING)
    ended = await first.run()
    assert set(ended) == {"settled", "cancelled"}
    first.judge()
    assert len(first.letters) > 400
    plant = WitnessedPlant(place, style, some_trades(60), rules=REFUSING, keep=AT_ONCE)
    before = plant.balances()
    # A part tells of what went when its thread is done: rows may be gone before that.
    await plant.run_until(lambda: plant.is_forgotten() and all(one.forgotten >= 60 for one in plant.telemetry.values()))
    assert (plant.balances(), plant.states()) == (before, ended)
    assert {name: one.forgotten for name, one in plant.telemetry.items()} == dict.fromkeys(PARTS, 60)

    forget_how_far(place("coordinator"))
    again = WitnessedPlant(place, style, some_trades(60), rules=REFUSING, keep=AT_ONCE, broker=MemoryBroker())
    await again.broker.publisher().publish(first.letters * 2)
    await again.run_until(lambda: again.is_idle() and again.telemetry["coordinator"].seq == 60)
    assert (again.balances(), again.states(), again.telemetry["coordinator"].begun_sagas) == (before, ended, 0)
    assert not [again.broker.dead(name) for name in again.queues() if again.broker.dead(name)]
    assert sum(one.verdicts.total() for one in again.telemetry.values()) == 0
    assert {name: count for name, count in again.kept().items() if count} == {}


@pytest.mark.parametrize("style", STYLES)
async def test_who_begins_sagas_and_lost_everything_has_no_step_done_again(style, place, laid):
    plant = WitnessedPlant(place, style, some_trades(30), keep=AT_ONCE)
    await plant.run_until(plant.is_forgotten)
    before = plant.balances()
    shutil.copy(laid, place("coordinator"))
    again = WitnessedPlant(place, style, some_trades(30), keep=Duration(3600 * SECOND), broker=MemoryBroker())
    refused = 30 if style is Style.ORCHESTRATED else 0  # a coordinator is told so, a reader asks nobody

    def is_told():
        return len(again.letters) >= 30 and again.log.names().count("forgotten-saga-asked") >= refused

    await again.run_until(lambda: is_told() and again.is_idle())
    assert again.telemetry["coordinator"].begun_sagas == 30
    assert again.balances() == before
    assert sum(one.verdicts.total() for one in again.telemetry.values()) == 0
    assert again.states() == {"open": 30}
    assert again.log.names().count("forgotten-saga-asked") >= refused


async def test_what_ended_a_moment_ago_is_kept(place):
    plant = WitnessedPlant(place, Style.ORCHESTRATED, some_trades(5), keep=Duration(3600 * SECOND))
    await plant.run()
    assert rows(place("coordinator"), HORIZON) == []
    assert (plant.kept()["sagas"], plant.telemetry["cash"].forgotten) == (5, 0)
