"""Elections on virtual time: candidates with clocks of their own, a record behind a bad network, and what they write.

The server of effects takes a write only with the epoch it knows; it learns of a new one a moment late, as an API server
that watches the record does. A write may be held up on its way and arrive long after its sender was deposed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from control.election import ElectionTuning
from control.leader import Leader, LeaderParts
from kernel.chance import stream
from kernel.errors import TemporaryError
from kernel.time import SECOND, Instant, seconds
from runbooks.leases import LeaseRecord
from runbooks.model import RefusalReason
from runbooks.ports import RefusedError
from tests.sim.virtual import EPOCH, run

TUNING = ElectionTuning(
    duration_ns=seconds(15), renew_ns=seconds(5), margin_ns=seconds(2), retry_ns=seconds(1)
)  # fmt: skip
QUICK = ElectionTuning(
    duration_ns=seconds(3), renew_ns=seconds(1), margin_ns=seconds(0.5), retry_ns=seconds(0.25)
)  # fmt: skip


class MemoryLeases:
    """The port `Leases` in memory: compare-and-set, nothing else."""

    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self.history: list[LeaseRecord] = []
        self._version = 0

    async def read(self) -> LeaseRecord | None:
        return self.record

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        return self.write(record, "")

    async def replace(self, record: LeaseRecord) -> LeaseRecord:
        return self.write(record, record.resource_version)

    def write(self, record: LeaseRecord, base: str) -> LeaseRecord:
        if base != (self.record.resource_version if self.record is not None else ""):
            raise RefusedError(RefusalReason.CONFLICT, "the record has been changed since")
        self._version += 1
        self.record = msgspec.structs.replace(record, resource_version=str(self._version))
        self.history.append(self.record)
        return self.record


@dataclass(frozen=True)
class Bad:
    """How bad things are."""

    lost: float = 0.0
    """A request that never arrives; its sender waits for ever."""
    unanswered: float = 0.0
    """A write that is carried out and its answer lost."""
    late: float = 0.0
    """A write that is carried out long after its sender gave up."""


@dataclass
class Node:
    """One controller: its clock, its way to the store, and whether it stands still."""

    name: str
    skew_ns: int
    rate: float
    jumps: random.Random
    running: asyncio.Event = field(default_factory=asyncio.Event)
    cut_off: bool = False
    lives: int = 0
    leader: Leader | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    acting: int = 0
    """The epoch in which it was told to act, and not yet told to stop."""

    def monotonic_ns(self) -> int:
        return self.skew_ns + round(asyncio.get_running_loop().time() * self.rate * SECOND)

    def now(self) -> Instant:
        """A wall clock that is days off and jumps about."""
        return Instant(EPOCH + self.skew_ns + self.jumps.randrange(-SECOND * 3600, SECOND * 3600))


class _Way:
    """One node's way to the record."""

    def __init__(self, plant: Elections, node: Node) -> None:
        self._plant = plant
        self._node = node

    async def read(self) -> LeaseRecord | None:
        await self._there()
        found = await self._plant.leases.read()
        await self._back()
        return found

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        return await self._write(record, "")

    async def replace(self, record: LeaseRecord) -> LeaseRecord:
        return await self._write(record, record.resource_version)

    async def _write(self, record: LeaseRecord, base: str) -> LeaseRecord:
        await self._there()
        chance, bad = self._plant.chance, self._plant.bad
        if chance.random() < bad.late:
            asyncio.get_running_loop().call_later(chance.uniform(1, 30), self._plant.land_record, record, base)
            await asyncio.Event().wait()
        kept = self._plant.leases.write(record, base)
        self._plant.noticed(kept)
        if chance.random() < bad.unanswered:
            raise TemporaryError("the answer was lost")
        await self._back()
        return kept

    async def _there(self) -> None:
        await self._node.running.wait()
        await asyncio.sleep(self._plant.chance.random() * 0.05)
        if self._node.cut_off or self._plant.chance.random() < self._plant.bad.lost:
            if self._plant.chance.random() < 0.5:
                raise TemporaryError("no way to the store")
            await asyncio.Event().wait()

    async def _back(self) -> None:
        await asyncio.sleep(self._plant.chance.random() * 0.05)
        await self._node.running.wait()


