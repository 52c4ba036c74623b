"""Every rail, each with the case it refuses and the nearest one it lets pass."""
# mypy: disallow-untyped-calls=False, check-untyped-defs=False
# (pytest gives the types of tests and helpers here)

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.time import Instant, seconds
from runbooks.adapters.fake import plant
from runbooks.facts import PastRun, PlantFacts, target
from runbooks.model import (
    BlastRadius,
    Consent,
    HaltMarket,
    HaltSymbol,
    Limits,
    Outcome,
    RefusalReason,
    RestartReplica,
    ResumeMarket,
    ResumeSymbol,
    Runbook,
    Scale,
    SetReplicas,
    Step,
    Undo,
    VerifyReplay,
)
from runbooks.policy import FACTS_MAX_AGE, admit, permit

NOW = Instant(seconds(10_000))
HEALTHY = tuple(plant(NOW))
FACTS = PlantFacts(
    workloads=HEALTHY, allowed=frozenset({"engine", "gateway", "settlement"}), symbols=frozenset({"TWA", "TWB"})
)
RESTART = RestartReplica("gateway", "gateway-1")
SCALE = Scale("gateway", 2, 2, 4)


def book(*actions, **radius):
    undo = {Scale: Undo.RESTORE_REPLICAS, HaltSymbol: Undo.RESUME_SYMBOL}
    return Runbook(
        name="b", title="B", answers=("A",), service="gateway", team="t", level=2, consent=Consent.AUTOMATIC,
        parameters={}, guards=(),
        steps=tuple(Step(name="s", action=action, undo=undo.get(type(action), Undo.NOTHING)) for action in actions),
        blast_radius=BlastRadius(**{"replicas": 2, "symbols": 1, "market": True, **radius}),
        limits=Limits(cool_down_ns=seconds(30), runs_per_hour=3, ineffective_runs=2), when_refused="look",
    )  # fmt: skip


def decide(action, *, runbook=None, facts=FACTS, history=(), kill_switch=False, undo=False):
    runbook = runbook or book(action)
    answer = permit(action, runbook=runbook, facts=facts, history=history, kill_switch=kill_switch, now=NOW, undo=undo)
    assert answer.granted == (not answer.reason)
    return answer.reason


def past(ago, outcome=Outcome.MENDED, *, lasted=1, of="gateway/gateway-1", acted=True, name="b"):
    started = Instant(NOW - seconds(ago + lasted))
    return PastRun(
        runbook=name, target=of, started_at=started, ended_at=Instant(NOW - seconds(ago)), outcome=outcome, acted=acted
    )


@pytest.mark.parametrize(
    "action", [RESTART, SCALE, HaltSymbol("TWA", "gap"), HaltMarket("x"), ResumeMarket(), VerifyReplay("engine")]
)
def test_within_the_rails_every_action_passes_and_with_the_kill_switch_none_does(action):
    assert decide(action) == ""
    assert decide(action, kill_switch=True) == RefusalReason.KILL_SWITCH


def test_the_kill_switch_stops_an_undo_too():
    undo = SetReplicas("gateway", 2, only_if=4)
    assert decide(undo, runbook=book(SCALE), undo=True) == ""
    assert decide(undo, runbook=book(SCALE), undo=True, kill_switch=True) == RefusalReason.KILL_SWITCH


@pytest.mark.parametrize(
    "action",
    [
        RestartReplica("", "gateway-1"), RestartReplica("gateway", ""), RestartReplica("gateway", "gateway-9"),
        RestartReplica("nobody", "gateway-1"), RestartReplica("gateway", "*"), RestartReplica("gateway", "gateway-1\n"),
        Scale("", 1, 1, 3), Scale("nobody", 1, 1, 3), HaltSymbol("", "x"), HaltSymbol("TWZ", "x"), VerifyReplay(""),
    ],
)  # fmt: skip
def test_an_empty_or_unknown_target_is_no_target(action):
    assert decide(action) == RefusalReason.NO_TARGET


