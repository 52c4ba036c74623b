"""The test bed itself: it starts, behaves as its stages say, breaks as asked, heals, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import time

import psutil
import pytest

from control.testbed import background
from control.testbed.cluster import ApiStatusError, Cluster, ask, takes_pods
from control.testbed.components import ORDER
from kernel.errors import InputError, PermanentError, TemporaryError
from tests.control.test_cli import run
from tests.kube.proxy import Mode, Proxy
from tests.standing import stop

pytestmark = pytest.mark.kube


def web(ns: str, *, replicas: int = 3, image: str = "app:1", labels=None, notes=None):
    template = {
        "metadata": {"labels": {"app": "web", **(labels or {})}, "annotations": notes or {}},
        "spec": {"containers": [{"name": "app", "image": image}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"metadata": {"name": "web", "namespace": ns}, "spec": spec}


def create(cluster, ns: str, **given):
    return cluster.request("POST", f"/apis/apps/v1/namespaces/{ns}/deployments", web(ns, **given))


def ready_replicas(cluster, ns: str) -> int:
    found = cluster.request("GET", f"/apis/apps/v1/namespaces/{ns}/deployments/web")
    return int(found["status"].get("readyReplicas", 0))


def test_a_deployment_of_three_becomes_ready(kube, ns):
    create(kube, ns)
    kube.wait("3 of 3", lambda: ready_replicas(kube, ns) == 3)


def pods(cluster, ns: str):
    return cluster.request("GET", f"/api/v1/namespaces/{ns}/pods")["items"]


def patch(cluster, path: str, body, **given):
    return cluster.request("PATCH", path, body, content_type="application/merge-patch+json", **given)


def label_pods(cluster, ns: str, value: str) -> None:
    for pod in pods(cluster, ns):
        path = f"/api/v1/namespaces/{ns}/pods/{pod['metadata']['name']}"
        patch(cluster, path, {"metadata": {"labels": {"testbed-unready": value}}})


def container(pod):
    return pod["status"]["containerStatuses"][0]


# --- how its pods and nodes behave ----------------------------------------------------------------------------------


def test_an_image_that_is_broken_never_starts(kube, ns):
    create(kube, ns, replicas=1, image="broken:1")
    reason = kube.wait("a reason", lambda: container(pods(kube, ns)[0])["state"]["waiting"]["reason"])
    assert reason == "ImagePullBackOff"
    assert ready_replicas(kube, ns) == 0


def test_an_image_that_crashes_restarts_again_and_again(kube, ns):
    create(kube, ns, replicas=1, image="crash:1")
    kube.wait("two restarts", lambda: container(pods(kube, ns)[0])["restartCount"] >= 2)
    reason = kube.wait("a reason", lambda: container(pods(kube, ns)[0])["state"]["waiting"]["reason"])
    assert reason == "CrashLoopBackOff"


def test_a_label_takes_readiness_away_and_gives_it_back_in_the_same_process(kube, ns):
    create(kube, ns, replicas=2)
    kube.wait("2 of 2", lambda: ready_replicas(kube, ns) == 2)
    before = [container(pod)["state"] for pod in pods(kube, ns)]
    label_pods(kube, ns, "true")
    kube.wait("none", lambda: ready_replicas(kube, ns) == 0)
    label_pods(kube, ns, "false")
    kube.wait("2 of 2 again", lambda: ready_replicas(kube, ns) == 2)
    assert [container(pod)["state"] for pod in pods(kube, ns)] == before


def test_a_pod_that_is_made_unready_runs_and_waits_for_the_label(kube, ns):
    create(kube, ns, replicas=1, labels={"testbed-unready": "true"}, notes={"testbed/host": "true"})
    kube.wait("it runs", lambda: pods(kube, ns)[0]["status"]["phase"] == "Running")
    assert not container(pods(kube, ns)[0])["ready"]
    assert pods(kube, ns)[0]["status"]["podIP"]
    label_pods(kube, ns, "false")
    kube.wait("it is ready", lambda: ready_replicas(kube, ns) == 1)


def test_a_pod_ends_as_slowly_as_its_annotation_says(kube, ns):
    create(kube, ns, replicas=1, notes={"testbed/delete-delay": "2s"})
    kube.wait("1 of 1", lambda: ready_replicas(kube, ns) == 1)
    name = pods(kube, ns)[0]["metadata"]["name"]
    began = time.monotonic()
    kube.request("DELETE", f"/api/v1/namespaces/{ns}/pods/{name}")
    kube.wait("it is gone", lambda: name not in [pod["metadata"]["name"] for pod in pods(kube, ns)])
    assert time.monotonic() - began > 1.5


def test_a_node_that_is_not_ready_is_tainted_and_comes_back(own_kube):
    own_kube.add_nodes(1)
    path = "/api/v1/nodes/node-1"
    patch(own_kube, path, {"metadata": {"labels": {"testbed-notready": "true"}}})
    own_kube.wait("the taint", lambda: not takes_pods(own_kube.request("GET", path)))
    create(own_kube, "default")
    own_kube.wait("3 of 3", lambda: ready_replicas(own_kube, "default") == 3)
    assert {pod["spec"]["nodeName"] for pod in pods(own_kube, "default")} == {"node-0"}
    patch(own_kube, path, {"metadata": {"labels": {"testbed-notready": "false"}}})
    own_kube.wait("no taint", lambda: takes_pods(own_kube.request("GET", path)))


# --- its record and its accounts ------------------------------------------------------------------------------------


def test_what_an_account_sends_is_on_record_with_its_body_and_what_the_test_bed_sends_is_not(kube, ns, audit):
    create(kube, ns, replicas=1)
    seen = audit(kube)
    kube.request("GET", f"/api/v1/namespaces/{ns}/pods")
    token = kube.token_for("default", ns)
    with pytest.raises(ApiStatusError) as refused:
        kube.request("DELETE", f"/apis/apps/v1/namespaces/{ns}/deployments/web", token=token)
    kube.wait("the first record", lambda: seen.writes(namespace=ns))  # it may come a moment after the answer
    assert (refused.value.code, refused.value.reason) == (403, "Forbidden")
    kube.kubectl("-n", ns, "scale", "deployment/web", "--replicas=2")
    records = kube.wait("both records", lambda: len(found := seen.writes(namespace=ns)) > 1 and found)
    assert [(one["verb"], one["user"]["username"], one["responseStatus"]["code"]) for one in records] == [
        ("delete", f"system:serviceaccount:{ns}:default", 403),
        ("patch", "admin", 200),
    ]
    assert records[1]["requestObject"]["spec"] == {"replicas": 2}


def test_a_kubeconfig_speaks_for_its_account_only(kube, ns):
    path = kube.write_kubeconfig(f"{ns}-default", kube.token_for("default", ns), namespace=ns)
    assert path.stat().st_mode & 0o777 == 0o600
    assert kube.kubectl("--kubeconfig", str(path), "auth", "whoami").count(f"system:serviceaccount:{ns}:default") == 1


def test_a_failed_kubectl_carries_its_words(kube):
    with pytest.raises(PermanentError, match="not found"):
        kube.kubectl("get", "pod", "nothing")


# --- what is broken on purpose --------------------------------------------------------------------------------------


def lose_an_answer(cluster, ns: str, mode: Mode, value: str) -> None:
    with Proxy(cluster.ports.api) as proxy:
        proxy.mode = mode
        trust = ssl.create_default_context(cafile=str(cluster.files.ca))
        body = {"metadata": {"annotations": {"mark": value}}}
        with pytest.raises(TemporaryError):
            ask(
                proxy.port, cluster.files.tokens["probe"], trust, "PATCH",
                f"/apis/apps/v1/namespaces/{ns}/deployments/web", body,
                content_type="application/merge-patch+json", timeout_s=2 if mode == "stall" else 30,
            )  # fmt: skip


@pytest.mark.parametrize(("mode", "applied"), [("drop-response", True), ("refuse", False), ("stall", False)])
def test_a_write_whose_answer_is_lost_is_made_and_one_that_never_came_is_not(kube, ns, mode, applied):
    create(kube, ns, replicas=1)
    lose_an_answer(kube, ns, mode, "x")
    found = kube.request("GET", f"/apis/apps/v1/namespaces/{ns}/deployments/web")
    assert (found["metadata"].get("annotations", {}).get("mark") == "x") is applied


def test_every_component_may_be_killed_and_is_healed_and_nothing_is_lost(own_kube):
    create(own_kube, "default")
    own_kube.wait("3 of 3", lambda: ready_replicas(own_kube, "default") == 3)
    for component in ORDER:
        own_kube.kill(component)
    assert set(own_kube.alive().values()) == {None}
    own_kube.heal()
    assert None not in own_kube.alive().values()
    assert ready_replicas(own_kube, "default") == 3
    patch(own_kube, "/apis/apps/v1/namespaces/default/deployments/web", {"spec": {"replicas": 4}})
    own_kube.wait("4 of 4", lambda: ready_replicas(own_kube, "default") == 4)


def test_a_stopped_server_gives_no_answer_and_is_continued(own_kube):
    stop(own_kube.alive()["kube-apiserver"])
    with pytest.raises(TemporaryError, match="has no answer"):
        own_kube.request("GET", "/api/v1/nodes", timeout_s=0.5)
    own_kube.heal()
    assert len(own_kube.request("GET", "/api/v1/nodes")["items"]) == 1


def test_a_component_that_ends_while_it_is_waited_for_is_named_with_its_last_words(testbed_binary, tmp_path):
    flags = {"kube-apiserver": ["--no-such-flag"]}
    with pytest.raises(PermanentError, match=r"kube-apiserver ended with 1: (.|\n)*unknown flag: --no-such-flag"):
        Cluster(testbed_binary, tmp_path / "bed", flags=flags).start()
    Cluster(testbed_binary, tmp_path / "bed")._take_directory()  # it let go of its directory


# --- its directory --------------------------------------------------------------------------------------------------


def test_a_directory_in_use_is_refused_and_one_with_other_files_too(testbed_binary, tmp_path):
    held = Cluster(testbed_binary, tmp_path / "bed")
    held._take_directory()
    with pytest.raises(PermanentError, match=r"another test bed runs in .*bed; `tapewatch kube down` stops it"):
        Cluster(testbed_binary, tmp_path / "bed").start()
    held.stop()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        Cluster(testbed_binary, tmp_path / "other").start()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["diary"]


def test_nothing_is_left_behind_in_memory(testbed_binary):
    with Cluster(testbed_binary, nodes=1) as cluster:
        assert cluster.root.stat().st_mode & 0o777 == 0o700
        pids = [pid for pid in cluster.alive().values() if pid is not None]
        assert len(pids) == len(ORDER)
    assert not cluster.root.exists()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


# --- tapewatch kube -------------------------------------------------------------------------------------------------


@pytest.fixture
def bed(testbed_binary, tmp_path, monkeypatch):
    """A directory in which `kube up` may run; it is down at the end."""
    monkeypatch.setenv("TAPEWATCH_TESTBED", str(testbed_binary))
    yield tmp_path / "bed"
    with contextlib.suppress(TemporaryError):
        background.stop(tmp_path / "bed")
    while background._KEEPERS:
        background._KEEPERS.pop().wait(20)


def gone(pids: list[int]) -> bool:
    def alive(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(alive, pids))


def until(check, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def test_up_leaves_it_running_and_down_ends_all_of_it(bed):
    code, out, err = run("kube", "up", "--nodes", 2, "--state", bed)
    assert (code, err) == (0, "")
    assert "is ready: api after" in out
    assert f"export KUBECONFIG={bed}/admin.kubeconfig" in out
    code, out, _ = run("kube", "status", "--state", bed, "--json")
    told = json.loads(out)
    assert (code, told["nodes"], told["problem"]) == (0, {"node-0": True, "node-1": True}, "")
    assert [one["name"] for one in told["components"]] == list(ORDER)
    assert all(one["alive"] and one["memory_bytes"] > 2**20 for one in told["components"])
    code, out, _ = run("kube", "up", "--state", bed)
    assert (code, f"runs in {bed} already (pid {told['pid']})" in out) == (0, True)
    code, out, _ = run("kube", "status", "--kubeconfig", bed / "admin.kubeconfig", "--context", "testbed")
    assert (code, told["version"] in out, "2 of 2 Ready" in out) == (0, True, True)
    assert run("kube", "down", "--state", bed)[0] == 0
    assert gone([told["pid"], *(one["pid"] for one in told["components"])])
    code, _, err = run("kube", "status", "--kubeconfig", bed / "admin.kubeconfig")
    assert (code, "cannot be reached" in err) == (4, True)


def test_a_killed_keeper_leaves_no_process_and_another_up_follows(bed, testbed_binary):
    kept = background.start(testbed_binary, bed, 1)
    os.kill(kept.pid, signal.SIGKILL)
    until(lambda: gone([kept.pid, *kept.components.values()]))
    code, _, err = run("kube", "down", "--state", bed)
    assert (code, f"no test bed runs in {bed}" in err) == (4, True)
    assert background.start(testbed_binary, bed, 1).pid != kept.pid


def test_a_component_that_is_gone_or_stopped_is_told_and_a_second_up_mends_it(bed, testbed_binary):
    kept = background.start(testbed_binary, bed, 1)
    os.kill(kept.components["kwok"], signal.SIGKILL)
    stop(kept.components["kube-scheduler"])
    until(lambda: gone([kept.components["kwok"]]))
    code, out, err = run("kube", "status", "--state", bed)
    assert (code, "together" in out, "stopped" in out) == (1, True, True)
    assert "kube-scheduler is stopped, kwok does not run: `tapewatch kube up` mends it" in err
    os.kill(kept.components["kube-apiserver"], signal.SIGKILL)
    until(lambda: gone([kept.components["kube-apiserver"]]))
    code, out, _ = run("kube", "status", "--state", bed, "--json")
    assert (code, json.loads(out)["nodes"]) == (1, {})
    code, out, _ = run("kube", "up", "--state", bed)
    assert (code, "already" in out, "mended kube-apiserver, kube-scheduler, kwok" in out) == (0, True, True)
    code, out, _ = run("kube", "status", "--state", bed, "--json")
    told = json.loads(out)
    assert (code, told["pid"], told["nodes"]) == (0, kept.pid, {"node-0": True})


def test_up_in_the_foreground_ends_with_ctrl_c(bed):
    words = [sys.executable, "-m", "cli", "kube", "up", "--foreground", "--nodes", "1", "--state", str(bed)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as shown:
        assert shown.stdout is not None
        lines = list(itertools.takewhile(lambda line: "Ctrl-C" not in line, shown.stdout))
        kept = background.running(bed)
        shown.send_signal(signal.SIGINT)
        assert shown.stdout.read() == "stopped\n"
        assert shown.wait(20) == 0
    assert "is ready" in lines[0]
    assert gone(list(kept.components.values()))
