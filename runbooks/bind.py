"""Binding a runbook's parameters to an alert's labels.

Labels are data from outside. In a query a value becomes the content of a PromQL string, escaped; in an action it must
look like a target's name, or there is no target.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from runbooks.facts import TARGET
from runbooks.model import Action, Evidence, Guard, Proof, Refusal, RefusalReason, Runbook, Step

PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
"""`{replica}`; valid PromQL has no braces around a bare name, so nothing else looks like it."""
IN_QUERY: Final = re.compile(r'(?<==")\{[a-z][a-z0-9_]*\}(?=")')
"""Where a placeholder may stand in a query: alone, in an exact matcher such as `replica="{replica}"`."""
_VALUE_LENGTH_MAX: Final = 1024


def bind(runbook: Runbook, labels: Mapping[str, str]) -> Runbook | Refusal:
    """Return the runbook with every declared parameter replaced by its label's value, or why there is no target."""
    values: dict[str, str] = {}
    for parameter, label in runbook.parameters.items():
        value = labels.get(label, "")
        if not value or len(value) > _VALUE_LENGTH_MAX or not _is_text(value):
            return Refusal(
                RefusalReason.NO_TARGET, f"the alert has no usable label {label!r}, which {runbook.name} needs"
            )
        values[parameter] = value
    for step in runbook.steps:
        for name, text in text_fields(step.action).items():
            for parameter in PLACEHOLDER.findall(text):
                if parameter in values and not TARGET.fullmatch(values[parameter]):
                    what = f"{values[parameter][:80]!r} in {name} of {step.name}"
                    return Refusal(RefusalReason.NO_TARGET, f"{what} is not the name of a target")
    return msgspec.structs.replace(
        runbook,
        guards=tuple(_guard(guard, values) for guard in runbook.guards),
        steps=tuple(_step(step, values) for step in runbook.steps),
    )


def text_fields(action: Action) -> dict[str, str]:
    """Return the fields of an action that hold text, by name."""
    return {name: value for name, value in msgspec.structs.asdict(action).items() if isinstance(value, str)}


def escape(value: str) -> str:
    """Write a value as the content of a double-quoted PromQL string."""
    plain = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found.group()):02x}", plain)


def _is_text(value: str) -> bool:
    """Tell whether a value can be sent at all; lone surrogates cannot."""
    return value.encode(errors="ignore").decode() == value


def _fill(text: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: values.get(found.group(1), found.group()), text)


def _guard(guard: Guard, values: Mapping[str, str]) -> Guard:
    return msgspec.structs.replace(guard, evidence=_evidence(guard.evidence, values))


def _evidence(evidence: Evidence, values: Mapping[str, str]) -> Evidence:
    escaped = {name: escape(value) for name, value in values.items()}
    return msgspec.structs.replace(
        evidence,
        name=_fill(evidence.name, values),
        query=_fill(evidence.query, escaped),
        fresh=_fill(evidence.fresh, escaped),
    )


def _proof(proof: Proof | None, values: Mapping[str, str]) -> Proof | None:
    if proof is None:
        return None
    evidence, settled = _evidence(proof.evidence, values), _fill(proof.settled, values)
    return msgspec.structs.replace(proof, evidence=evidence, settled=settled)


def _step(step: Step, values: Mapping[str, str]) -> Step:
    filled = {name: _fill(text, values) for name, text in text_fields(step.action).items()}
    action: Action = msgspec.structs.replace(step.action, **filled)
    return msgspec.structs.replace(
        step, action=action, proof=_proof(step.proof, values), undo_proof=_proof(step.undo_proof, values)
    )
