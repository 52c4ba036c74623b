# mypy: disallow-untyped-calls=False, check-untyped-defs=False
"""Several engines answer as one: what concerns one reaches it alone, and what not all have is said."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from exchange.adapters.engines_http import EnginesDesk, EngineSite, together
from exchange.adapters.http import HttpServer, listen
from exchange.shards import partition_of, whole_hash
from exchange.types import Symbol

SECRET = "admin-secret"
ADMIN = {"Authorization": f"Bearer {SECRET}"}
FIRST = next(one for one in ("AAA", "BBB", "CCC", "DDD", "EEE") if partition_of(Symbol(one), 2) == 0)
SECOND = next(one for one in ("AAA", "BBB", "CCC", "DDD", "EEE") if partition_of(Symbol(one), 2) == 1)


def standing(**more):
    return {
        "ready": True, "phase": "ready", "detail": "", "seq": 5, "market_halted": False, "market_halt_reason": None,
        "halted_symbols": [], "session_open": True, "market_phase": "continuous", "disabled_accounts": [],
        "clean_start": True, "recovered_commands": 0, "recovery_seconds": 0.1, "journal_failed": False,
        "by_calendar": False, "next_phase": None, "next_phase_at": None, **more,
    }  # fmt: skip


class FakeEngine:
    """An engine's HTTP interface that keeps what it was told, by key."""

    def __init__(self):
        self.told, self.answer, self.stands = [], (200, None), standing()

    def app(self):
        async def status(_):
            return JSONResponse(self.stands)

        async def held(_):
            return JSONResponse({"seq": 3, "state_hash": "ab"})

        async def tell(request):
            body = await request.json()
            assert request.headers["Authorization"] == f"Bearer {SECRET}"
            replayed = body["key"] in [one["key"] for _, one in self.told]
            self.told.append((request.path_params["verb"], body))
            code, words = self.answer
            return JSONResponse(words or {"seq": len(self.told), "replayed": replayed}, code)

        return Starlette(
            routes=[
                Route("/v1/status", status), Route("/v1/hash", held), Route("/admin/{verb}", tell, methods=["POST"]),
            ]
        )  # fmt: skip


class Desk:
    def __init__(self, session, url, engines, servers):
        self.session, self.url, self.engines, self.servers = session, url, engines, servers

    async def ask(self, path):
        async with self.session.get(self.url + path) as answer:
            return answer.status, await answer.json()

    async def tell(self, verb, body, headers=ADMIN):
        async with self.session.post(f"{self.url}/admin/{verb}", json={"key": "k"} | body, headers=headers) as answer:
            return answer.status, await answer.json()

    def counts(self):
        return [len(one.told) for one in self.engines]


@asynccontextmanager
async def desk_of_two():
    engines = [FakeEngine(), FakeEngine()]
    servers = [HttpServer(one.app(), listen(0)) for one in engines]
    sites = [EngineSite(f"engine-{n}", f"http://127.0.0.1:{one.port}") for n, one in enumerate(servers, 1)]
    desk = EnginesDesk(sites)
    front = HttpServer(desk.app(SECRET), listen(0))
    try:
        for one in (*servers, front):
            await one.start()
        async with aiohttp.ClientSession() as session:
            yield Desk(session, f"http://127.0.0.1:{front.port}", engines, servers)
    finally:
        await desk.close()
        for one in (front, *servers):
            await one.stop()


def with_two(work):
    async def run():
        async with desk_of_two() as desk:
            await work(desk)

    asyncio.run(run())


def test_a_symbols_halt_reaches_its_engine_alone_and_the_markets_reaches_all():
    async def work(desk):
        assert (await desk.tell("halt", {"symbol": SECOND}))[0] == 200
        assert desk.counts() == [0, 1]
        code, told = await desk.tell("halt", {"symbol": None})
        assert (code, told["engines"]) == (200, {"engine-1": 1, "engine-2": 2})
        assert desk.counts() == [1, 2]

    with_two(work)


