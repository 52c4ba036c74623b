"""What the control plane counts of itself, over the catalogue's cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from exchange.calendar import PhaseName
from incidents.incident import Incident, State
from kernel.time import Instant, to_seconds
from monitor.instruments import Meter
from monitor.ports import Unknown
from runbooks.model import Action, Conclusion, DoAnswer, Outcome, RefusalReason, Runbook

_TIMES: Final = {
    State.ACKNOWLEDGED: "tapewatch_incident_acknowledge_seconds",
    State.MITIGATED: "tapewatch_incident_mitigate_seconds",
}


class ControlInstruments:
    """Metric updates of the control process."""

    def __init__(self, meter: Meter, phase: Callable[[], str] | None = None) -> None:
        """Bind to the cells of `meter`; `phase` tells the market's phase, where control knows it."""
        self._meter = meter
        self._phase = phase
        self._seen: dict[str, tuple[State, Instant]] = {}
        """The incidents that went on at the last turn: state, and when they were opened."""
        # Counted from 0: the first event of a series that was not there before it would be no rise.
        for reason in RefusalReason:
            meter.count("tapewatch_refusals_total", reason)
        for unknown in Unknown:
            meter.count("tapewatch_evidence_unknown_total", unknown)
        for kind in ("TemporaryError", "PermanentError", "signal", "fault"):
            meter.count("tapewatch_errors_total", kind)

    def begin(self, runbooks: Iterable[Runbook]) -> None:
        """Count the runs of these runbooks from 0."""
        for runbook in runbooks:
            for outcome in Outcome:
                self._meter.count("tapewatch_runs_total", runbook.name, outcome)

    def webhook(self, code: int, elapsed_s: float) -> None:
        """Count one delivery and how long its answer took, in seconds."""
        self._meter.count("tapewatch_webhooks_total", str(code)).add()
        self._meter.spread("tapewatch_webhook_seconds").observe(elapsed_s)

    def signals(self, status: str, count: int) -> None:
        """Count alerts taken in."""
        self._meter.count("tapewatch_signals_total", status).add(count)

    def opened(self, level: int) -> None:
        """Count an incident opened."""
        self._meter.count("tapewatch_incidents_opened_total", str(level)).add()

    def standing(self, incidents: Iterable[Incident], *, backlog: int, runs: int, now: Instant) -> None:
        """Show how things stand after one turn of the loop."""
        tally = dict.fromkeys(State, 0)
        here: dict[str, tuple[State, Instant]] = {}
        for incident in incidents:
            tally[incident.state] += 1
            here[incident.id] = incident.state, incident.opened_at
        self._time(here, now)
        if self._phase is not None:
            phase = self._phase()
            for name in PhaseName:
                self._meter.level("tapewatch_market_phase", name).set(name == phase)
        for state, number in tally.items():
            if state is not State.RESOLVED:
                self._meter.level("tapewatch_incidents", str(state)).set(number)
        self._meter.level("tapewatch_backlog_signals").set(backlog)
        self._meter.level("tapewatch_active_runs").set(runs)
        self._meter.level("tapewatch_loop_timestamp_seconds").set(to_seconds(now))

    def _time(self, here: dict[str, tuple[State, Instant]], now: Instant) -> None:
        """Count how long incidents took to get where they are, when they get there; good to one turn."""
        for incident, (state, opened_at) in here.items():
            before = self._seen.get(incident, (State.OPEN, opened_at))[0]
            if state is not before and state in _TIMES:
                self._meter.spread(_TIMES[state]).observe(to_seconds(max(0, now - opened_at)))
        for incident in self._seen.keys() - here.keys():
            _, opened_at = self._seen[incident]
            self._meter.spread("tapewatch_incident_resolve_seconds").observe(to_seconds(max(0, now - opened_at)))
        self._seen = here

    def acted(self, alert: str) -> None:
        """Count a run that touched something, by the alert it answered."""
        self._meter.count("tapewatch_alerts_acted_total", alert).add()

    def kill_switch(self, *, on: bool) -> None:
        """Show whether automatic actions are forbidden."""
        self._meter.level("tapewatch_kill_switch_on").set(float(on))

    def deadman(self, at: Instant) -> None:
        """Show when the Watchdog alert last arrived."""
        self._meter.level("tapewatch_deadman_timestamp_seconds").set(to_seconds(at))

    def action(self, action: Action, answer: DoAnswer) -> None:
        """Count an action by what became of it."""
        result = "refused" if answer.refused else "done" if answer.ok else "failed"
        self._meter.count("tapewatch_actions_total", str(type(action).__struct_config__.tag), result).add()

    def first_action(self, elapsed_s: float) -> None:
        """Count the seconds from a webhook's arrival to the first action asked for."""
        self._meter.spread("tapewatch_signal_to_action_seconds").observe(elapsed_s)

    def evidence_unknown(self, reason: str) -> None:
        """Count a reading that was no answer."""
        self._meter.count("tapewatch_evidence_unknown_total", reason).add()

    def ended(self, runbook: Runbook, conclusion: Conclusion) -> None:
        """Count a run by its outcome, and its refusal by the reason."""
        self._meter.count("tapewatch_runs_total", runbook.name, str(conclusion.outcome)).add()
        if conclusion.reason:
            self.refused(conclusion.reason)

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._meter.count("tapewatch_refusals_total", reason).add()

    def handed_over(self) -> None:
        """Count an incident given to a person."""
        self._meter.count("tapewatch_handovers_total").add()

    def error(self, kind: str) -> None:
        """Count an operating error the loop went on after."""
        self._meter.count("tapewatch_errors_total", kind).add()
