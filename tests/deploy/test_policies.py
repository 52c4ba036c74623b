"""Admission policies, by real writes of the account that they hold. Dry runs where nothing need change: policies see
those as well. Each case that is refused differs in one thing from one that is allowed."""

from __future__ import annotations

import copy
import time

import msgspec
import pytest

from control.testbed.cluster import Cluster
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.fence import Stamp
from runbooks.adapters.kubernetes.writer import Sender
from tests.deploy.conftest import APPS, CORE, EPOCH, KEY, KUBERNETES, LEASE, MERGE, Account, lead

pytestmark = pytest.mark.kube

GATEWAY = f"{APPS}/deployments/gateway"
AUTOSCALER = "/apis/autoscaling/v2/namespaces/exchange/horizontalpodautoscalers/gateway"
JOBS = "/apis/batch/v1/namespaces/exchange/jobs"
LEDGER = "/api/v1/namespaces/tapewatch/configmaps"
RESTARTED = "tapewatch.example/restarted-at"


def stamped(epoch, body=None, **annotations):
    """Return a body that carries the epoch, as every write does."""
    body = copy.deepcopy(body or {})
    notes = body.setdefault("metadata", {}).setdefault("annotations", {})
    notes.update({EPOCH: epoch, **annotations})
    return body


def template(spec=None, **metadata):
    return {"spec": {"template": {"metadata": metadata, "spec": spec or {}}}}


def container(name="gateway", **fields):
    """Patch one container of the pod template; the others and their lists stay as they are (strategic merge)."""
    return template({"containers": [{"name": name, **fields}]})


def strategic(account: Account, path, body):
    return account.refusal("PATCH", f"{path}?dryRun=All", body, "application/strategic-merge-patch+json")


def some_pod(account: Account, workload: str) -> str:
    """Return a pod of a workload that runs: until then its kubelet writes to it, which moves its resource version."""
    path = f"{CORE}/pods?labelSelector=app.kubernetes.io/name={workload}"
    pods = account.cluster.wait(
        f"a pod of {workload}",
        lambda: [
            pod for pod in account.ask("GET", path)["items"]
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        ],
    )  # fmt: skip
    return f"{CORE}/pods/{pods[0]['metadata']['name']}"


# --- the fence ------------------------------------------------------------------------------------------------------


def fenced_writes(account: Account):
    """Return every kind of write: how it is sent, and how it carries an epoch."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction"}
    pod = some_pod(account, "watchdog")  # no budget protects it
    return {
        "restart": lambda e: account.patch(
            GATEWAY, {**stamped(e), **template(annotations={RESTARTED: "now"})}, dry=True
        ),
        "pause": lambda e: account.patch(GATEWAY, stamped(e, {"spec": {"paused": True}}), dry=True),
        "scale": lambda e: account.patch(
            f"{GATEWAY}/scale?fieldManager=tapewatch-{e}", {"spec": {"replicas": 3}}, dry=True
        ),
        "evict": lambda e: account.refusal(
            "POST", f"{pod}/eviction?dryRun=All", stamped(e, {**eviction, "metadata": {"name": pod.split("/")[-1]}})
        ),
        "mark a pod": lambda e: account.patch(pod, stamped(e), dry=True),
        "switch": lambda e: account.patch(
            f"{CORE}/services/engine",
            stamped(e, {"spec": {"selector": {"app.kubernetes.io/name": "engine-green"}}}), dry=True,
        ),
        "flag": lambda e: account.patch(
            f"{CORE}/configmaps/exchange-flags", stamped(e, {"data": {"feed-conflation": "on"}}), dry=True
        ),
        "job": lambda e: account.refusal("POST", f"{JOBS}?dryRun=All", stamped(e, job())),
        "cordon": lambda e: account.patch(
            "/api/v1/nodes/node-1", stamped(e, {"spec": {"unschedulable": True}}), dry=True
        ),
    }  # fmt: skip


def test_every_write_of_the_leader_is_let_through_and_of_one_deposed_refused(account, epoch):
    for name, write in fenced_writes(account).items():
        assert write(epoch) == "", name
        for old in (str(int(epoch) - 1), str(int(epoch) + 1), "", f"0{epoch}", f"{epoch} "):
            refused = write(old.replace(" ", "%20") if name == "scale" else old)
            assert refused.startswith("403"), f"{name} in epoch {old!r}: {refused or 'let through'}"
            assert "fenced" in refused, name


def test_a_scale_cannot_carry_the_epoch_as_an_annotation(account, epoch):
    """Kubernetes makes the Scale that policies see out of the Deployment: hence the field manager."""
    for path in (f"{GATEWAY}/scale", f"{GATEWAY}/scale?fieldManager=tapewatch"):
        assert "403" in account.patch(path, stamped(epoch, {"spec": {"replicas": 3}}), dry=True)


def test_a_scale_is_let_through_by_patch_by_put_and_by_apply(account, admin, epoch):
    manager = f"fieldManager=tapewatch-{epoch}"
    now = admin.ask("GET", f"{GATEWAY}/scale")
    now["spec"]["replicas"] = 3
    assert account.refusal("PUT", f"{GATEWAY}/scale?{manager}&dryRun=All", now) == ""
    assert "fenced" in account.refusal("PUT", f"{GATEWAY}/scale?dryRun=All", now)


def test_a_field_manager_of_another_epoch_is_refused_whatever_the_annotation_says(account, epoch):
    """An annotation of the write before is still there when a patch leaves it out; a field manager is the request's."""
    old = int(epoch) - 1
    body = stamped(epoch, {"spec": {"paused": True}})
    assert account.patch(f"{GATEWAY}?fieldManager=tapewatch-{epoch}", body, dry=True) == ""
    assert "fenced" in account.patch(f"{GATEWAY}?fieldManager=tapewatch-{old}", body, dry=True)


