"""The pod host on a real API server: a pod's process lives, hangs, ends and moves as the pod does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from control.child import PYTHON
from control.config import KubeAccess, RoleConfig, save_config
from control.plan import free_ports
from control.podhost import HOSTED, ROLE, UNREADY
from control.state_dir import StateDir
from tests.kube.audit import new_namespace
from tests.kube.test_testbed import patch

pytestmark = [pytest.mark.kube, pytest.mark.estate]

GATEWAYS = "/apis/apps/v1/namespaces/exchange/deployments/gateway"


class Hosting:
    """A pod host beside a test bed, and a stand-in for the estate that it reports to."""

    def __init__(self, cluster, root: Path) -> None:
        self.cluster = cluster
        self.root = root
        state = StateDir(root)
        instruments = state.fill(symbols=1, seed=1).instruments
        state.release()
        self.ports = free_ports(6)
        engine, stream, feed, settlement, estate, own = self.ports
        config = RoleConfig(
            role="podhost", replica="podhost-1", state=str(root), port=own, engine_http_port=engine,
            engine_stream_port=stream, market_data_port=feed, settlement_port=settlement, estate_port=estate,
            control_port=1, prometheus_url="", alertmanager_url="", instruments=instruments, faults_allowed=True,
            kube=KubeAccess(kubeconfig=str(cluster.files.kubeconfig("probe"))),
        )  # fmt: skip
        save_config(config, root / "podhost.json")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "control.podhost", str(root / "podhost.json")],
            env={**os.environ, **PYTHON}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def pids(self, pod: str) -> list[int]:
        """Return the processes that were started with a pod's configuration and live."""
        children = psutil.Process(self.process.pid).children()
        return [one.pid for one in children if any(word.endswith(f"/{pod}.json") for word in command_of(one))]

    def pods(self) -> list[dict[str, Any]]:
        items = self.cluster.request("GET", "/api/v1/namespaces/exchange/pods")["items"]
        return [one for one in items if "deletionTimestamp" not in one["metadata"]]

    def ready(self) -> list[str]:
        return [
            one["metadata"]["name"]
            for one in self.pods()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"].get("conditions", ()))
        ]

    def until(self, what: str, check):
        return self.cluster.wait(what, check)


