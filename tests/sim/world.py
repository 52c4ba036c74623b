"""A small exchange, its monitoring and the real control room, on virtual time and seeded chance.

The control room is the real one: intake, loop, driver, bindings, dead man's switch, pager. Only what it touches is
simulated: the store is in memory (and outlives crashes), Prometheus and Alertmanager are a tick a second, the plant is
`FakeWorkloads`. Everything the control room asks passes `_Port.step`, where it can be killed or disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec

from control import killswitch
from control.bindings import LivePlant
from control.config import ControlTuning
from control.consent import Consents
from control.deadman import WATCHDOG, DeadMan
from control.driver import Driver, Parts
from control.evidence import Archivist
from control.failpoints import Failpoints
from control.intake import Intake, StoreThread
from control.loop import Loop, LoopParts, history
from control.paging import Pager
from control.telemetry import ControlInstruments
from exchange.recording import RecordingLog
from incidents.adapters.memory_store import MemoryStore
from incidents.incident import Signal, State, transition
from incidents.ports import IncidentStore
from incidents.signals import AlertSignal, Status, own_signal
from kernel.chance import stream
from kernel.errors import TemporaryError
from kernel.time import SECOND, Duration, Instant, seconds
from monitor.adapters.exporter import Exporter
from monitor.adapters.fake_alerts import FakeAlerts
from monitor.catalog import Role
from monitor.ports import Curve, NoReading, Reading, Unknown
from runbooks.adapters.exchange_admin import ExchangeAdmin
from runbooks.adapters.fake import FakeWorkloads, Trouble, plant
from runbooks.facts import PlantFacts
from runbooks.model import Action, Do, DoAnswer, Question, Runbook
from tests.sim.library import LIBRARY
from tests.sim.virtual import EPOCH, VirtualClock

P = ParamSpec("P")
T = TypeVar("T")

KEY = b"a key of the simulation"
SYMBOLS = ("TWA", "TWB")
_QUESTION = msgspec.json.Decoder(Question)
_LIFE: ContextVar[_Life | None] = ContextVar("life", default=None)
METER = Exporter(Role.CONTROL)


class Crash(BaseException):
    """The control process is gone. No `except Exception` may stop it."""


class Tasks(dict[asyncio.Task[Any], None]):
    """A set of tasks in the order of their beginnings; a set's own order would differ from run to run."""

    def add(self, task: asyncio.Task[Any]) -> None:
        self[task] = None

    def discard(self, task: asyncio.Task[Any]) -> None:
        self.pop(task, None)


class _Life:
    """One life of the control process, from its start to its crash."""

    def __init__(self) -> None:
        self.dead = False
        self.tasks = Tasks()
        self.intake: Intake | None = None
        self.loop: Loop | None = None
        self.deadman: DeadMan | None = None
        self.consents: Consents | None = None


@dataclass(frozen=True)
class Done:
    """An effect as the plant saw it."""

    key: str
    action: Action
    began: Instant
    """When the try that carried it out was begun."""
    at: Instant
    blind_ns: int
    """For how long Prometheus had had nothing new to say."""


@dataclass
class Alarm:
    """An alert of the simulated Alertmanager."""

    labels: Mapping[str, str]
    starts_at: Instant
    sent: bool = False


