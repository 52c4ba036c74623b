"""A day of a cluster under two contending controllers: a seeded plan of faults, people and network, then quiet.

A day is 24 hours of virtual time: what happens takes minutes of it, and the quiet hours between are skipped at once.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from incidents.incident import UNRESOLVED
from kernel.chance import stream
from kernel.time import DAY, Instant, seconds
from runbooks.facts import MarketFacts
from tests.sim import invariants
from tests.sim.cluster_plant import CRASH, LATE, NODES, SLOW
from tests.sim.cluster_world import ClusterWorld, Dangers
from tests.sim.invariants import stuck
from tests.sim.virtual import EPOCH, run

BLOCKS = 4
"""How often in a day something breaks; each time one to three things break together."""

PLANT = (
    "hang", "hang", "hang-two", "stuck-ending", "crash", "late", "slow", "overload", "overload", "downstream", "idle",
    "lag", "leak", "node", "nodes", "config", "engine", "engine-leak", "certificate", "most",
)  # fmt: skip
"""What breaks by itself."""
OTHERS = (
    "scale", "edit", "deploy-half", "cordon", "autoscaler", "gitops", "scaled-object", "auction", "budget", "storm",
    "odd-labels", "blind", "lie", "mute", "frozen",
)  # fmt: skip
"""What people, other controllers and the monitoring do beside it."""
SIDES = ("pause", "pause", "cut", "kill", "store", "all-cut")
"""What happens to the control processes themselves."""


def simulate(seed: int, folder: Path, *, switch: bool = False) -> ClusterWorld:
    """Live through the day of a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    return run(_day(seed, folder, switch=switch))


def complaints(seed: int, folder: Path, *, switch: bool = False) -> list[str]:
    """Return what was wrong in the day of a seed; `switch`: a day on which every action meets the kill switch."""
    return broken_promises(simulate(seed, folder, switch=switch))


def unended(world: ClusterWorld) -> list[str]:
    """Return what did not end although all is well (P3)."""
    still = [f"{one.id} did not end although all is well" for one in world.store.incidents(UNRESOLVED)]
    faults = [f"a fault of the program: {fields}" for name, _, fields in world.log.events if name == "run-fault"]
    leads = [] if world.leads() is not None else ["nobody leads although all is well"]
    return [*stuck(world), *still, *faults, *leads]  # type: ignore[arg-type]


def broken_promises(world: ClusterWorld) -> list[str]:
    """Return everything that is wrong, whether or not the day is over."""
    checks = (
        invariants._nothing_lost, invariants._one_effect_a_key, invariants._hands_off, invariants._handed_over_stays,
        invariants._one_run_at_a_time, invariants._timelines,
    )  # fmt: skip
    landed = {one.writer.key for one in world.cluster.landings}
    touched = [f"{key} was told as refused, and took effect" for key in world.told_refused() if key in landed]
    return [*world.found, *(each for check in checks for each in check(world)), *touched]  # type: ignore[arg-type]


async def _day(seed: int, folder: Path, *, switch: bool) -> ClusterWorld:
    chance = stream(seed, "plan of a cluster")
    dangers = Dangers(
        crash=chance.choice([0.0, 0.0005, 0.002]), store=chance.choice([0.0, 0.0, 0.02]),
        weather=chance.choice([0.0, 0.1, 0.3]), delivery=chance.choice([0.0, 0.4]),
    )  # fmt: skip
    if switch:
        dangers = Dangers(weather=0.6)
    world = ClusterWorld(seed, folder, dangers=dangers)
    try:
        await world.until(lambda: world.leads() is not None, 20)
        for number in range(BLOCKS):
            await _block(world, chance, switch=switch)
            world.dangers = dangers
            ahead = EPOCH + DAY * (number + 1) // BLOCKS - world.clock.now()
            world.skip(max(ahead, seconds(3600)) / 3.6e12)
        world.mend()
        await _calm(world)
    finally:
        ended = unended(world)
        await world.stop()
    world.found += ended
    return world


