"""A plant that fights back: an API server in memory with the controllers, people and faults that write to it, too.

Objects carry a generation and a resource version; a write names the version it stands on. Controllers roll out, scale
and revert by themselves at every tick, nodes fail, budgets block evictions, and everybody's last write is remembered by
field. What our own controllers wrote is told to a judge at the very moment it takes effect.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kernel.time import SECOND, Instant
from runbooks.ports import NodeStatus, Replica, WorkloadStatus

US: Final = "tapewatch"
NODES: Final = ("n1", "n2", "n3", "n4")
CAPACITY: Final = 100.0
"""Orders a second that one warm gateway takes; a cold one takes half."""
COLD_S: Final = 5.0
SLOW: Final = "slow"
"""An image whose replicas never get ready."""
CRASH: Final = "crash"
"""An image whose replicas crash before they are ready."""
LATE: Final = "late"
"""An image whose replicas get ready, and crash later."""


class ConflictError(Exception):
    """The object is not what the write stands on."""


class BlockedError(Exception):
    """A disruption budget forbids it now (429)."""


class FencedError(Exception):
    """The write's epoch is not the lease's."""


@dataclass
class Thing:
    """An object of the API server."""

    name: str
    spec: dict[str, Any]
    generation: int = 1
    version: int = 1
    writers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By field: who wrote it last, and with which key."""
    marks: set[str] = field(default_factory=set)
    """Keys of our writes it has taken."""
    images: list[str] = field(default_factory=list)
    """Every image it had, the present one last."""


@dataclass(frozen=True)
class Shape:
    """What a workload is by its nature."""

    replicas: int
    start_s: float = 3.0
    singleton: bool = False
    stateful: bool = False
    partitions: int = 0


SHAPES: Final[Mapping[str, Shape]] = {
    "engine": Shape(1, singleton=True, stateful=True),
    "gateway": Shape(3, start_s=2.0),
    "market-data": Shape(2),
    "settlement": Shape(2, partitions=3),
    "watchdog": Shape(1),
}


@dataclass
class Pod:
    """A replica."""

    name: str
    uid: str
    workload: str
    image: str
    restarted: str
    node: str
    began_s: float
    ready_s: float
    hung: bool = False
    crashing: bool = False
    leaky: bool = False
    stuck_ending: bool = False
    ending_s: float | None = None
    restarts: int = 0


@dataclass(frozen=True)
class Writer:
    """Which of our controllers writes, in which epoch, for which key."""

    life: str
    epoch: int
    key: str


@dataclass(frozen=True)
class Landing:
    """A write of ours that took effect."""

    writer: Writer
    at: Instant
    target: str
    fields: Mapping[str, Any]
    """What it set; empty for an eviction."""
    before: Mapping[str, Any]
    before_writers: Mapping[str, tuple[str, str]]
    pods: tuple[Pod, ...] = ()
    """What it ended."""
    forced: bool = False


