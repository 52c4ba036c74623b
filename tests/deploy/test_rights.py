from __future__ import annotations

import pytest

from control.testbed.cluster import Cluster
from tests.deploy.conftest import Account

pytestmark = pytest.mark.kube

VERBS = {
    "r": ("get", "list", "watch"), "g": ("get",), "gl": ("get", "list"), "lw": ("list", "watch"),
    "p": ("patch",), "u": ("update",),
    "c": ("create",), "d": ("delete",), "w": ("create", "update", "patch", "delete", "deletecollection"),
    "D": ("delete", "deletecollection"), "cu": ("create", "update", "delete"),
}  # fmt: skip

# verbs, group/resource(/subresource), namespace ("" for the cluster), name ("" for any), may the account do it?
TAPEWATCH = [
    # What it sees.
    *[("r", kind, "exchange", "", True) for kind in (
        "apps/deployments", "apps/statefulsets", "apps/replicasets", "apps/controllerrevisions", "/pods", "/services",
        "/configmaps", "policy/poddisruptionbudgets", "autoscaling/horizontalpodautoscalers", "batch/jobs",
        "batch/cronjobs")],
    ("gl", "keda.sh/scaledobjects", "exchange", "", True),
    ("gl", "autoscaling.k8s.io/verticalpodautoscalers", "exchange", "", True),
    ("r", "/nodes", "", "", True),
    ("g", "/namespaces", "", "kube-system", True),
    # Scale: two names, by the subresource, and never the engine.
    *[("p", "apps/deployments/scale", "exchange", name, True) for name in ("gateway", "gateway-canary")],
    *[("g", "apps/deployments/scale", "exchange", name, True) for name in ("gateway", "gateway-canary")],
    *[("u", "apps/deployments/scale", "exchange", name, True) for name in ("gateway", "gateway-canary")],
    *[("p", "apps/deployments/scale", "exchange", name, False) for name in (
        "market-data", "settlement", "watchdog", "other", "")],
    *[("p", f"apps/statefulsets{sub}", "exchange", "engine", False) for sub in ("", "/scale", "/status")],
    *[("u", f"apps/statefulsets{sub}", "exchange", "engine", False) for sub in ("", "/scale")],
    ("p", "apps/replicasets/scale", "exchange", "", False),
    ("p", "apps/replicasets", "exchange", "", False),
    # Deployments by name.
    *[("p", "apps/deployments", "exchange", name, True) for name in (
        "gateway", "gateway-canary", "market-data", "settlement", "watchdog")],
    *[("p", "apps/deployments", "exchange", name, False) for name in ("engine", "other", "")],
    *[("cu", "apps/deployments", "exchange", name, False) for name in ("gateway", "")],
    ("w", "apps/statefulsets", "exchange", "", False),
    ("w", "apps/daemonsets", "exchange", "", False),
    # Pods.
    ("c", "/pods/eviction", "exchange", "", True),
    ("p", "/pods", "exchange", "gateway-x", True),
    ("d", "/pods", "exchange", "gateway-x", True),
    ("c", "/pods", "exchange", "", False),
    ("u", "/pods", "exchange", "", False),
    *[("c", f"/pods/{sub}", "exchange", "gateway-x", False) for sub in (
        "exec", "attach", "portforward", "proxy", "binding")],
    *[("p", f"/pods/{sub}", "exchange", "gateway-x", False) for sub in ("status", "ephemeralcontainers", "resize")],
    ("g", "/pods/log", "exchange", "gateway-x", False),
    # Knobs by name.
    ("p", "autoscaling/horizontalpodautoscalers", "exchange", "gateway", True),
    ("p", "autoscaling/horizontalpodautoscalers", "exchange", "other", False),
    ("w", "autoscaling/horizontalpodautoscalers", "exchange", "", False),
    *[("p", "/services", "exchange", name, True) for name in ("engine", "gateway")],
    *[("p", "/services", "exchange", name, False) for name in ("market-data", "settlement", "")],
    ("cu", "/services", "exchange", "gateway", False),
    *[("p", "/configmaps", "exchange", name, True) for name in ("exchange-flags", "exchange-config")],
    *[("p", "/configmaps", "exchange", name, False) for name in (
        "exchange-config-last-good", "exchange-flags-last-good", "kube-root-ca.crt", "")],
    ("cu", "/configmaps", "exchange", "exchange-config", False),
    ("c", "batch/jobs", "exchange", "", True),
    ("D", "batch/jobs", "exchange", "", False),
    ("p", "batch/jobs", "exchange", "", False),
    ("w", "batch/cronjobs", "exchange", "", False),
    ("c", "/events", "exchange", "", True),
    ("c", "events.k8s.io/events", "exchange", "", True),
    ("w", "policy/poddisruptionbudgets", "exchange", "gateway", False),
    ("w", "keda.sh/scaledobjects", "exchange", "", False),
    ("w", "networking.k8s.io/networkpolicies", "exchange", "", False),
    # Its own namespace: the Lease by name, the ledger.
    *[(verb, "coordination.k8s.io/leases", "tapewatch", "tapewatch-leader", True) for verb in ("g", "p", "u")],
    *[(verb, "coordination.k8s.io/leases", "tapewatch", "other", False) for verb in ("g", "p", "u")],
    *[(verb, "coordination.k8s.io/leases", "tapewatch", "tapewatch-leader", False) for verb in ("c", "D")],
    *[(verb, "/configmaps", "tapewatch", "effect-0", True) for verb in ("gl", "c", "p", "u", "d")],
    ("c", "/pods", "tapewatch", "", False),
    ("p", "apps/statefulsets", "tapewatch", "control", False),
    # Nodes: cordon, nothing else.
    ("p", "/nodes", "", "node-0", True),
    ("cu", "/nodes", "", "node-0", False),
    *[("p", f"/nodes/{sub}", "", "node-0", False) for sub in ("status", "proxy")],
    ("p", "/namespaces", "", "exchange", False),
    # Secrets, identities, rights, policies: nowhere.
    *[("gl", "/secrets", namespace, "", False) for namespace in ("exchange", "tapewatch", "kube-system", "")],
    ("w", "/secrets", "exchange", "", False),
    ("g", "/secrets", "exchange", "exchange-secrets", False),
    *[("c", "/serviceaccounts/token", namespace, "", False) for namespace in ("exchange", "tapewatch")],
    ("w", "/serviceaccounts", "exchange", "", False),
    *[("w", f"rbac.authorization.k8s.io/{kind}", "exchange", "", False) for kind in ("roles", "rolebindings")],
    *[("w", f"rbac.authorization.k8s.io/{kind}", "", "", False) for kind in ("clusterroles", "clusterrolebindings")],
    *[("w", f"admissionregistration.k8s.io/{kind}", "", "", False) for kind in (
        "validatingadmissionpolicies", "validatingadmissionpolicybindings", "validatingwebhookconfigurations")],
    *[("w", kind, "", "", False) for kind in (
        "apiextensions.k8s.io/customresourcedefinitions", "scheduling.k8s.io/priorityclasses",
        "/persistentvolumes", "certificates.k8s.io/certificatesigningrequests")],
    *[("c", f"authentication.k8s.io/{kind}", "", "", False) for kind in ("tokenreviews",)],
    # Other namespaces.
    *[(verb, kind, namespace, "", False) for namespace in ("kube-system", "default") for verb, kind in (
        ("r", "/pods"), ("gl", "/configmaps"), ("r", "apps/deployments"), ("p", "apps/deployments"),
        ("c", "/pods/eviction"), ("d", "/pods"), ("p", "apps/deployments/scale"), ("c", "batch/jobs"),
        ("u", "coordination.k8s.io/leases"), ("c", "/configmaps"))],
    ("gl", "/namespaces", "", "", False),
    ("gl", "/pods", "", "", False),
]  # fmt: skip
KUBE_STATE = [
    *[("lw", kind, "exchange", "", True) for kind in (
        "apps/deployments", "apps/statefulsets", "/pods", "/services", "policy/poddisruptionbudgets",
        "autoscaling/horizontalpodautoscalers")],
    ("lw", "/nodes", "", "", True),
    *[("w", kind, "exchange", "", False) for kind in (
        "apps/deployments", "apps/statefulsets", "apps/deployments/scale", "/pods", "/pods/eviction", "/configmaps",
        "/services", "batch/jobs", "/events", "autoscaling/horizontalpodautoscalers")],
    ("w", "/nodes", "", "", False),
    ("r", "batch/jobs", "exchange", "", False),
    *[("gl", kind, "exchange", "", False) for kind in ("/secrets", "/configmaps")],
    *[("gl", kind, "tapewatch", "", False) for kind in ("/secrets", "/configmaps", "coordination.k8s.io/leases")],
    *[("r", "/pods", namespace, "", False) for namespace in ("kube-system", "tapewatch", "")],
]  # fmt: skip
ROWS = [("tapewatch", *row) for row in TAPEWATCH] + [("tapewatch-kube-state", *row) for row in KUBE_STATE]


