"""Cheap incidents by the thousand: the real driver on the plant that fights back, killed, held up and deposed in each.

There is no loop, no alert and no election here: one run after the other is driven by one life after the other, each in
an epoch of its own, while the network loses, repeats and delays what they write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from control.consent import Consents
from control.driver import RESUME_WITHIN, Driver, Parts
from control.failpoints import Failpoints
from control.telemetry import ControlInstruments
from incidents.ports import RunRecord
from incidents.timeline import Draft, EntryKind
from kernel.errors import TapewatchError
from kernel.time import Duration, Instant, seconds
from monitor.ports import Reading
from runbooks.changes import Cordon, PauseRollout, ResumeRollout, RollBack, RollingRestart
from runbooks.facts import PastRun
from runbooks.model import Action, Conclusion, RestartReplica, Runbook, Scale, Undo
from tests.sim.cluster_adapter import ClusterWorkloads
from tests.sim.cluster_judge import SLACK_S, _deposed, _owners, _twice, run_of
from tests.sim.cluster_library import reach
from tests.sim.cluster_plant import NODES, SHAPES, Landing
from tests.sim.cluster_world import ClusterWorld, Dangers, Life, _Around, _Clock, _Metrics, _Plant, _Store
from tests.sim.library import book, proof, step
from tests.sim.virtual import run
from tests.sim.world import _LIFE, METER, Crash, _factory

NEVER = proof("nothing", "==", 1, within_s=1.0, holds_for_s=1.0)
DANGERS = Dangers(crash=0.02, weather=0.4)


class _Leads:
    """Who leads in an epoch, until the cluster knows a later one."""

    def __init__(self, world: ClusterWorld, epoch: int) -> None:
        self._world = world
        self.epoch = epoch

    def why_not(self) -> str:
        return "" if self.epoch == self._world.cluster.known_epoch else "deposed"


class Mill(ClusterWorld):
    """A cluster and nobody but drivers."""

    def judge(self, landing: Landing) -> None:
        self.effects += 1
        self.found += [*_twice(self, landing), *_deposed(self, landing), *_owners(self, landing)]
        answers = [
            payload for _, kind, payload in self.store.run_journal(run_of(landing.writer.key)) if kind == "answer"
        ]
        seen_at = msgspec.json.decode(answers[-1])["at"]
        if landing.at - seen_at > RESUME_WITHIN + seconds(SLACK_S):
            self.found.append(f"{landing.writer.key} was begun on what had been seen long ago")

    def reading(self, query: str, max_age: Duration) -> Reading:
        """Nothing ever helps, and the monitoring always knows."""
        del query, max_age
        if self.chance.random() < 0.5:
            self.cluster.look()
        return Reading(0.0, self.clock.now())

    effects = 0
    lives = 0

    async def grind(self, count: int) -> None:
        """Go through so many incidents."""
        asyncio.get_running_loop().set_task_factory(_factory)
        for number in range(count):
            self.dangers = DANGERS
            began = self.clock.now()
            await self._incident(f"INC-{number:06d}")
            self.dangers = Dangers()
            for one in self.store.open_runs():
                self.store.end_run(msgspec.structs.replace(one, ended_at=self.clock.now(), outcome="mended"))
            landed = {one.writer.key for one in self.cluster.landings}
            self.found += [
                f"{key} was told as refused, and took effect" for key in self.told_refused(began) if key in landed
            ]
            self.cluster.landings.clear()
            self.cluster.mend()
            for _ in range(8):
                self.clock.skipped_ns += seconds(4)
                self.cluster.tick()

    async def _incident(self, incident: str) -> None:
        runbook, now = self._runbook(), self.clock.now()
        data = {"incident": incident, "title": "t", "level": 2, "service": "gateway", "team": "t", "key": incident}
        self.store.append(incident, [Draft(now, EntryKind.OPENED, "control", "t", data)])
        record = RunRecord(
            id=f"{incident}/run-1", incident=incident, runbook="mill", target="t", labels={}, started_at=now
        )
        self.store.start_run(record)
        self.sample()
        tasks: list[asyncio.Task[Conclusion]] = []
        held: list[Life] = []
        while True:
            life, task = self._drive(record, runbook)
            tasks.append(task)
            if self.chance.random() < 0.4:
                asyncio.get_running_loop().call_later(self.chance.uniform(0, 3), self._interfere)
            patience_s = self.chance.uniform(0, 4) if self.chance.random() < 0.3 else 120.0
            await asyncio.wait({task}, timeout=patience_s)
            if not task.done():
                life.side.running.clear()  # it is held up, and another one takes over
                held.append(life)
                if self.chance.random() < 0.2:
                    self.clock.skipped_ns += seconds(600)  # nobody was there to take over for a while
                    self.cluster.look()
            elif not task.cancelled() and task.exception() is None:
                break
            elif not isinstance(task.exception(), Crash | TapewatchError):
                self.found.append(f"{incident}: {task.exception()!r}")
        for one in held:
            one.side.running.set()
            one.dead = self.chance.random() < 0.5
        await asyncio.wait(tasks, timeout=60)
        if any(not task.done() for task in tasks):
            self.found.append(f"{incident}: a deposed life never ended")

    def _interfere(self) -> None:
        """Let a person write in the midst of it."""
        name = self.chance.choice(["gateway", "settlement", "market-data"])
        fields: dict[str, Any] = self.chance.choice(
            [{"replicas": self.chance.randrange(2, 6)}, {"paused": self.chance.random() < 0.5}]
        )
        self.cluster.write(name, "anna", **fields)

    def _drive(self, record: RunRecord, runbook: Runbook) -> tuple[Life, asyncio.Task[Conclusion]]:
        self.lives += 1
        epoch = self.acted_epoch = self.cluster.known_epoch = self.cluster.known_epoch + 1
        side = self.sides[0].__class__(f"life-{self.lives}", 0)
        side.running.set()
        life = Life(side, 1)
        life.leader = _Leads(self, epoch)  # type: ignore[assignment]
        life.workloads = ClusterWorkloads(self.cluster, self.ledger, _Around(self, life))
        clock = _Clock(self, 0)
        driver = Driver(
            Parts(
                store=_Store(self.store, self, life), metrics=_Metrics(self, life), plant=_Plant(self, life, clock),
                facts=lambda: self._facts(life), history=_none, kill_switch=self.kill_switch,
                consents=Consents(20.0), failpoints=Failpoints(self.folder / "none", allowed=False),
                telemetry=ControlInstruments(METER), clock=clock,
            )
        )  # fmt: skip
        token = _LIFE.set(life)  # type: ignore[arg-type]
        try:
            return life, asyncio.get_running_loop().create_task(driver.drive(record, runbook))
        finally:
            _LIFE.reset(token)

    def _runbook(self) -> Runbook:
        """Return a runbook of one or two steps, some of which must be taken back."""
        steps = [self._step() for _ in range(self.chance.choice([1, 1, 2]))]
        return book("mill", "X", "gateway", 2, (), *steps, blast_radius=reach(9, nodes=1))

    def _step(self):
        chance = self.chance
        name = chance.choice(["gateway", "settlement", "market-data"])
        pod = chance.choice([one.name for one in self.cluster.pods_of(name)] or [f"{name}-1"])
        action, undo = chance.choice(_kinds(name, pod, chance.choice(NODES)))
        taken_back = undo is not Undo.NOTHING and chance.random() < 0.5
        return step(action, undo, NEVER if taken_back else None)


def _kinds(name: str, pod: str, node: str) -> Sequence[tuple[Action, Undo]]:
    assert name in SHAPES
    return [
        (RestartReplica(name, pod), Undo.NOTHING), (Scale(name, 1, 1, 6), Undo.RESTORE_REPLICAS),
        (Scale(name, -1, 1, 6), Undo.RESTORE_REPLICAS), (PauseRollout(name), Undo.RESTORE),
        (ResumeRollout(name), Undo.RESTORE), (RollBack(name), Undo.RESTORE), (Cordon(node), Undo.RESTORE),
        (RollingRestart(name), Undo.NOTHING),
    ]  # fmt: skip


async def _none(now: Instant) -> list[PastRun]:
    del now
    return []


def mill(seed: int, folder: Path, count: int) -> Mill:
    """Go through `count` incidents of a seed."""
    folder.mkdir(parents=True, exist_ok=True)

    async def main() -> Mill:
        world = Mill(seed, folder)
        await world.grind(count)
        return world

    return run(main())
