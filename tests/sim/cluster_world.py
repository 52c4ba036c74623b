"""Two control processes contend for one cluster, on virtual time and seeded chance.

The control room is the real one, the election too. The store outlives them and is shared; only the leader may use it,
and only the leader's loop turns. A stand-by answers webhooks with 503. Everything passes `_Side.pass_border`, where a
process can die, be held up for longer than its lease, or be cut off from the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from control import killswitch
from control.bindings import LivePlant
from control.config import ControlTuning
from control.consent import Consents
from control.deadman import WATCHDOG, DeadMan
from control.driver import Driver, Parts
from control.election import ElectionTuning
from control.evidence import Archivist
from control.failpoints import Failpoints
from control.intake import Intake, StoreThread
from control.leader import Leader, LeaderParts
from control.loop import Loop, LoopParts, history, sizes_of
from control.paging import Pager
from control.telemetry import ControlInstruments
from exchange.recording import RecordingLog
from incidents.adapters.memory_store import MemoryStore
from incidents.incident import Signal, State, transition
from incidents.ports import IncidentStore
from incidents.signals import AlertSignal, Status, own_signal
from kernel.chance import stream
from kernel.errors import InputError, PermanentError, TemporaryError
from kernel.time import SECOND, Duration, Instant, seconds
from monitor.adapters.fake_alerts import FakeAlerts
from monitor.ports import Curve, NoReading, Reading, Unknown
from runbooks.adapters.fake import Trouble
from runbooks.facts import MarketFacts, PlantFacts, Share
from runbooks.leases import LeaseRecord
from runbooks.model import Action, Do, DoAnswer, LookAnswer, Runbook
from tests.sim.cluster_adapter import ClusterWorkloads, Entry, Weather
from tests.sim.cluster_judge import PER_HOUR, judged, run_of
from tests.sim.cluster_library import CLUSTER
from tests.sim.cluster_plant import NODES, SLOW, Cluster, Landing, Writer
from tests.sim.elections import MemoryLeases
from tests.sim.virtual import EPOCH, VirtualClock
from tests.sim.world import (
    _LIFE,
    _QUESTION,
    KEY,
    METER,
    Alarm,
    Crash,
    Done,
    Tasks,
    _factory,
    _Levers,
    _NoFiles,
    _quietly,
)

P = ParamSpec("P")
T = TypeVar("T")

TUNING = ElectionTuning(
    duration_ns=seconds(15), renew_ns=seconds(5), margin_ns=seconds(2), retry_ns=seconds(1)
)  # fmt: skip
ALLOWED = ("gateway", "market-data", "settlement", "engine")
BOOKS_SIZES = sizes_of(CLUSTER.values())


@dataclass(frozen=True)
class Dangers:
    """How often what goes wrong, as probabilities of one call."""

    crash: float = 0.0
    store: float = 0.0
    weather: float = 0.0
    delivery: float = 0.0


class Life:
    """One life of one control process."""

    def __init__(self, side: Side, number: int) -> None:
        self.side = side
        self.identity = f"{side.name}/{number}"
        self.dead = False
        self.tasks = Tasks()
        self.leader: Leader | None = None
        self.loop: Loop | None = None
        self.turning: asyncio.Task[None] | None = None
        self.intake: Intake | None = None
        self.deadman: DeadMan | None = None
        self.consents: Consents | None = None
        self.workloads: ClusterWorkloads | None = None

    def why_not(self) -> str:
        return self.leader.why_not() if self.leader is not None else "it has not yet begun"


@dataclass
class Side:
    """One of the two control processes, through all its lives."""

    name: str
    skew_ns: int
    lives: int = 0
    life: Life | None = None
    running: asyncio.Event = field(default_factory=asyncio.Event)
    cut_off: bool = False
    down_until_s: float = 0.0


class _Clock:
    """A process's own clock, some seconds off."""

    def __init__(self, world: ClusterWorld, skew_ns: int) -> None:
        self._world = world
        self._skew_ns = skew_ns

    def now(self) -> Instant:
        return Instant(self._world.clock.now() + self._skew_ns)


