"""The port `Workloads` on the plant that fights back, as seen by one controller over a bad network.

Each write has an entry in a ledger that both controllers share: it is begun there, with the version it stands on,
before anything is touched, and read back after whatever gave no answer. One entry, one effect, whoever asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Instant
from runbooks.changes import (
    Change,
    Cordon,
    DeleteReplica,
    Drain,
    PauseRollout,
    RestoreConfig,
    ResumeRollout,
    RollBack,
    RollingRestart,
    target_of,
)
from runbooks.model import Action, RefusalReason
from runbooks.ports import BudgetError, Effect, NodeStatus, RefusedError, WorkloadStatus
from tests.sim.cluster_plant import BlockedError, Cluster, ConflictError, FencedError, Pod, Thing, Writer

LOST_S: Final = 2.0
"""How long a call without an answer is waited for."""


class PartlyError(BudgetError):
    """Some of it was carried out."""

    touched = True


class Weather(StrEnum):
    """What becomes of one call."""

    FAIR = "fair"
    NO_ANSWER = "no_answer"
    """5xx or a timeout: nothing was done."""
    THROTTLED = "throttled"
    """429 with Retry-After."""
    LOST_ANSWER = "lost_answer"
    """Done, and nobody hears of it."""
    LATE = "late"
    """Given up on, and done seconds later."""


@dataclass
class Entry:
    """What the ledger holds of one write."""

    key: str
    request: tuple[object, ...]
    target: str
    version: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)
    uids: tuple[str, ...] = ()
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    raw_before: dict[str, Any] = field(default_factory=dict)
    done_at: Instant | None = None


class Surroundings(Protocol):
    """What an adapter needs of the world around it."""

    def weather(self) -> Weather: ...

    async def pass_border(self) -> None:
        """Take the time of a call; the controller may be held up or die here."""
        ...

    def writer(self, key: str) -> Writer: ...

    def now(self) -> Instant: ...


class ClusterWorkloads:
    """Workloads of the cluster as one controller sees and writes them."""

    def __init__(self, cluster: Cluster, ledger: dict[str, Entry], around: Surroundings) -> None:
        self._cluster = cluster
        self._ledger = ledger
        self._around = around
        self.frozen: tuple[list[WorkloadStatus], list[NodeStatus]] | None = None
        """What the watch cache holds since it stopped hearing anything; None: it hears."""

    # --- reading -----------------------------------------------------------------------------------------------------

    def cached(self) -> tuple[list[WorkloadStatus], list[NodeStatus]]:
        return self.frozen or self._cluster._snapshot

    async def list(self) -> Sequence[WorkloadStatus]:
        await self._around.pass_border()
        return self.cached()[0]

    async def status(self, workload: str) -> WorkloadStatus:
        await self._around.pass_border()
        found = next((one for one in self.cached()[0] if one.name == workload), None)
        if found is None:
            raise RefusedError(RefusalReason.NO_TARGET, f"there is no workload {workload!r}")
        return found

    async def nodes(self) -> Sequence[NodeStatus]:
        await self._around.pass_border()
        return self.cached()[1]

    async def targets(self) -> frozenset[str]:
        return frozenset(name for name in self._cluster.things if ":" in name and not name.startswith("hpa:"))

    async def effect(self, key: str) -> Effect | None:
        await self._read()
        entry = self._ledger.get(key)
        if entry is None or not self._has_landed(entry):
            return None
        return self._done(entry)

    async def rehearse(self, action: Action) -> Sequence[str]:
        raise NotImplementedError(action)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def restart(self, workload: str, replica: str, *, key: str, generation: int | None = None) -> Effect:
        def pods() -> list[Pod]:
            found = [pod for pod in self._cluster.pods_of(workload) if replica in {"", pod.name}]
            if not found:
                raise PermanentError(f"{workload} has no replica {replica!r}")
            return found

        return await self._end(("restart", workload, replica), workload, key, pods)

    async def scale(self, workload: str, replicas: int, *, key: str, generation: int | None = None) -> Effect:
        request = ("scale", workload, replicas)
        if workload == "gateway" and self._cluster.bounds is not None:
            return await self._turn_the_knob(request, replicas, key)

        def fields(thing: Thing) -> Mapping[str, Any]:
            if generation is not None and thing.generation != generation:
                raise RefusedError(RefusalReason.CONFLICT, f"{workload} has changed since it was looked at")
            return {"replicas": replicas}

        return await self._patch(request, workload, key, fields)

    async def _turn_the_knob(self, request: tuple[object, ...], replicas: int, key: str) -> Effect:
        least, most = self._cluster.bounds or (0, 0)

        def fields(thing: Thing) -> Mapping[str, Any]:
            if not least <= replicas <= most:
                words = f"HPA gateway keeps {least} to {most} replicas, not {replicas}"
                raise RefusedError(RefusalReason.OWNED, words)
            if replicas <= thing.spec["min"]:
                raise RefusedError(RefusalReason.OWNED, f"HPA gateway keeps at least {thing.spec['min']} already")
            return {"min": replicas}

        effect = await self._patch(request, "hpa:gateway", key, fields)
        if "min" not in effect.before:
            return effect  # it was done before there was an autoscaler
        after = {"replicas": str(replicas), "knob": "minReplicas"}
        return Effect(effect.key, effect.at, {"replicas": effect.before["min"]}, after, effect.repeated)

    async def change(self, change: Change, *, key: str, generation: int | None = None) -> Effect:
        target = target_of(change)
        request = ("change", target, type(change).__name__)
        if isinstance(change, DeleteReplica):
            return await self._end(
                request, change.workload, key,
                lambda: [pod for pod in self._cluster.pods_of(change.workload) if pod.name == change.replica],
                force=True,
            )  # fmt: skip
        if isinstance(change, Drain):
            return await self._end(
                request, target, key, lambda: [pod for pod in self._cluster.pods.values() if pod.node == change.node]
            )
        return await self._patch(request, target, key, lambda thing: _changed(change, thing, key))

    async def restore(self, of: str, *, key: str) -> Effect:
        await self._read()
        entry = self._ledger.get(of)
        if entry is None or entry.uids:
            raise PermanentError(f"nothing was done for {of!r} that could be restored")

        def fields(thing: Thing) -> Mapping[str, Any]:
            if any(thing.writers.get(each, ("", ""))[1] != of for each in entry.fields):
                raise RefusedError(RefusalReason.CONFLICT, f"someone else has written {entry.target} since")
            return entry.raw_before

        return await self._patch(("restore", of), entry.target, key, fields)

    # --- one write, one effect ---------------------------------------------------------------------------------------

    async def _patch(
        self,
        request: tuple[object, ...],
        target: str,
        key: str,
        fields: Callable[[Thing], Mapping[str, Any]],
    ) -> Effect:
        entry = await self._known(key, request)
        if entry is None:
            thing = self._cluster.things.get(target)
            if thing is None:
                raise RefusedError(RefusalReason.NO_TARGET, f"there is no {target!r}")
            wanted = fields(thing)
            entry = Entry(key, request, target, thing.version, dict(wanted))
            entry.raw_before = {each: thing.spec[each] for each in wanted}
            entry.before = {each: str(value) for each, value in entry.raw_before.items()}
            entry.after = {each: str(value) for each, value in wanted.items()}
            await self._begin(entry)
        if self._has_landed(entry):
            return self._done(entry)
        begun = entry
        try:
            await self._send(lambda writer: self._cluster.patch(writer, begun.target, begun.version, begun.fields), key)
        except ConflictError as error:
            if not self._has_landed(entry):
                raise RefusedError(RefusalReason.CONFLICT, f"{error}: what was planned on is gone") from error
        return self._done(entry, first=True)

    async def _end(
        self,
        request: tuple[object, ...],
        target: str,
        key: str,
        pods: Callable[[], Sequence[Pod]],
        *,
        force: bool = False,
    ) -> Effect:
        entry = await self._known(key, request)
        if entry is None:
            chosen = pods()
            entry = Entry(key, request, target, uids=tuple(pod.uid for pod in chosen))
            entry.before = {pod.name: pod.uid for pod in chosen}
            await self._begin(entry)
        # The engine's budget allows no eviction at all; who restarts it by name passes it by.
        past = request[:2] == ("restart", "engine")
        for uid in entry.uids:
            if self._stands(uid, force=force):

                def end(writer: Writer, uid: str = uid) -> None:
                    self._cluster.evict(writer, uid, force=force, past_budget=past)

                try:
                    await self._send(end, key)
                except BlockedError as error:
                    if any(one.writer.key == key for one in self._cluster.landings):
                        raise PartlyError(str(error), retry_after=SECOND) from error
                    raise BudgetError(str(error), retry_after=SECOND) from error
        return self._done(entry, first=True)

    async def _known(self, key: str, request: tuple[object, ...]) -> Entry | None:
        await self._read()
        entry = self._ledger.get(key)
        if entry is not None and entry.request != request:
            raise RefusedError(RefusalReason.CONFLICT, f"the key {key!r} was used for another write")
        return entry

    async def _begin(self, entry: Entry) -> None:
        """Write the entry before anything is touched; whoever comes first has it."""

        def create(writer: Writer) -> None:
            self._cluster.admit(writer)
            self._ledger.setdefault(entry.key, entry)

        await self._send(create, entry.key, late=False)
        if self._ledger[entry.key] is not entry:
            raise TemporaryError("another one began this write; it is read back")

    async def _read(self) -> None:
        await self._around.pass_border()
        if self._around.weather() in {Weather.NO_ANSWER, Weather.THROTTLED}:
            raise TemporaryError("the API server does not answer")

    async def _send(self, write: Callable[[Writer], None], key: str, *, late: bool = True) -> None:
        """Send one write; what its answer says, or `TemporaryError` when there is none."""
        await self._around.pass_border()
        weather, writer = self._around.weather(), self._around.writer(key)
        if weather is Weather.NO_ANSWER:
            await asyncio.sleep(LOST_S)
            raise TemporaryError("the API server does not answer")
        if weather is Weather.THROTTLED:
            raise TemporaryError("too many requests", retry_after=SECOND)
        if weather is Weather.LATE and late:
            asyncio.get_running_loop().call_later(LOST_S * 2, _land_late, write, writer)
            await asyncio.sleep(LOST_S)
            raise TemporaryError("no answer in time")
        try:
            write(writer)
        except FencedError as error:
            raise RefusedError(RefusalReason.NOT_LEADER, str(error)) from error
        if weather is Weather.LOST_ANSWER:
            raise TemporaryError("the answer was lost")
        await self._around.pass_border()

    def _has_landed(self, entry: Entry) -> bool:
        if entry.done_at is not None:
            return True
        if entry.uids:
            force = entry.request[-1] == DeleteReplica.__name__
            return not any(self._stands(uid, force=force) for uid in entry.uids)
        thing = self._cluster.things.get(entry.target)
        return thing is not None and entry.key in thing.marks

    def _stands(self, uid: str, *, force: bool) -> bool:
        pod = self._cluster.pods.get(uid)
        return pod is not None and (force or pod.ending_s is None)

    def _done(self, entry: Entry, *, first: bool = False) -> Effect:
        repeated = entry.done_at is not None and not first
        entry.done_at = entry.done_at or self._around.now()
        if entry.target == "hpa:gateway":
            return Effect(entry.key, entry.done_at, entry.before, {**entry.after, "knob": "minReplicas"}, repeated)
        return Effect(entry.key, entry.done_at, entry.before, entry.after, repeated)


def _land_late(write: Callable[[Writer], None], writer: Writer) -> None:
    try:
        write(writer)
    except (ConflictError, BlockedError, FencedError):
        return  # nobody waits for the answer any more


def _changed(change: Change, thing: Thing, key: str) -> Mapping[str, Any]:
    match change:
        case RollingRestart():
            return {"restarted": key}
        case RollBack():
            older = [image for image in thing.images if image != thing.spec["image"]]
            if not older:
                raise PermanentError(f"{thing.name} has no earlier revision")
            return {"image": older[-1]}
        case PauseRollout():
            return {"paused": True}
        case ResumeRollout():
            return {"paused": False}
        case Cordon():
            return {"cordoned": True}
        case RestoreConfig():
            return {"contents": "good"}
        case _:
            raise PermanentError(f"{change} is nothing this platform can do")