def command_of(process: psutil.Process) -> list[str]:
    """Return a process's words; none of one that has ended meanwhile, also when nobody has taken note of it yet."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def workload(kind: str, name: str, replicas: int = 1):
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "exchange"}
    template = {
        "metadata": {"labels": {**labels, UNREADY: "true"}, "annotations": {HOSTED: "true", ROLE: name}},
        "spec": {"containers": [{"name": name, "image": f"tapewatch/{name}:1"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name}, "spec": {**spec, **({"serviceName": name} if kind == "statefulsets" else {})}}


@pytest.fixture(scope="module")
def hosting(testbed_binary, tmp_path_factory):
    from control.testbed.cluster import Cluster

    with Cluster(testbed_binary, nodes=2) as cluster:
        new_namespace(cluster, "exchange")
        for kind, name, replicas in (("statefulsets", "engine", 1), ("deployments", "gateway", 2)):
            cluster.request("POST", f"/apis/apps/v1/namespaces/exchange/{kind}", workload(kind, name, replicas))
        made = Hosting(cluster, tmp_path_factory.mktemp("host"))
        try:
            made.until("3 ready pods", lambda: len(made.ready()) == 3)
            yield made
        finally:
            made.process.terminate()
            made.process.wait(20)


def test_every_pod_has_one_real_process_and_is_ready_when_that_says_so(hosting):
    for pod in hosting.ready():
        assert len(hosting.pids(pod)) == 1


def test_a_process_that_hangs_makes_its_pod_unready_and_is_not_started_anew(hosting):
    pod = next(name for name in hosting.ready() if name.startswith("gateway"))
    pid = hosting.pids(pod)[0]
    os.kill(pid, signal.SIGSTOP)
    hosting.until("unready", lambda: pod not in hosting.ready())
    assert hosting.pids(pod) == [pid]
    os.kill(pid, signal.SIGCONT)
    hosting.until("ready again", lambda: pod in hosting.ready())


def test_a_process_that_ends_is_started_anew_and_counted_in_the_pod(hosting):
    pod = next(name for name in hosting.ready() if name.startswith("gateway"))
    pid = hosting.pids(pod)[0]
    os.kill(pid, signal.SIGKILL)
    hosting.until("another process", lambda: hosting.pids(pod) not in ([], [pid]))
    hosting.until("ready again", lambda: pod in hosting.ready())

    def restarts():
        status = next(one for one in hosting.pods() if one["metadata"]["name"] == pod)["status"]
        return status["containerStatuses"][0]["restartCount"]

    assert hosting.until("the count", restarts) == 1


def test_an_evicted_pod_that_hangs_is_ended_and_its_successor_has_a_process_of_its_own(hosting):
    pod = next(name for name in hosting.ready() if name.startswith("gateway"))
    pid = hosting.pids(pod)[0]
    os.kill(pid, signal.SIGSTOP)
    hosting.until("unready", lambda: pod not in hosting.ready())
    hosting.cluster.request("POST", f"/api/v1/namespaces/exchange/pods/{pod}/eviction", {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "exchange"},
    })  # fmt: skip
    hosting.until("the process is gone", lambda: not psutil.pid_exists(pid))
    hosting.until("the successor", lambda: len([one for one in hosting.ready() if one.startswith("gateway")]) == 2)
    assert all(len(hosting.pids(name)) == 1 for name in hosting.ready())


def test_two_engines_never_run_at_once_and_the_second_goes_on_with_the_journal(hosting):
    first = hosting.pids("engine-0")[0]
    os.kill(first, signal.SIGSTOP)  # a stopped one is hard to end; its successor must wait
    hosting.cluster.request("DELETE", "/api/v1/namespaces/exchange/pods/engine-0", {"gracePeriodSeconds": 0})
    most, second = 0, 0
    deadline = time.monotonic() + 90
    while not second and time.monotonic() < deadline:
        alive = [pid for pid in hosting.pids("engine-0") if psutil.pid_exists(pid)]
        most = max(most, len(alive))
        second = next((pid for pid in alive if pid != first), 0)
        time.sleep(0.02)
    assert (most, bool(second)) == (1, True)
    hosting.until("a ready engine", lambda: "engine-0" in hosting.ready())


def test_the_processes_of_a_lost_node_end_and_come_back_with_it(hosting):
    pod = next(one for one in hosting.pods() if one["metadata"]["name"].startswith("gateway"))
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    patch(hosting.cluster, f"/api/v1/nodes/{node}", {"metadata": {"labels": {"testbed-notready": "true"}}})
    hosting.until("no process", lambda: not hosting.pids(name))
    hosting.until("not ready", lambda: name not in hosting.ready())
    patch(hosting.cluster, f"/api/v1/nodes/{node}", {"metadata": {"labels": {"testbed-notready": "false"}}})
    hosting.until("a process again", lambda: hosting.pids(name))
    hosting.until("ready again", lambda: name in hosting.ready())


def test_an_image_that_crashes_has_no_process(hosting):
    patch(hosting.cluster, GATEWAYS, {"spec": {"replicas": 1}})
    container = {"name": "gateway", "image": "tapewatch/gateway:2-crash"}
    hosting.cluster.request(
        "PATCH", GATEWAYS, {"spec": {"template": {"spec": {"containers": [container]}}}},
        content_type="application/strategic-merge-patch+json",
    )  # fmt: skip

    def crashing():
        for one in hosting.pods():
            if one["spec"]["containers"][0]["image"].endswith("crash") and one["status"].get("containerStatuses"):
                return one["metadata"]["name"]
        return None

    assert hosting.pids(hosting.until("a pod that crashes", crashing)) == []


def test_killed_it_leaves_no_process_behind(hosting):
    children = psutil.Process(hosting.process.pid).children(recursive=True)
    assert children
    hosting.process.kill()
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left
