"""What people ask of incidents and runs, beside a loop that works on the same ones."""

import asyncio

import pytest

from control.desk import Desk
from control.errors import NotFoundError, RefusedByRailError
from incidents.incident import State
from kernel.errors import InputError
from kernel.time import Instant
from tests.sim.invariants import broken_promises
from tests.sim.virtual import run
from tests.sim.world import World

LABELS = {"alertname": "GatewayDown", "replica": "gateway-1", "service": "gateway"}


def at_the_desk(folder, script):
    async def main():
        world = World(1, folder)
        try:
            await world.live(5)
            assert world.life.loop is not None
            desk = Desk(world.life.loop._p.store, world.life.loop, list(world.library.values()), world.clock)
            await script(world, desk)
        finally:
            await world.stop()
        assert not broken_promises(world)

    run(main())


def test_a_persons_run_opens_an_incident_acts_and_is_closed(tmp_path):
    async def script(world, desk):
        world.workloads.set_ready("gateway", "gateway-1", ready=False)
        world.sample()
        record = await desk.run("gateway-down", LABELS, "anna")
        await world.live(30)
        ended = world.store.run(record.id)
        assert ended is not None
        assert ended.outcome == "mended"
        assert all(one.state is State.RESOLVED for one in world.store.incidents())

    at_the_desk(tmp_path, script)


@pytest.mark.parametrize("people", [2, 5])
def test_of_many_who_want_the_same_at_once_one_gets_it(tmp_path, people):
    async def script(world, desk):
        world.hang("gateway", "gateway-1")
        asked = [desk.run("gateway-down", LABELS, f"person {n}") for n in range(people)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await world.live(30)
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
        assert {type(one) for one in answers if isinstance(one, BaseException)} == {RefusedByRailError}
        assert len(world.store.runs_since(Instant(0))) == 1
        assert len(world.done) == 1

    at_the_desk(tmp_path, script)


def test_rails_hold_for_people_too(tmp_path):
    async def script(world, desk):
        with pytest.raises(NotFoundError, match="there is no runbook"):
            await desk.run("nothing", {}, "anna")
        with pytest.raises(RefusedByRailError, match="no_target"):
            await desk.run("gateway-down", {}, "anna")
        with pytest.raises(InputError):
            await desk.run("gateway-down", LABELS, " ")
        world.throw()
        with pytest.raises(RefusedByRailError, match="kill_switch"):
            await desk.run("gateway-down", LABELS, "anna")
        assert not world.store.incidents()

    at_the_desk(tmp_path, script)


def test_acknowledging_noting_and_closing_are_on_the_timeline(tmp_path):
    async def script(world, desk):
        world.hang("gateway", "gateway-1", for_good=True)
        await world.until(lambda: any(one.needs_person for one in world.store.incidents()))
        (one,) = await desk.incidents(everything=False)
        assert (await desk.acknowledge(one.id, "anna")).acknowledged_by == "anna"
        with pytest.raises(RefusedByRailError):
            await desk.acknowledge(one.id, "ben")
        await desk.note(one.id, "anna", "the rack has no power")
        assert (await desk.resolve(one.id, "anna", "moved", force=True)).state is State.RESOLVED
        entries, tamper = await desk.timeline(one.id)
        assert tamper is None
        assert "the rack has no power" in [entry.text for entry in entries]
        with pytest.raises(NotFoundError):
            await desk.incident("INC-9")

    at_the_desk(tmp_path, script)


def test_a_persons_run_is_not_told_as_the_cure_of_another_incident(tmp_path):
    async def script(world, desk):
        world.noise = [{"alertname": "Odd", "service": "gateway", "level": "3", "team": "t"}]
        assert await world.until(lambda: bool(world.store.incidents()), 20)
        odd = world.store.incidents()[0]
        world.workloads.set_ready("gateway", "gateway-1", ready=False)
        world.sample()
        record = await desk.run("gateway-down", LABELS, "anna")
        assert record.incident != odd.id
        world.noise = []
        await world.live(40)

    at_the_desk(tmp_path, script)
