"""Where signals, timelines and runs are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from incidents.incident import Incident, State
from incidents.signals import AlertSignal
from incidents.timeline import Draft, Entry, Tamper
from kernel.time import Instant

JournalKind = Literal["question", "answer"]


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A runbook's run: enough to resume it, and to count runs for cool-down and rates."""

    id: str
    incident: str
    runbook: str
    target: str
    """What it acts on, such as `gateway/gateway-1` or `symbol/ACME`; cool-down counts by it."""
    labels: Mapping[str, str]
    """Labels of the alert it answers: the runbook's parameters are bound from them."""
    started_at: Instant
    ended_at: Instant | None = None
    outcome: str | None = None
    """A `runbooks.model.Outcome`; None while it runs."""
    reason: str = ""
    detail: str = ""


class IncidentStore(Protocol):
    """The durable memory of the control plane. One writer; every write is on disk when the call returns.

    Every method raises `TemporaryError` when the store is busy or full (the same call may succeed later) and
    `PermanentError` when it cannot work as it is (read-only, damaged, unknown incident or run).
    """

    def take_in(self, signals: Sequence[AlertSignal]) -> int:
        """Keep signals and return how many were new. Known keys are left alone; all or none are kept."""
        ...

    def pending(self, limit: int = 500) -> list[tuple[int, AlertSignal]]:
        """Return signals not yet decided on with their offsets, the oldest first."""
        ...

    def backlog(self) -> int:
        """Return how many signals are not yet decided on."""
        ...

    def ended(self, fingerprints: Collection[str]) -> dict[str, Instant]:
        """Return the latest end that decided signals told of each alert; alerts that never ended are left out."""
        ...

    def decide(self, upto_offset: int, drafts: Mapping[str, Sequence[Draft]], runs: Sequence[RunRecord] = ()) -> None:
        """In one transaction: append entries, start runs, and mark signals up to and including the offset decided.

        Kept as by `advance` that is not synced: the signals are durable and can be decided on again.

        Raises:
            IllegalTransitionError: a draft moves an incident where the table does not lead; nothing was written.
        """
        ...

    def append(self, incident_id: str, drafts: Sequence[Draft]) -> None:
        """Append entries to one incident; the first draft of a new incident opens it.

        Raises:
            IllegalTransitionError: as for `decide`.
        """
        ...

    def new_id(self, at: Instant) -> str:
        """Return an id that no incident has or will have, such as `INC-20260302-0001` (the UTC day of `at`)."""
        ...

    def incident(self, incident_id: str) -> Incident | None:
        """Return an incident folded from its entries, None when there is none."""
        ...

    def incidents(self, states: Collection[State] | None = None, limit: int = 1000) -> list[Incident]:
        """Return the newest incidents in these states (None: all), oldest first."""
        ...

    def timeline(self, incident_id: str) -> list[Entry]:
        """Return an incident's entries as they are stored; empty when there is none."""
        ...

    def verify(self, incident_id: str) -> Tamper | None:
        """Check an incident's stored chain; None when it is whole."""
        ...

    def start_run(self, run: RunRecord, drafts: Sequence[Draft] = ()) -> None:
        """Keep a run under way together with entries of its incident, in one transaction."""
        ...

    def record(self, run_id: str, n: int, kind: JournalKind, payload: bytes) -> None:
        """Journal a run's n-th question or answer.

        Raises:
            PermanentError: the place holds another payload; the same payload again is no error.
        """
        ...

    def advance(
        self,
        run_id: str,
        rows: Sequence[tuple[int, JournalKind, bytes]],
        drafts: Sequence[Draft] = (),
        *,
        synced: bool = True,
    ) -> None:
        """Journal several questions and answers of a run together with entries of its incident, in one transaction.

        Not `synced`: a crash of the process loses nothing, a loss of power may lose the newest such writes, but never
        one that came before a synced write. For questions that change nothing and can be asked again.

        Raises:
            PermanentError: a place holds another payload; nothing was written.
        """
        ...

    def run_journal(self, run_id: str) -> list[tuple[int, JournalKind, bytes]]:
        """Return a run's journal in the order it was recorded."""
        ...

    def end_run(self, run: RunRecord, drafts: Sequence[Draft] = ()) -> None:
        """Keep how a run ended (`ended_at` and `outcome` set) together with entries, in one transaction."""
        ...

    def run(self, run_id: str) -> RunRecord | None:
        """Return one run."""
        ...

    def open_runs(self) -> list[RunRecord]:
        """Return the runs under way, the oldest first: what a controller resumes at its start."""
        ...

    def runs_since(self, instant: Instant) -> list[RunRecord]:
        """Return the runs that started at or after `instant`, the oldest first."""
        ...

    def close(self) -> None:
        """Let go of the store; calling again does nothing."""
        ...
