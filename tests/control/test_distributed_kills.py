"""Every part of a distributed estate is killed under load, one after the other in an order of chance, for minutes.

What is proven is safety: whatever died, no acknowledged order is lost, nothing has its effect twice, no money drifts.
Runbooks mend what they may; where their rails say no, the test is the person who starts a replica again.
"""

import asyncio
import json
import os
import random
import time

import pytest

from control import faults
from control.calls import call
from control.drill import SETTINGS, spawn_estate, stop_estate
from exchange.adapters.journal_place import journal_records
from exchange.adapters.listing_file import read_listing
from exchange.adapters.load_account import account
from exchange.adapters.verify import verify
from exchange.engine import Engine
from exchange.events import Traded
from exchange.journal import decode_command
from kernel.errors import TapewatchError

pytestmark = [pytest.mark.estate, pytest.mark.long]
FOR_S = float(os.environ.get("KILLS_FOR_S", "600"))
SEED = int(os.environ.get("KILLS_SEED", "1"))
BACK_WITHIN_S = 150.0
PERSON_AFTER_S = 75.0
"""A runbook has its fair chance, then a person starts the replica."""
SERVERS = ("kafka-1", "kafka-2", "kafka-3", "postgres-1", "postgres-2", "rabbitmq-1", "zipkin-1", "edge-1")
OURS = ("gateway-1", "gateway-2", "market-data-1", "settlement-1", "watchdog-1", "engine-1", "saga-coordinator-1",
        "saga-cash-1", "saga-securities-1", "saga-fees-1", "saga-clearing-1")  # fmt: skip


def down(plant):
    """Return the replicas that are not ready, with their workloads."""
    seen = call("GET", f"{plant.addresses.estate}/v1/workloads", token=plant.admin)
    return {one["id"]: each["name"] for each in seen for one in each["replicas"] if not one["ready"]}


def kill(plant, victim):
    """Kill a server of a service by its host, and a process of ours by the estate."""
    if victim in SERVERS:
        plant.role("POST", victim, "/admin/faults", {"name": "server-kill", "value": None})
    else:
        plant.estate("/v1/signal", {"replica": victim, "signal": "KILL"})


async def until_whole(plant, told):
    """Wait until every replica is ready and the market is open; be the person where no runbook helps."""
    began, helped = time.monotonic(), set()
    while time.monotonic() - began < BACK_WITHIN_S:
        try:
            missing = await asyncio.to_thread(down, plant)
            status = await asyncio.to_thread(call, "GET", f"{plant.addresses.engine}/v1/status")
        except TapewatchError:
            missing, status = {"?": "?"}, {"market_halted": True}
        if not missing and not status["market_halted"]:
            return time.monotonic() - began
        if time.monotonic() - began > PERSON_AFTER_S:
            for replica, workload in missing.items():
                if replica not in helped and replica != "?":
                    helped.add(replica)
                    told.append(f"a person starts {replica}")
                    body = {"replica": replica, "key": f"kills-{time.time_ns()}", "by": "person"}
                    await asyncio.to_thread(plant.estate, f"/v1/workloads/{workload}/restart", body)
            if not missing and status["market_halted"]:
                told.append("a person reopens the market")
                body = {"key": f"kills-{time.time_ns()}", "symbol": None}
                url = f"{plant.addresses.engine}/admin/resume"
                await asyncio.to_thread(call, "POST", url, token=plant.admin, body=body)
        await asyncio.sleep(0.5)
    raise AssertionError(f"not whole within {BACK_WITHIN_S} s: {down(plant)}; {told}")


async def up(root, process):
    """Wait until the estate is up."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.returncode is None, "the estate did not start"
        try:
            plant = faults.connect(root)
            if plant.addresses.phase == "up":
                return plant
        except TapewatchError:
            pass
        await asyncio.sleep(0.5)
    raise AssertionError("the estate was not up in 240 s")


async def test_whatever_dies_nothing_acknowledged_is_lost_or_done_twice_and_no_money_drifts(tmp_path):
    chance, told = random.Random(SEED), []
    settings = {**SETTINGS, "estate": "distributed", "load_rate_per_s": 40, "log_kinds": False}
    root = tmp_path / "up"
    process = await spawn_estate(settings, root, tmp_path / "out.txt")
    try:
        plant = await up(root, process)
        ends, victims = time.monotonic() + FOR_S, []
        while time.monotonic() < ends:
            if not victims:
                victims = chance.sample([*SERVERS, *OURS], len(SERVERS) + len(OURS))
            victim = victims.pop()
            await asyncio.to_thread(kill, plant, victim)
            await asyncio.sleep(2.0)
            took_s = await until_whole(plant, told)
            told.append(f"{victim} back after {took_s:.1f} s")
            print(told[-1], flush=True)  # noqa: T201 - ten minutes of silence help nobody
            await asyncio.sleep(chance.uniform(1.0, 6.0))
        (tmp_path / "told.json").write_text(json.dumps(told, indent=1))
        await judge(plant, root, told)
    finally:
        await stop_estate(process)


async def judge(plant, root, told):
    """Stop the load, let everything settle, and hold answers, journal, ledger and sagas against one another."""
    await asyncio.to_thread(
        call, "POST", f"{plant.addresses.load}/admin/stop", token=plant.admin, body={}, timeout_s=60.0
    )
    listing = read_listing(root / "instruments.json")
    found = await asyncio.to_thread(account, root / "load", root / "exchange" / "journal", listing.instruments)
    assert found.acknowledged > 100, told
    assert (found.lost, found.duplicated, found.mismatched) == (0, 0, 0), (found.examples, told)
    live = call("GET", f"{plant.addresses.engine}/v1/hash")
    replayed = await asyncio.to_thread(verify, root / "exchange" / "journal", listing.instruments, live["seq"])
    assert replayed.state_hash == live["state_hash"]
    engine = Engine(listing.instruments, listing.venue)
    items = [decode_command(record.payload) for record in journal_records(root / "exchange" / "journal")]
    trades = sum(isinstance(event, Traded) for item in items for event in engine.apply(item))
    deadline = time.monotonic() + 180
    while True:
        ledger = call("GET", f"{plant.addresses.settlement}/v1/ledger")
        parts = {one.id: call("GET", f"{one.url}/v1/sagas") for one in plant.addresses.workloads["saga"]}
        ended = sum(parts["saga-coordinator-1"]["states"].values())
        if (ledger["trades"] == trades and ended == trades) or time.monotonic() > deadline:
            break
        await asyncio.sleep(1.0)
    assert (ledger["trades"], ledger["imbalance"]) == (trades, 0), told
    assert ended == trades, (parts, told)
    drifts = {name: part["drift"] for name, part in parts.items() if part["drift"] is not None}
    assert set(drifts.values()) == {0}, drifts
    print(f"{found.acknowledged} acknowledged, {trades} trades, {len(told)} events", flush=True)  # noqa: T201 - the figure
