from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from control import killswitch
from control.child import now
from control.effects import EffectLog
from control.plan import free_ports
from control.supervisor import Supervisor, WorkloadSpec
from kernel.errors import PermanentError
from runbooks.adapters.local import LocalWorkloads
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.control.dummies import DummyEstate, slot, specs
from tests.standing import stop


async def until(claim, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.02)


@pytest.fixture
async def estate(tmp_path):
    async with DummyEstate(tmp_path) as dummy:
        yield dummy


async def test_a_hung_replica_is_restarted_on_its_port_with_a_new_process(tmp_path):
    async with DummyEstate(tmp_path, specs(tmp_path, grace_s=600.0)) as estate:
        before = (await estate.workloads.status("gateway")).replicas[0]
        stop(before.pid)
        async with asyncio.timeout(60):  # a stopped process is killed at once, without the grace time
            effect = await estate.workloads.restart("gateway", "gateway-1", key="k1")
        after = (await estate.workloads.status("gateway")).replicas[0]
        assert (after.url, after.running) == (before.url, True)
        assert after.pid != before.pid
        assert (effect.before["pid"], effect.after["pid"]) == (str(before.pid), str(after.pid))
        await until(lambda: estate.supervisor.status("gateway").ready == 2)


async def test_a_repeated_key_answers_the_first_effect_and_does_nothing(estate):
    first = await estate.workloads.restart("gateway", "gateway-1", key="once")
    again = await estate.workloads.restart("gateway", "gateway-1", key="once")
    assert again.repeated
    assert again.after == first.after
    assert estate.supervisor.starts["gateway"] == 3
    assert (await estate.workloads.effect("once")).after == first.after
    assert await estate.workloads.effect("never") is None


async def test_ten_repeats_at_the_same_time_restart_once(estate):
    effects = await asyncio.gather(*(estate.workloads.restart("gateway", "gateway-2", key="same") for _ in range(10)))
    assert sum(not effect.repeated for effect in effects) == 1
    assert estate.supervisor.starts["gateway"] == 3


async def test_a_key_used_for_something_else_is_a_conflict(estate):
    await estate.workloads.restart("gateway", "gateway-1", key="k")
    with pytest.raises(RefusedError) as refused:
        await estate.workloads.scale("gateway", 3, key="k")
    assert refused.value.reason is RefusalReason.CONFLICT


async def test_gateways_scale_out_and_the_newest_goes_first(estate):
    await estate.workloads.scale("gateway", 4, key="out")
    assert [r.id for r in (await estate.workloads.status("gateway")).replicas] == [f"gateway-{i}" for i in (1, 2, 3, 4)]
    pids = {replica.id: replica.pid for replica in (await estate.workloads.status("gateway")).replicas}
    effect = await estate.workloads.scale("gateway", 2, key="in")
    assert (effect.before, effect.after) == ({"workload": "gateway", "replicas": "4"}, {"replicas": "2"})
    assert not psutil.pid_exists(pids["gateway-3"])
    assert psutil.pid_exists(pids["gateway-1"])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda w: w.scale("engine", 2, key="a"), RefusalReason.SINGLETON),
        (lambda w: w.scale("gateway", 5, key="b"), RefusalReason.NOT_ALLOWED),
        (lambda w: w.scale("gateway", 0, key="c"), RefusalReason.NOT_ALLOWED),
        (lambda w: w.restart("control", "control-1", key="d"), RefusalReason.NOT_ALLOWED),
        (lambda w: w.restart("gateway", "gateway-1", key="e", generation=77), RefusalReason.CONFLICT),
        (lambda w: w.restart("gateway", "gateway-9", key="f"), RefusalReason.NO_TARGET),
        (lambda w: w.restart("nothing", "x", key="g"), RefusalReason.NO_TARGET),
        (lambda w: w.scale("", 1, key="h"), RefusalReason.NO_TARGET),
    ],
)
async def test_a_rail_refuses_with_its_reason_and_touches_nothing(estate, write, reason):
    before = [status.replicas for status in await estate.workloads.list()]
    with pytest.raises(RefusedError) as refused:
        await write(estate.workloads)
    assert refused.value.reason is reason
    pids = [[r.pid for r in replicas] for replicas in before]
    assert [[r.pid for r in status.replicas] for status in await estate.workloads.list()] == pids


async def test_the_kill_switch_stops_automatic_writes_and_lets_a_person_act(estate):
    killswitch.throw(estate.kill_switch, by="ann", why="drill", at=now())
    with pytest.raises(RefusedError) as refused:
        await estate.workloads.restart("gateway", "gateway-1", key="k")
    assert refused.value.reason is RefusalReason.KILL_SWITCH
    assert "ann" in str(refused.value)
    assert estate.supervisor.starts["gateway"] == 2
    async with LocalWorkloads(estate.url, estate.token, by="person") as person:
        assert not (await person.restart("gateway", "gateway-1", key="p")).repeated
    killswitch.release(estate.kill_switch)
    assert not (await estate.workloads.restart("gateway", "gateway-1", key="k")).repeated, (
        "the refused key was not used up"
    )


async def test_a_generation_grows_with_every_write(estate):
    first = (await estate.workloads.status("gateway")).generation
    await estate.workloads.restart("gateway", "gateway-1", key="k", generation=first)
    assert (await estate.workloads.status("gateway")).generation > first


async def test_a_dead_exchange_replica_is_only_noted(estate):
    os.kill((await estate.workloads.status("gateway")).replicas[0].pid, signal.SIGKILL)
    await until(lambda: estate.supervisor.exits["gateway"] == 1)
    replica = (await estate.workloads.status("gateway")).replicas[0]
    assert (replica.running, replica.ready, replica.pid) == (False, False, None)
    assert any("gateway-1 ended with code -9" in line for line in estate.logged)
    effect = await estate.workloads.restart("gateway", "gateway-1", key="k")
    assert effect.before["pid"] == "none"


