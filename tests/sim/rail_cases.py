"""Temptations for the rails: what may be done, made forbidden by exactly one hazard of the hour. All from a seed.

The generator knows which hazard it put in, so it needs no rails to know what is right. Everything without a hazard must
be permitted, or rails that refuse always would pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from kernel.chance import stream
from kernel.time import SECOND, Instant, seconds
from runbooks import policy
from runbooks import rails as more
from runbooks.bind import bind
from runbooks.changes import Cordon, DeleteReplica, FailOver, RollBack, RollingRestart, SwitchService
from runbooks.facts import MarketFacts, PastRun, PlantFacts, Share, target
from runbooks.model import (
    Action,
    BlastRadius,
    Consent,
    HaltMarket,
    HaltSymbol,
    Limits,
    Outcome,
    Refusal,
    RestartReplica,
    ResumeMarket,
    Runbook,
    Scale,
    Undo,
    VerifyReplay,
)
from runbooks.ports import NodeStatus, Replica, WorkloadStatus
from tests.sim.library import book, step

NOW: Final = Instant(1_000_000 * SECOND)
TRIES: Final = 12
"""Temptations a seed."""


@dataclass
class Case:
    """A wish, and all that is known when it is asked for."""

    action: Action
    runbook: Runbook
    facts: PlantFacts
    history: list[PastRun] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    kill_switch: bool = False
    alert: str = "X"

    def granted(self) -> bool:
        """Tell whether the run may begin and the action start."""
        begun = policy.admit(
            self.runbook, target(self.runbook), self.history, self.active, self.kill_switch, NOW, self.alert
        )  # fmt: skip
        answer = policy.permit(
            self.action, runbook=self.runbook, facts=self.facts, history=self.history, kill_switch=self.kill_switch,
            now=NOW,
        )  # fmt: skip
        return begun is None and answer.granted


def workload(name: str, count: int, **more: Any) -> WorkloadStatus:
    replicas = tuple(
        Replica(f"{name}-{n}", None, f"u{n}", running=True, ready=True, url="", started_at=NOW)
        for n in range(1, count + 1)
    )
    return WorkloadStatus(name, count, replicas, 7, name == "engine", "runbook", NOW, images=("v1",), **more)


def harmless(chance: random.Random) -> Case:
    """Return something that may be done."""
    one = RestartReplica("gateway", f"gateway-{chance.randrange(1, 4)}")
    scale = Scale("gateway", chance.choice([1, -1]), 1, 6)
    return wish(_any(chance, one, scale, DeleteReplica("gateway", "gateway-1"), Cordon("n1"), HaltSymbol("TWA", "gap")))


def _any(chance: random.Random, *actions: Action) -> Action:
    return chance.choice(actions)


def wish(*actions: Action, radius: BlastRadius | None = None, undo: Undo = Undo.NOTHING, **more: Any) -> Case:
    """Return the wish to do the first of some actions, in a plant where all is well."""
    reach = radius or BlastRadius(replicas=3, symbols=1, market=True, nodes=1, unhealthy_share=0.5, volume_share=0.5)
    runbook = book(
        "book", "X", "gateway", 2, (), *(step(one, undo, None) for one in actions), blast_radius=reach, **more
    )
    workloads = (workload("gateway", 3), workload("settlement", 2), workload("engine", 1, stateful=True))
    shares = {one.id: Share(2, 0.2, 100) for each in workloads for one in each.replicas}
    facts = PlantFacts(
        workloads=workloads, allowed=frozenset({"gateway", "settlement", "engine"}), symbols=frozenset({"TWA"}),
        targets=frozenset({"node:n1", "node:n2", "service:engine"}), per_hour=6,
        nodes=tuple(NodeStatus(name, ready=True, cordoned=False, replicas=1, seen_at=NOW) for name in ("n1", "n2")),
        market=MarketFacts(phase="continuous", shares=shares),
    )  # fmt: skip
    return Case(actions[0], runbook, facts)


def changed(case: Case, name: str = "gateway", **fields: Any) -> Case:
    """Change facts of one workload."""
    workloads = tuple(
        msgspec.structs.replace(one, **fields) if one.name == name else one for one in case.facts.workloads
    )
    return replace(case, facts=msgspec.structs.replace(case.facts, workloads=workloads))


def known(case: Case, **fields: Any) -> Case:
    """Change what else is known."""
    return replace(case, facts=msgspec.structs.replace(case.facts, **fields))


RESTART: Final = RestartReplica("gateway", "gateway-1")
_GENEROUS: Final = Limits(cool_down_ns=seconds(20), runs_per_hour=99, ineffective_runs=99)
_RARE: Final = Limits(cool_down_ns=seconds(20), runs_per_hour=3, ineffective_runs=99)


def _past(chance: random.Random, outcome: Outcome, count: int, ago_s: float, touched: int = 1) -> list[PastRun]:
    ends = [NOW - seconds(ago_s * (n + 1) * chance.uniform(1.0, 1.3)) for n in range(count)]
    return [
        PastRun(
            runbook="book", target="gateway/gateway-1", started_at=Instant(end - SECOND), ended_at=Instant(end),
            outcome=outcome, touched=touched,
        )
        for end in ends
    ]  # fmt: skip


def _hung(case: Case, share: float) -> Case:
    """Let so large a share of all replicas be not ready."""
    total = sum(len(one.replicas) for one in case.facts.workloads)
    left = round(total * share)
    for one in case.facts.workloads:
        replicas = tuple(msgspec.structs.replace(r, ready=n >= left) for n, r in enumerate(one.replicas))
        left -= min(left, len(one.replicas))
        case = changed(case, one.name, replicas=replicas)
    return case


def _market(case: Case, **fields: Any) -> Case:
    assert case.facts.market is not None
    return known(case, market=msgspec.structs.replace(case.facts.market, **fields))


def _out(*names: str) -> tuple[NodeStatus, ...]:
    return tuple(NodeStatus(n, ready=True, cordoned=n in names, replicas=1, seen_at=NOW) for n in ("n1", "n2", "n3"))


Hazard = Callable[[random.Random], Case]
HAZARDS: dict[str, Hazard] = {
    "kill switch": lambda c: replace(harmless(c), kill_switch=True),
    "a detector alone": lambda c: replace(harmless(c), alert="SeriesAnomalous"),
    "another one leads": lambda c: known(harmless(c), leader="control-b leads"),
    "no such target": lambda c: wish(
        RestartReplica("gateway", c.choice(["", "gateway-9", "*", "a,b"])), radius=BlastRadius(replicas=3)
    ),
    "no such node": lambda _: wish(Cordon("n9")),
    "not in the runbook": lambda _: replace(wish(RESTART), action=RestartReplica("gateway", "gateway-2")),
    "not on the list": lambda _: known(wish(RESTART), allowed=frozenset({"engine"})),
    "single writer": lambda _: wish(Scale("engine", 1, 1, 2)),
    "too many replicas": lambda c: wish(Scale("gateway", c.choice([2, -2]), 1, 9), radius=BlastRadius(replicas=1)),
    "the whole market": lambda _: wish(HaltMarket("operator"), radius=BlastRadius(replicas=1)),
    "two symbols": lambda _: wish(HaltSymbol("TWA", "gap"), HaltSymbol("TWB", "gap"), radius=BlastRadius(symbols=1)),
    "old facts": lambda c: changed(wish(RESTART), seen_at=Instant(NOW - seconds(c.uniform(16, 4_000)))),
    "an autoscaler": lambda _: changed(wish(Scale("gateway", 1, 1, 6)), replicas_owner="HPA gateway"),
    "a GitOps owner": lambda c: changed(
        wish(_any(c, Scale("gateway", 1, 1, 6), RollBack("gateway"), RollingRestart("gateway"))),
        spec_owner="Argo CD application exchange",
    ),
    "a larger reach than the radius": lambda c: wish(
        _any(c, RollBack("gateway"), RollingRestart("gateway")), radius=BlastRadius(replicas=2)
    ),
    "an auction": lambda _: _market(wish(RESTART), phase="opening_auction", auction=True),
    "an auction ahead": lambda c: _market(wish(RESTART), next_auction_at=Instant(NOW + seconds(c.uniform(1, 290)))),
    "another phase": lambda _: wish(RESTART, phases=("closed",)),
    "an engine that trades": lambda _: wish(RestartReplica("engine", "engine-1"), radius=BlastRadius(replicas=1)),
    "an engine and one pair of eyes": lambda _: replace(
        wish(
            HaltMarket("operator"), RestartReplica("engine", "engine-1"), VerifyReplay("engine"), ResumeMarket(),
            radius=BlastRadius(replicas=1, market=True), consent=Consent.ONE_APPROVER,
        ),
        action=RestartReplica("engine", "engine-1"),
    ),
    "an engine rolled": lambda _: wish(RollBack("engine"), radius=BlastRadius(replicas=3)),
    "a switch without an equal hash": lambda _: wish(
        SwitchService("engine", "green"), radius=BlastRadius(replicas=3, market=True), consent=Consent.FOUR_EYES
    ),
    "a fail-over from what is ready": lambda _: wish(FailOver("settlement", "settlement-1")),
    "a fail-over to nobody in particular": lambda _: wish(FailOver("gateway", "gateway-1"), consent=Consent.FOUR_EYES),
    "mixed images": lambda _: changed(wish(Scale("gateway", 1, 1, 6)), images=("v1", "v2")),
    "a second node": lambda _: known(wish(Cordon("n1")), nodes=_out("n2")),
    "everything seems broken": lambda c: _hung(wish(RestartReplica("gateway", "gateway-1")), c.choice([0.7, 1.0])),
    "too much volume": lambda _: _market(wish(RESTART), shares={"gateway-1": Share(2, 0.9, 1)}),
    "unknown volume": lambda _: _market(wish(RESTART), shares={}),
    "too many in this hour": lambda c: replace(
        wish(RESTART, limits=_GENEROUS), history=_past(c, Outcome.MENDED, 6, 400)
    ),
    "in vain": lambda c: replace(wish(RESTART), history=_past(c, Outcome.NOT_PROVEN, 2, 600)),
    "a moment ago": lambda c: replace(wish(RESTART), history=_past(c, Outcome.MENDED, 1, 5)),
    "too often": lambda c: replace(
        known(wish(RESTART, limits=_RARE), per_hour=99), history=_past(c, Outcome.MENDED, 3, 400)
    ),
    "another run on it": lambda _: replace(wish(RESTART), active=["gateway/gateway-2"]),
    "a selector for everything": lambda c: _bound(c.choice(["", ".*", "*", "gateway-1,gateway-2", "x" * 300])),
}  # fmt: skip


class UnboundError(Exception):
    """The binding found no target."""


def _bound(label: str) -> Case:
    """Bind a label that a hostile alert carries; a label that gets through is a wish for whatever it matches."""
    case = wish(RestartReplica("gateway", "{pod}"), parameters={"pod": "pod"})
    found = bind(case.runbook, {"pod": label})
    if isinstance(found, Refusal):
        raise UnboundError
    return replace(case, runbook=found, action=found.steps[0].action)


def complaints(seed: int) -> list[str]:
    """Return what the rails let through although it was forbidden, and what they stopped although it was not."""
    chance = stream(seed, "rails")
    wrong: list[str] = []
    for name in chance.sample(sorted(HAZARDS), TRIES):
        try:
            case = HAZARDS[name](chance)
        except UnboundError:
            continue
        if case.granted():
            wrong.append(f"{name}: {case.action} was permitted")
    usual = harmless(chance)
    if not usual.granted():
        wrong.append(f"{usual.action} was refused although all is well")
    return wrong


def rails() -> Sequence[str]:
    """Return the names of all rails."""
    names = [*vars(policy), *vars(more)]
    return sorted({name for name in names if name.startswith("refuse_")})
