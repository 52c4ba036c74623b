"""Every watched series in one fleet of detectors: a fold over steps, each the readings of one instant.

The fold decides nothing about people: it says how unusual each series is and where an episode began that deserves a
look. The rules of `alerts/` decide what becomes of it. What it holds back, and why:

- readings that are not of the present never ask for anybody: history, and what a gap is filled with;
- a departure to the harmless side (less memory), or one so small that it matters to nobody, is shown and asks for
  nobody until it turns or grows;
- for a while after a turn of the market's phase the calendar explains a change of what follows the session. What this
  minute of the session usually brings and is missing, it does not explain;
- when data come back after an outage, the windows of rates are still filling.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.detector import NO_SLOT, Channel, FleetDetector, Scores, Verdict
from control.anomaly_lasting import Lasting
from control.anomaly_state import Kept, Life, Page, Seat
from exchange.calendar import Calendar, Phase, PhaseName
from kernel.time import HOUR, MINUTE, SECOND, Duration, Instant, to_rfc3339
from monitor.watched import Harm, Renews, Watched

GONE: Final = Duration(10 * MINUTE)
"""A series without a reading for so long is forgotten, and its seat is free."""
FILLING: Final = Duration(15 * SECOND)
"""The first readings of a series are of windows that are not full yet: no detector sees them."""
SETTLE: Final = Duration(2 * MINUTE)
"""For so long after a turn of the phase the calendar explains a change."""
DUE: Final = Duration(10 * MINUTE)
"""For so long a detector's word that told nobody is remembered: it pages once an episode, and is silent after that."""
USUAL_ROWS: Final = 300
"""Rows whose mean is what is usual, when it is asked whether a departure matters."""
DAY: Final = Duration(24 * HOUR)
PATIENCE_MAX: Final = 8.0
PAGES_KEPT: Final = 1_000
LIVES_KEPT: Final = 512
_MINUTES_A_DAY: Final = 1_440
_PHASES: Final = {name: number for number, name in enumerate(PhaseName)}


class Kind(StrEnum):
    """What a step is to the present."""

    LIVE = "live"
    GAP = "gap"
    """Made up for after a stop: an episode that began there and goes on is told at the next live step."""
    HISTORY = "history"
    """From before this began: it teaches, and what was unusual then is over."""


class Key(NamedTuple):
    """Which series: the id of its entry, and the part of it."""

    series: str
    item: str

    @property
    def words(self) -> str:
        """As people write it."""
        return f"{self.series}/{self.item}" if self.item else self.series


class Read(NamedTuple):
    """One reading, and the service it speaks of."""

    value: float
    service: str


@dataclass(frozen=True)
class Step:
    """The readings of one instant."""

    at: Instant
    values: Mapping[Key, Read]
    lives: Mapping[str, Life]
    """By replica: which version runs, and since when."""


@dataclass(frozen=True)
class Fleets:
    """How fleets are made."""

    make: Callable[[int], FleetDetector]
    restore: Callable[[bytes], FleetDetector]
    """May raise ValueError or InputError: the state is of another version, or broken."""
    budget_per_day: float
    """False alarms that each series promises to stay below, a day."""


@dataclass(frozen=True)
class Row:
    """What is known of one series now."""

    key: Key
    entry: Watched
    service: str
    at: Instant
    value: float
    low: float
    high: float
    score: float
    channel: Channel
    verdict: Verdict
    alert: bool
    sentence: str
    page: str