class _Around:
    """What a process's adapters meet on their way."""

    def __init__(self, world: ClusterWorld, life: Life) -> None:
        self._world = world
        self._life = life

    async def pass_border(self) -> None:
        self._world.step(self._life)
        await asyncio.sleep(self._world.chance.random() * 0.02)
        await self._life.side.running.wait()
        self._world.step(self._life)
        if self._life.side.cut_off:
            await asyncio.sleep(1.0)
            raise TemporaryError("no way to the API server")

    def weather(self) -> Weather:
        chance = self._world.chance
        if not self._world.dangers.weather or chance.random() >= self._world.dangers.weather:
            return Weather.FAIR
        return chance.choice(list(Weather))

    def writer(self, key: str) -> Writer:
        assert self._life.leader is not None
        return Writer(self._life.identity, self._life.leader.epoch, key)

    def now(self) -> Instant:
        return self._world.clock.now()


class _Leases:
    """A process's way to the lease."""

    def __init__(self, world: ClusterWorld, around: _Around) -> None:
        self._world = world
        self._around = around

    async def read(self) -> LeaseRecord | None:
        await self._around.pass_border()
        return await self._world.leases.read()

    async def create(self, record: LeaseRecord) -> LeaseRecord:
        return await self._write(record, "")

    async def replace(self, record: LeaseRecord) -> LeaseRecord:
        return await self._write(record, record.resource_version)

    async def _write(self, record: LeaseRecord, base: str) -> LeaseRecord:
        await self._around.pass_border()
        kept = self._world.leases.write(record, base)
        later_s = self._world.chance.choice([0.0, 0.01, 0.3])
        asyncio.get_running_loop().call_later(later_s, self._world.learn, kept.epoch)
        if self._around.weather() is not Weather.FAIR:
            raise TemporaryError("the answer was lost")
        await self._around.pass_border()
        return kept


