"""What a plan's digest stands on: every fact that matters, and nothing that only time changes."""

import msgspec
import pytest

from control.plan_digest import names_plan, plan_of
from kernel.time import Instant
from runbooks.adapters.fake import plant
from runbooks.bind import bind
from runbooks.changes import Drain, SetFlag
from runbooks.facts import MarketFacts, PlantFacts, Share
from runbooks.model import Consent, Runbook, Undo
from runbooks.ports import NodeStatus
from tests.sim.library import GATEWAY, book, step

NODES = tuple(NodeStatus(f"n{n}", ready=True, cordoned=False, replicas=n, seen_at=Instant(0)) for n in (1, 2))
FACTS = PlantFacts(
    workloads=tuple(plant()),
    allowed=frozenset({"gateway"}),
    nodes=NODES,
    targets=frozenset({"node:n1", "node:n2", "config:limits"}),
    market=MarketFacts(phase="continuous"),
)
BOUND = bind(GATEWAY, {"replica": "gateway-1"})
DRAIN = book("drain", "X", "gateway", 2, (), step(Drain("n1"), Undo.RESTORE, None))
FLAG = book("flag", "X", "gateway", 2, (), step(SetFlag("limits", "a", "1"), Undo.RESTORE, None))


def gateway(**changes) -> PlantFacts:
    workloads = tuple(
        msgspec.structs.replace(one, **changes) if one.name == "gateway" else one for one in FACTS.workloads
    )
    return msgspec.structs.replace(FACTS, workloads=workloads)


def replica(**changes) -> PlantFacts:
    first, *others = next(one for one in FACTS.workloads if one.name == "gateway").replicas
    return gateway(replicas=(msgspec.structs.replace(first, **changes), *others))


def node(name, **changes) -> PlantFacts:
    nodes = tuple(msgspec.structs.replace(one, **changes) if one.name == name else one for one in NODES)
    return msgspec.structs.replace(FACTS, nodes=nodes)


def facts(**changes) -> PlantFacts:
    return msgspec.structs.replace(FACTS, **changes)


@pytest.mark.parametrize(
    ("runbook", "changed", "told"),
    [
        (BOUND, gateway(desired=3), "gateway desired 2 -> 3"),
        (BOUND, gateway(generation=2), "gateway generation 1 -> 2"),
        (BOUND, gateway(images=("sha256:b",)), "gateway images none named -> sha256:b"),
        (BOUND, gateway(replicas=()), "-> none"),
        (BOUND, replica(uid="anew"), "gateway-1 (anew)"),
        (BOUND, gateway(replicas_owner="HPA gateway"), "gateway owners nobody else -> HPA gateway"),
        (BOUND, gateway(spec_owner="Argo CD"), "gateway owners nobody else -> Argo CD"),
        (BOUND, gateway(pods_owner="VPA"), "gateway owners nobody else -> VPA"),
        (BOUND, gateway(singleton=True), "gateway kind plain -> singleton"),
        (BOUND, gateway(stateful=True), "gateway kind plain -> stateful"),
        (BOUND, facts(workloads=()), "gateway unknown -> is not there"),
        (BOUND, facts(market=MarketFacts(phase="closed")), "phase continuous -> closed"),
        (DRAIN, node("n1", replicas=5), "node n1 ready, 1 replicas -> ready, 5 replicas"),
        (DRAIN, node("n2", ready=False), "node n2 ready -> not ready"),
        (DRAIN, node("n2", cordoned=True), "node n2 ready -> ready, cordoned"),
        (DRAIN, facts(nodes=NODES[:1]), "node n2 ready -> gone"),
        (DRAIN, facts(targets=frozenset()), "node:n1 is there -> is not there"),
        (FLAG, facts(targets=frozenset()), "config:limits is there -> is not there"),
    ],
)
def test_a_fact_that_matters_makes_another_plan_and_is_named(runbook, changed, told):
    before, after = plan_of(runbook, FACTS), plan_of(runbook, changed)
    assert before.digest != after.digest
    assert told in before.differs(after)


@pytest.mark.parametrize(
    ("runbook", "changed"),
    [
        (BOUND, gateway(seen_at=Instant(10**18))),
        (BOUND, replica(ready=False)),
        (BOUND, replica(running=False)),
        (BOUND, replica(started_at=Instant(7))),
        (BOUND, gateway(detail="2 of 2 ready")),
        (BOUND, gateway(restarts=4)),
        (BOUND, gateway(replicas=tuple(reversed(FACTS.workloads[1].replicas)))),
        (BOUND, node("n1", ready=False)),
        (BOUND, facts(leader="another leads")),
        (BOUND, facts(market=None)),
        (BOUND, facts(market=MarketFacts(phase="continuous", shares={"gateway-1": Share(8, 0.5, 0)}))),
        (BOUND, facts(market=MarketFacts(phase="continuous", next_auction_at=Instant(5)))),
        (BOUND, facts(workloads=tuple(reversed(FACTS.workloads)))),
        (DRAIN, node("n1", seen_at=Instant(10**18))),
        (DRAIN, node("n2", replicas=9)),
        (FLAG, gateway(generation=9)),
    ],
)
def test_what_only_time_changes_is_no_part_of_a_plan(runbook, changed):
    before, after = plan_of(runbook, FACTS), plan_of(runbook, changed)
    assert before.digest == after.digest
    assert before.differs(after) == ""


def test_another_target_consent_or_radius_is_another_plan():
    other = bind(GATEWAY, {"replica": "gateway-2"})
    assert isinstance(BOUND, Runbook)
    strict = msgspec.structs.replace(BOUND, consent=Consent.FOUR_EYES)
    wide = msgspec.structs.replace(BOUND, blast_radius=msgspec.structs.replace(BOUND.blast_radius, replicas=2))
    assert len({plan_of(one, FACTS).digest for one in (BOUND, other, strict, wide)}) == 4


def test_the_order_in_which_a_runbook_was_written_makes_no_other_plan():
    assert isinstance(BOUND, Runbook)
    one, other = (
        msgspec.structs.replace(BOUND, consent_by_level=levels)
        for levels in ({1: Consent.FOUR_EYES, 2: Consent.AUTOMATIC}, {2: Consent.AUTOMATIC, 1: Consent.FOUR_EYES})
    )
    assert plan_of(one, FACTS).digest == plan_of(other, FACTS).digest != plan_of(BOUND, FACTS).digest


def test_a_plan_is_named_by_its_first_digits_at_least():
    plan = plan_of(BOUND, FACTS)
    assert len(plan.digest) == 64
    assert plan.short == plan.digest[:12]
    assert names_plan(plan.short, plan.digest)
    assert names_plan(plan.digest[:20].upper(), plan.digest)
    assert not names_plan(plan.digest[:11], plan.digest)
    assert not names_plan("", plan.digest)
    assert not names_plan(plan.digest + "0", plan.digest)
