"""Fencing on a real API server: a deposed leader's writes are refused, and whoever is elected waits until they are.

It runs on the manifests of deploy/kubernetes, in the name of the control plane's own account.
"""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import contextlib
import json

import msgspec
import pytest

from control.testbed.cluster import ApiStatusError, Cluster
from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Duration, Instant
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.fence import Fence, Fencing
from runbooks.adapters.kubernetes.lease import KubernetesLeases
from runbooks.adapters.kubernetes.preflight import preflight
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.adapters.kubernetes.workloads import KubernetesWorkloads
from runbooks.changes import (
    Cordon,
    DeleteReplica,
    Drain,
    PauseRollout,
    ResumeRollout,
    RollBack,
    RollingRestart,
    SetFlag,
)
from runbooks.model import RefusalReason, RestartReplica
from tests.deploy.conftest import KUBERNETES
from tests.kube.audit import new_namespace
from tests.kube.plant import MERGE, SINGLETON, Plant, hpa, overdue, refused, workload

ALLOWED = [
    "exchange/Deployment/gateway", "exchange/StatefulSet/engine", "exchange/ConfigMap/exchange-flags", "Node/*",
]  # fmt: skip


def by_name(name, kind="Deployment", **given):
    body = workload(name, kind, **given)
    body["metadata"]["labels"] = {"app.kubernetes.io/name": name}
    return body


@pytest.fixture(scope="module")
def guarded(testbed_binary):
    """A test bed with the rights and policies of deploy/kubernetes, and a small exchange."""
    with Cluster(testbed_binary, nodes=2) as cluster:
        new_namespace(cluster, "exchange")
        cluster.kubectl("apply", "-k", str(KUBERNETES / "base" / "access"))
        plant = Plant(cluster, "exchange")
        plant.make(by_name("gateway"))
        plant.make(by_name("engine", "StatefulSet", replicas=1, annotations=SINGLETON))
        for name in ("exchange-flags", "exchange-flags-last-good"):
            cluster.request("POST", plant.core("configmaps"), {"metadata": {"name": name}, "data": {"mode": "normal"}})
        yield plant


@contextlib.asynccontextmanager
async def controller(plant, *, fencing=Fencing.REQUIRED, within_s=60.0):
    """One controller with the account's own rights."""
    cluster = plant.cluster
    where = cluster.write_kubeconfig("tapewatch", cluster.token_for("tapewatch", "tapewatch"))
    api = Api(connect(where))
    fence = Fence(api, namespace="exchange", fencing=fencing, within_s=within_s)
    async with KubernetesWorkloads(api, Targets(ALLOWED), SystemClock(), fence) as one:
        one.leases = KubernetesLeases(api)
        yield one


async def elect(one, name):
    """Let a controller lead, by the rules of the election; return its epoch."""
    seen = await one.leases.read()
    record = msgspec.structs.replace(
        seen,
        holder=name,
        epoch=seen.epoch + 1,
        renewed_at=Instant(SystemClock().now()),
        duration_ns=Duration(15 * SECOND),
    )
    return (await one.leases.replace(record)).epoch


async def test_the_account_has_every_right_the_adapter_uses(guarded):
    async with controller(guarded) as one:
        found = await preflight(one._api, Targets(ALLOWED), cluster_id="")
    assert [each for each in found.warnings if "pinned" not in each] == []


async def test_the_deposed_leader_is_refused_by_the_server_whatever_it_writes(guarded):
    name = min(guarded.pods())
    async with controller(guarded) as old, controller(guarded) as new:
        await old.fence.raise_(await elect(old, "control-0"))
        assert old.fence.stands
        await old.change(SetFlag("exchange-flags", "mode", "reduced"), key="old/flag")
        await new.fence.raise_(await elect(new, "control-1"))
        assert new.fence.epoch == old.fence.epoch + 1
        before = guarded.gateway(), guarded.pods()
        writes = {
            "scale": old.scale("gateway", 3, key="old/a"),
            "restart": old.restart("gateway", name, key="old/b"),
            "single writer": old.restart("engine", "engine-0", key="old/c"),
            "rolling restart": old.change(RollingRestart("gateway"), key="old/d"),
            "pause": old.change(PauseRollout("gateway"), key="old/e"),
            "flag": old.change(SetFlag("exchange-flags", "mode", "other"), key="old/f"),
            "cordon": old.change(Cordon("node-0"), key="old/g"),
            "restore": old.restore("old/flag", key="old/h"),
        }
        for what, write in writes.items():
            await refused(write, RefusalReason.NOT_LEADER, "fenced")
            assert what
        assert (guarded.gateway()["spec"], set(guarded.pods())) == (before[0]["spec"], set(before[1]))
        assert await new.effect("old/a") is None
        done = await new.scale("gateway", 3, key="old/a")  # the new leader carries on where the old one was stopped
        assert not done.repeated
        await new.scale("gateway", 2, key="new/a")


