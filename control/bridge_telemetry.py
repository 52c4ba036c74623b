"""What the bridge counts, over the catalogue's cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from incidents.paging.answers import AnswerKind
from incidents.paging.outbox import Delivery, Phase, overdue
from kernel.time import Instant, to_seconds
from monitor.instruments import Meter


class BridgeInstruments:
    """Metric updates of the bridge."""

    def __init__(self, meter: Meter, channels: Iterable[str]) -> None:
        """Bind to the cells of `meter`; what is known from the start is shown from the start."""
        self._meter = meter
        self._channels = tuple(channels)
        for channel in self._channels:
            for phase in (Phase.DELIVERED, Phase.ACCEPTED, Phase.FAILED, Phase.UNCONFIRMED):
                meter.count("tapewatch_pages_total", channel, str(phase)).add(0)
            for kind in AnswerKind:
                meter.count("tapewatch_page_attempts_total", channel, str(kind)).add(0)
            meter.count("tapewatch_page_escalations_total", channel).add(0)

    def attempt(self, channel: str, kind: AnswerKind) -> None:
        """Count a try by what it came to."""
        self._meter.count("tapewatch_page_attempts_total", channel, str(kind)).add()

    def ended(self, delivery: Delivery, now: Instant) -> None:
        """Count a page by how it ended. Test pages are not counted: an alert stands on these numbers."""
        if delivery.page.test:
            return
        self._meter.count("tapewatch_pages_total", delivery.channel, str(delivery.phase)).add()
        if delivery.phase in {Phase.DELIVERED, Phase.ACCEPTED}:
            self._meter.spread("tapewatch_page_seconds").observe(to_seconds(max(0, now - delivery.taken_at)))

    def escalated(self, channel: str) -> None:
        """Count a page handed on from a channel."""
        self._meter.count("tapewatch_page_escalations_total", channel).add()

    def standing(self, unfinished: Iterable[Delivery], receipt_s: Mapping[str, float], now: Instant) -> None:
        """Show what waits, how old the oldest is, and which receipts are overdue."""
        late: Counter[str] = Counter()
        waiting, oldest = 0, now
        for one in unfinished:
            if one.phase is not Phase.SENT:
                waiting += 1
                oldest = min(oldest, one.taken_at)
            elif overdue(one, receipt_s.get(one.channel, 0.0), now):
                late[one.channel] += 1
        self._meter.level("tapewatch_pages_waiting").set(waiting)
        self._meter.level("tapewatch_page_oldest_waiting_seconds").set(to_seconds(now - oldest))
        for channel in self._channels:
            self._meter.level("tapewatch_page_receipts_overdue", channel).set(late[channel])
