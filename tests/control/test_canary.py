"""A canary: one replica with a revision of its own, and how it is rolled back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from control import killswitch
from control.child import Slot, now
from control.config import RoleConfig, load_config, save_config
from control.revision import revision_of
from kernel.errors import InputError
from runbooks.changes import RollBack
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.control.dummies import DummyEstate

USUAL = RoleConfig(
    role="gateway", replica="gateway-1", state="s", port=1, engine_http_port=2, engine_stream_port=3,
    market_data_port=4, settlement_port=5, estate_port=6, control_port=7, prometheus_url="p", alertmanager_url="a",
    instruments=(),
)  # fmt: skip


@pytest.fixture
async def estate(tmp_path):
    async with DummyEstate(tmp_path) as dummy:
        yield dummy


@pytest.fixture
def role(tmp_path):
    save_config(USUAL, tmp_path / "gateway-1.json")
    return Slot("gateway-1", 1, ("python", str(tmp_path / "gateway-1.json")), tmp_path / "out")


def canary_of(estate, replica="gateway-2", revision="2.1"):
    usual = next(one for one in estate.supervisor.slots("gateway") if one.id == replica)
    return dataclasses.replace(usual, env={"MODE": "new"}, revision=revision)


async def revisions(estate):
    return [one.revision for one in (await estate.workloads.status("gateway")).replicas]


async def test_a_canary_is_one_replica_and_a_roll_back_gives_it_the_revision_of_its_peers(estate):
    first = await estate.workloads.status("gateway")
    await estate.supervisor.deploy("gateway", canary_of(estate), key="d")
    out = await estate.workloads.status("gateway")
    assert [one.revision for one in out.replicas] == ["", "2.1"]
    effect = await estate.workloads.change(RollBack("gateway"), key="b", generation=out.generation)
    back = await estate.workloads.status("gateway")
    assert await revisions(estate) == ["", ""]
    assert back.replicas[0].uid == first.replicas[0].uid, "its peer is not touched"
    assert back.replicas[1].uid not in {first.replicas[1].uid, out.replicas[1].uid}
    assert (effect.before["revision"], effect.after["revision"]) == ("2.1", "")
    again = await estate.workloads.change(RollBack("gateway"), key="b")
    assert again.repeated
    assert (await estate.workloads.status("gateway")).replicas[1].uid == back.replicas[1].uid


async def test_a_restart_keeps_a_canarys_revision(estate):
    await estate.supervisor.deploy("gateway", canary_of(estate), key="d")
    await estate.workloads.restart("gateway", "gateway-2", key="r")
    assert await revisions(estate) == ["", "2.1"]


async def test_a_second_canary_of_a_workload_is_refused(estate):
    await estate.supervisor.deploy("gateway", canary_of(estate), key="d")
    with pytest.raises(RefusedError) as refused:
        await estate.supervisor.deploy("gateway", canary_of(estate, "gateway-1", "3"), key="e")
    assert refused.value.reason is RefusalReason.CONFLICT
    assert await revisions(estate) == ["", "2.1"]


async def test_the_kill_switch_stops_a_roll_back_and_the_canary_stays(estate):
    await estate.supervisor.deploy("gateway", canary_of(estate), key="d")
    killswitch.throw(estate.kill_switch, by="ana", why="a test", at=now())
    with pytest.raises(RefusedError) as refused:
        await estate.workloads.change(RollBack("gateway"), key="b")
    assert refused.value.reason is RefusalReason.KILL_SWITCH
    assert await revisions(estate) == ["", "2.1"]


async def test_a_rehearsal_names_the_canary_and_touches_nothing(estate):
    with pytest.raises(RefusedError, match="no canary"):
        await estate.workloads.rehearse(RollBack("gateway"))
    await estate.supervisor.deploy("gateway", canary_of(estate), key="d")
    told = await estate.workloads.rehearse(RollBack("gateway"))
    assert "gateway-2 (2.1)" in told[-1]
    assert await revisions(estate) == ["", "2.1"]


def test_a_revision_changes_the_settings_it_names_and_leaves_the_usual_file(role):
    revised = revision_of(role, "2.1", {"gateway": {"engine_timeout_s": 0.5}})
    changed, usual = (load_config(Path(one.argv[-1])) for one in (revised, role))
    assert usual == USUAL
    assert changed == msgspec.structs.replace(
        USUAL, gateway=msgspec.structs.replace(USUAL.gateway, engine_timeout_s=0.5)
    )
    assert (revised.revision, revised.id, revised.port) == ("2.1", role.id, role.port)


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("../x", {}, "is no name"), ("", {}, "is no name"), ("ok", {"no_such": 1}, "'no_such' is none"),
        ("ok", {"gateway": {"engine_timeout_s": "soon"}}, "does not take them"),
    ],
)  # fmt: skip
def test_a_revision_that_makes_no_sense_is_refused_and_leaves_no_file(role, tmp_path, name, settings, told):
    with pytest.raises(InputError, match=told):
        revision_of(role, name, settings)
    assert [one.name for one in tmp_path.iterdir()] == ["gateway-1.json"]
