"""Kill-switch-class alerts as the watchdog posts them straight to Alertmanager.

Their labels equal those of the Prometheus rules of the same name, so that Alertmanager sees one alert, not two. A test
holds both to each other.
"""

from __future__ import annotations

from typing import Final

from kernel.time import Instant
from monitor.ports import PostableAlert

DOCS: Final = "https://tapewatch.example/docs/alerts.md"
DASHBOARDS: Final = "https://tapewatch.example/dashboards"


def sequence_gap(symbol: str, starts_at: Instant | None = None, ends_at: Instant | None = None) -> PostableAlert:
    """Say that messages of `symbol` are missing from the feed; over when `ends_at` is past."""
    return PostableAlert(
        labels=_labels("SequenceGap", "market-data") | {"symbol": symbol},
        annotations=_annotations(
            "SequenceGap",
            "market-data",
            f"Messages of {symbol} are missing from the feed",
            f"The watchdog saw a gap in the sequence of {symbol}: participants' books of it may be wrong.",
        ),
        starts_at=starts_at,
        ends_at=ends_at,
    )


def book_crossed(symbol: str, starts_at: Instant | None = None, ends_at: Instant | None = None) -> PostableAlert:
    """Say that the book of `symbol` is crossed; over when `ends_at` is past."""
    return PostableAlert(
        labels=_labels("BookCrossed", "market-data") | {"symbol": symbol},
        annotations=_annotations(
            "BookCrossed",
            "market-data",
            f"The book of {symbol} is crossed",
            f"The best bid of {symbol} reaches its best offer: matching or the feed is wrong.",
        ),
        starts_at=starts_at,
        ends_at=ends_at,
    )


def journal_failed(starts_at: Instant | None = None, ends_at: Instant | None = None) -> PostableAlert:
    """Say that the engine's journal failed; over when `ends_at` is past."""
    return PostableAlert(
        labels=_labels("JournalFailed", "engine"),
        annotations=_annotations(
            "JournalFailed",
            "engine",
            "The engine's journal failed",
            "An append or sync of the journal failed. The engine takes nothing more, because a later sync could "
            "succeed although the data is gone.",
        ),
        starts_at=starts_at,
        ends_at=ends_at,
    )


def _labels(name: str, service: str) -> dict[str, str]:
    return {"alertname": name, "severity": "critical", "level": "1", "team": "market-operations", "service": service}


def _annotations(name: str, board: str, summary: str, description: str) -> dict[str, str]:
    return {
        "summary": summary,
        "description": description,
        "runbook_url": f"{DOCS}#{name.lower()}",
        "dashboard": f"{DASHBOARDS}/tapewatch-{board}",
    }


def page_not_delivered(
    channel: str, reason: str = "", starts_at: Instant | None = None, ends_at: Instant | None = None
) -> PostableAlert:
    """Say that a page of `channel` did not land; over when `ends_at` is past."""
    labels = _labels("PageNotDelivered", "bridge") | {"team": "platform-operations", "channel": channel}
    why = f" The last one: {reason}." if reason else ""
    return PostableAlert(
        labels=labels,
        annotations=_annotations(
            "PageNotDelivered",
            "monitoring",
            f"A page by {channel} did not land",
            f"The bridge could not deliver a page by {channel}: somebody was not told.{why}",
        ),
        starts_at=starts_at,
        ends_at=ends_at,
    )
