"""The test bed itself: it starts, behaves as its stages say, breaks as asked, heals, and leaves nothing behind."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.kube


def web(ns: str, *, replicas: int = 3, image: str = "app:1", labels: dict | None = None, notes: dict | None = None):
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
    kube.wait("3 of 3", lambda: ready_replicas(kube, ns) == 3, timeout_s=30)
