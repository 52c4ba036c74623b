"""The rails: what a run may never do, whatever the runbook or the alert says.

Each rail is a function of its own that returns a `Refusal` or None; `permit` asks them in order before every action,
`admit` before a run begins. Nothing here remembers anything: facts, history and the time are arguments.

An undo passes the rails that bound its reach (kill switch, target, allow-list, singleton, radius) and not those that
bound how often and when: taking back half-way would be worse than taking back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from kernel.time import HOUR, SECOND, Duration, Instant
from runbooks.changes import Cordon, DeleteReplica, Drain, FailOver, TakeBack
from runbooks.facts import TARGET, PastRun, PlantFacts, area, find, target, target_of_action, workload_of
from runbooks.model import (
    OF_DETECTORS,
    Action,
    HaltMarket,
    HaltSymbol,
    Outcome,
    PermitAnswer,
    Refusal,
    RefusalReason,
    RestartReplica,
    ResumeMarket,
    ResumeSymbol,
    Runbook,
    Scale,
    SetReplicas,
    Step,
    Undo,
)
from runbooks.rails import (
    PAIR,
    refuse_fail_over,
    refuse_hourly_radius,
    refuse_market_radius,
    refuse_mixed_versions,
    refuse_not_leader,
    refuse_owned,
    refuse_phase,
    refuse_reach,
    refuse_second_node,
    refuse_stateful,
)
from runbooks.words import describe, duration

FACTS_MAX_AGE: Final = Duration(15 * SECOND)
"""Facts older than this are no basis for an action: about ten looks of the estate at its replicas were missed."""


# --- rails for each action ----------------------------------------------------------------------------------------


def permit(
    action: Action,
    *,
    runbook: Runbook,
    facts: PlantFacts,
    history: Sequence[PastRun],
    kill_switch: bool,
    now: Instant,
    undo: bool = False,
) -> PermitAnswer:
    """Decide whether an action may start now. `history` holds runs of the past hour, this one not among them."""
    refusal = (
        refuse_kill_switch(kill_switch)
        or refuse_not_leader(facts)
        or refuse_no_target(action, facts)
        or refuse_not_allowed(action, runbook, facts, undo=undo)
        or refuse_singleton(action, facts)
        or refuse_blast_radius(action, runbook)
        or refuse_old_facts(action, facts, now)
        or refuse_owned(action, facts)
    )
    if refusal is None and not undo:
        refusal = (
            refuse_reach(action, runbook, facts)
            or refuse_phase(action, runbook, facts, now)
            or refuse_stateful(action, runbook, facts)
            or refuse_fail_over(action, runbook, facts)
            or refuse_mixed_versions(action, facts)
            or refuse_second_node(action, facts)
            or refuse_unhealthy_share(runbook, facts)
            or refuse_market_radius(action, runbook, facts)
            or refuse_hourly_radius(action, facts, history, now)
            or refuse_often(runbook, target(runbook), history, now)
        )
    if refusal is None:
        return PermitAnswer(now, granted=True)
    return PermitAnswer(now, granted=False, reason=refusal.reason, detail=refusal.detail)


def refuse_kill_switch(kill_switch: bool) -> Refusal | None:  # noqa: FBT001 - the rail is about this one fact
    """Refuse everything while automatic actions are forbidden."""
    if not kill_switch:
        return None
    return Refusal(RefusalReason.KILL_SWITCH, "the kill switch is on: no automatic action starts")


def refuse_no_target(action: Action, facts: PlantFacts) -> Refusal | None:
    """Refuse a target that is empty, malformed or unknown. An empty selector is no target, never all of them."""
    where = target_of_action(action)
    kind, _, rest = where.rpartition(":")
    names = rest.split("/")
    if not all(TARGET.fullmatch(name) for name in names):
        return Refusal(RefusalReason.NO_TARGET, f"to {describe(action)} names no target")
    if isinstance(action, HaltSymbol | ResumeSymbol):
        known = action.symbol in facts.symbols
    elif isinstance(action, HaltMarket | ResumeMarket):
        known = True
    elif kind:
        known = where in facts.targets
    else:
        workload = find(facts, names[0])
        known = workload is not None and all(any(r.id == name for r in workload.replicas) for name in names[1:])
    return None if known else Refusal(RefusalReason.NO_TARGET, f"to {describe(action)}: the plant knows no such target")


def refuse_not_allowed(action: Action, runbook: Runbook, facts: PlantFacts, *, undo: bool) -> Refusal | None:
    """Refuse an action the runbook does not contain, and workloads that are not on the allow-list."""
    written = (
        any(_takes_back(step, action) for step in runbook.steps)
        if undo
        else any(step.action == action for step in runbook.steps)
    )
    if not written:
        return Refusal(RefusalReason.NOT_ALLOWED, f"{runbook.name} does not say to {describe(action)}")
    workload = workload_of(action)
    if workload and workload not in facts.allowed:
        allowed = ", ".join(sorted(facts.allowed)) or "none"
        return Refusal(RefusalReason.NOT_ALLOWED, f"{workload} is not on the allow-list ({allowed})")
    return None


def _takes_back(step: Step, action: Action) -> bool:
    match step.undo, step.action, action:
        case Undo.RESTORE_REPLICAS, Scale(), SetReplicas():
            return step.action.workload == action.workload
        case Undo.RESUME_SYMBOL, HaltSymbol(), ResumeSymbol():
            return step.action.symbol == action.symbol
        case ((Undo.RESTORE | Undo.RESTORE_REPLICAS), _, TakeBack()):
            return target_of_action(step.action) == action.target
        case _:
            return False


def refuse_singleton(action: Action, facts: PlantFacts) -> Refusal | None:
    """Refuse to scale a single writer: two of it make two books."""
    if not isinstance(action, Scale | SetReplicas):
        return None
    workload = find(facts, action.workload)
    if workload is None or not workload.singleton:
        return None
    return Refusal(RefusalReason.SINGLETON, f"{action.workload} is a single writer and is never scaled")


def refuse_blast_radius(action: Action, runbook: Runbook) -> Refusal | None:
    """Refuse what reaches further than the runbook's radius; all its steps count together."""
    radius = runbook.blast_radius
    actions = [step.action for step in runbook.steps]
    replicas = max(sum(map(_replicas, actions)), _replicas(action))
    symbols = len({a.symbol for a in (*actions, action) if isinstance(a, HaltSymbol | ResumeSymbol)})
    market = any(isinstance(a, HaltMarket | ResumeMarket) for a in (*actions, action))
    nodes = len({a.node for a in (*actions, action) if isinstance(a, Cordon | Drain)})
    if replicas > radius.replicas:
        words = f"{replicas} replicas would be touched, {radius.replicas} are allowed"
    elif symbols > radius.symbols:
        words = f"{symbols} symbols would be touched, {radius.symbols} are allowed"
    elif market and not radius.market:
        words = "the whole market would be touched, which is not allowed"
    elif nodes > radius.nodes:
        words = f"{nodes} nodes would be touched, {radius.nodes} are allowed"
    else:
        return None
    return Refusal(RefusalReason.BLAST_RADIUS, words)


