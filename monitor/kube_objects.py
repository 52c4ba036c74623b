"""Kubernetes objects as far as metrics are made of them: what `monitor.kube_state` reads.

They are decoded from the API server's JSON (`msgspec.json.decode(raw, type=Pod)`), from plain mappings
(`msgspec.convert(mapping, Pod)`) or from other structs with the same attributes (`from_attributes=True`). Fields that
no metric is made of are not decoded. A number the server leaves out is 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """What every part of an object shares."""


class OwnerReference(_Part, frozen=True):
    """Whose part an object is."""

    kind: str = ""
    name: str = ""
    controller: bool = False


class Meta(_Part, frozen=True):
    """An object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    labels: Mapping[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    deletion_timestamp: str = ""
    """RFC 3339: when it must have ended; empty while nobody deletes it."""


class Condition(_Part, frozen=True):
    """One condition of a status; `status` is `True`, `False` or `Unknown`."""

    type: str = ""
    status: str = ""
    reason: str = ""


# --- what runs pods -----------------------------------------------------------------------------------------------


class ReplicaSpec(_Part, frozen=True):
    """What a Deployment or StatefulSet should be."""

    replicas: int = 0
    paused: bool = False


class ReplicaState(_Part, frozen=True):
    """What a Deployment or StatefulSet is."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class Deployment(_Part, frozen=True):
    """A Deployment."""

    metadata: Meta = Meta()
    spec: ReplicaSpec = ReplicaSpec()
    status: ReplicaState = ReplicaState()


class StatefulSet(_Part, frozen=True):
    """A StatefulSet."""

    metadata: Meta = Meta()
    spec: ReplicaSpec = ReplicaSpec()
    status: ReplicaState = ReplicaState()


class AutoscalerTarget(_Part, frozen=True):
    """What an autoscaler scales."""

    kind: str = ""
    name: str = ""


class AutoscalerSpec(_Part, frozen=True):
    """An autoscaler's bounds."""

    scale_target_ref: AutoscalerTarget = AutoscalerTarget()
    min_replicas: int = 1
    max_replicas: int = 0


class AutoscalerState(_Part, frozen=True):
    """What an autoscaler sees and wants."""

    current_replicas: int = 0
    desired_replicas: int = 0


class HorizontalPodAutoscaler(_Part, frozen=True):
    """A HorizontalPodAutoscaler."""

    metadata: Meta = Meta()
    spec: AutoscalerSpec = AutoscalerSpec()
    status: AutoscalerState = AutoscalerState()


class BudgetState(_Part, frozen=True):
    """What a disruption budget allows now."""

    disruptions_allowed: int = 0


class PodDisruptionBudget(_Part, frozen=True):
    """A PodDisruptionBudget."""

    metadata: Meta = Meta()
    status: BudgetState = BudgetState()


# --- pods ---------------------------------------------------------------------------------------------------------


class Resources(_Part, frozen=True):
    """What a container may use at most, as quantities such as `512Mi` and `250m`."""

    limits: Mapping[str, str | int | float] = {}


class Container(_Part, frozen=True):
    """One container as it should be."""

    name: str = ""
    resources: Resources = Resources()


class PodSpec(_Part, frozen=True):
    """What a pod should be."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()


class Waiting(_Part, frozen=True):
    """Why a container waits."""

    reason: str = ""


class Terminated(_Part, frozen=True):
    """How a container ended."""

    exit_code: int = 0


class ContainerState(_Part, frozen=True):
    """What a container does, or last did; only one is there."""

    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Part, frozen=True):
    """One container as it is."""

    name: str = ""
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class PodState(_Part, frozen=True):
    """What a pod is."""

    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(_Part, frozen=True):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodState = PodState()


# --- where pods run, and how they are reached ---------------------------------------------------------------------


class NodeSpec(_Part, frozen=True):
    """What a node should be."""

    unschedulable: bool = False


class NodeState(_Part, frozen=True):
    """What a node is."""

    conditions: tuple[Condition, ...] = ()


class Node(_Part, frozen=True):
    """A machine of the cluster."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeState = NodeState()


class ServiceSpec(_Part, frozen=True):
    """Which pods a service leads to."""

    selector: Mapping[str, str] = {}


class Service(_Part, frozen=True):
    """A service."""

    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()


KubeObject = (
    Deployment | StatefulSet | HorizontalPodAutoscaler | PodDisruptionBudget | Pod | Node | Service
)  # fmt: skip
