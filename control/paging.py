"""Telling people that an incident waits for them: an alert of its own, posted to Alertmanager for the on-call receiver.

The alert is posted again while the incident waits, so an Alertmanager that was down learns of it, and ends when
somebody acknowledges or the incident is resolved. An incident waits, too, while a run of it asks for consent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from control.telemetry import ControlInstruments
from exchange.ports import Log
from incidents.incident import Incident
from kernel.errors import TapewatchError
from kernel.time import Clock, Duration, Instant
from monitor.ports import Alerts, PostableAlert

NEEDS_PERSON: Final = "IncidentNeedsPerson"
SOON: Final = Duration(2_000_000_000)
"""Between two tries while Alertmanager does not answer."""


class Pager:
    """Keeps one alert up per incident that waits for a person."""

    def __init__(
        self, alerts: Alerts, control_url: str, every: Duration, telemetry: ControlInstruments, log: Log, clock: Clock
    ) -> None:
        """Post to `alerts`, again every `every` while an incident waits."""
        self._alerts = alerts
        self._url = control_url
        self._every = every
        self._telemetry = telemetry
        self._log = log
        self._clock = clock
        self._next: dict[str, Instant] = {}
        self._up: dict[str, PostableAlert] = {}

    async def turn(self, unresolved: Sequence[Incident], now: Instant, asking: Mapping[str, str] | None = None) -> None:
        """Post what is due and end what is over. `asking`: what runs ask people's consent for, by incident."""
        asked = asking or {}
        waiting = {
            one.id: one for one in unresolved if one.id in asked or (one.needs_person and one.acknowledged_at is None)
        }
        for incident in waiting.values():
            if now >= self._next.get(incident.id, Instant(0)):
                await self._post(incident, now, asked.get(incident.id, ""))
        for over in [one for one in self._up if one not in waiting]:
            await self._end(over, now)

    async def _post(self, incident: Incident, now: Instant, asks: str) -> None:
        alert = self._alert(incident, Instant(now + 3 * self._every), asks)
        try:
            await self._alerts.post([alert])
        except TapewatchError as error:
            self._telemetry.error("page")
            self._next[incident.id] = Instant(now + SOON)
            self._log.event("page-failed", severity="error", incident=incident.id, message=str(error))
            return
        self._up[incident.id] = alert
        self._next[incident.id] = Instant(now + self._every)

    async def _end(self, incident_id: str, now: Instant) -> None:
        alert = self._up.pop(incident_id)
        self._next.pop(incident_id, None)
        try:
            await self._alerts.post([PostableAlert(alert.labels, alert.annotations, alert.starts_at, now)])
        except TapewatchError as error:
            # It ends by itself: every post carries an end not far ahead.
            self._log.event("page-end-failed", severity="warning", incident=incident_id, message=str(error))

    def _alert(self, incident: Incident, ends_at: Instant, asks: str) -> PostableAlert:
        labels = {
            "alertname": NEEDS_PERSON,
            "severity": "critical",
            "level": str(incident.level),
            "team": incident.team,
            "service": incident.service,
            "incident": incident.id,
        }
        likely = f"\nWhat moved first: {incident.likely_cause}" if incident.likely_cause else ""
        annotations = {
            "summary": f"{incident.id} waits for a person: {incident.title}",
            "description": (asks or f"{incident.needs_person_why}\n{incident.what_to_do}") + likely,
            "incident_url": f"{self._url}/api/v1/incidents/{incident.id}",
        }
        return PostableAlert(labels, annotations, incident.opened_at, ends_at)