def test_nothing_is_let_through_while_nobody_leads(plant, account, admin, epoch):
    write = fenced_writes(account)["pause"]
    try:
        admin.patch(LEASE, {"spec": {"holderIdentity": ""}})
        plant.wait("the fence", lambda: "nobody leads" in write(epoch))
    finally:
        lead(plant, int(epoch) + 1)
        plant.wait("the new epoch", lambda: write(str(int(epoch) + 1)) == "")


def test_a_new_epoch_shuts_the_old_leader_out_within_a_second(plant, account, epoch):
    write, now = fenced_writes(account)["pause"], int(epoch)
    assert write(str(now)) == ""
    slowest = slowest_ask = 0.0
    for number in range(now + 1, now + 11):
        lead(plant, number, f"control-{number % 2}")
        began = time.monotonic()
        let_in = True
        while let_in:
            asked = time.monotonic()
            assert asked - began < 60
            let_in = not write(str(number - 1))
            slowest_ask = max(slowest_ask, time.monotonic() - asked)
        slowest = max(slowest, time.monotonic() - began)
        assert write(str(number)) == "", "once the old one is refused the new one is let in"
    # One question takes some milliseconds: on a machine where it takes far longer, so does the news of the epoch.
    assert slowest < max(1.0, 20 * slowest_ask)


def test_other_accounts_are_not_fenced(admin):
    assert admin.patch(GATEWAY, {"spec": {"paused": True, "minReadySeconds": 3}}, dry=True) == ""
    assert admin.patch(f"{GATEWAY}/scale", {"spec": {"replicas": 0}}, dry=True) == ""


# --- the Lease ------------------------------------------------------------------------------------------------------


def test_the_epoch_never_falls_and_a_new_holder_raises_it(account, admin, epoch):
    now, path = int(epoch), f"{LEASE}?dryRun=All"
    for who in (account, admin):
        renew = {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}
        assert who.refusal("PATCH", path, renew, MERGE) == ""
        assert who.refusal("PATCH", path, {"spec": {"holderIdentity": ""}}, MERGE) == "", "a leader may step down"
        taken = {"spec": {"holderIdentity": "control-9", "leaseTransitions": now + 1}}
        assert who.refusal("PATCH", path, taken, MERGE) == ""
        assert "a new holder" in who.refusal("PATCH", path, {"spec": {"holderIdentity": "control-9"}}, MERGE)
        assert "never falls" in who.refusal("PATCH", path, {"spec": {"leaseTransitions": now - 1}}, MERGE)
        assert "never falls" in who.refusal("PATCH", path, {"spec": {"leaseTransitions": None}}, MERGE)


