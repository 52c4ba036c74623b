"""The port `Workloads` on a Kubernetes cluster: what is read, and what is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from kernel.time import Clock
from runbooks.adapters.kubernetes.api import Api
from runbooks.adapters.kubernetes.drain import DrainNode
from runbooks.adapters.kubernetes.edit import Edit, plan_restore
from runbooks.adapters.kubernetes.evict import DeleteStuck, Restart
from runbooks.adapters.kubernetes.fence import Fence
from runbooks.adapters.kubernetes.jobs import Run
from runbooks.adapters.kubernetes.ledger import Ledger, Plan
from runbooks.adapters.kubernetes.reader import Reader
from runbooks.adapters.kubernetes.rollout import Roller
from runbooks.adapters.kubernetes.scaling import Scaler
from runbooks.adapters.kubernetes.switches import Switcher
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.adapters.kubernetes.writer import Deed, Writer, said
from runbooks.changes import (
    Change,
    Cordon,
    DeleteReplica,
    Drain,
    FailOver,
    PauseRollout,
    RestoreConfig,
    ResumeRollout,
    RollBack,
    RollingRestart,
    RunJob,
    SetFlag,
    SwitchService,
    TakeBack,
    describe_change,
)
from runbooks.model import Action, RefusalReason, RestartReplica, Scale, SetReplicas
from runbooks.ports import Effect, NodeStatus, RefusedError, WorkloadStatus
from runbooks.words import describe

_REHEARSAL: Final = "rehearsal"
DRAIN_S: Final = 10.0
"""How long one call of a drain waits for budgets. What is left goes on when it is asked for again with the same key."""


def _never() -> str:
    return ""


class KubernetesWorkloads:
    """Workloads of one cluster. An async context manager, or call `close`."""

    def __init__(
        self,
        api: Api,
        targets: Targets,
        clock: Clock,
        fence: Fence,
        *,
        ledger: Ledger | None = None,
        forbidden: Callable[[], str] = _never,
    ) -> None:
        """Act on `targets` through `api`, which is closed with this.

        Args:
            api: a connection to the cluster.
            targets: the allow-list.
            clock: the time.
            fence: stamps every write with the leader's epoch.
            ledger: where effects are kept; None for the namespace `tapewatch`.
            forbidden: says why nothing may be written now (the kill switch), asked before each write; empty: it may.
        """
        self._api = api
        self._targets = targets
        self._clock = clock
        self._reader = Reader(api, targets, clock)
        self.fence = fence
        self.ledger = ledger or Ledger(api, clock)
        self._writer = Writer(api, self.ledger, fence, forbidden)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._api.close()

    # --- what there is ----------------------------------------------------------------------------------------------

    async def list(self) -> Sequence[WorkloadStatus]:
        """Return every workload on the allow-list that exists."""
        return await said(self._reader.list())

    async def status(self, workload: str) -> WorkloadStatus:
        """Return one workload."""
        return await said(self._reader.status(workload))

    async def nodes(self) -> Sequence[NodeStatus]:
        """Return the nodes, where the allow-list names any."""
        return await said(self._reader.nodes())

    async def targets(self) -> frozenset[str]:
        """Return what beside workloads may be touched and exists."""
        return await said(self._reader.targets())

    async def effect(self, key: str) -> Effect | None:
        """Return what was done for `key`; what was begun and never ended is found out from the cluster."""
        return await self._writer.effect(key)

    # --- what is done -----------------------------------------------------------------------------------------------

    async def restart(self, workload: str, replica: str, *, key: str, generation: int | None = None) -> Effect:
        """Evict one pod; returns once its successor is there, or after some seconds without one."""
        return await self._writer.carry_out(self._restart(workload, replica), key, generation)

    async def scale(self, workload: str, replicas: int, *, key: str, generation: int | None = None) -> Effect:
        """Set the number of replicas, or turn the knob of the autoscaler that owns it."""
        return await self._writer.carry_out(self._scale(workload, replicas), key, generation)

    async def change(self, change: Change, *, key: str, generation: int | None = None) -> Effect:
        """Make a change."""
        return await self._writer.carry_out(self._change(change, key), key, generation)

    async def restore(self, of: str, *, key: str) -> Effect:
        """Restore exactly the fields that the write with the key `of` changed."""
        return await self._writer.carry_out(self._restore(of), key)

    async def rehearse(self, action: Action) -> Sequence[str]:
        """Let the API server check an action as a dry run, and say what it would do."""
        match action:
            case RestartReplica():
                deed = self._restart(action.workload, action.replica)
            case Scale():
                deed = self._scale(action.workload, await self._wanted(action))
            case SetReplicas():
                deed = self._scale(action.workload, action.replicas)
            case TakeBack():
                deed = self._restore(action.of)
            case (
                RollingRestart() | RollBack() | PauseRollout() | ResumeRollout() | DeleteReplica() | FailOver()
                | Cordon() | Drain() | RunJob() | SetFlag() | RestoreConfig() | SwitchService()
            ):  # fmt: skip
                deed = self._change(action, _REHEARSAL)
            case _:
                return [f"would {describe(action)}"]  # no matter of the platform's
        return await self._writer.rehearse(deed)

    async def _wanted(self, action: Scale) -> int:
        """Return the number that a relative scale comes to now."""
        status = await self.status(action.workload)
        most = min(action.maximum, status.partitions or action.maximum)
        wanted = min(max(status.desired + action.by, action.minimum), max(most, action.minimum))
        if wanted == status.desired:
            words = f"{action.workload} has {status.desired} replicas already, as many as the bounds allow"
            raise RefusedError(RefusalReason.BLAST_RADIUS, words)
        return wanted

    # --- deeds ------------------------------------------------------------------------------------------------------

    def _restart(self, workload: str, replica: str) -> Deed:
        return Restart(self._api, self._reader, workload, replica)

    def _scale(self, workload: str, replicas: int) -> Deed:
        scaler = Scaler(self._api, self._reader)

        async def plan(generation: int | None) -> Plan:
            return await scaler.plan(workload, replicas, generation)

        return Edit(self._api, f"scale {workload} to {replicas}", plan)

    def _restore(self, of: str) -> Deed:
        async def plan(generation: int | None) -> Plan:
            del generation
            return await plan_restore(self._api, await self._writer.entry(of))

        return Edit(self._api, f"restore what {of} changed", plan)

    def _change(self, change: Change, key: str) -> Deed:
        match change:
            case RollingRestart() | RollBack() | PauseRollout() | ResumeRollout() as rollout:
                roller = Roller(self._api, self._reader, self._clock)

                async def plan(generation: int | None) -> Plan:
                    return await roller.plan(rollout, key, generation)

                return Edit(self._api, describe_change(change), plan)
            case SetFlag() | RestoreConfig() | SwitchService() | Cordon() as switch:
                switcher = Switcher(self._api, self._targets)

                async def plan_switch(generation: int | None) -> Plan:
                    del generation
                    return await switcher.plan(switch)

                return Edit(self._api, describe_change(change), plan_switch)
            case FailOver():
                words = f"to {describe_change(change)} is the work of the operator that owns its pods, not ours"
                raise RefusedError(RefusalReason.NOT_ALLOWED, words)
            case DeleteReplica():
                return DeleteStuck(self._api, self._reader, self._clock, change.workload, change.replica)
            case Drain():
                return DrainNode(self._api, self._reader, self._targets, change.node, within_s=DRAIN_S)
            case RunJob():
                return Run(self._api, self._targets, change.job, key)
