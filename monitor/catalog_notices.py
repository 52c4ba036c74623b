"""Metrics of notices on their way: exported by settlement, which publishes and keeps them."""

from __future__ import annotations

from typing import Final

from monitor.catalog_model import Metric, Role, counter, gauge

NOTICE_METRICS: Final[tuple[Metric, ...]] = (
    counter(Role.SETTLEMENT, "exchange_notices_published_total", "Notices that the broker confirmed, by kind.", "kind"),
    gauge(Role.SETTLEMENT, "exchange_notices_unpublished", "Notices read from the events that are not confirmed."),
    gauge(
        Role.SETTLEMENT,
        "exchange_notices_oldest_seconds",
        "Since the event of the oldest notice that is not confirmed; 0 when none waits.",
    ),
    gauge(Role.SETTLEMENT, "exchange_notices_source_connected", "1 while events come that are told of."),
    gauge(Role.SETTLEMENT, "exchange_notices_keeper_connected", "1 while who keeps notices reads their queue."),
    counter(Role.SETTLEMENT, "exchange_notices_kept_total", "Notices kept for looking up."),
    counter(Role.SETTLEMENT, "exchange_notices_repeats_total", "Notices that came again and were there already."),
)