async def _block(world: ClusterWorld, chance: random.Random, *, switch: bool) -> None:
    if not switch and chance.random() < 0.6:
        _disturb(world, chance, chance.choice(OTHERS))
        await world.live(chance.uniform(0, 6))
    _break(world, chance, "hang" if switch else chance.choice(PLANT))
    if switch or chance.random() < 0.3:
        _switch(world, chance)
    if not switch and chance.random() < 0.5:
        asyncio.get_running_loop().call_later(chance.uniform(1, 25), _shake, world, chance, chance.choice(SIDES))
    await world.live(chance.uniform(8, 30))
    if not switch and chance.random() < 0.4:
        _disturb(world, chance, chance.choice(OTHERS[:4]))
    if not switch and chance.random() < 0.3:
        _break(world, chance, chance.choice(PLANT))
    if chance.random() < 0.1:
        # All clocks jump in the midst of it, by an hour or a day.
        world.clock.skipped_ns += chance.choice([seconds(3600), int(DAY)])
    await world.live(chance.uniform(8, 30))
    world.mend()
    world.release()
    await _calm(world)


async def _calm(world: ClusterWorld) -> None:
    """Wait until control has handed over what it cannot end; then let a person look at it."""
    await world.live(12)
    await world.until(lambda: world.leads() is not None and not stuck(world), 90)  # type: ignore[arg-type]
    world.cluster.mend()  # people are still there, also when an undo of ours brought a bad image back
    world.acknowledge()
    await world.until(lambda: world.leads() is not None and not world.store.incidents(UNRESOLVED), 90)


def _break(world: ClusterWorld, chance: random.Random, what: str) -> None:  # noqa: C901, PLR0912 - a table, as code
    cluster = world.cluster
    match what:
        case "hang":
            cluster.hang("gateway")
        case "hang-two":
            cluster.hang("gateway", 2)
        case "stuck-ending":
            for pod in cluster.pods_of("market-data")[:1]:
                pod.ending_s, pod.stuck_ending = cluster.now_s, True
        case "crash" | "late":
            cluster.write("market-data", "ben", image=CRASH if what == "crash" else LATE)
        case "slow":
            cluster.write("gateway", "ben", image=SLOW)
        case "overload":
            cluster.load = chance.uniform(310, 480)
        case "downstream":
            cluster.downstream = True
        case "idle":
            cluster.load = 20.0
        case "lag":
            cluster.starved = True
        case "leak":
            for pod in cluster.pods_of("settlement"):
                pod.leaky = True
        case "node":
            cluster.down.add(chance.choice(NODES))
        case "nodes":
            cluster.down |= set(chance.sample(NODES, 2))
        case "config":
            cluster.write("config:limits", "ben", contents="bad")
        case "engine":
            cluster.hang("engine")
            world.halted.add(None)
        case "engine-leak":
            world.engine_leak = True
            for pod in cluster.pods_of("engine"):
                pod.leaky = True
        case "certificate":
            world.certificate_days = 2.0
        case "most":
            for name in ("gateway", "market-data", "settlement"):
                cluster.hang(name, 9)


