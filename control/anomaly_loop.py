"""Steps of the detectors, one after the other: read, judge, tell, keep.

An instant is judged once, in order, whatever happens to the process or to Prometheus: what was missed is asked for as a
range, a gap that is too long is passed over and counted. Instants of which nothing at all is known are no readings of
"nothing": they are left out, so that an outage of the monitoring is not an anomaly of every series when it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from control import anomaly_feedback
from control.anomaly_gauges import Gauges
from control.anomaly_reading import CHUNK, Failure, ReadError, Readings
from control.anomaly_state import Page, encode, save_kept
from control.anomaly_watch import AnomalyWatch, Kind, Step
from exchange.ports import Log
from kernel.time import MINUTE, SECOND, Clock, Duration, Instant

SETTLE: Final = Duration(300_000_000)
"""An instant is asked for so long after it: a scrape that began before it must have been stored."""
YOUNG: Final = Duration(10 * SECOND)
"""Readings that are older, or than three steps, ask for nobody."""
GAP_MAX: Final = Duration(60 * MINUTE)
"""A longer gap is passed over but for its end."""
SAVE_EVERY: Final = Duration(30 * SECOND)
"""Some megabytes, made durable; the journal of the exchange may be on the same disk."""
AGE_S: Final = 0.5
HISTORY_PATIENCE: Final = Duration(60 * SECOND)
"""For so long history is asked for at the start; an estate's Prometheus starts beside this process."""


@dataclass(frozen=True)
class LoopParts:
    """What the loop works with."""

    watch: AnomalyWatch
    readings: Readings
    gauges: Gauges
    log: Log
    clock: Clock
    step: Duration
    """Whole seconds."""
    window: Duration
    """Of rates; so long after an outage nobody is asked for."""
    history: Duration
    digest: str
    state: Path
    feedback: Path


