"""From Kubernetes objects to metrics, under kube-state-metrics' own names and labels.

Pure: an object in, its samples out. An object that is gone gives no samples, so its series end with it. Where
kube-state-metrics itself runs, none of this is needed, provided that it shows the pods' labels
`app.kubernetes.io/name` and `app.kubernetes.io/part-of` (its `--metric-labels-allowlist`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from kernel.time import from_rfc3339, to_seconds
from monitor.kube_objects import (
    Condition,
    ContainerStatus,
    Deployment,
    HorizontalPodAutoscaler,
    KubeObject,
    Node,
    Pod,
    PodDisruptionBudget,
    Service,
    StatefulSet,
)

NAME_LABEL: Final = "app.kubernetes.io/name"
PART_LABEL: Final = "app.kubernetes.io/part-of"
SERVES_LABEL: Final = "tapewatch.example/serves"
STATUSES: Final = ("true", "false", "unknown")
PHASES: Final = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
WAITING_REASONS: Final = frozenset({
    "ContainerCreating", "PodInitializing", "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
})  # fmt: skip
OTHER: Final = "other"
"""What a reason outside the closed set becomes."""
COLOURLESS: Final = "none"
"""The colour of a service that leads to the pods of its own name."""


class Sample(NamedTuple):
    """One series' value; the labels' values stand in the catalogue's order."""

    name: str
    labels: tuple[str, ...]
    value: float


def samples(thing: KubeObject) -> Iterator[Sample]:
    """Yield everything that is said of an object."""
    match thing:
        case Deployment():
            yield from _deployment(thing)
        case StatefulSet():
            yield from _stateful_set(thing)
        case HorizontalPodAutoscaler():
            yield from _autoscaler(thing)
        case PodDisruptionBudget():
            labels = (thing.metadata.namespace, thing.metadata.name)
            allowed = thing.status.disruptions_allowed
            yield Sample("kube_poddisruptionbudget_status_pod_disruptions_allowed", labels, allowed)
        case Pod():
            yield from _pod(thing)
        case Node():
            yield from _node(thing)
        case Service():
            yield from _service(thing)


# --- what runs pods -----------------------------------------------------------------------------------------------


def _deployment(one: Deployment) -> Iterator[Sample]:
    labels = (one.metadata.namespace, one.metadata.name)
    for name, value in (
        ("spec_replicas", one.spec.replicas),
        ("spec_paused", one.spec.paused),
        ("metadata_generation", one.metadata.generation),
        ("status_observed_generation", one.status.observed_generation),
        ("status_replicas", one.status.replicas),
        ("status_replicas_ready", one.status.ready_replicas),
        ("status_replicas_available", one.status.available_replicas),
        ("status_replicas_updated", one.status.updated_replicas),
        ("status_replicas_unavailable", one.status.unavailable_replicas),
    ):
        yield Sample(f"kube_deployment_{name}", labels, value)
    for condition in one.status.conditions:
        for status, value in _statuses(condition):
            more = (condition.reason, condition.type, status)
            yield Sample("kube_deployment_status_condition", (*labels, *more), value)


def _stateful_set(one: StatefulSet) -> Iterator[Sample]:
    labels = (one.metadata.namespace, one.metadata.name)
    for name, value in (
        ("replicas", one.spec.replicas),
        ("metadata_generation", one.metadata.generation),
        ("status_observed_generation", one.status.observed_generation),
        ("status_replicas_ready", one.status.ready_replicas),
        ("status_replicas_available", one.status.available_replicas),
        ("status_replicas_updated", one.status.updated_replicas),
    ):
        yield Sample(f"kube_statefulset_{name}", labels, value)


def _autoscaler(one: HorizontalPodAutoscaler) -> Iterator[Sample]:
    labels = (one.metadata.namespace, one.metadata.name)
    for name, value in (
        ("spec_min_replicas", one.spec.min_replicas),
        ("spec_max_replicas", one.spec.max_replicas),
        ("status_current_replicas", one.status.current_replicas),
        ("status_desired_replicas", one.status.desired_replicas),
    ):
        yield Sample(f"kube_horizontalpodautoscaler_{name}", labels, value)
    target = one.spec.scale_target_ref
    yield Sample("kube_horizontalpodautoscaler_info", (*labels, target.kind, target.name), 1)