@given(st.text(), st.text())
def test_no_name_reaches_beyond_the_replicas_there_are(workload, replica):
    known = {(each.name, r.id) for each in HEALTHY for r in each.replicas}
    if (workload, replica) not in known:
        assert decide(RestartReplica(workload, replica)) == RefusalReason.NO_TARGET


def test_a_workload_off_the_allow_list_is_refused():
    assert decide(RestartReplica("watchdog", "watchdog-1")) == RefusalReason.NOT_ALLOWED


def test_an_action_the_runbook_does_not_contain_is_refused():
    assert decide(RESTART, runbook=book(SCALE)) == RefusalReason.NOT_ALLOWED
    assert decide(ResumeSymbol("TWA"), runbook=book(SCALE), undo=True) == RefusalReason.NOT_ALLOWED
    assert decide(ResumeSymbol("TWA"), runbook=book(HaltSymbol("TWA", "x")), undo=True) == ""


@pytest.mark.parametrize("action", [Scale("engine", 1, 1, 2), Scale("settlement", -1, 1, 2)])
def test_a_singleton_is_never_scaled(action):
    assert decide(action) == RefusalReason.SINGLETON


@pytest.mark.parametrize(
    ("actions", "fits", "exceeds"),
    [
        ([RESTART, RESTART], {"replicas": 2}, {"replicas": 1}),
        ([Scale("gateway", -2, 1, 4)], {"replicas": 2}, {"replicas": 1}),
        ([HaltSymbol("TWA", "x"), HaltSymbol("TWB", "x")], {"symbols": 2}, {"symbols": 1}),
        ([ResumeMarket()], {"market": True}, {"market": False}),
    ],
)
def test_all_steps_together_stay_within_the_blast_radius(actions, fits, exceeds):
    assert decide(actions[0], runbook=book(*actions, **fits)) == ""
    assert decide(actions[0], runbook=book(*actions, **exceeds)) == RefusalReason.BLAST_RADIUS


def test_an_undo_stays_within_the_blast_radius():
    assert decide(SetReplicas("gateway", 1, only_if=4), runbook=book(SCALE), undo=True) == RefusalReason.BLAST_RADIUS


def broken(count):
    """Return facts with the first `count` of six replicas not ready, and the platform's own in ruins."""
    workloads, left = [], count
    for each in HEALTHY:
        replicas = []
        for replica in each.replicas:
            replicas.append(msgspec.structs.replace(replica, ready=left <= 0))
            left -= 1
        workloads.append(msgspec.structs.replace(each, replicas=tuple(replicas)))
    ruin = msgspec.structs.replace(HEALTHY[0], name="control", owned_by="estate", desired=50, replicas=())
    return msgspec.structs.replace(FACTS, workloads=(*workloads, ruin))


def test_above_the_unhealthy_share_the_observer_is_suspected():
    assert decide(RESTART, facts=broken(3)) == ""
    assert decide(RESTART, facts=broken(4)) == RefusalReason.UNHEALTHY_SHARE
    assert decide(RESTART, runbook=book(RESTART, unhealthy_share=1.0), facts=broken(6)) == ""


def test_a_replica_that_should_run_and_is_not_listed_counts_as_unhealthy():
    empty = tuple(msgspec.structs.replace(each, replicas=()) if each.name != "gateway" else each for each in HEALTHY)
    assert decide(RESTART, facts=msgspec.structs.replace(FACTS, workloads=empty)) == RefusalReason.UNHEALTHY_SHARE


def test_facts_that_are_old_are_no_evidence():
    def seen(ago):
        old = tuple(msgspec.structs.replace(each, seen_at=Instant(NOW - ago)) for each in HEALTHY)
        return msgspec.structs.replace(FACTS, workloads=old)

    assert decide(RESTART, facts=seen(FACTS_MAX_AGE)) == ""
    assert decide(RESTART, facts=seen(FACTS_MAX_AGE + 1)) == RefusalReason.NO_EVIDENCE


