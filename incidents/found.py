"""What a detector found, in a timeline: its own sentence about a series, as it stood when it asked for attention. Pure.

What is kept is the page that the detectors made, not a judgement made anew; where it could not be read, the entry says
why, so that nobody takes silence for agreement.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from incidents.timeline import Draft, Entry, EntryKind
from incidents.words import clean
from kernel.time import Instant

SOURCE: Final = "detectors"
_SENTENCE_MAX: Final = 500
_NAME_MAX: Final = 120


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One series that a detector's alert spoke of; `trouble` says why its page is not known."""

    fingerprint: str
    """Of the alert."""
    starts_at: Instant
    """When the alert began: one that fires again is told again."""
    series: str
    item: str = ""
    page: str = ""
    """The page's id, by which people answer it."""
    found_at: Instant | None = None
    """The reading that asked for attention."""
    channel: str = ""
    """Which kind of strangeness."""
    value: float | None = None
    low: float | None = None
    """The range that was expected, in the series' own unit."""
    high: float | None = None
    sentence: str = ""
    trouble: str = ""

    @property
    def name(self) -> str:
        """The series as people read it."""
        return f"{self.series} of {self.item}" if self.item else self.series


def found_draft(found: Found, at: Instant) -> Draft:
    """Write down what a detector found, or that it could not be read and why."""
    return Draft(at, EntryKind.ANOMALY_FOUND, SOURCE, told_of(found), msgspec.to_builtins(found))


def told_of(found: Found) -> str:
    """Return it in a sentence."""
    if found.trouble:
        return f"What the detectors found of {found.name} could not be read: {found.trouble}"
    return f"The detectors found {found.name} unusual: {found.sentence}"


def found_of(entry: Entry | Draft) -> Found:
    """Read what was found from its entry; what has the wrong shape is left out."""
    data = entry.data

    def text(name: str, most: int = _NAME_MAX) -> str:
        return clean(data.get(name, ""), most)

    return Found(
        fingerprint=text("fingerprint"), starts_at=_instant(data.get("starts_at")) or Instant(0),
        series=text("series"), item=text("item"), page=text("page"), found_at=_instant(data.get("found_at")),
        channel=text("channel"), value=_number(data.get("value")), low=_number(data.get("low")),
        high=_number(data.get("high")), sentence=text("sentence", _SENTENCE_MAX),
        trouble=text("trouble", _SENTENCE_MAX),
    )  # fmt: skip


def _instant(value: object) -> Instant | None:
    return Instant(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None
