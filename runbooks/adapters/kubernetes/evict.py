"""Ending pods: one replica by eviction, within its disruption budgets; a stuck one by force."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kernel.errors import TapewatchError, TemporaryError
from kernel.time import SECOND, Clock
from runbooks.adapters.kubernetes.api import MERGE, Api, ConflictError, GoneError
from runbooks.adapters.kubernetes.edit import refuse_other_generation
from runbooks.adapters.kubernetes.fields import Json
from runbooks.adapters.kubernetes.finding import is_ended, successor
from runbooks.adapters.kubernetes.ledger import Plan
from runbooks.adapters.kubernetes.objects import Items, Pdb, Pod, Selector, instant_of
from runbooks.adapters.kubernetes.reader import Observed, Reader, is_stuck
from runbooks.adapters.kubernetes.writer import Sender
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError

SUCCESSOR_S: Final = 5.0
"""How long a successor is waited for: it comes at once, but a StatefulSet's only when the pod before is gone."""
TRIES: Final = 5
_STEP_S: Final = 0.05


class Restart:
    """A deed that ends one replica; its controller starts another one."""

    def __init__(
        self, api: Api, reader: Reader, workload: str, replica: str, *, successor_s: float = SUCCESSOR_S
    ) -> None:
        """End `replica` of `workload`."""
        self._api = api
        self._reader = reader
        self._workload = workload
        self._replica = replica
        self._successor_s = successor_s
        self.request = f"restart {workload} {replica}"

    async def plan(self, generation: int | None) -> Plan:
        """Look the replica and its budgets up.

        Raises:
            RefusedError: there is no such replica, it is ending already, or the workload has changed.
        """
        seen = await self._reader.observe(self._workload)
        refuse_other_generation(str(seen.target), seen.workload.metadata.generation, generation)
        pod = await replica_of(self._api, seen, self._replica)
        if pod.metadata.ending:
            raise RefusedError(RefusalReason.CONFLICT, f"{self._replica} is being ended already")
        budgets = await budgets_of(self._api, pod)
        if len(budgets) > 1:
            names = " and ".join(budget.metadata.name for budget in budgets)
            words = f"{self._replica} is covered by the disruption budgets {names}: Kubernetes evicts under one at most"
            raise RefusedError(RefusalReason.NOT_ALLOWED, words)
        facts = {"replica": pod.metadata.name, "uid": pod.metadata.uid, "node": pod.spec.node_name}
        told = [f"would evict {pod.metadata.name} of {seen.target} from {pod.spec.node_name or 'no node'}"]
        told += [_room(budget) for budget in budgets] or ["no disruption budget covers it"]
        by_deletion = seen.singleton and any(_allows_never(budget) for budget in budgets)
        if by_deletion:
            told.append("the budget can never allow it: the single writer's pod would be deleted, gracefully, instead")
        return Plan(
            mode="evict", path=path_of(pod), what=f"{pod.metadata.namespace}/Pod/{pod.metadata.name}",
            uid=pod.metadata.uid, version=pod.metadata.resource_version,
            pods={path_of(one): one.metadata.uid for one in seen.pods},
            selector=seen.workload.spec.selector.query, before=facts, after={"by": "deletion"} if by_deletion else {},
            told=tuple(told),
        )  # fmt: skip

    async def send(self, plan: Plan, sender: Sender) -> dict[str, str]:
        """Evict the pod, and wait for its successor.

        A budget that can never allow it stands against drains. A single writer's own restart then deletes its pod; what
        makes that safe (halt, verify, reopen) is the runbook's matter.
        """
        if plan.after.get("by") == "deletion":
            await delete(self._api, plan, sender, grace_s=None)
        else:
            await evict(plan.path, plan.uid, sender)
        return {} if sender.stamp.dry else await self._successor(plan)

    async def _successor(self, plan: Plan) -> dict[str, str]:
        deadline = time.monotonic() + self._successor_s
        come = {**plan.after, "replica": "", "uid": "", "node": ""}
        while not come["uid"] and time.monotonic() < deadline:
            await asyncio.sleep(_STEP_S)
            with contextlib.suppress(TapewatchError):  # the eviction is done; what came of it is seen later
                come = await successor(self._api, plan)
        return come