# --- pods ---------------------------------------------------------------------------------------------------------


def _pod(pod: Pod) -> Iterator[Sample]:
    meta = pod.metadata
    labels = (meta.namespace, meta.name, meta.uid)
    yield Sample("kube_pod_info", (*labels, pod.spec.node_name), 1)
    names = (meta.labels.get(NAME_LABEL, ""), meta.labels.get(PART_LABEL, ""))
    yield Sample("kube_pod_labels", (*labels, *names), 1)
    for owner in meta.owner_references:
        more = (owner.kind, owner.name, "true" if owner.controller else "false")
        yield Sample("kube_pod_owner", (*labels, *more), 1)
    if meta.deletion_timestamp:
        at = to_seconds(from_rfc3339(meta.deletion_timestamp))
        yield Sample("kube_pod_deletion_timestamp", labels, at)
    for phase in PHASES:
        yield Sample("kube_pod_status_phase", (*labels, phase), pod.status.phase == phase)
    for condition in pod.status.conditions:
        if condition.type == "Ready":
            for status, value in _statuses(condition):
                yield Sample("kube_pod_status_ready", (*labels, status), value)
    yield from _limits(pod, labels)
    for container in pod.status.container_statuses:
        yield from _container(container, labels)


def _limits(pod: Pod, labels: tuple[str, ...]) -> Iterator[Sample]:
    for container in pod.spec.containers:
        for resource, unit in (("cpu", "core"), ("memory", "byte")):
            if resource in container.resources.limits:
                value = quantity(str(container.resources.limits[resource]))
                more = (container.name, pod.spec.node_name, resource, unit)
                yield Sample("kube_pod_container_resource_limits", (*labels, *more), value)


def _container(container: ContainerStatus, labels: tuple[str, ...]) -> Iterator[Sample]:
    here = (*labels, container.name)
    yield Sample("kube_pod_container_status_restarts_total", here, container.restart_count)
    waiting, ended = container.state.waiting, container.last_state.terminated
    if waiting is not None and waiting.reason:
        reason = waiting.reason if waiting.reason in WAITING_REASONS else OTHER
        yield Sample("kube_pod_container_status_waiting_reason", (*here, reason), 1)
    if ended is not None:
        yield Sample("kube_pod_container_status_last_terminated_exitcode", here, ended.exit_code)


_QUANTITY: Final = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)(m|[kMGTPE]|[KMGTPE]i)?")
_FACTORS: Final[dict[str | None, float]] = {
    None: 1.0, "m": 0.001, **{sign: 1000.0**n for n, sign in enumerate("kMGTPE", 1)},
    **{f"{sign}i": 1024.0**n for n, sign in enumerate("KMGTPE", 1)},
}  # fmt: skip


def quantity(text: str) -> float:
    """Return a quantity such as `512Mi` or `250m` in its base unit; 0 for one that is not understood."""
    found = _QUANTITY.fullmatch(text)
    return float(found[1]) * _FACTORS[found[2]] if found else 0.0


# --- where pods run, and how they are reached ---------------------------------------------------------------------


def _node(node: Node) -> Iterator[Sample]:
    name = node.metadata.name
    yield Sample("kube_node_spec_unschedulable", (name,), node.spec.unschedulable)
    for condition in node.status.conditions:
        for status, value in _statuses(condition):
            yield Sample("kube_node_status_condition", (name, condition.type, status), value)


def _service(service: Service) -> Iterator[Sample]:
    """A service leads to `NAME`, `NAME-blue` or `NAME-green`; the suffix is its colour."""
    name, selector = service.metadata.name, service.spec.selector
    selected = selector.get(SERVES_LABEL) or selector.get(NAME_LABEL, "")
    colour = selected.removeprefix(f"{name}-") if selected.startswith(f"{name}-") else COLOURLESS
    yield Sample("tapewatch_kube_service_colour", (service.metadata.namespace, name, colour), 1)


def _statuses(condition: Condition) -> Iterable[tuple[str, bool]]:
    return ((status, condition.status.lower() == status) for status in STATUSES)
