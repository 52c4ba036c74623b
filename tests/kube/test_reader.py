"""What a real cluster is like, as the reader sees it."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio
import contextlib

import msgspec
import pytest

from kernel.adapters.clock import SystemClock
from kernel.errors import TemporaryError
from kernel.time import DAY
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.reader import Reader
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.ports import RefusedError
from tests.standing import stop


def workload(name, kind="Deployment", replicas=2, image="app:1", annotations=None, **spec):
    pod = {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image}]},
    }
    more = {"serviceName": name} if kind == "StatefulSet" else {}
    return {
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod, **more, **spec},
    }  # fmt: skip


def make(kube, ns, body):
    kube.request("POST", f"/apis/apps/v1/namespaces/{ns}/{body['kind'].lower()}s", body)


@contextlib.asynccontextmanager
async def reader(kube, ns, *kinds):
    entries = kinds or ("Deployment/gateway", "StatefulSet/engine")
    targets = Targets([one if one == "Node/*" else f"{ns}/{one}" for one in entries])
    async with Api(connect(kube.kubeconfig)) as api:
        yield Reader(api, targets, SystemClock())


async def settled(reader, name, **expected):
    """Wait until a workload has settled with the expected fields; return its status."""
    for _ in range(600):
        status = await reader.status(name)
        if status.settled and all(getattr(status, field) == value for field, value in expected.items()):
            return status
        await asyncio.sleep(0.05)
    raise AssertionError(f"{name} did not settle: {status}")


async def test_deployments_and_stateful_sets_settle_and_say_so(kube, ns):
    make(kube, ns, workload("gateway"))
    make(
        kube,
        ns,
        workload(
            "engine",
            "StatefulSet",
            1,
            annotations={"tapewatch.example/singleton": "true", "tapewatch.example/stateful": "true"},
        ),
    )
    async with reader(kube, ns) as one:
        gateway = await settled(one, "gateway")
        engine = await settled(one, "engine")
        assert (gateway.desired, gateway.ready, gateway.singleton, gateway.images) == (2, 2, False, ("app:1",))
        assert (engine.desired, engine.singleton, engine.stateful) == (1, True, True)
        assert [replica.id for replica in engine.replicas] == ["engine-0"]
        assert {status.name for status in await one.list()} == {"gateway", "engine"}


async def test_a_rollout_that_cannot_finish_is_not_settled_and_mixes_images(kube, ns):
    make(kube, ns, workload("gateway"))
    async with reader(kube, ns) as one:
        await settled(one, "gateway")
        kube.kubectl("-n", ns, "set", "image", "deployment/gateway", "c=broken:2")
        for _ in range(600):
            status = await one.status("gateway")
            if len(status.images) == 2 and "revision 2" in status.detail:
                break
            await asyncio.sleep(0.05)
        assert not status.settled
        assert status.images == ("app:1", "broken:2")
        assert "revision 2" in status.detail


async def test_an_unready_pod_unsettles_its_workload(kube, ns):
    make(kube, ns, workload("gateway"))
    async with reader(kube, ns) as one:
        status = await settled(one, "gateway")
        pod = status.replicas[0].id
        kube.kubectl("-n", ns, "label", "pod", pod, "testbed-unready=true")
        for _ in range(600):
            status = await one.status("gateway")
            if status.ready == 1:
                break
            await asyncio.sleep(0.05)
        assert not status.settled
        assert [replica.id for replica in status.replicas if not replica.ready] == [pod]


async def test_only_pods_of_the_workload_itself_are_its_replicas(kube, ns):
    make(kube, ns, workload("gateway"))
    stray = {
        "metadata": {"name": "stray", "labels": {"app": "gateway"}},
        "spec": {"containers": [{"name": "c", "image": "app:1"}]},
    }
    async with reader(kube, ns) as one:
        await settled(one, "gateway")
        kube.request("POST", f"/api/v1/namespaces/{ns}/pods", stray)
        status = await one.status("gateway")
        assert "stray" not in {replica.id for replica in status.replicas}


async def test_somebody_scaling_by_hand_is_seen_and_an_hpa_of_keda_is_named(kube, ns):
    make(kube, ns, workload("gateway"))
    async with reader(kube, ns) as one:
        assert (await settled(one, "gateway")).replicas_owner == ""
        kube.kubectl("-n", ns, "scale", "deployment/gateway", "--replicas=3")
        assert (await one.status("gateway")).replicas_owner.startswith("kubectl, by which somebody scaled it")
        hpa = {
            "metadata": {"name": "keda-hpa", "labels": {"scaledobject.keda.sh/name": "lag"}},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gateway"},
                "minReplicas": 2,
                "maxReplicas": 4,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
                    }
                ],
            },
        }
        kube.request("POST", f"/apis/autoscaling/v2/namespaces/{ns}/horizontalpodautoscalers", hpa)
        assert (await one.status("gateway")).replicas_owner == "the KEDA ScaledObject lag"


async def test_nodes_tell_how_many_pods_they_carry(kube, ns):
    make(kube, ns, workload("gateway", replicas=3))
    async with reader(kube, ns, "Deployment/gateway", "Node/*") as one:
        await settled(one, "gateway")
        nodes = await one.nodes()
        assert len(nodes) == 3
        assert sum(node.replicas for node in nodes) == 3
        assert {f"node:{node.name}" for node in nodes} == await one.targets()
        assert not any(node.cordoned for node in nodes)


@pytest.mark.parametrize("name", ["gateway", "", "nobody"])
async def test_what_the_cluster_lacks_or_the_list_does_not_name_is_no_target(kube, ns, name):
    async with reader(kube, ns) as one:
        with pytest.raises(RefusedError) as caught:
            await one.status(name)
        assert str(caught.value)
        assert await one.list() == []


async def test_a_stopped_api_server_is_an_answer_that_does_not_come(own_kube):
    import signal

    async with Api(connect(own_kube.kubeconfig), read_s=1.0) as api:
        one = Reader(api, Targets(["default/Deployment/gateway"]), SystemClock())
        stop(own_kube.alive()["kube-apiserver"])
        with pytest.raises(TemporaryError):
            await one.status("gateway")
        own_kube.send("kube-apiserver", signal.SIGCONT)


async def test_the_certificates_of_the_api_server_tell_when_they_end(kube):
    async with Api(connect(kube.kubeconfig)) as api:
        ends = await api.certificates()
    days = {name: (at - SystemClock().now()) / DAY for name, at in ends.items()}
    assert set(days) == {"server", "authority"}
    assert all(1 < left < 4000 for left in days.values()), days


async def test_a_large_namespace_is_read_workload_by_workload_and_the_same(kube, ns, monkeypatch):
    make(kube, ns, workload("gateway"))
    make(kube, ns, workload("engine", "StatefulSet", 1))
    make(kube, ns, workload("other"))
    async with reader(kube, ns) as small, reader(kube, ns) as large:
        await settled(small, "gateway")
        await settled(small, "engine")
        monkeypatch.setattr("runbooks.adapters.kubernetes.reader.PAGE", "1")
        page = [msgspec.structs.replace(one, seen_at=0) for one in await large.list()]
        assert large._large
        monkeypatch.undo()
        assert [msgspec.structs.replace(one, seen_at=0) for one in await small.list()] == page
        assert not small._large
        assert {one.name for one in page} == {"gateway", "engine"}
