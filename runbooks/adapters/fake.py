"""An in-memory plant: the port `Workloads` without processes, for tests, rehearsals and simulations.

It is a real implementation with keys, generations and rails; trouble can be ordered with `fail_next`. Beside workloads
it has nodes, configurations, services and jobs, which are values in `things` by target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Instant
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
    target_of,
)
from runbooks.model import Action, RefusalReason, RestartReplica
from runbooks.ports import BudgetError, Effect, NodeStatus, RefusedError, Replica, WorkloadStatus
from runbooks.words import describe

REPLICAS_MAX: Final = 9


class Trouble(StrEnum):
    """What can go wrong with the next write."""

    NO_ANSWER = "no_answer"
    """The platform does not answer; nothing is done."""
    LOST_ANSWER = "lost_answer"
    """The write is carried out and its answer lost."""
    BUDGET = "budget"
    """A disruption budget forbids it now; nothing is done."""


class FakeWorkloads:
    """A plant in memory. `now` tells the time; `kill_switch` is asked before each write."""

    def __init__(
        self,
        workloads: Sequence[WorkloadStatus],
        *,
        now: Callable[[], Instant] = lambda: Instant(0),
        kill_switch: Callable[[], bool] = lambda: False,
    ) -> None:
        self._workloads = {workload.name: workload for workload in workloads}
        self._effects: dict[str, tuple[tuple[object, ...], Effect]] = {}
        self._now = now
        self._kill_switch = kill_switch
        self._troubles: list[Trouble] = []
        self._starts = 1000
        self.things: dict[str, dict[str, str]] = {}
        """What else there is, by target: nodes, configurations, services, jobs, and workloads' revision and pause."""
        self._took: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {}
        """By key: what a change acted on, how that was before it and what it left."""
        self.primaries: dict[str, str] = {}
        """By workload that is a pair: which replica takes writes."""
        self.writes: list[str] = []
        """Keys in the order in which their writes were carried out."""

    def fail_next(self, *troubles: Trouble) -> None:
        """Let the next writes fail, one trouble each."""
        self._troubles += troubles

    def set_ready(self, workload: str, replica: str, *, ready: bool) -> None:
        """Make a replica ready or not, as the plant would by itself."""
        status = self._find(workload)
        replicas = tuple(
            msgspec.structs.replace(each, ready=ready) if each.id == replica else each for each in status.replicas
        )
        self._workloads[workload] = msgspec.structs.replace(status, replicas=replicas)

    async def list(self) -> Sequence[WorkloadStatus]:
        """Return every workload."""
        return [msgspec.structs.replace(each, seen_at=self._now()) for each in self._workloads.values()]

    async def status(self, workload: str) -> WorkloadStatus:
        """Return one workload."""
        return msgspec.structs.replace(self._find(workload), seen_at=self._now())

    async def effect(self, key: str) -> Effect | None:
        """Return what was done for `key`."""
        return self._effects[key][1] if key in self._effects else None

    async def restart(self, workload: str, replica: str, *, key: str, generation: int | None = None) -> Effect:
        """Start a replica anew: another process id, another uid."""

        def write(status: WorkloadStatus) -> tuple[WorkloadStatus, dict[str, str], dict[str, str]]:
            old = next((each for each in status.replicas if each.id == replica), None)
            if old is None:
                raise PermanentError(f"{workload} has no replica {replica!r}; it has {_names(status.replicas)}")
            new = self._start(workload, replica)
            replicas = tuple(new if each.id == replica else each for each in status.replicas)
            before = {"replica": replica, "pid": str(old.pid or ""), "uid": old.uid}
            after = {"replica": replica, "pid": str(new.pid), "uid": new.uid}
            return msgspec.structs.replace(status, replicas=replicas), before, after

        return self._write(("restart", workload, replica), key, generation, write)

    async def scale(self, workload: str, replicas: int, *, key: str, generation: int | None = None) -> Effect:
        """Start or stop replicas, the highest numbers first to go."""

        def write(status: WorkloadStatus) -> tuple[WorkloadStatus, dict[str, str], dict[str, str]]:
            if status.singleton:
                raise RefusedError(RefusalReason.SINGLETON, f"{workload} is a single writer and is never scaled")
            if not 0 <= replicas <= REPLICAS_MAX:
                words = f"{workload} may have 0 to {REPLICAS_MAX} replicas, not {replicas}"
                raise RefusedError(RefusalReason.NOT_ALLOWED, words)
            kept = status.replicas[:replicas]
            started = [self._start(workload, f"{workload}-{n}") for n in range(len(kept) + 1, replicas + 1)]
            after = msgspec.structs.replace(status, desired=replicas, replicas=(*kept, *started))
            return after, {"replicas": str(status.desired)}, {"replicas": str(replicas)}

        return self._write(("scale", workload, replicas), key, generation, write)

    async def change(self, change: Change, *, key: str, generation: int | None = None) -> Effect:
        """Change what is held in `things`, or the replicas of a workload."""
        target = target_of(change)
        if isinstance(change, FailOver):
            return self._write(("change", change.workload, change), key, generation, self._turn(change))
        if isinstance(change, RollingRestart | DeleteReplica):
            return self._write(("change", target.partition("/")[0], change), key, generation, self._renew(change))

        def alter(thing: dict[str, str]) -> dict[str, str]:
            return _altered(change, thing)

        return self._alter(target, change, key, alter)

    async def restore(self, of: str, *, key: str) -> Effect:
        """Put back what the change with the key `of` found, when it still is what it left."""
        if of in self._effects and of not in self._took:
            request, effect = self._effects[of]
            if request[0] != "scale":
                raise PermanentError(f"what was done for {of!r} leaves nothing to restore")
            workload, left = str(request[1]), int(effect.after["replicas"])
            if key not in self._effects and self._find(workload).desired != left:
                raise RefusedError(RefusalReason.CONFLICT, f"someone else has changed {workload} since")
            return await self.scale(workload, int(effect.before["replicas"]), key=key)
        if of not in self._took:
            raise PermanentError(f"nothing was done for {of!r}")
        target, before, left_things = self._took[of]

        def alter(thing: dict[str, str]) -> dict[str, str]:
            if thing != left_things:
                raise RefusedError(RefusalReason.CONFLICT, f"someone else has changed {target} since")
            return before

        return self._alter(target, ("restore", of), key, alter)

    async def rehearse(self, action: Action) -> Sequence[str]:
        """Say what an action would do."""
        workload = getattr(action, "workload", "")
        if workload:
            status = self._find(workload)
            if isinstance(action, RestartReplica) and action.replica not in {one.id for one in status.replicas}:
                raise RefusedError(RefusalReason.NO_TARGET, f"{workload} has no replica {action.replica!r}")
            if isinstance(action, FailOver):
                self._turns(action)
        return [f"would {describe(action)}"]

    async def nodes(self) -> Sequence[NodeStatus]:
        """Return the nodes among `things`."""
        return [
            NodeStatus(name.removeprefix("node:"), thing.get("ready") != "false", "cordoned" in thing, 0, self._now())
            for name, thing in self.things.items()
            if name.startswith("node:")
        ]

    async def targets(self) -> frozenset[str]:
        """Return the names of `things` that are no workloads."""
        return frozenset(name for name in self.things if ":" in name)

    def _renew(
        self, change: RollingRestart | DeleteReplica
    ) -> Callable[[WorkloadStatus], tuple[WorkloadStatus, dict[str, str], dict[str, str]]]:
        def write(status: WorkloadStatus) -> tuple[WorkloadStatus, dict[str, str], dict[str, str]]:
            if isinstance(change, DeleteReplica) and change.replica not in {one.id for one in status.replicas}:
                raise PermanentError(f"{status.name} has no replica {change.replica!r}")
            chosen = {change.replica} if isinstance(change, DeleteReplica) else {one.id for one in status.replicas}
            replicas = tuple(self._start(status.name, one.id) if one.id in chosen else one for one in status.replicas)
            before = {one.id: one.uid for one in status.replicas if one.id in chosen}
            after = {one.id: one.uid for one in replicas if one.id in chosen}
            return msgspec.structs.replace(status, replicas=replicas), before, after

        return write

    def _turn(
        self, change: FailOver
    ) -> Callable[[WorkloadStatus], tuple[WorkloadStatus, dict[str, str], dict[str, str]]]:
        def write(status: WorkloadStatus) -> tuple[WorkloadStatus, dict[str, str], dict[str, str]]:
            old = self._turns(change)
            new = next(one.id for one in status.replicas if one.id != old and one.ready)
            self.primaries[status.name] = new
            replicas = tuple(
                msgspec.structs.replace(one, running=False, ready=False, pid=None) if one.id == old else one
                for one in status.replicas
            )
            return msgspec.structs.replace(status, replicas=replicas), {"primary": old}, {"primary": new}

        return write

    def _turns(self, change: FailOver) -> str:
        """Return who takes writes now, if that is whom the fail-over is from and another could take over."""
        status, primary = self._find(change.workload), self.primaries.get(change.workload)
        if primary is None:
            words = f"{change.workload} is no pair of which one could take over from the other"
            raise RefusedError(RefusalReason.NOT_ALLOWED, words)
        if change.replica not in {one.id for one in status.replicas}:
            raise RefusedError(RefusalReason.NO_TARGET, f"{change.workload} has no replica {change.replica!r}")
        if primary != change.replica:
            raise RefusedError(RefusalReason.CONFLICT, f"{change.replica} is not the primary: that is {primary}")
        if not any(one.ready for one in status.replicas if one.id != primary):
            raise RefusedError(RefusalReason.STATE_UNSAFE, "there is nobody to take over")
        return primary

    def _alter(
        self, target: str, request: object, key: str, alter: Callable[[dict[str, str]], dict[str, str]]
    ) -> Effect:
        """Change one of `things` at most once for a key."""
        trouble = self._meet(key, ("alter", target, request))
        if isinstance(trouble, Effect):
            return trouble
        if target not in self.things and target not in self._workloads:
            raise RefusedError(RefusalReason.NO_TARGET, f"there is no {target!r}")
        before = dict(self.things.get(target, {}))
        after = alter(dict(before))
        self.things[target] = after
        self._took[key] = (target, before, dict(after))  # a copy: others write to `things` in place
        return self._did(key, ("alter", target, request), before, after, trouble)

    def _write(
        self,
        request: tuple[object, ...],
        key: str,
        generation: int | None,
        write: Callable[[WorkloadStatus], tuple[WorkloadStatus, dict[str, str], dict[str, str]]],
    ) -> Effect:
        trouble = self._meet(key, request)
        if isinstance(trouble, Effect):
            return trouble
        status = self._find(str(request[1]))
        if generation is not None and generation != status.generation:
            words = f"{status.name} has changed: generation {status.generation}, the plan was made on {generation}"
            raise RefusedError(RefusalReason.CONFLICT, words)
        changed, before, after = write(status)
        self._workloads[status.name] = msgspec.structs.replace(changed, generation=status.generation + 1)
        return self._did(key, request, before, after, trouble)

    def _meet(self, key: str, request: tuple[object, ...]) -> Trouble | Effect | None:
        """Pass what stands before every write: return a first answer if there was one, or the trouble to come."""
        trouble = self._troubles.pop(0) if self._troubles else None
        if trouble is Trouble.NO_ANSWER:
            raise TemporaryError("the plant does not answer")
        if trouble is Trouble.BUDGET:
            raise BudgetError("a disruption budget allows no disruption now", retry_after=SECOND)
        if key in self._effects:
            first, effect = self._effects[key]
            if first != request:
                raise RefusedError(RefusalReason.CONFLICT, f"the key {key!r} was used for another write")
            return msgspec.structs.replace(effect, repeated=True)
        if self._kill_switch():
            raise RefusedError(RefusalReason.KILL_SWITCH, "the kill switch is on")
        return trouble

    def _did(
        self, key: str, request: tuple[object, ...], before: dict[str, str], after: dict[str, str], trouble: object
    ) -> Effect:
        effect = Effect(key, self._now(), before, after)
        self._effects[key] = (request, effect)
        self.writes.append(key)
        if trouble is Trouble.LOST_ANSWER:
            raise TemporaryError("the answer was lost")
        return effect

    def _start(self, workload: str, replica: str) -> Replica:
        self._starts += 1
        uid = f"{workload}:{replica}:{self._starts}"
        return Replica(replica, self._starts, uid, running=True, ready=True, url="", started_at=self._now())

    def _find(self, workload: str) -> WorkloadStatus:
        if workload not in self._workloads:
            known = ", ".join(self._workloads)
            raise RefusedError(RefusalReason.NO_TARGET, f"there is no workload {workload!r}; there are {known}")
        return self._workloads[workload]


