"""The manifests: fit for the API server's own schema, accepted by it, and true to what the exchange needs of them."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from control.testbed.cluster import Cluster
from tests.deploy.conftest import KUBERNETES, load, render

pytestmark = pytest.mark.kube

OVERLAYS = ["testbed", "production"]
EXTRAS = [
    KUBERNETES / "components" / "autoscaling" / "gateway.yaml",
    KUBERNETES / "components" / "canary" / "gateway-canary.yaml",
]
WORKLOADS = ("Deployment", "StatefulSet")


@pytest.fixture(scope="session")
def rendered(testbed_binary: Path) -> dict[str, list[dict[str, Any]]]:
    found = {overlay: load(render(testbed_binary, overlay)) for overlay in OVERLAYS}
    return {**found, "extras": [one for path in EXTRAS for one in load(path.read_text())]}


@pytest.fixture(params=[*OVERLAYS, "extras"])
def objects(request: pytest.FixtureRequest, rendered: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return copy.deepcopy(rendered[request.param])


def of(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] in kinds]


def named(one: dict[str, Any]) -> str:
    return f"{one['metadata'].get('namespace', '')}/{one['kind']}/{one['metadata']['name']}"


def pod_of(workload: dict[str, Any]) -> Any:
    return workload["spec"]["template"]["spec"]


# --- what the API server says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rendering_is_the_same_each_time(testbed_binary, overlay):
    assert len({render(testbed_binary, overlay) for _ in range(3)}) == 1


def schema_of(plant: Cluster, api_version: str, kind: str) -> dict[str, Any]:
    """Return the API server's schema of a kind, closed: a field it does not name is an error."""
    root = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
    published = plant.request("GET", f"/openapi/v3/{root}")
    group, _, version = api_version.rpartition("/")
    mark = {"group": group, "version": version, "kind": kind}
    schemas = published["components"]["schemas"]
    name = next(key for key, one in schemas.items() if mark in one.get("x-kubernetes-group-version-kind", ()))
    return {
        "$ref": f"#/components/schemas/{name}",
        "components": {"schemas": {k: closed(v) for k, v in schemas.items()}},
    }


def closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items() if key != "default"}
    if "properties" in made and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made


def test_every_object_fits_the_published_schema_without_a_field_too_many(plant, objects):
    schemas: dict[tuple[str, str], Any] = {}
    for one in objects:
        kind = (one["apiVersion"], one["kind"])
        if kind not in schemas:
            schemas[kind] = jsonschema.Draft202012Validator(schema_of(plant, *kind))
        errors = [f"{error.json_path}: {error.message}" for error in schemas[kind].iter_errors(one)]
        assert not errors, f"{named(one)}: {errors}"


def test_the_schema_check_can_fail(plant):
    check = jsonschema.Draft202012Validator(schema_of(plant, "apps/v1", "Deployment"))
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "imag": "b"}]}}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"replica": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }  # fmt: skip
    assert {error.json_path for error in check.iter_errors(deployment)} == {
        "$.spec", "$.spec.template.spec.containers[0]"
    }  # fmt: skip


def test_the_api_server_accepts_every_object_strictly(plant, objects, tmp_path):
    file = tmp_path / "objects.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [
        # a claim's template may not change where the test bed's stands, and a claim keeps the volume it has
        one for one in objects if named(one) != "exchange/StatefulSet/engine"
    ]}))  # fmt: skip
    said = plant.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict",
                         "-f", str(file))  # fmt: skip
    assert len(said.splitlines()) == len(objects) - any(named(one) == "exchange/StatefulSet/engine" for one in objects)


def test_the_engine_is_accepted_strictly_as_well(plant, rendered):
    for overlay in OVERLAYS:
        engine = next(one for one in rendered[overlay] if named(one) == "exchange/StatefulSet/engine")
        plant.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-",
                      stdin=json.dumps({**engine, "metadata": {**engine["metadata"], "name": "engine-2"}}))  # fmt: skip


def test_no_policy_has_an_expression_that_the_api_server_doubts(plant):
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

    def checked():
        policies = plant.request("GET", path)["items"]
        return policies if all(one["status"].get("observedGeneration") for one in policies) else None

    policies = plant.wait("the check of every policy", checked)
    assert len(policies) == 13
    for policy in policies:
        assert not policy["status"].get("typeChecking"), policy["metadata"]["name"]


# --- fields that a policy leaves free or holds: every field of the schema is one of both -----------------------------

