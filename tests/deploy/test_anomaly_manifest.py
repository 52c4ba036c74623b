"""The detectors' manifest, read as it is written: true to the role, its image and its needs. No cluster is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from control.config import load_config
from deploy.containers import write as containers
from deploy.kubernetes import write_config as configs

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
CONTROL = KUBERNETES / "base" / "control"
PORT = configs.PORTS["anomaly"]


def read(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


@pytest.fixture(scope="module")
def objects():
    return {one["kind"]: one for one in read(CONTROL / "anomaly.yaml")}


@pytest.fixture(scope="module")
def pod(objects):
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def policies():
    return {one["metadata"]["name"]: one["spec"] for one in read(CONTROL / "network.yaml")}


def test_it_is_part_of_the_control_plane_with_its_image_and_configuration(objects, pod):
    listed = read(CONTROL / "kustomization.yaml")[0]
    assert "anomaly.yaml" in listed["resources"]
    assert "config/anomaly.json" in listed["configMapGenerator"][0]["files"]
    (container,) = pod["containers"]
    assert container["image"] == "tapewatch/anomaly:1"
    images = {one["name"] for one in read(KUBERNETES / "overlays" / "production" / "kustomization.yaml")[0]["images"]}
    assert images == {f"tapewatch/{role}" for role in configs.PORTS}
    config = load_config(CONTROL / "config" / "anomaly.json")
    assert (config.role, config.port, config.kube) == ("anomaly", PORT, None)
    assert {port["containerPort"] for port in container["ports"]} == {PORT} == {containers.IMAGES["anomaly"].port}
    assert [port["port"] for port in objects["Service"]["spec"]["ports"]] == [PORT]


def test_two_never_keep_one_state_and_what_it_learnt_outlives_its_pod(objects, pod):
    spec = objects["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    state = next(one for one in pod["volumes"] if one["name"] == "state")
    assert state["persistentVolumeClaim"]["claimName"] == objects["PersistentVolumeClaim"]["metadata"]["name"]


def test_machine_code_is_kept_where_it_can_be_written(pod):
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    code = next(one["value"] for one in container["env"] if one["name"] == "NUMBA_CACHE_DIR")
    state = load_config(CONTROL / "config" / "anomaly.json").state
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    assert code.startswith(f"{state}/")
    assert not mounts[state].get("readOnly")


def test_it_holds_no_token_and_no_secret(pod):
    assert pod["automountServiceAccountToken"] is False
    assert not any("secret" in one for one in pod["volumes"])


def test_prometheus_and_control_come_in_and_only_prometheus_is_asked(policies):
    own = policies["anomaly"]
    control = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "control"}}}
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert own["ingress"] == [{"from": [monitoring, control], "ports": [{"protocol": "TCP", "port": PORT}]}]
    assert own["egress"] == [{"to": [monitoring], "ports": [{"protocol": "TCP", "port": 9090}]}]
    detectors = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "anomaly"}}}
    assert {"to": [detectors], "ports": [{"protocol": "TCP", "port": PORT}]} in policies["control"]["egress"]


def test_control_looks_for_it_at_its_service(objects):
    url = load_config(CONTROL / "config" / "control.json").anomaly.url
    namespace = read(CONTROL / "kustomization.yaml")[0]["namespace"]
    assert url == f"http://{objects['Service']['metadata']['name']}.{namespace}.svc:{PORT}"
