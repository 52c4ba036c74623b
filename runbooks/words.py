"""How actions, evidence and durations are told to people."""

from __future__ import annotations

from kernel.time import MILLISECOND, SECOND
from runbooks.changes import describe_change
from runbooks.model import (
    Action,
    Evidence,
    HaltMarket,
    HaltSymbol,
    KeepSnapshot,
    LookAnswer,
    Proof,
    ReadAnswer,
    RestartReplica,
    ResumeMarket,
    ResumeSymbol,
    Scale,
    SetReplicas,
    VerifyReplay,
)


def describe(action: Action) -> str:  # noqa: PLR0911 - one line for each action
    """Say what an action does, as a phrase that follows "to": `restart gateway-1 of gateway`."""
    match action:
        case RestartReplica():
            return f"restart {action.replica or 'no replica'} of {action.workload or 'no workload'}"
        case Scale():
            return f"scale {action.workload} by {action.by:+d} within {action.minimum} to {action.maximum} replicas"
        case SetReplicas():
            return f"set {action.workload} from {action.only_if} to {action.replicas} replicas"
        case HaltSymbol():
            return f"halt {action.symbol}"
        case ResumeSymbol():
            return f"resume {action.symbol}"
        case HaltMarket():
            return "halt the whole market"
        case ResumeMarket():
            return f"resume the market of {action.replica}" if action.replica else "resume the market"
        case VerifyReplay():
            return f"verify the replay of {action.replica or action.workload}"
        case KeepSnapshot():
            return f"keep a snapshot of {action.workload}"
        case _:
            return describe_change(action)


def duration(length_ns: int) -> str:
    """Write a duration in the largest fitting unit: `500ms`, `3s`, `1.5s`."""
    if length_ns < SECOND:
        return f"{length_ns / MILLISECOND:g}ms"
    return f"{length_ns / SECOND:g}s"


def wanted(evidence: Evidence) -> str:
    """Say what a reading should be: `shedding ratio < 0.001`."""
    return f"{evidence.name} {evidence.relation} {evidence.expected:g}"


def promised(proof: Proof) -> str:
    """Say what a proof asks for: `shedding ratio < 0.001 for 3s within 20s`."""
    also = f" with {proof.settled} settled" if proof.settled else ""
    return f"{wanted(proof.evidence)}{also} for {duration(proof.holds_for_ns)} within {duration(proof.within_ns)}"


def said(reading: ReadAnswer) -> str:
    """Say what a reading was: its number, or why there is none."""
    if reading.value is None:
        return f"unknown ({reading.unknown or 'no reason given'}{': ' + reading.detail if reading.detail else ''})"
    return f"{reading.value:g}"


def looked(answer: LookAnswer) -> str:
    """Say what the platform said of a workload or node."""
    verdict = "unknown" if answer.settled is None else "settled" if answer.settled else "not settled"
    return f"{verdict} ({answer.detail})" if answer.detail else verdict
