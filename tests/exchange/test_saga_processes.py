"""Settlement by sagas as real processes over a real RabbitMQ: each is killed in the middle, the broker too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from control.saga_bed import SagaBed, TradeStream
from control.servers.catalogue import SAGA_PARTS
from control.servers.rabbit import Rabbit
from exchange.adapters.saga_store import SagaBook
from exchange.adapters.saga_tables import SAGAS
from exchange.ledger import Balances, postings
from exchange.saga import Rules, Service
from exchange.saga_messages import Style
from tests.exchange.plant import INSTRUMENTS
from tests.exchange.saga_plant import MONEY, happened_of, some_trades
from tests.exchange.saga_rows import rows

pytestmark = pytest.mark.rabbit
TRADES = 120
WITHIN_S = 180.0


def states(root: Path) -> dict[str, int]:
    told: dict[str, int] = {}
    for row in rows(root / "settlement" / "saga-coordinator.sqlite", SAGAS):
        told[row["state"]] = told.get(row["state"], 0) + 1
    return told


async def until(holds: Callable[[], Any], what: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(WITHIN_S):
            while not holds():  # noqa: ASYNC110 - what is waited for is in other processes
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what()) from None


def judge(root: Path, trades: Any) -> None:
    """The bank test: the books together are those of the one ledger, and each sums to zero."""
    expected, found = Balances(), dict[Any, int]()
    for one in trades:
        expected.post(postings(one, MONEY))
    for service in Service:
        book = SagaBook(service, root / "settlement" / f"saga-{service}.sqlite", Rules())
        assert book.drift() == 0
        for key, amount in book.balances().items():
            found[key] = found.get(key, 0) + amount
        book.close()
    assert {key: amount for key, amount in found.items() if amount} == expected.amounts()


@pytest.mark.parametrize("style", [Style.ORCHESTRATED, pytest.param(Style.CHOREOGRAPHED, marks=pytest.mark.long)])
async def test_every_process_is_killed_in_the_middle_and_all_is_settled_once(style, own_rabbit, tmp_path):
    broker: Rabbit = own_rabbit()
    trades, stream = some_trades(TRADES), TradeStream()
    happened = happened_of(trades)
    with SagaBed(tmp_path, style, INSTRUMENTS, rabbit=broker.url(), password=broker.password) as bed:
        await stream.start(bed.stream_port)
        bed.start()
        await asyncio.to_thread(bed.wait_ready)
        part = TRADES // (len(SAGA_PARTS) + 1)
        for number, name in enumerate(SAGA_PARTS):
            stream.add(happened[number * part : (number + 1) * part])
            await until(lambda met=(number + 1) * part: sum(states(tmp_path).values()) > met - part, bed.told)
            bed.kill(name)
            bed.start(name)
        stream.add(happened[len(SAGA_PARTS) * part :])
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)
        await until(lambda: states(tmp_path) == {"settled": TRADES}, bed.told)
        await stream.stop()
    judge(tmp_path, trades)
