"""An incident store in memory: for tests, rehearsals and simulations. Same contract, gone with the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from incidents.incident import Incident, State, apply
from incidents.ports import JournalKind, RunRecord
from incidents.signals import AlertSignal, Status
from incidents.timeline import Draft, Entry, Head, Tamper, empty_head, seal_all, verify
from kernel.errors import PermanentError
from kernel.time import Instant, to_rfc3339


class MemoryStore:
    """Keeps everything in dictionaries; each method says what `IncidentStore` says."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._signals: dict[str, AlertSignal] = {}
        """By key; the place in the insertion order, from 1, is the offset."""
        self._decided = 0
        self._entries: dict[str, list[Entry]] = {}
        self._heads: dict[str, Head] = {}
        self._incidents: dict[str, Incident] = {}
        self._runs: dict[str, RunRecord] = {}
        self._journal: dict[str, dict[tuple[int, JournalKind], bytes]] = {}
        self._ids: Counter[str] = Counter()

    def take_in(self, signals: Sequence[AlertSignal]) -> int:
        """Keep signals and return how many were new."""
        before = len(self._signals)
        for signal in signals:
            self._signals.setdefault(signal.key, signal)
        return len(self._signals) - before

    def pending(self, limit: int = 500) -> list[tuple[int, AlertSignal]]:
        """Return signals not yet decided on with their offsets."""
        undecided = islice(self._signals.values(), self._decided, self._decided + limit)
        return list(enumerate(undecided, start=self._decided + 1))

    def backlog(self) -> int:
        """Return how many signals are not yet decided on."""
        return len(self._signals) - self._decided

    def ended(self, fingerprints: Collection[str]) -> dict[str, Instant]:
        """Return the latest end that decided signals told of each alert."""
        ends: dict[str, Instant] = {}
        for signal in islice(self._signals.values(), self._decided):
            if signal.status is Status.RESOLVED and signal.ends_at is not None and signal.fingerprint in fingerprints:
                ends[signal.fingerprint] = max(signal.ends_at, ends.get(signal.fingerprint, signal.ends_at))
        return ends

    def decide(self, upto_offset: int, drafts: Mapping[str, Sequence[Draft]], runs: Sequence[RunRecord] = ()) -> None:
        """Append entries, start runs and mark signals decided, all or nothing."""
        self._check_new(runs)
        folded = {incident_id: self._folded(incident_id, some) for incident_id, some in drafts.items()}
        for incident_id, incident in folded.items():
            self._seal(incident_id, drafts[incident_id], incident)
        for run in runs:
            self._runs[run.id] = run
        self._decided = min(max(self._decided, upto_offset), len(self._signals))

    def append(self, incident_id: str, drafts: Sequence[Draft]) -> None:
        """Append entries to one incident."""
        self._seal(incident_id, drafts, self._folded(incident_id, drafts))

    def new_id(self, at: Instant) -> str:
        """Return an id that no incident has."""
        day = to_rfc3339(at)[:10].replace("-", "")
        self._ids[day] += 1
        return f"INC-{day}-{self._ids[day]:04d}"

    def incident(self, incident_id: str) -> Incident | None:
        """Return an incident folded from its entries."""
        return self._incidents.get(incident_id)

    def incidents(self, states: Collection[State] | None = None, limit: int = 1000) -> list[Incident]:
        """Return the newest incidents in these states, oldest first."""
        found = [one for one in self._incidents.values() if states is None or one.state in states]
        found.sort(key=lambda one: (one.opened_at, one.id))
        return found[-limit:] if limit > 0 else []

    def timeline(self, incident_id: str) -> list[Entry]:
        """Return an incident's entries."""
        return list(self._entries.get(incident_id, ()))

    def verify(self, incident_id: str) -> Tamper | None:
        """Check an incident's chain."""
        self._known(incident_id)
        return verify(self._entries[incident_id], self._key, self._heads[incident_id])

    def start_run(self, run: RunRecord, drafts: Sequence[Draft] = ()) -> None:
        """Keep a run under way together with entries of its incident."""
        self.decide(0, {run.incident: drafts} if drafts else {}, [run])

    def record(self, run_id: str, n: int, kind: JournalKind, payload: bytes) -> None:
        """Journal a run's n-th question or answer."""
        if run_id not in self._runs:
            raise PermanentError(f"there is no run {run_id}")
        kept = self._journal.setdefault(run_id, {}).setdefault((n, kind), payload)
        if kept != payload:
            raise PermanentError(f"run {run_id} has another {kind} {n} on record")

    def advance(
        self,
        run_id: str,
        rows: Sequence[tuple[int, JournalKind, bytes]],
        drafts: Sequence[Draft] = (),
        *,
        synced: bool = True,  # noqa: ARG002 - memory has no disk to wait for
    ) -> None:
        """Journal a run's questions and answers together with entries of its incident."""
        run = self._runs.get(run_id)
        if run is None:
            raise PermanentError(f"there is no run {run_id}")
        kept = self._journal.setdefault(run_id, {})
        for n, kind, payload in rows:
            if kept.get((n, kind), payload) != payload:
                raise PermanentError(f"run {run_id} has another {kind} {n} on record")
        folded = self._folded(run.incident, drafts)
        kept.update({(n, kind): payload for n, kind, payload in rows})
        if drafts:
            self._seal(run.incident, drafts, folded)

    def run_journal(self, run_id: str) -> list[tuple[int, JournalKind, bytes]]:
        """Return a run's journal."""
        rows = ((n, kind, payload) for (n, kind), payload in self._journal.get(run_id, {}).items())
        return sorted(rows, key=lambda row: (row[0], row[1] == "answer"))

    def end_run(self, run: RunRecord, drafts: Sequence[Draft] = ()) -> None:
        """Keep how a run ended together with entries."""
        if run.id not in self._runs:
            raise PermanentError(f"there is no run {run.id}")
        assert run.ended_at is not None, "a run that ended has an end"
        if drafts:
            self.append(run.incident, drafts)
        self._runs[run.id] = run

    def run(self, run_id: str) -> RunRecord | None:
        """Return one run."""
        return self._runs.get(run_id)

    def open_runs(self) -> list[RunRecord]:
        """Return the runs under way."""
        return sorted((run for run in self._runs.values() if run.ended_at is None), key=_started)

    def runs_since(self, instant: Instant) -> list[RunRecord]:
        """Return the runs that started at or after `instant`."""
        return sorted((run for run in self._runs.values() if run.started_at >= instant), key=_started)

    def close(self) -> None:
        """Nothing is held."""

    def _folded(self, incident_id: str, drafts: Sequence[Draft]) -> Incident | None:
        incident = self._incidents.get(incident_id)
        for draft in drafts:
            incident = apply(incident, draft)
        assert incident is None or incident.id == incident_id, f"{incident_id} is opened under another id"
        return incident

    def _seal(self, incident_id: str, drafts: Sequence[Draft], incident: Incident | None) -> None:
        if incident is None:
            return
        head = self._heads.get(incident_id) or empty_head(incident_id, self._key)
        entries, self._heads[incident_id] = seal_all(drafts, head, self._key)
        self._entries.setdefault(incident_id, []).extend(entries)
        self._incidents[incident_id] = incident

    def _check_new(self, runs: Sequence[RunRecord]) -> None:
        for run in runs:
            if run.id in self._runs:
                raise PermanentError(f"run {run.id} is on record already")

    def _known(self, incident_id: str) -> None:
        if incident_id not in self._entries:
            raise PermanentError(f"there is no incident {incident_id}")


def _started(run: RunRecord) -> tuple[Instant, str]:
    return run.started_at, run.id
