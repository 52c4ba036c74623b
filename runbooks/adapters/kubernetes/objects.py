"""Kubernetes objects as far as we read them. Fields we never look at are not decoded, so they cost nothing to keep.

A number the server leaves out is 0: `spec.replicas` of a scale subresource is left out when it is 0, while a
Deployment's own `spec.replicas` is always filled in by the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from kernel.time import Instant, from_rfc3339

T = TypeVar("T")

DOMAIN: Final = "tapewatch.example/"
"""Prefix of our own labels and annotations."""
SINGLETON: Final = DOMAIN + "singleton"
STATEFUL: Final = DOMAIN + "stateful"
OVERLAP: Final = DOMAIN + "overlap"
"""`harmless`: a second one beside a singleton for the time of a rollout does no harm, because it writes nothing."""
PARTITIONS: Final = DOMAIN + "partitions"
EPOCH: Final = DOMAIN + "epoch"
KEY: Final = DOMAIN + "key"
RESTARTED_AT: Final = DOMAIN + "restarted-at"
ORIGINAL_MIN: Final = DOMAIN + "original-min"
REVISION: Final = "deployment.kubernetes.io/revision"


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """What every part of an object shares."""


class OwnerReference(_Part, frozen=True):
    """Whose part an object is."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class ManagedFields(_Part, frozen=True):
    """Which fields a manager has written, and when."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    time: str = ""
    fields_v1: Mapping[str, Any] = msgspec.field(default={}, name="fieldsV1")

    def holds(self, *path: str) -> bool:
        """Tell whether the manager owns the field at `path`, such as `spec`, `replicas`."""
        here: Any = self.fields_v1
        for name in path:
            here = here.get(f"f:{name}") if isinstance(here, dict) else None
            if here is None:
                return False
        return True


class Meta(_Part, frozen=True):
    """An object's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    managed_fields: tuple[ManagedFields, ...] = ()
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    deletion_grace_period_seconds: int = 0

    @property
    def ending(self) -> bool:
        """Whether it is being deleted."""
        return bool(self.deletion_timestamp)


