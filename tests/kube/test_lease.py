"""The Lease as the record of who leads: exact, compared and set, shared with kubectl."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio
import contextlib

import msgspec
import pytest

from kernel.errors import TemporaryError
from kernel.time import MILLISECOND, SECOND, Duration, Instant
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.lease import KubernetesLeases
from runbooks.leases import LeaseRecord
from runbooks.model import RefusalReason
from tests.kube.plant import MERGE, admin, lost, refused
from tests.kube.proxy import Proxy

FIRST = LeaseRecord(
    holder="control-0/1",
    epoch=1,
    renewed_at=Instant(1_780_000_000_123_456_789),
    duration_ns=Duration(1500 * MILLISECOND),
)


@contextlib.asynccontextmanager
async def leases(kube, ns, url=""):
    where = kube.write_kubeconfig(f"{ns}-lease", admin(kube), url=url) if url else kube.kubeconfig
    async with Api(connect(where), read_s=20.0) as api:
        yield KubernetesLeases(api, namespace=ns)


def path(ns):
    return f"/apis/coordination.k8s.io/v1/namespaces/{ns}/leases/tapewatch-leader"


def bare(record):
    return msgspec.structs.replace(record, resource_version="")


async def test_a_record_comes_back_exactly_and_is_a_usual_lease_to_others(kube, ns):
    async with leases(kube, ns) as one:
        assert await one.read() is None
        kept = await one.create(FIRST)
        assert bare(kept) == FIRST
        assert await one.read() == kept
        await refused(one.create(FIRST), RefusalReason.CONFLICT, "already")
    spec = kube.request("GET", path(ns))["spec"]
    assert spec == {
        "holderIdentity": "control-0/1", "leaseTransitions": 1, "leaseDurationSeconds": 2,
        "renewTime": "2026-05-28T20:26:40.123456Z",
    }  # fmt: skip
    assert "control-0/1" in kube.kubectl("-n", ns, "get", "lease", "tapewatch-leader")


async def test_only_the_record_that_was_read_is_replaced(kube, ns):
    async with leases(kube, ns) as one:
        kept = await one.create(FIRST)
        rivals = [msgspec.structs.replace(kept, holder=f"control-{n}", epoch=2) for n in range(8)]
        tried = await asyncio.gather(*(one.replace(rival) for rival in rivals), return_exceptions=True)
        won = [each for each in tried if isinstance(each, LeaseRecord)]
        assert len(won) == 1
        assert await one.read() == won[0]
        await refused(one.replace(kept), RefusalReason.CONFLICT, "changed since")
        await refused(one.replace(bare(kept)), RefusalReason.CONFLICT, "never read")
        kube.request("DELETE", path(ns))
        await refused(one.replace(won[0]), RefusalReason.CONFLICT, "gone")


async def test_a_lease_without_a_holder_yet_is_of_no_epoch_and_keeps_its_labels(kube, ns):
    body = {"metadata": {"name": "tapewatch-leader", "labels": {"app.kubernetes.io/part-of": "tapewatch"}}}
    kube.request("POST", path(ns).rpartition("/")[0], body)
    async with leases(kube, ns) as one:
        seen = await one.read()
        assert (seen.holder, seen.epoch) == ("", 0)
        await one.replace(msgspec.structs.replace(FIRST, resource_version=seen.resource_version))
        released = msgspec.structs.replace(await one.read(), holder="", epoch=2)
        assert (await one.replace(released)).holder == ""
    found = kube.request("GET", path(ns))
    assert found["metadata"]["labels"] == {"app.kubernetes.io/part-of": "tapewatch"}
    assert found["spec"].get("holderIdentity", "") == ""


async def test_what_somebody_else_writes_counts_as_it_is_written(kube, ns):
    async with leases(kube, ns) as one:
        await one.create(FIRST)
        theirs = {"renewTime": "2026-05-28T20:26:41.5Z", "leaseDurationSeconds": 30}
        kube.request(
            "PATCH", path(ns), {"spec": {**theirs, "renewTime": "2026-05-28T20:26:41.500000Z"}}, content_type=MERGE
        )
        seen = await one.read()
    assert (seen.renewed_at, seen.duration_ns) == (1_780_000_001_500_000_000, 30 * SECOND)


async def test_after_a_lost_answer_the_record_read_back_is_the_one_that_was_sent(kube, ns):
    with Proxy(kube.ports.api) as proxy:
        async with leases(kube, ns, proxy.url) as one:
            kept = await one.create(FIRST)
            sent = msgspec.structs.replace(kept, renewed_at=Instant(FIRST.renewed_at + 1))
            with pytest.raises(TemporaryError):
                await lost(proxy, one.replace(sent))
            seen = await one.read()
    assert bare(seen) == bare(sent)
    assert seen.resource_version != sent.resource_version
