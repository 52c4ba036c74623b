"""What is said of a cluster: kube-state-metrics' names, nothing of what is gone, nothing that nobody confirms."""

import json

import msgspec
import pytest

from kernel.time import SECOND, Instant
from monitor.adapters import kube_exporter
from monitor.adapters.exporter import samples as read
from monitor.adapters.kube_exporter import SILENCE_MAX, KubeExporter
from monitor.catalog import BY_NAME, CATALOG, Kind, Role, of
from monitor.kube_objects import (
    Deployment,
    HorizontalPodAutoscaler,
    Node,
    Pod,
    PodDisruptionBudget,
    Service,
    StatefulSet,
)
from monitor.kube_state import quantity, samples

NOW = Instant(1_000 * SECOND)
GATEWAY = {"namespace": "exchange", "name": "gateway"}
DEPLOYMENT = {
    "metadata": {**GATEWAY, "generation": 7, "annotations": {"ignored": "yes"}},
    "spec": {"replicas": 3, "paused": True, "template": {}},
    "status": {
        "observedGeneration": 6, "replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "unavailableReplicas": 1,
        "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}],
    },
}  # fmt: skip
POD = {
    "metadata": {
        "namespace": "exchange", "name": "gateway-5d4-abc", "uid": "u1", "deletionTimestamp": "1970-01-01T00:00:09Z",
        "labels": {"app.kubernetes.io/name": "gateway", "app.kubernetes.io/part-of": "exchange", "other": "left out"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "gateway-5d4", "controller": True, "uid": "r"}],
    },
    "spec": {
        "nodeName": "n1",
        "containers": [{"name": "main", "resources": {"limits": {"cpu": 1, "memory": "512Mi"}}}],
    },
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}],
        "containerStatuses": [{
            "name": "main", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "x"}},
            "lastState": {"terminated": {"exitCode": 78, "reason": "Error"}},
        }],
    },
}  # fmt: skip


class Still:
    """A clock that is set by hand."""

    def __init__(self):
        self.at = NOW

    def now(self):
        return self.at


def said(thing, kind):
    return {(one.name, one.labels): one.value for one in samples(msgspec.convert(thing, kind))}


@pytest.fixture
def page():
    exporter = KubeExporter(Still(), process=False)
    exporter.heard(NOW)
    return exporter


def shown(exporter):
    """Return each sample by its name and its labels' values in the catalogue's order."""
    return {
        (name, *(labels[label] for label in BY_NAME[name].labels)): value
        for name, labels, value in read(exporter.render())
        if name in BY_NAME
    }


def test_a_deployment_is_told_with_its_condition_in_all_three_statuses():
    facts = said(DEPLOYMENT, Deployment)
    here = ("exchange", "gateway")
    assert facts[("kube_deployment_spec_replicas", here)] == 3
    assert facts[("kube_deployment_spec_paused", here)] == 1
    assert facts[("kube_deployment_metadata_generation", here)] == 7
    assert facts[("kube_deployment_status_observed_generation", here)] == 6
    assert facts[("kube_deployment_status_replicas_ready", here)] == 2
    assert facts[("kube_deployment_status_replicas_available", here)] == 0, "what the server leaves out is 0"
    why = (*here, "ProgressDeadlineExceeded", "Progressing")
    assert [facts[("kube_deployment_status_condition", (*why, s))] for s in ("true", "false", "unknown")] == [0, 1, 0]


def test_a_pod_is_told_with_its_workload_its_node_and_how_its_container_does():
    facts = said(POD, Pod)
    here = ("exchange", "gateway-5d4-abc", "u1")
    assert facts[("kube_pod_labels", (*here, "gateway", "exchange"))] == 1
    assert facts[("kube_pod_info", (*here, "n1"))] == 1
    assert facts[("kube_pod_owner", (*here, "ReplicaSet", "gateway-5d4", "true"))] == 1
    assert facts[("kube_pod_deletion_timestamp", here)] == 9
    assert facts[("kube_pod_status_ready", (*here, "true"))] == 0
    assert facts[("kube_pod_status_ready", (*here, "false"))] == 1
    assert facts[("kube_pod_status_phase", (*here, "Running"))] == 1
    assert facts[("kube_pod_status_phase", (*here, "Failed"))] == 0
    assert facts[("kube_pod_container_status_restarts_total", (*here, "main"))] == 4
    assert facts[("kube_pod_container_status_waiting_reason", (*here, "main", "CrashLoopBackOff"))] == 1
    assert facts[("kube_pod_container_status_last_terminated_exitcode", (*here, "main"))] == 78
    assert facts[("kube_pod_container_resource_limits", (*here, "main", "n1", "memory", "byte"))] == 512 * 2**20
    assert facts[("kube_pod_container_resource_limits", (*here, "main", "n1", "cpu", "core"))] == 1