class Elections:
    """A few candidates, a record, a server of effects, and faults between them; all from one seed."""

    def __init__(self, seed: int, *, fencing: bool = True, tuning: ElectionTuning = TUNING) -> None:
        self.chance = stream(seed, "elections")
        self.tuning = tuning
        self.fencing = fencing
        self.leases = MemoryLeases()
        self.known_epoch = 0
        """What the server of effects knows."""
        self.fenced_epoch = 0
        """The highest epoch whose leader was told that it may act."""
        self.bad = Bad()
        self.effects = 0
        self.refused = 0
        self.epochs: list[int] = []
        """Of each effect, in their order."""
        self.found: list[str] = []
        drift = 0.02 if fencing else 0.01
        self.nodes = [
            Node(
                f"control-{n}", self.chance.randrange(5 * 86_400 * SECOND), 1 + self.chance.uniform(-drift, drift),
                stream(seed, f"wall {n}"),
            )
            for n in range(self.chance.choice([2, 3]))
        ]  # fmt: skip

    # --- the server of effects --------------------------------------------------------------------------------------

    def land_record(self, record: LeaseRecord, base: str) -> None:
        """Let a write arrive that nobody waits for any more."""
        with contextlib.suppress(RefusedError):
            self.noticed(self.leases.write(record, base))

    def noticed(self, kept: LeaseRecord) -> None:
        """Let the server learn of a record, a moment later."""
        loop = asyncio.get_running_loop()
        loop.call_later(self.chance.choice([0.0, 0.01, 0.3, 1.0]), self._learn, kept.epoch)

    def _learn(self, epoch: int) -> None:
        self.known_epoch = max(self.known_epoch, epoch)

    async def fence(self, epoch: int) -> None:
        """Wait until the server refuses older epochs."""
        while self.known_epoch < epoch:  # noqa: ASYNC110 - as an adapter does, who can only try
            await asyncio.sleep(0.05)

    def land(self, node: Node, epoch: int) -> None:
        """Let a write arrive."""
        if self.fencing and epoch != self.known_epoch:
            self.refused += 1
            return
        self.effects += 1
        self.epochs.append(epoch)
        if epoch < self.fenced_epoch:
            self.found.append(f"a write of {node.name} in epoch {epoch} was accepted while {self.fenced_epoch} leads")

    def check(self) -> None:
        """Hold who may act against who else may."""
        acting = [one for one in self.nodes if one.leader is not None and not one.leader.why_not()]
        valid = [one for one in acting if one.running.is_set() and one.leader.epoch == self.known_epoch]  # type: ignore[union-attr]
        if len(valid) > 1:
            self.found.append(f"{[one.name for one in valid]} may act at once in epoch {self.known_epoch}")
        if not self.fencing and len([one for one in acting if one.running.is_set()]) > 1:
            self.found.append(f"{[one.name for one in acting]} may act at once")

    # --- lives ------------------------------------------------------------------------------------------------------

    def start(self, node: Node) -> None:
        node.lives += 1
        node.acting = 0

        def elected(epoch: int) -> None:
            if node.acting:
                self.found.append(f"{node.name} was elected twice without an end between")
            node.acting = epoch
            self.fenced_epoch = max(self.fenced_epoch, epoch)

        def deposed() -> None:
            if not node.acting:
                self.found.append(f"{node.name} was deposed and did not lead")
            node.acting = 0

        node.leader = Leader(
            LeaderParts(
                leases=_Way(self, node), tuning=self.tuning, identity=f"{node.name}/{node.lives}",
                fence=self.fence if self.fencing else _none, on_elected=elected, on_deposed=deposed, clock=node,
                monotonic_ns=node.monotonic_ns,
            )
        )  # fmt: skip
        node.tasks = [asyncio.create_task(node.leader.run()), asyncio.create_task(self._work(node, node.leader))]

    async def kill(self, node: Node, *, clean: bool = False) -> None:
        """End a life: cleanly, letting go of the lease, or at once."""
        leader, tasks = node.leader, node.tasks
        node.leader, node.tasks = None, []
        if leader is None:
            return
        if not clean:
            node.cut_off, cut_off = True, node.cut_off
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if not clean:
            node.cut_off = cut_off
        if leader.why_not() == "":
            self.found.append(f"{node.name} left and may still act")

    async def _work(self, node: Node, leader: Leader) -> None:
        """Write as often as may be; with fencing, be held up between the decision and the write."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.2, 1.5))
            await node.running.wait()
            if leader.why_not():
                continue
            epoch = leader.epoch
            if self.fencing:
                held_up_s = self.chance.uniform(0, 40) if self.chance.random() < 0.1 else 0.01
                asyncio.get_running_loop().call_later(held_up_s, self.land, node, epoch)
            else:
                self.land(node, epoch)
            self.check()

    # --- faults -----------------------------------------------------------------------------------------------------

    async def live(self, faults: int) -> None:
        """Go through faults, then let them end: somebody must lead again."""
        for node in self.nodes:
            node.running.set()
            self.start(node)
        for _ in range(faults):
            await asyncio.sleep(self.chance.uniform(1, 25))
            await self._fault()
        await self._quiet()
        for node in self.nodes:
            await self.kill(node)

    async def _fault(self) -> None:
        chance = self.chance
        leads = [one for one in self.nodes if one.acting]
        node = chance.choice(leads) if leads and chance.random() < 0.7 else chance.choice(self.nodes)
        what = chance.choice(["pause", "pause", "cut", "kill", "leave", "bad", "outage"])
        length_s = chance.choice([chance.uniform(0.1, 5), chance.uniform(10, 45)])
        if what == "pause":
            node.running.clear()
            await asyncio.sleep(length_s)
            node.running.set()
        elif what == "cut":
            node.cut_off = True
            await asyncio.sleep(length_s)
            node.cut_off = False
        elif what in {"kill", "leave"}:
            await self.kill(node, clean=what == "leave")
            await asyncio.sleep(chance.uniform(0, 5))
            self.start(node)
        elif what == "bad":
            self.bad = Bad(*(chance.choice([0.0, 0.2, 0.5]) for _ in range(3)))
            await asyncio.sleep(length_s)
            self.bad = Bad()
        else:
            for one in self.nodes:
                one.cut_off = True
            await asyncio.sleep(length_s)
            for one in self.nodes:
                one.cut_off = False

    async def _quiet(self) -> None:
        await asyncio.sleep(60)
        leads = [one for one in self.nodes if one.acting and one.leader is not None and not one.leader.why_not()]
        if len(leads) != 1:
            self.found.append(f"{len(leads)} lead although all is well")
        before = self.effects
        await asyncio.sleep(10)
        if self.effects == before:
            self.found.append("the leader cannot write although all is well")

    @property
    def elections(self) -> int:
        """How often the record changed hands."""
        kept = [LeaseRecord(holder="", epoch=0, renewed_at=Instant(0), duration_ns=seconds(1)), *self.leases.history]
        return sum(one.epoch != other.epoch and other.holder != "" for one, other in pairwise(kept))


async def _none(epoch: int) -> None:
    """There is no fence."""


def elect(seed: int, faults: int = 20, *, fencing: bool = True) -> Elections:
    """Go through the faults of a seed."""

    async def main() -> Elections:
        tuning = TUNING if seed % 2 else QUICK
        plant = Elections(seed, fencing=fencing, tuning=tuning)
        await plant.live(faults)
        return plant

    return run(main())


def seeds(first: int, elections: int, *, fencing: bool = True) -> Iterator[Elections]:
    """Go through one seed after the other until there were enough elections."""
    count = 0
    while count < elections:
        plant = elect(first, fencing=fencing)
        count += plant.elections
        yield plant
        first += 1