def _altered(change: Change, thing: dict[str, str]) -> dict[str, str]:  # noqa: PLR0911 - one return a change
    """Return how a thing is after a change."""
    match change:
        case RollBack():
            return {**thing, "revision": str(int(thing.get("revision", "2")) - 1)}
        case PauseRollout():
            return {**thing, "paused": "true"}
        case ResumeRollout():
            return {name: value for name, value in thing.items() if name != "paused"}
        case Cordon():
            return {**thing, "cordoned": "true"}
        case Drain():
            return {**thing, "drained": "true"}
        case RunJob():
            return {**thing, "runs": str(int(thing.get("runs", "0")) + 1)}
        case SetFlag():
            return {**thing, change.flag: change.value}
        case RestoreConfig():
            return {"good": "true"}
        case SwitchService():
            return {**thing, "colour": change.colour}
        case _:
            raise AssertionError(f"{change} renews replicas")


def plant(now: Instant = Instant(0)) -> list[WorkloadStatus]:  # noqa: B008 - an instant is an immutable number
    """Return a small healthy exchange, as it would be listed."""
    return [
        _workload(name, count, now) for name, count in
        {"engine": 1, "gateway": 2, "market-data": 1, "settlement": 1, "watchdog": 1}.items()
    ]  # fmt: skip


def _workload(name: str, count: int, now: Instant) -> WorkloadStatus:
    replicas = tuple(
        Replica(f"{name}-{n}", 100 + n, f"{name}-{n}:0", running=True, ready=True, url="", started_at=now)
        for n in range(1, count + 1)
    )
    return WorkloadStatus(name, count, replicas, 1, name != "gateway", "runbook", now)


def _names(replicas: Sequence[Replica]) -> str:
    return ", ".join(each.id for each in replicas) or "none"
