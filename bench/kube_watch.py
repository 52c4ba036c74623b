"""What it costs to follow a cluster with a thousand Deployments, each with a pod, while nothing changes.

    python bench/kube_watch.py [DEPLOYMENTS] [SECONDS]

The reference is `kubectl get --watch` of the Deployments alone, the tool that everybody has. Needs the test bed
(`make kube` builds it).
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from bench.parts.figures import verdict
from control.settings import load_settings
from control.testbed import build
from control.testbed.cluster import Cluster

MEGABYTE = 1_000_000
PODS_A_NODE = 100


def deployment(name: str) -> dict[str, object]:
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "app:1"}]}}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": pod}}


def fill(cluster: Cluster, count: int) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: cluster.request("POST", path, deployment(f"app-{n}")), range(count)))

    def ready() -> bool:
        items = cluster.request("GET", path)["items"]
        return bool(sum(one["status"].get("readyReplicas", 0) for one in items) == count)

    cluster.wait("every pod", ready, timeout_s=300)


def cost(argv: list[str], first: str, seconds: float) -> tuple[float, float]:
    """Return MB (RSS) and the share of a core of a process over `seconds`, once it has printed `first`."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        while first not in (line := process.stdout.readline()):
            assert line, f"{argv[0]} ended"
        time.sleep(3)
        seen = psutil.Process(process.pid)
        before, began = seen.cpu_times(), time.monotonic()
        time.sleep(seconds)
        after, passed = seen.cpu_times(), time.monotonic() - began
        memory = seen.memory_info().rss / MEGABYTE
        process.kill()
    return memory, (after.user + after.system - before.user - before.system) / passed


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
    binary = build.find(load_settings().testbed)
    if binary is None:
        print("the test bed is not built; `make kube` builds it")
        return
    with Cluster(binary, nodes=count // PODS_A_NODE + 2) as cluster:
        fill(cluster, count)
        ours = [sys.executable, "-m", "bench.parts.follow", str(cluster.kubeconfig)]
        memory, busy = cost(ours, str(count), seconds)
        theirs = [str(binary), "kubectl", "--kubeconfig", str(cluster.kubeconfig), "get", "deployments", "--watch"]
        reference, idle = cost(theirs, "app-", seconds)
    print(f"{count} Deployments and pods followed: {memory:.0f} MB RSS, {busy:.2%} of a core over {seconds:g} s")
    print(f"kubectl get deployments --watch:      {reference:.0f} MB RSS, {idle:.2%}")
    verdict("memory", f"{memory:.0f} MB", "150 MB", reached=memory <= 150)
    verdict("CPU at rest", f"{busy:.2%} of one core", "5 %", reached=busy <= 0.05)


if __name__ == "__main__":
    main()