def test_nobody_deletes_the_lease(account, admin):
    assert account.refusal("DELETE", LEASE).startswith("403")
    assert "fencing epoch" in admin.refusal("DELETE", LEASE)


def test_applying_the_manifests_again_leaves_the_epoch_alone(plant: Cluster, epoch):
    plant.kubectl("apply", "--server-side", "-k", str(KUBERNETES / "base" / "access"))
    plant.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(KUBERNETES / "base" / "access"))
    assert str(plant.request("GET", LEASE)["spec"]["leaseTransitions"]) == epoch


# --- deletion of a pod ----------------------------------------------------------------------------------------------


def test_a_marked_pod_is_deleted_by_its_resource_version_and_no_other(account, admin, epoch):
    pod = some_pod(admin, "watchdog")
    body = {"preconditions": {"resourceVersion": admin.ask("GET", pod)["metadata"]["resourceVersion"]}}
    assert "fenced" in account.refusal("DELETE", pod, body), "it is not marked"
    marked = account.ask("PATCH", pod, stamped(epoch), MERGE)["metadata"]["resourceVersion"]
    assert "resourceVersion" in account.refusal("DELETE", pod)
    assert account.refusal("DELETE", pod, body).startswith("409"), "that was before the mark"
    body = {"preconditions": {"resourceVersion": marked}}
    assert "without grace" in account.refusal("DELETE", pod, {**body, "gracePeriodSeconds": 0})
    rehearsed = account.refusal("DELETE", pod, {"gracePeriodSeconds": 0, "dryRun": ["All"]})
    assert rehearsed == "", "a rehearsed mark is not kept, so nothing could be compared with it"
    for_real = account.refusal("DELETE", f"{pod}?dryRun=All", {"gracePeriodSeconds": 5})
    assert for_real.startswith("403"), "the query says nothing where there is a body"
    assert account.refusal("DELETE", pod, {**body, "gracePeriodSeconds": 5}) == ""


def test_a_pod_marked_by_a_leader_of_before_is_not_deleted(plant, account, admin, epoch):
    pod = some_pod(admin, "watchdog")
    marked = account.ask("PATCH", pod, stamped(epoch), MERGE)["metadata"]["resourceVersion"]
    lead(plant, int(epoch) + 1, "control-9")
    write = fenced_writes(account)["pause"]
    plant.wait("the new epoch", lambda: "fenced" in write(epoch))
    assert "fenced" in account.refusal("DELETE", pod, {"preconditions": {"resourceVersion": marked}})


def test_a_pod_that_does_not_end_is_deleted_without_grace(account, admin, epoch):
    pod = some_pod(admin, "settlement")
    admin.ask("PATCH", pod, {"metadata": {"finalizers": ["tests.example/stuck"]}}, MERGE)
    admin.ask("DELETE", pod)
    try:
        marked = account.ask("PATCH", pod, stamped(epoch), MERGE)["metadata"]["resourceVersion"]
        body = {"preconditions": {"resourceVersion": marked}, "gracePeriodSeconds": 0}
        assert account.refusal("DELETE", pod, body) == ""
    finally:
        admin.ask("PATCH", pod, {"metadata": {"finalizers": None}}, MERGE)


async def test_a_deletion_that_the_adapter_rehearses_deletes_nothing(plant, admin):
    """Admission is no help here: whoever has every right is let through."""
    pod = some_pod(admin, "watchdog")
    options = {"preconditions": {"uid": admin.ask("GET", pod)["metadata"]["uid"]}}

    def leave(_: Stamp) -> None:
        """Whoever has every right asks nobody."""

    async with Api(connect(plant.kubeconfig, "")) as api:
        sender = Sender(api, Stamp("rehearsal", 0, dry=True), leave)
        await sender.send("DELETE", pod, options, msgspec.Raw)
    assert "deletionTimestamp" not in admin.ask("GET", pod)["metadata"]


def test_pods_are_not_deleted_all_at_once(account):
    assert account.refusal("DELETE", f"{CORE}/pods").startswith("403")


