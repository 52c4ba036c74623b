"""What a plan stands on, and its digest: an approval names it and is void when it changes.

A plan is a bound runbook and those facts without which it would be another plan: of each workload it touches how many
replicas are wanted, its generation, images, replicas by uid and owners; what else it touches and whether that exists;
where nodes are touched, all of them; the market's phase. When the facts were seen, and whether replicas are ready just
now, is none of it: guards and rails look at that again before anything starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from runbooks.changes import Cordon, Drain
from runbooks.facts import PlantFacts, find, is_harmless, target_of_action, workload_of
from runbooks.model import Runbook, Step
from runbooks.ports import NodeStatus, WorkloadStatus
from runbooks.rails import ALWAYS
from runbooks.words import describe, promised

SHORT: Final = 12
"""How many hex digits of a digest people are shown, and have to give at least."""


@dataclass(frozen=True)
class Plan:
    """The basis of a plan, each fact by its name, and the digest over all of them."""

    basis: Mapping[str, str]
    digest: str

    @property
    def short(self) -> str:
        """The digest as people write it."""
        return short(self.digest)

    def differs(self, other: Plan) -> str:
        """Say what has changed from this plan to another; empty when nothing has."""
        names = [*self.basis, *(name for name in other.basis if name not in self.basis)]
        changed = [name for name in names if self.basis.get(name) != other.basis.get(name)]
        return "; ".join(_change(name, self.basis.get(name), other.basis.get(name)) for name in changed)


def plan_of(runbook: Runbook, facts: PlantFacts) -> Plan:
    """Return the plan of a bound runbook on the facts as they are."""
    plain = msgspec.to_builtins(runbook, str_keys=True, order="deterministic")
    written = hashlib.sha256(msgspec.json.encode(plain)).hexdigest()
    basis = {"runbook": written[:SHORT], "phase": facts.market.phase if facts.market is not None else ALWAYS}
    actions = [step.action for step in runbook.steps]
    for name in sorted({workload_of(action) for action in actions} - {""}):
        workload = find(facts, name)
        basis |= dict(_of_workload(workload)) if workload is not None else {name: "is not there"}
    for target in sorted({target_of_action(action) for action in actions if not is_harmless(action)}):
        kind = target.partition(":")[0]
        if kind in {"node", "config", "service", "job"}:
            basis[target] = "is there" if target in facts.targets else "is not there"
    touched = {action.node for action in actions if isinstance(action, Cordon | Drain)}
    if touched:
        basis |= {f"node {node.name}": _of_node(node, counted=node.name in touched) for node in _by_name(facts.nodes)}
    canonical = msgspec.json.encode([written, sorted(basis.items())])
    return Plan(basis, hashlib.sha256(canonical).hexdigest())


def steps_in_words(runbook: Runbook) -> tuple[str, ...]:
    """Say what a bound runbook would do, a sentence a step."""
    return tuple(_step_in_words(step) for step in runbook.steps)


def _step_in_words(step: Step) -> str:
    proof = f"proven by {promised(step.proof)}" if step.proof is not None else "without a proof of its own"
    return f"{describe(step.action)}; {proof}; undo: {str(step.undo).replace('_', ' ')}"


def short(digest: str) -> str:
    """Return the first digits of a digest, as people write them."""
    return digest[:SHORT]


def names_plan(given: str, digest: str) -> bool:
    """Tell whether what a person gave, whole or shortened, means this digest."""
    return len(given) >= SHORT and digest.startswith(given.lower())


def _of_workload(workload: WorkloadStatus) -> Iterator[tuple[str, str]]:
    name = workload.name
    yield f"{name} desired", str(workload.desired)
    yield f"{name} generation", str(workload.generation)
    yield f"{name} images", ", ".join(sorted(workload.images)) or "none named"
    replicas = sorted(workload.replicas, key=lambda one: one.id)
    yield f"{name} replicas", ", ".join(f"{one.id} ({one.uid})" for one in replicas) or "none"
    owners = sorted({workload.replicas_owner, workload.spec_owner, workload.pods_owner} - {""})
    yield f"{name} owners", ", ".join(owners) or "nobody else"
    kinds = [word for word, holds in (("singleton", workload.singleton), ("stateful", workload.stateful)) if holds]
    yield f"{name} kind", ", ".join(kinds) or "plain"


def _of_node(node: NodeStatus, *, counted: bool) -> str:
    words = ("ready" if node.ready else "not ready") + (", cordoned" if node.cordoned else "")
    return f"{words}, {node.replicas} replicas" if counted else words


def _by_name(nodes: tuple[NodeStatus, ...]) -> list[NodeStatus]:
    return sorted(nodes, key=lambda node: node.name)


def _change(name: str, before: str | None, after: str | None) -> str:
    return f"{name} {before or 'unknown'} -> {after or 'gone'}"
