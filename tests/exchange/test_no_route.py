"""A process of ours answers what it has no route for in the shape of all its errors."""

import aiohttp
import pytest
from starlette.applications import Starlette

from exchange.adapters.http import HttpServer, common_routes, listen
from exchange.recording import RecordingExposition


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing", 404, "GET /nothing is not known here"),
        ("GET", "/" + "x" * 500, 404, f"GET /{'x' * 99} is not known here"),
        ("POST", "/health/live", 405, "POST /health/live cannot be asked so"),
    ],
)
async def test_it_is_an_error_with_a_sentence(method, path, status, words):
    server = HttpServer(Starlette(routes=common_routes(RecordingExposition(), lambda: (True, "well"))), listen(0))
    await server.start()
    try:
        url = f"http://127.0.0.1:{server.port}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
            assert (answer.status, await answer.json()) == (status, {"error": words})
    finally:
        await server.stop()
