"""Pods find each other: each role from the configuration its pod mounts, each at an address of its own.

Of a configuration two things are changed: where the state is, and `0.0.0.0`, which in a pod means one address and here
would mean all. Ports and names stay. What a name stands for is told by a file in place of the cluster's DNS; for that,
the processes run asyncio's own loop, because uvloop asks the C library past every hook.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time

import aiohttp
import msgspec
import psutil
import pytest
import yaml

from control.config import load_config, save_config
from control.layout import Layout
from tests.deploy.conftest import KUBERNETES

pytestmark = pytest.mark.estate

BASE = KUBERNETES / "base" / "exchange"


def secret_items(volume):
    """Return what a volume takes from secrets that have to be there."""
    projected = volume.get("projected", {}).get("sources", ())
    secrets = [volume.get("secret", {}), *(one.get("secret", {}) for one in projected)]
    return [item for secret in secrets if not secret.get("optional") for item in secret.get("items", ())]


SECRETS = {name: f"{name}-secret-of-the-pods" for name in ("admin", "trade")}
ADMIN, TRADE = ({"Authorization": f"Bearer {secret}"} for secret in SECRETS.values())
ENGINE, FEED = "engine.exchange.svc", "market-data.exchange.svc"
POD = """
import asyncio, json, pathlib, runpy, socket, sys
import uvloop
names, seen = map(pathlib.Path, sys.argv[1:3])
resolve = socket.getaddrinfo
def resolve_by_file(host, *rest, **more):
    found = json.loads(names.read_text()).get(host)
    if found is None:
        raise socket.gaierror(socket.EAI_NONAME, f"no such name: {host}")
    with seen.open("a") as file:
        file.write(f"{host} {found}\\n")
    return resolve(found, *rest, **more)
socket.getaddrinfo = resolve_by_file
uvloop.run = asyncio.run
del sys.argv[1:3]
runpy.run_module("control.roles", run_name="__main__", alter_sys=True)
"""


class Pods:
    """The exchange's pods, each at an address of its own, and the names of its Services."""

    def __init__(self, root):
        self.root, self.names = root, root / "names.json"
        self.net = f"127.{random.randrange(2, 255)}.{random.randrange(255)}"
        self.processes, self.configs = {}, {}

    def address(self, number):
        return f"{self.net}.{number}"

    def name(self, **numbers):
        """Let the names of Services stand for the addresses of pods."""
        part = self.root / "names.part"
        part.write_text(json.dumps({
            ENGINE: self.address(numbers["engine"]), FEED: self.address(numbers["feed"]),
        }))  # fmt: skip
        part.rename(self.names)

    def start(self, pod, role, number):
        """Start a pod as its manifest says: its configuration, the secrets it mounts, a state of its own."""
        state = self.root / pod
        layout = Layout(state)
        documents = list(yaml.safe_load_all((BASE / f"{role}.yaml").read_text()))
        spec = next(
            one["spec"]["template"]["spec"] for one in documents if one["kind"] in {"Deployment", "StatefulSet"}
        )
        for item in (item for one in spec["volumes"] for item in secret_items(one)):
            layout.secret(item["path"]).parent.mkdir(parents=True, exist_ok=True)
            layout.secret(item["path"]).write_text(SECRETS[item["key"]])
        config = load_config(BASE / "config" / f"{role}.json")
        assert config.listen == "0.0.0.0"
        config = msgspec.structs.replace(config, listen=self.address(number), state=str(state))
        self.configs[pod] = config
        save_config(config, state / "config.json")
        argv = [sys.executable, "-c", POD, str(self.names), str(state / "seen"), str(state / "config.json")]
        self.processes[pod] = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)

    def url(self, pod, path):
        return f"http://{self.configs[pod].listen}:{self.configs[pod].port}{path}"

    def listens(self, pod):
        process = psutil.Process(self.processes[pod].pid)
        return {tuple(one.laddr) for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}

    def resolved(self, pod):
        """Return what a pod's process was told that names stand for, in order."""
        path = self.root / pod / "seen"
        return path.read_text().splitlines() if path.exists() else []

    def end(self, pod, number):
        process = self.processes.pop(pod)
        process.send_signal(number)
        return process.communicate(timeout=60)[1], process.returncode


@pytest.fixture
def pods(tmp_path):
    made = Pods(tmp_path)
    yield made
    for pod in list(made.processes):
        made.end(pod, signal.SIGKILL)


async def ready(session, url, within_s=60.0):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            async with session.get(url) as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(f"{url} is not ready")