def may(account: Account, verb: str, resource: str, namespace: str, name: str) -> bool:
    group, _, rest = resource.partition("/")
    kind, _, subresource = rest.partition("/")
    attributes = {
        "verb": verb, "group": group, "resource": kind, "subresource": subresource, "namespace": namespace,
        "name": name,
    }  # fmt: skip
    review = account.ask(
        "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"resourceAttributes": attributes}}
    )
    return bool(review["status"].get("allowed", False))


@pytest.mark.parametrize("who", ["tapewatch", "tapewatch-kube-state"])
def test_an_account_may_do_what_the_table_says_and_nothing_else(plant: Cluster, who):
    account = Account(plant, plant.token_for(who, "tapewatch"))
    wrong = [
        f"{verb} {resource} {name or '(any)'} in {namespace or '(cluster)'}: should be {'yes' if expected else 'no'}"
        for asks, verbs, resource, namespace, name, expected in ROWS
        if asks == who
        for verb in VERBS[verbs]
        if may(account, verb, resource, namespace, name) is not expected
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_is_large_and_has_both_answers_of_every_kind_of_write():
    cells = [(row[0], verb, *row[2:]) for row in ROWS for verb in VERBS[row[1]]]
    assert len(cells) == len(set(cells)) >= 80
    assert {cell[1] for cell in cells if cell[-1]} >= {"get", "list", "watch", "create", "patch", "update", "delete"}
    assert sum(not cell[-1] for cell in cells) > sum(cell[-1] for cell in cells)


@pytest.mark.parametrize("who", ["tapewatch", "tapewatch-kube-state"])
def test_every_right_that_is_given_stands_in_the_table(plant: Cluster, who):
    """The API server lists what it would allow; a right that the table does not know is one too many."""
    account = Account(plant, plant.token_for(who, "tapewatch"))
    allowed = {
        (resource, verb)
        for asks, verbs, resource, _, _, expected in ROWS
        if asks == who and expected
        for verb in VERBS[verbs]
    }
    for namespace in ("exchange", "tapewatch", "default"):
        review = account.ask(
            "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": namespace}}
        )
        given = {
            (f"{group}/{resource}", verb)
            for rule in review["status"]["resourceRules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
            if group not in {"authorization.k8s.io", "authentication.k8s.io"}
        }
        assert given <= allowed, given - allowed
