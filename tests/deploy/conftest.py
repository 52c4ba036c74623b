"""A test bed with the manifests applied: rights and admission policies hold for whoever writes there.

It is not the test bed that the other tests share: the policies would hold their writes, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.testbed.cluster import ApiStatusError, Cluster
from tests.kube.conftest import testbed_binary

__all__ = ["testbed_binary"]

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/tapewatch/leases/tapewatch-leader"
APPS = "/apis/apps/v1/namespaces/exchange"
CORE = "/api/v1/namespaces/exchange"
MERGE = "application/merge-patch+json"
EPOCH = "tapewatch.example/epoch"
KEY = "tapewatch.example/key"


def render(binary: Path, overlay: str) -> str:
    """Render an overlay with the kustomize that kubectl brings."""
    import subprocess

    return subprocess.run(
        [str(binary), "kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


class Account:
    """Somebody who asks the API server; an answer is its object, a refusal its words."""

    def __init__(self, cluster: Cluster, token: str = "") -> None:
        self.cluster = cluster
        self.token = token

    def ask(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        return self.cluster.request(method, path, body, content_type=content_type, token=self.token)

    def refusal(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> str:
        """Return why a request was refused; empty when it was carried out."""
        try:
            self.ask(method, path, body, content_type)
        except ApiStatusError as error:
            return f"{error.code} {error}"
        return ""

    def patch(self, path: str, body: dict[str, Any], *, dry: bool = False) -> str:
        """Merge a patch; return why it was refused."""
        return self.refusal("PATCH", path + (("&" if "?" in path else "?") + "dryRun=All") * dry, body, MERGE)


@pytest.fixture(scope="session")
def plant(testbed_binary: Path) -> Iterator[Cluster]:
    """A test bed with overlays/testbed applied and every policy in force."""
    # where autoscalers may go to nothing, it is our policy that forbids it to us
    to_nothing = {"kube-apiserver": ["--feature-gates=HPAScaleToZero=true"]}
    with Cluster(testbed_binary, nodes=2, flags=to_nothing) as cluster:
        cluster.kubectl("apply", "--server-side", "-k", str(KUBERNETES / "overlays" / "testbed"))
        lead(cluster, 7)
        wait_for_policies(cluster, Account(cluster, cluster.token_for("tapewatch", "tapewatch")))
        yield cluster


def wait_for_policies(cluster: Cluster, account: Account) -> None:
    """Wait until each policy refuses what it alone would refuse: they come into force one by one."""
    good: dict[str, Any] = {"metadata": {"annotations": {EPOCH: "7"}}}
    watchdog, service = f"{APPS}/deployments/watchdog", f"{CORE}/services/gateway"
    old = {"metadata": {"annotations": {EPOCH: "6"}}}
    labelled = {"metadata": {"annotations": {EPOCH: "7"}, "labels": {"x": "y"}}}
    for policy, path, body in (
        ("fencing", watchdog, old),
        ("metadata", watchdog, labelled),
        ("deployment-fields", watchdog, {**good, "spec": {"minReadySeconds": 9}}),
        ("node-fields", "/api/v1/nodes/node-0", {**good, "spec": {"providerID": "x"}}),
        ("service-fields", service, {**good, "spec": {"type": "NodePort"}}),
        ("config-fields", f"{CORE}/configmaps/exchange-flags", {**good, "immutable": True}),
        ("scale", f"{APPS}/deployments/gateway/scale?fieldManager=tapewatch-7", {"spec": {"replicas": 11}}),
        ("ledger", "/api/v1/namespaces/tapewatch/configmaps/kube-root-ca.crt", {"data": {"x": "y"}}),
        ("lease", LEASE, {"spec": {"leaseTransitions": 1}}),
    ):
        words = f"'tapewatch-{policy}'"
        cluster.wait(words, lambda p=path, b=body, w=words: w in account.patch(p, b, dry=True))  # type: ignore[misc]


def lead(cluster: Cluster, epoch: int, holder: str = "control-0") -> None:
    """Let `holder` lead in `epoch`, as the elector does."""
    cluster.request("PATCH", LEASE, {"spec": {"holderIdentity": holder, "leaseTransitions": epoch}}, content_type=MERGE)


@pytest.fixture
def account(plant: Cluster) -> Account:
    """The control plane's account, by a real token of it."""
    return Account(plant, plant.token_for("tapewatch", "tapewatch"))


@pytest.fixture
def admin(plant: Cluster) -> Account:
    """Somebody with every right."""
    return Account(plant)


@pytest.fixture
def epoch(plant: Cluster) -> str:
    """The epoch that the Lease is in now, seen by the fence."""
    return str(plant.request("GET", LEASE)["spec"]["leaseTransitions"])


def load(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]
