"""Who may trade what through a gateway, how much of it, and by which name a request goes."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest

from exchange.adapters.engine_client import EngineClient
from exchange.adapters.gateway import Gateway
from exchange.adapters.http import HttpServer, listen
from exchange.adapters.tokens import AUDIENCE, HS256, ISSUER, Claims, KeyFile, SignedTokens, make_key, mint, public
from exchange.bearer import TokenFault
from exchange.limits import NO_RATES, Rates
from exchange.ports import RequestOutcome
from exchange.recording import RecordingExposition, RecordingGateway, RecordingLog
from tests.exchange.held_disk import HeldDisk
from tests.exchange.plant import client_of, engine

ORDER = {"account": "ann", "client_id": "a", "symbol": "AAA", "side": "buy", "quantity": 5, "price": 1000}
ED, HS = make_key("ed-1"), make_key("hs-1", HS256)


def token(scope="trade", accounts=("ann",), sub="desk-1", key=ED, **changes):
    now = time.time()
    claims = Claims(ISSUER, AUDIENCE, sub, now + 300, now - 1, now - 1, scope, accounts)
    return mint(key, msgspec.structs.replace(claims, **changes))


class Front:
    def __init__(self, server, session, telemetry, log, app, keys):
        self.url, self.session, self.telemetry = f"http://127.0.0.1:{server.port}", session, telemetry
        self.log, self.app, self.keys, self.connections = log, app, keys, lambda: server.connections

    async def call(self, method, path, bearer, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {bearer}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.session.request(method, self.url + path, data=data, headers=given) as answer:
            return answer.status, await answer.json(), answer.headers

    async def place(self, bearer, **changes):
        return await self.call("POST", "/v1/orders", bearer, ORDER | changes)


@asynccontextmanager
async def front(root, client=None, rates=NO_RATES, secret="", ping_s=None, **options):
    keys = root / "keys.json"
    keys.write_bytes(msgspec.json.encode(KeyFile((public(ED), HS))))
    telemetry, log = RecordingGateway(), RecordingLog()
    app = Gateway(
        client or EngineClient(1, lambda _connected: None), telemetry, RecordingExposition(), replica="gateway-1",
        trade_secret=secret, tokens=SignedTokens(keys, log=log), capacity_per_s=100_000.0, rates=rates, log=log,
        **options,
    )  # fmt: skip
    server = HttpServer(app, listen(0), sockets=True, ping_s=ping_s)
    await server.start()
    app.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Front(server, session, telemetry, log, app, keys)
    finally:
        await app.stop()
        await server.stop()


@asynccontextmanager
async def plant(root, disk=None, **options):
    async with engine(root, disk) as running, client_of(running.port) as client, front(root, client, **options) as http:
        yield running, http


async def test_a_token_trades_its_own_accounts_and_no_other(tmp_path):
    async with plant(tmp_path) as (running, http):
        for key in (ED, HS):
            status, answer, _ = await http.place(token(key=key), client_id=key.kid)
            assert (status, answer["status"]) == (201, "accepted")
        order_id = answer["order_id"]
        bob = token(accounts=("bob",))
        tried = [
            await http.place(bob),
            await http.call("PATCH", f"/v1/orders/{order_id}", bob,
                            {"account": "ann", "client_id": "x", "quantity": 1, "price": 1000}),
            await http.call("DELETE", f"/v1/orders/{order_id}?account=ann&client_id=x", bob),
            await http.call("DELETE", "/v1/orders?account=ann&client_id=x", bob),
            await http.call("GET", "/v1/orders/by-client-id/ann/ed-1", bob),
        ]  # fmt: skip
        assert [status for status, _, _ in tried] == [403] * 5
        assert {problem["status"] for _, problem, _ in tried} == {"forbidden"}
        assert http.telemetry.outcomes[RequestOutcome.FORBIDDEN] == 5
        assert running.telemetry.commands == 2, "what is forbidden never reaches the engine"


@pytest.mark.parametrize(
    ("scope", "accounts", "may"),
    [
        ("trade", ("ann",), {"place", "replace", "cancel", "mass_cancel", "look_up"}),
        ("read", ("ann",), {"look_up"}),
        ("admin", (), {"cancel", "mass_cancel", "look_up"}),
        ("admin trade", ("ann",), {"place", "replace", "cancel", "mass_cancel", "look_up"}),
        ("admin trade", ("bob",), {"cancel", "mass_cancel", "look_up"}),
        ("", ("ann",), set()),
        ("tradex admi", ("ann",), set()),
    ],
)
async def test_each_scope_is_good_for_what_it_says(tmp_path, scope, accounts, may):
    async with front(tmp_path) as http:
        bearer = token(scope, accounts)
        answers = {
            "place": await http.place(bearer),
            "replace": await http.call("PATCH", "/v1/orders/1", bearer,
                                       {"account": "ann", "client_id": "b", "quantity": 1, "price": 1000}),
            "cancel": await http.call("DELETE", "/v1/orders/1?account=ann&client_id=c", bearer),
            "mass_cancel": await http.call("DELETE", "/v1/orders?account=ann&client_id=d", bearer),
            "look_up": await http.call("GET", "/v1/orders/by-client-id/ann/a", bearer),
        }  # fmt: skip
        # There is no engine: who is let through is answered 503, who is not, 403.
        assert {name for name, (status, _, _) in answers.items() if status == 503} == may
        assert {status for status, _, _ in answers.values()} <= {403, 503}


@pytest.mark.parametrize(
    ("bearer", "fault"),
    [
        (lambda: token(exp=time.time() - 60), TokenFault.EXPIRED),
        (lambda: token(nbf=time.time() + 60), TokenFault.NOT_YET),
        (lambda: token(aud="another"), TokenFault.WRONG_AUDIENCE),
        (lambda: token(iss="another"), TokenFault.WRONG_ISSUER),
        (lambda: token(key=make_key("ed-1")), TokenFault.BAD_SIGNATURE),
        (lambda: token(key=make_key("ed-9")), TokenFault.UNKNOWN_KEY),
        (lambda: "eyJhbGciOiJub25lIiwia2lkIjoiZWQtMSJ9.e30.", TokenFault.WRONG_ALGORITHM),
        (lambda: "x" * 5000, TokenFault.TOO_LONG),
        (lambda: "nonsense", TokenFault.MALFORMED),
        (lambda: "", TokenFault.MISSING),
    ],
)
async def test_each_bad_token_is_401_with_its_fault_and_nothing_of_it(tmp_path, bearer, fault):
    async with front(tmp_path) as http:
        given = bearer()
        status, problem, headers = await http.place(given)
        assert (status, problem["reason"]) == (401, str(fault))
        challenge = headers["WWW-Authenticate"]
        assert challenge == "Bearer" if fault is TokenFault.MISSING else 'error="invalid_token"' in challenge
        assert http.telemetry.faults == {fault: 1}
        told = json.dumps([problem, dict(headers), http.log.events])
        assert not given or given not in told


async def test_either_door_opens_where_both_are_taken(tmp_path):
    async with front(tmp_path, secret="trade-secret") as http:
        for bearer in ("trade-secret", token()):
            assert (await http.place(bearer))[0] == 503
        assert (await http.place("trade-secreT"))[0] == 401


async def test_a_key_that_is_taken_out_takes_its_tokens_along(tmp_path):
    async with front(tmp_path) as http:
        bearer = token()
        assert (await http.place(bearer))[0] == 503
        http.keys.write_bytes(msgspec.json.encode(KeyFile((HS,))))
        http.app._door._signed._looked_at -= 2
        assert (await http.place(bearer))[0] == 401


# --- budgets ---------------------------------------------------------------------------------------------------------


async def test_who_used_up_the_budget_is_told_so_and_may_still_cancel(tmp_path):
    async with plant(tmp_path, rates=Rates(key_per_s=3.0, account_per_s=2.0)) as (running, http):
        bearer = token()
        answers = [await http.place(bearer, client_id=f"a{number}") for number in range(6)]
        statuses = [status for status, _, _ in answers]
        assert statuses[:2] == [201, 201]
        assert 429 in statuses
        first, refused = answers[0][2], next(headers for status, _, headers in answers if status == 429)
        assert first["RateLimit-Policy"] == '"orders-key";q=3;w=1, "orders-account";q=2;w=1'
        assert first["RateLimit"].startswith('"orders-account";r=1;t=')
        assert int(refused["Retry-After"]) >= 1
        assert "r=0" in refused["RateLimit"]
        problem = next(body for status, body, _ in answers if status == 429)
        assert (problem["status"], problem["reason"]) == ("limited", "orders-account")
        assert http.telemetry.outcomes[RequestOutcome.LIMITED] == statuses.count(429)
        assert running.telemetry.commands == statuses.count(201)
        path = f"/v1/orders/{answers[0][1]['order_id']}?account=ann&client_id=c"
        status, _, headers = await http.call("DELETE", path, bearer)
        assert status == 201
        assert headers["RateLimit"].startswith('"cancels-account"')


async def test_one_key_does_not_use_up_the_budget_of_another(tmp_path):
    async with front(tmp_path, rates=Rates(key_per_s=2.0)) as http:
        loud, quiet = token(sub="loud"), token(sub="quiet")
        assert 429 in [(await http.place(loud))[0] for _ in range(5)]
        assert (await http.place(quiet))[0] == 503


async def test_without_rates_no_header_tells_of_any(tmp_path):
    async with front(tmp_path) as http:
        _, _, headers = await http.place(token())
        assert not [name for name in headers if name.lower().startswith("ratelimit")]


# --- names of requests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/v1/orders", "/v1/orders/by-client-id/ann/a", "/health/live", "/openapi.json", "/no"]
)
async def test_every_answer_has_its_requests_name(tmp_path, path):
    async with front(tmp_path) as http:
        name = "4bf92f35-77b3.4da6:a/b+c=@d_e"
        assert (await http.call("GET", path, token(), X_Request_ID=name))[2]["X-Request-ID"] == name
        made = [(await http.call("GET", path, token()))[2].getall("X-Request-ID") for _ in range(2)]
        assert [len(one) for one in made] == [1, 1]
        assert made[0] != made[1]


@pytest.mark.parametrize(
    "name", ["", "a b", "x" * 129, 'a"b', "a;b", "\u00e9", "%0d%0aSet-Cookie: x", "{}", "<script>"]
)
async def test_a_name_that_is_not_well_formed_is_replaced_and_told_nowhere(tmp_path, name):
    async with front(tmp_path) as http:
        _, body, headers = await http.call("GET", "/v1/orders/by-client-id/ann/a", "bad", X_Request_ID=name)
        assert headers["X-Request-ID"].startswith("gateway-1-")
        assert not name or name not in json.dumps([body, http.log.events])


async def test_the_log_and_the_span_know_the_request_by_the_clients_name(tmp_path):
    told = []

    class Tracer:
        def answered(self, one):
            told.append(one)

    disk = HeldDisk()
    async with plant(tmp_path, disk, tracer=Tracer(), engine_timeout_s=1.0) as (_, http):
        await http.call("POST", "/v1/orders", token(), ORDER, X_Request_ID="from-the-client")
        disk.hold()
        await http.call("POST", "/v1/orders", token(), ORDER | {"client_id": "b"}, X_Request_ID="the-slow-one")
        disk.let_go()
        assert [one.request_id for one in told] == ["from-the-client", "the-slow-one"]
        lines = [fields for name, _, fields in http.log.events if name == "order-unanswered"]
        assert [fields["request_id"] for fields in lines] == ["the-slow-one"]
