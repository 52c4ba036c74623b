"""What an incident's end leaves for its post-mortem: figures and curves, read while Prometheus still has them.

Everything goes into the timeline as entries, so that the report needs nothing else and stays true without Prometheus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from control.intake import StoreThread
from exchange.ports import Log
from incidents.adapters.report_files import write_report
from incidents.incident import Incident
from incidents.postmortem import build_report
from incidents.timeline import Draft, Entry, EntryKind
from kernel.errors import TapewatchError
from kernel.time import MINUTE, SECOND, Clock, Duration, Instant
from monitor.ports import Metrics

LEAD: Final = Duration(20 * SECOND)
"""How much of the time before the first alert the curves show: what normal looked like."""
POINTS_MAX: Final = 400
SLOW_S: Final = "0.5"
"""An answer later than this is an order affected; a bucket bound of the latency histogram."""
FAULT_WINDOW: Final = Duration(30 * SECOND)
"""How long before the first alert a fault injected on purpose may lie and still be taken for its cause."""

LATENCY: Final = "histogram_quantile(0.99, sum by (le) (rate(exchange_client_latency_seconds_bucket[5s])))"


class KnownFault(msgspec.Struct, frozen=True):
    """A fault injected on purpose, as `control.faults` keeps it."""

    name: str
    at: Instant


class Archivist:
    """Gathers evidence at an incident's end and writes its report."""

    def __init__(
        self, store: StoreThread, metrics: Metrics, reports: Path, faults: Path, clock: Clock, log: Log
    ) -> None:
        """Read from `metrics`, write reports to `reports`; `faults` is the record of faults injected on purpose."""
        self._store = store
        self._metrics = metrics
        self._reports = reports
        self._faults = faults
        self._clock = clock
        self._log = log

    async def gather(self, incident: Incident, now: Instant) -> list[Draft]:
        """Return the entries an incident's end adds; what cannot be read is left out."""
        entries = await self._store.call(lambda store: store.timeline(incident.id))
        start = _began(incident)
        end = max(incident.mitigated_at or now, start)
        marks = self._marks(incident, entries, start)
        drafts = [await self._impact(min(start, marks.get("fault", start)), end)]
        for name, unit, query in _curves(entries):
            draft = await self._curve(name, unit, query, Instant(start - LEAD), now, marks)
            drafts += [draft] if draft is not None else []
        return drafts

    async def report(self, incident_id: str) -> tuple[Path, Path] | None:
        """Write an incident's report as it stands; returns the HTML and the Markdown file, None when it cannot be."""
        try:
            incident = await self._store.call(lambda store: store.incident(incident_id))
            entries = await self._store.call(lambda store: store.timeline(incident_id))
            tamper = await self._store.call(lambda store: store.verify(incident_id))
            if incident is None:
                return None
            report = build_report(
                incident, entries, self._clock.now(), tamper=tamper.text if tamper is not None else None
            )
            return write_report(report, self._reports)
        except TapewatchError as error:
            self._log.event("report-failed", severity="error", incident=incident_id, message=str(error))
            return None

    async def _impact(self, start: Instant, end: Instant) -> Draft:
        """Count what clients saw between the first sign of trouble and its mitigation."""
        window = max(2, round((end - start) / SECOND) + 1)
        refused = await self._number(
            f'sum(increase(exchange_client_orders_total{{outcome="refused"}}[{window}s]))', end
        )
        slow = await self._number(
            f"sum(increase(exchange_client_latency_seconds_count[{window}s])) - "
            f'sum(increase(exchange_client_latency_seconds_bucket{{le="{SLOW_S}"}}[{window}s]))',
            end,
        )
        mean = await self._number(
            f"sum(increase(exchange_client_notional_ticks_total[{window}s])) / "
            f"sum(increase(exchange_client_latency_seconds_count[{window}s]))",
            end,
        )
        orders = None if refused is None and slow is None else round(max(refused or 0, 0) + max(slow or 0, 0))
        notional = None if orders is None or mean is None else round(orders * mean)
        minutes = round((end - start) / MINUTE, 2)
        source = (
            f"the load generator's metrics in Prometheus: orders refused, or answered later than {SLOW_S} s; "
            "notional is their number times the mean notional of an order"
        )
        if orders is None:
            source = "nothing: the load generator's metrics could not be read"
        text = f"{'an unknown number of' if orders is None else orders} orders were affected over {minutes:g} minutes"
        data = {"orders": orders, "notional_ticks": notional, "minutes": minutes, "source": source}
        return Draft(self._clock.now(), EntryKind.IMPACT, "exchange", text, data)

    async def _number(self, query: str, at: Instant) -> float | None:
        try:
            curves = await self._metrics.curve(query, at, at, SECOND)
        except TapewatchError:
            return None
        values = [value for curve in curves for _, value in curve.points if value == value]  # noqa: PLR0124 - NaN
        return values[-1] if values else None

    async def _curve(
        self, name: str, unit: str, query: str, start: Instant, end: Instant, marks: Mapping[str, Instant]
    ) -> Draft | None:
        step = Duration(max(SECOND, (end - start) // POINTS_MAX // SECOND * SECOND))
        try:
            curves = await self._metrics.curve(query, start, end, step)
        except TapewatchError:
            return None
        if not curves:
            return None
        points = _with_gaps(curves[0].points, step)
        data = {"name": name, "unit": unit, "query": query, "points": points, "marks": dict(marks)}
        return Draft(self._clock.now(), EntryKind.CURVE, "prometheus", f"{name} over the incident's time", data)

    def _marks(self, incident: Incident, entries: Sequence[Entry], start: Instant) -> dict[str, Instant]:
        marks: dict[str, Instant] = {}
        first_alert = next((entry for entry in entries if entry.kind is EntryKind.ALERT_FIRING), None)
        action = next((e for e in entries if e.kind is EntryKind.ACTION_DONE and not e.data.get("undo")), None)
        undone = next((e for e in entries if e.kind is EntryKind.ACTION_DONE and e.data.get("undo")), None)
        for name, entry in (("alert", first_alert), ("action", action), ("undone", undone)):
            if entry is not None:
                marks[name] = entry.at
        if incident.mitigated_at is not None:
            marks["proof"] = incident.mitigated_at
        fault = self._fault_before(start) if incident.alerts else None
        if fault is not None:
            marks["fault"] = fault.at
        return marks

    def _fault_before(self, start: Instant) -> KnownFault | None:
        """Return the last fault injected shortly before an instant, when one was."""
        try:
            lines = self._faults.read_bytes().split(b"\n")
            known = [msgspec.json.decode(line, type=KnownFault) for line in lines if line]
        except (OSError, msgspec.DecodeError):
            return None
        return next((fault for fault in reversed(known) if start - FAULT_WINDOW <= fault.at <= start), None)


def _began(incident: Incident) -> Instant:
    """Return when the trouble began: of a reopened incident its latest episode, which is what its end tells of."""
    since = incident.reopened_at or Instant(0)
    starts = [alert.starts_at for alert in incident.alerts.values() if alert.starts_at >= since - FAULT_WINDOW]
    return min(starts, default=incident.reopened_at or incident.opened_at)


def _with_gaps(points: Sequence[tuple[Instant, float]], step: Duration) -> list[list[object]]:
    """Return points as lists, an empty one wherever samples are missing: a plot must not draw through an outage."""
    told: list[list[object]] = []
    for at, value in points:
        if told and at - _last_at(told) > step * 3 // 2:
            told.append([_last_at(told) + step, None])
        told.append([at, value])
    return told


def _last_at(told: Sequence[Sequence[object]]) -> int:
    at = told[-1][0]
    assert isinstance(at, int), "a point begins with its instant"
    return at


def _curves(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Return name, unit and query of the curves worth keeping: each proof once, and the clients' latency."""
    curves: dict[str, tuple[str, str, str]] = {}
    for entry in entries:
        if entry.kind is EntryKind.EVIDENCE_READ and entry.data.get("purpose") == "proof":
            query, name = str(entry.data.get("query")), str(entry.data.get("name"))
            curves[query] = ("proof_" + name.replace(" ", "_"), "", query)
    return [*curves.values(), ("clients' latency p99", "seconds", LATENCY)]
