"""An in-memory plant: the port `Workloads` without processes, for tests, rehearsals and simulations.

It is a real implementation with keys, generations and rails; trouble can be ordered with `fail_next`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from kernel.errors import PermanentError, TemporaryError
from kernel.time import Instant
from runbooks.model import RefusalReason
from runbooks.ports import Effect, RefusedError, Replica, WorkloadStatus

REPLICAS_MAX: Final = 9


class Trouble(StrEnum):
    """What can go wrong with the next write."""

    NO_ANSWER = "no_answer"
    """The platform does not answer; nothing is done."""
    LOST_ANSWER = "lost_answer"
    """The write is carried out and its answer lost."""


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
            if not 1 <= replicas <= REPLICAS_MAX:
                words = f"{workload} may have 1 to {REPLICAS_MAX} replicas, not {replicas}"
                raise RefusedError(RefusalReason.NOT_ALLOWED, words)
            kept = status.replicas[:replicas]
            started = [self._start(workload, f"{workload}-{n}") for n in range(len(kept) + 1, replicas + 1)]
            after = msgspec.structs.replace(status, desired=replicas, replicas=(*kept, *started))
            return after, {"replicas": str(status.desired)}, {"replicas": str(replicas)}

        return self._write(("scale", workload, replicas), key, generation, write)

    def _write(
        self,
        request: tuple[object, ...],
        key: str,
        generation: int | None,
        write: Callable[[WorkloadStatus], tuple[WorkloadStatus, dict[str, str], dict[str, str]]],
    ) -> Effect:
        trouble = self._troubles.pop(0) if self._troubles else None
        if trouble is Trouble.NO_ANSWER:
            raise TemporaryError("the plant does not answer")
        if key in self._effects:
            first, effect = self._effects[key]
            if first != request:
                raise RefusedError(RefusalReason.CONFLICT, f"the key {key!r} was used for another write")
            return msgspec.structs.replace(effect, repeated=True)
        if self._kill_switch():
            raise RefusedError(RefusalReason.KILL_SWITCH, "the kill switch is on")
        status = self._find(str(request[1]))
        if generation is not None and generation != status.generation:
            words = f"{status.name} has changed: generation {status.generation}, the plan was made on {generation}"
            raise RefusedError(RefusalReason.CONFLICT, words)
        changed, before, after = write(status)
        self._workloads[status.name] = msgspec.structs.replace(changed, generation=status.generation + 1)
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