class _Store(StoreThread):
    """The shared store: what is asked is done at once, in order, and only for who leads."""

    def __init__(self, store: IncidentStore, world: ClusterWorld, life: Life) -> None:
        self._store = store
        self._world = world
        self._life = life
        self._free = 0.0

    async def call(self, method: Callable[Concatenate[IncidentStore, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._world.step(self._life)
        await self._life.side.running.wait()
        if why := self._world.store_closed(self._life):
            raise TemporaryError(why)
        result = method(self._store, *args, **kwargs)
        now = asyncio.get_running_loop().time()
        self._free = max(self._free, now) + self._world.chance.random() * 0.01
        await asyncio.sleep(self._free - now)
        self._world.step(self._life)
        return result

    async def close(self) -> None:
        self._store.close()


class _Metrics:
    """Prometheus: what was sampled at the last tick."""

    def __init__(self, world: ClusterWorld, life: Life) -> None:
        self._world = world
        self._life = life

    async def read(self, query: str, *, fresh: str, max_age: Duration) -> Reading | NoReading:
        self._world.step(self._life)
        await asyncio.sleep(self._world.chance.random() * 0.05)
        await self._life.side.running.wait()
        return self._world.reading(query, max_age)

    async def curve(self, query: str, start: Instant, end: Instant, step: Duration) -> Sequence[Curve]:
        self._world.step(self._life)
        await asyncio.sleep(0.05)
        if self._world.blind:
            raise TemporaryError("no answer")
        return []


class _Plant(LivePlant):
    """The real bindings; the world looks over their shoulder."""

    def __init__(self, world: ClusterWorld, life: Life, clock: _Clock) -> None:
        assert life.workloads is not None
        super().__init__(life.workloads, _Levers(world), clock, Path(), Path())  # type: ignore[arg-type]
        self._world = world
        self._life = life

    async def carry_out(self, action: Action, key: str, *, forbidden: Callable[[], bool]) -> DoAnswer:
        self._world.asked_for(action, key)
        self._world.step(self._life)
        await self._life.side.running.wait()
        answer = await super().carry_out(action, key, forbidden=forbidden)
        self._world.step(self._life)
        return answer

    async def _act(self, action: Action, key: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        self._world.began_at[key] = self._world.clock.now()
        return await super()._act(action, key)

    async def _verify(self, replica: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
        await asyncio.sleep(0.2)
        return {"engine_state_hash": "equal"}, {"state_hash": "equal"}

    async def look(self, target: str) -> LookAnswer:
        self._world.step(self._life)
        return await super().look(target)


class ClusterWorld:
    """Everything around the two control rooms, and they themselves."""

    def __init__(  # noqa: PLR0915 - each line a thing of the world
        self,
        seed: int,
        folder: Path,
        *,
        dangers: Dangers = Dangers(),
        library: Mapping[str, Runbook] = CLUSTER,
    ) -> None:
        self.chance = stream(seed, "cluster")
        self.folder = folder
        self.dangers = dangers
        self.library = library
        self.tuning = ControlTuning(handover_s=8.0, consent_s=20.0)
        self.clock = VirtualClock()
        self.store = MemoryStore(KEY)
        self.cluster = Cluster(self.clock.now, self.chance, self.judge)
        self.ledger: dict[str, Entry] = {}
        self.leases = MemoryLeases()
        self.alerts = FakeAlerts(self.clock)
        self.log = RecordingLog()
        self.levers: dict[str, tuple[str | None, bool]] = {}
        self.halted: set[str | None] = set()
        self.reopened_s = float("-inf")
        """When a person last reopened a halted market."""
        self.broken: set[tuple[str, str]] = set()
        self.allowed = frozenset(ALLOWED)
        self.market: MarketFacts | None = None
        self.auction_since: Instant | None = None
        self.engine_leak = False
        self.certificate_days = 90.0
        self.noise: list[Mapping[str, str]] = []
        self.lies: dict[str, float] = {}
        self.blind = ""
        self.mute = False
        self.samples: dict[str, float] = {}
        self.sampled_at = Instant(0)
        self.sampled_s = 0.0
        """The same on a clock that never jumps."""
        self.alarms: dict[str, Alarm] = {}
        self.out_since: dict[str, float] = {}
        self.actions: dict[str, Action] = {}
        self.began_at: dict[str, Instant] = {}
        self.facts_seen: dict[str, float] = {}
        """By run: when the facts of its last permission were seen, in seconds of a clock that never jumps."""
        self.done: list[Done] = []
        self.agreed: dict[str, set[str]] = {}
        self.four_eyes: set[str] = set()
        """Runs that two different people agreed to."""
        self.voided: set[str] = set()
        """Runs whose plan people approved just before its facts changed."""
        self.acknowledged: dict[str, AlertSignal] = {}
        self.found: list[str] = []
        self.steps = 0
        self.acted_epoch = 0
        self.store_down = False
        self.store_led = True
        """Whether the store is kept from who does not lead."""
        self.on_permit: Callable[[], None] | None = None
        self.kill_switch = folder / "kill-switch.json"
        self.thrown: list[tuple[Instant, Instant | None]] = []
        self.sides = [Side(name, round(self.chance.uniform(-1, 1) * SECOND)) for name in ("control-a", "control-b")]

    def elapsed_s(self) -> float:
        """Return the time on a clock that never jumps."""
        return asyncio.get_running_loop().time()

    # --- what the control room passes --------------------------------------------------------------------------------

    def step(self, life: Life) -> None:
        """Pass one border of a control process: here it dies, when it is its time."""
        if life.dead:
            raise Crash
        self.steps += 1
        if self.dangers.crash and self.chance.random() < self.dangers.crash:
            self.kill(life)
            raise Crash

    def store_closed(self, life: Life) -> str:
        if self.store_down or (self.dangers.store and self.chance.random() < self.dangers.store):
            return "the disk is full"
        return life.why_not() if self.store_led else ""

    def trouble(self) -> Trouble | None:
        if not self.dangers.weather or self.chance.random() >= self.dangers.weather:
            return None
        return self.chance.choice([Trouble.NO_ANSWER, Trouble.LOST_ANSWER])

    def asked_for(self, action: Action, key: str) -> None:
        self.actions[key] = action
        journal = self.store.run_journal(run_of(key))
        asked = [_QUESTION.decode(payload) for _, kind, payload in journal if kind == "question" and b'"do"' in payload]
        if not any(isinstance(one, Do) and one.key == key for one in asked):
            self.found.append(f"{key} was carried out before its question was durable")

    def questions(self) -> dict[str, Do]:
        """Every action that was durably asked for, by key."""
        asked = (
            _QUESTION.decode(payload)
            for run in self.store.runs_since(Instant(0))
            for _, kind, payload in self.store.run_journal(run.id)
            if kind == "question" and b'"do"' in payload
        )
        return {one.key: one for one in asked if isinstance(one, Do)}

    def told_refused(self, since: Instant = Instant(0)) -> list[str]:  # noqa: B008 - an immutable number
        """Keys of the actions of which the journal says that they were refused, and so touched nothing."""
        keys: list[str] = []
        for run in self.store.runs_since(since):
            key = ""
            for _, kind, payload in self.store.run_journal(run.id):
                if kind == "question":
                    asked = _QUESTION.decode(payload) if b'"do"' in payload else None
                    key = asked.key if isinstance(asked, Do) else ""
                elif key and msgspec.json.decode(payload).get("refused"):
                    keys.append(key)
        return keys

    def effect(self, key: str) -> None:
        """Take note of an effect on the exchange itself."""
        now = self.clock.now()
        if run_of(key) in self.voided:
            self.found.append(f"{key} was done although the facts had changed since its plan was approved")
        self.done.append(Done(key, self.actions[key], self.began_at[key], now, 0))

    def judge(self, landing: Landing) -> None:
        """Hold a write that has just taken effect against what may never be seen."""
        key = landing.writer.key
        if key not in {done.key for done in self.done}:
            began = self.began_at.get(key, landing.at)
            self.done.append(Done(key, self.actions[key], began, landing.at, 0))
        self.found += judged(self, landing)

    def ended_by(self, key: str) -> int:
        return sum(len(one.pods) for one in self.cluster.landings if one.writer.key == key)

    def at_hand(self, landing: Landing) -> str:
        """Return what of the allow-list a write is about."""
        return landing.target if landing.target in self.cluster.things and ":" not in landing.target else ALLOWED[0]

    def reading(self, query: str, max_age: Duration) -> Reading | NoReading:
        if self.blind in {"missing", "nan", "unreachable"}:
            why = {"missing": Unknown.MISSING, "nan": Unknown.NOT_A_NUMBER, "unreachable": Unknown.UNREACHABLE}
            return NoReading(why[self.blind], "blind")
        if self.clock.now() - self.sampled_at > max_age:
            return NoReading(Unknown.STALE, "stale")
        if query not in self.samples:
            return NoReading(Unknown.MISSING, query)
        return Reading(self.samples[query], self.sampled_at)

    # --- the control processes ---------------------------------------------------------------------------------------

    def learn(self, epoch: int) -> None:
        """Let the API server see a new epoch."""
        self.cluster.known_epoch = max(self.cluster.known_epoch, epoch)

    async def fence(self, epoch: int) -> None:
        while self.cluster.known_epoch < epoch:  # noqa: ASYNC110 - as an adapter does, who can only try
            await asyncio.sleep(0.05)

    def kill(self, life: Life) -> None:
        """Let a control process die where it stands."""
        life.dead = True
        life.side.down_until_s = asyncio.get_running_loop().time() + self.chance.uniform(0.5, 8)
        for task in list(life.tasks):
            if not task.done() and task is not asyncio.current_task():
                task.get_loop().call_soon(task.cancel)

    def start(self, side: Side) -> None:
        """Start a control process; it stands for election."""
        side.lives += 1
        side.running.set()
        life = side.life = Life(side, side.lives)
        around = _Around(self, life)
        clock = _Clock(self, side.skew_ns)
        life.workloads = ClusterWorkloads(self.cluster, self.ledger, around)

        def elected(epoch: int) -> None:
            self.acted_epoch = max(self.acted_epoch, epoch)
            self._wire(life, clock)

        life.leader = Leader(
            LeaderParts(
                leases=_Leases(self, around), tuning=TUNING, identity=life.identity, fence=self.fence,
                on_elected=elected, on_deposed=lambda: self._rest(life), clock=clock,
                monotonic_ns=lambda: side.skew_ns + round(asyncio.get_running_loop().time() * SECOND),
            )
        )  # fmt: skip
        token = _LIFE.set(life)  # type: ignore[arg-type]
        asyncio.get_running_loop().set_task_factory(_factory)
        try:
            asyncio.get_running_loop().create_task(life.leader.run(), name=life.identity)
        finally:
            _LIFE.reset(token)

    def _wire(self, life: Life, clock: _Clock) -> None:
        """Let the leader's loop turn."""
        store, telemetry = _Store(self.store, self, life), ControlInstruments(METER)
        metrics, wake = _Metrics(self, life), asyncio.Event()
        life.intake = Intake(store, wake.set)
        life.deadman = DeadMan(seconds(self.tuning.deadman_s), clock.now(), telemetry)
        life.consents = Consents(self.tuning.consent_s)
        driver = Driver(
            Parts(
                store=store, metrics=metrics, plant=_Plant(self, life, clock), facts=lambda: self._facts(life),
                history=lambda now: history(store, now, BOOKS_SIZES), kill_switch=self.kill_switch,
                consents=life.consents, failpoints=Failpoints(self.folder / "none", allowed=False),
                telemetry=telemetry, clock=clock,
            )
        )  # fmt: skip
        pager = Pager(self.alerts, "http://control", seconds(self.tuning.repage_s), telemetry, self.log, clock)
        archivist = Archivist(store, metrics, self.folder / "reports", self.folder / "faults", clock, self.log)
        life.loop = Loop(
            LoopParts(
                store=store, intake=life.intake, driver=driver, pager=pager, archivist=_NoFiles(archivist),
                deadman=life.deadman, library=self.library, tuning=self.tuning, kill_switch=self.kill_switch,
                telemetry=telemetry, log=self.log, clock=clock,
            ),
            wake,
        )  # fmt: skip
        life.turning = asyncio.get_running_loop().create_task(life.loop.run(), name=f"loop of {life.identity}")
        life.turning.add_done_callback(self._ended)

    def _rest(self, life: Life) -> None:
        """Let a deposed leader's loop turn no more; its runs are cut short where they are."""
        loop, turning = life.loop, life.turning
        life.loop = life.turning = life.intake = life.deadman = life.consents = None
        if turning is not None and loop is not None:
            turning.cancel()
            asyncio.get_running_loop().create_task(loop.stop(), name=f"rest of {life.identity}")

    def _ended(self, control: asyncio.Task[None]) -> None:
        error = None if control.cancelled() else control.exception()
        if error is not None and not isinstance(error, Crash):
            self.found.append(f"control ended by itself: {error!r}")

    async def _facts(self, life: Life) -> PlantFacts:
        self.step(life)
        if self.on_permit is not None:
            self.on_permit()
        assert life.workloads is not None
        workloads, nodes = await life.workloads.list(), await life.workloads.nodes()
        oldest = min((one.seen_at for one in workloads), default=Instant(0))
        for run in self.store.open_runs():
            self.facts_seen[run.id] = self.elapsed_s() - (self.clock.now() - oldest) / SECOND
        shares = {replica.id: Share(2, 0.34, 1_000) for one in workloads for replica in one.replicas}
        market = msgspec.structs.replace(self.market or MarketFacts(phase="continuous"), shares=shares)
        return PlantFacts(
            workloads=tuple(workloads), allowed=self.allowed, symbols=frozenset({"TWA"}),
            targets=await life.workloads.targets(), nodes=tuple(nodes), market=market, leader=life.why_not(),
            per_hour=PER_HOUR,
        )  # fmt: skip

    # --- the world's own life ----------------------------------------------------------------------------------------

    async def live(self, for_s: float) -> None:
        """Let `for_s` seconds go by."""
        loop = asyncio.get_running_loop()
        end = loop.time() + for_s
        while loop.time() < end:
            for side in self.sides:
                if (side.life is None or side.life.dead) and loop.time() >= side.down_until_s:
                    self.start(side)
            self._tick()
            await asyncio.sleep(1.0)

    async def until(self, holds: Callable[[], bool], within_s: float) -> bool:
        for _ in range(int(within_s)):
            if holds():
                return True
            await self.live(1)
        return holds()

    def skip(self, hours: float) -> None:
        """Let quiet hours pass at once."""
        self.clock.skipped_ns += seconds(hours * 3600)
        self.sample()
        for side in self.sides:
            if side.life is not None and side.life.deadman is not None:
                side.life.deadman.heard([self.watchdog()])

    def leads(self) -> Side | None:
        return next((one for one in self.sides if one.life and not one.life.dead and not one.life.why_not()), None)

    def watchdog(self) -> AlertSignal:
        labels = {"alertname": WATCHDOG, "severity": "info", "service": "monitoring", "team": "t"}
        return own_signal(labels, {}, status=Status.FIRING, starts_at=EPOCH, received_at=self.clock.now())

    def _tick(self) -> None:
        now = self.clock.now()
        self.cluster.tick()
        out = self.cluster.out()
        self.out_since = {name: self.out_since.get(name, now / SECOND) for name in sorted(out)}
        self._ask_people()
        if self.blind != "stale":
            self.sample()
        if self.mute:
            return
        if (now // SECOND) % 3 == 0:
            self._notify([self.watchdog()])
        if not self.blind:
            self._evaluate(now)

    def _ask_people(self) -> None:
        """Let people answer what waits for them, or not."""
        for side in self.sides:
            consents = side.life.consents if side.life is not None else None
            for run in list(consents.open if consents is not None else ()):
                assert consents is not None
                with contextlib.suppress(PermanentError, InputError):
                    if self.chance.random() < 0.4:
                        who = self.chance.choice(["anna", "Anna", "ben", "carl"])
                        said = consents.answer(run, who, grant=self.chance.random() < 0.85)
                        self.agreed.setdefault(run, set()).add(who.casefold())
                        if len(self.agreed[run]) > 1:
                            self.four_eyes.add(run)
                        if said.startswith("granted"):
                            self._meddle(run)

    def _meddle(self, run: str) -> None:
        """Sometimes change what a plan stands on in the moment after it was approved."""
        if self.chance.random() < 0.3:
            self.cluster.write("engine", "anna", restarted=f"anna-{self.steps}")
            self.cluster.look()
            if all(
                one.life is None or one.life.workloads is None or not one.life.workloads.frozen for one in self.sides
            ):
                self.voided.add(run)

    def sample(self) -> None:
        """Let Prometheus scrape everything."""
        if self.blind == "":
            self.sampled_at, self.sampled_s = self.clock.now(), self.elapsed_s()
        cluster, found = self.cluster, {}
        now_s = cluster.now_s
        for pod in cluster.pods.values():
            found[f'pod_ready{{pod="{pod.name}"}}'] = float(cluster.is_ready(pod))
            ending_s = now_s - pod.ending_s if pod.ending_s is not None else 0.0
            found[f'ending{{pod="{pod.name}"}}'] = ending_s
        for name in ("gateway", "market-data", "settlement", "engine"):
            pods, spec = cluster.pods_of(name), cluster.things[name].spec
            found[f'down{{workload="{name}"}}'] = max(spec["replicas"] - sum(map(cluster.is_ready, pods)), 0.0)
            found[f'crashing{{workload="{name}"}}'] = float(sum(pod.crashing for pod in pods))
            slow = any(pod.image == SLOW and now_s - pod.began_s > 10 for pod in pods)
            found[f'stuck{{workload="{name}"}}'] = float(slow and not spec["paused"])
            found[f'paused{{workload="{name}"}}'] = float(spec["paused"])
        for node in NODES:
            found[f'node_ready{{node="{node}"}}'] = float(node not in cluster.down)
            found[f'node_cordoned{{node="{node}"}}'] = float(cluster.things[f"node:{node}"].spec["cordoned"])
            found[f'node_pods{{node="{node}"}}'] = float(sum(pod.node == node for pod in cluster.pods.values()))
        consumers = sum(map(cluster.is_ready, cluster.pods_of("settlement")))
        leaky = sum(pod.leaky for pod in cluster.pods_of("settlement"))
        found |= {
            "latency": cluster.latency(), "idle": float(cluster.load < 0.3 * cluster.capacity()),
            "lag": float(cluster.starved and consumers < 3), "leak": float(leaky),
            "engine_ready": float(any(map(cluster.is_ready, cluster.pods_of("engine")))),
            "engine_leak": float(self.engine_leak and any(pod.leaky for pod in cluster.pods_of("engine"))),
            "market_halted": float(None in self.halted), "certificate_days": self.certificate_days,
            "config_bad": float(cluster.things["config:limits"].spec["contents"] != "good"),
        }  # fmt: skip
        self.samples = {**found, **self.lies}

    def firing(self) -> dict[str, Mapping[str, str]]:
        """Return the alerts that fire now, by a name of their own."""
        cluster, seen, firing = self.cluster, self.samples, {}

        def fire(alert: str, service: str, level: int, mark: str = "", **labels: str) -> None:
            what = {"alertname": alert, "service": service, "level": str(level), "team": "t", **labels}
            firing[f"{alert}{mark}"] = what

        for pod in cluster.pods.values():
            unready = not seen.get(f'pod_ready{{pod="{pod.name}"}}', 1.0)
            if unready and pod.workload == "gateway" and (pod.hung or self.lies):
                fire("PodHang", "gateway", 2, pod.name, pod=pod.name)
            if pod.workload == "market-data" and seen.get(f'ending{{pod="{pod.name}"}}', 0.0) > 6:
                fire("PodStuckEnding", "market-data", 3, pod.name, pod=pod.name)
        for node in NODES:
            if not seen[f'node_ready{{node="{node}"}}']:
                fire("NodeNotReady", "node", 2, node, node=node)
        rules = {
            "CrashLoop": ("market-data", 2, seen['crashing{workload="market-data"}'] > 0),
            "RolloutStuck": ("gateway", 2, seen['stuck{workload="gateway"}'] > 0),
            "Overload": ("gateway", 2, seen["latency"] > 0.2),
            "GatewaysIdle": ("gateway", 3, seen["idle"] > 0 and cluster.load < 50),
            "ConsumerLag": ("settlement", 2, seen["lag"] > 0), "MemoryLeak": ("settlement", 3, seen["leak"] > 0),
            "ConfigPoisoned": ("gateway", 2, seen["config_bad"] > 0),
            "EngineDown": ("engine", 1, not seen["engine_ready"] and any(p.hung for p in cluster.pods_of("engine"))),
            "EngineLeak": ("engine", 2, seen["engine_leak"] > 0),
            "CertificateEnds": ("gateway", 2, seen["certificate_days"] < 7),
        }  # fmt: skip
        for alert, (service, level, fires) in rules.items():
            if fires:
                fire(alert, service, level)
        return firing | {f"noise-{n}": labels for n, labels in enumerate(self.noise)}

    def _evaluate(self, now: Instant) -> None:
        firing = self.firing()
        fresh: list[AlertSignal] = []
        for name, labels in firing.items():
            if name not in self.alarms:
                self.alarms[name] = Alarm(labels, now)
                fresh.append(own_signal(labels, {}, status=Status.FIRING, starts_at=now, received_at=now))
        for name in [one for one in self.alarms if one not in firing]:
            gone = self.alarms.pop(name)
            fresh.append(
                own_signal(
                    gone.labels, {}, status=Status.RESOLVED, starts_at=gone.starts_at, received_at=now, ends_at=now
                )
            )
        if fresh:
            self._notify(fresh)

    def _notify(self, signals: Sequence[AlertSignal]) -> None:
        for _ in range(1 + (self.chance.random() < self.dangers.delivery)):
            late = self.chance.random() * 2.5 if self.chance.random() < self.dangers.delivery else 0.0
            chosen = list(signals)
            if self.dangers.delivery:
                self.chance.shuffle(chosen)
            asyncio.get_running_loop().create_task(self.deliver(chosen, late)).add_done_callback(_quietly)

    async def deliver(self, signals: Sequence[AlertSignal], late_s: float = 0.0) -> None:
        """Deliver as Alertmanager does, to whichever process the way leads to: again and again until it is 2xx."""
        await asyncio.sleep(late_s)
        while True:
            life = self.chance.choice(self.sides).life
            with contextlib.suppress(TemporaryError, TimeoutError, Crash):
                if life is not None and not life.dead and life.intake is not None and life.deadman is not None:
                    given = [msgspec.structs.replace(one, received_at=self.clock.now()) for one in signals]
                    if life.side.running.is_set():
                        life.deadman.heard(given)
                    await asyncio.wait_for(life.intake.take_in(given), 3.0)
                    if not life.dead:
                        self.acknowledged |= {one.key: one for one in signals}
                        return
            await asyncio.sleep(1.0)

    # --- what can be done to it --------------------------------------------------------------------------------------

    def mend(self) -> None:
        """Let every fault end."""
        self.cluster.mend()
        if None in self.halted:
            self.reopened_s = self.elapsed_s()
        self.halted.clear()
        self.noise.clear()
        self.lies.clear()
        self.blind, self.mute, self.store_down, self.engine_leak, self.certificate_days = "", False, False, False, 90.0
        self.market = self.auction_since = None
        self.dangers = replace(self.dangers, crash=0.0, store=0.0, weather=0.0)
        self.on_permit = None
        for side in self.sides:
            side.running.set()
            side.cut_off = False
            if side.life is not None and side.life.workloads is not None:
                side.life.workloads.frozen = None

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
        killswitch.throw(self.kill_switch, by="anna", why="test", at=self.clock.now())
        self.thrown.append((self.clock.now(), None))

    def release(self) -> None:
        if killswitch.release(self.kill_switch):
            self.thrown[-1] = (self.thrown[-1][0], self.clock.now())

    async def stop(self) -> None:
        """End both processes."""
        for side in self.sides:
            if side.life is not None and not side.life.dead:
                self.kill(side.life)
        tasks = [task for side in self.sides if side.life is not None for task in side.life.tasks]
        await asyncio.gather(*tasks, return_exceptions=True)
