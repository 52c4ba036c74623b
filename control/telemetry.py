"""What the control plane counts of itself, over the catalogue's cells."""

from __future__ import annotations

from collections.abc import Iterable

from incidents.incident import Incident, State
from kernel.time import Instant, to_seconds
from monitor.instruments import Meter
from runbooks.model import Action, Conclusion, DoAnswer, Runbook


class ControlInstruments:
    """Metric updates of the control process."""

    def __init__(self, meter: Meter) -> None:
        """Bind to the cells of `meter`."""
        self._meter = meter

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
        for incident in incidents:
            tally[incident.state] += 1
        for state, number in tally.items():
            if state is not State.RESOLVED:
                self._meter.level("tapewatch_incidents", str(state)).set(number)
        self._meter.level("tapewatch_backlog_signals").set(backlog)
        self._meter.level("tapewatch_active_runs").set(runs)
        self._meter.level("tapewatch_loop_timestamp_seconds").set(to_seconds(now))

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
