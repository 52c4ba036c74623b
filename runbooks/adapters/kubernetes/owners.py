"""Who else owns what we would change: which knob is left to us, or whom to name when none is.

Rules, in order:

1. GitOps (Argo CD, Flux) owns the whole specification: whatever is written is reverted at the next sync.
2. A KEDA ScaledObject owns the number of replicas through an HPA of its own. Its bounds are its author's.
3. An HPA owns the number of replicas within its bounds; below its maximum, `minReplicas` is the knob to turn with it.
4. A manager that *applies* `spec.replicas` (server-side apply) has declared it and will declare it again.
5. A person who changed the number of replicas a moment ago is at work: hands off. The API server keeps no time for
   writes to the scale subresource, so `Hands` remembers when it first saw each.
6. A VPA that may evict ends pods by itself; a rolling restart beside it would count its evictions as ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from kernel.time import MINUTE, SECOND, Duration, Instant
from runbooks.adapters.kubernetes.api import FIELD_MANAGER
from runbooks.adapters.kubernetes.fields import is_ours
from runbooks.adapters.kubernetes.objects import (
    Hpa,
    ManagedFields,
    Meta,
    ScaledObject,
    TargetRef,
    Vpa,
    Workload,
)
from runbooks.words import duration

ARGO_TRACKING: Final = "argocd.argoproj.io/tracking-id"
ARGO_LABEL: Final = "argocd.argoproj.io/instance"
FLUX_LABELS: Final = ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name")
KEDA_LABEL: Final = "scaledobject.keda.sh/name"
GITOPS_MANAGERS: Final = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
}
CONTROLLERS: Final = frozenset({"kube-controller-manager", FIELD_MANAGER})
"""Managers whose write to the number of replicas is no person's: the HPA's controller, and we ourselves."""
HANDS_OFF: Final = Duration(10 * MINUTE)
"""How long after a person's change of the number of replicas we leave it alone."""
EVICTING: Final = frozenset({"Auto", "Recreate", "InPlaceOrRecreate"})


class Rivals(msgspec.Struct, frozen=True):
    """The controllers of a namespace that may own something."""

    hpas: tuple[Hpa, ...] = ()
    scaled_objects: tuple[ScaledObject, ...] = ()
    vpas: tuple[Vpa, ...] = ()


class Owners(msgspec.Struct, frozen=True):
    """Who owns what of a workload; empty words mean nobody."""

    spec: str = ""
    replicas: str = ""
    pods: str = ""
    hpa: Hpa | None = None
    """The HPA whose `minReplicas` is the knob for the number of replicas."""


class Hands:
    """Remembers since when somebody else's number of replicas has stood.

    What stood when a workload was first seen is taken for old: only a change seen by us is somebody at work.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[str, int], Instant]] = {}

    def since(self, workload: Workload, now: Instant) -> tuple[str, Instant] | None:
        """Return who set the number of replicas that stands and when that was first seen; None when nobody did."""
        meta = workload.metadata
        who = next((one.manager for one in meta.managed_fields if _is_hand(one)), "")
        mark = (who, workload.spec.replicas)
        known = self._known.get(meta.uid)
        if known is None or known[0] != mark:
            self._known[meta.uid] = known = (mark, Instant(0) if known is None else now)
        return (who, known[1]) if who else None


def _is_hand(one: ManagedFields) -> bool:
    theirs = one.manager not in CONTROLLERS and not is_ours(one.manager)
    return one.subresource == "scale" and theirs and one.holds("spec", "replicas")


def owners_of(
    workload: Workload, kind: str, rivals: Rivals, now: Instant, hand: tuple[str, Instant] | None = None
) -> Owners:
    """Find who owns what of a workload; `hand` as `Hands.since` gives it."""
    meta = workload.metadata
    scaled = next((one for one in rivals.scaled_objects if _is(one.spec.scale_target_ref, kind, meta.name)), None)
    hpa = next((one for one in rivals.hpas if _is(one.spec.scale_target_ref, kind, meta.name)), None)
    vpa = next((one for one in rivals.vpas if _is(one.spec.target_ref, kind, meta.name)), None)
    evicts = vpa is not None and vpa.spec.update_policy.update_mode in EVICTING
    return Owners(
        spec=gitops(meta),
        replicas=_replicas_owner(meta, scaled, hpa) or ("" if hpa else _at_work(hand, now)),
        pods=f"the VerticalPodAutoscaler {vpa.metadata.name}, which evicts by itself" if evicts and vpa else "",
        hpa=hpa if scaled is None else None,
    )


def _replicas_owner(meta: Meta, scaled: ScaledObject | None, hpa: Hpa | None) -> str:
    if scaled is not None:
        return f"the KEDA ScaledObject {scaled.metadata.name}"
    if hpa is not None:
        keda = hpa.metadata.labels.get(KEDA_LABEL) or _owned_by(hpa.metadata, "ScaledObject")
        if keda:
            return f"the KEDA ScaledObject {keda}"
        owner = gitops(hpa.metadata)
        return f"the HorizontalPodAutoscaler {hpa.metadata.name} of {owner}" if owner else ""
    return _declared(meta.managed_fields)


def gitops(meta: Meta) -> str:
    """Return which GitOps controller owns an object, in words; empty when none does."""
    if ARGO_TRACKING in meta.annotations:
        return f"the Argo CD application {meta.annotations[ARGO_TRACKING].partition(':')[0]}"
    if ARGO_LABEL in meta.labels:
        return f"the Argo CD application {meta.labels[ARGO_LABEL]}"
    for label in FLUX_LABELS:
        if label in meta.labels:
            return f"the Flux {label.partition('.')[0]} {meta.labels[label]}"
    manager = next((one.manager for one in meta.managed_fields if one.manager in GITOPS_MANAGERS), "")
    return f"{GITOPS_MANAGERS[manager]} (field manager {manager})" if manager else ""


def _declared(fields: Iterable[ManagedFields]) -> str:
    for one in fields:
        if one.operation == "Apply" and one.manager != FIELD_MANAGER and one.holds("spec", "replicas"):
            return f"the field manager {one.manager}, which applies spec.replicas"
    return ""


def _at_work(hand: tuple[str, Instant] | None, now: Instant) -> str:
    if hand is None or now - hand[1] >= HANDS_OFF:
        return ""
    ago = (now - hand[1]) // SECOND * SECOND
    return f"{hand[0]}, by which somebody scaled it {duration(ago)} ago"


def _owned_by(meta: Meta, kind: str) -> str:
    return next((owner.name for owner in meta.owner_references if owner.kind == kind), "")


def _is(ref: TargetRef, kind: str, name: str) -> bool:
    return (ref.kind or "Deployment", ref.name) == (kind, name)  # KEDA lets the kind be left out
