"""What Prometheus answers, as steps; and why it did not answer."""

import asyncio
from urllib.parse import parse_qsl

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from control.anomaly_reading import Failure, ReadError, Readings, steps_of, window_of
from control.anomaly_state import Life
from control.anomaly_watch import Key
from exchange.adapters.http import HttpServer, listen
from kernel.time import SECOND, Duration, Instant
from monitor.watched import BUILDS, PROCESSES
from tests.control.anomaly_bed import LIST

SERVICES = {one.id: one.service for one in LIST}


def test_readings_come_by_instant_with_their_service_and_the_lives_beside_them():
    curves = [
        ({"series": "latency", "item": "gateway-1"}, [(10.0, 0.5), (12.0, float("nan"))]),
        ({"series": "memory", "item": "engine-1", "job": "engine"}, [(12.0, 7.0)]),
        ({"series": "stranger"}, [(10.0, 1.0), (14.0, 1.0)]),
        ({"series": BUILDS, "item": "engine-1", "job": "engine", "version": "1.2"}, [(12.0, 1.0)]),
        ({"series": PROCESSES, "item": "engine-1", "job": "engine"}, [(12.0, 99.5), (14.0, 99.5)]),
    ]
    first, second = steps_of(curves, SERVICES)
    assert (first.at, dict(first.values)) == (10 * SECOND, {Key("latency", "gateway-1"): (0.5, "gateway")})
    assert dict(second.values) == {Key("memory", "engine-1"): (7.0, "engine")}, "what is no number is no reading"
    assert second.lives == {"engine-1": Life("engine", "1.2", 99.5)}


def test_the_window_of_rates_sees_four_scrapes():
    assert [window_of(scrape) for scrape in (1, 2, 5, 15)] == [10, 10, 20, 60]


class Server:
    """Something that answers as Prometheus does, or does not."""

    def __init__(self):
        self.asked, self.refuses, self.wait_s = [], "", 0.0

    async def answer(self, request):
        form = {**request.query_params, **dict(parse_qsl((await request.body()).decode()))}
        self.asked.append(str(form["query"]))
        await asyncio.sleep(self.wait_s)
        if self.refuses and self.refuses in self.asked[-1]:
            return JSONResponse({"status": "error", "errorType": "bad_data", "error": "no such function"}, 400)
        value = {"metric": {"series": "flow"}, "values": [[float(form["start"]), "5"]]}
        return JSONResponse({"status": "success", "data": {"resultType": "matrix", "result": [value]}})


@pytest.fixture
async def served():
    server = Server()
    listener = listen(0)
    http = HttpServer(Starlette(routes=[Route("/api/v1/query_range", server.answer, methods=["POST"])]), listener)
    await http.start()
    readings = Readings(f"http://127.0.0.1:{http.port}", LIST, step=Duration(2 * SECOND), window_s=10)
    yield server, readings
    await readings.close()
    await http.stop()


NOW = Instant(1_000 * SECOND)


async def test_all_series_are_one_question_of_the_present_and_of_history(served):
    server, readings = served
    assert [one.at for one in await readings.now(NOW, NOW)] == [NOW]
    assert [one.at for one in await readings.history(NOW, Instant(NOW + 20 * SECOND))] == [NOW]
    assert len(server.asked) == 2
    assert server.asked[0] == server.asked[1]


async def test_an_entry_that_is_refused_is_left_out_and_the_others_go_on(served):
    server, readings = served
    server.refuses = '"latency"'
    assert [one.at for one in await readings.now(NOW, NOW)] == [NOW]
    assert list(readings.refused) == ["latency"]
    server.asked.clear()
    await readings.now(NOW, NOW)
    assert len(server.asked) == 1, "it is not asked for again"


async def test_when_all_is_refused_that_is_told(served):
    server, readings = served
    server.refuses = "label_replace"
    for _ in range(2):
        with pytest.raises(ReadError) as caught:
            await readings.now(NOW, NOW)
        assert caught.value.failure is Failure.REFUSED
        assert "refuses the question" in str(caught.value)
        assert "no such function" in str(caught.value)
        assert len(str(caught.value)) < 400, "without the question"


async def test_slow_is_told_from_gone(served, monkeypatch):
    server, readings = served
    server.wait_s = 5.0
    readings._client._timeout = readings._client._timeout.__class__(total=0.05)
    with pytest.raises(ReadError) as caught:
        await readings.now(NOW, NOW)
    assert caught.value.failure is Failure.SLOW
    gone = Readings("http://127.0.0.1:9", LIST, step=Duration(2 * SECOND), window_s=10)
    for ask in (gone.now, gone.history):
        with pytest.raises(ReadError) as caught:
            await ask(NOW, NOW)
        assert caught.value.failure is Failure.UNREACHABLE
        assert str(caught.value) == "Prometheus at http://127.0.0.1:9 does not answer"
    await gone.close()