class Cluster:
    """The API server, and everything behind it."""

    def __init__(self, now: Callable[[], Instant], chance: random.Random, judge: Callable[[Landing], None]) -> None:
        self._now = now
        self._chance = chance
        self._judge = judge
        self.fence = True
        self.known_epoch = 0
        """The epoch of the lease, as far as the API server has seen it yet."""
        self.things: dict[str, Thing] = {}
        self.pods: dict[str, Pod] = {}
        self.budget: dict[str, int] = {"gateway": 2, "market-data": 1, "settlement": 1, "engine": 1}
        """How many replicas must stay ready."""
        self.strict = False
        """Whether the budgets hold for replicas that are not ready, too."""
        self.bounds: tuple[int, int] | None = None
        """The owner's bounds of the autoscaler of the gateways; None: there is none."""
        self.reverted: dict[str, dict[str, Any]] = {}
        """By workload: what a GitOps controller reverts it to; others are not owned."""
        self.scaled_object: set[str] = set()
        """Workloads whose replicas belong to a controller that leaves no knob."""
        self.down: set[str] = set()
        """Nodes that do not answer."""
        self.load = 150.0
        self.backlog = 0.0
        self.downstream = False
        """Whether orders are slow for a reason that no gateway can mend."""
        self.starved = False
        """Whether settlement lags unless it has three consumers."""
        self.landings: list[Landing] = []
        self._count = 0
        self._scaled_down_s = 0.0
        self._snapshot: tuple[list[WorkloadStatus], list[NodeStatus]] = ([], [])
        self.mixed_since: dict[str, float] = {}
        self.sick_since: float | None = None
        for name in NODES:
            self.things[f"node:{name}"] = Thing(f"node:{name}", {"cordoned": False})
        self.things["config:limits"] = Thing("config:limits", {"contents": "good"})
        for name, shape in SHAPES.items():
            spec = {"replicas": shape.replicas, "image": "v1", "restarted": "", "paused": False}
            self.things[name] = Thing(name, spec, images=["v0", "v1"])
            for _ in range(shape.replicas):
                self._start(name, "v1", warm=True)
        self.look()

    @property
    def now_s(self) -> float:
        return self._now() / SECOND

    # --- writes ------------------------------------------------------------------------------------------------------

    def write(self, name: str, manager: str, key: str = "", **fields: Any) -> None:
        """Let anybody write."""
        thing = self.things[name]
        if not key and all(thing.spec[each] == value for each, value in fields.items()):
            return  # an API server takes no note of a write that changes nothing
        thing.spec.update(fields)
        thing.generation += 1
        thing.version += 1
        thing.writers |= dict.fromkeys(fields, (manager, key))
        if "image" in fields and thing.images[-1:] != [fields["image"]]:
            thing.images.append(str(fields["image"]))

    def admit(self, writer: Writer) -> None:
        """Refuse a write of ours whose epoch is not the lease's."""
        if self.fence and writer.epoch != self.known_epoch:
            raise FencedError(f"epoch {writer.epoch} is not {self.known_epoch}")

    def patch(self, writer: Writer, name: str, version: int, fields: Mapping[str, Any]) -> None:
        """Let one of our controllers write, when the object still is what the write stands on."""
        self.admit(writer)
        thing = self.things.get(name)
        if thing is None or thing.version != version:
            raise ConflictError(f"{name} has version {thing.version if thing else 'none'}, not {version}")
        self._took(writer, name, fields)
        thing.marks.add(writer.key)
        self.write(name, US, writer.key, **fields)

    def evict(self, writer: Writer, uid: str, *, force: bool = False, past_budget: bool = False) -> None:
        """End one replica, when the budget allows it or is passed by; one that is gone needs nothing."""
        self.admit(writer)
        pod = self.pods.get(uid)
        if pod is None or (pod.ending_s is not None and not force):
            return
        if not (force or past_budget) and self._short_of_budget(pod):
            raise BlockedError(f"{pod.workload} must keep {self.budget[pod.workload]} ready")
        self._took(writer, pod.workload, {}, pods=(pod,), forced=force)
        if force:
            del self.pods[uid]
        else:
            pod.ending_s = self.now_s + 1.5

    def _short_of_budget(self, pod: Pod) -> bool:
        ready = sum(self.is_ready(one) for one in self.pods_of(pod.workload)) - self.is_ready(pod)
        return ready < self.budget.get(pod.workload, 0) and (self.strict or self.is_ready(pod))

    def _took(self, writer: Writer, name: str, fields: Mapping[str, Any], **more: Any) -> None:
        thing = self.things[name]
        before = {each: thing.spec[each] for each in fields}
        writers = {each: thing.writers.get(each, ("", "")) for each in fields}
        landing = Landing(writer, self._now(), name, dict(fields), before, writers, **more)
        self.landings.append(landing)
        self._judge(landing)

    # --- what is there -----------------------------------------------------------------------------------------------

    def pods_of(self, workload: str) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.workload == workload]

    def is_ready(self, pod: Pod) -> bool:
        return (
            not (pod.hung or pod.crashing or pod.ending_s is not None)
            and self.now_s >= pod.ready_s
            and pod.node not in self.down
        )

    def sick_share(self) -> float:
        pods = [pod for pod in self.pods.values() if pod.ending_s is None]
        return sum(not self.is_ready(pod) for pod in pods) / max(len(pods), 1)

    def images_of(self, workload: str) -> list[str]:
        return sorted({pod.image for pod in self.pods_of(workload) if pod.ending_s is None})

    def out(self) -> set[str]:
        """Nodes that take nothing new."""
        return {name for name in NODES if name in self.down or self.things[f"node:{name}"].spec["cordoned"]}

    def look(self) -> tuple[list[WorkloadStatus], list[NodeStatus]]:
        """See everything as it is now: what a watch cache holds until its next event."""
        now = self._now()
        pods = list(self.pods.values())
        nodes = [
            NodeStatus(
                name, name not in self.down, bool(self.things[f"node:{name}"].spec["cordoned"]),
                sum(pod.node == name for pod in pods), now,
            )
            for name in NODES
        ]  # fmt: skip
        self._snapshot = ([self._status(name, now) for name in SHAPES], nodes)
        return self._snapshot

    def _status(self, name: str, now: Instant) -> WorkloadStatus:
        thing, shape = self.things[name], SHAPES[name]
        pods = self.pods_of(name)
        replicas = tuple(
            Replica(
                pod.name, None, pod.uid, running=not pod.crashing, ready=self.is_ready(pod), url="",
                started_at=Instant(round(pod.began_s) * SECOND),
            )
            for pod in pods
        )  # fmt: skip
        current = all((pod.image, pod.restarted) == self._template(name) for pod in pods)
        settled = current and len(pods) == thing.spec["replicas"] and all(one.ready for one in replicas)
        return WorkloadStatus(
            name, thing.spec["replicas"], replicas, thing.generation, shape.singleton, "runbook", now,
            settled=settled and not thing.spec["paused"], restarts=sum(pod.restarts for pod in pods),
            stateful=shape.stateful, images=tuple(self.images_of(name)), partitions=shape.partitions,
            replicas_owner=f"ScaledObject {name}" if name in self.scaled_object else "",
            spec_owner=f"Argo CD application {name}" if name in self.reverted else "",
        )  # fmt: skip

    def _template(self, name: str) -> tuple[str, str]:
        spec = self.things[name].spec
        return spec["image"], spec["restarted"]

    # --- time goes on ------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let every controller look at what is theirs."""
        now_s = self.now_s
        for pod in [pod for pod in self.pods.values() if pod.ending_s is not None and now_s >= pod.ending_s]:
            if not pod.stuck_ending:
                del self.pods[pod.uid]
        for name in SHAPES:
            self._roll_out(name)
        for pod in self.pods.values():
            self._age(pod, now_s)
        self._serve()
        if int(now_s) % 10 == 0:
            self._autoscale(now_s)
        if int(now_s) % 15 == 0:
            self._revert()
        for name in SHAPES:
            if len(self.images_of(name)) > 1:
                self.mixed_since.setdefault(name, now_s)
            else:
                self.mixed_since.pop(name, None)
        self.sick_since = (self.sick_since or now_s) if self.sick_share() > 0.6 else None
        self.look()

    def _age(self, pod: Pod, now_s: float) -> None:
        age_s = now_s - pod.began_s
        if pod.image == CRASH or (pod.image == LATE and age_s > 15):
            pod.restarts += not pod.crashing or int(now_s) % 5 == 0
            pod.crashing = True

    def _roll_out(self, name: str) -> None:
        thing = self.things[name]
        wanted, template = int(thing.spec["replicas"]), self._template(name)
        pods = [pod for pod in self.pods_of(name) if pod.ending_s is None]
        old = [pod for pod in pods if (pod.image, pod.restarted) != template]
        if thing.spec["paused"] or not old:
            if len(pods) < wanted:
                image, restarted = (old[0].image, old[0].restarted) if old else template
                self._start(name, image, restarted)
            elif len(pods) > wanted:
                self._end(min(pods, key=lambda pod: (self.is_ready(pod), -pod.began_s)))
            return
        fresh = [pod for pod in pods if pod not in old]
        ready = sum(map(self.is_ready, pods))
        if SHAPES[name].singleton:
            self._end(old[0])
        elif len(pods) <= wanted and len(fresh) < wanted:
            self._start(name, *template)
        elif spare := next((pod for pod in old if not self.is_ready(pod)), None):
            self._end(spare)
        elif ready > wanted or (len(pods) > wanted and all(map(self.is_ready, fresh))):
            self._end(old[0])

    def _end(self, pod: Pod) -> None:
        pod.ending_s = self.now_s + 1.0

    def _start(self, name: str, image: str, restarted: str = "", *, warm: bool = False) -> Pod:
        self._count += 1
        shape = SHAPES[name]
        free = [one for one in NODES if one not in self.out()] or list(NODES)
        node = min(free, key=lambda one: (sum(pod.node == one for pod in self.pods.values()), one))
        label = f"{name}-0" if shape.singleton else f"{name}-{self._count:x}"
        now_s = self.now_s
        start_s = 0.0 if warm else shape.start_s * self._chance.uniform(0.7, 1.5)
        pod = Pod(
            label, f"u{self._count}", name, image, restarted, node, now_s - (3600 if warm else 0),
            now_s + (1e12 if image == SLOW else start_s),
        )  # fmt: skip
        self.pods[pod.uid] = pod
        return pod

    def capacity(self) -> float:
        """Orders a second that the gateways take now."""
        ready = [pod for pod in self.pods_of("gateway") if self.is_ready(pod)]
        return sum(CAPACITY * (0.5 if self.now_s - pod.ready_s < COLD_S else 1.0) for pod in ready)

    def latency(self) -> float:
        """How long an order takes, in seconds."""
        return (0.9 if self.downstream else 0.05) + self.backlog / max(self.capacity(), 1.0)

    def _serve(self) -> None:
        self.backlog = min(max(self.backlog + self.load - self.capacity(), 0.0), 2_000.0)

    def _autoscale(self, now_s: float) -> None:
        if self.bounds is None:
            return
        spec = self.things["hpa:gateway"].spec
        replicas = int(self.things["gateway"].spec["replicas"])
        wanted = min(max(round(self.load / CAPACITY / 0.7 + 0.5), spec["min"]), spec["max"])
        if wanted < replicas:
            if now_s - self._scaled_down_s < 30:
                return
            wanted = replicas - 1
        if wanted != replicas:
            self._scaled_down_s = now_s
            self.write("gateway", "hpa", replicas=wanted)

    def _revert(self) -> None:
        for name, wanted in self.reverted.items():
            spec = self.things[name].spec
            if off := {each: value for each, value in wanted.items() if spec[each] != value}:
                self.write(name, "argocd", **off)

    # --- what can be done to it --------------------------------------------------------------------------------------

    def autoscaled(self, least: int, most: int) -> None:
        """Let an autoscaler own the number of gateways."""
        self.bounds = (least, most)
        self.things["hpa:gateway"] = Thing("hpa:gateway", {"min": least, "max": most})

    def owned(self, name: str) -> None:
        """Let a GitOps controller own a workload."""
        self.reverted[name] = {each: self.things[name].spec[each] for each in ("replicas", "image", "paused")}

    def hang(self, workload: str, count: int = 1) -> Sequence[Pod]:
        """Let replicas hang until they are ended."""
        pods = [pod for pod in self.pods_of(workload) if self.is_ready(pod)][:count]
        for pod in pods:
            pod.hung = True
        return pods

    def mend(self) -> None:
        """Let every fault end, as if people had been at work."""
        self.down.clear()
        self.load, self.backlog, self.downstream, self.starved = 150.0, 0.0, False, False
        self.strict = False
        self.scaled_object.clear()
        self.reverted.clear()
        self.bounds = None
        self.things.pop("hpa:gateway", None)
        self.budget |= {"gateway": 2, "market-data": 1, "settlement": 1, "engine": 1}
        for name, thing in self.things.items():
            if name.startswith("node:") and thing.spec["cordoned"]:
                self.write(name, "anna", cordoned=False)
            if name in SHAPES and (thing.spec["image"] in {SLOW, CRASH, LATE} or thing.spec["paused"]):
                self.write(name, "anna", image="v2", paused=False)
            if name in SHAPES and thing.spec["replicas"] != SHAPES[name].replicas:
                self.write(name, "anna", replicas=SHAPES[name].replicas)
        if self.things["config:limits"].spec["contents"] != "good":
            self.write("config:limits", "anna", contents="good")
        for pod in list(self.pods.values()):
            if pod.stuck_ending:
                del self.pods[pod.uid]
            if pod.hung:
                pod.ready_s = self.now_s + 2.0  # its probe has to see it first
            pod.hung = pod.leaky = False
