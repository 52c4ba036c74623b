"""Order entry over a WebSocket: the same answers as over HTTP, pipelined, bounded, and cancelled when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.adapters import order_socket
from exchange.adapters.disconnect import Promise
from exchange.adapters.order_messages import MAX_MESSAGES, PlaceMessage, read_frame
from exchange.adapters.orders_json import BadOrderError
from exchange.adapters.tokens import KeyFile
from exchange.commands import Halt, PlaceOrder
from exchange.limits import Rates
from exchange.ports import DisconnectCancel, RequestOutcome, SocketEnd
from exchange.types import ClientId, HaltReason
from tests.exchange.held_disk import HeldDisk
from tests.exchange.plant import client_of, engine, eventually
from tests.exchange.test_gateway_access import HS, ORDER, front, plant, token

PLACE = {"op": "place", "id": 1} | ORDER


class Line:
    """A client of one WebSocket."""

    def __init__(self, ws, hello):
        self.ws, self.hello, self.got = ws, hello, []

    async def send(self, *messages):
        await self.ws.send_str(json.dumps(messages[0] if len(messages) == 1 else messages))

    async def answers(self, count):
        async with asyncio.timeout(60):
            while len(self.got) < count:
                frame = await self.ws.receive()
                assert frame.type is aiohttp.WSMsgType.TEXT, frame
                self.got += json.loads(frame.data)
        found, self.got = self.got[:count], self.got[count:]
        return found

    async def ask(self, **message):
        await self.send(message)
        return (await self.answers(1))[0]

    async def close_code(self):
        async with asyncio.timeout(60):
            while (frame := await self.ws.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        return self.ws.close_code, frame


@asynccontextmanager
async def line(http, query="", bearer=None):
    headers = {"Authorization": f"Bearer {bearer or token()}"}
    async with http.session.ws_connect(http.url + "/v1/ws/orders" + query, headers=headers) as ws:
        first = json.loads((await ws.receive()).data)
        yield Line(ws, first[0]["hello"])


async def test_an_order_lives_and_dies_over_a_socket_as_over_http(tmp_path):
    async with plant(tmp_path) as (_, http), line(http) as ws:
        placed = await ws.ask(**PLACE)
        assert (placed["id"], placed["status"], placed["answer"]["resting"]) == (1, 201, 5)
        over_http = await http.place(token())
        assert over_http[1] == placed["answer"], "asked again over HTTP it is the same answer"
        order_id = placed["answer"]["order_id"]
        mine = {"account": "ann", "order_id": order_id}
        changed = await ws.ask(op="replace", id="r", client_id="b", quantity=3, price=1000, **mine)
        assert (changed["id"], changed["status"], changed["answer"]["status"]) == ("r", 201, "replaced")
        canceled = await ws.ask(op="cancel", id=2, client_id="c", **mine)
        assert (canceled["status"], canceled["answer"]["canceled"]) == (201, 3)
        late = await ws.ask(op="cancel", id=3, client_id="d", **mine)
        assert (late["status"], late["answer"]["reason"]) == (422, "too_late")
        found = await ws.ask(op="look_up", id=4, account="ann", client_id="a")
        assert (found["status"], found["answer"], found["replayed"]) == (200, placed["answer"], True)
        assert (await ws.ask(op="look_up", id=5, account="ann", client_id="never"))["status"] == 404
        swept = await ws.ask(op="mass_cancel", id=6, account="ann", client_id="e")
        assert (swept["status"], swept["answer"]["orders"]) == (201, 0)
        assert await ws.ask(op="ping", id="p") == {"id": "p", "status": 200}


async def test_many_requests_go_out_before_the_first_answer_and_each_is_answered_once(tmp_path):
    async with plant(tmp_path) as (running, http), line(http) as ws:
        for start in range(0, 1000, 100):
            await ws.send(
                *(PLACE | {"id": n, "client_id": f"a{n}", "price": 900 + n % 50} for n in range(start, start + 100))
            )
        answers = await ws.answers(1000)
        assert sorted(one["id"] for one in answers) == list(range(1000))
        assert {one["status"] for one in answers} == {201}
        assert running.telemetry.commands == 1000
        assert http.telemetry.outcomes[RequestOutcome.ACCEPTED] == 1000


async def test_a_look_up_in_the_frame_of_an_order_finds_it(tmp_path):
    async with plant(tmp_path) as (_, http), line(http) as ws:
        await ws.send(PLACE, {"op": "look_up", "id": 2, "account": "ann", "client_id": "a"})
        answers = {one["id"]: one for one in await ws.answers(2)}
        assert answers[1]["status"] == 201
        assert answers[2]["status"] in {200, 409}, "found, or being decided; never unknown"


async def test_orders_answered_together_are_told_like_single_ones(tmp_path):
    async with plant(tmp_path) as (_, http), line(http) as ws:
        traced = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        await ws.send(PLACE | {"traceparent": traced}, PLACE | {"id": 2, "client_id": "b", "symbol": "BBB"})
        answers = {one["id"]: one["answer"] for one in await ws.answers(2)}
        told = {order.client_id: order for order in http.telemetry.orders}
        assert {name: (one.account, one.symbol, one.seq) for name, one in told.items()} == {
            "a": ("ann", "AAA", answers[1]["seq"]), "b": ("ann", "BBB", answers[2]["seq"]),
        }  # fmt: skip
        assert (told["a"].trace, told["b"].trace) == (traced, "")


async def test_the_orders_of_a_frame_that_pass_no_budget_are_turned_away_and_the_others_are_carried_out(tmp_path):
    async with plant(tmp_path, rates=Rates(account_per_s=2)) as (running, http), line(http) as ws:
        await ws.send(*(PLACE | {"id": number, "client_id": f"c{number}"} for number in range(5)))
        answers = await ws.answers(5)
        assert sorted(one["status"] for one in answers) == [201, 201, 429, 429, 429]
        assert running.telemetry.commands == 2
        assert (await ws.ask(op="ping", id="p"))["status"] == 200


NAMES = st.text(st.characters(codec="utf-8"), max_size=70) | st.sampled_from(["a", "b c", "a\n", "\x7f", "n" * 65])


@given(st.lists(st.tuples(NAMES, NAMES, NAMES), min_size=1, max_size=4))
def test_names_are_looked_at_as_strictly_together_as_one_by_one(names):
    orders = [PLACE | {"account": one, "client_id": two, "symbol": three} for one, two, three in names]
    together = read_frame(json.dumps(orders))
    strict = msgspec.json.Decoder(PlaceMessage)
    for asked, order in zip(together, orders, strict=True):
        try:
            strict.decode(json.dumps(order))
        except msgspec.ValidationError:
            assert isinstance(asked.what, BadOrderError)
        else:
            assert (asked.what.account, asked.what.client_id) == (order["account"], order["client_id"])


async def test_the_same_client_id_is_carried_out_once_and_another_body_is_refused(tmp_path):
    async with plant(tmp_path) as (running, http), line(http) as ws:
        first = await ws.ask(**PLACE)
        again = await ws.ask(**PLACE | {"id": 2})
        assert (again["answer"], again["replayed"]) == (first["answer"], True)
        other = await ws.ask(**PLACE | {"id": 3, "quantity": 6})
        assert (other["status"], other["problem"]["status"]) == (422, "mismatch")
        assert running.telemetry.commands == 1


async def test_a_message_that_does_not_fit_is_named_and_the_others_of_its_frame_are_carried_out(tmp_path):
    async with plant(tmp_path) as (running, http), line(http) as ws:
        await ws.send(
            PLACE, PLACE | {"id": 2, "client_id": "b", "quantity": "5"}, {"op": "nonsense", "id": 3}, {"id": 4},
            PLACE | {"id": 5, "client_id": "e", "extra": 1}, 7, PLACE | {"id": 6, "client_id": "f", "price": None},
            PLACE | {"id": {"deep": 1}, "client_id": "g"}, PLACE | {"id": 8, "client_id": "h"},
        )  # fmt: skip
        answers = await ws.answers(9)
        assert sorted(one["id"] for one in answers if one["status"] == 201) == [1, 8]
        refused = {one["id"]: one["problem"]["error"] for one in answers if one["status"] == 400}
        assert set(refused) == {2, 3, 4, 5, 6, None}
        assert "at `quantity`; right: whole lots, from 1 to" in refused[2]
        assert refused[3].endswith("right: place, replace, cancel, mass_cancel, look_up or ping")
        assert "extra" in refused[5]
        assert running.telemetry.commands == 2


@pytest.mark.parametrize(
    "frame",
    [b"", b" ", b"{", b"[", b"nonsense", b"[" * 50_000, b'{"x":' * 10_000, b'[{"id":' + b"[" * 30_000, b"\xff\xfe",
     b"5", b"null", b"{}", b'[{"op":"place"}]', b'{"op":"ping","id":-1}', b'{"op":"ping","id":' + b"9" * 400 + b"}"],
)  # fmt: skip
def test_what_is_no_request_is_answered_once_and_does_no_more(frame):
    asked = read_frame(frame)
    assert len(asked) == 1
    assert isinstance(asked[0].what, BadOrderError)
    assert len(str(asked[0].what)) < 1000


def test_a_frame_of_too_many_requests_is_refused_whole():
    for op in ("ping", "pong"):
        asked = read_frame(json.dumps([{"op": op, "id": n} for n in range(MAX_MESSAGES + 1)]))
        assert [(one.id, isinstance(one.what, BadOrderError)) for one in asked] == [(None, True)]
    assert read_frame("[]") == []


@given(st.one_of(st.binary(max_size=200), st.text(max_size=100)))
def test_no_frame_raises(frame):
    for asked in read_frame(frame, "s", own_session=True):
        assert asked.what is not None


async def test_who_may_not_come_in_is_told_so_over_http(tmp_path):
    async with front(tmp_path) as http:
        for query, bearer, status in [
            ("", "nonsense", 401), ("?cancel_on_disconnect=true", token(), 400), ("?extra=1", token(), 400),
            ("?session=" + "x" * 65, token(), 400), ("?cancel_on_disconnect=maybe&session=s", token(), 400),
            ("", token(scope=""), 403),
        ]:  # fmt: skip
            headers = {"Authorization": f"Bearer {bearer}", "X-Request-ID": "mine"}
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await http.session.ws_connect(http.url + "/v1/ws/orders" + query, headers=headers)
            assert (caught.value.status, caught.value.headers["X-Request-ID"]) == (status, "mine")
        assert http.telemetry.open_sockets == 0


async def test_a_refused_token_is_told_as_over_plain_http(tmp_path):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
    async with front(tmp_path) as http:
        told = []
        for path, more in (("/v1/ws/orders", upgrade), ("/v1/orders", {})):
            headers = {"Authorization": "Bearer nonsense", **more}
            async with http.session.get(http.url + path, headers=headers) as answer:
                assert answer.status == 401
                told.append(await answer.json())
        assert told[0] == told[1]
        assert told[0]["reason"] == "malformed"


async def test_accounts_and_budgets_hold_for_every_message(tmp_path):
    async with plant(tmp_path, rates=Rates(account_per_s=2.0)) as (running, http), line(http) as ws:
        assert (await ws.ask(**PLACE | {"account": "bob"}))["status"] == 403
        await ws.send(*(PLACE | {"id": n, "client_id": f"a{n}"} for n in range(5)))
        answers = await ws.answers(5)
        assert sorted(one["status"] for one in answers) == [201, 201, 429, 429, 429]
        assert all(one["retry_after"] >= 1 for one in answers if one["status"] == 429)
        assert running.telemetry.commands == 2


async def test_without_an_engine_every_request_is_answered_at_once(tmp_path):
    async with front(tmp_path) as http, line(http) as ws:
        answer = await ws.ask(**PLACE)
        assert (answer["status"], answer["problem"]["status"], answer["retry_after"]) == (503, "unavailable", 1)
        assert (await ws.ask(op="look_up", id=2, account="ann", client_id="a"))["status"] == 503


async def test_what_the_engine_does_not_answer_is_unknown_in_time(tmp_path):
    disk = HeldDisk()
    async with plant(tmp_path, disk, engine_timeout_s=0.2) as (_, http), line(http) as ws:
        disk.hold()
        answer = await ws.ask(**PLACE)
        assert (answer["status"], answer["problem"]["status"]) == (504, "unknown")
        disk.let_go()


def opening(query=""):
    return (
        f"GET /v1/ws/orders{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Authorization: Bearer {token()}\r\n\r\n"
    ).encode()


def as_frame(payload):
    """A text frame of a client; a mask of noughts is a mask."""
    length = len(payload)
    head = bytes([0x81, 0x80 | length]) if length < 126 else b"\x81\xfe" + length.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


async def test_a_client_that_does_not_read_is_cut_off_and_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(order_socket, "MAX_UNREAD", 100)
    async with front(tmp_path) as http:
        loop = asyncio.get_running_loop()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, ("127.0.0.1", int(http.url.rsplit(":", 1)[1])))
            await loop.sock_sendall(deaf, opening())
            bad = as_frame(json.dumps([{"op": "nonsense" * 20, "id": n} for n in range(250)]).encode())
            async with asyncio.timeout(60):
                while not http.telemetry.ends:
                    with contextlib.suppress(TimeoutError, ConnectionError):
                        async with asyncio.timeout(0.2):
                            await loop.sock_sendall(deaf, bad)
            assert http.telemetry.ends == {SocketEnd.TOO_SLOW: 1}
            await eventually(lambda: http.telemetry.open_sockets == 0)
            await eventually(lambda: http.connections() == 0)
        assert "order-socket-ended" in http.log.names()


async def test_requests_beyond_the_bound_wait_in_the_clients_own_buffers(tmp_path, monkeypatch):
    monkeypatch.setattr(order_socket, "MAX_OPEN", 50)
    disk = HeldDisk()
    async with plant(tmp_path, disk, engine_timeout_s=60.0) as (_, http), line(http) as ws:
        disk.hold()
        for start in range(0, 400, 20):
            await ws.send(*(PLACE | {"id": n, "client_id": f"a{n}"} for n in range(start, start + 20)))
        await eventually(lambda: http.app._engine.in_flight >= 50)
        await asyncio.sleep(0.1)
        assert http.app._engine.in_flight <= 70, "one frame more than the bound, no more"
        disk.let_go()
        assert {one["status"] for one in await ws.answers(400)} == {201}


async def test_the_connection_ends_with_its_token(tmp_path):
    async with front(tmp_path) as http:
        async with line(http, bearer=token(exp=time.time() - 2.0)) as ws:
            assert (await ws.close_code())[0] == 4401
        async with line(http) as ws:
            http.keys.write_bytes(msgspec.json.encode(KeyFile((HS,))))
            http.app._door._signed._looked_at -= 2
            assert (await ws.close_code())[0] == 4401
        assert http.telemetry.ends == {SocketEnd.TOKEN_ENDED: 2}


# --- cancel on disconnect --------------------------------------------------------------------------------------------

COD = "?session=s-1&cancel_on_disconnect=true"


def resting(running):
    return running.server._sequencer.engine.resting_orders


async def test_when_the_connection_ends_its_orders_leave_the_book_and_no_others_do(tmp_path):
    async with plant(tmp_path, sessions=tmp_path / "sessions") as (running, http):
        await http.place(token(), client_id="over-http")
        both = token(accounts=("ann", "bob"))
        async with line(http, COD, both) as ws:
            assert (ws.hello["session"], ws.hello["cancel_on_disconnect"]) == ("s-1", True)
            await ws.send(
                *(
                    PLACE | {"id": n, "client_id": f"a{n}", "account": who}
                    for n, who in enumerate(["ann", "bob", "ann"])
                )
            )
            await ws.answers(3)
            assert resting(running) == 4
            assert len(list((tmp_path / "sessions" / "gateway-1").iterdir())) == 2
        await eventually(lambda: resting(running) == 1)
        await eventually(lambda: http.telemetry.cancels == {DisconnectCancel.DONE: 2})
        told = [fields for name, _, fields in http.log.events if name == "canceled-on-disconnect"]
        assert sorted((one["account"], one["session"], one["orders"]) for one in told) == [
            ("ann", "s-1", 2),
            ("bob", "s-1", 1),
        ]
        await eventually(lambda: list((tmp_path / "sessions" / "gateway-1").iterdir()) == [])


async def test_without_the_wish_orders_stay_when_the_connection_ends(tmp_path):
    async with plant(tmp_path) as (running, http):
        async with line(http, "?session=s-1") as ws:
            await ws.ask(**PLACE)
        await eventually(lambda: http.telemetry.open_sockets == 0)
        assert resting(running) == 1
        assert not http.telemetry.cancels


async def test_an_order_of_another_session_is_refused_where_the_session_is_to_be_cancelled(tmp_path):
    async with plant(tmp_path) as (running, http), line(http, COD) as ws:
        assert (await ws.ask(**PLACE | {"session": "s-2"}))["status"] == 400
        assert (await ws.ask(**PLACE | {"session": "s-1"}))["status"] == 201
        assert resting(running) == 1


async def test_the_cancel_is_sent_again_under_one_key_until_the_engine_has_it(tmp_path):
    (tmp_path / "gateway").mkdir()
    async with engine(tmp_path) as running, client_of(running.port) as client:
        port = running.port
        async with front(tmp_path / "gateway", client, sessions=tmp_path / "sessions") as http:
            async with line(http, COD) as ws:
                await ws.ask(**PLACE)
                await running.stop()
                running.server._server.close()
                await eventually(lambda: not client.connected)
            await eventually(lambda: http.telemetry.cancels[DisconnectCancel.RETRIED] >= 2)
            async with engine(tmp_path, port=port) as anew:
                await eventually(lambda: http.telemetry.cancels[DisconnectCancel.DONE] == 1)
                assert resting(anew) == 0
            assert "disconnect-cancel-waits" in http.log.names()


async def test_cancels_pass_a_halt(tmp_path):
    async with plant(tmp_path) as (running, http):
        async with line(http, COD) as ws:
            await ws.ask(**PLACE)
            await running.server.command(Halt(ClientId("stop"), None, HaltReason.OPERATOR))
        await eventually(lambda: resting(running) == 0)


async def test_what_a_killed_gateway_promised_is_kept_by_its_next_life(tmp_path):
    promise = Promise(ClientId("disconnect-x"), "ann", "s-1", "r")
    kept = tmp_path / "sessions" / "gateway-1"
    kept.mkdir(parents=True)
    (kept / "disconnect-x.json").write_bytes(msgspec.json.encode(promise))
    (kept / "torn.json").write_bytes(b"{")
    async with engine(tmp_path) as running, client_of(running.port) as client:
        asked = read_frame(json.dumps(PLACE), "s-1")[0].what
        assert isinstance(asked, PlaceOrder)
        await client.submit(asked, 60)
        assert resting(running) == 1
        async with front(tmp_path, client, sessions=tmp_path / "sessions") as http:
            await eventually(lambda: resting(running) == 0)
            await eventually(lambda: [path.name for path in kept.iterdir()] == ["torn.json"])
            assert "promise-unreadable" in http.log.names()


async def test_who_opens_the_session_anew_takes_it_over_after_its_orders_are_cancelled(tmp_path):
    async with plant(tmp_path) as (running, http), line(http, COD) as first:
        await first.ask(**PLACE)
        async with line(http, COD) as second:
            assert resting(running) == 0, "the new connection is let in when the old one's orders are gone"
            await second.ask(**PLACE | {"client_id": "b"})
            assert (await first.close_code())[0] == 4409
            await asyncio.sleep(0.1)
            assert resting(running) == 1
            async with line(http, COD, token(sub="desk-2")) as other:
                assert (await other.ask(op="ping", id=1))["status"] == 200
                assert resting(running) == 1, "another bearer's session of that name is another session"
    assert http.telemetry.ends[SocketEnd.TAKEN_OVER] == 1


async def test_a_heartbeat_that_is_missed_ends_the_session_and_its_orders(tmp_path):
    """A client whose machine is gone says nothing: its connection stays open until somebody asks."""
    async with plant(tmp_path, ping_s=0.2) as (running, http):
        session = aiohttp.ClientSession()
        ws = await session.ws_connect(
            http.url + "/v1/ws/orders" + COD, headers={"Authorization": f"Bearer {token()}"}, autoping=False
        )
        await ws.send_str(json.dumps(PLACE))
        await eventually(lambda: running.telemetry.commands)
        await eventually(lambda: running.telemetry.commands > 1 and resting(running) == 0)
        assert http.telemetry.ends == {SocketEnd.HEARTBEAT_MISSED: 1}
        await session.close()


async def test_a_client_that_answers_pings_may_be_silent(tmp_path):
    async with plant(tmp_path, ping_s=1.0) as (running, http), line(http, COD) as ws:
        await ws.ask(**PLACE)
        reading = asyncio.create_task(ws.ws.receive())
        await asyncio.sleep(2.2)
        assert (resting(running), http.telemetry.open_sockets) == (1, 1)
        reading.cancel()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),
        (b"\x81\xff" + (70_000).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        (b"\x81\x02{}", 1002),
        (b"\x8f\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
        (b"\x88\x82\0\0\0\0\x03\xe8", 1000),
    ],
    ids=["no UTF-8", "too long", "no mask", "no such frame", "the rest of nothing", "a close"],
)
async def test_frames_that_are_none_end_the_connection_with_its_code_and_the_session_with_it(tmp_path, words, code):
    async with plant(tmp_path) as (running, http):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(http.url.rsplit(":", 1)[1]))
        writer.write(opening(COD))
        async with asyncio.timeout(60):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(as_frame(json.dumps(PLACE).encode()))
        await eventually(lambda: resting(running) == 1)
        writer.write(words)
        async with asyncio.timeout(60):
            told = await reader.read()
        assert b"\x88" in told
        assert code.to_bytes(2, "big") in told[told.rindex(b"\x88") :]
        await eventually(lambda: resting(running) == 0)
        await eventually(lambda: http.telemetry.open_sockets == 0 and http.connections() == 0)
        writer.close()


async def test_a_gateway_that_stops_ends_its_sessions_and_cancels_what_it_promised(tmp_path):
    async with plant(tmp_path) as (running, http), line(http, COD) as ws:
        await ws.ask(**PLACE)
        await http.app.stop()
        assert resting(running) == 0
        assert (await ws.close_code())[0] == 1012
        status, _, _ = await http.call("GET", "/health/ready", token())
        assert status == 503
