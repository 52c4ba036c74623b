"""Who owns what of a workload, and what may be touched at all."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import InputError
from kernel.time import MINUTE, Instant, seconds
from runbooks.adapters.kubernetes.objects import Hpa, ManagedFields, ScaledObject, Selector, Vpa, Workload
from runbooks.adapters.kubernetes.owners import Hands, Rivals, owners_of
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.ports import RefusedError

NOW = Instant(seconds(1_000_000))
REPLICAS: dict[str, dict[str, dict[str, str]]] = {"f:spec": {"f:replicas": {}}}


def deployment(*managers, replicas=2, labels=None, annotations=None):
    meta = {"name": "gateway", "uid": "u", "labels": labels or {}, "annotations": annotations or {}}
    workload = msgspec.convert({"metadata": meta, "spec": {"replicas": replicas}}, Workload)
    meta = msgspec.structs.replace(workload.metadata, managed_fields=managers)
    return msgspec.structs.replace(workload, metadata=meta)


def manager(name, operation="Update", subresource="", fields=None):
    return ManagedFields(manager=name, operation=operation, subresource=subresource, fields_v1=fields or REPLICAS)


def ref(kind="Deployment", name="gateway"):
    return {"kind": kind, "name": name}


def hpa(**meta):
    spec = {"scaleTargetRef": ref(), "minReplicas": 2, "maxReplicas": 6}
    return msgspec.convert({"metadata": {"name": "web", **meta}, "spec": spec}, Hpa)


SCALED = msgspec.convert({"metadata": {"name": "lag"}, "spec": {"scaleTargetRef": ref()}}, ScaledObject)


def owners(workload, rivals=Rivals(), hand=None):  # noqa: B008 - a frozen value
    return owners_of(workload, "Deployment", rivals, NOW, hand)


def test_a_workload_of_its_own_belongs_to_nobody():
    found = owners(deployment(manager("kubectl-client-side-apply")))
    assert (found.spec, found.replicas, found.pods, found.hpa) == ("", "", "", None)


@pytest.mark.parametrize(
    ("meta", "named"),
    [
        ({"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:x/y"}}, "Argo CD application shop"),
        ({"labels": {"argocd.argoproj.io/instance": "shop"}}, "Argo CD application shop"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "infra"}}, "Flux kustomize infra"),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "infra"}}, "Flux helm infra"),
    ],
)  # fmt: skip
def test_gitops_owns_the_whole_specification_and_is_named(meta, named):
    assert named in owners(deployment(**meta)).spec


def test_gitops_is_known_by_its_field_manager_too():
    assert "Argo CD" in owners(deployment(manager("argocd-controller", "Apply"))).spec


def test_the_knob_of_a_scaled_workload_is_its_hpa():
    found = owners(deployment(), Rivals(hpas=(hpa(),)))
    assert found.replicas == ""
    assert found.hpa is not None
    assert found.hpa.metadata.name == "web"


@pytest.mark.parametrize(
    "rivals",
    [
        Rivals(scaled_objects=(SCALED,)),
        Rivals(hpas=(hpa(),), scaled_objects=(SCALED,)),
        Rivals(hpas=(hpa(labels={"scaledobject.keda.sh/name": "lag"}),)),
        Rivals(hpas=(hpa(ownerReferences=[{"kind": "ScaledObject", "name": "lag"}]),)),
    ],
)
def test_keda_leaves_no_knob_and_is_named(rivals):
    assert owners(deployment(), rivals).replicas == "the KEDA ScaledObject lag"


def test_an_hpa_that_gitops_owns_is_no_knob():
    found = owners(deployment(), Rivals(hpas=(hpa(labels={"argocd.argoproj.io/instance": "shop"}),)))
    assert found.replicas == "the HorizontalPodAutoscaler web of the Argo CD application shop"


def test_an_autoscaler_of_another_workload_is_none_of_ours():
    other = msgspec.convert({"metadata": {"name": "x"}, "spec": {"scaleTargetRef": ref(name="web")}}, Hpa)
    assert owners(deployment(), Rivals(hpas=(other,))).hpa is None
    same_name = msgspec.convert({"metadata": {"name": "x"}, "spec": {"scaleTargetRef": ref("StatefulSet")}}, Hpa)
    assert owners(deployment(), Rivals(hpas=(same_name,))).hpa is None


def test_who_applies_the_number_of_replicas_owns_it():
    assert "terraform" in owners(deployment(manager("terraform", "Apply"))).replicas
    assert owners(deployment(manager("terraform", "Apply", fields={"f:spec": {"f:paused": {}}}))).replicas == ""
    assert owners(deployment(manager("tapewatch", "Apply"))).replicas == ""


@pytest.mark.parametrize(("mode", "evicts"), [("Auto", True), ("Recreate", True), ("Initial", False), ("Off", False)])
def test_a_vpa_that_evicts_owns_the_pods(mode, evicts):
    spec = {"targetRef": ref(), "updatePolicy": {"updateMode": mode}}
    vpa = msgspec.convert({"metadata": {"name": "v"}, "spec": spec}, Vpa)
    assert bool(owners(deployment(), Rivals(vpas=(vpa,))).pods) is evicts


def test_a_person_at_work_is_left_alone_for_ten_minutes():
    hands, kubectl = Hands(), manager("kubectl", subresource="scale")
    assert hands.since(deployment(), NOW) is None
    hand = hands.since(deployment(kubectl, replicas=5), NOW)
    assert hand == ("kubectl", NOW)
    busy = owners(deployment(kubectl), hand=hand).replicas
    assert busy.startswith("kubectl, by which somebody scaled it")
    later = Instant(NOW + 10 * MINUTE)
    assert hands.since(deployment(kubectl, replicas=5), later) == hand
    assert owners_of(deployment(kubectl, replicas=5), "Deployment", Rivals(), later, hand).replicas == ""


def test_what_stood_before_we_looked_is_old_and_each_new_number_is_a_new_hand():
    hands, kubectl = Hands(), manager("kubectl", subresource="scale")
    assert hands.since(deployment(kubectl, replicas=5), NOW) == ("kubectl", 0)
    assert hands.since(deployment(kubectl, replicas=4), NOW) == ("kubectl", NOW)


@pytest.mark.parametrize("name", ["kube-controller-manager", "tapewatch"])
def test_controllers_are_no_persons(name):
    hands = Hands()
    hands.since(deployment(), NOW)
    assert hands.since(deployment(manager(name, subresource="scale"), replicas=5), NOW) is None


# --- the allow-list ---------------------------------------------------------------------------------------------------

ALLOWED = ("exchange/Deployment/gateway", "exchange/StatefulSet/engine", "exchange/ConfigMap/flags", "Node/n1")


def test_short_names_stand_for_exactly_one_object():
    targets = Targets(ALLOWED)
    assert str(targets.find("gateway")) == "exchange/Deployment/gateway"
    assert targets.find("config:flags").path == "/api/v1/namespaces/exchange/configmaps/flags"
    assert targets.find("node:n1").path == "/api/v1/nodes/n1"
    assert [one.name for one in targets.workloads] == ["gateway", "engine"]
    with pytest.raises(RefusedError):
        targets.workload("config:flags")


@pytest.mark.parametrize("name", ["", "*", "nobody", "node:", "node:n2", "config:", "exchange/Deployment/gateway"])
def test_what_is_not_on_the_list_is_no_target(name):
    with pytest.raises(RefusedError):
        Targets(ALLOWED).find(name)


def test_an_empty_list_allows_nothing():
    with pytest.raises(RefusedError):
        Targets(()).find("gateway")


@given(st.text())
def test_no_name_reaches_beyond_the_list(name):
    known = {"gateway", "engine", "config:flags", "node:n1"}
    if name not in known:
        with pytest.raises(RefusedError):
            Targets(ALLOWED).find(name)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("*", "more than one"), ("exchange/*/gateway", "more than one"), ("exchange/Deployment/*", "more than one"),
        ("*/Deployment/gateway", "more than one"), ("", "no entry"), ("gateway", "no entry"), ("a/b/c/d", "no entry"),
        ("exchange/Pod/x", "kinds: Deployment"), ("exchange/Secret/x", "kinds: Deployment"),
        ("exchange/Deployment/", "name"), ("/Deployment/x", "name"), ("exchange/Deployment/Gateway", "name"),
        ("ex change/Deployment/x", "name"),
    ],
)  # fmt: skip
def test_an_entry_that_is_none_is_refused_with_what_would_be_right(entry, said):
    with pytest.raises(InputError, match=r"allow-list") as caught:
        Targets([entry])
    assert said in str(caught.value)


def test_two_objects_may_not_share_a_short_name():
    with pytest.raises(InputError, match="both called gateway"):
        Targets(["a/Deployment/gateway", "b/Deployment/gateway"])


def test_every_node_may_be_allowed_by_its_own_wildcard():
    assert Targets(["Node/*"]).find("node:n7").name == "n7"
    for name in ("node:", "node:*", "node:N7", "n7"):
        with pytest.raises(RefusedError):
            Targets(["Node/*"]).find(name)


def test_an_empty_selector_asks_for_nothing():
    assert Selector().query == ""
    asked = msgspec.convert(
        {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["x", "y"]}, {"key": "d", "operator": "DoesNotExist"},
            {"key": "e", "operator": "NotIn", "values": ["z"]}, {"key": "f", "operator": "Exists"}]},
        Selector,
    )  # fmt: skip
    assert asked.query == "a=1,b=2,c in (x,y),!d,e notin (z),f"