def test_an_eviction_really_ends_a_pod_and_never_the_engine(plant, account, admin, epoch):
    def evict(pod):
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.split("/")[-1]}}
        return account.refusal("POST", f"{pod}/eviction", stamped(epoch, body))

    assert evict(some_pod(admin, "market-data")) == ""
    plant.wait("the engine's budget", lambda: "disruption budget" in evict(some_pod(admin, "engine")))


# --- Deployments ----------------------------------------------------------------------------------------------------


def test_pause_resume_and_restart_are_let_through(account, epoch):
    assert account.patch(GATEWAY, stamped(epoch, {"spec": {"paused": True}}), dry=True) == ""
    assert account.patch(GATEWAY, stamped(epoch, {"spec": {"paused": None}}), dry=True) == ""
    for name in ("gateway", "market-data", "settlement", "watchdog"):
        body = {**stamped(epoch), **template(annotations={RESTARTED: "2026-01-01T00:00:00Z"})}
        assert account.patch(f"{APPS}/deployments/{name}", body, dry=True) == ""


def test_a_roll_back_restores_image_args_env_resources_probes_and_checksums(account, epoch):
    body = container(
        image="tapewatch/gateway:0",
        args=["/config/gateway.json", "--old"],
        env=[{"name": "LEVEL", "value": "info"}],
        resources={"requests": {"cpu": "300m"}},
        readinessProbe={"failureThreshold": 3},
    )
    body["spec"]["template"]["metadata"] = {
        "annotations": {"checksum/config": "abc", RESTARTED: None, "kubectl.kubernetes.io/restartedAt": "then"},
        "labels": {"app.kubernetes.io/version": "0"},
    }
    assert strategic(account, GATEWAY, {**body, **stamped(epoch, **{KEY: "run-1/undo"})}) == ""
    assert "only with a new tapewatch.example/key" in strategic(account, GATEWAY, {**body, **stamped(epoch)})


def test_the_key_of_a_roll_back_serves_once(account, admin, epoch):
    admin.ask("PATCH", f"{APPS}/deployments/watchdog", {"metadata": {"annotations": {KEY: "run-1/undo"}}}, MERGE)
    body = container("watchdog", image="tapewatch/watchdog:0")
    path = f"{APPS}/deployments/watchdog"
    assert "new tapewatch.example/key" in strategic(account, path, {**body, **stamped(epoch, **{KEY: "run-1/undo"})})
    assert strategic(account, path, {**body, **stamped(epoch, **{KEY: "run-2/undo"})}) == ""


IMAGES = [
    ("tapewatch/gateway:0", True),
    ("tapewatch/gateway", True),
    ("tapewatch/gateway@sha256:" + "a" * 64, True),
    ("tapewatch/gateway:0@sha256:" + "a" * 64, True),
    ("tapewatch/gateway-evil:1", False),
    ("tapewatch/engine:1", False),
    ("evil.example/tapewatch/gateway:1", False),
    ("evil.example:5000/tapewatch/gateway:1", False),
    ("gateway:1", False),
    ("tapewatch/gateway/x:1", False),
]


@pytest.mark.parametrize(("image", "allowed"), IMAGES)
def test_an_image_keeps_its_repository(account, epoch, image, allowed):
    refused = strategic(account, GATEWAY, {**container(image=image), **stamped(epoch, **{KEY: "k"})})
    assert (refused == "") is allowed, refused
    if not allowed:
        assert "repositories" in refused


