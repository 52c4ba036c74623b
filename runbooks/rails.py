"""The rails that look at more than the action: who owns what, the state it holds, its version, the market, the hour.

As in `runbooks.policy`, each is a function of its own that returns a `Refusal` or None and remembers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kernel.time import HOUR, Instant
from runbooks.changes import (
    Cordon,
    DeleteReplica,
    Drain,
    FailOver,
    PauseRollout,
    RestoreConfig,
    ResumeRollout,
    RollBack,
    RollingRestart,
    SetFlag,
    SwitchService,
    TakeBack,
)
from runbooks.facts import PastRun, PlantFacts, Share, area, find, target_of_action, workload_of
from runbooks.model import (
    Action,
    Consent,
    HaltMarket,
    Refusal,
    RefusalReason,
    RestartReplica,
    ResumeMarket,
    Runbook,
    Scale,
    SetReplicas,
    VerifyReplay,
)
from runbooks.ports import WorkloadStatus
from runbooks.words import describe, duration

STATEFUL: Final = frozenset({"engine"})
"""The catalogue of workloads whose state a careless restart can lose; an annotation of the workload adds others."""
PAIR: Final = 2
"""Replicas that a fail-over touches: it ends one and makes another what it was not."""
ALWAYS: Final = "continuous"
"""The market's phase where no calendar is kept."""
_SPEC: Final = (Scale, SetReplicas, RollingRestart, RollBack, PauseRollout, ResumeRollout, TakeBack)
_ROLLING: Final = (RollingRestart, RollBack, Drain)
"""What ends replicas one after the other, within a disruption budget."""


def refuse_not_leader(facts: PlantFacts) -> Refusal | None:
    """Refuse everything to a controller that does not lead."""
    return Refusal(RefusalReason.NOT_LEADER, facts.leader) if facts.leader else None


def refuse_owned(action: Action, facts: PlantFacts) -> Refusal | None:
    """Refuse to write what another controller or person owns: it would be reverted, and the two would fight."""
    workload = find(facts, workload_of(action))
    if workload is None:
        return None
    owner = ""
    if isinstance(action, _SPEC):
        owner = workload.spec_owner
    if isinstance(action, Scale | SetReplicas):
        owner = owner or workload.replicas_owner
    if isinstance(action, RollingRestart):
        owner = owner or workload.pods_owner
    if not owner:
        return None
    return Refusal(RefusalReason.OWNED, f"to {describe(action)} is not ours to do: {workload.name} belongs to {owner}")


def refuse_phase(action: Action, runbook: Runbook, facts: PlantFacts, now: Instant) -> Refusal | None:
    """Refuse what disrupts in an auction or shortly before one, and what the runbook keeps for other phases."""
    market = facts.market
    phase = market.phase if market is not None else ALWAYS
    if runbook.phases and phase not in runbook.phases:
        words = f"the market is in {phase}, {runbook.name} acts only in {', '.join(runbook.phases)}"
        return Refusal(RefusalReason.MARKET_PHASE, words)
    if market is None or not is_disruptive(action) or _is_down(action, facts):
        return None
    if market.auction:
        return Refusal(RefusalReason.MARKET_PHASE, f"the market is in {phase}: nothing is disrupted in an auction")
    if market.next_auction_at is not None and 0 <= market.next_auction_at - now < market.quiet_ns:
        ahead = duration(market.next_auction_at - now)
        words = f"an auction begins in {ahead}: nothing is disrupted in the {duration(market.quiet_ns)} before one"
        return Refusal(RefusalReason.MARKET_PHASE, words)
    return None


def is_disruptive(action: Action) -> bool:
    """Tell whether an action can be felt by who trades now. Halts and reopening are not meant: people wait for them."""
    if isinstance(action, Scale):
        return action.by < 0
    disruptive = (RestartReplica, DeleteReplica, FailOver, SwitchService, SetFlag, RestoreConfig, *_ROLLING)
    return isinstance(action, disruptive)


def _is_down(action: Action, facts: PlantFacts) -> bool:
    """Tell whether an action ends one replica that serves nobody anyway: recovering it disrupts nothing."""
    if not isinstance(action, RestartReplica | DeleteReplica | FailOver):
        return False
    workload = find(facts, action.workload)
    return workload is not None and any(one.id == action.replica and not one.ready for one in workload.replicas)


