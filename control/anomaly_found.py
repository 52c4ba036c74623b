"""What the detectors found, for an incident that one of their alerts opened: the page they made, in their own words.

An alert carries the name of a series and no more. The page behind it, with the range that was expected and the reason,
is held by the detectors' process; it is read there, or from what that process keeps on disk when it does not answer,
and written into the incident's timeline. It goes on beside the control loop and holds nothing up; when no page can be
read the timeline gets a line that says so. The end of an incident makes up for what was missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from control.anomaly_state import Page, load_kept
from control.anomaly_view import View
from control.calls import call
from control.intake import StoreThread
from exchange.ports import Log
from incidents.found import Found, found_draft, found_of, told_of
from incidents.incident import AlertFact, Incident
from incidents.timeline import Draft, Entry, EntryKind
from incidents.words import clean
from kernel.errors import TapewatchError
from kernel.time import MINUTE, SECOND, Clock, Duration, Instant
from runbooks.model import OF_DETECTORS

ASK_S: Final = 2.0
"""For one question to the detectors."""
TRIES: Final = 3
AGAIN_S: Final = 2.0
"""Between a question without an answer and the next."""
SOONER: Final = Duration(15 * MINUTE)
"""A page lies so long at most before its alert: a departure is told for ten minutes at most, and rules look later."""
LATER: Final = Duration(5 * SECOND)
"""And so long after it: clocks of processes differ."""
WAITING_MAX: Final = 20
"""Incidents that may wait; those above get theirs at their end."""
BEGUN_MAX: Final = 2_000
"""Alerts remembered as told; whoever is told of once more is found in its timeline."""
FOUND_MAX: Final = 50
"""Entries of one incident: a series that comes and goes all day is told so often and no more."""


class Finder:
    """Reads pages of the detectors for incidents, one after the other."""

    def __init__(
        self, store: StoreThread, *, url: str, kept: Path, clock: Clock, log: Log, again_s: float = AGAIN_S
    ) -> None:
        """Ask the process at `url` (empty: there is none), or read what it keeps in the file `kept`."""
        self._store, self._url, self._kept, self._clock, self._log = store, url, kept, clock, log
        self._again_s = again_s
        self._one = asyncio.Lock()
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._begun: set[tuple[str, Instant]] = set()
        """Alerts that are being told, or were: each signal about an incident comes by here."""

    def begin(self, incident: Incident) -> None:
        """Read what the detectors say of an incident's alerts, soon and beside everything else."""
        new = {_key(alert) for alert in incident.alerts.values() if _speaks(alert)} - self._begun
        if not new or len(self._waiting) >= WAITING_MAX:
            return
        self._begun = new if len(self._begun) >= BEGUN_MAX else self._begun | new
        before = self._waiting.get(incident.id)  # an alert that has just come is told after what is told now
        task = asyncio.create_task(self._soon(incident.id, before), name=f"found {incident.id}")
        self._waiting[incident.id] = task
        task.add_done_callback(lambda done: self._forget(incident.id, done))

    async def at_end(self, incident: Incident, entries: Sequence[Entry]) -> list[Draft]:
        """Return what the end of an incident adds: pages of alerts that have not been told of."""
        waiting = self._waiting.pop(incident.id, None)
        if waiting is not None:
            waiting.cancel()
        return await self._drafts(incident, entries, tries=1)

    async def stop(self) -> None:
        """Leave what is not read yet; the end of each incident makes up for it."""
        tasks = list(self._waiting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, incident_id: str, done: asyncio.Task[None]) -> None:
        if self._waiting.get(incident_id) is done:
            del self._waiting[incident_id]

    async def _soon(self, incident_id: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            async with self._one:
                incident = await self._store.call(lambda store: store.incident(incident_id))
                entries = await self._store.call(lambda store: store.timeline(incident_id))
                drafts = await self._drafts(incident, entries, tries=TRIES) if incident is not None else []
                if drafts:
                    await self._store.call(lambda store: store.append(incident_id, drafts))
        except TapewatchError as error:
            self._log.event("anomaly-found-not-kept", severity="warning", incident=incident_id, message=str(error))

    async def _drafts(self, incident: Incident, entries: Sequence[Entry], *, tries: int) -> list[Draft]:
        told = [found_of(entry) for entry in entries if entry.kind is EntryKind.ANOMALY_FOUND]
        known = {(found.fingerprint, found.starts_at) for found in told if not found.trouble}
        failed = {(found.fingerprint, found.starts_at) for found in told if found.trouble}
        alerts = [alert for alert in incident.alerts.values() if _speaks(alert) and _key(alert) not in known]
        looked = await self._look(alerts[: max(0, FOUND_MAX - len(told))], tries)
        found = [one for one in looked if not one.trouble or (one.fingerprint, one.starts_at) not in failed]
        for one in found:
            severity = "warning" if one.trouble else "info"
            self._log.event("anomaly-found", severity=severity, incident=incident.id, message=told_of(one))
        return [found_draft(one, self._clock.now()) for one in found]

    async def _look(self, alerts: Sequence[AlertFact], tries: int) -> list[Found]:
        """Return the page behind each alert, or why there is none."""
        trouble, seen = "", dict[tuple[str, Instant], Page]()
        for attempt in range(tries):
            if len(seen) == len(alerts):
                break
            if attempt:
                await asyncio.sleep(self._again_s)
            pages, trouble = await asyncio.to_thread(self._pages)
            for alert in alerts:
                page = page_of(pages, *_series(alert), alert.starts_at)
                if page is not None:
                    seen[_key(alert)] = page
        return [_found(alert, seen.get(_key(alert)), trouble) for alert in alerts]

    def _pages(self) -> tuple[list[Page], str]:
        """Return the pages that are known, and what stands in the way of knowing them all; blocks."""
        pages: list[Page] = []
        trouble = "no process of detectors is known here"
        if self._url:
            try:
                view = msgspec.convert(call("GET", f"{self._url}/v1/series", timeout_s=ASK_S), type=View)
                pages, trouble = list(view.pages), view.trouble if not view.at else ""
            except msgspec.ValidationError as error:
                trouble = f"the detectors answer in another version's words ({error})"
            except TapewatchError as error:
                trouble = str(error)
        try:
            kept = load_kept(self._kept, None)
        except ValueError:
            return pages, trouble  # what is kept is only a second way
        return [*pages, *(kept.pages if kept is not None else ())], trouble


def page_of(pages: Sequence[Page], series: str, item: str, starts_at: Instant) -> Page | None:
    """Return the last page of a series that an alert beginning at `starts_at` can speak of."""
    near = [
        page
        for page in pages
        if (page.series, page.item) == (series, item) and starts_at - SOONER <= page.at <= starts_at + LATER
    ]
    return max(near, key=lambda page: page.at, default=None)


def _found(alert: AlertFact, page: Page | None, trouble: str) -> Found:
    series, item = _series(alert)
    plain = Found(fingerprint=alert.fingerprint, starts_at=alert.starts_at, series=series, item=item)
    if page is None:
        return msgspec.structs.replace(plain, trouble=trouble or "they know of no page of it at that time")
    return msgspec.structs.replace(
        plain, page=page.id, found_at=page.at, channel=page.channel, value=page.value, low=page.low, high=page.high,
        sentence=clean(page.sentence, 500),
    )  # fmt: skip


def _key(alert: AlertFact) -> tuple[str, Instant]:
    return alert.fingerprint, alert.starts_at


def _series(alert: AlertFact) -> tuple[str, str]:
    return alert.labels.get("series", ""), alert.labels.get("item", "")


def _speaks(alert: AlertFact) -> bool:
    return alert.name in OF_DETECTORS and bool(alert.labels.get("series"))
