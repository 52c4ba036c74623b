"""Real nginx and real HAProxy in front of two gateways: TLS, balance, no order lost when a gateway is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from deploy.trial_certificate import make
from tests.contract.servers import free_port
from tests.control.test_roles import Estate, ready
from tests.elastic_node import REQUIRED

pytestmark = pytest.mark.lb
ROOT = Path(__file__).parents[2]
GATEWAYS = ("gateway-1", "gateway-2")
LANES = 12


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        why = f"{name} is not there; scripts/setup.sh installs it with EDGE_REQUIRED=1"
        if os.environ.get(REQUIRED):
            pytest.fail(why)
        pytest.skip(why)
    return found


@pytest.fixture
def place():
    """A directory that nginx's workers, who are nobody, can reach."""
    with tempfile.TemporaryDirectory(prefix="tapewatch-edge-") as path:
        Path(path).chmod(0o755)
        (Path(path) / "edge.pem").write_bytes(make())
        yield Path(path)


@pytest.fixture(scope="module")
def estate(tmp_path_factory):
    made = Estate(tmp_path_factory.mktemp("edge"))
    for replica in ("engine", *GATEWAYS, "market-data"):
        made.start(replica)
    yield made
    made.stop()


def written(source, place, estate, *, hurried=False, **ports):
    """Write a copy of a configuration of ours, with places and ports of this test; each of them must be in it."""
    text = (ROOT / source).read_text()
    swaps = {
        "127.0.0.1:18800": f"127.0.0.1:{estate.ports['gateway-1']}",
        "127.0.0.1:18801": f"127.0.0.1:{estate.ports['gateway-2']}",
        "127.0.0.1:18720": f"127.0.0.1:{estate.ports['market-data']}",
        "/etc/tapewatch/edge.pem": str(place / "edge.pem"),
        "/run/tapewatch-nginx.pid": str(place / "nginx.pid"),
        "/run/tapewatch-haproxy.sock": str(place / "haproxy.sock"),
        "/var/cache/tapewatch-edge": str(place / "cache"),
    }
    optional = {
        "127.0.0.1:18720",
        "/run/tapewatch-nginx.pid",
        "/run/tapewatch-haproxy.sock",
        "/var/cache/tapewatch-edge",
    }
    swaps |= {f"127.0.0.1:{number}": f"127.0.0.1:{port}" for number, port in ports.items()}
    for old, new in swaps.items():
        assert old in text or old in optional, old
        text = text.replace(old, new)
    if hurried:  # the patience of the test, not of the edge
        for patient in ("client_body_timeout 5s", "timeout http-request 5s"):
            text = text.replace(patient, patient.replace("5s", "1s"))
    path = place / Path(source).name
    path.write_text(text)
    return path


@asynccontextmanager
async def running(argv, place):
    with (place / "edge.out").open("wb") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=subprocess.STDOUT)  # noqa: ASYNC220 - a moment
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def trusting(place):
    return ssl.create_default_context(cafile=str(place / "edge.pem"))


@asynccontextmanager
async def edge(kind, place, estate, *, hurried=False):
    """Yield a session and the URL of an edge in front of both gateways, once it serves."""
    if kind == "nginx":
        port = free_port()
        path = written("deploy/nginx/nginx.conf", place, estate, hurried=hurried, **{"18443": port})
        argv, url = [program("nginx"), "-p", str(place), "-e", "stderr", "-c", str(path)], f"https://localhost:{port}"
    else:
        seven, four = free_port(), free_port()
        path = written("deploy/haproxy/haproxy.cfg", place, estate, hurried=hurried, **{"18444": seven, "18445": four})
        argv = [program("haproxy"), "-db", "-f", str(path)]
        url = f"https://localhost:{seven}" if kind == "haproxy" else f"http://127.0.0.1:{four}"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting(place), limit=0)) as session:
        for replica in GATEWAYS:
            await ready(session, estate.url(replica, "/health/ready"))
        async with running(argv, place):
            await ready(session, url + "/health/ready")
            yield session, url