def refuse_stateful(action: Action, runbook: Runbook, facts: PlantFacts) -> Refusal | None:  # noqa: PLR0911 - each a rule
    """Refuse to touch state but by the safe way: halted, verified by replay, reopened, and agreed to by two people.

    A stateful replica that is not ready serves nobody; starting it anew loses nothing that is not lost, so it needs no
    consent. Its engine starts halted, and the replay is verified before the market reopens.
    """
    if isinstance(action, SwitchService):
        return _refuse_unverified_switch(action, runbook)
    workload = find(facts, workload_of(action))
    if workload is None or not is_stateful(workload):
        return None
    if isinstance(action, RollingRestart | RollBack | DeleteReplica):
        words = f"{workload.name} holds state: it is never {_DONE_TO[type(action)]}"
        return Refusal(RefusalReason.STATE_UNSAFE, words)
    if not isinstance(action, RestartReplica):
        return None
    ready = any(replica.ready for replica in workload.replicas if replica.id == action.replica)
    if not ready:
        return None
    kinds = [type(step.action) for step in runbook.steps]
    at = next((n for n, step in enumerate(runbook.steps) if step.action == action), 0)
    if HaltMarket not in kinds[:at] or VerifyReplay not in kinds[at:] or ResumeMarket not in kinds[at:]:
        words = f"{workload.name} is ready and holds state: halt first, verify the replay after, then reopen"
        return Refusal(RefusalReason.STATE_UNSAFE, words)
    return _refuse_fewer_eyes(runbook, f"restarting {workload.name} while it is ready")


_DONE_TO: Final[dict[type, str]] = {
    RollingRestart: "restarted a few replicas at a time",
    RollBack: "rolled back",
    DeleteReplica: "deleted by force",
}


def is_stateful(workload: WorkloadStatus) -> bool:
    """Tell whether a workload keeps state that a careless restart can lose."""
    return workload.stateful or workload.name in STATEFUL


def _refuse_unverified_switch(action: SwitchService, runbook: Runbook) -> Refusal | None:
    kinds = [type(step.action) for step in runbook.steps]
    at = next((n for n, step in enumerate(runbook.steps) if step.action == action), 0)
    if VerifyReplay not in kinds[:at]:
        words = f"{action.service} is switched only after an equal hash was verified"
        return Refusal(RefusalReason.STATE_UNSAFE, words)
    return _refuse_fewer_eyes(runbook, f"switching {action.service}")


def _refuse_fewer_eyes(runbook: Runbook, what: str) -> Refusal | None:
    if runbook.consent is Consent.FOUR_EYES:
        return None
    return Refusal(RefusalReason.FOUR_EYES, f"{what} needs the consent of two people; {runbook.name} does not ask them")


def refuse_fail_over(action: Action, runbook: Runbook, facts: PlantFacts) -> Refusal | None:
    """Refuse a fail-over to nobody, and without two people's consent one from a replica that is ready.

    Whether the other holds everything only the platform knows: it refuses by itself what could lose something.
    """
    workload = find(facts, workload_of(action))
    if not isinstance(action, FailOver) or workload is None:
        return None
    others = [replica.id for replica in workload.replicas if replica.id != action.replica and replica.ready]
    if len(workload.replicas) != PAIR or len(others) != 1:
        words = f"{workload.name} has {len(others)} other ready replicas"
        return Refusal(RefusalReason.STATE_UNSAFE, f"{words}: a fail-over needs one of a pair to go to")
    if any(replica.ready for replica in workload.replicas if replica.id == action.replica):
        return _refuse_fewer_eyes(runbook, f"failing over from {action.replica} while it is ready")
    return None


def refuse_mixed_versions(action: Action, facts: PlantFacts) -> Refusal | None:
    """Refuse to scale while replicas run different images: a rollout is under way or went wrong."""
    workload = find(facts, workload_of(action))
    if workload is None or not isinstance(action, Scale) or len(workload.images) <= 1:
        return None
    words = f"{workload.name} runs {len(workload.images)} images at once ({', '.join(workload.images)})"
    return Refusal(RefusalReason.MIXED_VERSIONS, f"{words}: it is scaled when one is left")


def refuse_second_node(action: Action, facts: PlantFacts) -> Refusal | None:
    """Refuse to take a node out while another one is out, and ever to take the last one."""
    if not isinstance(action, Cordon | Drain):
        return None
    others = [node for node in facts.nodes if node.name != action.node]
    out = [node for node in others if node.cordoned or not node.ready]
    if out:
        words = f"{', '.join(node.name for node in out)} is out already: never two nodes at once"
    elif not others:
        words = f"{action.node} is the only node"
    else:
        return None
    return Refusal(RefusalReason.BLAST_RADIUS, words)


