"""Writes while the API server loses answers, is busy, dies, hangs, forgets our rights or its storage.

The oracle is the server's own record: whatever happened, one effect for one key.
"""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio
import contextlib
import http.client
import signal
import ssl
import time

import pytest

from control.testbed.cluster import ApiStatusError, Cluster
from kernel.errors import PermanentError, TemporaryError
from runbooks.adapters.kubernetes.api import NoAnswerError
from runbooks.changes import PauseRollout, RollBack, RollingRestart, RunJob, SetFlag
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.kube.audit import new_namespace
from tests.kube.plant import MERGE, Plant, adapter, lost, refused
from tests.kube.proxy import Proxy
from tests.standing import stop

# --- lost answers ---------------------------------------------------------------------------------------------------


def cron():
    pod = {
        "metadata": {"labels": {"app": "tidy"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:1"}]},
    }
    spec = {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": {"template": pod}}}
    return {"metadata": {"name": "tidy"}, "spec": spec}


WRITES = {
    "restart": lambda one, plant, key: one.restart("gateway", plant.first, key=key),
    "scale": lambda one, _, key: one.scale("gateway", 3, key=key),
    "rolling restart": lambda one, _, key: one.change(RollingRestart("gateway"), key=key),
    "roll back": lambda one, _, key: one.change(RollBack("gateway"), key=key),
    "pause": lambda one, _, key: one.change(PauseRollout("gateway"), key=key),
    "flag": lambda one, _, key: one.change(SetFlag("flags", "mode", "reduced"), key=key),
    "job": lambda one, _, key: one.change(RunJob("tidy"), key=key),
}


def everything(plant):
    """Make what every write of `WRITES` needs."""
    plant.build()
    plant.config(mode="normal")
    plant.cluster.request("POST", f"/apis/batch/v1/namespaces/{plant.ns}/cronjobs", cron())
    plant.set_image("app:2")
    plant.settle()
    plant.first = min(plant.pods())


def applied(plant):
    """Return the writes that were carried out, flags included."""
    return [one for one in plant.sent() if one["responseStatus"]["code"] < 300]


@pytest.mark.parametrize("write", list(WRITES))
async def test_a_write_whose_answer_is_lost_is_read_back_and_not_repeated(kube, ns, plant, write, monkeypatch):
    everything(plant)
    with Proxy(kube.ports.api) as proxy:
        async with adapter(kube, ns, url=proxy.url, read_s=20.0) as one:
            begin, losing = one.ledger.begin, []

            async def then_lose(*given):
                begun = await begin(*given)
                losing.append(asyncio.ensure_future(lose_one(proxy)))
                await asyncio.sleep(0)
                return begun

            monkeypatch.setattr(one.ledger, "begin", then_lose)
            asked = WRITES[write](one, plant, "k")
            effect = await asked
            await losing[0]
            again = await one.effect("k")
    assert not effect.repeated
    assert again.after == effect.after
    assert len(applied(plant)) == 1


async def lose_one(proxy):
    """Lose the next answer: what is waited for here ends with that."""
    swallowed = proxy.swallowed_bytes
    await lost(proxy, until_more(proxy, swallowed))


async def until_more(proxy, swallowed):
    while proxy.swallowed_bytes == swallowed:  # noqa: ASYNC110 - threads swallow
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("write", list(WRITES))
async def test_after_a_crash_between_effect_and_entry_the_same_key_finds_it_done(kube, ns, plant, write, monkeypatch):
    """The controller dies right after its request was carried out: nothing but `begun` is in the ledger."""
    everything(plant)
    async with adapter(kube, ns) as one:
        monkeypatch.setattr(one.ledger, "done", crash)
        asked = WRITES[write](one, plant, "k")
        with pytest.raises(KeyboardInterrupt):
            await asked
    async with adapter(kube, ns) as other:
        effect = await WRITES[write](other, plant, "k")
        assert effect.repeated
        assert (await other.effect("k")).after == effect.after
    assert len(applied(plant)) == 1


async def crash(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("write", list(WRITES))
async def test_after_a_crash_between_entry_and_effect_the_same_key_carries_on(kube, ns, plant, write, monkeypatch):
    everything(plant)
    async with adapter(kube, ns) as one:
        begin = one.ledger.begin

        async def then_crash(*given):
            await begin(*given)
            raise KeyboardInterrupt

        monkeypatch.setattr(one.ledger, "begin", then_crash)
        with pytest.raises(KeyboardInterrupt):
            await WRITES[write](one, plant, "k")
    assert applied(plant) == []
    async with adapter(kube, ns) as other:
        assert await other.effect("k") is None
        effect = await WRITES[write](other, plant, "k")
        assert not effect.repeated
        if write == "restart":
            assert effect.before["replica"] == plant.first
    assert len(applied(plant)) == 1


async def test_what_was_begun_before_somebody_else_wrote_ends_in_a_conflict(kube, ns, plant, monkeypatch):
    plant.build()
    async with adapter(kube, ns) as one:
        begin = one.ledger.begin

        async def then_crash(*given):
            await begin(*given)
            raise KeyboardInterrupt

        monkeypatch.setattr(one.ledger, "begin", then_crash)
        with pytest.raises(KeyboardInterrupt):
            await one.scale("gateway", 3, key="k")
    plant.kubectl("scale", "deployment/gateway", "--replicas=3")  # the same number, by another hand
    async with adapter(kube, ns) as other:
        await refused(other.scale("gateway", 3, key="k"), RefusalReason.CONFLICT, "made on generation 1, it is 2 now")
    assert applied(plant) == []


async def test_two_controllers_with_one_key_do_it_once(kube, ns, plant):
    plant.build()
    name = min(plant.pods())
    async with adapter(kube, ns) as one, adapter(kube, ns) as other:
        for write in (lambda c: c.scale("gateway", 3, key="s"), lambda c: c.restart("gateway", name, key="r")):
            done = await asyncio.gather(*(write(each) for each in (one, other)), return_exceptions=True)
            assert any(not isinstance(each, BaseException) for each in done), done
    assert plant.gateway()["spec"]["replicas"] == 3
    assert [one["objectRef"]["subresource"] for one in applied(plant)].count("scale") == 1
    # Asked twice, the eviction of one uid ends one pod.
    assert len({one["requestObject"]["deleteOptions"]["preconditions"]["uid"] for one in applied(plant)[1:]}) == 1


# --- rights, load ---------------------------------------------------------------------------------------------------


def account(kube, ns, *rules):
    """Make an account with some rights in its namespace; return its token."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}"
    kube.request("POST", f"/api/v1/namespaces/{ns}/serviceaccounts", {"metadata": {"name": "runner"}})
    kube.request("POST", f"{rbac}/roles", {"metadata": {"name": "runner"}, "rules": list(rules)})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "runner"}
    subject = {"kind": "ServiceAccount", "name": "runner", "namespace": ns}
    kube.request(
        "POST", f"{rbac}/rolebindings", {"metadata": {"name": "runner"}, "roleRef": ref, "subjects": [subject]}
    )
    token = kube.token_for("runner", ns, seconds=600)
    kube.wait("the account may read", lambda: kube.request("GET", f"/api/v1/namespaces/{ns}/pods", token=token))
    return token


READ = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}
KEEP = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]}
SCALE = {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]}


async def test_a_right_that_is_missing_is_named_with_what_to_grant(kube, ns, plant):
    plant.build()
    token = account(kube, ns, READ, KEEP)
    async with adapter(kube, ns, token=token) as one:
        with pytest.raises(PermanentError, match=r"grant `patch` on `deployments/scale\.apps` in the namespace"):
            await one.scale("gateway", 3, key="s")
        with pytest.raises(PermanentError, match="grant `create` on `pods/eviction` in the namespace"):
            await one.restart("gateway", min(plant.pods()), key="r")
        assert await one.effect("s") is None
    assert plant.gateway()["spec"]["replicas"] == 2


def may_scale(plant, token):
    """Tell whether the server lets the bearer scale: what is granted and withdrawn reaches it a moment later."""
    path = plant.apps("deployments", "gateway") + "/scale?dryRun=All"
    try:
        plant.cluster.request("PATCH", path, {"spec": {"replicas": 3}}, content_type=MERGE, token=token)
    except ApiStatusError as error:
        if error.code != 403:
            raise
        return False
    return True


async def test_rights_withdrawn_half_way_leave_an_entry_that_says_it_was_not_done(kube, ns, plant, monkeypatch):
    plant.build()
    token = account(kube, ns, READ, KEEP, SCALE)
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}"
    async with adapter(kube, ns, token=token) as one:
        await one.scale("gateway", 3, key="first")
        begin = one.ledger.begin

        async def then_withdraw(*given):
            begun = await begin(*given)
            kube.request("PUT", f"{rbac}/roles/runner", {"metadata": {"name": "runner"}, "rules": [READ, KEEP]})
            kube.wait("the server knows", lambda: not may_scale(plant, token))
            return begun

        monkeypatch.setattr(one.ledger, "begin", then_withdraw)
        with pytest.raises(PermanentError, match="grant `patch`"):
            await one.scale("gateway", 4, key="second")
        assert (await one.ledger.read("second")).phase == "dropped"
        kube.request("PUT", f"{rbac}/roles/runner", {"metadata": {"name": "runner"}, "rules": [READ, KEEP, SCALE]})
        monkeypatch.setattr(one.ledger, "begin", begin)
        kube.wait("the server knows", lambda: may_scale(plant, token))
        assert (await one.scale("gateway", 4, key="second")).after["replicas"] == "4"


async def test_a_server_that_is_too_busy_is_asked_again_later_and_the_write_is_done_once(kube, ns, plant):
    """A priority level without shares turns parallel requests of one account away with 429.

    The parallel one is a request whose body does not come: as long as that is waited for, every other is turned away.
    """
    plant.build()
    token = account(kube, ns, READ, KEEP, SCALE)
    flow = "/apis/flowcontrol.apiserver.k8s.io/v1"
    limited = {
        "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"},
    }  # fmt: skip
    level = {"metadata": {"name": ns}, "spec": {"type": "Limited", "limited": limited}}
    rules = {
        "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "runner", "namespace": ns}}],
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
        ],
    }
    schema = {"matchingPrecedence": 2, "priorityLevelConfiguration": {"name": ns}, "rules": [rules]}
    kube.request("POST", f"{flow}/prioritylevelconfigurations", level)
    kube.request("POST", f"{flow}/flowschemas", {"metadata": {"name": ns}, "spec": schema})
    pauses = []
    try:
        async with adapter(kube, ns, token=token) as one:
            with contextlib.ExitStack() as seat:
                kube.wait("the server is busy", lambda: is_busy(plant, token, seat))
                for _ in range(3):
                    with pytest.raises(TemporaryError) as caught:
                        await one.scale("gateway", 3, key="s")
                    pauses.append(caught.value.retry_after)
            await persist(lambda: one.scale("gateway", 3, key="s"))  # the seat is free a moment later
    finally:
        kube.request("DELETE", f"{flow}/flowschemas/{ns}")
        kube.request("DELETE", f"{flow}/prioritylevelconfigurations/{ns}")
    assert 1_000_000_000 in pauses
    assert plant.gateway()["spec"]["replicas"] == 3
    assert [one["responseStatus"]["code"] for one in plant.sent()].count(200) == 1


def is_busy(plant, token, seat):
    """Begin a request of the account and tell whether another is turned away: the level comes into force in its time.

    The request's body never comes; `seat` ends it.
    """
    cluster = plant.cluster
    trust = ssl.create_default_context(cafile=str(cluster.files.ca))
    begun = http.client.HTTPSConnection("127.0.0.1", cluster.ports.api, timeout=30, context=trust)
    seat.callback(begun.close)
    begun.putrequest("POST", plant.core("configmaps"))
    for name, value in {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Content-Length": "9",
    }.items():
        begun.putheader(name, value)
    begun.endheaders()
    try:
        for _ in range(5):  # until it has come that far
            cluster.request("GET", plant.core("pods"), token=token)
    except ApiStatusError as error:
        if error.code != 429:
            raise
        return True
    begun.close()
    return False


# --- the server and its storage go away -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def breakable(testbed_binary):
    """A test bed of these tests' own, whose API server gives a hanging write up after three seconds."""
    with Cluster(testbed_binary, nodes=1, flags={"kube-apiserver": ["--request-timeout", "3s"]}) as cluster:
        yield cluster


@pytest.fixture
def own_plant(breakable):
    """A plant whose cluster may be broken; it is healed afterwards."""
    plant = Plant(breakable, new_namespace(breakable))
    plant.build()
    yield plant
    breakable.heal()


async def persist(attempt, within_s=120):
    """Ask again with the same key until it is done; return the effect and how often there was trouble."""
    deadline, troubles = time.monotonic() + within_s, 0
    while True:
        try:
            return await attempt(), troubles
        except TemporaryError:
            troubles += 1
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def test_an_api_server_that_hangs_is_given_up_on_and_the_write_that_was_under_way_is_not_repeated(own_plant):
    cluster, ns = own_plant.cluster, own_plant.ns
    async with adapter(cluster, ns, read_s=1.0) as one:
        begin = one.ledger.begin

        async def then_hang(*given):
            begun = await begin(*given)
            stop(cluster.alive()["kube-apiserver"])
            return begun

        one.ledger.begin = then_hang
        async with asyncio.timeout(60):
            with pytest.raises(TemporaryError):
                await one.scale("gateway", 3, key="s")
        one.ledger.begin = begin
        cluster.send("kube-apiserver", signal.SIGCONT)
        effect, _ = await persist(lambda: one.scale("gateway", 3, key="s"))
        assert effect.after["replicas"] == "3"
    assert own_plant.gateway()["metadata"]["generation"] == 2


async def test_without_storage_nothing_is_believed_and_afterwards_all_is_done_once(own_plant):
    cluster, ns = own_plant.cluster, own_plant.ns
    async with adapter(cluster, ns, read_s=7.0) as one:
        begin = one.ledger.begin

        async def then_stop(*given):
            begun = await begin(*given)
            cluster.kill("etcd")
            return begun

        one.ledger.begin = then_stop
        with pytest.raises(TemporaryError) as caught:
            await one.scale("gateway", 3, key="s")
        assert isinstance(caught.value.__cause__, NoAnswerError) or isinstance(caught.value, NoAnswerError)
        one.ledger.begin = begin
        cluster.spawn("etcd")
        cluster.wait_api()
        effect, _ = await persist(lambda: one.scale("gateway", 3, key="s"))
        assert effect.after["replicas"] == "3"
    assert own_plant.gateway()["metadata"]["generation"] == 2


async def test_an_api_server_that_dies_in_mid_write_and_comes_back_has_done_each_write_once(own_plant):
    cluster, ns = own_plant.cluster, own_plant.ns
    async with adapter(cluster, ns, read_s=2.0) as one:
        troubles, replicas = 0, 2
        loop = asyncio.get_running_loop()
        for round_ in range(3):
            # Not from threads: what a thread has started ends with it.
            loop.call_later(0.01 + 0.02 * round_, cluster.kill, "kube-apiserver")
            loop.call_later(1.0, cluster.spawn, "kube-apiserver")
            replicas = 3 if replicas == 2 else 2
            effect, more = await persist(lambda r=replicas, n=round_: one.scale("gateway", r, key=f"s{n}"))
            troubles += more
            assert effect.after["replicas"] == str(replicas)
            await asyncio.sleep(1.1)
            cluster.wait_api()
        assert troubles > 0
        assert own_plant.gateway()["spec"]["replicas"] == replicas
    assert own_plant.gateway()["metadata"]["generation"] == 1 + 3  # each scale moved it once


async def test_a_workload_that_was_made_anew_is_not_the_one_that_was_planned_for(kube, ns, plant, monkeypatch):
    plant.build()
    body = plant.gateway()
    async with adapter(kube, ns) as one:
        begin = one.ledger.begin

        async def then_replace(*given):
            begun = await begin(*given)
            plant.kubectl("delete", "deployment", "gateway", "--wait=true")
            clean = {"metadata": {"name": "gateway"}, "spec": body["spec"]}
            kube.request("POST", plant.apps("deployments"), clean)
            return begun

        monkeypatch.setattr(one.ledger, "begin", then_replace)
        with pytest.raises(RefusedError, match="made anew"):
            await one.scale("gateway", 3, key="s")
    assert plant.gateway()["spec"]["replicas"] == 2