async def moved(pods, pod, first, last):
    """Wait until a pod was told the engine's new address; the watchdog asks for it once a second only."""
    deadline = time.monotonic() + 60
    while True:
        told = [line.split()[1] for line in pods.resolved(pod) if line.startswith(ENGINE)]
        if (told[0], told[-1]) == (first, last):
            return
        assert time.monotonic() < deadline, (pod, told)
        await asyncio.sleep(0.05)


async def trade(session, pods, symbol, price, name):
    """Buy at one gateway and sell at the other; both must be accepted."""
    for pod, side in (("gateway-1", "buy"), ("gateway-2", "sell")):
        body = {
            "account": side, "client_id": f"{name}-{side}", "symbol": symbol, "side": side, "quantity": 1,
            "price": price,
        }  # fmt: skip
        async with session.post(pods.url(pod, "/v1/orders"), json=body, headers=TRADE) as answer:
            assert answer.status == 201, await answer.text()


async def settled(session, pods, trades):
    async with asyncio.timeout(60):
        while True:
            async with session.get(pods.url("settlement", "/v1/ledger")) as answer:
                ledger = await answer.json()
            if ledger["trades"] == trades:
                assert ledger["imbalance"] == 0
                return
            await asyncio.sleep(0.05)


async def traded(feed, symbol):
    """Read the feed until it tells of a trade."""
    async with asyncio.timeout(60):
        while True:
            for message in json.loads((await feed.receive()).data):
                if message["type"] == "delta" and message["symbol"] == symbol and message["trades"]:
                    return


async def assert_alone(session, pods):
    """Every pod answers what is asked of all, on its own address, and listens nowhere else."""
    for pod, config in pods.configs.items():
        for path in ("/health/live", "/health/ready", "/metrics"):
            async with session.get(pods.url(pod, path)) as answer:
                assert answer.status == 200, pods.url(pod, path)
                assert path != "/metrics" or "exchange_" in await answer.text()
        ports = {config.port, config.engine_stream_port} if pod == "engine" else {config.port}
        assert pods.listens(pod) == {(config.listen, port) for port in ports}


async def assert_guarded(session, pods):
    """What needed a token on loopback needs it here."""
    for pod, path in (
        *(("engine", f"/admin/{verb}") for verb in ("halt", "resume", "snapshot", "session", "faults")),
        ("market-data", "/admin/faults"), ("settlement", "/admin/faults"), ("gateway-1", "/v1/orders"),
    ):  # fmt: skip
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            async with session.post(pods.url(pod, path), json={}, headers=headers) as answer:
                assert answer.status == 401, (pod, path)


async def test_pods_meet_by_name_and_meet_again_when_the_engine_has_another_address(pods):
    pods.name(engine=1, feed=4)
    for number, (pod, role) in enumerate(
        [("gateway-1", "gateway"), ("gateway-2", "gateway"), ("market-data", "market-data"),
         ("settlement", "settlement"), ("watchdog", "watchdog")], start=2,
    ):  # fmt: skip
        pods.start(pod, role, number)
    pods.start("engine", "engine", 1)
    instrument = pods.configs["engine"].instruments[0]
    symbol, price = instrument.symbol, instrument.reference
    # every request on a connection of its own, so that an address that is gone cannot answer
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for pod in pods.configs:
            await ready(session, pods.url(pod, "/health/ready"))
        await assert_alone(session, pods)
        await assert_guarded(session, pods)
        async with session.ws_connect(
            pods.url("market-data", "/v1/feed"), timeout=aiohttp.ClientWSTimeout(ws_close=1)
        ) as feed:
            await trade(session, pods, symbol, price, "first")
            await traded(feed, symbol)
            await settled(session, pods, 1)

            pods.end("engine", signal.SIGKILL)
            pods.start("engine", "engine", 7)
            pods.name(engine=7, feed=4)
            await ready(session, pods.url("engine", "/health/ready"))
            for pod in pods.configs:
                await ready(session, pods.url(pod, "/health/ready"))
            async with session.post(pods.url("engine", "/admin/resume"), json={"key": "open"}, headers=ADMIN) as answer:
                assert answer.status == 200, await answer.text()
            await trade(session, pods, symbol, price, "second")
            await traded(feed, symbol)
            await settled(session, pods, 2)
        await assert_alone(session, pods)
    for pod in set(pods.configs) - {"engine"}:
        await moved(pods, pod, pods.address(1), pods.address(7))
    assert f"{FEED} {pods.address(4)}" in pods.resolved("watchdog")
    assert not pods.resolved("engine"), "the engine calls nobody"
    assert {pod: pods.end(pod, signal.SIGTERM) for pod in list(pods.processes)} == dict.fromkeys(pods.configs, ("", 0))