class _Store(StoreThread):
    """The store without a thread: what is asked is done at once, in order."""

    def __init__(self, store: IncidentStore, world: World, life: _Life) -> None:
        self._store = store
        self._world = world
        self._life = life
        self._free = 0.0

    async def call(self, method: Callable[Concatenate[IncidentStore, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._world.step(self._life)
        if self._world.store_fails():
            raise TemporaryError("the disk is full")
        result = method(self._store, *args, **kwargs)
        # The disk takes its time, and answers in the order in which it was asked.
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now) + self._world.chance.random() * 0.01
        await asyncio.sleep(self._free - now)
        self._world.step(self._life)
        return result

    async def close(self) -> None:
        self._store.close()


class _Metrics:
    """Prometheus: what was sampled at the last tick."""

    def __init__(self, world: World, life: _Life) -> None:
        self._world = world
        self._life = life

    async def read(self, query: str, *, fresh: str, max_age: Duration) -> Reading | NoReading:
        del fresh
        self._world.step(self._life)
        await asyncio.sleep(self._world.chance.random() * 0.05)
        return self._world.reading(query, max_age)

    async def curve(self, query: str, start: Instant, end: Instant, step: Duration) -> Sequence[Curve]:
        del query, start, end, step
        self._world.step(self._life)
        await asyncio.sleep(0.05)
        if self._world.blind != "":
            raise TemporaryError("no answer")
        return []


class _Levers(ExchangeAdmin):
    """The engine's administration interface; idempotent by key, as the real one."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def halt(self, key: str, symbol: str | None, reason: str) -> None:
        del reason
        await self._write(key, symbol, halted=True)

    async def resume(self, key: str, symbol: str | None, engine: str = "") -> None:
        await self._write(key, symbol, halted=False)

    async def _write(self, key: str, symbol: str | None, *, halted: bool) -> None:
        await asyncio.sleep(0.01)
        trouble = self._world.trouble()
        if trouble is Trouble.NO_ANSWER:
            raise TemporaryError("the engine does not answer")
        if key not in self._world.levers:
            self._world.levers[key] = (symbol, halted)
            if halted:
                self._world.halted.add(symbol)
            else:
                self._world.halted.discard(symbol)
            self._world.effect(key)
        if trouble is Trouble.LOST_ANSWER:
            raise TemporaryError("the answer was lost")


class _Workloads(FakeWorkloads):
    """The plant, which tells the world of each write it really carried out."""

    def __init__(self, world: World) -> None:
        super().__init__(plant(EPOCH), now=world.clock.now)
        self._world = world

    def _write(self, request: Any, key: str, generation: int | None, write: Any) -> Any:
        trouble = self._world.trouble()
        if trouble is not None:
            self.fail_next(trouble)
        before = len(self.writes)
        try:
            return super()._write(request, key, generation, write)
        finally:
            for done in self.writes[before:]:
                self._world.effect(done)
                self._world.keep_broken()


class _Plant(LivePlant):
    """The real bindings; the world looks over their shoulder."""

    def __init__(self, world: World, life: _Life) -> None:
        super().__init__(world.workloads, _Levers(world), world.clock, Path(), Path())
        self._world = world
        self._life = life

    async def carry_out(self, action: Action, key: str, *, forbidden: Callable[[], bool]) -> DoAnswer:
        self._world.asked_for(action, key)
        self._world.step(self._life)
        answer = await super().carry_out(action, key, forbidden=forbidden)
        self._world.step(self._life)
        return answer

    async def _act(self, action: Action, key: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        self._world.began = self._world.clock.now()
        return await super()._act(action, key)


@dataclass
class Dangers:
    """How often what goes wrong, as probabilities."""

    crash: float = 0.0
    """At one step of the control room; about 4 steps go by in a turn."""
    store: float = 0.0
    """Of one call."""
    plant: float = 0.0
    """Of one write."""
    delivery: float = 0.0
    """That a notification is delayed, doubled or both."""


@dataclass
class World:
    """Everything around the control room, and the control room."""

    seed: int
    folder: Path
    dangers: Dangers = field(default_factory=Dangers)
    library: Mapping[str, Runbook] = field(default_factory=lambda: LIBRARY)
    tuning: ControlTuning = field(default_factory=lambda: ControlTuning(handover_s=8.0, consent_s=20.0))

    def __post_init__(self) -> None:
        self.chance: random.Random = stream(self.seed, "world")
        self.clock = VirtualClock()
        self.store = MemoryStore(KEY)
        self.workloads = _Workloads(self)
        self.alerts = FakeAlerts(self.clock)
        self.log = RecordingLog()
        self.levers: dict[str, tuple[str | None, bool]] = {}
        self.halted: set[str | None] = set()
        self.broken: set[tuple[str, str]] = set()
        """Replicas that a restart does not mend."""
        self.gaps: set[str] = set()
        self.latency = 0.05
        self.noise: list[Mapping[str, str]] = []
        """Alerts that nothing in the plant explains, by their labels."""
        self.blind = ""
        """What Prometheus suffers: `` (nothing), `stale`, `missing`, `nan`, `unreachable`."""
        self.mute = False
        """Whether no notification arrives at all."""
        self.samples: dict[str, float] = {}
        self.sampled_at = Instant(0)
        self.alarms: dict[str, Alarm] = {}
        self.done: list[Done] = []
        self.acknowledged: dict[str, AlertSignal] = {}
        self.found: list[str] = []
        """What was seen that must never be, as sentences."""
        self.steps = 0
        self.crash_at = -1
        self.on_step: Callable[[int], None] | None = None
        self.on_permit: Callable[[], None] | None = None
        self.store_down = False
        self.lives = 0
        self.life = _Life()
        self.life.dead = True
        self.facts_allowed: Collection[str] = ("gateway", "engine", "market-data", "settlement")
        self.began = Instant(0)
        self._actions: dict[str, Action] = {}
        self.kill_switch = self.folder / "kill-switch.json"
        self.thrown: list[tuple[Instant, Instant | None]] = []

    # --- what the control room passes ---------------------------------------------------------------------------

    def step(self, life: _Life) -> None:
        """Pass one border of the control room: here it dies, when it is its time."""
        if life.dead:
            raise Crash
        self.steps += 1
        if self.on_step is not None:
            self.on_step(self.steps)
        if self.steps == self.crash_at or (self.dangers.crash and self.chance.random() < self.dangers.crash):
            self.kill()
            raise Crash

    def store_fails(self) -> bool:
        return self.store_down or bool(self.dangers.store and self.chance.random() < self.dangers.store)

    def trouble(self) -> Trouble | None:
        if not self.dangers.plant or self.chance.random() >= self.dangers.plant:
            return None
        return self.chance.choice(list(Trouble))

    def asked_for(self, action: Action, key: str) -> None:
        """Hold what the plant is asked against the journal."""
        self._actions[key] = action
        if key not in self.questions():
            self.found.append(f"{key} was carried out before its question was durable")

    def questions(self) -> dict[str, Do]:
        """Every action that was durably asked for, by key."""
        asked = (
            _QUESTION.decode(payload)
            for run in self.store.runs_since(Instant(0))
            for _, kind, payload in self.store.run_journal(run.id)
            if kind == "question"
        )
        return {one.key: one for one in asked if isinstance(one, Do)}

    def effect(self, key: str) -> None:
        now = self.clock.now()
        self.done.append(Done(key, self._actions[key], self.began, now, now - self.sampled_at))

    def reading(self, query: str, max_age: Duration) -> Reading | NoReading:
        if self.blind in {"missing", "nan", "unreachable"}:
            why = {"missing": Unknown.MISSING, "nan": Unknown.NOT_A_NUMBER, "unreachable": Unknown.UNREACHABLE}
            return NoReading(why[self.blind], "blind")
        if self.clock.now() - self.sampled_at > max_age:
            return NoReading(Unknown.STALE, "stale")
        if query not in self.samples:
            return NoReading(Unknown.MISSING, query)
        return Reading(self.samples[query], self.sampled_at)

    # --- the control process ------------------------------------------------------------------------------------

    def kill(self) -> None:
        """Let the control process die where it stands."""
        self.life.dead = True
        for task in list(self.life.tasks):
            if not task.done() and task is not asyncio.current_task():
                task.get_loop().call_soon(task.cancel)

    def start(self) -> None:
        """Start the control process on the store the one before left behind."""
        assert self.life.dead, "the one before still lives"
        life = self.life = _Life()
        self.lives += 1
        token = _LIFE.set(life)
        asyncio.get_running_loop().set_task_factory(_factory)
        try:
            self._wire(life)
            assert life.loop is not None
            asyncio.get_running_loop().create_task(life.loop.run(), name="control").add_done_callback(self._ended)
        finally:
            _LIFE.reset(token)

    def _ended(self, control: asyncio.Task[None]) -> None:
        """Hold a fault of the program against it: the estate would start it anew, and it would fail anew."""
        error = None if control.cancelled() else control.exception()
        if error is not None and not isinstance(error, Crash):
            self.found.append(f"control ended by itself: {error!r}")

    def _wire(self, life: _Life) -> None:
        store = _Store(self.store, self, life)
        telemetry = ControlInstruments(METER)
        metrics = _Metrics(self, life)
        wake = asyncio.Event()
        life.intake = Intake(store, wake.set)
        life.deadman = DeadMan(seconds(self.tuning.deadman_s), self.clock.now(), telemetry)
        life.consents = Consents(self.tuning.consent_s)
        driver = Driver(
            Parts(
                store=store, metrics=metrics, plant=_Plant(self, life), facts=lambda: self._facts(life),
                history=lambda now: history(store, now), kill_switch=self.kill_switch, consents=life.consents,
                failpoints=Failpoints(self.folder / "none", allowed=False), telemetry=telemetry, clock=self.clock,
            )
        )  # fmt: skip
        pager = Pager(self.alerts, "http://control", seconds(self.tuning.repage_s), telemetry, self.log, self.clock)
        archivist = Archivist(store, metrics, self.folder / "reports", self.folder / "faults", self.clock, self.log)
        life.loop = Loop(
            LoopParts(
                store=store, intake=life.intake, driver=driver, pager=pager, archivist=_NoFiles(archivist),
                deadman=life.deadman, library=self.library, tuning=self.tuning, kill_switch=self.kill_switch,
                telemetry=telemetry, log=self.log, clock=self.clock,
            ),
            wake,
        )  # fmt: skip

    async def _facts(self, life: _Life) -> PlantFacts:
        self.step(life)
        if self.on_permit is not None:
            self.on_permit()
        await asyncio.sleep(self.chance.random() * 0.02)
        allowed, symbols = frozenset(self.facts_allowed), frozenset(SYMBOLS)
        return PlantFacts(workloads=tuple(await self.workloads.list()), allowed=allowed, symbols=symbols)

    # --- the world's own life -----------------------------------------------------------------------------------

    async def live(self, for_s: float) -> None:
        """Let `for_s` seconds go by: ticks of the monitoring, deliveries, restarts of a dead control process."""
        end = self.clock.now() + seconds(for_s)
        while self.clock.now() < end:
            if self.life.dead:
                self.start()
            self._tick()
            await asyncio.sleep(1.0)

    async def until(self, holds: Callable[[], bool], within_s: float = 120.0) -> bool:
        """Live until something holds."""
        for _ in range(int(within_s)):
            if holds():
                return True
            await self.live(1)
        return holds()

    def skip(self, hours: float) -> None:
        """Let quiet hours pass at once."""
        self.clock.skipped_ns += seconds(hours * 3600)
        assert self.life.deadman is not None
        self.life.deadman.heard([self.watchdog()])

    def watchdog(self) -> AlertSignal:
        now = self.clock.now()
        labels = {"alertname": WATCHDOG, "severity": "info", "service": "monitoring", "team": "t"}
        return own_signal(labels, {}, status=Status.FIRING, starts_at=EPOCH, received_at=now)

    def _tick(self) -> None:
        now = self.clock.now()
        if self.blind != "stale":
            self.sample()
        if self.mute:
            return
        if (now // SECOND) % 3 == 0:
            self._notify([self.watchdog()])
        if not self.blind:
            self._evaluate(now)

    def sample(self) -> None:
        """Let Prometheus scrape everything."""
        if self.blind == "":
            self.sampled_at = self.clock.now()
        status = self.workloads._workloads
        ready = {one.id: float(one.ready) for workload in status.values() for one in workload.replicas}
        self.samples = {f'up{{replica="{name}"}}': up for name, up in ready.items()}
        self.samples |= {f'halted{{symbol="{one}"}}': float(one in self.halted) for one in SYMBOLS}
        self.samples |= {"engine_ready": ready["engine-1"], "latency": self.latency}
        self.samples["market_halted"] = float(None in self.halted)

    def _evaluate(self, now: Instant) -> None:
        firing: dict[str, Mapping[str, str]] = {}
        for query, value in self.samples.items():
            name = query.removeprefix('up{replica="').removesuffix('"}')
            if query.startswith("up") and not value and name.startswith(("gateway", "engine")):
                firing[name] = _down(name)
        if self.latency > 0.2:
            firing["latency"] = {"alertname": "OrderLatencyHigh", "service": "gateway", "level": "2", "team": "t"}
        for symbol in self.gaps:
            gap = {"alertname": "SequenceGap", "service": "market-data", "level": "1", "severity": "critical"}
            firing[symbol] = {**gap, "symbol": symbol, "team": "t"}
        firing |= {f"noise-{n}": labels for n, labels in enumerate(self.noise)}
        fresh: list[AlertSignal] = []
        for name, labels in firing.items():
            if name not in self.alarms:
                self.alarms[name] = Alarm(labels, now)
                fresh.append(own_signal(labels, {}, status=Status.FIRING, starts_at=now, received_at=now))
        for name in [one for one in self.alarms if one not in firing]:
            gone = self.alarms.pop(name)
            over = own_signal(
                gone.labels, {}, status=Status.RESOLVED, starts_at=gone.starts_at, received_at=now, ends_at=now
            )
            fresh.append(over)
        if fresh:
            self._notify(fresh)

    def post(self, replica: str) -> None:
        """Post an alert past Prometheus, as the watchdog does."""
        if not self.blind or replica in self.alarms:
            return
        now = self.clock.now()
        labels = _down(replica)
        self.alarms[replica] = Alarm(labels, now)
        self._notify([own_signal(labels, {}, status=Status.FIRING, starts_at=now, received_at=now)])

    def _notify(self, signals: Sequence[AlertSignal]) -> None:
        for _ in range(1 + (self.chance.random() < self.dangers.delivery)):
            late = self.chance.random() * 2.5 if self.chance.random() < self.dangers.delivery else 0.0
            chosen = list(signals)
            if self.dangers.delivery:
                self.chance.shuffle(chosen)
            asyncio.get_running_loop().create_task(self.deliver(chosen, late)).add_done_callback(_quietly)

    async def deliver(self, signals: Sequence[AlertSignal], late_s: float = 0.0) -> None:
        """Deliver as Alertmanager does: again and again until the answer is 2xx."""
        await asyncio.sleep(late_s)
        while True:
            with contextlib.suppress(TemporaryError, TimeoutError, Crash):
                life = self.life
                if not life.dead and life.intake is not None and life.deadman is not None:
                    now = self.clock.now()
                    given = [msgspec.structs.replace(one, received_at=now) for one in signals]
                    life.deadman.heard(given)
                    await asyncio.wait_for(life.intake.take_in(given), 3.0)
                    if not life.dead:
                        self.acknowledged |= {one.key: one for one in signals}
                        return
            await asyncio.sleep(1.0)

    # --- what can be done to it ---------------------------------------------------------------------------------

    def hang(self, workload: str, replica: str, *, for_good: bool = False) -> None:
        """Let a replica hang; `for_good`: a restart does not help."""
        self.workloads.set_ready(workload, replica, ready=False)
        if for_good:
            self.broken.add((workload, replica))

    def keep_broken(self) -> None:
        for workload, replica in self.broken:
            self.workloads.set_ready(workload, replica, ready=False)

    def mend(self) -> None:
        """Let every fault end by itself, as if people had been at work."""
        self.broken.clear()
        self.gaps.clear()
        self.halted.clear()
        self.noise.clear()
        self.latency, self.blind, self.mute, self.store_down = 0.05, "", False, False
        self.dangers = replace(self.dangers, crash=0.0, store=0.0, plant=0.0)
        self.crash_at, self.on_step, self.on_permit = -1, None, None
        for workload in self.workloads._workloads.values():
            for one in workload.replicas:
                self.workloads.set_ready(workload.name, one.id, ready=True)

    def acknowledge(self) -> None:
        """Let a person look at whatever waits for one."""
        for one in self.store.incidents({State.OPEN, State.MITIGATED}):
            if one.needs_person and one.state is State.OPEN:
                seen = transition(one, Signal.ACKNOWLEDGE, at=self.clock.now(), source="person:anna", why="looks")
                self.store.append(one.id, [seen])
            elif one.needs_person and not one.firing and not one.active_runs:
                over = transition(one, Signal.CLOSE, at=self.clock.now(), source="person:anna", why="looked")
                self.store.append(one.id, [over])

    def throw(self) -> None:
        """Throw the kill switch."""
        killswitch.throw(self.kill_switch, by="anna", why="test", at=self.clock.now())
        self.thrown.append((self.clock.now(), None))

    def release(self) -> None:
        """Release the kill switch."""
        if killswitch.release(self.kill_switch):
            self.thrown[-1] = (self.thrown[-1][0], self.clock.now())

    async def stop(self) -> None:
        """End the control process in an orderly way."""
        self.kill()
        await asyncio.gather(*self.life.tasks, return_exceptions=True)


class _NoFiles(Archivist):
    """The archivist without files: reports have tests of their own, and thousands of them take time."""

    def __init__(self, real: Archivist) -> None:
        self.__dict__.update(real.__dict__)

    async def report(self, incident_id: str) -> None:
        del incident_id


def _down(replica: str) -> dict[str, str]:
    kind, level = ("GatewayDown", "2") if replica.startswith("gateway") else ("EngineDown", "1")
    labels = {"alertname": kind, "service": replica[:-2], "level": level, "severity": "critical"}
    return {**labels, "replica": replica, "team": "t"}


def _factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
    life = _LIFE.get()
    if life is not None:
        life.tasks.add(task)
        task.add_done_callback(life.tasks.discard)
    task.add_done_callback(_quietly)
    return task


def _quietly(task: asyncio.Future[Any]) -> None:
    """Take note of how a task of a dead process ended."""
    if not task.cancelled():
        task.exception()
