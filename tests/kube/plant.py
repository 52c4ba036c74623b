"""A small exchange in a namespace of one's own, and the adapter that acts on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import pytest

from control.testbed.cluster import ApiStatusError, Cluster
from kernel.adapters.clock import SystemClock
from kernel.time import from_rfc3339
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.fence import Fence, Fencing
from runbooks.adapters.kubernetes.ledger import Ledger
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.adapters.kubernetes.workloads import KubernetesWorkloads
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.kube.audit import Audit
from tests.kube.proxy import Proxy

T = TypeVar("T")

MERGE = "application/merge-patch+json"
SINGLETON = {"tapewatch.example/singleton": "true"}
ENTRIES = (
    "Deployment/gateway", "StatefulSet/engine", "ConfigMap/flags", "Service/gateway", "CronJob/tidy", "Node/*",
)  # fmt: skip


def workload(
    name: str,
    kind: str = "Deployment",
    *,
    replicas: int = 2,
    image: str = "app:1",
    annotations: dict[str, str] | None = None,
    notes: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Return a workload; `annotations` are its own, `notes` and `labels` its pods'."""
    pod = {
        "metadata": {"labels": {"app": name, **(labels or {})}, "annotations": notes or {}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image}]},
    }
    more = {"serviceName": name} if kind == "StatefulSet" else {}
    return {
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod, **more, **spec},
    }  # fmt: skip


