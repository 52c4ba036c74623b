"""Each change of the adapter on a real cluster, and its taking back: rollouts, nodes, jobs, flags, services."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import asyncio

import pytest

from kernel.errors import PermanentError
from runbooks.changes import (
    Cordon,
    DeleteReplica,
    Drain,
    PauseRollout,
    RestoreConfig,
    ResumeRollout,
    RollBack,
    RollingRestart,
    RunJob,
    SetFlag,
    SwitchService,
)
from runbooks.model import RefusalReason
from runbooks.ports import BudgetError
from tests.kube.plant import SINGLETON, adapter, overdue, refused, workload

EPOCH, KEY = "tapewatch.example/epoch", "tapewatch.example/key"


# --- rollouts -------------------------------------------------------------------------------------------------------


async def test_a_rolling_restart_renews_every_pod_and_is_applied_as_ours(kube, ns, plant):
    plant.build()
    old = set(plant.pods())
    async with adapter(kube, ns) as one:
        await one.change(PauseRollout("gateway"), key="p")  # written by a patch: the apply below takes the marks over
        await one.change(ResumeRollout("gateway"), key="q")
        effect = await one.change(RollingRestart("gateway"), key="rr")
        assert (await one.change(RollingRestart("gateway"), key="rr")).repeated
        plant.settle()
        again = await one.change(RollingRestart("gateway"), key="rr2")
    assert not old & set(plant.pods())
    notes = plant.gateway()["spec"]["template"]["metadata"]["annotations"]
    assert notes == {"tapewatch.example/restarted-at": again.after["restarted_at"], KEY: "rr2"}
    assert again.before["restarted_at"] == effect.after["restarted_at"]
    applied = [one for one in plant.sent() if one["requestURI"].count("force=")]
    assert {one["requestObject"]["metadata"]["annotations"][KEY] for one in applied} == {"rr", "rr2"}


async def test_a_template_that_another_manager_applies_is_its_own(kube, ns, plant):
    plant.build()
    mine = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "gateway"},
        "spec": {"template": {"metadata": {"annotations": {"tapewatch.example/restarted-at": "never"}}}},
    }  # fmt: skip
    path = plant.apps("deployments", "gateway") + "?fieldManager=a-tool&force=true"
    kube.request("PATCH", path, mine, content_type="application/apply-patch+yaml")
    plant.settle()
    async with adapter(kube, ns) as one:
        await refused(one.change(RollingRestart("gateway"), key="rr"), RefusalReason.OWNED, "a-tool")
        assert await one.effect("rr") is None


def image(plant):
    return plant.gateway()["spec"]["template"]["spec"]["containers"][0]["image"]


async def test_a_roll_back_gives_the_previous_revision_and_a_second_one_does_not_bring_the_bad_one_back(
    kube, ns, plant
):
    plant.build()
    before = plant.gateway()["spec"]["template"]
    plant.set_image("broken:2")
    plant.cluster.wait("revision 2", lambda: revision(plant) == "2")
    async with adapter(kube, ns) as one:
        told = await one.rehearse(RollBack("gateway"))
        effect = await one.change(RollBack("gateway"), key="rb")
        assert effect.before == {"revision": "2", "images": "broken:2"}
        assert effect.after == {"revision": "1", "images": "app:1"}
        assert any("from revision 2 to 1" in line for line in told)
        assert plant.gateway()["spec"]["template"] == before
        plant.settle()
        assert (await one.change(RollBack("gateway"), key="rb")).repeated
        words = "was rolled back already, from revision 2"
        await refused(one.change(RollBack("gateway"), key="rb2"), RefusalReason.NO_TARGET, words)
    assert image(plant) == "app:1"


def revision(plant):
    return plant.gateway()["metadata"]["annotations"].get("deployment.kubernetes.io/revision")


async def test_a_roll_back_is_taken_back_exactly_unless_someone_has_deployed_since(kube, ns, plant):
    plant.build()
    plant.set_image("app:2")
    plant.settle()
    bad = plant.gateway()["spec"]["template"]
    async with adapter(kube, ns) as one:
        await one.change(RollBack("gateway"), key="rb")
        plant.settle()
        await one.restore("rb", key="rb/undo")
        assert plant.gateway()["spec"]["template"] == bad
        plant.settle()
        await one.change(RollBack("gateway"), key="again")
        plant.settle()
        plant.set_image("app:3")
        await refused(one.restore("again", key="undo"), RefusalReason.CONFLICT, "kubectl-set")
    assert image(plant) == "app:3"


async def test_without_a_previous_revision_there_is_no_roll_back(kube, ns, plant):
    plant.build()
    async with adapter(kube, ns) as one:
        await refused(one.change(RollBack("gateway"), key="a"), RefusalReason.NO_TARGET, "no revision before 1")
        await refused(one.change(RollBack("engine"), key="b"), RefusalReason.NOT_ALLOWED, "only a Deployment")
        await refused(one.change(RollingRestart("engine"), key="c"), RefusalReason.STATE_UNSAFE)
    assert plant.sent() == []


async def test_a_rollout_is_paused_and_resumed_and_a_paused_one_is_not_rolled_back(kube, ns, plant):
    plant.build()
    plant.set_image("app:2")
    plant.settle()
    async with adapter(kube, ns) as one:
        effect = await one.change(PauseRollout("gateway"), key="p")
        assert effect.before == {"paused": "false", "revision": "2"}
        assert effect.after == {"paused": "true", "revision": "2"}
        assert plant.gateway()["spec"]["paused"] is True
        await refused(one.change(RollBack("gateway"), key="rb"), RefusalReason.CONFLICT, "is paused")
        await one.restore("p", key="p/undo")
        assert "paused" not in plant.gateway()["spec"]
        await one.change(PauseRollout("gateway"), key="p2")
        await one.change(ResumeRollout("gateway"), key="q")
        assert "paused" not in plant.gateway()["spec"]


# --- stuck pods, nodes ----------------------------------------------------------------------------------------------


async def test_only_a_pod_that_is_well_past_its_grace_is_deleted_by_force(kube, ns, plant, monkeypatch):
    monkeypatch.setattr("runbooks.adapters.kubernetes.reader.OVERDUE", 600_000_000_000)  # however slow this machine is
    plant.make(workload("gateway", notes={"testbed/delete-delay": "300s"}))
    plant.make(workload("engine", "StatefulSet", replicas=1))
    name = next(iter(plant.pods()))
    async with adapter(kube, ns) as one:
        await refused(
            one.change(DeleteReplica("gateway", name), key="a"), RefusalReason.NOT_ALLOWED, "is not being ended"
        )
        kube.request("DELETE", plant.core("pods", name), {"gracePeriodSeconds": 1})
        await refused(
            one.change(DeleteReplica("gateway", name), key="b"), RefusalReason.NOT_ALLOWED, "well past its grace"
        )
        assert plant.sent() == []
        monkeypatch.setattr("runbooks.adapters.kubernetes.reader.OVERDUE", 0)
        await overdue(plant, name)
        await one.rehearse(DeleteReplica("gateway", name))
        assert name in [pod["metadata"]["name"] for pod in plant.get(plant.core("pods"))["items"]]
        effect = await one.change(DeleteReplica("gateway", name), key="c")
        assert (await one.change(DeleteReplica("gateway", name), key="c")).repeated
    assert (effect.before["replica"], effect.after["replica"]) == (name, "")
    assert name not in [pod["metadata"]["name"] for pod in plant.get(plant.core("pods"))["items"]]
    mark, deletion = plant.sent()
    assert (mark["verb"], deletion["verb"]) == ("patch", "delete")
    assert deletion["requestObject"]["gracePeriodSeconds"] == 0
    assert (
        deletion["requestObject"]["preconditions"]["resourceVersion"]
        == mark["responseObject"]["metadata"]["resourceVersion"]
    )


@pytest.fixture
def node(kube):
    """A node that is given back uncordoned."""
    yield "node-1"
    path = "/api/v1/nodes/node-1"
    kube.request("PATCH", path, {"spec": {"unschedulable": None}}, content_type="application/merge-patch+json")
    kube.wait("it takes pods again", lambda: not kube.request("GET", path)["spec"].get("taints"))


async def test_a_node_is_cordoned_then_drained_within_the_budget_and_uncordoned(kube, ns, plant, node):
    plant.make(workload("gateway", replicas=4, notes={"testbed/ready-delay": "500ms"}))
    plant.budget(maxUnavailable=1)
    here = {name for name, pod in plant.pods().items() if pod["spec"]["nodeName"] == node}
    assert here
    async with adapter(kube, ns, entries=("Deployment/gateway", "Node/*")) as one:
        await refused(one.change(Drain(node), key="early"), RefusalReason.CONFLICT, "is not cordoned")
        effect = await one.change(Cordon(node), key="c")
        assert (effect.before, effect.after) == ({"cordoned": "false"}, {"cordoned": "true"})
        assert any(each.name == node and each.cordoned and each.replicas == len(here) for each in await one.nodes())
        told = await one.rehearse(Drain(node))
        assert all(name in told[0] for name in here)
        moved = await one.change(Drain(node), key="d")
        assert moved.after["left"] == "0"
        assert set(moved.after["moved"].split(", ")) == here
        plant.settle()
        assert not {name for name, pod in plant.pods().items() if pod["spec"]["nodeName"] == node}
        assert (await one.change(Drain(node), key="d")).repeated
        with pytest.raises(PermanentError, match="leaves nothing to restore"):
            await one.restore("d", key="d/undo")
        await one.restore("c", key="c/undo")
    assert "unschedulable" not in plant.get(f"/api/v1/nodes/{node}")["spec"]


async def test_a_drain_that_no_budget_allows_has_done_nothing(kube, ns, plant, node, monkeypatch):
    monkeypatch.setattr("runbooks.adapters.kubernetes.workloads.DRAIN_S", 0.5)
    plant.make(workload("gateway", replicas=4))
    plant.budget(maxUnavailable=0)
    async with adapter(kube, ns, entries=("Deployment/gateway", "Node/*")) as one:
        await one.change(Cordon(node), key="c")
        with pytest.raises(BudgetError, match="0 of"):
            await one.change(Drain(node), key="d")
        assert await one.effect("d") is None
        assert len(plant.pods()) == 4
        plant.patch(f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets/gateway", {"spec": {"maxUnavailable": 4}})
        for _ in range(600):
            try:
                effect = await one.change(Drain(node), key="d")
                break
            except BudgetError:
                await asyncio.sleep(0.1)
        assert effect.after["left"] == "0"
    evicted = [one["objectRef"]["name"] for one in plant.sent("pods") if one["responseStatus"]["code"] == 201]
    assert len(evicted) == len(set(evicted))


async def test_a_drain_goes_on_where_its_time_ran_out_and_evicts_each_pod_once(kube, ns, plant, node, monkeypatch):
    monkeypatch.setattr("runbooks.adapters.kubernetes.workloads.DRAIN_S", 0.1)
    plant.make(workload("gateway", replicas=6, notes={"testbed/ready-delay": "700ms"}))
    plant.budget(maxUnavailable=1)
    here = {name for name, pod in plant.pods().items() if pod["spec"]["nodeName"] == node}
    assert len(here) > 1
    troubles = []
    async with adapter(kube, ns, entries=("Deployment/gateway", "Node/*")) as one:
        await one.change(Cordon(node), key="c")
        for _ in range(600):
            try:
                effect = await one.change(Drain(node), key="d")
                break
            except BudgetError as error:
                troubles.append(str(error))
                assert (await one.ledger.read("d")).phase == "begun"
                await asyncio.sleep(0.1)
        assert set(effect.after["moved"].split(", ")) == here
    assert any(words.startswith("1 of") for words in troubles)
    evicted = [one["objectRef"]["name"] for one in plant.sent("pods") if one["responseStatus"]["code"] == 201]
    assert sorted(evicted) == sorted(here)


# --- jobs, flags, services ------------------------------------------------------------------------------------------


async def test_a_job_is_run_once_for_its_key(kube, ns, plant):
    pod = {
        "metadata": {"labels": {"app": "tidy"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "app:1"}]},
    }
    cron = {
        "metadata": {"name": "tidy"},
        "spec": {
            "schedule": "0 0 1 1 *",
            "suspend": True,
            "jobTemplate": {"spec": {"template": pod, "backoffLimit": 2}},
        },
    }
    kube.request("POST", f"/apis/batch/v1/namespaces/{ns}/cronjobs", cron)
    async with adapter(kube, ns) as one:
        await one.rehearse(RunJob("tidy"))
        effect = await one.change(RunJob("tidy"), key="j")
        assert (await one.change(RunJob("tidy"), key="j")).repeated
        await one.change(RunJob("tidy"), key="j2")
        await refused(one.change(RunJob("tdiy"), key="x"), RefusalReason.NO_TARGET)
    jobs = {job["metadata"]["name"]: job for job in plant.get(f"/apis/batch/v1/namespaces/{ns}/jobs")["items"]}
    assert len(jobs) == 2
    job = jobs[effect.after["job"]]
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (2, 600)
    assert job["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "tapewatch"
    assert len(plant.sent("jobs")) == 2


async def test_one_flag_is_set_and_set_back_unless_someone_else_has_set_it(kube, ns, plant):
    plant.config(mode="normal", other="1")
    async with adapter(kube, ns) as one:
        effect = await one.change(SetFlag("flags", "mode", "reduced"), key="f")
        assert (effect.before, effect.after) == ({"mode": "normal"}, {"mode": "reduced"})
        assert plant.data() == {"mode": "reduced", "other": "1"}
        await one.restore("f", key="f/undo")
        assert plant.data() == {"mode": "normal", "other": "1"}
        await one.change(SetFlag("flags", "new", "yes"), key="n")
        await one.restore("n", key="n/undo")
        assert plant.data() == {"mode": "normal", "other": "1"}
        await one.change(SetFlag("flags", "mode", "reduced"), key="g")
        plant.kubectl("patch", "configmap", "flags", "--type=merge", "-p", '{"data": {"mode": "theirs"}}')
        words = "kubectl-patch has set data.mode to theirs since, we left reduced"
        await refused(one.restore("g", key="g/undo"), RefusalReason.CONFLICT, words)
        await refused(one.change(SetFlag("flags", "blob", "x"), key="b"), RefusalReason.NOT_ALLOWED, "binary")
        await refused(one.change(SetFlag("flags", "../x", "x"), key="c"), RefusalReason.NO_TARGET)
        with pytest.raises(PermanentError, match="nothing was done for 'never'"):
            await one.restore("never", key="never/undo")
    assert plant.data()["mode"] == "theirs"


async def test_a_value_that_was_changed_and_changed_back_by_others_is_theirs(kube, ns, plant):
    plant.config(mode="normal")
    async with adapter(kube, ns) as one:
        await one.change(SetFlag("flags", "mode", "reduced"), key="f")
        for value in ("theirs", "reduced"):
            plant.kubectl("patch", "configmap", "flags", "--type=merge", "-p", f'{{"data": {{"mode": "{value}"}}}}')
        await refused(one.restore("f", key="u"), RefusalReason.CONFLICT, "kubectl-patch has written data.mode since")


async def test_a_configuration_gets_its_last_good_contents_and_its_binary_part_stays(kube, ns, plant):
    plant.config(mode="poisoned", extra="1")
    plant.config("flags-last-good", mode="normal", gone="2")
    async with adapter(kube, ns) as one:
        effect = await one.change(RestoreConfig("flags"), key="r")
        assert effect.before == {"changed": "extra, mode, gone"}
        assert plant.data() == {"mode": "normal", "gone": "2"}
        assert plant.get(plant.core("configmaps", "flags"))["binaryData"] == {"blob": "AAEC"}
        await one.restore("r", key="r/undo")
        assert plant.data() == {"mode": "poisoned", "extra": "1"}


async def test_a_service_leads_to_the_other_colour_when_somebody_is_ready_there(kube, ns, plant):
    plant.make(workload("gateway", labels={"colour": "blue"}))
    service = {
        "metadata": {"name": "gateway"},
        "spec": {"selector": {"app": "gateway", "colour": "blue"}, "ports": [{"port": 80}]},
    }
    kube.request("POST", plant.core("services"), service)
    async with adapter(kube, ns) as one:
        await refused(one.change(SwitchService("gateway", "green"), key="a"), RefusalReason.NO_TARGET, "lead nowhere")
        green = workload("green", labels={"colour": "green"})
        green["spec"]["template"]["metadata"]["labels"]["app"] = "gateway"
        green["spec"]["selector"] = {"matchLabels": {"app": "gateway", "colour": "green"}}
        kube.request("POST", plant.apps("deployments"), green)
        kube.wait(
            "green is ready", lambda: plant.get(plant.apps("deployments", "green"))["status"].get("readyReplicas") == 2
        )
        effect = await one.change(SwitchService("gateway", "green"), key="b")
        assert (effect.before, effect.after) == ({"colour": "blue"}, {"colour": "green"})
        assert plant.get(plant.core("services", "gateway"))["spec"]["selector"] == {"app": "gateway", "colour": "green"}
        await one.restore("b", key="b/undo")
    assert plant.get(plant.core("services", "gateway"))["spec"]["selector"]["colour"] == "blue"


async def test_what_is_not_on_the_allow_list_is_no_target_of_any_change(kube, ns, plant):
    plant.config("secret-flags", mode="1")
    async with adapter(kube, ns, entries=("Deployment/gateway",)) as one:
        for n, change in enumerate(
            (
                SetFlag("secret-flags", "mode", "2"),
                SwitchService("gateway", "green"),
                Cordon("node-0"),
                Drain("node-0"),
                RunJob("tidy"),
                RollBack("other"),
                PauseRollout(""),
                DeleteReplica("other", "x"),
                RestoreConfig(""),
            )
        ):
            await refused(one.change(change, key=f"k{n}"), RefusalReason.NO_TARGET)
    assert plant.sent() == []
    assert plant.data("secret-flags") == {"mode": "1"}


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"strategy": {"type": "Recreate"}}, True), ({}, False),
        ({"annotations": {**SINGLETON, "tapewatch.example/overlap": "harmless"}}, True),
        ({"annotations": {**SINGLETON, "tapewatch.example/stateful": "true"}, "strategy": {"type": "Recreate"}}, False),
    ],
)  # fmt: skip
async def test_a_single_writer_is_renewed_only_where_no_second_one_runs_beside_it(kube, ns, plant, given, allowed):
    plant.make(workload("gateway", replicas=1, **{"annotations": SINGLETON, **given}))
    async with adapter(kube, ns) as one:
        if allowed:
            await one.change(RollingRestart("gateway"), key="r")
        else:
            await refused(one.change(RollingRestart("gateway"), key="r"), RefusalReason.STATE_UNSAFE)
    plant.settle()
