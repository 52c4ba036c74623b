"""A page that did not land is itself an alert: posted straight to Alertmanager, with the labels of its rule.

The rule of the same name reads the bridge's metrics and needs a scrape; this is at once, and works while Prometheus is
down. The alert stays up for a while after the last page was lost on that channel, then ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from exchange.ports import Log
from incidents.paging.outbox import Delivery
from kernel.errors import TapewatchError
from kernel.time import Clock, Duration, Instant, seconds
from monitor.direct_alerts import page_not_delivered
from monitor.ports import Alerts

SHOWN_FOR: Final[Duration] = seconds(55)
"""Just within the minute that the rule of the same name looks back: neither revives what the other has ended."""
EVERY_S: Final = 20.0
SOON_S: Final = 2.0


class LostPages:
    """Keeps one alert up for each channel that lost a page lately."""

    def __init__(self, alerts: Alerts, log: Log, clock: Clock) -> None:
        """Post to `alerts`."""
        self._alerts = alerts
        self._log = log
        self._clock = clock
        self._last: dict[str, Delivery] = {}
        self._began: dict[str, Instant] = {}
        self._told: dict[str, Instant] = {}
        self._wake = asyncio.Event()

    def lost(self, delivery: Delivery) -> None:
        """Take note of a page that ended badly for good."""
        at = delivery.ended_at if delivery.ended_at is not None else self._clock.now()
        self._last[delivery.channel] = delivery
        self._began.setdefault(delivery.channel, at)
        self._wake.set()

    async def run(self) -> None:
        """Post what is up, again and again, so that an Alertmanager that was down learns of it."""
        while True:
            self._wake.clear()
            pause_s = await self._turn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _turn(self) -> float:
        now, pause_s = self._clock.now(), EVERY_S
        for channel, delivery in list(self._last.items()):
            ended_at = delivery.ended_at if delivery.ended_at is not None else now
            told_at = self._told.get(channel, now)  # what nobody was told of is not over
            over = now - max(ended_at, told_at) >= SHOWN_FOR
            ends_at = now if over else Instant(now + seconds(3 * EVERY_S))
            alert = page_not_delivered(channel, delivery.reason, self._began[channel], ends_at)
            try:
                await self._alerts.post([alert])
            except TapewatchError as error:
                pause_s = SOON_S
                self._log.event("lost-page-not-told", severity="error", channel=channel, message=str(error))
                continue
            self._told.setdefault(channel, now)
            if over:
                del self._last[channel], self._began[channel], self._told[channel]
        return pause_s