APPS_V1, CORE_V1, AUTOSCALING_V2 = "apis/apps/v1", "api/v1", "apis/autoscaling/v2"
SPEC = r"object\.spec\.\?(\w+) =="
HELD = [
    # published at, schema, policy, how it writes a held field, what it leaves free
    (APPS_V1, "api.apps.v1.DeploymentSpec", "deployment-fields", r"variables\.new\.\??(\w+) ==", "template paused"),
    (APPS_V1, "api.core.v1.PodSpec", "deployment-fields", r"variables\.pod\.\?(\w+) ==", "containers"),
    (APPS_V1, "api.core.v1.Container", "deployment-fields", r"\bc\.\??(\w+) ==",
     "image args env resources livenessProbe readinessProbe startupProbe"),
    (CORE_V1, "api.core.v1.NodeSpec", "node-fields", SPEC, "unschedulable"),
    (CORE_V1, "api.core.v1.ServiceSpec", "service-fields", SPEC, "selector"),
    (CORE_V1, "api.core.v1.ConfigMap", "config-fields", r"object\.\?(\w+) ==", "apiVersion kind metadata data"),
    (AUTOSCALING_V2, "api.autoscaling.v2.HorizontalPodAutoscalerSpec", "autoscaler-fields", SPEC, "minReplicas"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "schema", "policy", "pattern", "free"), HELD, ids=[row[1] for row in HELD])
def test_every_field_that_the_api_server_knows_is_either_free_or_held(
    plant, rendered, path, schema, policy, pattern, free
):
    """A later version of Kubernetes brings fields; this tells which a policy does not know yet."""
    found = next(
        one for one in of(rendered["testbed"], "ValidatingAdmissionPolicy")
        if one["metadata"]["name"] == f"tapewatch-{policy}"
    )  # fmt: skip
    expressions = "\n".join(one["expression"] for one in found["spec"]["validations"])
    published = plant.request("GET", f"/openapi/v3/{path}")["components"]["schemas"][f"io.k8s.{schema}"]
    free_fields = set(free.split())
    held = set(re.findall(pattern, expressions))
    assert not held & free_fields
    assert held >= set(published["properties"]) - free_fields


# --- what the exchange needs ----------------------------------------------------------------------------------------


def test_every_container_is_held_down_and_bounded(objects):
    for workload in of(objects, *WORKLOADS):
        pod, where = pod_of(workload), named(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["runAsUser"] > 0, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod), where
        for container in pod["containers"]:
            held = container["securityContext"]
            assert held == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
            }, where  # fmt: skip
            assert set(container["resources"]["limits"]) == set(container["resources"]["requests"]) == {"cpu", "memory"}


def test_probes_ask_what_each_is_for(objects):
    """Startup: the journal is restored. Readiness: caught up. Liveness: the event loop alone."""
    for workload in of(objects, *WORKLOADS):
        for container in pod_of(workload)["containers"]:
            paths = {
                kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")
            }
            name = workload["metadata"]["name"]
            assert paths == {
                "startup": "/health/ready" if name == "engine" else "/health/live",
                # a control that stands by is never ready to act, and yet as good as the other one
                "readiness": "/health/live" if name == "control" else "/health/ready",
                "liveness": "/health/live",
            }  # fmt: skip
            assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} == {
                "http"
            }


def test_whoever_has_more_than_one_replica_has_a_budget(rendered):
    for overlay in OVERLAYS:
        budgets = {named(one): one["spec"] for one in of(rendered[overlay], "PodDisruptionBudget")}
        scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of(rendered[overlay], "HorizontalPodAutoscaler")}
        several = [
            one for one in of(rendered[overlay], *WORKLOADS)
            if one["spec"].get("replicas", 1) > 1 or one["metadata"]["name"] in scaled
        ]  # fmt: skip
        assert several
        for one in several:
            budget = budgets[named(one).replace(one["kind"], "PodDisruptionBudget")]
            assert budget["minAvailable"] == 1
            assert budget["selector"] == one["spec"]["selector"]


