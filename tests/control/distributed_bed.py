"""A distributed estate of a test's own, a client at its edge, and what must be so when everything has settled."""

import asyncio
import shutil
import ssl
import time
from contextlib import asynccontextmanager

import aiohttp

from control import faults, server_plan
from control.calls import call
from control.config import load_config
from control.drill import SETTINGS, spawn_estate, stop_estate
from control.layout import Layout
from exchange.adapters.journal_place import journal_records
from exchange.adapters.listing_file import read_listing
from exchange.adapters.load_account import account
from exchange.adapters.verify import verify
from exchange.engine import Engine
from exchange.events import Traded
from exchange.journal import decode_command
from kernel.errors import TapewatchError

UP_WITHIN_S = 240
SETTLED_WITHIN_S = 180


@asynccontextmanager
async def distributed(tmp_path, **settings):
    """Run an estate for the time of the block; nothing of it stays, its servers' data neither."""
    root = tmp_path / "up"
    given = {**SETTINGS, "estate": "distributed", "log_kinds": False, **settings}
    process = await spawn_estate(given, root, tmp_path / "out.txt")
    try:
        yield await _up(root, process)
    finally:
        await stop_estate(process)
        shutil.rmtree(server_plan.home(Layout(root)), ignore_errors=True)


async def _up(root, process):
    deadline = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < deadline:
        assert process.returncode is None, "the estate did not start"
        try:
            plant = faults.connect(root)
            if plant.addresses.phase == "up":
                return plant
        except TapewatchError:
            pass
        await asyncio.sleep(0.5)
    raise AssertionError(f"the estate was not up in {UP_WITHIN_S} s")


class EdgeClient:
    """A participant: orders over TLS through the edge, with the estate's shared secret."""

    def __init__(self, session, plant):
        edge = load_config(plant.layout.config("load-1")).edge
        secret = plant.layout.secret("trade").read_text().strip()
        self._session, self._url = session, edge.url
        self._heads = {"Authorization": f"Bearer {secret}"}
        self._trusting = ssl.create_default_context(cafile=edge.ca_file)

    async def place(self, order, **headers):
        """Send an order once; return status and body."""
        url = f"{self._url}/v1/orders"
        async with self._session.post(url, json=order, headers=self._heads | headers, ssl=self._trusting) as answer:
            return answer.status, await answer.json()

    async def get(self, path):
        """Ask for something; return status and body."""
        async with self._session.get(f"{self._url}{path}", headers=self._heads, ssl=self._trusting) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def edge_client(plant):
    """Yield a client with connections of its own."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        yield EdgeClient(session, plant)


async def judge(plant, told):
    """Stop the load, let everything settle, and hold answers, journal, ledger and sagas against one another.

    Returns the acknowledged orders of the load, the trades, and every event of the journal.
    """
    root, addresses = plant.layout.root, plant.addresses
    await asyncio.to_thread(call, "POST", f"{addresses.load}/admin/stop", token=plant.admin, body={}, timeout_s=60.0)
    listing = read_listing(root / "instruments.json")
    found = await asyncio.to_thread(account, root / "load", root / "exchange" / "journal", listing.instruments)
    assert (found.lost, found.duplicated, found.mismatched) == (0, 0, 0), (found.examples, told)
    live = call("GET", f"{addresses.engine}/v1/hash")
    replayed = await asyncio.to_thread(verify, root / "exchange" / "journal", listing.instruments, live["seq"])
    assert replayed.state_hash == live["state_hash"]
    engine = Engine(listing.instruments, listing.venue)
    items = [decode_command(record.payload) for record in journal_records(root / "exchange" / "journal")]
    events = [event for item in items for event in engine.apply(item)]
    trades = sum(isinstance(event, Traded) for event in events)
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while True:
        ledger = call("GET", f"{addresses.settlement}/v1/ledger")
        parts = {one.id: call("GET", f"{one.url}/v1/sagas") for one in addresses.workloads["saga"]}
        ended = sum(parts["saga-coordinator-1"]["states"].values())
        if (ledger["trades"] == trades and ended == trades) or time.monotonic() > deadline:
            break
        await asyncio.sleep(1.0)
    assert (ledger["trades"], ledger["imbalance"]) == (trades, 0), told
    assert ended == trades, (parts, told)
    drifts = {name: part["drift"] for name, part in parts.items() if part["drift"] is not None}
    assert set(drifts.values()) == {0}, drifts
    return found.acknowledged, trades, events