class Load:
    """Orders on so many lanes, one after the other on each; a lane sends again only what the layer cannot."""

    def __init__(self, session, url, tries):
        self.session, self.url, self.tries = session, url, tries
        self.statuses, self.failed = Counter(), []
        self.stop = False
        self._name = f"{time.monotonic_ns():x}"
        self._numbers = itertools.count()

    async def lane(self):
        while not self.stop:
            number = next(self._numbers)
            order = {"account": f"a{number % 7}", "client_id": f"{self._name}-{number}", "symbol": SYMBOL,
                     "side": "buy", "quantity": 1, "price": 10_000}  # fmt: skip
            status = await self._placed(order)
            self.statuses[status] += 1
            if status != 201:
                self.failed.append((status, order["client_id"]))
            await asyncio.sleep(0.01)

    async def _placed(self, order):
        headers = {"Authorization": "Bearer trade-secret"}
        status: object = None
        for attempt in range(self.tries):
            try:
                async with self.session.post(self.url + "/v1/orders", json=order, headers=headers) as answer:
                    status = answer.status
                    await answer.read()
                if status == 409:  # the edge asked again while the first was being decided: what became of it?
                    status = await self._decided(order, headers)
            except aiohttp.ClientError as error:
                status = type(error).__name__
            if status == 201:
                break
            await asyncio.sleep(0.05 * attempt)
        return status

    async def _decided(self, order, headers):
        path = f"/v1/orders/by-client-id/{order['account']}/{order['client_id']}"
        while True:
            async with self.session.get(self.url + path, headers=headers) as answer:
                if answer.status != 409:
                    return 201 if answer.status == 200 else answer.status
            await asyncio.sleep(0.02)


SYMBOL = "AAA"


@pytest.mark.parametrize(
    ("kind", "tries"), [("nginx", 1), ("haproxy", 1), pytest.param("haproxy-tcp", 5, marks=pytest.mark.long)]
)
async def test_a_killed_gateway_costs_no_order_and_none_is_carried_out_twice(estate, place, kind, tries):
    """At layer 7 the edge itself sends again; at layer 4 it cannot, and the client does, under the same client id."""
    async with edge(kind, place, estate) as (session, url):
        load, before = Load(session, url, tries), await sequence(session, estate)
        lanes = [asyncio.create_task(load.lane()) for _ in range(LANES)]
        await asyncio.sleep(0.5)
        for killed in GATEWAYS:
            estate.kill(killed)
            await asyncio.sleep(0.8)
            estate.start(killed)
            await ready(session, estate.url(killed, "/health/ready"))
            # nginx leaves it out for a second and counts in whole ones; HAProxy asks twice, for two good answers.
            await until(lambda g=killed: requests_of(session, estate, g))
        await until(lambda: enough(load, 100))
        load.stop = True
        await asyncio.gather(*lanes)
        assert load.failed == []
        assert await sequence(session, estate) - before == load.statuses[201]


async def until(holds, within_s=60):
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.05)


async def enough(load, orders):
    return load.statuses[201] > orders


