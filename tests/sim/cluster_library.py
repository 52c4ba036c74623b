"""Runbooks as the shipped ones for a cluster are, with evidence simple enough for a simulated Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from kernel.time import seconds
from runbooks.changes import (
    Cordon,
    DeleteReplica,
    Drain,
    PauseRollout,
    RestoreConfig,
    RollBack,
    RollingRestart,
)
from runbooks.model import (
    BlastRadius,
    Consent,
    HaltMarket,
    Limits,
    Proof,
    RestartReplica,
    ResumeMarket,
    Runbook,
    Scale,
    Undo,
    VerifyReplay,
)
from tests.sim.library import book, evidence, guard, step

READY = 'pod_ready{pod="{pod}"}'
UNHEALTHY = 0.6


def proof(
    query: str, relation: str, expected: float, settled: str = "", within_s: float = 20.0, holds_for_s: float = 3.0
) -> Proof:
    return Proof(
        evidence=evidence(query, relation, expected, 3.0), holds_for_ns=seconds(holds_for_s),
        within_ns=seconds(within_s), poll_ns=seconds(1.0), settled=settled,
    )  # fmt: skip


def reach(replicas: int = 1, **more) -> BlastRadius:
    return BlastRadius(replicas=replicas, unhealthy_share=UNHEALTHY, **more)


CALM = Limits(cool_down_ns=seconds(30), runs_per_hour=4, ineffective_runs=2)
HANG = book(
    "pod-hang", "PodHang", "gateway", 2, (guard(READY, "==", 0, applies=True),),
    step(RestartReplica("gateway", "{pod}"), Undo.NOTHING, proof('down{workload="gateway"}', "==", 0, "gateway")),
    parameters={"pod": "pod"}, blast_radius=reach(volume_share=0.9),
)  # fmt: skip
STUCK_END = book(
    "pod-stuck", "PodStuckEnding", "market-data", 3, (guard('ending{pod="{pod}"}', ">", 5, applies=True),),
    step(DeleteReplica("market-data", "{pod}"), Undo.NOTHING, proof('down{workload="market-data"}', "==", 0)),
    parameters={"pod": "pod"}, blast_radius=reach(),
)  # fmt: skip
CRASHES = book(
    "crash-loop", "CrashLoop", "market-data", 2, (guard('crashing{workload="market-data"}', ">", 0, applies=True),),
    step(
        RollBack("market-data"), Undo.RESTORE,
        proof('crashing{workload="market-data"}', "==", 0, "market-data", within_s=40),
    ),
    blast_radius=reach(4), limits=CALM,
)  # fmt: skip
STUCK_ROLLOUT = book(
    "stuck-rollout", "RolloutStuck", "gateway", 2, (guard('stuck{workload="gateway"}', "==", 1, applies=True),),
    step(PauseRollout("gateway"), Undo.RESTORE, proof('paused{workload="gateway"}', "==", 1, holds_for_s=1)),
    blast_radius=reach(), limits=CALM,
)  # fmt: skip
OUT = book(
    "scale-out", "Overload", "gateway", 2, (guard("latency", ">", 0.2, applies=True),),
    step(
        Scale("gateway", 1, 2, 6), Undo.RESTORE_REPLICAS, proof("latency", "<", 0.25, within_s=25),
        proof("engine_ready", "==", 1, holds_for_s=1),
    ),
    blast_radius=reach(), limits=CALM,
)  # fmt: skip
IN = book(
    "scale-in", "GatewaysIdle", "gateway", 3, (guard("idle", "==", 1, applies=True), guard("latency", "<", 0.2)),
    step(Scale("gateway", -1, 2, 6), Undo.RESTORE_REPLICAS, proof("latency", "<", 0.2, "gateway")),
    blast_radius=reach(), limits=CALM,
)  # fmt: skip
LAG = book(
    "consumer-lag", "ConsumerLag", "settlement", 2, (guard("lag", ">", 0, applies=True),),
    step(Scale("settlement", 1, 1, 6), Undo.RESTORE_REPLICAS, proof("lag", "==", 0, "settlement")),
    blast_radius=reach(), limits=CALM,
)  # fmt: skip
LEAK = book(
    "memory-leak", "MemoryLeak", "settlement", 3, (guard("leak", ">", 0, applies=True),),
    step(RollingRestart("settlement"), Undo.NOTHING, proof("leak", "==", 0, "settlement", within_s=40)),
    blast_radius=reach(3), limits=CALM,
)  # fmt: skip
NODE = book(
    "node-lost", "NodeNotReady", "node", 2, (guard('node_ready{node="{node}"}', "==", 0, applies=True),),
    step(Cordon("{node}"), Undo.RESTORE, proof('node_cordoned{node="{node}"}', "==", 1, holds_for_s=1)),
    step(Drain("{node}"), Undo.KEEP, proof('node_pods{node="{node}"}', "==", 0, "node:{node}", within_s=30)),
    parameters={"node": "node"}, blast_radius=reach(5, nodes=1), limits=CALM,
)  # fmt: skip
CONFIG = book(
    "config-poisoned", "ConfigPoisoned", "gateway", 2, (guard("config_bad", "==", 1, applies=True),),
    step(RestoreConfig("limits"), Undo.RESTORE, proof("config_bad", "==", 0)),
    blast_radius=reach(), limits=CALM,
)  # fmt: skip
ENGINE = book(
    "engine-down", "EngineDown", "engine", 1, (guard("engine_ready", "==", 0, applies=True),),
    step(RestartReplica("engine", "engine-0"), Undo.NOTHING, proof("engine_ready", "==", 1, "engine")),
    step(VerifyReplay("engine"), Undo.NOTHING, None),
    step(ResumeMarket(), Undo.KEEP, proof("market_halted", "==", 0)),
    blast_radius=reach(market=True), limits=CALM,
)  # fmt: skip
ENGINE_LEAK = book(
    "engine-state-safe", "EngineLeak", "engine", 2, (guard("engine_leak", "==", 1, applies=True),),
    step(HaltMarket("operator"), Undo.KEEP, proof("market_halted", "==", 1, holds_for_s=1)),
    step(RestartReplica("engine", "engine-0"), Undo.NOTHING, proof("engine_leak", "==", 0, "engine")),
    step(VerifyReplay("engine"), Undo.NOTHING, None),
    step(ResumeMarket(), Undo.KEEP, proof("market_halted", "==", 0)),
    blast_radius=reach(market=True), limits=CALM, consent=Consent.FOUR_EYES,
)  # fmt: skip
CERTIFICATE = book(
    "certificate-ends", "CertificateEnds", "gateway", 2, (guard("certificate_days", "<", 7, applies=True),),
    never_acts="a certificate is renewed by people",
)  # fmt: skip

BOOKS = (
    HANG, STUCK_END, CRASHES, STUCK_ROLLOUT, OUT, IN, LAG, LEAK, NODE, CONFIG, ENGINE, ENGINE_LEAK, CERTIFICATE,
)  # fmt: skip
CLUSTER: Mapping[str, Runbook] = {one.answers[0]: one for one in BOOKS}
