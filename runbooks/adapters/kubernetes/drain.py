"""Draining a node: the pods of the allow-listed workloads on it move elsewhere, one at a time, within their budgets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from kernel.time import SECOND
from runbooks.adapters.kubernetes.api import Api, BudgetBlockedError
from runbooks.adapters.kubernetes.edit import get
from runbooks.adapters.kubernetes.evict import evict, path_of
from runbooks.adapters.kubernetes.finding import drained, is_ended
from runbooks.adapters.kubernetes.ledger import Plan
from runbooks.adapters.kubernetes.objects import Pod
from runbooks.adapters.kubernetes.reader import Reader
from runbooks.adapters.kubernetes.targets import Targets
from runbooks.adapters.kubernetes.writer import Sender, UnfinishedError
from runbooks.model import RefusalReason
from runbooks.ports import BudgetError, RefusedError

_STEP_S: Final = 0.2


class DrainNode:
    """A deed that drains one node."""

    def __init__(self, api: Api, reader: Reader, targets: Targets, node: str, *, within_s: float) -> None:
        """Drain `node`, waiting for budgets so many seconds a call."""
        self._api = api
        self._reader = reader
        self._targets = targets
        self._node = node
        self._within_s = within_s
        self.request = f"drain the node {node}"

    async def plan(self, generation: int | None) -> Plan:
        """List the pods to move: those of the allow-listed workloads, so none of a DaemonSet and nobody else's.

        Raises:
            RefusedError: the node is not cordoned: what is moved could come back.
        """
        del generation
        target = self._targets.find(f"node:{self._node}")
        thing = await get(self._api, target.path, str(target))
        if not thing["spec"].get("unschedulable"):
            words = f"{target} is not cordoned: what leaves it could come back"
            raise RefusedError(RefusalReason.CONFLICT, words)
        pods: dict[str, str] = {}
        for workload in self._targets.workloads:
            with contextlib.suppress(RefusedError):  # one that does not exist has nothing to move
                seen = await self._reader.observe(workload.short)
                pods |= {path_of(pod): pod.metadata.uid for pod in seen.pods if self._stands_here(pod)}
        names = ", ".join(path.rpartition("/")[2] for path in pods) or "nothing"
        return Plan(
            mode="drain", path=target.path, what=str(target), uid=thing["metadata"]["uid"], pods=pods,
            before={"node": self._node, "pods": names}, told=(f"would move {names} away from {target}, one at a time",),
        )  # fmt: skip

    def _stands_here(self, pod: Pod) -> bool:
        return pod.spec.node_name == self._node and not pod.metadata.ending

    async def send(self, plan: Plan, sender: Sender) -> dict[str, str]:
        """Evict the pods one after the other.

        Raises:
            BudgetError: nothing was evicted, in this call or one before, and nothing could be in time.
            UnfinishedError: some could not be evicted in time.
        """
        deadline = time.monotonic() + self._within_s
        moved = [path for path, uid in plan.pods.items() if await is_ended(self._api, path, uid)]
        blocked = ""
        while left := [path for path in plan.pods if path not in moved]:
            for path in left:
                try:
                    await evict(path, plan.pods[path], sender)
                    moved.append(path)
                except BudgetBlockedError as error:
                    blocked = f"{path.rpartition('/')[2]}: {error.refused.message}"
                except RefusedError as error:
                    if error.reason is not RefusalReason.CONFLICT:
                        raise
                    moved.append(path)  # it is gone already, which is all that was wanted
            if len(moved) == len(plan.pods) or (sender.stamp.dry and moved):
                break
            if time.monotonic() >= deadline or sender.stamp.dry:
                words = f"{len(moved)} of {len(plan.pods)} pods of {plan.what} were moved; the rest waits: {blocked}"
                if not moved:
                    raise BudgetError(words, retry_after=SECOND)
                raise UnfinishedError(words, retry_after=SECOND)
            await asyncio.sleep(_STEP_S)
        return drained(plan, moved)
