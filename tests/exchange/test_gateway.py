"""Order entry over HTTP: the idempotency table, honest refusals, strict JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.adapters.engine_client import EngineClient
from exchange.adapters.gateway import Gateway
from exchange.adapters.http import HttpServer, listen
from exchange.adapters.orders_json import BadOrderError, read_cancel, read_place, read_replace
from exchange.commands import Resume
from exchange.ports import RequestOutcome
from exchange.recording import RecordingExposition, RecordingGateway
from exchange.types import ClientId
from tests.exchange.held_disk import HeldDisk
from tests.exchange.plant import client_of, engine, eventually

TOKEN = {"Authorization": "Bearer trade-secret"}
ORDER = {"account": "ann", "client_id": "a", "symbol": "AAA", "side": "buy", "quantity": 5, "price": 1000}


class Front:
    def __init__(self, url: str, session: aiohttp.ClientSession, telemetry: RecordingGateway) -> None:
        self.url, self.session, self.telemetry = url, session, telemetry

    async def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        async with self.session.request(method, self.url + path, data=data, headers=headers or TOKEN) as answer:
            return answer.status, await answer.json(), answer.headers

    async def place(self, **changes: object):
        return await self.call("POST", "/v1/orders", ORDER | changes)


@asynccontextmanager
async def gateway(client: EngineClient, capacity: float = 1000.0, timeout_s: float = 5.0):
    telemetry = RecordingGateway()
    app = Gateway(
        client,
        telemetry,
        RecordingExposition(),
        replica="gateway-1",
        trade_secret="trade-secret",
        capacity_per_s=capacity,
        engine_timeout_s=timeout_s,
    )
    server = HttpServer(app, listen(0))
    await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Front(f"http://127.0.0.1:{server.port}", session, telemetry)
    finally:
        await server.stop()


@asynccontextmanager
async def plant(root, disk=None, **options):
    async with engine(root, disk) as running, client_of(running.port) as client, gateway(client, **options) as front:
        yield running, front


async def test_an_order_lives_and_dies_over_http(tmp_path):
    async with plant(tmp_path) as (_, front):
        status, placed, headers = await front.place()
        assert (status, placed["status"], placed["resting"]) == (201, "accepted", 5)
        assert headers["X-Request-Id"]
        path = f"/v1/orders/{placed['order_id']}"
        status, changed, _ = await front.call(
            "PATCH", path, {"account": "ann", "client_id": "b", "quantity": 3, "price": 1000}
        )
        assert (status, changed["status"], changed["resting"]) == (201, "replaced", 3)
        status, canceled, _ = await front.call("DELETE", path + "?account=ann&client_id=c")
        assert (status, canceled["status"], canceled["canceled"]) == (201, "canceled", 3)
        status, late, _ = await front.call("DELETE", path + "?account=ann&client_id=d")
        assert (status, late["reason"]) == (422, "too_late")


async def test_same_key_and_body_is_answered_again_and_another_body_is_refused(tmp_path):
    async with plant(tmp_path) as (running, front):
        status, first, headers = await front.place()
        assert "Idempotent-Replayed" not in headers
        again_status, again, headers = await front.place()
        assert (again_status, again, headers["Idempotent-Replayed"]) == (status, first, "true")
        status, problem, _ = await front.place(quantity=6)
        assert (status, problem["status"]) == (422, "mismatch")
        assert running.telemetry.commands == 1


async def test_a_repeated_rejection_stays_a_rejection(tmp_path):
    async with plant(tmp_path) as (_, front):
        assert (await front.place(price=9_999))[0] == 422
        status, again, headers = await front.place(price=9_999)
        assert (status, again["reason"], headers["Idempotent-Replayed"]) == (422, "price_out_of_band", "true")


async def test_a_request_in_flight_is_a_conflict(tmp_path):
    disk = HeldDisk()
    async with plant(tmp_path, disk) as (_, front):
        disk.hold()
        first = asyncio.create_task(front.place())
        await eventually(lambda: disk.begun)
        status, problem, headers = await front.place()
        assert (status, problem["status"]) == (409, "in_flight")
        assert headers["Retry-After"]
        disk.let_go()
        assert (await first)[0] == 201


async def test_an_answer_too_late_is_unknown_and_can_be_looked_up(tmp_path):
    disk = HeldDisk()
    async with plant(tmp_path, disk, timeout_s=0.1) as (_, front):
        disk.hold()
        assert (await front.place())[0] == 504
        disk.let_go()
        async with asyncio.timeout(60):
            while (found := await front.call("GET", "/v1/orders/by-client-id/ann/a"))[0] != 200:  # noqa: ASYNC110 - asks
                await asyncio.sleep(0.05)
        assert found[1]["status"] == "accepted"
        assert (await front.call("GET", "/v1/orders/by-client-id/ann/never"))[0] == 404


async def test_what_is_shed_was_never_sequenced(tmp_path):
    async with plant(tmp_path, capacity=4.0) as (running, front):
        answers = [await front.place(client_id=f"a{number}") for number in range(10)]
        statuses = [status for status, _, _ in answers]
        assert statuses[:2] == [201, 201]
        assert 503 in statuses
        assert running.telemetry.commands == statuses.count(201)
        assert front.telemetry.outcomes[RequestOutcome.SHED] == statuses.count(503)
        shed = next(headers for status, _, headers in answers if status == 503)
        assert int(shed["Retry-After"]) >= 1


async def test_a_halted_market_answers_503_and_the_order_can_be_sent_again(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        await client.submit(read_place(json.dumps(ORDER | {"client_id": "before"}).encode()), 60)
    (tmp_path / "snapshots" / "clean-stop.json").unlink()
    async with plant(tmp_path) as (running, front):
        status, problem, headers = await front.place()
        assert (status, problem["status"], headers["Retry-After"]) == (503, "halted", "1")
        await running.server.command(Resume(ClientId("open"), None))
        assert (await front.place())[0] == 201


async def test_without_an_engine_the_answer_is_503_at_once():
    client = EngineClient(1, lambda _connected: None)
    async with gateway(client) as front:
        status, problem, headers = await front.place()
        assert (status, problem["status"], headers["Retry-After"]) == (503, "unavailable", "1")
        async with front.session.get(front.url + "/health/ready") as answer:
            assert answer.status == 503
        async with front.session.get(front.url + "/health/live") as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Authorization": "Bearer wrong"}, 401), ({"X-Nothing": "x"}, 401), ({"Authorization": "trade-secret"}, 401)],
)
async def test_without_the_token_nothing_is_read(headers, status):
    async with gateway(EngineClient(1, lambda _connected: None)) as front:
        assert (await front.call("POST", "/v1/orders", b"{", headers))[0] == status


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "Expected `object`"),
        (b'{"account": NaN}', "no JSON"),
        (b"[" * 50_000, "Expected `object`"),
        (b'{"x":' + b"[" * 50_000, "`x`"),
        (json.dumps(ORDER | {"quantity": "5"}).encode(), "`quantity`"),
        (json.dumps(ORDER | {"quantity": 1.5}).encode(), "`quantity`"),
        (json.dumps(ORDER | {"quantity": 10**30}).encode(), "`quantity`"),
        (json.dumps(ORDER | {"side": "hold"}).encode(), "`side`"),
        (json.dumps(ORDER | {"extra": 1}).encode(), "extra"),
        (json.dumps(ORDER | {"client_id": "x" * 65}).encode(), "`client_id`"),
        (json.dumps(ORDER | {"client_id": "a\nb"}).encode(), "`client_id`"),
        (json.dumps(ORDER | {"price": None}).encode(), "price"),
        (json.dumps(ORDER | {"type": "market"}).encode(), "price"),
        (b"\xff\xfe", "no JSON"),
    ],
)
def test_what_is_no_order_is_named_with_its_place(body, words):
    with pytest.raises(BadOrderError) as caught:
        read_place(body)
    assert words in str(caught.value)


@given(st.binary(max_size=200), st.text(max_size=30))
def test_no_bytes_do_more_than_be_refused(body, text):
    for read in (read_place, lambda data: read_replace(text, data)):
        with contextlib.suppress(BadOrderError):
            read(body)
    with pytest.raises(BadOrderError):
        read_cancel("x" + text, {})


async def test_hostile_requests_get_a_4xx_and_harm_nobody(tmp_path):
    async with plant(tmp_path) as (running, front):
        assert (await front.call("POST", "/v1/orders", b"[" * 60_000))[0] == 400
        assert (await front.call("POST", "/v1/orders", b" " * 70_000))[0] == 413
        assert (await front.call("PUT", "/v1/orders", ORDER))[0] == 405
        assert (await front.call("DELETE", "/v1/orders/" + "9" * 400 + "?account=a&client_id=b"))[0] == 400
        assert (await front.call("DELETE", "/v1/orders/1?account=&client_id=b"))[0] == 400
        assert running.telemetry.commands == 0
        assert (await front.place())[0] == 201


async def test_the_document_names_every_order_route():
    async with gateway(EngineClient(1, lambda _connected: None)) as front:
        _, document, _ = await front.call("GET", "/openapi.json")
        assert set(document["paths"]) >= {
            "/v1/orders",
            "/v1/orders/{order_id}",
            "/v1/orders/by-client-id/{account}/{client_id}",
        }
        assert "PlaceBody" in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing/here", 404, "GET /nothing/here is not known here"),
        ("POST", "/v1/calendar", 405, "POST /v1/calendar cannot be asked so"),
    ],
)
async def test_what_no_route_takes_is_told_as_every_other_error(tmp_path, method, path, status, words):
    async with plant(tmp_path) as (_, front):
        told, body, headers = await front.call(method, path)
    assert (told, body) == (status, {"status": "bad_request", "error": words})
    assert headers["X-Request-Id"]
    assert ("GET" in headers.get("Allow", "")) == (status == 405)


def test_a_member_that_is_empty_is_no_member_that_is_absent():
    with pytest.raises(BadOrderError, match="expires_at"):
        read_place(json.dumps(ORDER | {"expires_at": ""}).encode())
