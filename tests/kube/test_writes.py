"""Each write of the adapter on a real cluster: what it does, what it leaves, what it refuses, what it sends."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio

import pytest

from kernel.errors import PermanentError
from runbooks.changes import (
    Cordon,
    PauseRollout,
    RestoreConfig,
    RollBack,
    RollingRestart,
    SetFlag,
    TakeBack,
)
from runbooks.model import RefusalReason, RestartReplica, Scale, SetReplicas
from runbooks.ports import BudgetError, RefusedError
from tests.kube.plant import adapter, hpa, refused

EPOCH, KEY = "tapewatch.example/epoch", "tapewatch.example/key"


# --- one replica ----------------------------------------------------------------------------------------------------


async def test_a_restart_evicts_one_pod_and_names_its_successor(kube, ns, plant):
    plant.build()
    name, pod = next(iter(plant.pods().items()))
    async with adapter(kube, ns) as one:
        effect = await one.restart("gateway", name, key="r")
        again = await one.restart("gateway", name, key="r")
    assert effect.before == {"replica": name, "uid": pod["metadata"]["uid"], "node": pod["spec"]["nodeName"]}
    assert effect.after["uid"] == plant.pods()[effect.after["replica"]]["metadata"]["uid"]
    assert name not in plant.pods()
    assert again.repeated
    assert (again.before, again.after, again.at) == (effect.before, effect.after, effect.at)
    eviction = plant.sent()
    assert [one["objectRef"]["subresource"] for one in eviction] == ["eviction"]
    body = eviction[0]["requestObject"]
    assert body["metadata"]["annotations"] == {EPOCH: "0", KEY: "r"}
    assert body["deleteOptions"]["preconditions"]["uid"] == pod["metadata"]["uid"]


async def test_the_pod_of_a_stateful_set_comes_back_under_its_name(kube, ns, plant):
    plant.build()
    old = plant.pods("engine")["engine-0"]["metadata"]["uid"]
    async with adapter(kube, ns) as one:
        effect = await one.restart("engine", "engine-0", key="r")
    assert (effect.before["replica"], effect.after["replica"]) == ("engine-0", "engine-0")
    assert effect.after["uid"] not in {old, ""}


async def test_a_budget_that_is_used_up_is_a_budget_error_and_nothing_is_noted(kube, ns, plant):
    plant.build()
    plant.budget(minAvailable=2)
    name = next(iter(plant.pods()))
    async with adapter(kube, ns) as one:
        with pytest.raises(BudgetError) as caught:
            await one.restart("gateway", name, key="r")
        assert caught.value.retry_after == 1_000_000_000
        assert await one.effect("r") is None
        with pytest.raises(RefusedError) as rehearsed:
            await one.rehearse(RestartReplica("gateway", name))
        assert rehearsed.value.reason is RefusalReason.DISRUPTION_BUDGET
        plant.patch(f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets/gateway", {"spec": {"minAvailable": 1}})
        while True:
            try:
                effect = await one.restart("gateway", name, key="r")
                break
            except BudgetError:
                await asyncio.sleep(0.05)
    assert not effect.repeated
    assert [one["responseStatus"]["code"] for one in plant.sent()][-1] == 201


async def test_the_single_writer_whose_budget_allows_nothing_is_deleted_gracefully_and_fenced(kube, ns, plant):
    plant.build()
    path = f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets"
    body = {
        "metadata": {"name": "engine"},
        "spec": {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "engine"}}},
    }
    kube.request("POST", path, body)
    kube.wait("it is reckoned", lambda: plant.get(f"{path}/engine")["status"]["expectedPods"] == 1)
    async with adapter(kube, ns) as one:
        there = plant.pods("engine")["engine-0"]["metadata"]["uid"]
        told = await one.rehearse(RestartReplica("engine", "engine-0"))
        assert plant.pods("engine")["engine-0"]["metadata"]["uid"] == there
        effect = await one.restart("engine", "engine-0", key="r")
    assert any("gracefully" in line for line in told)
    assert effect.after["by"] == "deletion"
    mark, deletion = plant.sent()
    assert mark["requestObject"]["metadata"]["annotations"] == {EPOCH: "0", KEY: "r"}
    assert deletion["requestObject"]["preconditions"] == {
        "uid": effect.before["uid"],
        "resourceVersion": mark["responseObject"]["metadata"]["resourceVersion"],
    }
    assert "gracePeriodSeconds" not in deletion["requestObject"]


async def test_a_pod_without_an_owner_is_not_restarted(kube, ns, plant):
    plant.build()
    stray = {
        "metadata": {"name": "stray", "labels": {"app": "gateway"}},
        "spec": {"containers": [{"name": "c", "image": "app:1"}]},
    }
    kube.request("POST", plant.core("pods"), stray)
    async with adapter(kube, ns) as one:
        await refused(one.restart("gateway", "stray", key="a"), RefusalReason.NO_TARGET, "nobody would start it anew")
        with pytest.raises(PermanentError, match="has no replica 'gateway-9'"):
            await one.restart("gateway", "gateway-9", key="b")
    assert plant.sent() == []


async def test_a_key_stands_for_one_request_only(kube, ns, plant):
    plant.build()
    async with adapter(kube, ns) as one:
        await one.scale("gateway", 3, key="k")
        await refused(one.scale("gateway", 4, key="k"), RefusalReason.CONFLICT, "use a new key")
    assert len(carried_out(plant.sent())) == 1


# --- how many -------------------------------------------------------------------------------------------------------


def carried_out(sent):
    """Return the requests that had an effect; one that met a status on the move is answered 409 and sent anew."""
    assert {one["responseStatus"]["code"] for one in sent} <= {200, 409}
    return [one for one in sent if one["responseStatus"]["code"] == 200]


async def test_a_scale_goes_through_the_subresource_with_the_epoch_in_its_field_manager(kube, ns, plant):
    plant.build()
    async with adapter(kube, ns) as one:
        effect = await one.scale("gateway", 3, key="s")
        assert (effect.before["replicas"], effect.after["replicas"]) == ("2", "3")
        assert (await one.scale("gateway", 3, key="s")).repeated
        await one.scale("gateway", 2, key="s/undo")  # our own scale is nobody's hand
    assert plant.gateway()["spec"]["replicas"] == 2
    sent = plant.sent()
    assert len(carried_out(sent)) == 2
    for each in sent:
        assert (each["verb"], each["objectRef"]["subresource"]) == ("patch", "scale")
        assert "fieldManager=tapewatch-0" in each["requestURI"]
        assert each["requestObject"]["metadata"]["resourceVersion"]


async def test_a_plan_made_on_an_older_generation_is_a_conflict(kube, ns, plant):
    plant.build()
    async with adapter(kube, ns) as one:
        generation = (await one.status("gateway")).generation
        plant.kubectl("scale", "deployment/gateway", "--replicas=3")
        attempts = (
            one.scale("gateway", 1, key="a", generation=generation),
            one.change(RollingRestart("gateway"), key="b", generation=generation),
            one.restart("gateway", next(iter(plant.pods())), key="c", generation=generation),
        )
        for attempt in attempts:
            await refused(
                attempt, RefusalReason.CONFLICT, f"made on generation {generation}, it is {generation + 1} now"
            )
        assert await one.effect("a") is None
    assert plant.sent() == []


async def test_a_move_of_the_status_alone_is_no_conflict(kube, ns, plant, monkeypatch):
    """The resource version is moved between plan and write, as controllers do all the time."""
    plant.build()
    async with adapter(kube, ns) as one:
        begin = one.ledger.begin

        async def disturbed(*given):
            plant.patch(plant.apps("deployments", "gateway"), {"metadata": {"labels": {"moved": "1"}}})
            return await begin(*given)

        monkeypatch.setattr(one.ledger, "begin", disturbed)
        assert (await one.scale("gateway", 3, key="s")).after["replicas"] == "3"
    assert plant.gateway()["spec"]["replicas"] == 3


async def test_a_change_between_plan_and_write_is_a_conflict_that_names_the_generations(kube, ns, plant, monkeypatch):
    plant.build()
    async with adapter(kube, ns) as one:
        begin = one.ledger.begin

        async def disturbed(*given):
            plant.kubectl("scale", "deployment/gateway", "--replicas=5")
            return await begin(*given)

        monkeypatch.setattr(one.ledger, "begin", disturbed)
        await refused(one.scale("gateway", 3, key="s"), RefusalReason.CONFLICT, "made on generation 1, it is 2 now")
        assert await one.effect("s") is None
    assert plant.gateway()["spec"]["replicas"] == 5


async def test_a_singleton_and_a_slip_of_the_pen_are_not_scaled(kube, ns, plant):
    plant.build()
    async with adapter(kube, ns) as one:
        await refused(one.scale("engine", 2, key="a"), RefusalReason.SINGLETON)
        await refused(one.scale("gateway", 101, key="b"), RefusalReason.NOT_ALLOWED)
        await refused(one.scale("nobody", 1, key="c"), RefusalReason.NO_TARGET, "not on the allow-list")
        await refused(one.scale("", 1, key="d"), RefusalReason.NO_TARGET, "no target")
    assert plant.sent() == []


def hpas(ns):
    return f"/apis/autoscaling/v2/namespaces/{ns}/horizontalpodautoscalers"


async def test_where_an_autoscaler_owns_the_number_its_lower_bound_is_the_knob(kube, ns, plant):
    plant.build()
    kube.request("POST", hpas(ns), hpa())
    path = f"{hpas(ns)}/gateway"
    async with adapter(kube, ns) as one:
        effect = await one.scale("gateway", 4, key="out")
        assert effect.before == {"replicas": "2", "knob": "hpa.minReplicas", "min": "2"}
        assert effect.after == {"replicas": "4", "knob": "hpa.minReplicas", "min": "4"}
        found = plant.get(path)
        assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (4, 6)
        assert found["metadata"]["annotations"]["tapewatch.example/original-min"] == "2"
        kube.wait("it follows", lambda: plant.gateway()["spec"]["replicas"] == 4)
        await refused(one.scale("gateway", 7, key="far"), RefusalReason.OWNED, "2 to 6 by its owner, not 7")
        await refused(one.scale("gateway", 1, key="low"), RefusalReason.OWNED, "2 to 6 by its owner, not 1")
        await one.scale("gateway", 3, key="in")
        assert plant.get(path)["spec"]["minReplicas"] == 3
        await one.scale("gateway", 2, key="back")
        found = plant.get(path)
        assert found["spec"]["minReplicas"] == 2
        assert "tapewatch.example/original-min" not in found["metadata"]["annotations"]
        plant.kubectl("scale", "deployment/gateway", "--replicas=5")
        await refused(one.scale("gateway", 3, key="not-ours"), RefusalReason.OWNED, "it alone scales in")
    assert {one["objectRef"]["resource"] for one in plant.sent()} == {"horizontalpodautoscalers"}


async def test_a_raised_bound_is_taken_back_unless_its_owner_has_set_it_since(kube, ns, plant):
    plant.build()
    kube.request("POST", hpas(ns), hpa())
    path = f"{hpas(ns)}/gateway"
    async with adapter(kube, ns) as one:
        await one.scale("gateway", 4, key="out")
        await one.restore("out", key="out/undo")
        found = plant.get(path)
        assert found["spec"]["minReplicas"] == 2
        assert "tapewatch.example/original-min" not in found["metadata"]["annotations"]
        await one.scale("gateway", 4, key="out2")
        plant.kubectl("patch", "hpa", "gateway", "--type=merge", "-p", '{"spec": {"minReplicas": 5}}')
        await refused(
            one.restore("out2", key="undo2"), RefusalReason.CONFLICT, "kubectl-patch has set spec.minReplicas to 5"
        )
    assert plant.get(path)["spec"]["minReplicas"] == 5


async def test_a_scaled_object_of_keda_is_named_and_nothing_is_written(kube, ns, plant):
    plant.build()
    kube.request("POST", hpas(ns), hpa(labels={"scaledobject.keda.sh/name": "by-queue"}))
    async with adapter(kube, ns) as one:
        await refused(one.scale("gateway", 4, key="s"), RefusalReason.OWNED, "KEDA ScaledObject by-queue")
    assert plant.sent() == []


SCALED_OBJECTS = {
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh", "scope": "Namespaced",
        "names": {"plural": "scaledobjects", "singular": "scaledobject", "kind": "ScaledObject"},
        "versions": [
            {
                "name": "v1alpha1", "served": True, "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}  # fmt: skip


async def test_where_keda_is_installed_its_own_object_is_named(kube, ns, plant):
    plant.build()
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    kube.request("POST", definitions, SCALED_OBJECTS)
    try:
        body = {
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "by-lag"},
            "spec": {"scaleTargetRef": {"name": "gateway"}},
        }  # fmt: skip
        path = f"/apis/keda.sh/v1alpha1/namespaces/{ns}/scaledobjects"
        kube.wait("the kind is served", lambda: kube.request("POST", path, body))
        async with adapter(kube, ns) as one:
            await refused(one.scale("gateway", 4, key="s"), RefusalReason.OWNED, "KEDA ScaledObject by-lag")
    finally:
        kube.request("DELETE", f"{definitions}/scaledobjects.keda.sh")
    assert plant.sent() == []


async def test_a_pod_under_two_budgets_is_not_evicted(kube, ns, plant):
    plant.build()
    plant.budget(maxUnavailable=1)
    path = f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets"
    body = {
        "metadata": {"name": "twin"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "gateway"}}},
    }
    kube.request("POST", path, body)
    async with adapter(kube, ns) as one:
        name = min(plant.pods())
        await refused(one.restart("gateway", name, key="r"), RefusalReason.NOT_ALLOWED, "gateway and twin")
    assert plant.sent() == []


# --- rehearsal, leave -----------------------------------------------------------------------------------------------


async def test_a_rehearsal_asks_the_server_and_changes_nothing(kube, ns, plant):
    plant.build()
    plant.config(mode="normal")
    plant.config("flags-last-good", mode="good")
    plant.set_image("app:2")
    plant.settle()
    before = plant.gateway(), plant.data(), set(plant.pods())
    async with adapter(kube, ns) as one:
        for action, words in (
            (RestartReplica("gateway", next(iter(plant.pods()))), "no disruption budget covers it"),
            (Scale("gateway", 2, 1, 3), "from 2 to 3"),
            (SetReplicas("gateway", 1, 2), "from 2 to 1"),
            (RollingRestart("gateway"), next(iter(plant.pods()))),
            (RollBack("gateway"), "from revision 2 to 1"),
            (PauseRollout("gateway"), "pause"),
            (SetFlag("flags", "mode", "reduced"), "from normal to reduced"),
            (RestoreConfig("flags"), "restore mode"),
            (Cordon("node-0"), "cordon"),
        ):
            told = "\n".join(await one.rehearse(action))
            assert words in told, told
        await refused(one.rehearse(Scale("engine", 1, 1, 2)), RefusalReason.SINGLETON)
        await refused(one.rehearse(Scale("gateway", 1, 1, 2)), RefusalReason.BLAST_RADIUS)
        with pytest.raises(PermanentError):
            await one.rehearse(TakeBack("gateway", of="never"))
    after = plant.gateway()
    assert after["metadata"]["generation"] == before[0]["metadata"]["generation"]
    assert (after["spec"], plant.data(), set(plant.pods())) == (before[0]["spec"], before[1], before[2])
    assert plant.sent() == []
    assert not [
        one for one in plant.get(plant.core("configmaps"))["items"] if one["metadata"]["name"].startswith("effect-")
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"forbidden": lambda: "the kill switch is on"}, RefusalReason.KILL_SWITCH),
        ({"why_not": lambda: "another controller leads"}, RefusalReason.NOT_LEADER),
    ],
    ids=["kill switch", "not leading"],
)
async def test_without_leave_nothing_is_sent(kube, ns, plant, given, reason):
    plant.build()
    async with adapter(kube, ns, **given) as one:
        await refused(one.scale("gateway", 3, key="s"), reason)
        await refused(one.restart("gateway", next(iter(plant.pods())), key="r"), reason)
        await refused(one.change(RollingRestart("gateway"), key="c"), reason)
        assert await one.effect("s") is None
    assert plant.sent() == []


async def test_leave_is_asked_for_right_before_the_write(kube, ns, plant, monkeypatch):
    plant.build()
    thrown = []
    async with adapter(kube, ns, forbidden=lambda: "the kill switch is on" if thrown else "") as one:
        begin = one.ledger.begin

        async def disturbed(*given):
            thrown.append(True)
            return await begin(*given)

        monkeypatch.setattr(one.ledger, "begin", disturbed)
        await refused(one.scale("gateway", 3, key="s"), RefusalReason.KILL_SWITCH)
        assert await one.effect("s") is None
    assert plant.sent() == []


async def test_a_scale_is_not_taken_back_when_somebody_has_set_the_same_number_since(kube, ns, plant):
    plant.build()
    async with adapter(kube, ns) as one:
        await one.scale("gateway", 3, key="out")
        plant.kubectl("scale", "deployment/gateway", "--replicas=4")
        plant.kubectl("scale", "deployment/gateway", "--replicas=3")
        await refused(one.restore("out", key="out/undo"), RefusalReason.CONFLICT, "kubectl")
        assert plant.gateway()["spec"]["replicas"] == 3
