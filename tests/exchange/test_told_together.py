"""What traces are told of orders that were answered together: in which order, and which of them have a trace."""

from __future__ import annotations

import random

import pytest

from exchange.tracing import NoTracer
from tests.exchange.test_gateway_access import ORDER, plant
from tests.exchange.test_order_socket import line

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Kept(NoTracer):
    """Keeps what is told of orders answered together."""

    def __init__(self):
        self.told = []

    def rested(self, one):
        self.told.append(one)


class Talk:
    """Frames of orders, now and then with a trace or one that trades, and of what is no order between them."""

    def __init__(self, seed, strange):
        self.draw, self.strange, self.number = random.Random(seed), strange, 0

    def request(self):
        self.number += 1
        name, pick = {"id": self.number, "client_id": f"a{self.number}"}, self.draw.random()
        if pick < self.strange / 3:
            return {"op": "ping", "id": self.number}
        if pick < self.strange * 2 / 3:
            return {"op": "look_up", "id": self.number, "account": "ann", "client_id": "a1"}
        if pick < self.strange:
            return {"op": "place", "id": self.number, "account": "ann"}
        sells = {"side": "sell", "price": 1_000} if pick > 0.9 else {}  # it trades with what rests
        return {"op": "place"} | ORDER | name | sells | ({"traceparent": TRACE} if 0.6 < pick < 0.7 else {})

    def frame(self):
        return [self.request() for _ in range(self.draw.choice((1, 1, 2, 7, 30)))]


async def told_of(root, seed, strange):
    tracer, talk = Kept(), Talk(seed, strange)
    async with plant(root, tracer=tracer) as (_, http), line(http) as ws:
        for _ in range(12):
            frames = [talk.frame() for _ in range(talk.draw.choice((1, 3)))]
            for frame in frames:
                await ws.send(*frame)
            await ws.answers(sum(map(len, frames)))
    return tracer.told


@pytest.mark.parametrize(("seed", "strange"), [(1, 0.0), (2, 0.02), (3, 0.1), (4, 0.5)])
async def test_orders_answered_together_are_told_in_the_journals_order_and_with_their_traces(tmp_path, seed, strange):
    told = await told_of(tmp_path, seed, strange)
    for one in told:
        seqs = [order[1] for order in one.orders]
        assert seqs == sorted(set(seqs)), "they stand in the journal's order"
        assert one.traced or not any(order[2] for order in one.orders)
    assert {order[2] for one in told for order in one.orders} == {"", TRACE}
