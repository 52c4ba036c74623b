"""A drill on Kubernetes: its scenarios are whole; a link counts on what the API server and its audit log say alone."""

import os
from typing import Any, get_args

import pytest

from control import scenario
from control.faults import catalog
from control.kube_links import KINDS
from control.kube_witness import KubeWitness, Write, _epoch, _is_dry
from control.links import see
from control.scenario import Link, LinkKind, load_scenario, names
from kernel.errors import InputError
from kernel.time import SECOND, Instant
from runbooks.adapters.yaml_library import LIBRARY, load_library
from runbooks.ports import Replica, WorkloadStatus

SCENARIOS = names("kubernetes")


def test_every_file_is_in_the_order_and_the_other_way_round():
    assert sorted(SCENARIOS) == sorted(path.stem for path in scenario.folder("kubernetes").glob("*.yaml"))
    assert len(SCENARIOS) == 10


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_names_what_there_is(name):
    one = load_scenario(name, "kubernetes")
    assert (one.name, one.on) == (name, "kubernetes")
    assert all((one.title, one.story, one.outcome))
    assert len({link.name for link in one.links}) == len(one.links)
    faults = {act.name for act in (*one.prepare, *one.acts) if act.do in {"fault", "clear"}}
    assert faults <= set(catalog("kubernetes"))
    runbooks, broken = load_library(LIBRARY, "kubernetes")
    assert not broken
    assert {link.runbook for link in one.links if link.runbook} <= {runbook.name for runbook in runbooks}
    answered = {alert for runbook in runbooks for alert in runbook.answers}
    assert {link.alertname for link in one.links if link.alertname} <= answered


def test_a_local_scenario_is_not_one_on_kubernetes():
    with pytest.raises(InputError, match="it is there without --on and --estate"):
        load_scenario("gateway-hang", "kubernetes")


def test_every_kind_of_link_on_kubernetes_is_a_kind():
    assert set(KINDS) <= set(get_args(LinkKind))


# --- the eyes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def witness():
    made = KubeWitness.__new__(KubeWitness)  # its eyes need a cluster; what they saw is put in by hand
    made.workloads, made.workloads_first, made.timelines = {}, {}, {}
    made.owners, made.owners_first, made.nodes, made.autoscalers = {}, {}, {}, {}
    made.lease, made.lease_first, made.lease_changed_at = {}, {}, None
    made.uids_seen, made.pids_seen, made.writes, made.runs, made.incidents = {}, {}, [], [], []
    made.fenced = 0
    return made


def pods(*uids: str, ready: bool = True, desired: int = 0, pid: int | None = None) -> dict[str, WorkloadStatus]:
    there = tuple(
        Replica(f"gateway-{uid}", pid or os.getpid(), uid, running=True, ready=ready, url="", started_at=None)
        for uid in uids
    )
    return {"gateway": WorkloadStatus("gateway", desired or len(uids), there, 1, False, "runbook", Instant(0))}


def write(resource: str = "pods/eviction", epoch: str = "1", at: int = 0) -> Write:
    return Write(Instant(at), "create", resource, "x", epoch)


def link(kind: LinkKind, **given: Any) -> Link:
    return Link(name="x", see=kind, workload="gateway", **given)


@pytest.mark.parametrize(
    ("now", "seen"),
    [
        pytest.param(pods("a", "c"), True, id="one is gone and another came"),
        pytest.param(pods("a", "b"), False, id="the same pods"),
        pytest.param(pods("a", "b", "c", desired=2), False, id="another came and none is gone"),
        pytest.param(pods("a", "c", ready=False), False, id="the other is not ready"),
        pytest.param(pods("a", "c", pid=2**22 - 3), False, id="the other has no process"),
    ],
)
def test_a_restart_is_another_pod_with_a_living_process(witness, now, seen):
    witness.workloads_first, witness.workloads = pods("a", "b"), now
    assert (see(witness, link("restarted")) is not None) is seen


