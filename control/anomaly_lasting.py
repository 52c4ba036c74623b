"""Whether what a detector noticed lasts: one look at a value says little where values are read every second.

A detector tells the reading at which a series became unusual. Most of what it tells at such a pace is over before
anybody could look. So the band in which the series was before is kept, and the word counts only when the middle of the
newest readings lies outside of it, by a good part of its width, within a minute. What counts goes on until the middle
is back. The band, the windows and the margin are the same for every series.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

import msgspec
import numpy as np

from anomaly.cause_words import figure
from kernel.time import MINUTE, SECOND, Duration, Instant
from monitor.watched import Harm

RECENT: Final = Duration(20 * SECOND)
"""The newest readings, whose median speaks: two windows of a rate."""
APART: Final = Duration(45 * SECOND)
"""What was before ends so long before the word: what is noticed late has begun to be usual."""
BEFORE: Final = Duration(5 * MINUTE)
PENDING: Final = Duration(60 * SECOND)
"""For so long after a word it is looked whether it lasts."""
LONGEST: Final = Duration(10 * MINUTE)
"""What lasts longer has become usual."""
MARGIN: Final = 1.0
"""Widths of the band outside of it at which something lasts."""
BACK: Final = 0.25
"""Widths at which it is back, or this share of how far it has been: what was far away is over when most of it is,"""
BACK_MAX: Final = 0.75
"""but not so many widths away, where what barely lasts would come and go."""
LEAST_SHARE: Final = 0.05
"""The band is at least so wide, as a share of its middle: departures of hundredths are nobody's business."""
SPAN_MIN: Final = Duration(2 * MINUTE)
"""The readings before a word reach back at least so far; fewer make no band, and nobody is asked."""
READINGS_MIN: Final = 30
KEPT: Final = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Band:
    """In which range most readings were before."""

    low: float
    high: float
    since: Instant
    """When the word came."""

    @property
    def width(self) -> float:
        """How wide it is, never nothing."""
        return max(self.high - self.low, LEAST_SHARE * abs(self.high + self.low) / 2, 1e-12)

    def outside(self, value: float, harm: Harm) -> float:
        """Return how far a value is outside, in widths, on a side that does harm; negative inside."""
        above, below = (value - self.high) / self.width, (self.low - value) / self.width
        match harm:
            case Harm.UP:
                return above
            case Harm.DOWN:
                return below
            case Harm.BOTH:
                return max(above, below)


class LastingKept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of it over a restart: the readings as numpy's bytes, and the word that stands."""

    at: bytes
    values: bytes
    band: Band | None
    confirmed: bool
    channel: str
    why: str
    farthest: float = 0.0


class Lasting:
    """The newest readings of one series, and the band before a word, while one stands."""

    def __init__(self, harm: Harm) -> None:
        self._harm: Final = harm
        self._at: Final = np.zeros(KEPT, dtype=np.int64)
        self._values: Final = np.full(KEPT, np.nan)
        self._next = 0
        self.band: Band | None = None
        self.confirmed = False
        self.channel = ""
        self._why = ""
        self._farthest = 0.0
        self.middle = math.nan
        """The median of the newest readings, while a word stands."""

    @classmethod
    def restore(cls, harm: Harm, kept: LastingKept) -> Lasting:
        """Go on from what is kept.

        Raises:
            ValueError: its readings are damaged.
        """
        lasting = cls(harm)
        at, values = np.frombuffer(kept.at, np.int64)[-KEPT:], np.frombuffer(kept.values)[-KEPT:]
        if len(at) != len(values):
            raise ValueError(f"{len(at)} instants for {len(values)} readings")
        lasting._at[: len(at)], lasting._values[: len(values)] = at, values
        lasting._next = len(at) % KEPT
        lasting.band, lasting.confirmed, lasting.channel, lasting._why, lasting._farthest = (
            kept.band, kept.confirmed, kept.channel, kept.why, kept.farthest,
        )  # fmt: skip
        return lasting

    def kept(self) -> LastingKept:
        """Return what a restart needs: the readings that are looked back on, in the order of time."""
        order = np.argsort(self._at, kind="stable")
        looked = order[(self._at[order] > 0) & (self._at[order] > self._at.max() - BEFORE - APART)]
        return LastingKept(
            at=self._at[looked].tobytes(), values=self._values[looked].tobytes(), band=self.band,
            confirmed=self.confirmed, channel=self.channel, why=self._why, farthest=self._farthest,
        )  # fmt: skip

    def take(self, at: Instant, value: float, *, word: bool, patience: float = 1.0) -> bool:
        """Take in a reading, NaN for a missed one; tell whether a departure lasts now.

        A `word` begins to look for one, and gives up after a minute; whoever looks always says it with each reading.
        What asked in vain before is met with `patience`: the margin is so many times larger.
        """
        self._at[self._next], self._values[self._next] = at, value
        self._next = (self._next + 1) % KEPT
        if word and self.band is None:
            self.band = self._before(at)
        band = self.band
        if band is None:
            return False
        self.middle = self._middle(at)
        far = band.outside(self.middle, self._harm)
        if self.confirmed:
            self._farthest = max(self._farthest, far)
            if not far >= min(max(BACK, BACK * self._farthest), BACK_MAX) or at - band.since > LONGEST:
                self.forget()
        elif far >= MARGIN * patience:
            self.confirmed = True
            self.channel = self.channel or ("level_up" if self.middle > band.high else "level_down")
        elif at - band.since > PENDING:
            self.forget()
        return self.confirmed

    def hear(self, channel: str, sentence: str) -> None:
        """Keep the channel of the detector's word, and its reason: what stands behind the colon."""
        self.channel, self._why = channel, sentence.rpartition(": ")[2]

    def sentence(self, unit: str) -> str:
        """Return what lasts in words; empty while no word stands."""
        if self.band is None:
            return ""
        low, high = figure(self.band.low, unit), figure(self.band.high, unit)
        because = f": {self._why}" if self._why else ""
        return f"{figure(self.middle, unit)} over {RECENT // SECOND} s, expected {low} to {high}{because}"

    def forget(self) -> None:
        """Let the word that stands be over."""
        self.band, self.confirmed, self.channel, self._why, self._farthest = None, False, "", "", 0.0

    def _before(self, at: Instant) -> Band | None:
        looked = (self._at >= at - BEFORE) & (self._at < at - APART) & np.isfinite(self._values)
        known = self._values[looked]
        if len(known) < READINGS_MIN or at - APART - self._at[looked].min() < SPAN_MIN:
            return None
        low, high = np.quantile(known, (0.01, 0.99))
        return Band(float(low), float(high), at)

    def _middle(self, at: Instant) -> float:
        newest = self._values[(self._at > at - RECENT) & (self._at <= at)]
        known = newest[np.isfinite(newest)]
        return float(np.median(known)) if 2 * len(known) >= len(newest) and len(known) else math.nan
