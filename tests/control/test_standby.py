"""Standing by: a webhook reaches the leader, whichever control process it came to."""

from __future__ import annotations

import aiohttp
from starlette.applications import Starlette
from starlette.routing import Route

from control.addresses import url_of
from control.kube_service import StandBy
from exchange.adapters.http import HttpServer, json_response, listen
from monitor.adapters.exporter import Exporter
from monitor.catalog import Role


async def post(url, headers=None):
    async with aiohttp.ClientSession() as session, session.post(url + "/api/v1/alerts", headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_webhook_reaches_the_leader_also_when_a_process_has_itself_among_its_peers():
    """In a pod it does not know which of the names is its own."""
    passed_on = []

    async def leads(request):
        passed_on.append((request.headers["authorization"], request.headers["x-tapewatch-passed-on"]))
        return json_response({"kept": 1})

    own, leader, nobody = listen(0), listen(0), listen(0)
    leading_port = leader.getsockname()[1]
    peers = [url_of(listener.getsockname()[1]) for listener in (own, leader, nobody)]
    leader.close()
    nobody.close()
    exporter = Exporter(Role.CONTROL)
    standing_by = HttpServer(StandBy((peers[0], peers[2], peers[1]), exporter, lambda: "control-1 leads").app(), own)
    await standing_by.start()
    assert (await post(peers[0], {"Authorization": "Bearer x"}))[0] == 503, "there is no leader yet"
    leading = HttpServer(Starlette(routes=[Route("/api/v1/alerts", leads, methods=["POST"])]), listen(leading_port))
    await leading.start()
    try:
        assert await post(peers[0], {"Authorization": "Bearer x"}) == (200, {"kept": 1})
        assert passed_on == [("Bearer x", "1")]
        status, words = await post(peers[0], {"X-Tapewatch-Passed-On": "1"})
        assert (status, "control-1 leads" in words["error"]) == (503, True)
    finally:
        await standing_by.stop()
        await leading.stop()
