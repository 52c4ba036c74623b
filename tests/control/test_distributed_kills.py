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

from control.calls import call
from kernel.errors import TapewatchError
from tests.control.distributed_bed import distributed, judge

pytestmark = [pytest.mark.estate, pytest.mark.long]
FOR_S = float(os.environ.get("KILLS_FOR_S", "600"))
SEED = int(os.environ.get("KILLS_SEED", "1"))
ENOUGH = 100
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


async def test_whatever_dies_nothing_acknowledged_is_lost_or_done_twice_and_no_money_drifts(tmp_path):
    chance, told = random.Random(SEED), []
    async with distributed(tmp_path, load_rate_per_s=40) as plant:
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
        acknowledged, trades, _ = await judge(plant, told)
        assert acknowledged > ENOUGH, told
        print(f"{acknowledged} acknowledged, {trades} trades, {len(told)} events", flush=True)  # noqa: T201 - the figure