def test_the_engine_is_one_and_nobody_scales_restarts_or_drains_it(rendered):
    for overlay in OVERLAYS:
        objects = rendered[overlay]
        engine = next(one for one in of(objects, "StatefulSet") if one["metadata"]["name"] == "engine")
        assert engine["metadata"]["annotations"]["tapewatch.example/singleton"] == "true"
        assert engine["spec"]["replicas"] == 1
        assert engine["spec"]["podManagementPolicy"] == "OrderedReady"
        assert engine["spec"]["updateStrategy"] == {"type": "OnDelete"}
        assert engine["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
        budget = next(one for one in of(objects, "PodDisruptionBudget") if one["metadata"]["name"] == "engine")
        assert budget["spec"]["maxUnavailable"] == 0
        assert "engine" not in {one["spec"]["scaleTargetRef"]["name"] for one in of(objects, "HorizontalPodAutoscaler")}


def test_the_number_of_replicas_has_one_owner(rendered):
    for overlay in OVERLAYS:
        owned = {one["spec"]["scaleTargetRef"]["name"] for one in of(rendered[overlay], "HorizontalPodAutoscaler")}
        for one in of(rendered[overlay], "Deployment"):
            assert ("replicas" in one["spec"]) is (one["metadata"]["name"] not in owned), named(one)
    assert {one["metadata"]["name"]: one["spec"]["replicas"] for one in of(rendered["testbed"], *WORKLOADS)} == {
        "engine": 1, "gateway": 2, "market-data": 1, "settlement": 1, "watchdog": 1
    }  # fmt: skip


def test_the_autoscaler_stays_out_of_the_way_of_an_incident(rendered):
    autoscaler = of(rendered["production"], "HorizontalPodAutoscaler")[0]["spec"]
    assert (autoscaler["minReplicas"], autoscaler["maxReplicas"]) == (2, 4)
    assert autoscaler["metrics"][0]["type"] == "Pods", "the custom metric comes first"
    assert autoscaler["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert autoscaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def test_every_pod_is_shut_off_but_for_what_it_needs(rendered):
    for overlay in OVERLAYS:
        policies = of(rendered[overlay], "NetworkPolicy")
        for workload in of(rendered[overlay], *WORKLOADS):
            labels, where = workload["spec"]["template"]["metadata"]["labels"], named(workload)
            covering = [
                one for one in policies
                if one["metadata"]["namespace"] == workload["metadata"]["namespace"]
                and matches(one["spec"]["podSelector"], labels)
            ]  # fmt: skip
            denied = [one for one in covering if not {"ingress", "egress"} & set(one["spec"])]
            assert denied[0]["spec"]["policyTypes"] == ["Ingress", "Egress"], where
            ports = {
                port["port"] for one in covering for rule in one["spec"].get("ingress", ()) for port in rule["ports"]
            }
            assert ports == {port["containerPort"] for port in pod_of(workload)["containers"][0]["ports"]}, where
            assert all(rule.get("from") for one in covering for rule in one["spec"].get("ingress", ())), where


def test_every_way_out_has_its_way_in(rendered):
    """What one pod may call, the other one lets in: by label and port, within the exchange."""
    objects = rendered["production"]
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in of(objects, *WORKLOADS)
        if one["metadata"]["namespace"] == "exchange"
    }  # fmt: skip
    policies = [one["spec"] for one in of(objects, "NetworkPolicy") if one["metadata"]["namespace"] == "exchange"]

    def pairs(direction, peers):
        return {
            (name, other, port["port"])
            for name in labels for policy in policies if matches(policy["podSelector"], labels[name])
            for rule in policy.get(direction, ()) for peer in rule[peers]
            for other in labels
            if "namespaceSelector" not in peer and matches(peer["podSelector"], labels[other])
            for port in rule["ports"]
        }  # fmt: skip

    out = pairs("egress", "to")
    assert out == {(caller, called, port) for called, caller, port in pairs("ingress", "from")}
    assert ("gateway", "engine", 18711) in out
    assert len(out) == 5


def test_services_reach_their_pods_and_only_theirs(rendered):
    for overlay in OVERLAYS:
        for service in of(rendered[overlay], "Service"):
            found = [
                one for one in of(rendered[overlay], *WORKLOADS)
                if matches({"matchLabels": service["spec"]["selector"]}, one["spec"]["template"]["metadata"]["labels"])
            ]  # fmt: skip
            assert [named(one).split("/")[-1] for one in found] == [service["metadata"]["name"]]
            container = pod_of(found[0])["containers"][0]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports


def test_pods_mount_the_configurations_that_are_tried(rendered):
    """Those of `test_pods_meet` and `test_containerfiles`, to the letter."""
    for overlay in OVERLAYS:
        mounted = {named(one): one["data"] for one in of(rendered[overlay], "ConfigMap")}
        for room, name in (
            ("exchange", "exchange/ConfigMap/exchange-config"),
            ("control", "tapewatch/ConfigMap/control-config"),
        ):
            files = {path.name: path.read_text() for path in (KUBERNETES / "base" / room / "config").glob("*.json")}
            assert mounted.get(name, files) == files
    assert "exchange/ConfigMap/exchange-config" in mounted


def test_every_name_that_a_configuration_looks_for_is_a_service_with_that_port(rendered):
    objects = rendered["production"]
    served = {
        f"{one['metadata']['name']}.{one['metadata']['namespace']}.svc": {port["port"] for port in one["spec"]["ports"]}
        for one in of(objects, "Service")
    }
    for text in (text for one in of(objects, "ConfigMap") for text in one["data"].values() if text.startswith("{")):
        config = json.loads(text)
        assert config["listen"] == "0.0.0.0"
        assert served[config["engine_host"]] == {config["engine_http_port"], config["engine_stream_port"]}
        assert served[config["market_data_host"]] == {config["market_data_port"]}
        assert served[config["control_host"]] == {config["control_port"]}


def test_an_engine_that_is_not_ready_is_found_by_its_name_all_the_same(rendered):
    """Its journal may have failed: then it must be asked, and halted."""
    engine = next(one["spec"] for one in of(rendered["production"], "Service") if one["metadata"]["name"] == "engine")
    assert engine["clusterIP"] == "None"
    assert engine["publishNotReadyAddresses"] is True


def test_control_is_let_in_by_control(rendered):
    """Who stands by passes a webhook on to the leader."""
    policy = next(
        one["spec"] for one in of(rendered["production"], "NetworkPolicy")
        if named(one) == "tapewatch/NetworkPolicy/control"
    )  # fmt: skip
    itself = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "control"}}}
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        assert any(itself in rule.get(peers, ()) and {"protocol": "TCP", "port": 18700} in rule["ports"]
                   for rule in policy[direction])  # fmt: skip