def test_a_pod_that_nobody_deletes_and_that_waits_for_nothing_is_not_said_to():
    names = {name for name, _ in said({"metadata": {"name": "p"}, "status": {"phase": "Pending"}}, Pod)}
    assert not names & {"kube_pod_deletion_timestamp", "kube_pod_status_ready"}
    assert not {name for name in names if "waiting" in name or "terminated" in name}


def test_a_reason_that_is_not_known_becomes_other():
    pod = {"status": {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "Invented 17 times"}}}]}}
    assert ("kube_pod_container_status_waiting_reason", ("", "", "", "c", "other")) in said(pod, Pod)


def test_the_other_kinds_are_told():
    node = {"metadata": {"name": "n1"}, "spec": {"unschedulable": True},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}  # fmt: skip
    facts = said(node, Node)
    assert facts[("kube_node_spec_unschedulable", ("n1",))] == 1
    assert facts[("kube_node_status_condition", ("n1", "Ready", "unknown"))] == 1
    assert facts[("kube_node_status_condition", ("n1", "Ready", "true"))] == 0
    hpa = {"metadata": GATEWAY, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "gateway"}, "minReplicas": 2,
           "maxReplicas": 4}, "status": {"currentReplicas": 3, "desiredReplicas": 4}}  # fmt: skip
    facts = said(hpa, HorizontalPodAutoscaler)
    assert [facts[(f"kube_horizontalpodautoscaler_{name}", ("exchange", "gateway"))] for name in (
        "spec_min_replicas", "spec_max_replicas", "status_current_replicas", "status_desired_replicas",
    )] == [2, 4, 3, 4]  # fmt: skip
    assert ("kube_horizontalpodautoscaler_info", ("exchange", "gateway", "Deployment", "gateway")) in facts
    budget = said({"metadata": GATEWAY, "status": {"disruptionsAllowed": 1}}, PodDisruptionBudget)
    assert budget == {("kube_poddisruptionbudget_status_pod_disruptions_allowed", ("exchange", "gateway")): 1}
    engine = said(
        {"metadata": {"name": "engine"}, "spec": {"replicas": 1}, "status": {"readyReplicas": 1}}, StatefulSet
    )
    assert engine[("kube_statefulset_replicas", ("", "engine"))] == 1
    assert engine[("kube_statefulset_status_replicas_ready", ("", "engine"))] == 1


@pytest.mark.parametrize(
    ("selector", "colour"),
    [
        ({"app.kubernetes.io/name": "engine"}, "none"),
        ({"app.kubernetes.io/name": "engine-green"}, "green"),
        ({"tapewatch.example/serves": "engine-blue", "app.kubernetes.io/part-of": "exchange"}, "blue"),
        ({}, "none"),
    ],
)
def test_a_service_is_told_with_the_colour_it_leads_to(selector, colour):
    service = {"metadata": {"namespace": "exchange", "name": "engine"}, "spec": {"selector": selector}}
    assert said(service, Service) == {("tapewatch_kube_service_colour", ("exchange", "engine", colour)): 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [("512Mi", 512 * 2**20), ("1Gi", 2**30), ("250m", 0.25), ("2", 2), ("1k", 1000), ("1e3", 1000), ("?", 0)],
)
def test_quantities_are_read_in_their_base_unit(text, value):
    assert quantity(text) == pytest.approx(value)


