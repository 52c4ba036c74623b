"""What is told of notices on their way, as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from exchange.notices import NoticeKind
from monitor.instruments import Meter


class NoticeInstruments:
    """`exchange.notices.NoticeTelemetry` over a meter."""

    def __init__(self, meter: Meter) -> None:
        self._published = {kind: meter.count("exchange_notices_published_total", kind.value) for kind in NoticeKind}
        self._unpublished = meter.level("exchange_notices_unpublished")
        self._oldest = meter.level("exchange_notices_oldest_seconds")
        self._source = meter.level("exchange_notices_source_connected")
        self._keeper = meter.level("exchange_notices_keeper_connected")
        self._kept = meter.count("exchange_notices_kept_total")
        self._repeats = meter.count("exchange_notices_repeats_total")

    def published(self, kinds: Iterable[NoticeKind]) -> None:
        """See `NoticeTelemetry`."""
        for kind, count in Counter(kinds).items():
            self._published[kind].add(count)

    def waiting(self, count: int, *, oldest_s: float) -> None:
        """See `NoticeTelemetry`."""
        self._unpublished.set(count)
        self._oldest.set(oldest_s)

    def connected(self, *, source: bool, keeper: bool) -> None:
        """See `NoticeTelemetry`."""
        self._source.set(source)
        self._keeper.set(keeper)

    def kept(self, new: int, repeats: int) -> None:
        """See `NoticeTelemetry`."""
        self._kept.add(new)
        self._repeats.add(repeats)
