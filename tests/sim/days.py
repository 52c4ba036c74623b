"""A day of incidents: a seeded plan of faults, then quiet, then the promises are held against what happened."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from incidents.incident import UNRESOLVED
from kernel.chance import stream
from tests.sim.invariants import broken_promises, stuck
from tests.sim.virtual import run
from tests.sim.world import SYMBOLS, Dangers, World

FAULTS = (
    "hang",
    "hang-both",
    "hang-for-good",
    "engine",
    "engine-late",
    "slow",
    "gap",
    "flap",
    "storm",
    "blind",
    "mute",
    "disk",
)

FAULTS_A_DAY = 4


def simulate(seed: int, folder: Path, *, switch: bool = False) -> World:
    """Live through the day of a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    return run(_day(seed, folder, switch=switch))


def complaints(seed: int, folder: Path, *, switch: bool = False) -> list[str]:
    """Return what was wrong in the day of a seed; `switch`: a day on which every action meets the kill switch."""
    world = simulate(seed, folder, switch=switch)
    unended = [f"{one.id} did not end although all is well" for one in world.store.incidents(UNRESOLVED)]
    faults = [f"a fault of the program: {fields}" for name, _, fields in world.log.events if name == "run-fault"]
    return [*broken_promises(world), *stuck(world), *unended, *faults]


async def _day(seed: int, folder: Path, *, switch: bool) -> World:
    chance = stream(seed, "plan")
    dangers = Dangers(
        crash=chance.choice([0.0, 0.001, 0.004]), store=chance.choice([0.0, 0.0, 0.02]),
        plant=chance.choice([0.0, 0.3]), delivery=chance.choice([0.0, 0.4]),
    )  # fmt: skip
    if switch:
        dangers = Dangers(plant=0.7)
    world = World(seed, folder, dangers=dangers)
    try:
        await world.live(5)
        for _ in range(FAULTS_A_DAY):
            _break(world, chance, only="hang" if switch else "")
            if switch or chance.random() < 0.4:
                _switch(world, chance)
            await world.live(chance.uniform(10, 40))
            if chance.random() < 0.4:
                _break(world, chance)
            await world.live(chance.uniform(10, 30))
            world.mend()
            world.release()
            await _calm(world)
            world.dangers = dangers
            world.skip(chance.uniform(1, 6))
        world.mend()
        await _calm(world)
        await asyncio.sleep(3)
    finally:
        await world.stop()
    return world


async def _calm(world: World) -> None:
    """Wait until control has handed over what it cannot end; then let a person look at it."""
    await world.live(15)
    await world.until(lambda: not stuck(world), 60)
    world.acknowledge()
    await world.until(lambda: not world.store.incidents(UNRESOLVED), 60)


def _break(world: World, chance: random.Random, only: str = "") -> None:  # noqa: C901 - a table of what can break, as code
    match only or chance.choice(FAULTS):
        case "hang":
            world.hang("gateway", chance.choice(["gateway-1", "gateway-2"]))
        case "hang-both":
            world.hang("gateway", "gateway-1")
            world.hang("gateway", "gateway-2")
        case "hang-for-good":
            world.hang("gateway", "gateway-1", for_good=True)
        case "engine":
            world.hang("engine", "engine-1")
            world.halted.add(None)
            world.hang("gateway", "gateway-1")
        case "engine-late":
            # The symptoms come first, each as an incident of its own; then their cause shows and takes them over.
            world.hang("gateway", "gateway-2")
            world.noise = [{"alertname": "SettlementDown", "service": "settlement", "level": "2", "team": "t"}]
            asyncio.get_running_loop().call_later(chance.uniform(1, 6), world.hang, "engine", "engine-1")
        case "slow":
            world.latency = 0.9
        case "gap":
            world.gaps.add(chance.choice(SYMBOLS))
        case "flap":
            world.noise = [{"alertname": "Odd", "service": "settlement", "level": "3", "team": "t"}]
        case "storm":
            world.hang("gateway", "gateway-1")
            symptom = {"alertname": "ClientOrdersFailing", "service": "client", "level": "2", "team": "t"}
            world.noise = [{**symptom, "client": f"c{n}"} for n in range(40)]
        case "blind":
            world.hang("gateway", "gateway-1")
            world.sample()
            world.blind = chance.choice(["stale", "stale", "missing", "nan", "unreachable"])
            # Somebody else's eyes still see it: the alert comes, the evidence does not.
            asyncio.get_running_loop().call_later(chance.uniform(8.5, 14), world.post, "gateway-1")
        case "mute":
            world.mute = True
        case "disk":
            world.store_down = True


def _switch(world: World, chance: random.Random) -> None:
    """Throw the kill switch at any step, or in the moments between a permission and the end of its action."""
    if chance.random() < 0.6:
        later_s = chance.uniform(0, chance.choice([0.04, 1.5]))

        def follow() -> None:
            world.on_permit = None
            asyncio.get_running_loop().call_later(later_s, world.throw)

        world.on_permit = follow
        return
    at = world.steps + chance.randrange(1, 120)

    def throw(step: int) -> None:
        if step >= at and world.on_step is not None:
            world.on_step = None
            world.throw()

    world.on_step = throw