async def test_a_dead_platform_process_is_mended(estate):
    pid = (await estate.workloads.status("control")).replicas[0].pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: estate.supervisor.mends["control"] == 1 and estate.supervisor.status("control").ready == 1)
    assert (await estate.workloads.status("control")).replicas[0].pid != pid


async def test_a_hung_platform_process_is_killed_and_mended(estate):
    os.kill((await estate.workloads.status("control")).replicas[0].pid, signal.SIGSTOP)
    await until(lambda: estate.supervisor.mends["control"] == 1 and estate.supervisor.status("control").ready == 1)
    assert any("has not answered for 3 s" in line for line in estate.logged)


async def test_a_held_platform_process_stays_down_until_released(estate):
    await estate.workloads.hold("control", hold=True)
    await until(lambda: estate.supervisor.exits["control"] == 1)
    assert estate.supervisor.mends["control"] == 0
    assert not estate.supervisor.status("control").replicas[0].running
    await estate.workloads.hold("control", hold=False)
    await until(lambda: estate.supervisor.status("control").ready == 1)


async def test_signals_reach_the_replica_named(estate):
    await estate.workloads.signal("gateway-2", "STOP")
    pid = (await estate.workloads.status("gateway")).replicas[1].pid
    await until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    await until(lambda: not estate.supervisor.status("gateway").replicas[1].ready)
    with pytest.raises(PermanentError, match="allowed are STOP"):
        await estate.workloads.signal("gateway-2", "HUP")


async def test_without_the_token_nothing_is_told(estate):
    async with LocalWorkloads(estate.url, "wrong") as stranger:
        with pytest.raises(PermanentError, match="admin token"):
            await stranger.list()


async def test_a_program_that_ends_at_once_is_told_with_its_last_words(tmp_path):
    code = "import sys; sys.exit('no disk left on the moon')"
    broken = WorkloadSpec("broken", (slot(tmp_path, "broken-1", free_ports(1)[0], code),), 1)
    with pytest.raises(
        PermanentError, match=r"broken-1 ended with code 1 before it was ready: no disk left on the moon"
    ):
        async with DummyEstate(tmp_path, [broken]):
            pass


async def test_effects_survive_a_restart_of_the_supervisor(tmp_path):
    workloads = specs(tmp_path)
    async with DummyEstate(tmp_path, workloads) as first:
        effect = await first.workloads.restart("gateway", "gateway-1", key="k")
        generation = (await first.workloads.status("gateway")).generation
    async with DummyEstate(tmp_path, workloads) as second:
        again = await second.workloads.restart("gateway", "gateway-1", key="k")
        assert again.repeated
        assert again.after == effect.after
        assert second.supervisor.starts["gateway"] == 2
        assert (await second.workloads.status("gateway")).generation > generation


PARENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.control.dummies import DummyEstate
async def main():
    async with DummyEstate(Path(sys.argv[1])) as estate:
        for status in estate.supervisor.all():
            for replica in status.replicas:
                print(replica.pid, flush=True)
        print("up", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def test_kill_9_of_the_supervisor_leaves_no_orphan_not_even_a_stopped_one(tmp_path):
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=root), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    pids = []
    assert parent.stdout is not None
    for line in parent.stdout:
        if line.strip() == "up":
            break
        pids.append(int(line))
    assert len(pids) == 4
    os.kill(pids[1], signal.SIGSTOP)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < deadline, f"orphans: {[pid for pid in pids if _lives(pid)]}"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


async def test_a_begun_restart_counts_as_done_after_a_crash_of_the_estate(tmp_path):
    path = tmp_path / "effects.log"
    log = EffectLog.open(path, at=now())
    log.close()
    path.write_bytes(
        path.read_bytes()
        + b'{"phase":"begin","key":"r","workload":"gateway","request":"restart gateway g","by":"","at":1,"before":{}}\n'
        + b'{"phase":"begin","key":"s","workload":"gw","request":"scale gw to 3","by":"","at":1,"before":{}}\n'
        + b'{"phase":"done","key":"s","a'
    )
    log = EffectLog.open(path, at=now())
    found = log.find("r")
    assert found is not None
    assert "interrupted" in found.after
    assert log.find("s") is None
    log.close()
    assert path.read_bytes().endswith(b"\n"), "the torn line is gone"


async def test_a_broken_record_in_the_middle_is_refused_with_its_offset(tmp_path):
    path = tmp_path / "effects.log"
    path.write_bytes(b'{"phase":"boot","at":1}\nrubbish\n{"phase":"boot","at":2}\n')
    with pytest.raises(PermanentError, match="byte 24 is broken"):
        EffectLog.open(path, at=now())


def test_a_missing_program_is_named(tmp_path):
    async def attempt():
        effects = EffectLog.open(tmp_path / "e", at=now())
        absent = slot(tmp_path, "x-1", 1)
        absent = type(absent)("x-1", 1, ("/nowhere/prometheus",), tmp_path / "o")
        supervisor = Supervisor(
            [WorkloadSpec("x", (absent,), 1)], effects, kill_switch=tmp_path / "k", allowed=frozenset(),
            log=lambda *_, **__: None, on_change=lambda: None,
        )  # fmt: skip
        try:
            with pytest.raises(
                PermanentError, match=r"there is no program /nowhere/prometheus; see `tapewatch doctor`"
            ):
                await supervisor.start("x")
        finally:
            effects.close()

    asyncio.run(attempt())
