"""The rails that look at more than the action: each with the case it refuses and the nearest one it lets pass."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import msgspec
import pytest

from kernel.time import HOUR, MINUTE, Instant, seconds
from runbooks.adapters.fake import plant
from runbooks.changes import (
    Cordon,
    DeleteReplica,
    Drain,
    FailOver,
    PauseRollout,
    RestoreConfig,
    RollBack,
    RollingRestart,
    SetFlag,
    SwitchService,
    TakeBack,
)
from runbooks.facts import MarketFacts, PastRun, PlantFacts, Share
from runbooks.model import (
    BlastRadius,
    Consent,
    HaltMarket,
    HaltSymbol,
    KeepSnapshot,
    Limits,
    Outcome,
    RefusalReason,
    RestartReplica,
    ResumeMarket,
    Runbook,
    Scale,
    SetReplicas,
    Step,
    Undo,
    VerifyReplay,
)
from runbooks.policy import permit
from runbooks.ports import NodeStatus
from runbooks.rails import touched

NOW = Instant(seconds(100_000))
TARGETS = frozenset({"node:n1", "node:n2", "node:n3", "config:flags", "service:engine", "job:j"})
NODES = tuple(NodeStatus(f"n{n}", ready=True, cordoned=False, replicas=2, seen_at=NOW) for n in (1, 2, 3))
RESTART = RestartReplica("gateway", "gateway-1")
SCALE = Scale("gateway", 1, 2, 4)


def workload(name, **changes):
    return msgspec.structs.replace(next(one for one in plant(NOW) if one.name == name), **changes)


def facts(*changed, **more):
    names = {one.name for one in changed}
    workloads = (*(one for one in plant(NOW) if one.name not in names), *changed)
    defaults = {
        "allowed": frozenset(one.name for one in workloads), "symbols": frozenset({"TWA"}), "targets": TARGETS,
        "nodes": NODES,
    }  # fmt: skip
    return PlantFacts(workloads=workloads, **{**defaults, **more})


def book(*actions, consent=Consent.AUTOMATIC, phases=(), undo=None, **radius):
    fits = {Scale: Undo.RESTORE_REPLICAS, HaltSymbol: Undo.RESUME_SYMBOL}
    return Runbook(
        name="b", title="B", answers=("A",), service="gateway", team="t", level=2, consent=consent, parameters={},
        guards=(), phases=phases,
        steps=tuple(
            Step(name="s", action=action, undo=undo or fits.get(type(action), Undo.NOTHING)) for action in actions
        ),
        blast_radius=BlastRadius(**{"replicas": 9, "symbols": 1, "market": True, "nodes": 1, **radius}),
        limits=Limits(cool_down_ns=seconds(30), runs_per_hour=90, ineffective_runs=2), when_refused="look",
    )  # fmt: skip


def decide(action, *, runbook=None, plant_facts=None, history=(), undo=False):
    runbook = runbook or book(action)
    answer = permit(
        action, runbook=runbook, facts=plant_facts or facts(), history=history, kill_switch=False, now=NOW, undo=undo
    )
    assert answer.granted == (not answer.reason)
    return answer


def reason(*args, **kwargs):
    return decide(*args, **kwargs).reason


def pair(*ready):
    """The gateways, of which one is as the primary of a pair and the other as its stand-by."""
    one, two = workload("gateway").replicas
    return workload("gateway", replicas=tuple(
        msgspec.structs.replace(each, ready=is_ready) for each, is_ready in zip((one, two), ready, strict=True)
    ))  # fmt: skip


def test_a_fail_over_needs_one_to_go_to_and_two_people_when_the_old_one_is_ready():
    action = FailOver("gateway", "gateway-1")
    assert reason(action, plant_facts=facts(pair(False, True))) == ""
    assert reason(action, plant_facts=facts(pair(False, False))) == RefusalReason.STATE_UNSAFE
    alone = workload("gateway", replicas=pair(False, True).replicas[:1])
    assert reason(action, plant_facts=facts(alone)) == RefusalReason.STATE_UNSAFE
    assert reason(action, plant_facts=facts(pair(True, True))) == RefusalReason.FOUR_EYES
    eyes = book(action, consent=Consent.FOUR_EYES)
    assert reason(action, runbook=eyes, plant_facts=facts(pair(True, True))) == ""


def test_a_fail_over_touches_both_of_the_pair_and_is_kept_out_of_an_auction_while_the_old_one_serves():
    action, auction = FailOver("gateway", "gateway-1"), MarketFacts(phase="opening_auction", auction=True)
    assert touched(action, facts()) == 2
    narrow = book(action, replicas=1)
    assert reason(action, runbook=narrow, plant_facts=facts(pair(False, True))) == RefusalReason.BLAST_RADIUS
    eyes = book(action, consent=Consent.FOUR_EYES)
    serving = facts(pair(True, True), market=auction)
    assert reason(action, runbook=eyes, plant_facts=serving) == RefusalReason.MARKET_PHASE
    assert reason(action, plant_facts=facts(pair(False, True), market=auction)) == ""
    assert reason(FailOver("gateway", "gateway-9"), plant_facts=facts(pair(False, True))) == RefusalReason.NO_TARGET
    assert reason(FailOver("gateway", ""), plant_facts=facts(pair(False, True))) == RefusalReason.NO_TARGET


@pytest.mark.parametrize(
    "action",
    [RESTART, SCALE, RollingRestart("gateway"), RollBack("gateway"), PauseRollout("gateway"), Cordon("n1"), Drain("n1"),
     SetFlag("flags", "f", "v"), RestoreConfig("flags"), DeleteReplica("gateway", "gateway-1"), KeepSnapshot("engine")],
)  # fmt: skip
def test_within_the_rails_every_change_passes(action):
    assert reason(action) == ""


@pytest.mark.parametrize(
    "action",
    [RollingRestart(""), RollingRestart("*"), RollBack("nobody"), DeleteReplica("gateway", ""), Cordon(""), Drain("n9"),
     Drain("*"), SetFlag("", "f", "v"), SetFlag("other", "f", "v"), RestoreConfig("flags/x"), TakeBack("", "k")],
)  # fmt: skip
def test_an_empty_unknown_or_too_wide_target_is_no_target(action):
    assert reason(action, runbook=book(action, undo=Undo.RESTORE)) == RefusalReason.NO_TARGET


def test_a_workload_off_the_allow_list_is_not_rolled_back():
    assert reason(RollBack("gateway"), plant_facts=facts(allowed=frozenset({"engine"}))) == RefusalReason.NOT_ALLOWED


def test_only_what_a_step_owes_is_taken_back():
    back = TakeBack("gateway", "run/0")
    assert reason(back, runbook=book(RollBack("gateway"), undo=Undo.RESTORE), undo=True) == ""
    assert reason(back, runbook=book(RollBack("settlement"), undo=Undo.RESTORE), undo=True) == RefusalReason.NOT_ALLOWED
    assert reason(back, runbook=book(RollBack("gateway")), undo=True) == RefusalReason.NOT_ALLOWED


def test_who_does_not_lead_does_nothing_not_even_an_undo():
    led = facts(leader="control-2 leads")
    assert reason(RESTART, plant_facts=led) == RefusalReason.NOT_LEADER
    undo = SetReplicas("gateway", 2, only_if=3)
    assert reason(undo, runbook=book(SCALE), plant_facts=led, undo=True) == RefusalReason.NOT_LEADER


@pytest.mark.parametrize(
    ("owner", "refused", "passes"),
    [
        ("spec_owner", (SCALE, RollBack("gateway"), RollingRestart("gateway"), PauseRollout("gateway")), (RESTART,)),
        ("replicas_owner", (SCALE,), (RESTART, RollBack("gateway"), RollingRestart("gateway"))),
        ("pods_owner", (RollingRestart("gateway"),), (SCALE, RESTART)),
    ],
)
def test_what_another_controller_owns_is_left_to_it_by_name(owner, refused, passes):
    owned = facts(workload("gateway", **{owner: "the Argo CD application shop"}))
    for action in refused:
        answer = decide(action, plant_facts=owned)
        assert answer.reason == RefusalReason.OWNED
        assert "the Argo CD application shop" in answer.detail
    for action in passes:
        assert reason(action, plant_facts=owned) == ""


def market(**more):
    return facts(market=MarketFacts(**{"phase": "continuous", **more}))


@pytest.mark.parametrize("action", [RESTART, RollingRestart("gateway"), Drain("n1"), SetFlag("flags", "f", "v")])
def test_nothing_is_disrupted_in_an_auction_or_shortly_before_one(action):
    soon, later = Instant(NOW + 4 * MINUTE), Instant(NOW + 6 * MINUTE)
    assert reason(action, plant_facts=market(phase="closing_auction", auction=True)) == RefusalReason.MARKET_PHASE
    assert reason(action, plant_facts=market(next_auction_at=soon)) == RefusalReason.MARKET_PHASE
    assert reason(action, plant_facts=market(next_auction_at=later)) == ""


@pytest.mark.parametrize("action", [HaltSymbol("TWA", "gap"), HaltMarket("x"), SCALE, VerifyReplay("engine")])
def test_halts_and_what_nobody_feels_are_allowed_in_an_auction(action):
    assert reason(action, plant_facts=market(phase="opening_auction", auction=True)) == ""


def test_recovering_what_is_down_and_reopening_disrupt_nobody():
    down = workload("gateway")
    first, second = down.replicas
    down = msgspec.structs.replace(down, replicas=(msgspec.structs.replace(first, ready=False), second))
    auction = msgspec.structs.replace(facts(down), market=MarketFacts(phase="closing_auction", auction=True))
    assert reason(RESTART, plant_facts=auction) == ""
    assert reason(RestartReplica("gateway", "gateway-2"), plant_facts=auction) == RefusalReason.MARKET_PHASE
    assert reason(ResumeMarket(), plant_facts=auction) == ""


def test_scaling_in_is_felt_and_waits_for_the_auction_to_end():
    down = Scale("gateway", -1, 1, 4)
    assert reason(down, plant_facts=market(auction=True)) == RefusalReason.MARKET_PHASE


def test_a_runbook_for_other_phases_waits_for_them():
    kept = book(RESTART, phases=("closed",))
    assert reason(RESTART, runbook=kept, plant_facts=market()) == RefusalReason.MARKET_PHASE
    assert reason(RESTART, runbook=kept, plant_facts=market(phase="closed")) == ""
    assert reason(RESTART, runbook=kept) == RefusalReason.MARKET_PHASE  # without a calendar it is always continuous


ENGINE = RestartReplica("engine", "engine-1")
SAFELY = (HaltMarket("x"), KeepSnapshot("engine"), ENGINE, VerifyReplay("engine"), ResumeMarket())


def test_a_ready_engine_is_restarted_only_the_safe_way_and_by_four_eyes():
    assert reason(ENGINE, runbook=book(*SAFELY, consent=Consent.FOUR_EYES)) == ""
    for consent in (Consent.AUTOMATIC, Consent.ONE_APPROVER):
        assert reason(ENGINE, runbook=book(*SAFELY, consent=consent)) == RefusalReason.FOUR_EYES
    for left_out in (0, 3, 4):
        steps = tuple(action for n, action in enumerate(SAFELY) if n != left_out)
        assert reason(ENGINE, runbook=book(*steps, consent=Consent.FOUR_EYES)) == RefusalReason.STATE_UNSAFE
    upside_down = book(*reversed(SAFELY), consent=Consent.FOUR_EYES)
    assert reason(ENGINE, runbook=upside_down) == RefusalReason.STATE_UNSAFE


def test_an_engine_that_serves_nobody_may_be_restarted_by_itself():
    down = workload("engine")
    down = msgspec.structs.replace(
        down, replicas=tuple(msgspec.structs.replace(one, ready=False) for one in down.replicas)
    )
    assert reason(ENGINE, plant_facts=facts(down)) == ""


@pytest.mark.parametrize("action", [RollingRestart("engine"), RollBack("engine"), DeleteReplica("engine", "engine-1")])
def test_state_is_never_restarted_in_a_roll_rolled_back_or_deleted(action):
    for consent in Consent:
        assert reason(action, runbook=book(action, consent=consent)) == RefusalReason.STATE_UNSAFE


def test_an_annotation_makes_a_workload_stateful_too():
    marked = facts(workload("settlement", stateful=True))
    assert reason(RollingRestart("settlement"), plant_facts=marked) == RefusalReason.STATE_UNSAFE
    assert reason(RollingRestart("settlement")) == ""


def test_a_service_is_switched_only_after_an_equal_hash_and_by_four_eyes():
    switch = SwitchService("engine", "green")
    verified = (VerifyReplay("engine"), switch)
    assert reason(switch, runbook=book(*verified, consent=Consent.FOUR_EYES)) == ""
    assert reason(switch, runbook=book(switch, consent=Consent.FOUR_EYES)) == RefusalReason.STATE_UNSAFE
    assert reason(switch, runbook=book(*verified)) == RefusalReason.FOUR_EYES
    narrow = book(*verified, consent=Consent.FOUR_EYES, market=False)
    assert reason(switch, runbook=narrow) == RefusalReason.BLAST_RADIUS


def test_mixed_versions_are_not_scaled():
    mixed = facts(workload("gateway", images=("app@sha256:1", "app@sha256:2")))
    assert reason(SCALE, plant_facts=mixed) == RefusalReason.MIXED_VERSIONS
    assert reason(RESTART, plant_facts=mixed) == ""
    assert reason(SCALE, plant_facts=facts(workload("gateway", images=("app@sha256:1",)))) == ""


@pytest.mark.parametrize("action", [Cordon("n1"), Drain("n1")])
def test_never_two_nodes_at_once_and_never_the_last(action):
    for change in ({"cordoned": True}, {"ready": False}):
        other = msgspec.structs.replace(NODES[1], **change)
        assert reason(action, plant_facts=facts(nodes=(NODES[0], other, NODES[2]))) == RefusalReason.BLAST_RADIUS
        itself = msgspec.structs.replace(NODES[0], **change)
        assert reason(action, plant_facts=facts(nodes=(itself, *NODES[1:]))) == ""
    assert reason(action, plant_facts=facts(nodes=NODES[:1])) == RefusalReason.BLAST_RADIUS


def test_a_radius_without_nodes_touches_none():
    assert reason(Drain("n1"), runbook=book(Drain("n1"), nodes=0)) == RefusalReason.BLAST_RADIUS


@pytest.mark.parametrize(
    ("action", "count"), [(RollingRestart("gateway"), 2), (RollBack("gateway"), 2), (Drain("n1"), 2), (RESTART, 1)]
)
def test_what_a_change_reaches_is_counted_by_the_plant(action, count):
    assert touched(action, facts()) == count
    assert reason(action, runbook=book(action, replicas=count)) == ""
    assert reason(action, runbook=book(action, replicas=count - 1)) == RefusalReason.BLAST_RADIUS


SHARES = {
    "gateway-1": Share(8, 0.7, 0), "gateway-2": Share(8, 0.3, 0), "engine-1": Share(8, 1.0, 5_000),
}  # fmt: skip


@pytest.mark.parametrize(
    ("radius", "replica", "refused"),
    [
        ({"volume_share": 0.6}, "gateway-1", True), ({"volume_share": 0.6}, "gateway-2", False),
        ({"symbols_served": 7}, "gateway-1", True), ({"symbols_served": 8}, "gateway-1", False),
        ({}, "gateway-1", False),
    ],
)  # fmt: skip
def test_the_radius_is_bounded_in_units_of_the_market(radius, replica, refused):
    action = RestartReplica("gateway", replica)
    known = market(shares=SHARES)
    answer = decide(action, runbook=book(action, **radius), plant_facts=known)
    assert answer.reason == (RefusalReason.BLAST_RADIUS if refused else "")


def test_open_notional_bounds_the_radius_too():
    down = book(*SAFELY, consent=Consent.FOUR_EYES, notional=4_999)
    assert reason(ENGINE, runbook=down, plant_facts=market(shares=SHARES)) == RefusalReason.BLAST_RADIUS
    down = book(*SAFELY, consent=Consent.FOUR_EYES, notional=5_000)
    assert reason(ENGINE, runbook=down, plant_facts=market(shares=SHARES)) == ""


def test_a_share_of_the_market_that_is_not_known_is_no_share():
    bounded = book(RESTART, volume_share=0.9)
    assert reason(RESTART, runbook=bounded) == RefusalReason.NO_EVIDENCE
    assert reason(RESTART, runbook=bounded, plant_facts=market(shares={})) == RefusalReason.NO_EVIDENCE


def test_a_replica_that_is_not_ready_carries_nothing_of_the_market():
    down = workload("gateway")
    first, second = down.replicas
    down = msgspec.structs.replace(down, replicas=(msgspec.structs.replace(first, ready=False), second))
    known = msgspec.structs.replace(facts(down), market=MarketFacts(phase="continuous", shares=SHARES))
    assert reason(RESTART, runbook=book(RESTART, volume_share=0.1), plant_facts=known) == ""


def test_taking_two_replicas_away_counts_both_shares():
    down = Scale("gateway", -2, 0, 4)
    assert reason(down, runbook=book(down, volume_share=0.9), plant_facts=market(shares=SHARES)) == (
        RefusalReason.BLAST_RADIUS
    )


def past(ago_s, touched_, of="gateway/gateway-2", *, acted=True):
    at = Instant(NOW - seconds(ago_s))
    return PastRun(
        runbook="another", target=of, started_at=at, ended_at=at, outcome=Outcome.MENDED, acted=acted, touched=touched_
    )


def test_all_runs_together_touch_only_so_many_replicas_of_a_workload_an_hour():
    tight = facts(per_hour=3)
    assert reason(RESTART, plant_facts=tight, history=[past(100, 2)]) == ""
    assert reason(RESTART, plant_facts=tight, history=[past(100, 3)]) == RefusalReason.BLAST_RADIUS
    assert reason(RESTART, plant_facts=tight, history=[past(100, 2), past(90, 1)]) == RefusalReason.BLAST_RADIUS
    assert reason(RESTART, plant_facts=tight, history=[past(HOUR / seconds(1) + 1, 3)]) == ""
    assert reason(RESTART, plant_facts=tight, history=[past(100, 3, "settlement")]) == ""
    assert reason(RESTART, plant_facts=tight, history=[past(100, 3, acted=False)]) == ""
