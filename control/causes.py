"""What moved first, for an incident: series of its time from Prometheus, ranked, and written into its timeline.

It goes on beside the control loop and holds nothing up: one ranking at a time, a handful of questions to Prometheus,
all within `PATIENCE_S`; when that fails, the timeline gets a line that says so. It runs soon after an incident opened,
when people look first, once more at its end, when everything was seen, and when somebody asks.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from anomaly.cause_words import Told, put
from anomaly.causes import OUTSIDE, Change, ChangeKind, rank
from anomaly.movement import Track, Window
from control.intake import StoreThread
from exchange.ports import Log
from incidents.incident import Incident
from incidents.ranked import Hypothesis, Ranked, ranked_draft, ranked_of
from incidents.timeline import Draft, Entry, EntryKind
from kernel.errors import TapewatchError
from kernel.time import MINUTE, SECOND, Clock, Duration, Instant
from monitor.adapters.prometheus_api import PrometheusApi
from monitor.ports import Curve, Metrics
from monitor.service_graph import DEPENDS_ON
from monitor.watched import BUILDS, BY_JOB, PROCESSES, Watched, labelled, lives

SETTLE_S: Final = 3.0
"""From the opening of an incident to its first ranking: what follows from a cause must have time to follow."""
SECOND_LOOK_S: Final = 30.0
"""From the first ranking to the second: what was restless before takes longer to be told from chance."""
PATIENCE_S: Final = 8.0
"""For one ranking, all in all."""
ASK_S: Final = 6.0
"""For one question to Prometheus."""
BEFORE: Final = Duration(20 * MINUTE)
"""How far before the alert the usual is looked for."""
AFTER: Final = Duration(5 * MINUTE)
"""How long after the alert movements still tell of its cause."""
AT_ONCE: Final = 12
"""Series in one question, by the parts that the list allows: an answer for all at once would widen control for good."""
READINGS_MAX: Final = 240_000
"""Readings of one answer at most, by the parts that the list allows; the step of the question follows."""
REACTION: Final = Duration(2 * SECOND)
"""What was done less than this before the alert may have been done about it: clocks of processes differ."""
WAITING_MAX: Final = 20
"""Incidents that may wait for their ranking; those above get theirs at their end."""
_UP: Final = "max by (job, replica) (up)"


class _Fault(msgspec.Struct, frozen=True):
    name: str
    at: Instant
    target: str = ""


class Investigator:
    """Ranks causes of incidents, one after the other."""

    def __init__(  # noqa: PLR0913 - what it reads and where it writes
        self,
        store: StoreThread,
        metrics: Metrics,
        watched: Sequence[Watched],
        *,
        scrape_s: int,
        faults: Path,
        clock: Clock,
        log: Log,
        settle_s: float = SETTLE_S,
        second_look_s: float = SECOND_LOOK_S,
    ) -> None:
        """Read `watched` from `metrics`; `faults` is the record of faults injected on purpose."""
        self._store, self._metrics, self._watched = store, metrics, tuple(watched)
        self._window_s = max(5, 4 * scrape_s)
        self._step_s, self._faults, self._clock, self._log = scrape_s, faults, clock, log
        self._settle_s, self._second_look_s = settle_s, second_look_s
        self._one = asyncio.Lock()
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def begin(self, incident_id: str) -> None:
        """Rank the causes of an incident that has just opened, soon and beside everything else."""
        if incident_id not in self._waiting and len(self._waiting) < WAITING_MAX:
            task = asyncio.create_task(self._soon(incident_id), name=f"causes {incident_id}")
            self._waiting[incident_id] = task
            task.add_done_callback(lambda _: self._waiting.pop(incident_id, None))

    async def at_end(self, incident: Incident, entries: Sequence[Entry]) -> list[Draft]:
        """Return what the end of an incident adds: a ranking, when there was none or it says something else now."""
        waiting = self._waiting.pop(incident.id, None)
        if waiting is not None:
            waiting.cancel()
        made = [ranked_of(entry) for entry in entries if entry.kind is EntryKind.CAUSES_RANKED]
        before = [ranked for ranked in made if not ranked.trouble]
        ranked = await self.look(incident)
        if before and (ranked.trouble or ranked.leader == before[-1].leader):
            return []
        if ranked.trouble and made:
            return []  # it has been said
        return [ranked_draft(ranked, self._clock.now())]

    async def again(self, incident: Incident) -> Ranked:
        """Rank anew because somebody asks, and write it down."""
        ranked = await self.look(incident)
        await self._store.call(lambda store: store.append(incident.id, [ranked_draft(ranked, self._clock.now())]))
        return ranked

    async def look(self, incident: Incident) -> Ranked:
        """Return a ranking of now; one that says why there is none when it cannot be made."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._one:
                return await self._ranked(incident)
        except TimeoutError:
            trouble = f"Prometheus took longer than {PATIENCE_S:g} s"
        except TapewatchError as error:
            trouble = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, an incident goes on without a ranking
            trouble = f"a fault of the program: {error!r}"
        self._log.event("causes-unknown", severity="warning", incident=incident.id, message=trouble)
        return Ranked(trouble=trouble)

    async def stop(self) -> None:
        """Leave what is not ranked yet; the end of each incident makes up for it."""
        tasks = list(self._waiting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _soon(self, incident_id: str) -> None:
        said = Ranked()
        try:
            for wait_s in (self._settle_s, self._second_look_s):
                await asyncio.sleep(wait_s)
                incident = await self._store.call(lambda store: store.incident(incident_id))
                if incident is None or not incident.unresolved:
                    return
                said = await self._said_anew(incident, said)
        except TapewatchError as error:
            self._log.event("causes-not-kept", severity="warning", incident=incident_id, message=str(error))

    async def _said_anew(self, incident: Incident, said: Ranked) -> Ranked:
        """Rank, and write it down where it says something else than was `said`; return what is said now."""
        ranked = await self.look(incident)
        if said.hypotheses and (ranked.trouble or _first(ranked) == _first(said)):
            return said
        await self._store.call(lambda store: store.append(incident.id, [ranked_draft(ranked, self._clock.now())]))
        self._log.event("causes-ranked", incident=incident.id, message=ranked.sentence or ranked.trouble)
        return ranked

    async def _ranked(self, incident: Incident) -> Ranked:
        window = window_of(incident, self._clock.now())
        points = max(100, READINGS_MAX // sum(one.most for one in self._watched))
        step = Duration(max(self._step_s, -(-(window.end - window.start) // (points * SECOND))) * SECOND)
        tracks: list[Track] = []
        for part in grouped(self._watched):
            question = " or ".join(labelled(one, self._window_s) for one in part)
            curves = await self._metrics.curve(question, window.start, window.end, step)
            tracks += tracks_of(curves, part)
        changes = changes_of(await self._metrics.curve(lives(), window.start, window.end, step), window)
        changes += self._injected(window)
        tracks += _alive(await self._metrics.curve(_UP, window.start, window.end, step))
        about = incident.service if incident.alerts else ""
        case = await asyncio.to_thread(
            rank, tracks, DEPENDS_ON, window, about=about, changes=changes, known=known_of(incident, tracks)
        )
        told = put(case)
        return Ranked(
            sentence=told.sentence,
            basis=told.basis,
            stands_out=told.stands_out,
            hypotheses=tuple(_kept(one) for one in told.hypotheses),
        )

    def _injected(self, window: Window) -> list[Change]:
        try:
            lines = self._faults.read_bytes().split(b"\n")
            known = [msgspec.json.decode(line, type=_Fault) for line in lines if line]
        except (OSError, msgspec.DecodeError):
            return []
        return [
            Change(one.at, one.target.rpartition("-")[0] or one.target, ChangeKind.FAULT, f"{one.name} of {one.target}")
            for one in known
            if window.start <= one.at <= window.end
        ]


def patient(url: str) -> PrometheusApi:
    """Return a way to Prometheus for long questions; the readings of runs keep theirs to themselves."""
    return PrometheusApi(url, timeout_s=ASK_S)


def window_of(incident: Incident, now: Instant) -> Window:
    """Return the time that tells of an incident's cause; of a reopened one, that of its latest episode."""
    since = incident.reopened_at or Instant(0)
    starts = [alert.starts_at for alert in incident.alerts.values() if alert.starts_at >= since - MINUTE]
    alert = min(starts, default=incident.reopened_at or incident.opened_at)
    end = min(incident.mitigated_at or incident.resolved_at or now, now, alert + AFTER)
    return Window(Instant(alert - BEFORE), alert, Instant(max(end, alert)))


def grouped(watched: Sequence[Watched]) -> list[list[Watched]]:
    """Return the entries in groups of at most `AT_ONCE` series each, in their order; a larger entry is a group."""
    groups: list[list[Watched]] = [[]]
    for one in watched:
        if groups[-1] and sum(other.most for other in groups[-1]) + one.most > AT_ONCE:
            groups.append([])
        groups[-1].append(one)
    return groups


def tracks_of(curves: Sequence[Curve], watched: Sequence[Watched]) -> list[Track]:
    """Return the series of the answer to `union`, by service and by what they are called in the list."""
    known = {one.id: one for one in watched}
    found = []
    for curve in curves:
        one = known.get(curve.labels.get("series", ""))
        if one is None:
            continue
        service = curve.labels.get("job", "") if one.service == BY_JOB else one.service
        item = curve.labels.get("item", "")
        name = f"{one.id} of {item}" if item and item != service else one.id
        track = _track(curve, service or "unknown", name, one.unit)
        found.append(dataclasses.replace(track, least=one.least, least_share=one.least_share, follows=one.follows))
    return found


def known_of(incident: Incident, tracks: Sequence[Track]) -> set[tuple[str, str]]:
    """Return service and metric of the series that detectors found unusual: their alerts carry its name."""
    names = {
        f"{series} of {item}" if item else series
        for alert in incident.alerts.values()
        if (series := alert.labels.get("series", ""))
        for item in (alert.labels.get("item", ""), "")
    }
    return {(track.service, track.metric) for track in tracks if track.metric in names}


def changes_of(curves: Sequence[Curve], window: Window) -> list[Change]:
    """Return restarts and deploys before the alert; what was done after it, was done about it."""
    found = []
    first_build: dict[str, Instant] = {}
    for curve in curves:
        series, job, who = (curve.labels.get(key, "") for key in ("series", "job", "item"))
        if series == BUILDS and curve.points:
            seen, version = curve.points[0][0], curve.labels.get("version", "")
            before = first_build.setdefault(job, seen)
            if before != seen:
                found.append(Change(max(seen, before), job, ChangeKind.DEPLOY, f"{who} runs version {version}"))
        elif series == PROCESSES:
            starts = [Instant(round(value * SECOND)) for _, value in curve.points if np.isfinite(value)]
            found += [
                Change(start, job, ChangeKind.RESTART, f"{who} was started anew")
                for start in dict.fromkeys(starts)
                if starts[0] < start
            ]
    return [one for one in found if one.at <= window.alert - REACTION]


def _alive(curves: Sequence[Curve]) -> list[Track]:
    return [
        _track(curve, curve.labels["job"], f"up of {curve.labels['replica']}", "")
        for curve in curves
        if curve.labels.get("job") and curve.labels.get("replica")
    ]


def _track(curve: Curve, service: str, name: str, unit: str) -> Track:
    at = np.array([at for at, _ in curve.points], dtype=np.int64)
    return Track(service, name, unit, at, np.array([value for _, value in curve.points], dtype=np.float64))


def _first(ranked: Ranked) -> tuple[str, str, bool]:
    """Return which service and which series come first, and whether they stand out."""
    leader = ranked.hypotheses[0] if ranked.hypotheses else None
    return (leader.service, leader.metric, ranked.stands_out) if leader else ("", "", False)


def _kept(one: Told) -> Hypothesis:
    fields: Mapping[str, object] = {
        name: getattr(one, name) for name in ("metric", "score", "at", "sentence", "speaks_for", "speaks_against")
    }
    return msgspec.convert({"service": "" if one.service == OUTSIDE else one.service, **fields}, Hypothesis)
