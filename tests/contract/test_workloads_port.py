"""What every adapter of the port `Workloads` must do.

An adapter joins by adding an entry to `ADAPTERS`: an async context manager that takes the pytest request and yields a
`Plant` with the workloads `engine` (a singleton, one replica) and `gateway` (two replicas, settled).
"""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kernel.errors import PermanentError, TemporaryError
from runbooks.adapters.fake import FakeWorkloads, Trouble, plant
from runbooks.changes import FailOver, PauseRollout, ResumeRollout, RollBack, RollingRestart, SetFlag, TakeBack
from runbooks.model import RefusalReason, RestartReplica, Scale
from runbooks.ports import RefusedError, Workloads
from tests.control.dummies import DummyEstate


@dataclass
class Plant:
    """An adapter, and what its platform is like."""

    workloads: Workloads
    ids_stay: bool = True
    """A replica keeps its id for life: it is started anew under it, and the newest go first."""
    flags: str = ""
    """A configuration with the flag `mode` set to `normal`; empty: the platform has none, and can make no change."""
    nodes: set[str] = field(default_factory=set)
    set_flag: Callable[[str], None] = lambda value: None  # noqa: ARG005 - where there are no flags
    """Sets the flag by another hand than ours."""


@contextlib.asynccontextmanager
async def fake(request):
    adapter = FakeWorkloads(plant())
    adapter.things |= {"config:flags": {"mode": "normal"}, "node:n1": {}}

    def set_flag(value):
        adapter.things["config:flags"]["mode"] = value

    yield Plant(adapter, flags="flags", nodes={"n1"}, set_flag=set_flag)


@contextlib.asynccontextmanager
async def local(request):
    with tempfile.TemporaryDirectory() as root:
        async with DummyEstate(Path(root)) as estate:
            yield Plant(estate.workloads)


@contextlib.asynccontextmanager
async def kubernetes(request):
    from tests.kube.plant import Plant as Namespace
    from tests.kube.plant import adapter

    cluster, ns = request.getfixturevalue("kube"), request.getfixturevalue("ns")
    there = Namespace(cluster, ns)
    there.build()
    there.config(mode="normal")

    def set_flag(value):
        there.kubectl("patch", "configmap", "flags", "--type=merge", "-p", f'{{"data": {{"mode": "{value}"}}}}')

    names = {f"node-{n}" for n in range(3)}
    async with adapter(cluster, ns) as one:
        yield Plant(one, ids_stay=False, flags="flags", nodes=names, set_flag=set_flag)


ADAPTERS = {"fake": fake, "local": local, "kubernetes": kubernetes}
MARKS = {"kubernetes": [pytest.mark.kube]}


@pytest.fixture(params=[pytest.param(make, id=name, marks=MARKS.get(name, [])) for name, make in ADAPTERS.items()])
async def there(request):
    async with request.param(request) as found:
        yield found


@pytest.fixture
def workloads(there):
    return there.workloads


def uids(status):
    return {replica.id: replica.uid for replica in status.replicas}


async def ids(workloads):
    return sorted(uids(await workloads.status("gateway")))


async def counts(workloads, count):
    """Wait until the gateways are so many; return their uids."""
    for _ in range(600):
        found = uids(await workloads.status("gateway"))
        if len(found) == count:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{count} gateways were expected: {found}")


async def test_every_workload_is_listed_as_its_own_status_says(workloads):
    listed = {each.name: each for each in await workloads.list()}
    assert {"engine", "gateway"} <= set(listed)
    assert listed["engine"].singleton
    assert not listed["gateway"].singleton
    assert uids(await workloads.status("gateway")) == uids(listed["gateway"])


async def test_a_restart_starts_one_replica_anew_and_leaves_the_others(there, workloads):
    before = await workloads.status("gateway")
    first, second = sorted(uids(before))
    effect = await workloads.restart("gateway", first, key="r/0")
    new = uids(await workloads.status("gateway"))
    after = await workloads.status("gateway")
    assert not effect.repeated
    assert effect.before["replica"] == first
    assert effect.after["replica"] == first or not there.ids_stay
    assert new[effect.after["replica"]] not in uids(before).values()
    assert new == {effect.after["replica"]: effect.after["uid"], second: uids(before)[second]}
    assert after.generation > before.generation or not there.ids_stay  # there, a restart is no change of what is wanted


async def test_a_repeated_key_gets_the_first_answer_and_no_second_effect(workloads):
    name = (await ids(workloads))[0]
    first = await workloads.restart("gateway", name, key="r/0")
    after = uids(await workloads.status("gateway"))
    again = await workloads.restart("gateway", name, key="r/0")
    assert again.repeated
    assert (again.key, again.at, again.before, again.after) == (first.key, first.at, first.before, first.after)
    assert uids(await workloads.status("gateway")) == after


async def test_a_scale_names_the_replicas_before_and_after(there, workloads):
    two = await counts(workloads, 2)
    effect = await workloads.scale("gateway", 3, key="s/0")
    assert (effect.before["replicas"], effect.after["replicas"]) == ("2", "3")
    three = await counts(workloads, 3)
    assert (await workloads.status("gateway")).desired == 3
    assert two.items() <= three.items()
    await workloads.scale("gateway", 2, key="s/0/undo")
    left = await counts(workloads, 2)
    assert left.items() <= three.items()
    if there.ids_stay:
        assert (sorted(three), left) == (["gateway-1", "gateway-2", "gateway-3"], two)


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


# --- changes, taking back, rehearsal --------------------------------------------------------------------------------