FORBIDDEN_IN_A_TEMPLATE = {
    "service account": template({"serviceAccountName": "default"}),
    "token": template({"automountServiceAccountToken": True}),
    "host network": template({"hostNetwork": True}),
    "host pid": template({"hostPID": True}),
    "host ipc": template({"hostIPC": True}),
    "processes": template({"shareProcessNamespace": True}),
    "node": template({"nodeName": "node-0"}),
    "node selector": template({"nodeSelector": {"a": "b"}}),
    "tolerations": template({"tolerations": [{"operator": "Exists"}]}),
    "affinity": template({"affinity": {"nodeAffinity": {}}}),
    "priority": template({"priorityClassName": "exchange-engine"}),
    "runtime": template({"runtimeClassName": "other"}),
    "scheduler": template({"schedulerName": "other"}),
    "grace": template({"terminationGracePeriodSeconds": 40}),
    "dns": template({"dnsPolicy": "Default"}),
    "host aliases": template({"hostAliases": [{"ip": "1.2.3.4", "hostnames": ["engine"]}]}),
    "pull secret": template({"imagePullSecrets": [{"name": "x"}]}),
    "user of the pod": template({"securityContext": {"runAsUser": 10002}}),
    "a host path": template({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}),
    "a secret as a volume": template({"volumes": [{"name": "s", "secret": {"secretName": "x"}}]}),
    "another container": container("other", image="tapewatch/gateway:1"),
    "an init container": template({"initContainers": [{"name": "i", "image": "tapewatch/gateway:1"}]}),
    "privileges": container(securityContext={"allowPrivilegeEscalation": True}),
    "capabilities": container(securityContext={"capabilities": {"add": ["NET_BIND_SERVICE"]}}),
    "user of the container": container(securityContext={"runAsUser": 0}),
    "writable root": container(securityContext={"readOnlyRootFilesystem": False}),
    "mounts": container(volumeMounts=[{"name": "state", "mountPath": "/elsewhere"}]),
    "command": container(command=["python", "-c", "1"]),
    "working directory": container(workingDir="/elsewhere"),
    "hook": container(lifecycle={"postStart": {"exec": {"command": ["true"]}}}),
    "pull policy": container(imagePullPolicy="Always"),
    "terminal": container(stdin=True),
    "ports": container(ports=[{"containerPort": 1}]),
    "all of a secret": container(envFrom=[{"secretRef": {"name": "x"}}]),
    "a key of a secret": container(env=[{"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]),
    "a probe that runs a command": container(livenessProbe={"httpGet": None, "exec": {"command": ["true"]}}),
    "who may reach it": template(labels={"tapewatch.example/serves": "x"}),
    "a side car": template(annotations={"sidecar.istio.io/inject": "true"}),
    "replicas": {"spec": {"replicas": 9}},
    "strategy": {"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 2}}}},
    "patience": {"spec": {"progressDeadlineSeconds": 600}},
    "minReadySeconds": {"spec": {"minReadySeconds": 3}},
    "history": {"spec": {"revisionHistoryLimit": 0}},
    "labels": {"metadata": {"labels": {"x": "y"}}},
    "a stranger's annotation": {"metadata": {"annotations": {"x.example/y": "z"}}},
    "finalizers": {"metadata": {"finalizers": ["x.example/y"]}},
}


@pytest.mark.parametrize("change", FORBIDDEN_IN_A_TEMPLATE)
def test_even_a_roll_back_leaves_alone(account, epoch, change):
    body = stamped(epoch, FORBIDDEN_IN_A_TEMPLATE[change], **{KEY: "run-3/undo"})
    refused = strategic(account, GATEWAY, body)
    assert refused.startswith("403"), refused or "let through"
    assert "denied request" in refused


def test_the_same_changes_are_good_in_the_hands_of_an_admin(admin):
    """So they are refused by the policies, and not for being nonsense."""
    assert not [name for name, body in FORBIDDEN_IN_A_TEMPLATE.items() if strategic(admin, GATEWAY, body)]


# --- the other kinds ------------------------------------------------------------------------------------------------


def test_of_a_pod_only_annotations_change(account, admin, epoch):
    pod = some_pod(admin, "gateway")
    assert (
        account.patch(pod, stamped(epoch, {"metadata": {"annotations": {"tapewatch.example/x": "y"}}}), dry=True) == ""
    )
    for body in (
        {"spec": {"containers": [{"name": "gateway", "image": "tapewatch/gateway:2"}]}},
        {"spec": {"activeDeadlineSeconds": 1}},
        {"metadata": {"labels": {"x": "y"}}},
        {"metadata": {"labels": {"app.kubernetes.io/name": None}}},
        {"metadata": {"ownerReferences": None}},
        {"metadata": {"finalizers": ["x.example/y"]}},
    ):  # fmt: skip
        assert "denied request" in strategic(account, pod, stamped(epoch, body)), body


def test_of_a_node_only_unschedulable_changes(account, epoch):
    node = "/api/v1/nodes/node-1"
    assert account.patch(node, stamped(epoch, {"spec": {"unschedulable": True}}), dry=True) == ""
    for body in (
        {"spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}},
        {"spec": {"providerID": "x"}},
        {"metadata": {"labels": {"x": "y"}}},
        {"metadata": {"annotations": {"x": "y"}}},
    ):
        assert account.patch(node, stamped(epoch, body), dry=True).startswith("403"), body


def test_of_an_autoscaler_only_the_lower_bound_changes_and_stays_below_the_upper(plant, account, admin, epoch):
    plant.kubectl("apply", "-f", str(KUBERNETES / "components" / "autoscaling" / "gateway.yaml"))
    try:
        for bound, allowed in ((1, True), (2, True), (4, True), (5, False), (0, False)):
            refused = account.patch(AUTOSCALER, stamped(epoch, {"spec": {"minReplicas": bound}}), dry=True)
            assert (refused == "") is allowed, f"{bound}: {refused}"
        external = {"metric": {"name": "x"}, "target": {"type": "Value", "value": "1"}}
        admin.ask("PATCH", AUTOSCALER, {"spec": {"metrics": [{"type": "External", "external": external}]}}, MERGE)
        to_nothing = {"spec": {"minReplicas": 0}}
        assert admin.patch(AUTOSCALER, to_nothing, dry=True) == "", "this API server would allow it"
        assert "between 1 and" in account.patch(AUTOSCALER, stamped(epoch, to_nothing), dry=True)
        for spec in ({"maxReplicas": 9}, {"behavior": None}, {"metrics": None}, {"scaleTargetRef": {"name": "engine"}}):
            assert account.patch(AUTOSCALER, stamped(epoch, {"spec": spec}), dry=True).startswith("403"), spec
    finally:
        admin.ask("DELETE", AUTOSCALER)


def test_a_scale_stays_between_one_and_ten_and_only_the_canary_ends(plant, account, admin, epoch):
    plant.kubectl("apply", "-f", str(KUBERNETES / "components" / "canary" / "gateway-canary.yaml"))
    try:
        for name, none in (("gateway", False), ("gateway-canary", True)):
            path = f"{APPS}/deployments/{name}/scale?fieldManager=tapewatch-{epoch}"
            for replicas, allowed in ((1, True), (10, True), (11, False), (0, none)):
                refused = account.patch(path, {"spec": {"replicas": replicas}}, dry=True)
                assert (refused == "") is allowed, f"{name} to {replicas}: {refused}"
                assert allowed or "tapewatch-scale" in refused
    finally:
        admin.ask("DELETE", f"{APPS}/deployments/gateway-canary")


def test_of_a_service_only_its_colour_changes(account, epoch):
    gateway, engine = f"{CORE}/services/gateway", f"{CORE}/services/engine"
    serves, name = "tapewatch.example/serves", "app.kubernetes.io/name"
    for path, selector, allowed in (
        (gateway, {serves: "gateway-blue"}, True),
        (engine, {name: "engine-green"}, True),
        (engine, {name: "gateway"}, False),
        (gateway, {serves: None}, False),
        (gateway, {serves: "gateway-evil"}, False),
        (gateway, {"x": "y"}, False),
        (gateway, {serves: None, "x": "gateway-blue"}, False),
    ):
        refused = account.patch(path, stamped(epoch, {"spec": {"selector": selector}}), dry=True)
        assert (refused == "") is allowed, f"{selector}: {refused}"
    for spec in ({"type": "NodePort"}, {"externalIPs": ["1.2.3.4"]}, {"ports": [{"port": 1}]}, {"selector": None}):
        assert account.patch(gateway, stamped(epoch, {"spec": spec}), dry=True).startswith("403"), spec


def test_of_a_configuration_only_its_text_changes(account, epoch):
    path = f"{CORE}/configmaps/exchange-config"
    assert account.patch(path, stamped(epoch, {"data": {"gateway.json": "{}"}}), dry=True) == ""
    for body in ({"immutable": True}, {"binaryData": {"x": "AAAA"}}, {"metadata": {"labels": {"x": "y"}}}):
        assert account.patch(path, stamped(epoch, body), dry=True).startswith("403"), body


def test_the_ledger_is_kept_whoever_leads_and_nothing_else_of_its_namespace_is_touched(account):
    name = "effect-0123456789abcdef0123"
    entry = {"metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "tapewatch"}}, "data": {"key": "k"}}
    assert account.refusal("POST", LEDGER, entry) == ""
    assert account.refusal("POST", LEDGER, entry).startswith("409"), "one effect per key"
    assert account.patch(f"{LEDGER}/{name}", {"data": {"phase": "done"}}) == ""
    assert account.refusal("DELETE", f"{LEDGER}/{name}") == ""
    assert "ledger" in account.refusal("POST", LEDGER, {"metadata": {"name": "control-config"}})
    assert "ledger" in account.patch(f"{LEDGER}/kube-root-ca.crt", {"data": {"x": "y"}})
    assert "ledger" in account.refusal("DELETE", f"{LEDGER}/kube-root-ca.crt")
    assert "ledger" in account.refusal("POST", LEDGER, {"metadata": {"generateName": "x-"}})


# --- Jobs -----------------------------------------------------------------------------------------------------------


def job(pod=None, container=None, **spec):
    return {
        "metadata": {"name": "verify", "labels": {"app.kubernetes.io/managed-by": "tapewatch"}},
        "spec": {
            "activeDeadlineSeconds": 600, "backoffLimit": 0, "ttlSecondsAfterFinished": 3600,
            "template": {"spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": False, "serviceAccountName": "exchange",
                "securityContext": {"runAsNonRoot": True, "runAsUser": 10001,
                                    "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "verify", "image": "tapewatch/engine:1",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    **(container or {}),
                }],
                **(pod or {}),
            }},
            **spec,
        },
    }  # fmt: skip


NAMELESS = job()
del NAMELESS["metadata"]["labels"]
JOBS_REFUSED = {
    "without our label": NAMELESS,
    "without a deadline": job(activeDeadlineSeconds=None),
    "for a day": job(activeDeadlineSeconds=86_400),
    "again and again": job(backoffLimit=6),
    "kept for good": job(ttlSecondsAfterFinished=None),
    "many": job(parallelism=5, completions=5),
    "as somebody else": job({"serviceAccountName": "tapewatch"}),
    "with a token": job({"automountServiceAccountToken": True}),
    "with a secret": job({"volumes": [{"name": "s", "secret": {"secretName": "exchange-secrets"}}]}),
    "with a projected token": job({"volumes": [{"name": "s", "projected": {"sources": []}}]}),
    "with the journal": job(
        {"volumes": [{"name": "s", "persistentVolumeClaim": {"claimName": "state-engine-0"}}]}
    ),
    "with a secret in its environment": job(
        container={"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "x", "key": "y"}}}]}
    ),
    "with all of a secret": job(container={"envFrom": [{"secretRef": {"name": "x"}}]}),
    "of somebody's image": job(container={"image": "evil.example/x:1"}),
    "of an image named like ours": job(container={"image": "evil.example/tapewatch/x/y:1"}),
    "on a node of its choice": job({"nodeName": "node-0"}),
    "before everybody": job({"priorityClassName": "exchange-engine"}),
    "in an init container": job({"initContainers": [{"name": "i", "image": "evil.example/x:1"}]}),
}  # fmt: skip


@pytest.mark.parametrize("how", JOBS_REFUSED)
def test_a_job_is_not_run(account, epoch, how):
    refused = account.refusal("POST", f"{JOBS}?dryRun=All", stamped(epoch, JOBS_REFUSED[how]))
    assert "tapewatch-jobs" in refused, refused or "let through"


def test_a_job_of_ours_runs(account, admin, epoch):
    assert account.refusal("POST", JOBS, stamped(epoch, job())) == ""
    account.cluster.wait("the job", lambda: admin.ask("GET", f"{JOBS}/verify")["status"].get("succeeded") == 1)
    admin.ask("DELETE", f"{JOBS}/verify?propagationPolicy=Background")
