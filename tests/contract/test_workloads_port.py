"""What every adapter of the port `Workloads` must do.

An adapter joins by adding a fixture value to `ADAPTERS`: an async context manager that yields a fresh plant with the
workloads `engine` (a singleton, one replica `engine-1`) and `gateway` (two replicas).
"""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import contextlib
import tempfile
from pathlib import Path

import pytest

from kernel.errors import PermanentError, TemporaryError
from runbooks.adapters.fake import FakeWorkloads, Trouble, plant
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.control.dummies import DummyEstate


@contextlib.asynccontextmanager
async def fake():
    yield FakeWorkloads(plant())


@contextlib.asynccontextmanager
async def local():
    with tempfile.TemporaryDirectory() as root:
        async with DummyEstate(Path(root)) as estate:
            yield estate.workloads


ADAPTERS = {"fake": fake, "local": local}


@pytest.fixture(params=list(ADAPTERS.values()), ids=list(ADAPTERS))
async def workloads(request):
    async with request.param() as adapter:
        yield adapter


def uids(status):
    return {replica.id: replica.uid for replica in status.replicas}


async def test_every_workload_is_listed_as_its_own_status_says(workloads):
    listed = {each.name: each for each in await workloads.list()}
    assert {"engine", "gateway"} <= set(listed)
    assert listed["engine"].singleton
    assert not listed["gateway"].singleton
    assert uids(await workloads.status("gateway")) == uids(listed["gateway"])


async def test_a_restart_starts_one_replica_anew_and_leaves_the_others(workloads):
    before = await workloads.status("gateway")
    effect = await workloads.restart("gateway", "gateway-1", key="r/0")
    after = await workloads.status("gateway")
    assert not effect.repeated
    assert uids(after)["gateway-1"] != uids(before)["gateway-1"]
    assert uids(after)["gateway-2"] == uids(before)["gateway-2"]
    assert after.generation > before.generation


async def test_a_repeated_key_gets_the_first_answer_and_no_second_effect(workloads):
    first = await workloads.restart("gateway", "gateway-1", key="r/0")
    after = uids(await workloads.status("gateway"))
    again = await workloads.restart("gateway", "gateway-1", key="r/0")
    assert again.repeated
    assert (again.key, again.at, again.before, again.after) == (first.key, first.at, first.before, first.after)
    assert uids(await workloads.status("gateway")) == after


async def test_a_scale_names_the_replicas_before_and_after(workloads):
    effect = await workloads.scale("gateway", 3, key="s/0")
    assert (effect.before["replicas"], effect.after["replicas"]) == ("2", "3")
    status = await workloads.status("gateway")
    assert (status.desired, sorted(uids(status))) == (3, ["gateway-1", "gateway-2", "gateway-3"])
    await workloads.scale("gateway", 2, key="s/0/undo")
    assert sorted(uids(await workloads.status("gateway"))) == ["gateway-1", "gateway-2"]


async def test_a_plan_made_on_another_generation_is_a_conflict(workloads):
    generation = (await workloads.status("gateway")).generation
    await workloads.scale("gateway", 3, key="a", generation=generation)
    with pytest.raises(RefusedError) as caught:
        await workloads.scale("gateway", 2, key="b", generation=generation)
    assert caught.value.reason is RefusalReason.CONFLICT
    assert (await workloads.status("gateway")).desired == 3
    assert await workloads.effect("b") is None


async def test_a_singleton_is_never_scaled(workloads):
    with pytest.raises(RefusedError) as caught:
        await workloads.scale("engine", 2, key="s")
    assert caught.value.reason is RefusalReason.SINGLETON
    assert (await workloads.status("engine")).desired == 1


@pytest.mark.parametrize("name", ["", "nobody"])
async def test_an_unknown_workload_is_a_permanent_error_and_nothing_is_touched(workloads, name):
    before = {each.name: uids(each) for each in await workloads.list()}
    for attempt in (workloads.status(name), workloads.restart(name, "x", key="a"), workloads.scale(name, 1, key="b")):
        with pytest.raises(PermanentError):
            await attempt
    assert {each.name: uids(each) for each in await workloads.list()} == before


async def test_an_unknown_replica_is_a_permanent_error(workloads):
    with pytest.raises(PermanentError):
        await workloads.restart("gateway", "gateway-9", key="a")


async def test_what_was_done_for_a_key_can_be_asked(workloads):
    assert await workloads.effect("k") is None
    done = await workloads.scale("gateway", 3, key="k")
    asked = await workloads.effect("k")
    assert asked is not None
    assert (asked.key, asked.after) == (done.key, done.after)


# --- the fake's own troubles: what a controller must survive with any adapter ---------------------------------------


async def test_after_a_lost_answer_asking_again_finds_one_effect():
    adapter = FakeWorkloads(plant())
    adapter.fail_next(Trouble.LOST_ANSWER)
    with pytest.raises(TemporaryError):
        await adapter.scale("gateway", 3, key="k")
    assert (await adapter.scale("gateway", 3, key="k")).repeated
    assert adapter.writes == ["k"]


async def test_without_an_answer_nothing_was_done():
    adapter = FakeWorkloads(plant())
    adapter.fail_next(Trouble.NO_ANSWER)
    with pytest.raises(TemporaryError):
        await adapter.scale("gateway", 3, key="k")
    assert adapter.writes == []


async def test_the_kill_switch_stops_a_write_at_the_last_moment():
    adapter = FakeWorkloads(plant(), kill_switch=lambda: True)
    with pytest.raises(RefusedError) as caught:
        await adapter.restart("gateway", "gateway-1", key="k")
    assert caught.value.reason is RefusalReason.KILL_SWITCH
    assert adapter.writes == []
