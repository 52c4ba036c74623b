"""What an edge may keep: tags that follow what is said, 304 to whoever has it, and nothing kept of what is wrong."""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec
import pytest

from exchange.adapters.http import Faults, HttpServer, listen
from exchange.adapters.market_data_server import FEED_FAULTS, MarketDataServer, market_data_app
from exchange.calendar import PhaseName, calendar_of
from exchange.calendar_page import CalendarTold, TurnTold, told
from exchange.commands import SetPhase
from exchange.listing import Listing
from exchange.ports import ReferenceAnswer
from exchange.recording import RecordingExposition, RecordingFeed, RecordingLog
from exchange.types import ClientId, TradingPhase
from kernel.adapters.clock import SystemClock
from tests.exchange.plant import INSTRUMENTS, client_of, engine, eventually, order
from tests.exchange.test_calendar import XETRA, at
from tests.exchange.test_gateway_access import front


async def get(session, url, tag=None):
    headers = {} if tag is None else {"If-None-Match": tag}
    async with session.get(url, headers=headers) as answer:
        return answer.status, await answer.read(), answer.headers


@pytest.mark.parametrize("tag", ["{}", "W/{}", '"other", {}', "*", 'W/"x",W/{}'])
async def test_reference_data_needs_no_token_and_is_304_to_whoever_has_it(tmp_path, tag):
    async with front(tmp_path, listing=Listing(INSTRUMENTS)) as http:
        status, body, headers = await get(http.session, http.url + "/v1/instruments")
        assert status == 200
        assert msgspec.json.decode(body, type=Listing) == Listing(INSTRUMENTS)
        assert headers["Cache-Control"] == "public, max-age=60"
        known = tag.format(headers["ETag"])
        status, body, again = await get(http.session, http.url + "/v1/instruments", known)
        assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
        assert (await get(http.session, http.url + "/v1/instruments", '"another"'))[0] == 200
        assert http.telemetry.reference == {ReferenceAnswer.SENT: 2, ReferenceAnswer.NOT_MODIFIED: 1}


async def test_the_calendar_is_told_with_the_turns_of_a_week_and_the_same_tag_all_day(tmp_path):
    moments = [at("2026-03-27 08:30"), at("2026-03-27 23:59"), at("2026-03-28 00:01")]
    calendar, tags, said = calendar_of(XETRA), [], []
    async with front(tmp_path, calendar=lambda: told(calendar, moments[len(said)])) as http:
        for _ in moments:
            status, body, headers = await get(http.session, http.url + "/v1/calendar")
            assert (status, headers["Cache-Control"]) == (200, "public, max-age=60")
            tags.append(headers["ETag"])
            said.append(msgspec.json.decode(body, type=CalendarTold))
    first = said[0]
    assert tags[0] == tags[1] != tags[2]
    assert (first.zone, first.day) == ("Europe/Berlin", "2026-03-27")
    assert first.turns[0] == TurnTold("2026-03-26T16:35:00.000000Z", PhaseName.CLOSED), "today began with it"
    assert first.turns[1] == TurnTold("2026-03-27T07:00:00.000000Z", PhaseName.PRE_OPEN)
    assert TurnTold("2026-03-30T06:00:00.000000Z", PhaseName.PRE_OPEN) in first.turns, "by the clock of summer"
    assert first.turns[-1].at.startswith("2026-04-03")


async def test_without_a_calendar_it_is_said_that_there_is_none(tmp_path):
    async with front(tmp_path) as http:
        status, body, _ = await get(http.session, http.url + "/v1/calendar")
        assert (status, msgspec.json.decode(body)) == (200, {"zone": "", "day": "", "turns": []})


async def test_replicas_give_the_same_tag_for_the_same_listing_and_another_for_another(tmp_path):
    tags = []
    for listing in (Listing(INSTRUMENTS), Listing(INSTRUMENTS), Listing(INSTRUMENTS[:1])):
        async with front(tmp_path, listing=listing) as http:
            tags.append((await get(http.session, http.url + "/v1/instruments"))[2]["ETag"])
    assert tags[0] == tags[1] != tags[2]


async def test_the_tag_of_a_book_changes_with_the_book_and_of_the_market_with_its_phase(tmp_path):
    async with engine(tmp_path) as running, client_of(running.port) as client:
        feed = MarketDataServer(
            [one.symbol for one in INSTRUMENTS], running.port, clock=SystemClock(), telemetry=RecordingFeed(),
            log=RecordingLog(), faults=Faults(FEED_FAULTS, allowed=False),
        )  # fmt: skip
        app = market_data_app(feed, RecordingExposition(), Faults(FEED_FAULTS, allowed=False), "admin-secret")
        server = HttpServer(app, listen(0))
        await server.start()
        url = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession() as session:
            status, _, headers = await get(session, url + "/v1/book/AAA")
            assert (status, headers["Cache-Control"]) == (503, "no-store"), "what is wrong now is not kept"
            following = asyncio.create_task(feed.run())
            await eventually(lambda: feed.ready()[0])
            _, _, before = await get(session, url + "/v1/book/AAA")
            assert before["Cache-Control"] == "public, max-age=0, s-maxage=1"
            assert (await get(session, url + "/v1/book/AAA", before["ETag"]))[0] == 304
            _, _, other = await get(session, url + "/v1/book/BBB")
            _, market, market_before = await get(session, url + "/v1/market")
            assert msgspec.json.decode(market)["symbols"]["AAA"]["phase"] == "continuous"
            await client.submit(order("a"), 60)
            await eventually(lambda: feed.snapshot("AAA").bids)
            status, _, after = await get(session, url + "/v1/book/AAA", before["ETag"])
            assert status == 200
            assert after["ETag"] != before["ETag"]
            assert (await get(session, url + "/v1/book/BBB", other["ETag"]))[0] == 304
            assert (await get(session, url + "/v1/market", market_before["ETag"]))[0] == 304
            await running.server.command(SetPhase(ClientId("p"), TradingPhase.CLOSED))
            await eventually(lambda: feed.standing().phase is TradingPhase.CLOSED)
            assert (await get(session, url + "/v1/market", market_before["ETag"]))[0] == 200
            assert (await get(session, url + "/v1/book/NOPE"))[2]["Cache-Control"] == "no-store"
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await server.stop()
