"""A gateway that is killed keeps its promise to cancel when it is started anew: real processes, kill -9."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.control.test_roles import Estate, ready


@pytest.fixture
def estate(tmp_path):
    made = Estate(tmp_path)
    for replica in ("engine", "gateway-1"):
        made.start(replica)
    yield made
    made.stop()


async def resting(session, estate):
    async with session.get(estate.url("engine", "/metrics")) as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("exchange_resting_orders "))


async def test_orders_of_a_session_are_cancelled_by_the_next_life_of_a_killed_gateway(estate):
    order = {"op": "place", "account": "ann", "symbol": "AAA", "side": "buy", "quantity": 1, "price": 10_000}
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer trade-secret"}) as session:
        await ready(session, estate.url("gateway-1", "/health/ready"))
        url = estate.url("gateway-1", "/v1/ws/orders?session=s-1&cancel_on_disconnect=true")
        async with session.ws_connect(url) as ws:
            await ws.receive()
            await ws.send_str(json.dumps([order | {"id": n, "client_id": f"a{n}"} for n in range(3)]))
            answers = []
            while len(answers) < 3:
                answers += json.loads((await ws.receive()).data)
            assert [one["status"] for one in answers] == [201] * 3
            estate.kill("gateway-1")
        assert await resting(session, estate) == 3, "while no gateway is there they rest"
        estate.start("gateway-1")
        async with asyncio.timeout(60):
            while await resting(session, estate) > 0:  # noqa: ASYNC110 - asks
                await asyncio.sleep(0.1)
            while list(estate.layout.sessions.glob("gateway-1/*.json")):  # noqa: ASYNC110 - asks
                await asyncio.sleep(0.1)
