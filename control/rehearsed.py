"""What a rehearsal against the live plant found, as values: for control's interface and the terminal."""

from __future__ import annotations

from typing import Final

import msgspec

from runbooks.model import Consent

BEGINS: Final = "would_begin"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence as it reads now."""

    wanted: str
    reads: str
    value: float | None
    age_s: float | None
    holds: bool


class StepSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A step, and what rails and platform say of it now."""

    name: str
    does: str
    undo: str
    proof: str
    proof_now: Seen | None
    replicas: str
    market: str
    platform: tuple[str, ...]
    permitted: bool
    reason: str = ""
    """A `RefusalReason`, of a rail or of the platform."""
    detail: str = ""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a run would do if it began now."""

    runbook: str
    title: str
    target: str
    level: int
    phase: str
    guards: tuple[Seen, ...]
    steps: tuple[StepSeen, ...]
    consent: Consent
    people: int
    """How many have to agree."""
    plan: str
    """The digest they would agree to; empty when the plant cannot be seen."""
    would: str
    """`would_begin`, `refused` or `not_applicable`."""
    reason: str
    detail: str

    @property
    def begins(self) -> bool:
        """Whether the run would begin."""
        return self.would == BEGINS