async def sequence(session, estate):
    async with session.get(estate.url("engine", "/v1/status")) as answer:
        return (await answer.json())["seq"]


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_the_edge_ends_tls_names_requests_opens_sockets_and_hides_the_rest(estate, place, kind):
    async with edge(kind, place, estate) as (session, url):
        headers = {"Authorization": "Bearer trade-secret"}
        order = {
            "account": "ann",
            "client_id": f"{kind}-a",
            "symbol": SYMBOL,
            "side": "buy",
            "quantity": 1,
            "price": 10_000,
        }
        async with session.post(url + "/v1/orders", json=order, headers=headers | {"X-Request-ID": "mine"}) as answer:
            assert (answer.status, answer.headers.getall("X-Request-ID")) == (201, ["mine"])
        async with session.post(url + "/v1/orders", json=order, headers=headers) as answer:
            assert answer.headers["Idempotent-Replayed"] == "true"
            assert not answer.headers["X-Request-ID"].startswith("gateway-"), "it was named at the edge"
        for path in ("/metrics", "/admin/faults", "/health/live", "/"):
            async with session.get(url + path) as answer:
                assert answer.status == 404, path
        async with session.post(url + "/v1/orders", data=b"x" * 100_000, headers=headers) as answer:
            assert answer.status in {400, 413}
        async with session.ws_connect(url.replace("https", "wss") + "/v1/ws/orders", headers=headers) as ws:
            assert "hello" in (await ws.receive()).data
            await ws.send_str(json.dumps({"op": "place", "id": 7} | order | {"client_id": f"{kind}-b"}))
            assert json.loads((await ws.receive()).data)[0]["status"] == 201
        async with session.get(url + "/v1/instruments") as answer:
            assert answer.status == 200
            tag = answer.headers["ETag"]
        async with session.get(url + "/v1/instruments", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
            assert kind != "nginx" or answer.headers["X-Cache"] == "HIT"
    told = (place / "edge.out").read_text()
    assert '"http.request.id":"mine"' in told
    assert "trade-secret" not in told


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_a_slow_client_is_cut_off_at_the_edge_and_never_seen_by_a_gateway(estate, place, kind):
    async with edge(kind, place, estate, hurried=True) as (session, url):
        port = int(url.rsplit(":", 1)[1])
        before = await requests_of(session, estate)
        reader, writer = await asyncio.open_connection("localhost", port, ssl=trusting(place))
        writer.write(b"POST /v1/orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nContent-Length: 50\r\n\r\n{")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60):
                await reader.read()
        writer.close()
        assert await requests_of(session, estate) == before


async def requests_of(session, estate, *replicas):
    total = 0.0
    for replica in replicas or GATEWAYS:
        async with session.get(estate.url(replica, "/metrics")) as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith("exchange_gateway_requests_total{"):
                    total += float(line.rsplit(" ", 1)[1])
    return total


# A reload of nginx closes idle connections of its clients, some just when they send again: those send twice.
@pytest.mark.parametrize(("kind", "tries"), [("nginx", 3), ("haproxy", 1)])
async def test_a_gateway_that_is_drained_under_load_costs_nothing_and_gets_no_new_requests(estate, place, kind, tries):
    async with edge(kind, place, estate) as (session, url):
        load = Load(session, url, tries)
        lanes = [asyncio.create_task(load.lane()) for _ in range(4)]
        await until(lambda: requests_of(session, estate, "gateway-1"))
        await drain(kind, place, estate.ports["gateway-1"])
        await until(lambda: left_out(session, estate, load))
        before = await requests_of(session, estate, "gateway-1")
        done = load.statuses[201]
        await until(lambda: enough(load, done + 50))
        load.stop = True
        await asyncio.gather(*lanes)
        assert load.failed == []
        assert await requests_of(session, estate, "gateway-1") == before


async def left_out(session, estate, load):
    """Tell whether thirty orders went by gateway-1: the edge's old workers end what they had begun."""
    before, done = await requests_of(session, estate, "gateway-1"), load.statuses[201]
    await until(lambda: enough(load, done + 30))
    return await requests_of(session, estate, "gateway-1") == before


async def drain(kind, place, port):
    """Take gateway-1 out as `docs/edge.md` says."""
    if kind == "haproxy":
        reader, writer = await asyncio.open_unix_connection(str(place / "haproxy.sock"))
        writer.write(b"set server gateways/gateway-1 state drain\n")
        await reader.read()
        writer.close()
        return
    path = place / "nginx.conf"
    one = f"server 127.0.0.1:{port} "
    assert one in path.read_text()
    path.write_text(path.read_text().replace(one, one + "down "))
    os.kill(int((place / "nginx.pid").read_text()), signal.SIGHUP)  # what `nginx -s reload` sends


def test_the_configurations_are_what_their_own_programs_take(place, tmp_path):
    estate = Estate(tmp_path)
    nginx = written("deploy/nginx/nginx.conf", place, estate, **{"18443": free_port()})
    haproxy = written("deploy/haproxy/haproxy.cfg", place, estate, **{"18444": free_port(), "18445": free_port()})
    for argv in ([program("nginx"), "-t", "-p", str(place), "-e", "stderr", "-c", str(nginx)],
                 [program("haproxy"), "-c", "-f", str(haproxy)]):  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "warn" not in (done.stderr + done.stdout).lower(), done.stderr + done.stdout
