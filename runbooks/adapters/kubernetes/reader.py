"""What a cluster is like now, read for a decision.

Decisions stand on live reads, not on a watch's picture: a watch that has gone silent looks the same as a quiet cluster.
A status is as old as the moment before its first request was sent (`seen_at`), so it is never younger than its facts.

A pod belongs to a workload when its controller says so, not because a selector matches: an empty selector matches
nothing here, and a label given by hand makes nobody a replica.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from kernel.time import SECOND, Clock, Duration, Instant
from runbooks.adapters.kubernetes import objects
from runbooks.adapters.kubernetes.api import Api, ForbiddenError, GoneError
from runbooks.adapters.kubernetes.objects import (
    OVERLAP,
    PARTITIONS,
    REVISION,
    SINGLETON,
    STATEFUL,
    Hpa,
    Items,
    Node,
    Pod,
    ScaledObject,
    Vpa,
    Workload,
    instant_of,
)
from runbooks.adapters.kubernetes.owners import Hands, Owners, Rivals, owners_of
from runbooks.adapters.kubernetes.targets import PATHS, Target, Targets
from runbooks.model import RefusalReason
from runbooks.ports import NodeStatus, RefusedError, Replica, WorkloadStatus

T = TypeVar("T")

RECREATE: Final = "Recreate"
"""The strategy that ends every old pod before it starts a new one."""
OVERDUE: Final = Duration(10 * SECOND)
"""A pod that should have ended so long ago is stuck, and counts as a replica that is not ready."""
KINDS_FOR_S: Final = 60.0
"""How long it is remembered that a cluster has no ScaledObjects or VPAs, and that a namespace is large."""
PAGE: Final = "200"
"""A namespace with more pods than this is read workload by workload."""


class Observed(msgspec.Struct, frozen=True):
    """One workload with everything a decision or a write stands on."""

    target: Target
    workload: Workload
    pods: tuple[Pod, ...]
    """Its own, those that are ending among them."""
    owners: Owners
    seen_at: Instant

    @property
    def replicas(self) -> tuple[Pod, ...]:
        """The pods that count: those not ending, and those that should have ended long ago."""
        return tuple(pod for pod in self.pods if not pod.metadata.ending or is_stuck(pod, self.seen_at))

    @property
    def singleton(self) -> bool:
        """Whether it must never be scaled."""
        return self.workload.metadata.annotations.get(SINGLETON) == "true" or self.stateful

    @property
    def overlaps(self) -> bool:
        """Whether its rollout may run two at once for a while without harm, or never does."""
        strategy, note = self.workload.spec.strategy.type, self.workload.metadata.annotations.get(OVERLAP)
        return not self.singleton or strategy == RECREATE or note == "harmless"

    @property
    def stateful(self) -> bool:
        """Whether it keeps state that a careless restart can lose."""
        return self.workload.metadata.annotations.get(STATEFUL) == "true"


class Reader:
    """Reads what the allow-list names."""

    def __init__(self, api: Api, targets: Targets, clock: Clock) -> None:
        """Read through `api`."""
        self._api = api
        self._targets = targets
        self._clock = clock
        self._absent: dict[str, float] = {}
        self._large: dict[str, float] = {}
        self._hands = Hands()

    async def list(self) -> Sequence[WorkloadStatus]:
        """Return every workload on the allow-list; one that does not exist is left out.

        Raises:
            TapewatchError: the cluster cannot be read.
        """
        found = await asyncio.gather(*(self._of_namespace(one) for one in self._targets.namespaces))
        return [status_of(one) for of_namespace in found for one in of_namespace]

    async def status(self, workload: str) -> WorkloadStatus:
        """Return one workload.

        Raises:
            RefusedError: it is not on the allow-list, or does not exist.
        """
        return status_of(await self.observe(workload))

    async def observe(self, workload: str) -> Observed:
        """Return one workload with all its parts.

        Raises:
            RefusedError: `NO_TARGET`: it is not on the allow-list, does not exist, or its selector matches everything.
        """
        target = self._targets.workload(workload)
        try:
            observed, rivals = await asyncio.gather(self._read(target), self.rivals(target.namespace))
        except GoneError as error:
            raise RefusedError(RefusalReason.NO_TARGET, f"the cluster has no {target}") from error
        return self._with_owners(observed, rivals)

    async def nodes(self) -> Sequence[NodeStatus]:
        """Return the nodes and how many of the allow-listed workloads' pods each carries."""
        seen_at = self._clock.now()
        if not self._targets.any_node and not any(one.kind == "Node" for one in self._targets.others):
            return ()
        nodes, pods = await asyncio.gather(
            self._api.get("/api/v1/nodes", Items[Node]),
            asyncio.gather(
                *(self._api.get(f"/api/v1/namespaces/{one}/pods", Items[Pod]) for one in self._targets.namespaces)
            ),
        )
        carried = [pod.spec.node_name for page in pods for pod in page.items if not _is_finished(pod)]
        return [
            NodeStatus(
                node.metadata.name, node.ready, node.spec.unschedulable, carried.count(node.metadata.name), seen_at
            )
            for node in nodes.items
        ]

    async def targets(self) -> frozenset[str]:
        """Return what beside workloads may be touched and exists."""
        found = await asyncio.gather(self._every_node(), *(self._exists(one) for one in self._targets.others))
        return frozenset().union(*found)

    async def _every_node(self) -> frozenset[str]:
        if not self._targets.any_node:
            return frozenset()
        nodes = await self._api.get("/api/v1/nodes", Items[Node])
        return frozenset(f"node:{node.metadata.name}" for node in nodes.items)

    async def rivals(self, namespace: str) -> Rivals:
        """Return the controllers of a namespace that may own something. Kinds the cluster lacks are none."""
        hpas, scaled, vpas = await asyncio.gather(
            self._api.get(f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers", Items[Hpa]),
            self._if_known(f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects", Items[ScaledObject]),
            self._if_known(f"/apis/autoscaling.k8s.io/v1/namespaces/{namespace}/verticalpodautoscalers", Items[Vpa]),
        )
        return Rivals(hpas.items, scaled, vpas)

    async def _of_namespace(self, namespace: str) -> Sequence[Observed]:
        """Return the workloads of a namespace that exist: all at once where it is small, one by one where it is not."""
        targets = [one for one in self._targets.workloads if one.namespace == namespace]
        if time.monotonic() - self._large.get(namespace, float("-inf")) >= KINDS_FOR_S:
            rivals, found = await asyncio.gather(self.rivals(namespace), self._all(namespace, targets))
            if found is not None:
                return [self._with_owners(one, rivals) for one in found]
            self._large[namespace] = time.monotonic()
        rivals, alone = await asyncio.gather(
            self.rivals(namespace), asyncio.gather(*(self._or_none(one) for one in targets))
        )
        return [self._with_owners(one, rivals) for one in alone if one is not None]

    async def _all(self, namespace: str, targets: Sequence[Target]) -> Sequence[Observed] | None:
        """Read everything of a namespace in three requests; None when it holds more than a page."""
        seen_at = self._clock.now()
        kinds = sorted({target.kind for target in targets})
        paths = [PATHS[kind].format(namespace=namespace) for kind in kinds]
        pods, pages = await asyncio.gather(
            self._api.get(f"/api/v1/namespaces/{namespace}/pods", Items[Pod], limit=PAGE),
            asyncio.gather(*(self._api.get(path, Items[Workload], limit=PAGE) for path in paths)),
        )
        if pods.metadata.continue_ or any(page.metadata.continue_ for page in pages):
            return None
        by_name = {
            (kind, one.metadata.name): one
            for kind, page in zip(kinds, pages, strict=True) for one in page.items if one.spec.selector.query
        }  # fmt: skip
        return [
            Observed(target, one, tuple(pod for pod in pods.items if belongs(pod, one, target.kind)), Owners(), seen_at)
            for target in targets
            if (one := by_name.get((target.kind, target.name))) is not None
        ]

    async def _or_none(self, target: Target) -> Observed | None:
        try:
            return await self._read(target)
        except (GoneError, RefusedError):
            return None

    async def _read(self, target: Target) -> Observed:
        seen_at = self._clock.now()
        workload = await self._api.get(target.path, Workload)
        query = workload.spec.selector.query
        if not query:
            raise RefusedError(RefusalReason.NO_TARGET, f"the selector of {target} matches every pod: it is no target")
        pods = await self._api.get(f"/api/v1/namespaces/{target.namespace}/pods", Items[Pod], labelSelector=query)
        own = tuple(pod for pod in pods.items if belongs(pod, workload, target.kind))
        return Observed(target, workload, own, Owners(), seen_at)

    def _with_owners(self, observed: Observed, rivals: Rivals) -> Observed:
        hand = self._hands.since(observed.workload, observed.seen_at)
        owners = owners_of(observed.workload, observed.target.kind, rivals, observed.seen_at, hand)
        return msgspec.structs.replace(observed, owners=owners)

    async def _exists(self, target: Target) -> frozenset[str]:
        try:
            await self._api.get(target.path, objects.ConfigMap)
        except GoneError:
            return frozenset()
        return frozenset({target.short})

    async def _if_known(self, path: str, kind: type[Items[T]]) -> tuple[T, ...]:
        """List a kind that a cluster need not have. Not being allowed to read one that exists is an error."""
        if time.monotonic() - self._absent.get(path, float("-inf")) < KINDS_FOR_S:
            return ()
        try:
            return (await self._api.get(path, kind)).items
        except GoneError:
            self._absent[path] = time.monotonic()
            return ()
        except ForbiddenError:
            if await self._group_is_served(path):
                raise
            self._absent[path] = time.monotonic()
            return ()

    async def _group_is_served(self, path: str) -> bool:
        """Tell whether the group of `path` exists: RBAC refuses a kind nobody serves before it is missed."""
        try:
            await self._api.get("/".join(path.split("/")[:4]), objects.ConfigMap)
        except GoneError:
            return False
        return True


def belongs(pod: Pod, workload: Workload, kind: str) -> bool:
    """Tell whether a pod's controller is this workload (for a Deployment: one of its ReplicaSets)."""
    owner = next((one for one in pod.metadata.owner_references if one.controller), None)
    if owner is None:
        return False
    if kind == "StatefulSet":
        return owner.uid == workload.metadata.uid
    revision = pod.metadata.labels.get("pod-template-hash", "")
    return owner.kind == "ReplicaSet" and bool(revision) and owner.name == f"{workload.metadata.name}-{revision}"


def is_stuck(pod: Pod, now: Instant) -> bool:
    """Tell whether a pod should have ended by itself long ago."""
    due = instant_of(pod.metadata.deletion_timestamp)  # the server's own word for when its grace ends
    return due is not None and now - due > OVERDUE


def _is_finished(pod: Pod) -> bool:
    return pod.status.phase in {"Succeeded", "Failed"} or any(
        one.kind == "DaemonSet" for one in pod.metadata.owner_references
    )


def status_of(observed: Observed) -> WorkloadStatus:
    """Return what an observed workload is like, in the words of the port."""
    workload, owners = observed.workload, observed.owners
    meta = workload.metadata
    pods = observed.replicas
    partitions = meta.annotations.get(PARTITIONS, "")
    return WorkloadStatus(
        name=meta.name,
        desired=workload.spec.replicas,
        replicas=tuple(_replica(pod) for pod in pods),
        generation=meta.generation,
        singleton=observed.singleton,
        owned_by="runbook",
        seen_at=observed.seen_at,
        settled=is_settled(observed),
        restarts=sum(pod.restarts for pod in pods),
        stateful=observed.stateful,
        images=tuple(sorted({pod.image for pod in pods if not pod.metadata.ending})),
        replicas_owner=owners.replicas,
        spec_owner=owners.spec,
        pods_owner=owners.pods,
        partitions=int(partitions) if partitions.isdigit() else 0,
        detail=_detail(observed),
    )


def _replica(pod: Pod) -> Replica:
    return Replica(
        id=pod.metadata.name,
        pid=None,
        uid=pod.metadata.uid,
        running=pod.status.phase == "Running" and not pod.metadata.ending,
        ready=pod.ready,
        url="",
        started_at=instant_of(pod.status.start_time),
    )


def is_settled(observed: Observed) -> bool:
    """Tell whether the controllers have carried the whole specification out and nothing is left over.

    The controller has seen the newest generation; as many pods as wanted are there, up to date, ready and available;
    no pod is ending.
    """
    workload = observed.workload
    wanted, status = workload.spec.replicas, workload.status
    counts = {status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas}
    if observed.target.kind == "StatefulSet" and status.update_revision == status.current_revision:
        counts.discard(status.updated_replicas)  # a StatefulSet leaves the count out once its rollout is over
    seen = status.observed_generation >= workload.metadata.generation
    pods = [pod for pod in observed.pods if not pod.metadata.ending]
    return seen and counts <= {wanted} and len(observed.pods) == wanted == sum(pod.ready for pod in pods)


def _detail(observed: Observed) -> str:
    workload = observed.workload
    ready = sum(pod.ready for pod in observed.pods)
    parts = [f"{ready} of {workload.spec.replicas} ready"]
    revision = workload.metadata.annotations.get(REVISION) or workload.status.update_revision
    parts += [f"revision {revision}"] if revision else []
    parts += ["paused"] if workload.spec.paused else []
    ending = sum(pod.metadata.ending for pod in observed.pods)
    parts += [f"{ending} ending"] if ending else []
    if workload.status.observed_generation < workload.metadata.generation:
        parts.append("not yet seen by its controller")
    if observed.owners.hpa is not None:
        spec = observed.owners.hpa.spec
        parts.append(
            f"scaled by the HPA {observed.owners.hpa.metadata.name} from {spec.min_replicas} to {spec.max_replicas}"
        )
    return ", ".join(parts)
