"""A link counts as seen only on what a witness really saw."""

import os
from typing import get_args

import pytest

from control.layout import Layout
from control.learned_links import why_not
from control.links import see
from control.scenario import Link, LinkKind
from control.witness import Witness
from kernel.time import SECOND, Instant
from runbooks.ports import Replica, WorkloadStatus


@pytest.fixture
def witness(tmp_path):
    layout = Layout(tmp_path)
    layout.secret("admin").parent.mkdir(parents=True, exist_ok=True)
    layout.secret("admin").write_text("secret-of-the-test")
    return Witness(layout)


def gateway(pid, *, ready=True, desired=1):
    replica = Replica("gateway-1", pid, f"u{pid}", running=True, ready=ready, url="", started_at=None)
    return {"gateway": WorkloadStatus("gateway", desired, (replica,), 1, False, "runbook", Instant(0))}


def incident(**more):
    base = {
        "id": "INC-1",
        "title": "t",
        "alerts": {"f": {"name": "GatewayDown"}},
        "merged_into": "",
        "state": "resolved",
    }
    return {**base, **more}


def test_nothing_is_seen_by_a_witness_that_saw_nothing(witness):
    for kind in set(get_args(LinkKind)) - {"suppressed", "untouched", "reading"}:
        assert see(witness, Link(name="x", see=kind, workload="gateway", at_least=1)) is None, kind


@pytest.mark.parametrize(
    ("before", "now", "seen"),
    [
        pytest.param(1, os.getpid(), True, id="another process that lives and is ready"),
        pytest.param(os.getpid(), os.getpid(), False, id="the same process"),
        pytest.param(1, 2**22 - 3, False, id="a process that is not there"),
    ],
)
def test_a_restart_is_another_living_process(witness, before, now, seen):
    witness.workloads_first, witness.workloads = gateway(before), gateway(now)
    link = Link(name="x", see="restarted", workload="gateway", replica="gateway-1")
    assert (see(witness, link) is not None) is seen


def test_a_restarted_process_that_is_not_ready_does_not_count(witness):
    witness.workloads_first, witness.workloads = gateway(1), gateway(os.getpid(), ready=False)
    assert see(witness, Link(name="x", see="restarted", workload="gateway")) is None


def test_one_incident_means_one_that_is_over_with_just_its_runs(witness):
    link = Link(name="x", see="one_incident", count=1)
    witness.runs = [{"outcome": "mended"}, {"outcome": "not_applicable"}]
    witness.incidents = [incident(), incident(id="INC-2", merged_into="INC-1")]
    assert see(witness, link) is not None
    witness.incidents = [incident(), incident(id="INC-2")]
    assert see(witness, link) is None
    witness.incidents = [incident(state="open")]
    assert see(witness, link) is None
    witness.incidents, witness.runs = [incident()], [{"outcome": "mended"}, {"outcome": "failed"}]
    assert see(witness, link) is None


def test_an_alert_of_another_name_or_symbol_is_not_the_one(witness):
    labels = {"alertname": "SequenceGap", "symbol": "TWA"}
    witness.alerts_seen["f"] = {"labels": labels, "startsAt": "now"}
    assert see(witness, Link(name="x", see="alert", alertname="SequenceGap", symbol="TWA"))
    assert see(witness, Link(name="x", see="alert", alertname="SequenceGap", symbol="TWB")) is None
    assert see(witness, Link(name="x", see="alert", alertname="BookCrossed")) is None


def test_an_action_after_the_kill_switch_is_noticed(witness):
    link = Link(name="x", see="no_action_after_switch")
    refused = {"kind": "run_declined", "at": 0, "text": "not begun", "data": {"reason": "kill_switch"}}
    done = {"kind": "action_done", "at": 10 * SECOND, "text": "done", "data": {"ok": True}}
    witness.switch_thrown_at = Instant(5 * SECOND)
    witness.timelines["INC-1"] = [refused]
    assert see(witness, link) is not None
    witness.timelines["INC-1"] = [refused, done]
    assert see(witness, link) is None


def acted(key, **action):
    data = {"key": key, "action": action}
    return [
        {"kind": "action_asked", "at": 1, "data": data},
        {"kind": "action_done", "at": 2, "data": {**data, "ok": True}},
    ]


def test_what_another_incident_has_done_elsewhere_is_no_second_effect(witness):
    link = Link(name="x", see="effects", workload="gateway", replica="gateway-1", count=1)
    witness.workloads_first, witness.pids_seen = gateway(1), {"gateway-1": [1, 2]}
    restart = {"type": "restart_replica", "workload": "gateway", "replica": "gateway-1"}
    witness.timelines = {"INC-1": acted("k", **restart)}
    assert see(witness, link)
    witness.timelines["INC-2"] = acted("l", type="scale", workload="gateway") + acted("m", type="halt", symbol="TWA")
    assert see(witness, link), "the machine was busy, and somebody scaled out"
    witness.timelines["INC-2"] += acted("n", **restart)
    assert see(witness, link) is None
    assert why_not(witness, link) == "2 done of 2 asked; processes seen [1, 2]"


def test_a_second_process_of_the_replica_is_a_second_effect_whatever_was_told(witness):
    link = Link(name="x", see="effects", workload="gateway", replica="gateway-1", count=1)
    witness.workloads_first, witness.pids_seen = gateway(1), {"gateway-1": [1, 2, 3]}
    witness.timelines = {"INC-1": acted("k", type="restart_replica", workload="gateway", replica="gateway-1")}
    assert see(witness, link) is None