def refuse_reach(action: Action, runbook: Runbook, facts: PlantFacts) -> Refusal | None:
    """Refuse to touch more replicas than the radius, where only the plant knows how many there are."""
    if not isinstance(action, (*_ROLLING, SwitchService)):
        return None
    if isinstance(action, SwitchService) and not runbook.blast_radius.market:
        return Refusal(RefusalReason.BLAST_RADIUS, "the whole market would be touched, which is not allowed")
    count = touched(action, facts)
    if count <= runbook.blast_radius.replicas:
        return None
    words = f"{count} replicas would be touched, {runbook.blast_radius.replicas} are allowed"
    return Refusal(RefusalReason.BLAST_RADIUS, words)


def touched(action: Action, facts: PlantFacts) -> int:  # noqa: PLR0911 - one line for each kind of action
    """Return how many replicas an action ends, as far as the plant knows now."""
    workload = find(facts, workload_of(action))
    match action:
        case RestartReplica() | DeleteReplica():
            return 1
        case FailOver():
            return PAIR
        case Scale():
            return abs(action.by)
        case SetReplicas():
            return abs(action.replicas - action.only_if)
        case Drain():
            return sum(node.replicas for node in facts.nodes if node.name == action.node)
        case RollingRestart() | RollBack():
            return len(workload.replicas) if workload is not None else 0
        case _:
            return 0


def refuse_market_radius(action: Action, runbook: Runbook, facts: PlantFacts) -> Refusal | None:
    """Refuse what reaches further into the market than allowed: share of volume, symbols, open notional.

    Without the market's figures a runbook that bounds them does not act.
    """
    radius = runbook.blast_radius
    if (radius.volume_share, radius.symbols_served, radius.notional) == (None, None, None) or not is_disruptive(action):
        return None
    share = market_share(action, facts)
    if share is None:
        return Refusal(
            RefusalReason.NO_EVIDENCE, f"what of the market goes through {target_of_action(action)} is not known"
        )
    if radius.volume_share is not None and share.volume > radius.volume_share:
        words = f"{share.volume:.0%} of the order volume goes through it, {radius.volume_share:.0%} is allowed"
    elif radius.symbols_served is not None and share.symbols > radius.symbols_served:
        words = f"{share.symbols} symbols are served by it, {radius.symbols_served} are allowed"
    elif radius.notional is not None and share.notional > radius.notional:
        words = f"open notional of {share.notional} rests on it, {radius.notional} is allowed"
    else:
        return None
    return Refusal(RefusalReason.BLAST_RADIUS, f"to {describe(action)}: {words}")


def market_share(action: Action, facts: PlantFacts) -> Share | None:
    """Return what of the market an action touches at once; None when that is not known.

    What goes replica by replica counts as the largest of them. A replica that is not ready carries nothing.
    """
    workload = find(facts, workload_of(action))
    if facts.market is None:
        return None
    if isinstance(action, Drain):
        replicas = [replica for each in facts.workloads for replica in each.replicas]
    elif workload is None:
        return Share(0, 0.0, 0)
    else:
        name = getattr(action, "replica", "")
        replicas = [replica for replica in workload.replicas if not name or replica.id == name]
    known = {replica.id: facts.market.shares.get(replica.id) for replica in replicas if replica.ready}
    if any(share is None for share in known.values()):
        return None
    shares = sorted((share for share in known.values() if share is not None), key=lambda share: -share.volume)
    at_once = shares[: abs(action.by)] if isinstance(action, Scale) else shares[:1]
    return Share(
        max((share.symbols for share in at_once), default=0),
        sum(share.volume for share in at_once),
        sum(share.notional for share in at_once),
    )


def refuse_hourly_radius(action: Action, facts: PlantFacts, history: Sequence[PastRun], now: Instant) -> Refusal | None:
    """Refuse once all runs together have touched enough replicas of a workload within the hour."""
    name = workload_of(action)
    if not name or not is_disruptive(action):
        return None
    past = [run for run in history if run.acted and area(run.target) == name and now - run.started_at < HOUR]
    count = sum(run.touched for run in past) + touched(action, facts)
    if count <= facts.per_hour:
        return None
    words = f"{count} replicas of {name} would have been touched within the hour, {facts.per_hour} are allowed"
    return Refusal(RefusalReason.BLAST_RADIUS, words)
