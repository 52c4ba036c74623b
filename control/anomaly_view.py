"""What people see of watched series: as plain values, the same for the terminal, for JSON and for the API."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from control.anomaly_state import Page
from control.anomaly_watch import AnomalyWatch, Row, finite
from kernel.time import Instant, to_rfc3339, to_seconds


class SeriesNow(msgspec.Struct, frozen=True, kw_only=True):
    """One series: its reading, what was expected, how unusual it is. Numbers are None where there is none."""

    id: str
    """What feedback names it by."""
    service: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    score: float | None
    alert: bool
    state: str
    """scored, warming, missed, duplicate or backward."""
    channel: str
    """Which kind of strangeness the score speaks of; `none` when nothing is unusual."""
    sentence: str = ""
    page: str = ""
    """The id of its last page."""
    reason: str = ""
    """Why it is watched."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    at: str | None
    """The instant of the newest readings, RFC 3339."""
    fresh_s: float | None
    """Their age in seconds."""
    series: tuple[SeriesNow, ...] = ()
    pages: tuple[Page, ...] = ()
    """The latest, newest first."""
    pages_day: int = 0
    pages_promised: float = 0.0
    left_out: int = 0
    refused: Mapping[str, str] = {}
    """Entries of the list that Prometheus does not take."""
    trouble: str = ""
    """Why the scores are not of the present; empty when they are."""


PAGES_SHOWN = 20


def view_of(watch: AnomalyWatch, now: Instant, *, trouble: str, refused: Mapping[str, str]) -> View:
    """Return what is known now."""
    return View(
        at=to_rfc3339(watch.at) if watch.at else None,
        fresh_s=round(to_seconds(now - watch.at), 3) if watch.at else None,
        series=tuple(series_now(row) for row in watch.rows()),
        pages=tuple(reversed(watch.pages[-PAGES_SHOWN:])),
        pages_day=watch.pages_of_the_day(),
        pages_promised=round(watch.promised(), 3),
        left_out=watch.left_out,
        refused=dict(refused),
        trouble=trouble,
    )


def series_now(row: Row) -> SeriesNow:
    """Return one series as people see it."""
    return SeriesNow(
        id=row.key.words, service=row.service, unit=row.entry.unit, value=finite(row.value), low=finite(row.low),
        high=finite(row.high), score=finite(row.score), alert=row.alert, state=row.verdict.name.lower(),
        channel=row.channel.name.lower(), sentence=row.sentence, page=row.page, reason=row.entry.reason,
    )  # fmt: skip
