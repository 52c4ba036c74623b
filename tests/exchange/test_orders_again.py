"""Orders that rest are read once more from the frames they came in: as they were, whatever else stood in the frames."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest

from exchange.adapters.order_socket import SocketWish, _OrderSocket
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
async def test_what_is_read_again_is_what_was_answered(tmp_path, seed, strange):
    told = await told_of(tmp_path, seed, strange)
    again = [one for one in told if one.again is not None]
    assert again, "frames of nothing but orders are among them"
    for one in again:
        assert list(one.again()) == list(one.orders)
    for one in told:
        seqs = [order[1] for order in one.orders]
        assert seqs == sorted(set(seqs)), "they stand in the journal's order"
        assert one.traced or not any(order[2] for order in one.orders)
    assert {order[2] for one in told for order in one.orders} == {"", TRACE}


async def test_orders_that_were_turned_away_are_none_of_those_that_are_read_again(tmp_path):
    tracer = Kept()
    async with plant(tmp_path, tracer=tracer) as (_, http), line(http) as ws:
        for number in range(5):
            names = [
                {"id": n, "client_id": f"{number}-{n}", "account": "bob" if n == number else "ann"} for n in range(5)
            ]
            await ws.send(*({"op": "place"} | ORDER | name for name in names))
            assert sorted(one["status"] for one in await ws.answers(5)) == [201, 201, 201, 201, 403]
    assert sum(len(one.orders) for one in tracer.told) == 20
    for one in tracer.told:
        assert {order[0].account for order in one.orders} == {"ann"}
        assert one.again is None or list(one.again()) == list(one.orders)


async def test_frames_that_were_sent_in_part_are_not_taken_for_what_was_sent_later():
    """Within one turn of the loop: a look-up sends what stood before it, and what stands behind it goes on its own."""
    sent, messages = [], []
    engine = SimpleNamespace(
        in_flight=0, send_look_up=lambda *_: 0,
        send_many=lambda commands, _traces, told: sent.append((commands, told.args[0].frames)) or 0,
    )  # fmt: skip
    desk = SimpleNamespace(
        traces=True,
        engine=engine,
        timeout_s=1.0,
        all_let_in=lambda *_: True,
        look_up_turned_away=lambda *_: (None, None),
    )
    one = _OrderSocket(desk, None, None, SocketWish(), "r", None)

    def place(name):
        return {"op": "place", "id": 1} | ORDER | {"client_id": name}

    async def receive():
        return messages.pop(0)

    look = {"op": "look_up", "id": 2, "account": "ann", "client_id": "a"}
    frames = [place("a"), look, place("b")], [place("c"), {"op": "ping", "id": 3}], [place("d")]
    messages += [{"type": "websocket.receive", "text": json.dumps(frame)} for frame in frames]
    messages.append({"type": "websocket.disconnect"})
    await one._read(receive)
    one._submit()
    assert [[command.client_id for command in commands] for commands, _ in sent] == [["a"], ["b", "c", "d"]]
    assert [frames for _, frames in sent] == [None, None]


async def test_a_few_orders_do_not_keep_a_large_frame(tmp_path):
    tracer = Kept()
    async with plant(tmp_path, tracer=tracer) as (_, http), line(http) as ws:
        await ws.ws.send_str('{"op":"place","id":1,"account":"ann","client_id":"a","symbol":"AAA","side":"buy",'
                             '"quantity":5,"price":1000}' + " " * 1_000)  # fmt: skip
        await ws.answers(1)
    (one,) = tracer.told
    assert (len(one.orders), one.again) == (1, None)