def test_what_not_every_engine_has_is_said_and_sent_again_under_its_key_it_is_done_once():
    async def work(desk):
        desk.engines[1].answer = 503, {"error": "not ready"}
        code, told = await desk.tell("halt", {})
        assert code == 503
        assert told["error"] == "engine-1 has it, engine-2 has not (not ready): send it again under the same key"
        desk.engines[1].answer = 200, None
        code, told = await desk.tell("halt", {})
        assert (code, told["replayed"]) == (200, True)
        assert {body["key"] for _, body in desk.engines[0].told} == {"k"}

    with_two(work)


def test_what_every_engine_refuses_is_refused_in_their_words():
    async def work(desk):
        for one in desk.engines:
            one.answer = 422, {"error": "refused: unknown_account"}
        assert await desk.tell("account", {"account": "x"}) == (422, {"error": "refused: unknown_account"})

    with_two(work)


def test_cash_is_given_to_an_engine_by_its_name_and_a_position_to_that_of_its_symbol():
    async def work(desk):
        code, told = await desk.tell("fund", {"account": "a", "asset": "$cash", "amount": 1})
        assert code == 400
        assert "one of engine-1, engine-2" in told["error"]
        assert (await desk.tell("fund?engine=engine-2", {"account": "a", "asset": "$cash", "amount": 1}))[0] == 200
        assert (await desk.tell("fund", {"account": "a", "asset": FIRST, "amount": 1}))[0] == 200
        assert desk.counts() == [1, 1]
        assert (await desk.tell("fund?engine=engine-3", {"account": "a", "asset": "$cash", "amount": 1}))[0] == 404

    with_two(work)


def test_who_has_no_right_to_a_command_reaches_no_engine():
    async def work(desk):
        assert (await desk.tell("halt", {}, headers={}))[0] == 401
        assert desk.counts() == [0, 0]

    with_two(work)


def test_an_engine_that_is_gone_hides_no_other():
    async def work(desk):
        assert await desk.ask("/v1/hash") == (200, {
            "seq": 6, "state_hash": whole_hash(["ab", "ab"]),
            "engines": {name: {"seq": 3, "state_hash": "ab"} for name in ("engine-1", "engine-2")},
        })  # fmt: skip
        await desk.servers[1].stop()
        code, told = await desk.ask("/v1/status")
        assert (code, told["ready"], told["detail"]) == (200, False, "engine-2 does not answer")
        assert told["engines"]["engine-1"]["ready"]
        assert told["engines"]["engine-2"] is None
        assert (await desk.ask(f"/v1/status?symbol={FIRST}"))[0] == 200
        assert await desk.ask(f"/v1/status?symbol={SECOND}") == (503, {"error": "engine-2 does not answer"})
        assert (await desk.ask("/v1/hash"))[0] == 503
        assert (await desk.ask("/v1/hash?engine=engine-1"))[0] == 200

    with_two(work)


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ({"market_halted": True, "market_halt_reason": "a"}, {"market_halted": True, "market_halt_reason": "a"}),
        ({"clean_start": False}, {"clean_start": False}),
        ({"journal_failed": True}, {"journal_failed": True}),
        ({"halted_symbols": ["B"]}, {"halted_symbols": ["A", "B"]}),
        ({"seq": 7}, {"seq": 12}),
        ({"next_phase_at": 9, "next_phase": "closed"}, {"next_phase_at": 9, "next_phase": "closed"}),
        ({"ready": False, "phase": "replaying", "detail": "3"}, {"ready": False, "phase": "partly"}),
    ],
)  # fmt: skip
def test_how_several_stand_is_told_as_of_one_and_nothing_bad_of_any_is_hidden(second, what):
    sites = [EngineSite("engine-1", ""), EngineSite("engine-2", "")]
    found = together(sites, [standing(halted_symbols=["A"]), standing(**second)])
    assert {name: found[name] for name in what} == what


def test_what_is_no_command_is_answered_with_what_each_engine_said():
    async def work(desk):
        for one in desk.engines:
            one.answer = 200, {"active": {"engine-slow-sync": 0.1}}
        code, told = await desk.tell("faults", {"name": "engine-slow-sync", "value": 0.1})
        assert code == 200
        assert told == {"engines": {name: {"active": {"engine-slow-sync": 0.1}} for name in ("engine-1", "engine-2")}}

    with_two(work)