class Condition(_Part, frozen=True):
    """One condition of a status."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class Requirement(_Part, frozen=True):
    """One expression of a selector."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class Selector(_Part, frozen=True):
    """Which pods belong to something. An empty one would select every pod."""

    match_labels: Mapping[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()

    @property
    def query(self) -> str:
        """The selector as a list request writes it; empty for one that selects everything."""
        parts = [f"{key}={value}" for key, value in sorted(self.match_labels.items())]
        for one in self.match_expressions:
            if one.operator in {"Exists", "DoesNotExist"}:
                parts.append(one.key if one.operator == "Exists" else f"!{one.key}")
            else:
                parts.append(f"{one.key} {one.operator.lower()} ({','.join(one.values)})")
        return ",".join(parts)


class Strategy(_Part, frozen=True):
    """How a Deployment goes from one revision to the next."""

    type: str = ""


class WorkloadSpec(_Part, frozen=True):
    """The specification of a Deployment or StatefulSet."""

    replicas: int = 0
    selector: Selector = Selector()
    paused: bool = False
    strategy: Strategy = Strategy()
    template: Mapping[str, Any] = {}


class WorkloadState(_Part, frozen=True):
    """The status of a Deployment or StatefulSet."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    conditions: tuple[Condition, ...] = ()


class Workload(_Part, frozen=True):
    """A Deployment or StatefulSet."""

    metadata: Meta = Meta()
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadState = WorkloadState()
    kind: str = ""


class Waiting(_Part, frozen=True):
    """Why a container waits."""

    reason: str = ""
    message: str = ""


class ContainerState(_Part, frozen=True):
    """What a container does now; only one is there."""

    waiting: Waiting | None = None


class ContainerStatus(_Part, frozen=True):
    """One container of a pod."""

    name: str = ""
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()


class Container(_Part, frozen=True):
    """One container as it should be."""

    name: str = ""
    image: str = ""


class PodSpec(_Part, frozen=True):
    """A pod's specification."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()


class PodState(_Part, frozen=True):
    """A pod's status."""

    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    start_time: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")


class Pod(_Part, frozen=True):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodState = PodState()

    @property
    def ready(self) -> bool:
        """Whether its Ready condition holds and nobody is ending it."""
        return not self.metadata.ending and any(
            c.type == "Ready" and c.status == "True" for c in self.status.conditions
        )

    @property
    def restarts(self) -> int:
        """How often its containers were started anew."""
        return sum(one.restart_count for one in self.status.container_statuses)

    @property
    def image(self) -> str:
        """Its images, by digest where the runtime has told it."""
        told = [one.image_id or one.image for one in self.status.container_statuses]
        return " ".join(told or [one.image for one in self.spec.containers])


class ReplicaSet(_Part, frozen=True):
    """A revision of a Deployment."""

    metadata: Meta = Meta()
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadState = WorkloadState()


class TargetRef(_Part, frozen=True):
    """What an autoscaler scales."""

    kind: str = ""
    name: str = ""


class HpaSpec(_Part, frozen=True):
    """The specification of a HorizontalPodAutoscaler."""

    scale_target_ref: TargetRef = TargetRef()
    min_replicas: int = 1
    max_replicas: int = 0


class HpaState(_Part, frozen=True):
    """The status of a HorizontalPodAutoscaler."""

    current_replicas: int = 0
    desired_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class Hpa(_Part, frozen=True):
    """A HorizontalPodAutoscaler."""

    metadata: Meta = Meta()
    spec: HpaSpec = HpaSpec()
    status: HpaState = HpaState()


class ScaledObjectSpec(_Part, frozen=True):
    """The specification of a KEDA ScaledObject."""

    scale_target_ref: TargetRef = TargetRef()


class ScaledObject(_Part, frozen=True):
    """A KEDA ScaledObject."""

    metadata: Meta = Meta()
    spec: ScaledObjectSpec = ScaledObjectSpec()


class UpdatePolicy(_Part, frozen=True):
    """What a VPA may do by itself."""

    update_mode: str = "Auto"


class VpaSpec(_Part, frozen=True):
    """The specification of a VerticalPodAutoscaler."""

    target_ref: TargetRef = TargetRef()
    update_policy: UpdatePolicy = UpdatePolicy()


class Vpa(_Part, frozen=True):
    """A VerticalPodAutoscaler."""

    metadata: Meta = Meta()
    spec: VpaSpec = VpaSpec()


class PdbSpec(_Part, frozen=True):
    """The specification of a PodDisruptionBudget."""

    selector: Selector = Selector()


class PdbState(_Part, frozen=True):
    """The status of a PodDisruptionBudget."""

    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    observed_generation: int = 0


class Pdb(_Part, frozen=True):
    """A PodDisruptionBudget."""

    metadata: Meta = Meta()
    spec: PdbSpec = PdbSpec()
    status: PdbState = PdbState()


class NodeSpec(_Part, frozen=True):
    """A node's specification."""

    unschedulable: bool = False


class NodeState(_Part, frozen=True):
    """A node's status."""

    conditions: tuple[Condition, ...] = ()


class Node(_Part, frozen=True):
    """A node."""

    metadata: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    status: NodeState = NodeState()

    @property
    def ready(self) -> bool:
        """Whether its Ready condition holds."""
        return any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)


class ConfigMap(_Part, frozen=True):
    """A configuration."""

    metadata: Meta = Meta()
    data: Mapping[str, str] = {}


class ServiceSpec(_Part, frozen=True):
    """The specification of a service."""

    selector: Mapping[str, str] = {}


class Service(_Part, frozen=True):
    """A service."""

    metadata: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()


class ScaleSpec(_Part, frozen=True):
    """How many there should be; left out by the server when 0."""

    replicas: int = 0


class Scale(_Part, frozen=True):
    """The scale subresource."""

    metadata: Meta = Meta()
    spec: ScaleSpec = ScaleSpec()


class PageMeta(msgspec.Struct, frozen=True):
    """Where the next page begins."""

    continue_: str = msgspec.field(default="", name="continue")


class Items(msgspec.Struct, Generic[T], frozen=True):
    """The answer to a list request."""

    items: tuple[T, ...] = ()
    metadata: PageMeta = PageMeta()


def instant_of(text: str) -> Instant | None:
    """Read a time of the API; None where there is none."""
    return from_rfc3339(text) if text else None