def _replicas(action: Action) -> int:
    match action:
        case RestartReplica() | DeleteReplica():
            return 1
        case FailOver():
            return PAIR
        case Scale():
            return abs(action.by)
        case SetReplicas():
            return abs(action.replicas - action.only_if)
        case _:
            return 0


def refuse_old_facts(action: Action, facts: PlantFacts, now: Instant) -> Refusal | None:
    """Refuse to act on a workload that was not looked at lately."""
    workload = find(facts, workload_of(action))
    if workload is None or now - workload.seen_at <= FACTS_MAX_AGE:
        return None
    words = f"{workload.name} was last looked at {duration(now - workload.seen_at)} ago"
    return Refusal(RefusalReason.NO_EVIDENCE, words)


def refuse_unhealthy_share(runbook: Runbook, facts: PlantFacts) -> Refusal | None:
    """Refuse when so much seems broken that the observer is suspected first.

    Every replica of the exchange's own workloads counts, the target too; a replica that should run and is not listed
    counts as not ready. Platform processes (`owned_by: estate`) do not count: they do not trade.
    """
    exchange = [workload for workload in facts.workloads if workload.owned_by == "runbook"]
    total = sum(max(workload.desired, len(workload.replicas)) for workload in exchange)
    broken = total - sum(workload.ready for workload in exchange)
    allowed = runbook.blast_radius.unhealthy_share
    if total == 0 or broken / total <= allowed:
        return None
    words = f"{broken} of {total} replicas of the exchange are not ready, more than a share of {allowed:g}"
    return Refusal(RefusalReason.UNHEALTHY_SHARE, f"{words}: the observer is suspected first")


