"""Before anything is touched: the right cluster, a known version, every right; one clear sentence where not."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import contextlib

import pytest

from kernel.errors import InputError, PermanentError, TemporaryError
from runbooks.adapters.kubernetes import preflight as module
from runbooks.adapters.kubernetes.api import Api, connect
from runbooks.adapters.kubernetes.preflight import cluster_uid, missing_rights, preflight, rights
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.model import RefusalReason
from tests.kube.plant import refused
from tests.kube.test_write_faults import READ, account

ENTRIES = ("Deployment/gateway", "StatefulSet/engine", "ConfigMap/flags", "CronJob/tidy")


def targets(ns, *more):
    return Targets([*(f"{ns}/{one}" for one in ENTRIES), *more])


@contextlib.asynccontextmanager
async def asking(kube, token="", url=""):
    where = kube.write_kubeconfig("asking", token, url=url) if token or url else kube.kubeconfig
    async with Api(connect(where), read_s=20.0) as api:
        yield api


def uid(kube):
    return kube.request("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]


async def test_the_pinned_cluster_passes_and_tells_its_version(kube, ns):
    async with asking(kube) as api:
        found = await preflight(api, targets(ns, "Node/*"), cluster_id=uid(kube))
    assert (found.cluster_id, found.version, found.warnings) == (uid(kube), "v1.36.3", ())


async def test_another_cluster_is_refused_and_one_that_is_not_pinned_is_said_to_be(kube, ns):
    async with asking(kube) as api:
        await refused(
            preflight(api, targets(ns), cluster_id="another"), RefusalReason.WRONG_CLUSTER, "the settings name another"
        )
        found = await preflight(api, targets(ns), cluster_id="")
    assert found.warnings == (f"the cluster is not pinned: set its id to {uid(kube)}",)


async def test_all_missing_rights_are_named_at_once(kube, ns):
    token = account(kube, ns, READ)
    async with asking(kube, token) as api:
        with pytest.raises(PermanentError, match="grant `get` on the namespace kube-system"):
            await preflight(api, targets(ns), cluster_id="x")
        wanted = rights(targets(ns), namespace=ns)
        missing = await missing_rights(api, wanted)
    assert {str(right) for right in missing} == {
        "get namespaces kube-system",
        f"create pods/eviction in {ns}", f"patch pods in {ns}", f"delete pods in {ns}",
        f"patch deployments.apps gateway in {ns}", f"patch deployments.apps/scale gateway in {ns}",
        f"patch configmaps flags in {ns}", f"create jobs.batch in {ns}",
        f"patch leases.coordination.k8s.io tapewatch-leader in {ns}",
        f"create configmaps in {ns}", f"patch configmaps in {ns}", f"delete configmaps in {ns}",
    }  # fmt: skip


async def test_whoever_only_rehearses_needs_no_right_to_write(kube, ns):
    token = account(kube, ns, READ)
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    rule = {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]}
    kube.request("POST", f"{rbac}/clusterroles", {"metadata": {"name": ns}, "rules": [rule]})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ns}
    subjects = [{"kind": "ServiceAccount", "name": "runner", "namespace": ns}]
    kube.request(
        "POST", f"{rbac}/clusterrolebindings", {"metadata": {"name": ns}, "roleRef": ref, "subjects": subjects}
    )
    try:
        async with asking(kube, token) as api:
            await preflight(api, targets(ns), cluster_id=uid(kube), writes=False)
            with pytest.raises(PermanentError, match=r"10 rights are missing at .*: create pods/eviction"):
                await preflight(api, targets(ns), cluster_id=uid(kube), namespace=ns)
    finally:
        kube.request("DELETE", f"{rbac}/clusterrolebindings/{ns}")
        kube.request("DELETE", f"{rbac}/clusterroles/{ns}")


async def test_credentials_that_have_run_out_and_servers_that_are_not_there_are_one_sentence_each(kube, tmp_path):
    async with asking(kube, "spoilt") as api:
        with pytest.raises(PermanentError, match=r"does not accept the credentials .*: renew them"):
            await cluster_uid(api)
    async with asking(kube, "any", url="https://127.0.0.1:1") as api:
        with pytest.raises(TemporaryError, match="the cluster cannot be reached"):
            await cluster_uid(api)
    with pytest.raises(InputError, match="name a kubeconfig and a context in it"):
        connect(tmp_path / "missing")
    (tmp_path / "broken").write_text("{")
    with pytest.raises(InputError):
        connect(tmp_path / "broken")
    with pytest.raises(InputError, match="is no way to a cluster"):
        connect(kube.kubeconfig, "no-such-context")


async def test_an_old_server_is_refused_and_one_that_was_never_tested_is_named(kube, ns, monkeypatch):
    async with asking(kube) as api:
        monkeypatch.setattr(module, "MINOR_TESTED", (37, 38))
        found = await preflight(api, targets(ns), cluster_id=uid(kube))
        assert found.warnings == ("Kubernetes v1.36.3 is not among what was tested (1.37 to 1.38)",)
        monkeypatch.setattr(module, "MINOR_LEAST", 40)
        with pytest.raises(PermanentError, match=r"is Kubernetes v1\.36\.3; 1\.40 is the oldest"):
            await preflight(api, targets(ns), cluster_id=uid(kube))