OFTEN = [
    ([past(30)], None),
    ([past(29)], RefusalReason.COOL_DOWN),
    ([past(29, acted=False)], None),
    ([past(29, of="gateway/gateway-2")], None),
    ([past(29, name="other")], None),
    ([past(100), past(200)], None),
    ([past(100), past(200), past(3598)], RefusalReason.TOO_MANY_RUNS),
    ([past(100), past(200), past(3599)], None),
    ([past(100, Outcome.UNDONE)], None),
    ([past(100, Outcome.UNDONE), past(200, Outcome.NOT_PROVEN)], RefusalReason.INEFFECTIVE),
    ([past(100, Outcome.FAILED), past(200, Outcome.REFUSED)], RefusalReason.INEFFECTIVE),
    ([past(100, Outcome.FAILED), past(200, Outcome.NOT_APPLICABLE)], None),
    ([past(100, Outcome.FAILED), past(3599, Outcome.FAILED)], None),
]


@pytest.mark.parametrize(("history", "reason"), OFTEN)
def test_runs_that_are_too_close_too_many_or_in_vain_are_refused(history, reason):
    refusal = admit(book(RESTART), "gateway/gateway-1", history, (), False, NOW)
    assert (refusal and refusal.reason) == reason
    assert decide(RESTART, history=history) == (reason or ""), "the rail holds before the action, too"


def test_an_undo_is_not_held_up_by_how_often_runs_happened():
    undo = SetReplicas("gateway", 2, only_if=4)
    history = [past(1, Outcome.FAILED, of="gateway")] * 5
    assert decide(SCALE, history=history) == RefusalReason.INEFFECTIVE
    assert decide(undo, runbook=book(SCALE), history=history, undo=True) == ""


@pytest.mark.parametrize(
    ("active", "reason"),
    [
        ((), None),
        (("settlement/settlement-1", "symbol:TWA"), None),
        (("gateway/gateway-2",), RefusalReason.RUN_IN_PROGRESS),
        (("gateway",), RefusalReason.RUN_IN_PROGRESS),
    ],
)
def test_one_run_at_a_time_on_a_workload(active, reason):
    refusal = admit(book(RESTART), "gateway/gateway-1", (), active, False, NOW)
    assert (refusal and refusal.reason) == reason


def test_no_run_begins_with_the_kill_switch_on_or_without_a_target():
    assert (admit(book(RESTART), "gateway/gateway-1", (), (), True, NOW) or [None])[0] is RefusalReason.KILL_SWITCH
    assert (admit(book(RESTART), "", (), (), False, NOW) or [None])[0] is RefusalReason.NO_TARGET


@pytest.mark.parametrize(
    ("alert", "marked", "reason"),
    [
        ("SeriesAnomalous", False, RefusalReason.ANOMALY_ALONE),
        ("SeriesAnomalous", True, None),
        ("GatewayDown", False, None),
        ("", False, None),
    ],
)
def test_a_detector_alone_starts_only_what_is_marked_and_a_person_starts_what_they_like(alert, marked, reason):
    marked_book = msgspec.structs.replace(book(RESTART), anomaly_may_start=marked)
    refusal = admit(marked_book, "gateway/gateway-1", (), (), False, NOW, alert)
    assert (refusal and refusal.reason) == reason


def test_what_only_looks_has_a_target_of_its_own_and_stands_in_nobodys_way():
    looking = msgspec.structs.replace(book(VerifyReplay("engine")), anomaly_may_start=True)
    assert target(looking) == "look:b"
    assert admit(book(RESTART), "gateway/gateway-1", (), ("look:b",), False, NOW) is None
    assert admit(looking, "look:b", (), ("engine",), False, NOW) is None


@pytest.mark.parametrize(
    ("actions", "name"),
    [
        ([RESTART], "gateway/gateway-1"), ([VerifyReplay("engine"), SCALE], "gateway"),
        ([HaltSymbol("TWA", "x")], "symbol:TWA"), ([ResumeMarket()], "market"), ([VerifyReplay("engine")], ""),
    ],
)  # fmt: skip
def test_the_target_of_a_runbook_is_what_it_first_touches(actions, name):
    assert target(book(*actions)) == name
