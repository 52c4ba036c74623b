"""One suite for both sides of `monitor.ports.Metrics`: a real Prometheus and the fake that ships."""

import asyncio
import functools
import math
import time
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TemporaryError
from kernel.time import MINUTE, SECOND, Duration, Instant
from monitor.adapters.fake_metrics import FakeMetrics
from monitor.adapters.prometheus_api import PrometheusApi
from monitor.ports import NoReading, Reading, Unknown
from tests.contract.servers import PROMETHEUS, free_port, prometheus, until
from tests.contract.toys import Toy

YOUNG = Duration(5 * SECOND)
pytestmark = pytest.mark.asyncio(loop_scope="module")
in_one_loop = functools.partial(pytest_asyncio.fixture, loop_scope="module")
"""What outlives a test, and what is used with it, live in one loop."""


class RealSide:
    def __init__(self, toy, api):
        self.toy, self.metrics = toy, api

    async def publish(self, name, *values):
        self.toy.page = "".join(f'{name}{{n="{n}"}} {value}\n' for n, value in enumerate(values))
        scrapes = self.toy.scrapes
        await until(lambda: _done(self.toy.scrapes >= scrapes + 2))

    async def stop(self):
        await self.metrics.close()
        self.metrics = PrometheusApi(f"http://127.0.0.1:{free_port()}")


class FakeSide:
    def __init__(self):
        self.metrics = FakeMetrics(SystemClock())

    async def publish(self, name, *values):
        self.metrics.put(name, *values)

    async def stop(self):
        self.metrics.fail(Unknown.UNREACHABLE)


async def _done(value):
    return value


@in_one_loop(scope="module", params=["fake", pytest.param("real", marks=pytest.mark.servers)])
async def plant(request, tmp_path_factory):
    """Start one Prometheus for all tests: five seconds pass before it scrapes first. None for the fake."""
    if request.param == "fake":
        yield None
        return
    if PROMETHEUS is None:
        pytest.fail("no Prometheus binary is installed")
    async with Toy() as toy:
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "150ms"},
            "scrape_configs": [{"job_name": "toy", "static_configs": [{"targets": [f"127.0.0.1:{toy.port}"]}]}],
        }
        async with prometheus(tmp_path_factory.mktemp("prometheus"), config) as url:
            yield toy, url


@in_one_loop
async def side(plant):
    if plant is None:
        yield FakeSide()
        return
    toy, url = plant
    real = RealSide(toy, PrometheusApi(url))
    yield real
    await real.metrics.close()


async def read(side, query="toy", *, fresh="toy", max_age=YOUNG):
    return await side.metrics.read(query, fresh=fresh, max_age=max_age)


async def test_one_finite_number_is_a_reading_with_the_time_of_its_sample(side):
    before = time.time_ns()
    await side.publish("toy", 5)
    reading = await read(side)
    assert isinstance(reading, Reading)
    assert reading.value == 5
    # Prometheus keeps milliseconds.
    assert before - 1_000_000_000 <= reading.data_at <= time.time_ns() + 2_000_000


async def test_no_series_is_missing(side):
    await side.publish("toy", 5)
    answer = await read(side, "nobody", fresh="nobody")
    assert isinstance(answer, NoReading)
    assert answer.why is Unknown.MISSING


async def test_what_is_no_number_is_no_reading(side):
    for value in (math.nan, math.inf, -math.inf):
        await side.publish("toy", value)
        assert (await read(side)).why is Unknown.NOT_A_NUMBER


async def test_several_series_are_ambiguous(side):
    await side.publish("toy", 1, 2)
    assert (await read(side)).why is Unknown.AMBIGUOUS


async def test_data_older_than_allowed_is_stale(side):
    await side.publish("toy", 5)
    assert (await read(side, max_age=Duration(1))).why is Unknown.STALE


async def test_age_is_told_by_scraped_series_only(side):
    await side.publish("toy", 5)
    for fresh in ("sum(toy)", "toy offset 5s", "toy or up", "toy[5s]", "job:toy:sum", "toy @ 1", ""):
        assert (await read(side, fresh=fresh)).why is Unknown.REFUSED