async def test_every_write_of_the_leader_passes_the_policies(guarded):
    async with controller(guarded) as one:
        await one.fence.raise_(await elect(one, "control-2"))
        guarded.settle()
        await one.restart("gateway", min(guarded.pods()), key="p/a")
        guarded.settle()
        await one.change(RollingRestart("gateway"), key="p/b")
        guarded.settle()
        await one.change(PauseRollout("gateway"), key="p/c")
        await one.change(ResumeRollout("gateway"), key="p/d")
        guarded.set_image("app:2")
        guarded.settle()
        await one.change(RollBack("gateway"), key="p/e")
        guarded.settle()
        await one.restore("p/e", key="p/e/undo")
        guarded.settle()
        await one.change(SetFlag("exchange-flags", "mode", "x"), key="p/f")
        await one.restore("p/f", key="p/f/undo")
        await one.change(Cordon("node-1"), key="p/g")
        await one.change(Drain("node-1"), key="p/h")
        await one.restore("p/g", key="p/g/undo")
        guarded.settle()
        hpas = "/apis/autoscaling/v2/namespaces/exchange/horizontalpodautoscalers"
        guarded.cluster.request("POST", hpas, hpa())
        await one.scale("gateway", 3, key="p/i")
        await one.restore("p/i", key="p/i/undo")
        guarded.cluster.request("DELETE", f"{hpas}/gateway")
        await one.rehearse(RestartReplica("gateway", min(guarded.pods())))
        await one.rehearse(RollingRestart("gateway"))
        assert await one.ledger.sweep(SystemClock().now()) == 0


async def test_a_single_writer_and_a_stuck_pod_are_deleted_under_the_policies(guarded, monkeypatch):
    monkeypatch.setattr("runbooks.adapters.kubernetes.reader.OVERDUE", 0)
    path = "/apis/policy/v1/namespaces/exchange/poddisruptionbudgets"
    spec = {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "engine"}}}
    guarded.cluster.request("POST", path, {"metadata": {"name": "engine"}, "spec": spec})
    guarded.cluster.wait("it is reckoned", lambda: guarded.get(f"{path}/engine")["status"]["expectedPods"] == 1)
    async with controller(guarded) as one:
        await one.fence.raise_(await elect(one, "control-3"))
        there = guarded.pods("engine")["engine-0"]["metadata"]["uid"]
        await one.rehearse(RestartReplica("engine", "engine-0"))
        assert guarded.pods("engine")["engine-0"]["metadata"]["uid"] == there
        effect = await one.restart("engine", "engine-0", key="q/a")
        assert effect.after["by"] == "deletion"
        guarded.settle()
        name = min(guarded.pods())
        notes = {"metadata": {"annotations": {"testbed/delete-delay": "300s"}}}
        guarded.patch(guarded.core("pods", name), notes)
        guarded.cluster.request("DELETE", guarded.core("pods", name), {"gracePeriodSeconds": 1})
        await overdue(guarded, name)
        await one.change(DeleteReplica("gateway", name), key="q/b")
    assert name not in {pod["metadata"]["name"] for pod in guarded.get(guarded.core("pods"))["items"]}


async def test_whoever_is_elected_waits_until_the_server_refuses_the_old_epoch(guarded, audit):
    seen = audit(guarded.cluster)
    async with controller(guarded) as one:
        epoch = await elect(one, "control-4")
        await one.fence.raise_(epoch)

    def probed():
        return seen.writes(resource="pods", subresource="eviction", namespace="exchange")

    # A record may come a moment after its answer; the last question is the one that is let through.
    guarded.cluster.wait("the last", lambda: any(each["responseStatus"]["code"] == 404 for each in probed()))
    probes = probed()
    assert all("dryRun=All" in each["requestURI"] for each in probes)
    last = [(json.loads(stamp(each)), each["responseStatus"]["code"]) for each in probes[-2:]]
    assert last == [(epoch - 1, 403), (epoch, 404)]


def stamp(record):
    return record["requestObject"]["metadata"]["annotations"]["tapewatch.example/epoch"]


async def test_a_server_that_takes_another_for_the_leader_lets_nobody_begin(guarded):
    async with controller(guarded, within_s=0.3) as one:
        epoch = await elect(one, "control-5")
        with pytest.raises(TemporaryError, match=f"does not take epoch {epoch + 5} for the leader's"):
            await one.fence.raise_(epoch + 5)
        assert one.fence.stands is None


async def test_without_a_policy_a_leader_that_requires_fencing_does_not_begin(kube, ns):
    async with Api(connect(kube.kubeconfig)) as api:
        required = Fence(api, namespace=ns, within_s=0.2)
        await refused(required.raise_(4), RefusalReason.NOT_LEADER, "no fencing policy holds")
        assert (required.stands, required.epoch) == (False, 0)
        preferred = Fence(api, namespace=ns, fencing=Fencing.PREFERRED, within_s=0.2)
        await preferred.raise_(4)
        assert (preferred.stands, preferred.epoch) == (False, 4)


async def test_what_was_decided_in_an_epoch_is_not_sent_in_another(kube, ns):
    async with Api(connect(kube.kubeconfig)) as api:
        leads = ["control-9 leads (epoch 5)"]
        fence = Fence(api, namespace=ns, why_not=lambda: leads[-1], fencing=Fencing.PREFERRED, within_s=0.2)
        stamp = fence.stamp("k")
        await refused(check(fence, stamp), RefusalReason.NOT_LEADER, "control-9 leads")
        leads.append("")
        await fence.raise_(6)
        await refused(check(fence, stamp), RefusalReason.NOT_LEADER, "decided in epoch 0, it is 6 now")
        fence.check(fence.stamp("k"))


async def check(fence, stamp):
    fence.check(stamp)


async def test_the_lease_is_led_by_one_and_the_epoch_only_grows(guarded):
    async with controller(guarded) as one:
        seen = await one.leases.read()
        with pytest.raises(PermanentError, match="never falls"):
            await one.leases.replace(msgspec.structs.replace(seen, epoch=seen.epoch - 1))
        path = "/apis/coordination.k8s.io/v1/namespaces/tapewatch/leases/tapewatch-leader"
        with pytest.raises(ApiStatusError, match="never falls"):
            guarded.cluster.request("PATCH", path, {"spec": {"leaseTransitions": 0}}, content_type=MERGE)