class AnomalyWatch:
    """The fold. Seats are given to series as they appear, within the bound of their entry, and taken when they go."""

    def __init__(
        self, watched: Sequence[Watched], fleets: Fleets, *, hold: Duration, settle: Duration = SETTLE,
        calendar: Calendar | None = None, kept: Kept | None = None, lasting: bool = False,
    ) -> None:  # fmt: skip
        """Begin anew, or go on from what is kept.

        Args:
            watched: the list.
            fleets: how fleets are made.
            hold: an alert stands so long at least, so that a rule sees it.
            settle: how long after a turn of the phase the calendar explains a change.
            calendar: the market's; None: trading is always continuous.
            kept: what `kept` gave before a stop, of the same list.
            lasting: whether a detector's word counts only when what it speaks of lasts (`anomaly_lasting`).

        Raises:
            ValueError: the state that is kept has another number of seats.
            InputError: it is of another version, or broken.
        """
        self.watched = {one.id: one for one in watched}
        self._fleets, self._hold, self._settle, self._calendar = fleets, hold, settle, calendar
        size = sum(one.most for one in watched)
        self._fleet = fleets.make(size) if kept is None else fleets.restore(kept.fleet)
        if len(self._fleet) != size:
            raise ValueError(f"the fleet has {len(self._fleet)} seats, {size} are needed")
        self._seats: dict[Key, Seat] = {Key(one.series, one.item): one for one in kept.seats} if kept else {}
        taken = {seat.index for seat in self._seats.values()}
        self._free = [index for index in reversed(range(size)) if index not in taken]
        self._lives: dict[str, Life] = dict(kept.lives) if kept else {}
        self.pages: list[Page] = list(kept.pages) if kept else []
        self.answered = kept.answered if kept else 0
        """How many answers of people are taken in."""
        self.at = kept.at if kept else Instant(0)
        """The instant of the last step; 0 before the first."""
        self.left_out = 0
        """Series of the last step that found no seat."""
        self.dropped = 0
        """Series forgotten since the start."""
        self.renewed: dict[Renews, int] = dict.fromkeys(Renews, 0)
        """Series begun anew since the start, by reason."""
        self._quiet_until = Instant(0)
        self._lasting: dict[Key, Lasting] | None = self._restored() if lasting else None
        self._scores: Scores | None = None
        self._values: dict[Key, float] = {}

    # --- one step ---------------------------------------------------------------------------------------------------

    def advance(self, step: Step, kind: Kind) -> list[Page]:
        """Judge the readings of an instant later than the last; return the pages that begin with it."""
        assert step.at > self.at, "steps come in the order of time"
        self.at = step.at
        self._renew(step)
        self._seat_all(step)
        scores = self._scores = _copied(self._fleet.advance(*self._inputs(step)))
        self._values = {key: read.value for key, read in step.values.items()}
        settling = self._settling(step.at)
        pages = [
            page
            for key, seat in self._seats.items()
            if (page := self._judge(key, seat, scores, kind, settling=settling)) is not None
        ]
        self.pages = [*self.pages, *pages][-PAGES_KEPT:]
        return pages

    def quiet_until(self, at: Instant) -> None:
        """Ask for nobody before an instant: data come back after an outage."""
        self._quiet_until = max(self._quiet_until, at)

    def _inputs(self, step: Step) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
        size = len(self._fleet)
        values = np.full(size, np.nan)
        slots = np.full(size, NO_SLOT, dtype=np.int32)
        slot = self._slot(step.at)
        for key, seat in self._seats.items():
            read = step.values.get(key)
            if read is not None:
                if self._lasting is None or step.at - seat.begun >= FILLING:
                    values[seat.index] = read.value
                if math.isfinite(read.value):
                    seat.seen_at = step.at
            if self.watched[key.series].session:
                slots[seat.index] = slot
        return np.full(size, step.at, dtype=np.int64), values, slots

    def _judge(self, key: Key, seat: Seat, scores: Scores, kind: Kind, *, settling: bool) -> Page | None:
        """Keep a seat's alert up to date; return the page that begins now."""
        index, entry = seat.index, self.watched[key.series]
        word = bool(scores.alert[index]) and kind is not Kind.HISTORY
        if word:
            seat.due_until = Instant(self.at + DUE)
        explained = settling and entry.session and scores.channel[index] != Channel.SAME_CLOCK
        if explained:
            seat.due_until = Instant(0)
        value = self._values.get(key, math.nan)
        ongoing = counts = bool(scores.episode[index] or word)
        # What lasts is looked for without a word, too: after one that came to nothing a detector is silent for long.
        lasting = self._lasts(key, seat, value, looks=kind is not Kind.HISTORY and not explained)
        if lasting is not None:
            ongoing = counts = lasting.confirmed
            counts = counts and not seat.paging
            seat.due_until = Instant(self.at + DUE)
        if not ongoing:
            seat.paging = False
        matters = _harms(entry, value, index, scores) and _matters(entry, value, seat.usual)
        _learn(seat, value)
        now = kind is Kind.LIVE and self.at >= self._quiet_until
        if not (self.at < seat.due_until and now and counts and matters):
            return None
        seat.due_until, seat.paging, seat.hold_until = Instant(0), True, Instant(self.at + self._hold)
        finding = self._fleet.finding(index)
        page = Page(
            id=f"A-{to_rfc3339(self.at)[:19].replace('-', '').replace(':', '')}-{index}",
            at=self.at, series=key.series, item=key.item, service=seat.service,
            channel=Channel(int(scores.channel[index])).name.lower(), value=finite(value),
            low=finite(float(scores.low[index])), high=finite(float(scores.high[index])),
            sentence=told(entry, finding.sentence if finding else "unusual"),
        )  # fmt: skip
        if lasting is not None and lasting.band is not None:
            page.channel, page.low, page.high = lasting.channel, lasting.band.low, lasting.band.high
            page.sentence = lasting.sentence(entry.unit)
        seat.page = page.id
        return page

    def _lasts(self, key: Key, seat: Seat, value: float, *, looks: bool) -> Lasting | None:
        """Return whether a departure lasts; None where a detector's word alone counts."""
        if self._lasting is None:
            return None
        known = self._lasting.get(key)
        if known is None:
            known = self._lasting[key] = Lasting(self.watched[key.series].harm)
        if not looks:
            known.forget()
        finding = self._fleet.finding(seat.index) if looks else None
        if finding is not None:
            known.hear(finding.channel.name.lower(), finding.sentence)
        filling = self.at - seat.begun < FILLING
        known.take(self.at, math.nan if filling else value, word=looks, patience=seat.patience)
        return known

    # --- seats ------------------------------------------------------------------------------------------------------

    def _seat_all(self, step: Step) -> None:
        for key, seat in list(self._seats.items()):
            if step.at - seat.seen_at > GONE and key not in step.values:
                self._free.append(seat.index)
                del self._seats[key]
                self._forget(key)
                self.dropped += 1
        held: dict[str, int] = {}
        for key in self._seats:
            held[key.series] = held.get(key.series, 0) + 1
        self.left_out = 0
        for key in sorted(step.values.keys() - self._seats.keys()):
            if key.series not in self.watched:
                continue
            if held.get(key.series, 0) >= self.watched[key.series].most:
                self.left_out += 1
                continue
            held[key.series] = held.get(key.series, 0) + 1
            index = self._free.pop()
            self._fleet.vacate(index)
            service = step.values[key].service
            self._seats[key] = Seat(
                index=index, series=key.series, item=key.item, service=service, seen_at=step.at, begun=step.at
            )

    def _renew(self, step: Step) -> None:
        """Begin anew what a deploy or a new process has made worthless."""
        for replica, life in step.lives.items():
            before = self._lives.get(replica)
            # One of the two facts may be missing for a scrape; what is not said has not changed.
            merged = Life(life.job, life.build or (before.build if before else ""), life.since or _since(before))
            self._lives[replica] = merged
            if before is None or before == merged:
                continue
            built = bool(before.build) and merged.build != before.build
            for key, seat in self._seats.items():
                entry = self.watched[key.series]
                if (key.item == replica or (key.item not in step.lives and seat.service == merged.job)) and (
                    built or (entry.renews is Renews.PROCESS and merged.since != before.since)
                ):
                    self._fleet.restart(seat.index)
                    self._forget(key)
                    seat.begun = step.at
                    seat.paging, seat.due_until, seat.usual, seat.rows = False, Instant(0), None, 0
                    self.renewed[Renews.BUILD if built else Renews.PROCESS] += 1
        while len(self._lives) > LIVES_KEPT:
            self._lives.pop(next(iter(self._lives)))

    def _forget(self, key: Key) -> None:
        if self._lasting is not None:
            self._lasting.pop(key, None)

    # --- the session ------------------------------------------------------------------------------------------------

    def _phase(self, at: Instant) -> Phase | None:
        return None if self._calendar is None else self._calendar.phase_at(at)

    def _slot(self, at: Instant) -> int:
        """Return the minute of the phase, phases numbered apart; NO_SLOT where no calendar tells."""
        phase = self._phase(at)
        if phase is None or phase.since is None:
            return NO_SLOT
        return _PHASES[phase.name] * _MINUTES_A_DAY + min((at - phase.since) // MINUTE, _MINUTES_A_DAY - 1)

    def _settling(self, at: Instant) -> bool:
        phase = self._phase(at)
        return phase is not None and phase.since is not None and at - phase.since < self._settle

    # --- what people say --------------------------------------------------------------------------------------------

    def answer(self, what: str, *, false_alarm: bool) -> int:
        """Take in what a person says of a page (its id) or of a series; return how many series it was said of."""
        page = next((one for one in reversed(self.pages) if one.id == what), None)
        keys = [Key(page.series, page.item)] if page is not None else [
            key for key in self._seats if what in {key.words, key.series}
        ]  # fmt: skip
        seated = [(key, self._seats[key]) for key in keys if key in self._seats]
        for key, seat in seated:
            self._fleet.feedback(seat.index, false_alarm=false_alarm)
            about = page or next((one for one in reversed(self.pages) if Key(one.series, one.item) == key), None)
            if about is not None:
                about.answer = "false" if false_alarm else "true"
            seat.patience = min(2 * seat.patience, PATIENCE_MAX) if false_alarm else 1.0
            if false_alarm:
                seat.paging, seat.due_until, seat.hold_until = False, Instant(0), Instant(0)
                if self._lasting is not None and key in self._lasting:
                    self._lasting[key].forget()
        return len(seated)

    # --- what is seen -----------------------------------------------------------------------------------------------

    def standing(self, seat: Seat) -> bool:
        """Whether a seat's alert stands: through its episode, and for the hold at least."""
        return seat.paging or self.at < seat.hold_until

    def rows(self) -> list[Row]:
        """Return what the last step said of each series, in the order of the list."""
        scores = self._scores
        if scores is None:
            return []
        order = {name: place for place, name in enumerate(self.watched)}
        keys = sorted(self._seats, key=lambda key: (order[key.series], key.item))
        return [self._row(key, self._seats[key], scores) for key in keys]

    def _row(self, key: Key, seat: Seat, scores: Scores) -> Row:
        index, entry = seat.index, self.watched[key.series]
        finding = self._fleet.finding(index)
        return Row(
            key=key, entry=entry, service=seat.service, at=self.at, value=self._values.get(key, math.nan),
            low=float(scores.low[index]), high=float(scores.high[index]), score=float(scores.score[index]),
            channel=Channel(int(scores.channel[index])), verdict=Verdict(int(scores.verdict[index])),
            alert=self.standing(seat), sentence=told(entry, finding.sentence) if finding else "", page=seat.page,
        )  # fmt: skip

    def pages_of_the_day(self) -> int:
        """Count the pages of the last 24 hours that nobody confirmed as right."""
        return sum(one.answer != "true" for one in self.pages if self.at - one.at < DAY)

    def promised(self) -> float:
        """Return how many false pages a day the budget allows for the series that have a seat."""
        return self._fleets.budget_per_day * len(self._seats)

    def _restored(self) -> dict[Key, Lasting]:
        """Return the newest readings of each seat, as they were kept."""
        return {
            key: Lasting.restore(self.watched[key.series].harm, seat.newest)
            for key, seat in self._seats.items()
            if seat.newest is not None
        }

    def _seats_kept(self) -> list[Seat]:
        known = self._lasting or {}
        for key, seat in self._seats.items():
            seat.newest = known[key].kept() if key in known else None
        return list(self._seats.values())

    def kept(self) -> Kept:
        """Return everything that a restart needs."""
        return Kept(
            at=self.at, seats=self._seats_kept(), lives=dict(self._lives),
            pages=list(self.pages), answered=self.answered, fleet=self._fleet.save(),
        )  # fmt: skip


def told(entry: Watched, sentence: str) -> str:
    """Return a finding's sentence with what its numbers count."""
    return f"{sentence} ({entry.unit})"


def _harms(entry: Watched, value: float, index: int, scores: Scores) -> bool:
    """Tell whether a departure is to a side that does harm; a missed reading is on no side."""
    match entry.harm:
        case Harm.UP:
            return not value < scores.low[index] and scores.channel[index] != Channel.FLATLINE
        case Harm.DOWN:
            return not value > scores.high[index]
        case Harm.BOTH:
            return True


def _matters(entry: Watched, value: float, usual: float | None) -> bool:
    """Tell whether a departure from what is usual is large enough to matter; a missed reading always is."""
    if usual is None or not math.isfinite(value):
        return True
    return abs(value - usual) >= max(entry.least, entry.least_share * abs(usual))


def _learn(seat: Seat, value: float) -> None:
    """Let a reading count for what is usual."""
    if math.isfinite(value):
        seat.rows = min(seat.rows + 1, USUAL_ROWS)
        before = value if seat.usual is None else seat.usual
        seat.usual = before + (value - before) / seat.rows


def finite(value: float) -> float | None:
    """Return a number as JSON bears it: None for what is none."""
    return value if math.isfinite(value) else None


def _since(life: Life | None) -> float:
    return life.since if life is not None else 0.0


def _copied(scores: Scores) -> Scores:
    """Return what outlives the fleet's next step."""
    return Scores(**{part.name: getattr(scores, part.name).copy() for part in dataclasses.fields(scores)})
