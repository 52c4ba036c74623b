"""What a decision stands on: the plant, the market and past runs as they are known at that moment, and what is meant.

Nothing here is remembered or fetched; whoever decides gathers the facts first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from kernel.time import SECOND, Duration, Instant
from runbooks.changes import TakeBack, target_of
from runbooks.model import (
    Action,
    HaltMarket,
    HaltSymbol,
    KeepSnapshot,
    Outcome,
    RestartReplica,
    ResumeMarket,
    ResumeSymbol,
    Runbook,
    Scale,
    SetReplicas,
    VerifyReplay,
)
from runbooks.ports import NodeStatus, WorkloadStatus

TARGET: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,252}")
"""What the name of a target looks like, whole; a pod's may have 253 letters. Anything else is no target."""
MARKET: Final = "market"


class Share(msgspec.Struct, frozen=True):
    """What of the market goes through one replica now."""

    symbols: int
    volume: float
    """Of all orders lately, the share from 0 to 1."""
    notional: int
    """Open notional that rests there, in ticks times lots."""


class MarketFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the market at the moment of a decision."""

    phase: str
    """Such as `continuous`, `opening_auction`, `closed`."""
    auction: bool = False
    """Orders are gathered for one price: nothing disruptive now."""
    next_auction_at: Instant | None = None
    quiet_ns: Duration = Duration(300 * SECOND)
    """For so long before an auction nothing disruptive begins."""
    shares: Mapping[str, Share] = {}
    """By replica; a replica that is not named here is not known."""


class PlantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the plant at the moment of a decision."""

    workloads: tuple[WorkloadStatus, ...]
    allowed: frozenset[str]
    """Names of the workloads that runbooks may act on."""
    symbols: frozenset[str] = frozenset()
    """Every symbol of the exchange; a symbol not named here is no target."""
    targets: frozenset[str] = frozenset()
    """What else may be touched, allowed and known: `node:n1`, `config:c`, `service:s`, `job:j`."""
    nodes: tuple[NodeStatus, ...] = ()
    market: MarketFacts | None = None
    """None where no calendar is kept: the market is always open then."""
    leader: str = ""
    """Why this controller must not act (another one leads); empty: it leads."""
    per_hour: int = 30
    """Replicas of one workload that all runs together may touch within an hour."""


class PastRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the past, or one under way (`ended_at` and `outcome` None)."""

    runbook: str
    target: str
    """As `target` gives it for the bound runbook."""
    started_at: Instant
    ended_at: Instant | None
    outcome: Outcome | None
    acted: bool = True
    """False when it ended before its first action; such a run counts for no limit."""
    touched: int = 1
    """How many replicas its runbook touches."""


# --- targets ------------------------------------------------------------------------------------------------------


def target(runbook: Runbook) -> str:
    """Return what a bound runbook acts on first: `gateway/gateway-1`, `gateway`, `symbol:TWA`, `market`, `node:n1`.

    A runbook that never acts is about its service. One that only looks has a target of its own, so that it stands in
    the way of no remedy.
    """
    first = next((target_of_action(step.action) for step in runbook.steps if not is_harmless(step.action)), "")
    if not first and runbook.anomaly_may_start:
        return f"look:{runbook.name}"
    return first or (runbook.service if runbook.never_acts else "")


def target_of_action(action: Action) -> str:
    """Return what an action acts on, in the same words."""
    match action:
        case RestartReplica():
            return f"{action.workload}/{action.replica}"
        case Scale() | SetReplicas() | VerifyReplay() | KeepSnapshot():
            return action.workload
        case HaltSymbol() | ResumeSymbol():
            return f"symbol:{action.symbol}"
        case HaltMarket() | ResumeMarket():
            return MARKET
        case TakeBack():
            return action.target
        case _:
            return target_of(action)


def area(of: str) -> str:
    """Return the part of a target that two runs must not share: the workload, the symbol or the market."""
    return of.partition("/")[0]


def is_harmless(action: Action) -> bool:
    """Tell whether an action touches nothing that anybody could feel."""
    return isinstance(action, VerifyReplay | KeepSnapshot)


def workload_of(action: Action) -> str:
    """Return the workload an action touches; empty for a symbol, the market, a node and the like."""
    kind, _, rest = target_of_action(action).rpartition(":")
    return "" if kind or rest == MARKET else area(rest)


def find(facts: PlantFacts, name: str) -> WorkloadStatus | None:
    """Return a workload by its name."""
    return next((workload for workload in facts.workloads if workload.name == name), None)