# --- rails for how often ------------------------------------------------------------------------------------------


def admit(
    runbook: Runbook,
    target: str,
    history: Iterable[PastRun],
    active: Collection[str],
    kill_switch: bool,  # noqa: FBT001 - a fact like the others
    now: Instant,
    alert: str = "",
) -> Refusal | None:
    """Decide whether a run may begin; None admits it.

    Args:
        runbook: with its parameters bound.
        target: as the function `target` gives it for the bound runbook.
        history: past runs, at least those of the past hour.
        active: targets of the runs now under way.
        kill_switch: whether automatic actions are forbidden.
        now: the present.
        alert: the name of the alert that asks for it; empty when a person does.
    """
    return (
        refuse_kill_switch(kill_switch)
        or refuse_anomaly_alone(runbook, alert)
        or (None if target else Refusal(RefusalReason.NO_TARGET, f"{runbook.name} has no target"))
        or refuse_in_progress(target, active)
        or refuse_often(runbook, target, history, now)
    )


def refuse_anomaly_alone(runbook: Runbook, alert: str) -> Refusal | None:
    """Refuse what only a detector asks for, unless the runbook is marked as safe for it."""
    if alert not in OF_DETECTORS or runbook.anomaly_may_start:
        return None
    words = f"only {alert} asks for it, and {runbook.name} is not marked anomaly_may_start"
    return Refusal(RefusalReason.ANOMALY_ALONE, f"{words}: a detector's word is no evidence to act on")


def refuse_in_progress(target: str, active: Collection[str]) -> Refusal | None:
    """Refuse a second run on the same workload or symbol: two cures at once prove nothing."""
    other = next((taken for taken in sorted(active) if area(taken) == area(target)), None)
    if other is None:
        return None
    return Refusal(RefusalReason.RUN_IN_PROGRESS, f"a run on {other} is under way")


def refuse_often(runbook: Runbook, target: str, history: Iterable[PastRun], now: Instant) -> Refusal | None:
    """Refuse what has not helped, what ran a moment ago, and what ran too often for this target."""
    past = [
        r for r in history if r.acted and (r.runbook, r.target) == (runbook.name, target) and r.ended_at is not None
    ]
    return (
        refuse_ineffective(runbook, past, now)
        or refuse_cool_down(runbook, past, now)
        or refuse_rate(runbook, past, now)
    )


def refuse_ineffective(runbook: Runbook, past: Sequence[PastRun], now: Instant) -> Refusal | None:
    """Refuse once enough runs of the past hour did not help: a person takes over."""
    vain = [r for r in _lately(past, now) if r.outcome not in {Outcome.MENDED, Outcome.NOT_APPLICABLE}]
    if len(vain) < runbook.limits.ineffective_runs:
        return None
    words = f"{len(vain)} of its runs within the hour did not help"
    return Refusal(RefusalReason.INEFFECTIVE, f"{words}: a person takes over")


def refuse_cool_down(runbook: Runbook, past: Sequence[PastRun], now: Instant) -> Refusal | None:
    """Refuse until the last run has had time to show its effect."""
    last = max((r.ended_at for r in past if r.ended_at is not None), default=None)
    if last is None or now - last >= runbook.limits.cool_down_ns:
        return None
    wait = duration(runbook.limits.cool_down_ns)
    return Refusal(RefusalReason.COOL_DOWN, f"it ran {duration(max(now - last, 0))} ago; it waits {wait} between runs")


def refuse_rate(runbook: Runbook, past: Sequence[PastRun], now: Instant) -> Refusal | None:
    """Refuse more than the allowed number of runs within an hour."""
    lately = len(_lately(past, now))
    if lately < runbook.limits.runs_per_hour:
        return None
    return Refusal(RefusalReason.TOO_MANY_RUNS, f"it ran {lately} times within the hour, as often as is allowed")


def _lately(past: Sequence[PastRun], now: Instant) -> list[PastRun]:
    return [run for run in past if now - run.started_at < HOUR]
