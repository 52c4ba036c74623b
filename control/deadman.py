"""The dead man's switch: when the always-firing Watchdog alert stops arriving, the monitoring itself is down."""

from __future__ import annotations

from typing import Final

from control.telemetry import ControlInstruments
from incidents.signals import AlertSignal, Status, own_signal
from kernel.time import Duration, Instant, to_seconds

WATCHDOG: Final = "Watchdog"
SILENT: Final = "MonitoringSilent"


class DeadMan:
    """Watches for silence. The first Watchdog alert arms it, and so does the start of the process."""

    def __init__(self, patience: Duration, started: Instant, telemetry: ControlInstruments) -> None:
        """Call silence what lasts longer than `patience`; at the start twice that is allowed."""
        self._patience = patience
        self._heard = Instant(started + patience)
        self._silent_since: Instant | None = None
        self._telemetry = telemetry
        self._spoke = False

    def note(self, signal: AlertSignal, now: Instant) -> bool:
        """Take note of a Watchdog alert; True when the signal was one and needs no further decision."""
        if signal.name == SILENT:
            self._adopt(signal)
        if signal.name != WATCHDOG:
            return False
        if signal.status is Status.FIRING and now - signal.received_at < self._patience:
            self._hear(signal.received_at)
        return True

    def heard(self, signals: list[AlertSignal]) -> None:
        """Take note of Watchdog alerts at their arrival: repeated ones never reach the decision, being duplicates."""
        for signal in signals:
            if signal.name == WATCHDOG and signal.status is Status.FIRING:
                self._hear(signal.received_at)

    def resume(self, silent_since: Instant) -> None:
        """Go on with a silence that an earlier process told of; only a Watchdog alert ends it."""
        self._silent_since = silent_since
        if not self._spoke:
            self._heard = Instant(silent_since - self._patience)

    def _adopt(self, signal: AlertSignal) -> None:
        """Take over what an earlier process told of the silence and nobody had decided on yet."""
        if signal.status is Status.RESOLVED:
            self._silent_since = None
        elif self._silent_since is None:
            self.resume(signal.starts_at)

    def _hear(self, at: Instant) -> None:
        self._heard = max(self._heard, at)
        self._spoke = True
        self._telemetry.deadman(self._heard)

    def due(self, now: Instant) -> AlertSignal | None:
        """Return a signal while silence has begun or ended and that was not yet `told`."""
        silent = now - self._heard > self._patience
        if silent and self._silent_since is None:
            return self._signal(Status.FIRING, now, now)
        if not silent and self._silent_since is not None:
            return self._signal(Status.RESOLVED, self._silent_since, now)
        return None

    def told(self, signal: AlertSignal) -> None:
        """Take note that a signal of `due` is durable; until then it is due again and again."""
        self._silent_since = signal.starts_at if signal.status is Status.FIRING else None

    def _signal(self, status: Status, began: Instant, now: Instant) -> AlertSignal:
        for_s = to_seconds(now - self._heard)
        return own_signal(
            {
                "alertname": SILENT,
                "severity": "critical",
                "level": "1",
                "team": "observability",
                "service": "monitoring",
            },
            {
                "summary": "The monitoring is silent",
                "description": f"No Watchdog alert arrived for {for_s:.0f} s: Prometheus, Alertmanager or the way "
                "between them and control is down. Nothing automatic is done without evidence.",
            },
            status=status,
            starts_at=began,
            received_at=now,
            ends_at=now if status is Status.RESOLVED else None,
        )