async def test_a_scale_is_restored_once_for_its_key_unless_it_was_changed_since(workloads):
    await workloads.scale("gateway", 3, key="s")
    done = await workloads.restore("s", key="s/undo")
    assert (done.before["replicas"], done.after["replicas"]) == ("3", "2")
    assert (await workloads.restore("s", key="s/undo")).repeated
    assert (await workloads.status("gateway")).desired == 2
    await workloads.scale("gateway", 3, key="t")
    await workloads.scale("gateway", 1, key="u")
    with pytest.raises(RefusedError) as caught:
        await workloads.restore("t", key="t/undo")
    assert caught.value.reason is RefusalReason.CONFLICT
    assert (await workloads.status("gateway")).desired == 1


async def test_nothing_is_restored_of_what_was_never_done_or_leaves_nothing(workloads):
    name = (await ids(workloads))[0]
    await workloads.restart("gateway", name, key="r")
    for of in ("never", "r"):
        with pytest.raises(PermanentError):
            await workloads.restore(of, key=f"{of}/undo")


async def test_a_change_is_made_once_for_its_key_and_restored(there, workloads):
    change = SetFlag(there.flags or "flags", "mode", "reduced")
    if not there.flags:
        with pytest.raises(RefusedError) as caught:
            await workloads.change(change, key="c")
        assert caught.value.reason is RefusalReason.NOT_ALLOWED
        assert await workloads.effect("c") is None
        return
    done = await workloads.change(change, key="c")
    assert (done.before["mode"], done.after["mode"], done.repeated) == ("normal", "reduced", False)
    again = await workloads.change(change, key="c")
    assert (again.repeated, again.at, again.after) == (True, done.at, done.after)
    assert (await workloads.effect("c")).after == done.after
    back = await workloads.restore("c", key="c/undo")
    assert (back.before["mode"], back.after["mode"]) == ("reduced", "normal")
    assert (await workloads.restore("c", key="c/undo")).repeated


async def test_what_someone_else_has_written_since_is_not_restored(there, workloads):
    if not there.flags:
        pytest.skip("this platform has no flags")
    await workloads.change(SetFlag(there.flags, "mode", "reduced"), key="c")
    there.set_flag("theirs")
    with pytest.raises(RefusedError) as caught:
        await workloads.restore("c", key="c/undo")
    assert caught.value.reason is RefusalReason.CONFLICT
    assert await workloads.effect("c/undo") is None
    seen = await workloads.change(SetFlag(there.flags, "mode", "ours"), key="d")
    assert seen.before["mode"] == "theirs"


async def test_what_is_no_pair_is_not_failed_over_and_nothing_is_touched(workloads):
    before = uids(await workloads.status("gateway"))
    first = min(before)
    for ask in (workloads.rehearse, lambda action: workloads.change(action, key="f")):
        with pytest.raises(RefusedError) as caught:
            await ask(FailOver("gateway", first))
        assert caught.value.reason is RefusalReason.NOT_ALLOWED
    assert await workloads.effect("f") is None
    assert uids(await workloads.status("gateway")) == before


async def test_a_rollout_is_paused_and_resumed_and_every_replica_renewed(there, workloads):
    if not there.flags:
        for n, change in enumerate((PauseRollout("gateway"), RollingRestart("gateway"))):
            with pytest.raises(RefusedError) as caught:
                await workloads.change(change, key=f"c{n}")
            assert caught.value.reason is RefusalReason.NOT_ALLOWED
        return
    old = uids(await workloads.status("gateway"))
    await workloads.change(PauseRollout("gateway"), key="p")
    await workloads.change(ResumeRollout("gateway"), key="q")
    await workloads.change(RollingRestart("gateway"), key="rr")
    for _ in range(600):
        new = uids(await workloads.status("gateway"))
        if len(new) == 2 and not set(old.values()) & set(new.values()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{old} were not renewed: {new}")


async def test_an_unknown_target_of_a_change_is_refused(workloads):
    with pytest.raises(RefusedError):
        await workloads.change(SetFlag("nobodys", "mode", "x"), key="c")
    assert await workloads.effect("c") is None


async def test_a_rehearsal_tells_in_sentences_and_changes_nothing(there, workloads):
    name = (await ids(workloads))[0]
    before = {each.name: (uids(each), each.desired, each.generation) for each in await workloads.list()}
    actions = [RestartReplica("gateway", name), Scale("gateway", 1, 1, 4)]
    if there.flags:
        actions.append(SetFlag(there.flags, "mode", "reduced"))
    for action in actions:
        told = await workloads.rehearse(action)
        assert told
        assert all(line.strip() for line in told)
    with pytest.raises(RefusedError):
        await workloads.rehearse(RestartReplica("gateway", "gateway-9"))
    assert {each.name: (uids(each), each.desired, each.generation) for each in await workloads.list()} == before
    if there.flags:
        done = await workloads.change(SetFlag(there.flags, "mode", "reduced"), key="c")
        assert done.before["mode"] == "normal"
        assert await workloads.rehearse(TakeBack(f"config:{there.flags}", of="c"))


async def test_nodes_and_other_targets_are_told_as_far_as_there_are_any(there, workloads):
    assert {each.name for each in await workloads.nodes()} == there.nodes
    expected = {f"node:{name}" for name in there.nodes} | ({f"config:{there.flags}"} if there.flags else set())
    assert await workloads.targets() == expected


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


async def test_where_there_is_no_canary_a_roll_back_is_refused_and_touches_nothing(there, workloads):
    if there.flags:
        pytest.skip("a platform with rollouts rolls the whole workload back")
    before = await workloads.status("gateway")
    with pytest.raises(RefusedError) as refused:
        await workloads.change(RollBack("gateway"), key="rb/none")
    assert refused.value.reason is RefusalReason.NO_TARGET
    assert await workloads.effect("rb/none") is None
    assert uids(await workloads.status("gateway")) == uids(before)
