"""The workloads a runbook acts on, shaped after what Kubernetes can do.

Each write carries a `key`: the adapter remembers the keys it has carried out and answers a repeated one with the first
answer, so that a controller which lost an answer can simply ask again. Each write may carry the `generation` the plan
was made on: when the workload has changed since, the write is refused as a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import msgspec

from kernel.errors import PermanentError, TemporaryError
from kernel.time import Duration, Instant
from runbooks.changes import Change
from runbooks.model import Action, RefusalReason


class Replica(msgspec.Struct, frozen=True):
    """One running (or not running) copy of a workload."""

    id: str
    pid: int | None
    """The process id; in Kubernetes a pod has a uid instead, shown in `uid`."""
    uid: str
    """Changes with every start of the replica."""
    running: bool
    ready: bool
    url: str
    started_at: Instant | None
    revision: str = ""
    """Of a canary on a local estate: what was deployed to this one replica; empty: it runs its workload's revision."""


class WorkloadStatus(msgspec.Struct, frozen=True):
    """A workload as it is, and when that was seen."""

    name: str
    desired: int
    replicas: tuple[Replica, ...]
    generation: int
    """Grows with every change of the workload's specification (replica count, restart requests)."""
    singleton: bool
    """A single writer: never scaled."""
    owned_by: str
    """`runbook`: exits are answered by runbooks. `estate`: the platform itself starts it again."""
    seen_at: Instant
    """When the platform's own facts were seen; how old the status is."""
    settled: bool | None = None
    """Whether the platform has carried out the whole specification: observed, up to date, ready, nothing left over.

    None: this platform does not say; then every wanted replica must be ready.
    """
    restarts: int = 0
    """How often replicas were started anew by the platform itself."""
    stateful: bool = False
    """It keeps state that a careless restart can lose: the matching engine."""
    images: tuple[str, ...] = ()
    """The distinct images, by digest where known, its running replicas have now; empty: the platform has none."""
    replicas_owner: str = ""
    """Who else owns the number of replicas, so that no knob is left to us; empty: nobody."""
    spec_owner: str = ""
    """Who else owns the whole specification and would revert us (Argo CD, Flux); empty: nobody."""
    pods_owner: str = ""
    """Who else ends replicas by itself (a VPA that evicts); empty: nobody."""
    partitions: int = 0
    """More replicas than this are of no use; 0: no such bound."""
    detail: str = ""
    """What a person should know of its state: `2 of 3 ready, revision 4, paused`."""

    @property
    def is_settled(self) -> bool:
        """Whether everything the specification wants is there."""
        if self.settled is not None:
            return self.settled
        return len(self.replicas) == self.desired and all(replica.ready for replica in self.replicas)

    @property
    def ready(self) -> int:
        """How many replicas are ready."""
        return sum(replica.ready for replica in self.replicas)


class NodeStatus(msgspec.Struct, frozen=True):
    """A machine of the platform."""

    name: str
    ready: bool
    cordoned: bool
    replicas: int
    """How many replicas of ours run there now."""
    seen_at: Instant


class Effect(msgspec.Struct, frozen=True):
    """What a write changed."""

    key: str
    at: Instant
    before: Mapping[str, str]
    after: Mapping[str, str]
    repeated: bool = False
    """True when the key had been carried out before; nothing was done again."""


class RefusedError(PermanentError):
    """A rail of the platform stopped the write; nothing was touched."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BudgetError(TemporaryError):
    """A disruption budget forbids ending a replica now; it may be allowed a moment later."""

    touched: ClassVar[bool] = False
    """Whether a part of what was asked had been carried out before."""

    def __init__(self, message: str, *, retry_after: Duration | None = None) -> None:
        super().__init__(message, retry_after=retry_after)


class Workloads(Protocol):
    """What can be seen of and done to workloads.

    Every method raises `TemporaryError` when the platform does not answer, and `PermanentError` for an unknown workload
    or replica. Writes raise `RefusedError` when a rail forbids them.
    """

    async def list(self) -> Sequence[WorkloadStatus]:
        """Return every workload the adapter may touch."""
        ...

    async def status(self, workload: str) -> WorkloadStatus:
        """Return one workload."""
        ...

    async def restart(self, workload: str, replica: str, *, key: str, generation: int | None = None) -> Effect:
        """End one replica and start it anew; returns once the new process runs (not yet: is ready)."""
        ...

    async def scale(self, workload: str, replicas: int, *, key: str, generation: int | None = None) -> Effect:
        """Set the number of replicas. A singleton is refused; an empty or unknown name is no target."""
        ...

    async def change(self, change: Change, *, key: str, generation: int | None = None) -> Effect:
        """Make a change to the platform's specification; returns once it is accepted (not yet: carried out)."""
        ...

    async def restore(self, of: str, *, key: str) -> Effect:
        """Restore exactly what the write with the key `of` changed.

        Raises:
            RefusedError: `CONFLICT` when someone else has written what would be restored; nothing is touched then.
            PermanentError: nothing was done for `of`.
        """
        ...

    async def rehearse(self, action: Action) -> Sequence[str]:
        """Say what an action would do, in sentences, having asked the platform and changed nothing.

        Raises:
            RefusedError: the platform would refuse it.
        """
        ...

    async def nodes(self) -> Sequence[NodeStatus]:
        """Return the machines; empty where the platform has none."""
        ...

    async def targets(self) -> frozenset[str]:
        """Return what else there is that may be touched: `node:n1`, `config:c`, `service:s`, `job:j`."""
        ...

    async def effect(self, key: str) -> Effect | None:
        """Return what was done for `key`, or None when nothing was."""
        ...