def hpa(low: int = 2, high: int = 6, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Return an autoscaler of the gateways."""
    target = {"type": "Utilization", "averageUtilization": 50}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gateway"},
        "minReplicas": low, "maxReplicas": high,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    }  # fmt: skip
    return {"metadata": {"name": "gateway", "labels": labels or {}}, "spec": spec}


class Plant:
    """What a test does to the namespace by other hands than the adapter's; leaves no audit record."""

    def __init__(self, cluster: Cluster, ns: str) -> None:
        self.cluster = cluster
        self.ns = ns
        self._audit = Audit(cluster)
        self.first = ""
        """A gateway, where a test has chosen one."""

    def sent(self, resource: str = "") -> list[dict[str, Any]]:
        """Return the adapter's requests that really were to change the plant: no dry runs, no entries of the ledger."""
        self._recorded()
        found = [one for one in self._audit.writes() if one.get("userAgent") == "tapewatch"]
        real = [one for one in found if "dryRun" not in one["requestURI"]]
        real = [one for one in real if not one["objectRef"].get("name", "effect-").startswith("effect-")]
        here = [one for one in real if one["objectRef"].get("namespace", self.ns) == self.ns]
        return [one for one in here if not resource or one["objectRef"]["resource"] == resource]

    def _recorded(self) -> None:
        """Return once what was answered before is on record: a record may come a moment after its answer."""
        mark = f"mark-{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(ApiStatusError):  # there is none, and the attempt is on record
            self.cluster.request("DELETE", self.core("configmaps", mark), token=admin(self.cluster))
        self.cluster.wait("the record of a mark", lambda: self._audit.writes(name=mark))
        time.sleep(0.1)

    def apps(self, kind: str, name: str = "") -> str:
        return f"/apis/apps/v1/namespaces/{self.ns}/{kind}" + (f"/{name}" if name else "")

    def core(self, kind: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.ns}/{kind}" + (f"/{name}" if name else "")

    def make(self, body: dict[str, Any]) -> None:
        """Make a workload and wait until its pods are ready."""
        kind = body["kind"].lower() + "s"
        self.cluster.request("POST", self.apps(kind), body)
        self.settle(kind, body["metadata"]["name"])

    def build(self, **given: Any) -> None:
        """Make two gateways and the engine."""
        self.make(workload("gateway", **given))
        self.make(workload("engine", "StatefulSet", replicas=1, annotations=SINGLETON))

    def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.request("GET", path)
        return found

    def gateway(self) -> dict[str, Any]:
        return self.get(self.apps("deployments", "gateway"))

    def patch(self, path: str, body: dict[str, Any]) -> None:
        self.cluster.request("PATCH", path, body, content_type=MERGE)

    def kubectl(self, *words: str) -> str:
        return self.cluster.kubectl("-n", self.ns, *words)

    def set_image(self, image: str) -> None:
        self.kubectl("set", "image", "deployment/gateway", f"c={image}")

    def config(self, name: str = "flags", **data: str) -> None:
        """Make a configuration."""
        body = {"metadata": {"name": name}, "data": data, "binaryData": {"blob": "AAEC"}}
        self.cluster.request("POST", self.core("configmaps"), body)

    def data(self, name: str = "flags") -> dict[str, str]:
        found: dict[str, str] = self.get(self.core("configmaps", name))["data"]
        return found

    def pods(self, app: str = "gateway") -> dict[str, dict[str, Any]]:
        """Return the pods of a workload that are not being ended, by name."""
        found = self.get(self.core("pods") + f"?labelSelector=app={app}")["items"]
        return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def settle(self, kind: str = "deployments", name: str = "gateway") -> None:
        """Wait until a workload has what it wants."""

        def settled() -> bool:
            found = self.get(self.apps(kind, name))
            status, wanted = found.get("status", {}), found["spec"]["replicas"]
            seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            ready = status.get("readyReplicas", 0) == wanted == status.get("replicas", 0)
            # A new generation is seen before the first of its pods is made.
            renewed = status.get("updatedReplicas", 0) == wanted
            return bool(seen and ready and renewed) and len(self.pods(name)) == wanted

        self.cluster.wait(f"{name} settles", settled)

    def budget(self, **spec: Any) -> None:
        """Give the gateways a disruption budget and wait until it is reckoned."""
        path = f"/apis/policy/v1/namespaces/{self.ns}/poddisruptionbudgets"
        body = {"metadata": {"name": "gateway"}, "spec": {"selector": {"matchLabels": {"app": "gateway"}}, **spec}}
        self.cluster.request("POST", path, body)
        self.cluster.wait(
            "the budget is reckoned",
            lambda: self.get(f"{path}/gateway")["status"]["currentHealthy"] == len(self.pods()),
        )


@contextlib.asynccontextmanager
async def adapter(
    cluster: Cluster,
    ns: str,
    *,
    url: str = "",
    token: str = "",
    entries: tuple[str, ...] = ENTRIES,
    forbidden: Callable[[], str] = lambda: "",
    why_not: Callable[[], str] = lambda: "",
    read_s: float = 5.0,
) -> AsyncIterator[KubernetesWorkloads]:
    """The adapter on a namespace, with the ledger in it; `url` may be a proxy's, `token` somebody's."""
    kubeconfig = cluster.kubeconfig
    if url or token:
        kubeconfig = cluster.write_kubeconfig(f"{ns}-{time.monotonic_ns()}", token or admin(cluster), url=url)
    targets = Targets([one if one.startswith("Node") else f"{ns}/{one}" for one in entries])
    api = Api(connect(kubeconfig), read_s=read_s)
    fence = Fence(api, namespace=ns, why_not=why_not, fencing=Fencing.PREFERRED, within_s=0.2)
    ledger = Ledger(api, SystemClock(), namespace=ns)
    async with KubernetesWorkloads(api, targets, SystemClock(), fence, ledger=ledger, forbidden=forbidden) as one:
        yield one


def admin(cluster: Cluster) -> str:
    """The token of whoever may do everything, and leaves an audit record."""
    return cluster.files.tokens["admin"]


async def refused(attempt: Awaitable[Any], reason: RefusalReason, words: str = "") -> None:
    """Expect a refusal for a reason, in words."""
    with pytest.raises(RefusedError) as caught:
        await attempt
    assert caught.value.reason is reason, caught.value
    assert words in str(caught.value)


async def overdue(plant: Plant, pod: str) -> None:
    """Wait until a pod should have ended: the moment that its deletion names is past, by this machine's clock."""
    named = from_rfc3339(plant.get(plant.core("pods", pod))["metadata"]["deletionTimestamp"])
    while SystemClock().now() <= named:  # noqa: ASYNC110 - a clock sets no event
        await asyncio.sleep(0.05)


async def lost(proxy: Proxy, attempt: Awaitable[T]) -> T:
    """Lose the next answer, and let the ones after it pass."""
    proxy.mode = "drop-response"
    task = asyncio.ensure_future(attempt)
    swallowed = proxy.swallowed_bytes
    async with asyncio.timeout(60):
        while proxy.swallowed_bytes == swallowed and not task.done():  # noqa: ASYNC110 - threads swallow
            await asyncio.sleep(0.01)
    proxy.mode = "pass"
    return await task
