"""Four runbooks as the shipped ones are, with evidence simple enough for a simulated Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from kernel.time import seconds
from runbooks.model import (
    Action,
    BlastRadius,
    Consent,
    Evidence,
    Guard,
    HaltSymbol,
    Limits,
    Otherwise,
    Proof,
    Relation,
    RestartReplica,
    ResumeMarket,
    Runbook,
    Scale,
    Step,
    Undo,
)


def evidence(query: str, relation: str, expected: float, max_age_s: float = 5.0) -> Evidence:
    return Evidence(
        name=query, query=query, fresh=query, relation=Relation(relation), expected=expected,
        max_age_ns=seconds(max_age_s),
    )  # fmt: skip


def proof(query: str, relation: str, expected: float, within_s: float = 10.0, holds_for_s: float = 2.0) -> Proof:
    return Proof(
        evidence=evidence(query, relation, expected, 3.0), holds_for_ns=seconds(holds_for_s),
        within_ns=seconds(within_s), poll_ns=seconds(0.5),
    )  # fmt: skip


def guard(query: str, relation: str, expected: float, *, applies: bool = False) -> Guard:
    otherwise = Otherwise.NOT_APPLICABLE if applies else Otherwise.REFUSED
    return Guard(evidence=evidence(query, relation, expected), otherwise=otherwise)


def step(action: Action, undo: Undo, shown: Proof | None, undo_shown: Proof | None = None) -> Step:
    return Step(name=type(action).__name__, action=action, undo=undo, proof=shown, undo_proof=undo_shown)


def book(name: str, alert: str, service: str, level: int, guards: tuple[Guard, ...], *steps: Step, **more) -> Runbook:
    more.setdefault("consent", Consent.AUTOMATIC)
    more.setdefault("parameters", {})
    more.setdefault("blast_radius", BlastRadius(replicas=1, unhealthy_share=1.0))
    more.setdefault("limits", Limits(cool_down_ns=seconds(20), runs_per_hour=6, ineffective_runs=2))
    return Runbook(
        name=name, title=name, answers=(alert,), service=service, team="t", level=level, guards=guards, steps=steps,
        when_refused=f"look at {service}", **more,
    )  # fmt: skip


UP = 'up{replica="{replica}"}'
HALTED = 'halted{symbol="{symbol}"}'
GATEWAY = book(
    "gateway-down", "GatewayDown", "gateway", 2,
    (guard(UP, "==", 0, applies=True), guard("engine_ready", "==", 1)),
    step(RestartReplica("gateway", "{replica}"), Undo.NOTHING, proof(UP, "==", 1)),
    parameters={"replica": "replica"},
)  # fmt: skip
LATENCY = book(
    "order-latency-high", "OrderLatencyHigh", "gateway", 2,
    (guard("latency", ">", 0.2, applies=True), guard("engine_ready", "==", 1)),
    step(
        Scale("gateway", 1, 2, 4), Undo.RESTORE_REPLICAS, proof("latency", "<", 0.25, within_s=6),
        proof("engine_ready", "==", 1, holds_for_s=1),
    ),
    limits=Limits(cool_down_ns=seconds(30), runs_per_hour=6, ineffective_runs=1),
)  # fmt: skip
ENGINE = book(
    "engine-down", "EngineDown", "engine", 1,
    (guard("engine_ready", "==", 0, applies=True),),
    step(RestartReplica("engine", "engine-1"), Undo.NOTHING, proof("engine_ready", "==", 1)),
    step(ResumeMarket(), Undo.KEEP, proof("market_halted", "==", 0)),
    blast_radius=BlastRadius(replicas=1, market=True, unhealthy_share=1.0),
)  # fmt: skip
GAP = book(
    "sequence-gap", "SequenceGap", "market-data", 1,
    (guard(HALTED, "==", 0, applies=True),),
    step(HaltSymbol("{symbol}", "gap"), Undo.KEEP, proof(HALTED, "==", 1)),
    parameters={"symbol": "symbol"}, blast_radius=BlastRadius(symbols=1, unhealthy_share=1.0),
)  # fmt: skip

LIBRARY: Mapping[str, Runbook] = {one.answers[0]: one for one in (GATEWAY, LATENCY, ENGINE, GAP)}
