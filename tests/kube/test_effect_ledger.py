"""The ledger of effects: one entry a key, whoever writes it and whatever gets lost."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio
import contextlib
import json

import pytest

from kernel.adapters.clock import SystemClock
from kernel.errors import PermanentError, TemporaryError
from kernel.time import DAY, Instant
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.fields import Field
from runbooks.adapters.kubernetes.ledger import Ledger, Plan
from runbooks.model import RefusalReason
from tests.kube.plant import admin, lost, refused
from tests.kube.proxy import Proxy

PLAN = Plan(mode="merge", path="/x", fields=(Field(path=("spec", "n"), before=1, after=2),), before={"n": "1"})


@contextlib.asynccontextmanager
async def ledger(kube, ns, url="", clock=None):
    where = kube.write_kubeconfig(f"{ns}-ledger", admin(kube), url=url) if url else kube.kubeconfig
    async with Api(connect(where), read_s=20.0) as api:
        yield Ledger(api, clock or SystemClock(), namespace=ns)


def entries(kube, ns):
    found = kube.request("GET", f"/api/v1/namespaces/{ns}/configmaps")["items"]
    return [one for one in found if one["metadata"]["name"].startswith("effect-")]


async def test_an_entry_is_begun_then_done_and_found_by_its_key(kube, ns):
    async with ledger(kube, ns) as one:
        assert await one.read("k") is None
        entry, fresh = await one.begin("k", "do it", PLAN, 3)
        assert (fresh, entry.phase, entry.epoch, entry.plan) == (True, "begun", 3, PLAN)
        assert await one.find("k") is None
        effect = await one.done(entry, {"n": "2"})
        assert (effect.before, effect.after, effect.repeated) == ({"n": "1"}, {"n": "2"}, False)
        found = await one.find("k")
        assert (found.at, found.after, found.repeated) == (effect.at, {"n": "2"}, True)
    (kept,) = entries(kube, ns)
    assert kept["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tapewatch"


async def test_a_key_that_was_begun_elsewhere_is_not_begun_again(kube, ns):
    async with ledger(kube, ns) as one, ledger(kube, ns) as other:
        begun = await asyncio.gather(*(each.begin("k", "do it", PLAN, 1) for each in (one, other, one, other)))
        assert sorted(fresh for _, fresh in begun) == [False, False, False, True]
        assert len({entry.by for entry, _ in begun}) == 1
        await refused(one.begin("k", "do something else", PLAN, 1), RefusalReason.CONFLICT, "use a new key")


async def test_a_dropped_key_may_be_begun_again_and_a_done_one_stays_done(kube, ns):
    async with ledger(kube, ns) as one:
        entry, _ = await one.begin("k", "do it", PLAN, 1)
        await one.drop(entry, "a rail stopped it")
        assert (await one.read("k")).why == "a rail stopped it"
        again, fresh = await one.begin("k", "do it", PLAN, 2)
        assert (fresh, again.epoch) == (True, 2)
        await one.done(again, {"n": "2"})
        await one.drop(again, "too late")
        assert (await one.find("k")).after == {"n": "2"}
        assert (await one.done(entry, {"n": "9"})).after == {"n": "2"}


async def test_lost_answers_leave_one_entry_and_the_right_one(kube, ns):
    with Proxy(kube.ports.api) as proxy:
        async with ledger(kube, ns, proxy.url) as one:
            await one.read("warm")
            writing = asyncio.create_task(lost(proxy, one.begin("k", "do it", PLAN, 1)))
            entry, fresh = await writing
            assert fresh
            await one.read("warm")
            await lost(proxy, one.done(entry, {"n": "2"}))
            assert (await one.find("k")).after == {"n": "2"}
        async with ledger(kube, ns, proxy.url) as one:
            proxy.mode = "refuse"
            with pytest.raises(TemporaryError):
                await one.begin("other", "do it", PLAN, 1)
    assert len(entries(kube, ns)) == 1


async def test_what_is_too_large_to_be_kept_is_not_begun(kube, ns):
    huge = Plan(mode="merge", fields=(Field(path=("data", "x"), after="y" * 300_000),))
    async with ledger(kube, ns) as one:
        with pytest.raises(PermanentError, match="too large to be kept"):
            await one.begin("k", "do it", huge, 1)
    assert entries(kube, ns) == []


async def test_an_entry_that_somebody_has_spoilt_is_no_entry(kube, ns):
    async with ledger(kube, ns) as one:
        await one.begin("k", "do it", PLAN, 1)
        (kept,) = entries(kube, ns)
        name = kept["metadata"]["name"]
        kube.kubectl("-n", ns, "patch", "configmap", name, "--type=merge", "-p", '{"data": {"record": "{"}}')
        with pytest.raises(PermanentError, match="a person must look"):
            await one.find("k")


class At:
    """A clock that stands."""

    def __init__(self, at):
        self.at = at

    def now(self):
        return Instant(self.at)


async def test_only_entries_older_than_a_week_by_both_clocks_are_swept(kube, ns):
    clock = At(SystemClock().now())
    async with ledger(kube, ns, clock=clock) as one:
        for key in ("a", "b"):
            entry, _ = await one.begin(key, "do it", PLAN, 1)
            await one.done(entry, {})
        kube.request("POST", f"/api/v1/namespaces/{ns}/configmaps", {"metadata": {"name": "effect-not", "labels": {}}})
        assert await one.sweep(Instant(clock.at + 6 * DAY)) == 0
        record = json.loads(entries(kube, ns)[0]["data"]["record"])
        record["ended_at"] += 3 * DAY
        name = entries(kube, ns)[0]["metadata"]["name"]
        patch = json.dumps({"data": {"record": json.dumps(record)}})
        kube.kubectl("-n", ns, "patch", "configmap", name, "--type=merge", "-p", patch)
        assert await one.sweep(Instant(clock.at + 8 * DAY)) == 1
        assert await one.sweep(Instant(clock.at + 8 * DAY)) == 0
    assert {each["metadata"]["name"] for each in entries(kube, ns)} == {name, "effect-not"}
