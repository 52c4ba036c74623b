"""Requests that mean harm: slow ones, huge ones, deep ones, and those that want into the log. Each has its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import time
from contextlib import asynccontextmanager

import pytest

from exchange.adapters import http, patience
from exchange.adapters.tokens import make_key
from exchange.ports import RequestOutcome
from kernel.time import Instant
from monitor.logs import EcsFormat
from tests.exchange.held_disk import HeldDisk
from tests.exchange.plant import eventually
from tests.exchange.test_gateway_access import ED, HS, ORDER, front, plant, token


@asynccontextmanager
async def wire(front_end):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(front_end.url.rsplit(":", 1)[1]), limit=2**20)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def head(length, path="/v1/orders", **more):
    lines = {"Host": "a", "Authorization": f"Bearer {token()}", "Content-Length": length} | more
    return f"POST {path} HTTP/1.1\r\n".encode() + "".join(f"{n}: {v}\r\n" for n, v in lines.items()).encode() + b"\r\n"


async def answer_of(reader, within_s=60):
    async with asyncio.timeout(within_s):
        data = await reader.readuntil(b"\r\n\r\n")
    return int(data.split()[1]), data.lower()


@pytest.fixture
def hurried(monkeypatch):
    """The same patience, a twentieth as long."""
    monkeypatch.setattr(patience, "REQUEST_S", 0.5)
    monkeypatch.setattr(http, "LOOK_S", 0.05)
    monkeypatch.setattr(patience, "CLOSE_S", 0.1)


@pytest.mark.parametrize("path", ["/v1/orders", "/health/live", "/v1/ws/orders"])
async def test_headers_that_trickle_in_are_cut_off_with_408(tmp_path, hurried, path):
    async with front(tmp_path) as http_, wire(http_) as (reader, writer):
        writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\n".encode())
        dripping = asyncio.create_task(drip(writer, b"X-Slow: 1\r\n"))
        status, _ = await answer_of(reader)
        assert status == 408
        await eventually(lambda: http_.connections() == 0)
        dripping.cancel()


async def drip(writer, piece):
    while True:
        writer.write(piece)
        await asyncio.sleep(0.05)


async def test_a_body_that_trickles_in_is_cut_off_and_places_no_order(tmp_path, hurried):
    async with plant(tmp_path) as (running, http_), wire(http_) as (reader, writer):
        whole = json.dumps(ORDER).encode()
        writer.write(head(len(whole) + 5000) + whole)
        dripping = asyncio.create_task(drip(writer, b" "))
        assert (await answer_of(reader))[0] == 408
        await eventually(lambda: http_.connections() == 0)
        dripping.cancel()
        assert running.telemetry.commands == 0


async def test_an_order_whose_sender_leaves_before_its_last_byte_is_not_placed(tmp_path):
    async with plant(tmp_path) as (running, http_):
        async with wire(http_) as (_, writer):
            whole = json.dumps(ORDER).encode()
            writer.write(head(len(whole) + 1) + whole)
            await writer.drain()
            await asyncio.sleep(0.1)
        await eventually(lambda: http_.connections() == 0)
        assert running.telemetry.commands == 0
        assert not http_.telemetry.outcomes


async def test_many_slow_connections_keep_nobody_else_waiting(tmp_path, hurried, monkeypatch):
    monkeypatch.setattr(patience, "REQUEST_S", 600.0)
    async with front(tmp_path) as http_:
        slow = [await asyncio.open_connection("127.0.0.1", int(http_.url.rsplit(":", 1)[1])) for _ in range(100)]
        for _, writer in slow:
            writer.write(b"POST /v1/orders HTTP/1.1\r\nHost:")
        assert (await http_.place(token()))[0] == 503
        assert http_.connections() >= 100, "they are there yet"
        monkeypatch.setattr(patience, "REQUEST_S", 0.5)
        await eventually(lambda: http_.connections() <= 1)
        for _, writer in slow:
            writer.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["told", "chunked"])
async def test_a_body_of_a_hundred_megabytes_is_refused_without_being_kept(tmp_path, chunked):
    size, piece = 100 * 2**20, b"x" * 2**16
    async with plant(tmp_path) as (running, http_), wire(http_) as (reader, writer):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if chunked:
            start = head(0, **{"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
            piece = b"10000\r\n" + piece + b"\r\n"
        else:
            start = head(size)
        writer.write(start)
        sending = asyncio.create_task(pour(writer, piece, size // 2**16))
        status, told = await answer_of(reader)
        assert status == 413
        assert b"connection: close" in told
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown_kib < 20_000
        assert running.telemetry.commands == 0


async def pour(writer, piece, times):
    for _ in range(times):
        writer.write(piece)
        await writer.drain()


@pytest.mark.parametrize("path", ["/v1/orders", "/metrics"])
async def test_headers_without_end_are_cut_off(tmp_path, path):
    async with front(tmp_path) as http_, wire(http_) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Long: ".encode())
        sending = asyncio.create_task(pour(writer, b"x" * 2**14, 6400))
        status, _ = await answer_of(reader)
        assert status in {400, 431}
        await asyncio.gather(sending, return_exceptions=True)
        await eventually(lambda: http_.connections() == 0)


@pytest.mark.parametrize("letters", [5_000, 20_000])
async def test_a_huge_token_is_401_and_costs_next_to_nothing(tmp_path, letters):
    async with front(tmp_path) as http_:
        status, problem, _ = await http_.place("a" * letters + ".b.c")
        assert (status, problem["reason"]) == (401, "too_long")


@pytest.mark.parametrize(
    "body",
    [b"[" * 60_000, b'{"a":' * 10_000, b'{"account":' + b"[" * 50_000, b'{"client_id":' + b'{"x":' * 9_000],
    ids=["lists", "objects", "in a member", "in an id"],
)  # fmt: skip
async def test_a_depth_bomb_is_400(tmp_path, body):
    async with plant(tmp_path) as (running, http_):
        headers = {"Authorization": f"Bearer {token()}"}
        async with http_.session.post(http_.url + "/v1/orders", data=body, headers=headers) as answer:
            assert answer.status == 400
            assert len(await answer.read()) < 1_000
        assert running.telemetry.commands == 0


@pytest.mark.parametrize(
    "words",
    [b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"nonsense\r\n\r\n", b"\0" * 100],
)
async def test_what_is_no_http_is_answered_400_and_closed(tmp_path, words):
    async with front(tmp_path) as http_, wire(http_) as (reader, writer):
        writer.write(words)
        status, _ = await answer_of(reader)
        assert status in {400, 404, 505}


async def test_two_lengths_that_contradict_each_other_are_refused(tmp_path):
    """What a proxy and a gateway count differently is how requests are smuggled."""
    async with plant(tmp_path) as (running, http_):
        for more in ({"Transfer-Encoding": "chunked"}, {"content-length": "5"}):
            async with wire(http_) as (reader, writer):
                writer.write(head(3, **more) + b"0\r\n\r\n" + head(len(json.dumps(ORDER))) + json.dumps(ORDER).encode())
                assert (await answer_of(reader))[0] == 400
        assert running.telemetry.commands == 0


EVIL = 'a\r\n{"@timestamp":"1970","message":"forged"}\u2028\x1b[2J${jndi:ldap://x}'


async def test_what_a_client_sends_cannot_write_a_line_of_the_log(tmp_path):
    disk = HeldDisk()
    async with plant(tmp_path, disk, engine_timeout_s=0.05) as (_, http_):
        disk.hold()
        await http_.place(token(), client_id="slow-one")
        disk.let_go()
        assert (await http_.place(token(), client_id=EVIL))[0] == 400
        assert (await http_.place(token(), account=EVIL))[0] == 400
        assert (await http_.place("x" + EVIL.encode("latin-1", "ignore").hex()))[0] == 401
        form = EcsFormat("gateway", "gateway-1")
        lines = [form.line(Instant(1), name, how, fields) for name, how, fields in http_.log.events]
        assert len(lines) >= 2
        for line in lines:
            assert line.count(b"\n") == 1
            assert json.loads(line)["@timestamp"].startswith("1970-01-01")
            assert b"forged" not in line
            assert b"jndi" not in line


async def test_no_secret_is_ever_in_the_log_or_in_an_answer(tmp_path):
    """Canaries: the shared secret, both kinds of keys, tokens good and bad, in every place a client can put them."""
    canary = "canary-0a1b2c3d4e5f"
    disk = HeldDisk()
    async with plant(tmp_path, disk, secret=canary, engine_timeout_s=0.05) as (_, http_):
        bad = token(exp=time.time() - 100), token(key=make_key("ed-7")), token(aud="x")
        secrets = [canary, HS.k, ED.d, token(), *bad]
        answers = []
        disk.hold()
        for bearer in secrets:
            answers.append(await http_.place(bearer, client_id=f"c{len(answers)}"))
            answers.append(await http_.call("GET", "/v1/orders/by-client-id/ann/a", bearer, X_Request_ID=f"{bearer} "))
            answers.append(await http_.call("GET", "/nowhere", bearer))
            answers.append(await http_.call("DELETE", f"/v1/orders/x?account={bearer[:50]}", bearer))
        disk.let_go()
        assert {status for status, _, _ in answers} >= {401, 504, 404}
        told = json.dumps(http_.log.events) + json.dumps([[body, dict(headers)] for _, body, headers in answers])
        assert http_.log.events
        for secret in secrets:
            assert secret not in told
            assert secret.split(".")[-1] not in told, "nor the part that makes a token work"
        assert http_.telemetry.outcomes[RequestOutcome.UNAUTHORIZED] > 5


async def test_an_answer_goes_out_whole_in_one_piece(tmp_path):
    """A gateway that is killed between head and body would leave an answer that nobody can take back."""
    async with front(tmp_path) as http_, wire(http_) as (reader, writer):
        for body in (b"{", json.dumps(ORDER).encode()):
            writer.write(head(len(body)) + body)
            async with asyncio.timeout(60):
                answer = await reader.read(2**16)
            told, _, sent = answer.partition(b"\r\n\r\n")
            length = int(told.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            assert len(sent) == length, "the first read has all of it"