def test_the_audit_log_must_show_so_many_writes_and_no_other(witness):
    assert see(witness, link("audit", count=0))
    witness.writes = [write(), write("deployments/scale")]
    assert see(witness, link("audit", count=1)) is None
    assert see(witness, link("audit", count=1, resource="pods/eviction"))
    assert see(witness, link("no_more_writes", count=1)) is None


def test_exactly_one_effect_is_one_pod_one_write_and_one_action(witness):
    witness.workloads_first = pods("a", "b")
    witness.uids_seen = {"gateway": ["a", "b", "c"]}
    witness.writes = [write()]
    action = {"type": "restart_replica", "workload": "gateway", "replica": "a"}
    done = {"kind": "action_done", "at": 2, "data": {"key": "k", "ok": True, "action": action}}
    asked = {"kind": "action_asked", "at": 1, "data": {"key": "k", "action": action}}
    witness.timelines = {"INC-1": [asked, done]}
    wanted = link("effects", resource="pods/eviction", count=1)
    assert see(witness, wanted)
    witness.uids_seen["gateway"].append("d")
    assert see(witness, wanted) is None


def owner(image: str, generation: int, *, updated: int = 2, paused: bool = False):
    containers = [{"image": image}]
    return {
        "metadata": {"generation": generation},
        "spec": {"template": {"spec": {"containers": containers}}, "paused": paused},
        "status": {"updatedReplicas": updated},
    }


@pytest.mark.parametrize(
    ("now", "seen"),
    [
        pytest.param(owner("g:1", 3), True, id="deployed and back"),
        pytest.param(owner("g:1", 1), False, id="never deployed"),
        pytest.param(owner("g:2", 2), False, id="another image"),
        pytest.param(owner("g:1", 3, updated=1), False, id="not all of them yet"),
        pytest.param(owner("g:1", 3, paused=True), False, id="paused"),
    ],
)
def test_a_roll_back_is_the_image_from_before_after_another_one(witness, now, seen):
    witness.owners_first, witness.owners = {"gateway": owner("g:1", 1)}, {"gateway": now}
    witness.workloads = pods("a", "b")
    assert (see(witness, link("deployed")) is not None) is seen


def test_a_deposed_leader_that_writes_late_is_seen(witness):
    witness.lease_first, witness.lease = {"leaseTransitions": 1}, {"leaseTransitions": 2}
    witness.lease_changed_at = Instant(10 * SECOND)
    witness.pids_seen = {"control-1": [11, 12]}
    witness.writes = [write(epoch="1", at=9 * SECOND), write(epoch="2", at=12 * SECOND)]
    assert see(witness, link("deposed_silent"))
    witness.writes.append(write(epoch="1", at=13 * SECOND))
    assert see(witness, link("deposed_silent")) is None


def test_a_leader_that_was_never_started_anew_has_not_ended(witness):
    witness.lease_first, witness.lease = {"leaseTransitions": 1}, {"leaseTransitions": 2}
    witness.lease_changed_at = Instant(0)
    witness.pids_seen = {"control-1": [11]}
    assert see(witness, link("deposed_silent")) is None


# --- the audit log --------------------------------------------------------------------------------------------------


def test_a_dry_run_is_no_write_however_it_says_so():
    assert _is_dry({"requestURI": "/x?dryRun=All"})
    assert _is_dry({"requestURI": "/x", "requestObject": {"deleteOptions": {"dryRun": ["All"]}}})
    assert not _is_dry({"requestURI": "/x", "requestObject": {}})


def test_the_epoch_is_read_where_the_write_carries_it():
    noted = {"metadata": {"annotations": {"tapewatch.example/epoch": "4"}}}
    assert _epoch({"requestObject": noted, "requestURI": "/x"}) == "4"
    assert _epoch({"requestObject": {}, "requestURI": "/x/scale?fieldManager=tapewatch-5&a=b"}) == "5"
    assert _epoch({"requestURI": "/x"}) == ""