async def test_a_broken_question_is_refused(side):
    await side.publish("toy", 5)
    assert (await read(side, "sum((toy)")).why is Unknown.REFUSED
    with pytest.raises(PermanentError):
        await side.metrics.curve("sum((toy)", Instant(time.time_ns()), Instant(time.time_ns()), Duration(SECOND))


async def test_nobody_there_is_unreachable_and_no_exception(side):
    await side.publish("toy", 5)
    await side.stop()
    assert (await read(side)).why is Unknown.UNREACHABLE
    with pytest.raises(TemporaryError):
        await side.metrics.curve("toy", Instant(time.time_ns()), Instant(time.time_ns()), Duration(SECOND))


async def test_a_curve_holds_the_values_over_time(side):
    start = Instant(time.time_ns() - 5 * SECOND)
    await side.publish("curved", 5)  # a name of its own: what other tests published lies within the five seconds
    end = Instant(time.time_ns() + SECOND)
    (curve,) = await side.metrics.curve("curved", start, end, Duration(SECOND // 5))
    assert {value for _, value in curve.points} == {5.0}
    assert all(start <= at <= end for at, _ in curve.points)


async def test_no_series_is_an_empty_curve(side):
    now = time.time_ns()
    assert list(await side.metrics.curve("nobody", Instant(now - MINUTE), Instant(now), Duration(SECOND))) == []


# --- the real adapter against a server that misbehaves --------------------------------------------------------------


@in_one_loop
async def liar():
    """A server that answers what the test tells it to."""
    answer: dict[str, Any] = {"status": 200, "text": "", "delay_s": 0.0}

    async def query(_):
        await asyncio.sleep(answer["delay_s"])
        return web.Response(status=answer["status"], text=answer["text"], content_type="application/json")

    application = web.Application()
    application.router.add_post("/api/v1/query", query)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with PrometheusApi(f"http://127.0.0.1:{runner.addresses[0][1]}", timeout_s=0.3) as api:
        yield answer, api
    await runner.cleanup()


def success(result, kind="vector", extra=""):
    return f'{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}{extra}}}'


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (200, success("[]"), Unknown.MISSING),
        (200, success('[{"metric":{},"value":[1,"1"]}]', extra=',"warnings":["a shard is missing"]'), Unknown.PARTIAL),
        (200, success('[{"metric":{},"value":[1,"1"]},{"metric":{"a":"b"},"value":[1,"1"]}]'), Unknown.AMBIGUOUS),
        (200, success('[{"metric":{},"value":[1,"NaN"]}]'), Unknown.NOT_A_NUMBER),
        (200, success('[{"metric":{},"value":[1,"five"]}]'), Unknown.NOT_A_NUMBER),
        (200, success('[{"metric":{},"value":[100,"1"]}]'), Unknown.STALE),
        (200, success("[]", kind="matrix"), Unknown.REFUSED),
        (200, success('{"a":1}'), Unknown.UNREACHABLE),
        (200, '{"status":"success"}', Unknown.UNREACHABLE),
        (200, "<html>", Unknown.UNREACHABLE),
        (200, "[" * 100_000, Unknown.UNREACHABLE),
        (302, success("[]"), Unknown.UNREACHABLE),
        (400, '{"status":"error","errorType":"bad_data","error":"parse"}', Unknown.REFUSED),
        (422, '{"status":"error","errorType":"execution","error":"many-to-many"}', Unknown.REFUSED),
        (429, "slow down", Unknown.UNREACHABLE),
        (503, '{"status":"error","errorType":"timeout","error":"late"}', Unknown.UNREACHABLE),
    ],
)
async def test_whatever_a_server_answers_is_no_reading_with_its_reason(liar, status, text, why):
    answer, api = liar
    answer.update(status=status, text=text)
    reading = await api.read("toy", fresh="toy", max_age=YOUNG)
    assert isinstance(reading, NoReading)
    assert reading.why is why


async def test_a_server_that_takes_too_long_is_unreachable(liar):
    answer, api = liar
    answer.update(delay_s=600.0)
    async with asyncio.timeout(60):
        assert (await api.read("toy", fresh="toy", max_age=YOUNG)).why is Unknown.UNREACHABLE