class DeleteStuck:
    """A deed that removes a pod which is being ended and does not end."""

    def __init__(self, api: Api, reader: Reader, clock: Clock, workload: str, replica: str) -> None:
        """Remove `replica` of `workload`."""
        self._api = api
        self._reader = reader
        self._clock = clock
        self._workload = workload
        self._replica = replica
        self.request = f"delete the stuck {replica} of {workload}"

    async def plan(self, generation: int | None) -> Plan:
        """Make sure that it is stuck.

        Raises:
            RefusedError: there is no such replica, it is not stuck, holds state, or something else keeps it.
        """
        seen = await self._reader.observe(self._workload)
        refuse_other_generation(str(seen.target), seen.workload.metadata.generation, generation)
        pod = await replica_of(self._api, seen, self._replica)
        meta = pod.metadata
        if seen.singleton:
            # Its process may still run where nobody sees it; a second one would be a second book.
            raise RefusedError(
                RefusalReason.STATE_UNSAFE, f"{meta.name} is a single writer: it is never deleted by force"
            )
        now = self._clock.now()
        if not is_stuck(pod, now):
            due = instant_of(meta.deletion_timestamp)
            state = "is not being ended" if due is None else f"has {max(0, (due - now) // SECOND)} s of its grace left"
            words = f"{meta.name} {state}: only a pod well past its grace is deleted by force"
            raise RefusedError(RefusalReason.NOT_ALLOWED, words)
        thing = await self._api.get(path_of(pod), Json)
        if finalizers := thing["metadata"].get("finalizers"):
            words = f"{meta.name} is held by {', '.join(finalizers)}: whoever set that must let it go"
            raise RefusedError(RefusalReason.OWNED, words)
        return Plan(
            mode="delete", path=path_of(pod), what=f"{meta.namespace}/Pod/{meta.name}", uid=meta.uid,
            version=meta.resource_version,
            before={"replica": meta.name, "uid": meta.uid, "node": pod.spec.node_name},
            after={"replica": "", "uid": ""},
            told=(f"would delete {meta.name} of {seen.target} by force: it should have ended long ago",),
        )  # fmt: skip

    async def send(self, plan: Plan, sender: Sender) -> dict[str, str]:
        """Mark the pod with the epoch, then delete that very version of it."""
        await delete(self._api, plan, sender, grace_s=0)
        return dict(plan.after)


async def evict(path: str, uid: str, sender: Sender) -> None:
    """Ask for one pod's eviction.

    Raises:
        RefusedError: `CONFLICT`: it is gone, or another pod has its name.
        BudgetBlockedError: a budget allows nothing now.
    """
    _, _, _, _, namespace, _, name = path.split("/")
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": uid}},
    }
    try:
        await sender.send("POST", f"{path}/eviction", body, msgspec.Raw)
    except (GoneError, ConflictError) as error:
        raise RefusedError(RefusalReason.CONFLICT, f"{name} was ended by somebody else meanwhile") from error


async def delete(api: Api, plan: Plan, sender: Sender, *, grace_s: int | None) -> None:
    """Delete a pod in two steps.

    A deletion bears no epoch. So the pod is marked with it first, which is fenced, and the deletion is compared with
    the version that the mark made.

    Raises:
        RefusedError: `CONFLICT`: another pod has its name by now.
        TemporaryError: it kept changing.
    """
    for _ in range(TRIES):
        try:
            mark = {"metadata": {"uid": plan.uid}}
            marked = await sender.send("PATCH", plan.path, mark, Pod, content_type=MERGE)
            # A rehearsed mark makes no version that could be compared with.
            version = {} if sender.stamp.dry else {"resourceVersion": marked.metadata.resource_version}
            options: dict[str, Any] = {"preconditions": {"uid": plan.uid, **version}}
            options |= {} if grace_s is None else {"gracePeriodSeconds": grace_s}
            await sender.send("DELETE", plan.path, options, msgspec.Raw)
        except GoneError:
            return
        except ConflictError as error:
            if await is_ended(api, plan.path, plan.uid, gone=True):
                words = f"{plan.what} was ended by somebody else meanwhile"
                raise RefusedError(RefusalReason.CONFLICT, words) from error
        else:
            return
    raise TemporaryError(f"{plan.what} kept changing while it was deleted", retry_after=SECOND)


async def replica_of(api: Api, seen: Observed, name: str) -> Pod:
    """Return one replica of a workload.

    Raises:
        RefusedError: `NO_TARGET`: there is none, or a pod of that name is nobody's and would not come back.
    """
    pod = next((one for one in seen.pods if one.metadata.name == name), None)
    if pod is not None:
        return pod
    there = ", ".join(one.metadata.name for one in seen.replicas) or "none"
    words = f"{seen.target.name} has no replica {name!r}; it has {there}"
    pods = await api.get(
        f"/api/v1/namespaces/{seen.target.namespace}/pods",
        Items[Pod],
        labelSelector=seen.workload.spec.selector.query,
    )
    if any(one.metadata.name == name for one in pods.items):
        words = f"{name} has the labels of {seen.target} and is not its own: ended, nobody would start it anew"
    raise RefusedError(RefusalReason.NO_TARGET, words)


def path_of(pod: Pod) -> str:
    """Return where the API server keeps a pod."""
    return f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"


async def budgets_of(api: Api, pod: Pod) -> list[Pdb]:
    """Return the disruption budgets that cover a pod."""
    path = f"/apis/policy/v1/namespaces/{pod.metadata.namespace}/poddisruptionbudgets"
    return [one for one in (await api.get(path, Items[Pdb])).items if _selects(one.spec.selector, pod.metadata.labels)]


def _selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Tell whether a selector matches; an empty one of a budget matches every pod."""
    if any(labels.get(name) != value for name, value in selector.match_labels.items()):
        return False
    for one in selector.match_expressions:
        value = labels.get(one.key)
        matches = {
            "In": value in one.values,
            "NotIn": value not in one.values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not matches.get(one.operator, False):
            return False
    return True


def _allows_never(budget: Pdb) -> bool:
    """Tell whether a budget asks for as many healthy pods as there can be."""
    status = budget.status
    return 0 < status.expected_pods <= status.desired_healthy


def _room(budget: Pdb) -> str:
    allowed, healthy = budget.status.disruptions_allowed, budget.status.current_healthy
    return f"its disruption budget {budget.metadata.name} allows {allowed} now ({healthy} healthy)"