class AnomalyLoop:
    """Steps until it is cancelled."""

    def __init__(self, parts: LoopParts) -> None:
        self._p = parts
        self._young = max(YOUNG, 3 * parts.step)
        self._reached = parts.watch.at
        """The instant that the last answer reached, whether or not it held readings."""
        self._began = parts.clock.now()
        self._looked_back = parts.watch.at > 0 or parts.history <= 0
        self._saved_at = Instant(0)
        self._told = ""
        self.why = "no step was taken yet"
        """Why there are no scores of the present; empty when there are."""

    async def run(self) -> None:
        """Step, and keep the age of the scores true between two steps."""
        ages = asyncio.create_task(self._ages(), name="ages of scores")
        try:
            while True:
                now = self._p.clock.now()
                due = Instant((now - SETTLE) // self._p.step * self._p.step)
                if due > self._reached:
                    await self.step(due)
                wait = due + self._p.step + SETTLE - self._p.clock.now()
                await asyncio.sleep(max(0.05, wait / SECOND))
        finally:
            ages.cancel()

    async def step(self, due: Instant) -> None:
        """Judge everything up to the instant `due`; a failure is counted, told once, and made good by a later step."""
        began = perf_counter()
        self._listen()
        try:
            if not self._looked_back:
                await self._look_back(due)
            read_s = await self._catch_up(due)
        except ReadError as error:
            self._p.gauges.failed(error.failure)
            self._explain(str(error.failure), str(error))
            self._age()
            return
        now = self._p.clock.now()
        if self._p.watch.at and now - self._p.watch.at <= self._young:
            self._explain("", "")
            self._p.gauges.show(self._p.watch, now, len(self._p.readings.refused))
        else:
            self._p.gauges.failed(Failure.EMPTY)
            self._explain(str(Failure.EMPTY), "Prometheus answers, and has no readings of the present")
            self._age()
        self._p.gauges.took(perf_counter() - began, read_s)
        if now - self._saved_at >= SAVE_EVERY:
            await self.save()

    async def save(self) -> None:
        """Keep what was learnt; a disk that is full costs the memory of a stop, not the work."""
        self._saved_at = self._p.clock.now()
        if not self._p.watch.at:
            return
        data = encode(self._p.watch.kept(), self._p.digest)
        try:
            await asyncio.to_thread(save_kept, self._p.state, data)
        except OSError as error:
            self._p.log.event("anomaly-state-not-kept", severity="warning", message=str(error))

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _look_back(self, due: Instant) -> None:
        """Learn from what Prometheus holds; where it holds nothing, or does not answer in time, begin without it."""
        start = Instant((due - self._p.history) // self._p.step * self._p.step)
        try:
            learnt = 0
            at = start
            while at < due:
                end = min(Instant(at + (CHUNK - 1) * self._p.step), Instant(due - self._p.step))
                learnt += (await self._take(await self._p.readings.history(at, end), Kind.HISTORY))[0]
                self._reached, at = end, Instant(end + self._p.step)
        except ReadError:
            if self._p.clock.now() - self._began < HISTORY_PATIENCE:
                raise
            self._p.log.event("anomaly-history-missing", severity="warning", message="it begins without a past")
        else:
            self._p.log.event("anomaly-history-read", count=learnt)
        self._looked_back = True

    async def _catch_up(self, due: Instant) -> float:
        """Read and judge from where the last answer ended up to `due`; return how long the last question took."""
        step = self._p.step
        start = Instant(self._reached + step) if self._reached else due
        if due - start > GAP_MAX:
            skipped = (due - start - GAP_MAX) // step
            self._p.gauges.skipped(skipped)
            self._p.log.event("anomaly-gap-skipped", severity="warning", count=skipped)
            start = Instant(start + skipped * step)
        read_s = 0.0
        while start <= due:
            end = min(Instant(start + (CHUNK - 1) * step), due)
            began = perf_counter()
            steps = await self._p.readings.now(start, end)
            read_s = perf_counter() - began
            self._reached = end
            _, pages = await self._take(steps, Kind.GAP)
            if pages:
                self._p.gauges.paged(pages)
                for page in pages:
                    self._tell(page)
                await self.save()
            start = Instant(end + step)
        return read_s

    async def _take(self, steps: Sequence[Step], kind: Kind) -> tuple[int, list[Page]]:
        """Judge steps in order; the ones that are young enough are of the present."""
        watch, pages, taken = self._p.watch, list[Page](), 0
        for step in steps:
            if step.at <= watch.at:
                continue  # a state that is newer than what was asked for
            if watch.at and step.at - watch.at > self._p.step:  # instants without any reading lie between
                watch.quiet_until(Instant(step.at + self._p.window))
            young = kind is not Kind.HISTORY and self._p.clock.now() - step.at <= self._young
            really = Kind.LIVE if young else kind
            pages += watch.advance(step, really)
            self._p.gauges.stepped(really)
            taken += 1
            if not young and taken % 50 == 0:
                await asyncio.sleep(0)  # whoever scrapes or asks for readiness does not wait for a long past
        return taken, pages

    # --- telling ----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take in what people said since the last step."""
        said, self._p.watch.answered = anomaly_feedback.after(self._p.feedback, self._p.watch.answered)
        for one in said:
            of = self._p.watch.answer(one.what, false_alarm=one.false_alarm) if one is not None else 0
            answer = "unknown" if one is None or not of else "false" if one.false_alarm else "true"
            self._p.gauges.answered(answer)
            what = one.what if one is not None else "a line that says nothing"
            self._p.log.event("anomaly-feedback", answer=answer, count=of, message=what)
            self._saved_at = Instant(0)  # kept with the next step

    def _tell(self, page: Page) -> None:
        name = f"{page.series}/{page.item}" if page.item else page.series
        self._p.log.event("anomaly-page", severity="warning", page=page.id, series=name, message=page.sentence)

    def _explain(self, why: str, message: str) -> None:
        self.why = message
        if why != self._told:
            self._told = why
            name = "anomaly-readings-missing" if why else "anomaly-readings-back"
            # An estate's Prometheus starts beside this process: that it has nothing yet is no trouble.
            usual = not why or not self._p.watch.at
            self._p.log.event(name, severity="info" if usual else "warning", message=message)

    async def _ages(self) -> None:
        while True:
            self._age()
            await asyncio.sleep(AGE_S)

    def _age(self) -> None:
        now = self._p.clock.now()
        self._p.gauges.age(self._p.watch, now)
        if not self._p.watch.at or now - self._p.watch.at > self._young:
            self._p.gauges.stale()