def test_namespaces_are_restricted(rendered):
    for overlay in OVERLAYS:
        for one in of(rendered[overlay], "Namespace"):
            levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
            assert levels.items() <= one["metadata"]["labels"].items()


def test_labels_name_every_workload(objects):
    for one in objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] in {"exchange", "tapewatch"}, named(one)
    for one in of(objects, *WORKLOADS):
        labels = one["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == one["metadata"]["name"]
        assert one["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/name": one["metadata"]["name"]}}


def test_only_the_control_plane_holds_a_token(rendered):
    holders = {
        one["metadata"]["name"]: pod_of(one)["serviceAccountName"]
        for one in of(rendered["production"], *WORKLOADS) if pod_of(one)["automountServiceAccountToken"]
    }  # fmt: skip
    assert holders == {"control": "tapewatch", "kube-state": "tapewatch-kube-state"}


def test_pods_of_the_test_bed_begin_unready_and_name_their_role(rendered):
    workloads = of(rendered["testbed"], *WORKLOADS)
    assert len(workloads) == 5
    for one in workloads:
        metadata = one["spec"]["template"]["metadata"]
        assert metadata["labels"]["testbed-unready"] == "true"
        assert metadata["annotations"] == {"testbed/host": "true", "tapewatch.example/role": one["metadata"]["name"]}
        assert pod_of(one)["containers"][0]["image"] == f"tapewatch/{one['metadata']['name']}:1"


def test_pods_of_the_test_bed_are_scheduled(plant):
    """Claims are bound and nothing is asked of a node that it does not have."""

    def running():
        pods = plant.request("GET", "/api/v1/namespaces/exchange/pods")["items"]
        names = {
            pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in pods if pod["status"]["phase"] == "Running"
        }
        return names >= {"engine", "gateway", "market-data", "settlement", "watchdog"}

    plant.wait("a running pod of every workload", running)


def test_the_canary_is_a_gateway_in_all_but_name(rendered):
    canary = next(one for one in rendered["extras"] if one["kind"] == "Deployment")
    gateway = next(one for one in of(rendered["testbed"], "Deployment") if one["metadata"]["name"] == "gateway")
    pods = [copy.deepcopy(pod_of(one)) for one in (canary, gateway)]
    for pod in pods:
        pod.pop("topologySpreadConstraints", None)
    assert pods[0] == pods[1]
    assert canary["spec"]["replicas"] == 1
    assert canary["spec"]["template"]["metadata"]["labels"]["tapewatch.example/serves"] == "gateway"


def test_only_text_that_yaml_means_as_text_is_used():
    """`yes`, `on` and octal numbers mean different things to different readers."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            for note in strings(document.get("metadata", {})):
                assert isinstance(note, str), f"{path.name}: {note!r} in a label or annotation"


def strings(metadata: dict[str, Any]) -> list[Any]:
    return [value for part in ("labels", "annotations") for value in metadata.get(part, {}).values()]