def test_every_sample_stands_in_the_catalogue_with_as_many_labels():
    things = [(DEPLOYMENT, Deployment), (POD, Pod), ({"status": {"conditions": [{"type": "Ready"}]}}, Node)]
    things += [({}, kind) for kind in (StatefulSet, HorizontalPodAutoscaler, PodDisruptionBudget, Service)]
    told = [one for thing, kind in things for one in samples(msgspec.convert(thing, kind))]
    for one in told:
        assert BY_NAME[one.name].role is Role.KUBE_STATE
        assert len(BY_NAME[one.name].labels) == len(one.labels), one.name
    of_objects = {metric.name for metric in of(Role.KUBE_STATE) if not metric.name.startswith("tapewatch_")}
    assert of_objects <= {one.name for one in told}, "what the catalogue promises is told of some object"
    assert BY_NAME["kube_pod_container_status_restarts_total"].kind is Kind.COUNTER


def test_an_object_is_read_from_the_servers_json_and_from_other_structs():
    class Meta(msgspec.Struct):
        name: str
        namespace: str

    class Thing(msgspec.Struct):
        metadata: Meta

    raw = msgspec.json.decode(json.dumps(DEPLOYMENT), type=Deployment)
    assert raw == msgspec.convert(DEPLOYMENT, Deployment)
    assert msgspec.convert(Thing(Meta("n", "x")), Node, from_attributes=True).metadata.name == "n"


def test_a_watch_fills_the_page_and_what_is_gone_has_no_series(page):
    on_change = page.follow("Pod")
    on_change("exchange/gateway-5d4-abc", msgspec.convert(POD, Pod))
    assert shown(page)[("kube_pod_container_status_restarts_total", "exchange", "gateway-5d4-abc", "u1", "main")] == 4
    assert shown(page)[("tapewatch_kube_objects", "Pod")] == 1
    on_change("exchange/gateway-5d4-abc", None)
    assert not [key for key in shown(page) if "gateway-5d4-abc" in key]
    assert shown(page)[("tapewatch_kube_objects", "Pod")] == 0


def test_what_changed_is_shown_with_its_new_value_alone(page):
    on_change = page.follow("Deployment")
    on_change("exchange/gateway", msgspec.convert(DEPLOYMENT, Deployment))
    page.render()
    healed = {**DEPLOYMENT, "status": {"readyReplicas": 3, "conditions": []}}
    on_change("exchange/gateway", msgspec.convert(healed, Deployment))
    facts = shown(page)
    assert facts[("kube_deployment_status_replicas_ready", "exchange", "gateway")] == 3
    assert not [key for key in facts if key[0] == "kube_deployment_status_condition"]


def test_facts_that_the_server_no_longer_confirms_are_not_shown():
    clock = Still()
    page = KubeExporter(clock, process=False)
    page.follow("Deployment")("exchange/gateway", msgspec.convert(DEPLOYMENT, Deployment))
    assert not [key for key in shown(page) if key[0].startswith("kube_")], "nothing was heard yet"
    page.heard(NOW)
    assert page.silent is False
    clock.at = Instant(NOW + SILENCE_MAX)
    assert ("kube_deployment_spec_replicas", "exchange", "gateway") in shown(page)
    clock.at = Instant(NOW + SILENCE_MAX + 1)
    assert page.silent
    every = tuple(metric.name for metric in CATALOG if metric.role is None)
    assert [key for key in shown(page) if not key[0].startswith(("tapewatch_kube_objects", *every))] == [
        ("tapewatch_kube_heard_timestamp_seconds",)
    ]
    page.heard(clock.at)
    assert ("kube_deployment_spec_replicas", "exchange", "gateway") in shown(page)


def test_being_heard_of_earlier_takes_nothing_back(page):
    page.heard(Instant(NOW - SECOND))
    assert shown(page)[("tapewatch_kube_heard_timestamp_seconds",)] == 1_000


def test_a_cluster_beyond_the_bound_is_shown_in_part_and_says_so(page, monkeypatch):
    monkeypatch.setattr(kube_exporter, "OBJECTS_MAX", 2)
    on_change = page.follow("Node")
    for number in range(5):
        on_change(f"/n{number}", msgspec.convert({"metadata": {"name": f"n{number}"}}, Node))
    facts = shown(page)
    assert len([key for key in facts if key[0] == "kube_node_spec_unschedulable"]) == 2
    assert facts[("tapewatch_kube_objects_left_out", "Node")] == 3


def test_the_end_of_certificates_is_told(page):
    page.certificate("server", Instant(5 * SECOND))
    assert shown(page)[("tapewatch_kube_certificate_expiry_timestamp_seconds", "server")] == 5