def _disturb(world: ClusterWorld, chance: random.Random, what: str) -> None:  # noqa: C901, PLR0912 - a table, as code
    cluster = world.cluster
    match what:
        case "scale":
            # A person scales at some moment from now on, most likely in the midst of what we do.
            name, count = chance.choice(["gateway", "settlement"]), chance.randrange(2, 6)
            asyncio.get_running_loop().call_later(
                chance.uniform(0, 30), lambda: cluster.write(name, "anna", replicas=count)
            )
        case "edit":
            name = chance.choice(["gateway", "market-data", "settlement"])
            fields: dict[str, Any] = chance.choice(
                [{"image": "v2"}, {"image": "v3"}, {"paused": True}, {"paused": False}]
            )
            asyncio.get_running_loop().call_later(chance.uniform(0, 30), lambda: cluster.write(name, "anna", **fields))
        case "deploy-half":
            cluster.write("gateway", "ben", image="v3")
            asyncio.get_running_loop().call_later(5, lambda: cluster.write("gateway", "ben", paused=True))
        case "cordon":
            cluster.write(f"node:{chance.choice(NODES)}", "anna", cordoned=True)
        case "autoscaler":
            cluster.autoscaled(chance.choice([1, 2, 3]), chance.choice([4, 6]))
        case "gitops":
            cluster.owned(chance.choice(["gateway", "market-data", "settlement"]))
        case "scaled-object":
            cluster.scaled_object |= {chance.choice(["gateway", "settlement"])}
        case "auction":
            _auction(world, chance)
        case "budget":
            cluster.strict = True
            cluster.budget |= {"gateway": 3, "market-data": 2, "settlement": 2}
        case "storm":
            symptom = {"alertname": "ClientOrdersFailing", "service": "client", "level": "2", "team": "t"}
            world.noise = [{**symptom, "client": f"c{n}"} for n in range(40)]
        case "odd-labels":
            names = ["", ".*", "gateway-1,gateway-2", "*", "../engine-0", "engine-0", "nobody", "A" * 300, "n1\nn2"]
            odd = {"alertname": "PodHang", "service": "gateway", "level": "2", "team": "t"}
            world.noise = [{**odd, "pod": name, "n": str(n)} for n, name in enumerate(chance.sample(names, 3))]
        case "blind":
            world.blind = chance.choice(["stale", "stale", "missing", "nan", "unreachable"])
        case "lie":
            pods = cluster.pods_of("gateway") + cluster.pods_of("engine")
            world.lies = {f'pod_ready{{pod="{pod.name}"}}': 0.0 for pod in pods}
        case "mute":
            world.mute = True
        case "frozen":
            for side in world.sides:
                if side.life is not None and side.life.workloads is not None and chance.random() < 0.7:
                    side.life.workloads.frozen = cluster.look()


def _auction(world: ClusterWorld, chance: random.Random) -> None:
    """Announce an auction two minutes ahead; sometimes one is under way already."""
    now = world.clock.now()
    if chance.random() < 0.5:
        world.market, world.auction_since = MarketFacts(phase="intraday_auction", auction=True), now
        return
    ahead = seconds(chance.uniform(10, 40))
    world.market = MarketFacts(phase="continuous", next_auction_at=Instant(now + ahead), quiet_ns=seconds(60))

    def begin() -> None:
        if world.market is not None:
            world.market = MarketFacts(phase="intraday_auction", auction=True)
            world.auction_since = world.clock.now()

    asyncio.get_running_loop().call_later(ahead / 1e9, begin)


def _shake(world: ClusterWorld, chance: random.Random, what: str) -> None:
    """Let something happen to the control processes, most often to the one that leads."""
    side = world.leads() or chance.choice(world.sides)
    if chance.random() < 0.2:
        side = chance.choice(world.sides)
    later = asyncio.get_running_loop().call_later
    match what:
        case "pause":
            side.running.clear()
            later(chance.choice([chance.uniform(1, 10), chance.uniform(14, 40)]), side.running.set)
        case "cut" | "all-cut":
            for one in world.sides if what == "all-cut" else [side]:
                one.cut_off = True
                later(chance.uniform(3, 30), setattr, one, "cut_off", False)
        case "kill":
            if side.life is not None and not side.life.dead:
                world.kill(side.life)
        case "store":
            world.store_down = True


def _switch(world: ClusterWorld, chance: random.Random) -> None:
    """Throw the kill switch at a random instant, or in the moments between a permission and the end of its action."""
    later_s = chance.uniform(0, chance.choice([0.04, 1.5, 8.0]))

    def follow() -> None:
        world.on_permit = None
        asyncio.get_running_loop().call_later(later_s, world.throw)

    if chance.random() < 0.7:
        world.on_permit = follow
    else:
        asyncio.get_running_loop().call_later(chance.uniform(0, 30), world.throw)
