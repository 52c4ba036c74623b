"""A gateway's process before two engines' processes: each takes its symbols, and the death of one is its own affair."""

import aiohttp
import pytest

from control.config import EngineAddress
from exchange.shards import instruments_of, partition_of, whole_id
from tests.control.test_roles import INSTRUMENTS, Estate, ready

TRADE = {"Authorization": "Bearer trade-secret"}
SYMBOLS = {partition_of(one.symbol, 2): one.symbol for one in INSTRUMENTS}


@pytest.fixture
def estates(tmp_path):
    made = [Estate(tmp_path / str(partition)) for partition in range(2)]
    yield made
    for estate in made:
        for replica in list(estate.processes):
            estate.kill(replica)


async def place(session, url, symbol, client_id):
    body = {"account": "ann", "client_id": client_id, "symbol": symbol, "side": "buy", "quantity": 5, "price": 10_000}
    async with session.post(url, json=body, headers=TRADE) as answer:
        return answer.status, await answer.json()


async def test_orders_reach_the_engine_of_their_symbol_and_the_others_go_on_without_one(estates):
    assert sorted(SYMBOLS) == [0, 1]
    for partition, estate in enumerate(estates):
        estate.start("engine", instruments=instruments_of(INSTRUMENTS, partition, 2))
    engines = tuple(EngineAddress(estate.ports["stream"]) for estate in estates)
    estates[0].start("gateway-1", engines=engines)
    url = estates[0].url("gateway-1", "/v1/orders")
    async with aiohttp.ClientSession() as session:
        for estate in estates:
            await ready(session, estate.url("engine", "/health/ready"))
        await ready(session, estates[0].url("gateway-1", "/health/ready"))
        for partition, symbol in SYMBOLS.items():
            for _ in range(100):  # ready is a gateway with one engine; the other one is found a moment later
                status, body = await place(session, url, symbol, f"o{partition}")
                if status != 503:
                    break
            assert (status, body["order_id"]) == (201, whole_id(partition, 1))
        estates[1].kill("engine")
        for _ in range(100):
            status, _ = await place(session, url, SYMBOLS[1], "lost")
            if status == 503:
                break
        assert status == 503
        status, body = await place(session, url, SYMBOLS[0], "goes-on")
        assert (status, body["order_id"]) == (201, 2)
        await ready(session, estates[0].url("gateway-1", "/health/ready"))
