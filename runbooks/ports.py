"""The workloads a runbook acts on, shaped after what Kubernetes can do.

Each write carries a `key`: the adapter remembers the keys it has carried out and answers a repeated one with the first
answer, so that a controller which lost an answer can simply ask again. Each write may carry the `generation` the plan
was made on: when the workload has changed since, the write is refused as a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from kernel.errors import PermanentError
from kernel.time import Instant
from runbooks.model import RefusalReason


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

    @property
    def ready(self) -> int:
        """How many replicas are ready."""
        return sum(replica.ready for replica in self.replicas)


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

    async def effect(self, key: str) -> Effect | None:
        """Return what was done for `key`, or None when nothing was."""
        ...
