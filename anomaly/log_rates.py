"""A log as series: how often each kind of line comes, judged like any other series, and the kinds never seen before.

Lines are counted by template in buckets of time. The whole log is series 0 of a fleet; a template that came often
enough gets one of the others, up to `rated`, until it is let go of. A bucket without a line of a kind is a true zero
while the log lives: lines of other kinds came, or the caller says so. With no line at all and nobody to say, the whole
log is zero and its kinds are not known: missing, never zero. When the caller says that the log could not be read, all
is missing.

A new kind scores by the quiet before it: half a point after `QUIET` buckets without one, a whole after twice that.

A rate is an alert when the fleet calls it one and it is beyond chance for a count (`anomaly.counts`), once an episode;
what is not beyond chance scores half.

Cost: that of `anomaly.templates` for a line, that of the fleet for a bucket.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anomaly.counts import Opinion
from anomaly.detector import THRESHOLD, FleetDetector
from anomaly.masking import text_of
from anomaly.templates import Limits, Template, Templates
from kernel.errors import PermanentError
from kernel.time import MINUTE, SECOND, Duration, Instant

VERSION: Final = 1
QUIET: Final = 60
"""Buckets without a new kind of line before one that is an anomaly."""
GAP_MAX: Final = 500
"""Empty buckets that are gone through one by one; what is longer counts as so many."""
FINDINGS_MAX: Final = 20
"""Findings of one bucket; the strongest stay."""
_OFTEN: Final = 20
"""Lines of a kind before its rate is judged."""
_SHOWN: Final = 160
_NEVER: Final = -1

Make = Callable[[int], FleetDetector]
"""Makes a fleet for so many series."""


class Why(enum.StrEnum):
    """What a finding speaks of."""

    NEW = "new"
    """A kind of line that was never seen."""
    RATE = "rate"
    """A kind that comes more or less often than expected, or the whole log does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something unusual in a log, in words; `template` is the id, empty for the log as a whole."""

    at: Instant
    why: Why
    template: str
    text: str
    example: str
    score: float
    alert: bool
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket of time: `at` is its end."""

    at: Instant
    lines: int
    score: float
    alert: bool
    findings: tuple[Finding, ...]


class LogWatcher:
    """The templates of one log and their rates."""

    def __init__(
        self, make: Make, *, limits: Limits | None = None, rated: int = 200, bucket: Duration = MINUTE
    ) -> None:
        """Judge the rates of at most `rated` templates, and of the whole log, in buckets of `bucket` nanoseconds."""
        assert bucket > 0, "a bucket has a length"
        assert rated > 0, "one rate at least is judged"
        self.templates = Templates(limits or Limits())
        self.bucket = bucket
        self._make, self._rated = make, rated
        self._fleet = make(rated + 1)
        self._opinion = Opinion(rated + 1)
        self._paged: set[int] = set()
        """Places in the fleet whose episode has been told."""
        self._slots: dict[str, int] = {}
        """Place in the fleet by template."""
        self._free = list(range(rated, 0, -1))
        self._counts: dict[str, int] = {}
        self._new: list[Template] = []
        self._lines = 0
        self._end = Instant(_NEVER)
        self._quiet = 0
        """Buckets since the last new kind."""
        self.score = 0.0
        """The highest score of a rate in the last bucket."""

    def add(self, line: str, at: Instant) -> list[Bucket]:
        """Take one line in; returns the buckets that it ends. A line that comes late counts where it comes."""
        done = self._pass(at)
        seen = self.templates.add(line, at)
        self._lines += 1
        name = seen.template.id
        self._counts[name] = self._counts.get(name, 0) + 1
        if seen.new:
            self._new.append(seen.template)
        return done

    def advance(self, to: Instant, *, alive: bool | None = None) -> list[Bucket]:
        """End the buckets up to an instant.

        Args:
            to: The present.
            alive: True: the log is there and says nothing. False: it could not be read, so that nothing is known.
                None: nobody knows.
        """
        return self._pass(to, alive=alive)

    def finish(self) -> list[Bucket]:
        """End the bucket that is open, at the end of a recording."""
        return [self._close()] if self._end != _NEVER and self._lines else []

    def _pass(self, at: Instant, *, alive: bool | None = None) -> list[Bucket]:
        if self._end == _NEVER:
            self._end = Instant(at // self.bucket * self.bucket + self.bucket)
            return []
        done: list[Bucket] = []
        behind = (at - self._end) // self.bucket
        if behind > GAP_MAX:
            done.append(self._close(alive=alive))
            self._end = Instant(self._end + (behind - GAP_MAX) * self.bucket)
        while at >= self._end:
            done.append(self._close(alive=alive))
        return done

    def _close(self, *, alive: bool | None = None) -> Bucket:
        """Judge the open bucket and begin the next."""
        at, lines = self._end, self._lines
        self._settle_slots()
        values = np.full(self._rated + 1, np.nan)
        if alive is not False:
            values[0] = lines
            if lines or alive:
                for name, slot in self._slots.items():
                    values[slot] = self._counts.get(name, 0)
        scores = self._fleet.advance(np.full(self._rated + 1, at, dtype=np.int64), values)
        going = scores.episode | scores.alert
        # In an episode a score may sink below the threshold; what both call unusual is unusual.
        said = np.where(going, np.fmax(scores.score, THRESHOLD), scores.score)
        score = np.where(self._opinion.step(values), said, scores.score / 2)
        self.score = float(np.nanmax(score, initial=0.0))
        self._paged = {slot for slot in self._paged if going[slot]}
        findings = [*self._rates(at, score, going), *self._fresh(at)]
        findings.sort(key=lambda one: (not one.alert, -one.score, one.template))
        bucket = Bucket(
            at=at,
            lines=lines,
            score=max(self.score, *(one.score for one in findings), 0.0),
            alert=any(one.alert for one in findings),
            findings=tuple(findings[:FINDINGS_MAX]),
        )
        self._end = Instant(at + self.bucket)
        self._counts.clear()
        self._new.clear()
        self._lines = 0
        return bucket

    def _settle_slots(self) -> None:
        """Give places in the fleet to templates that came often enough, and take them from those that are gone."""
        known = {one.id: one for one in self.templates.all()}
        for name in [name for name in self._slots if name not in known]:
            slot = self._slots.pop(name)
            self._fleet.vacate(slot)
            self._opinion.forget(slot)
            self._free.append(slot)
        for name, one in known.items():
            if name not in self._slots and one.count >= _OFTEN and self._free:
                self._slots[name] = self._free.pop()

    def _rates(self, at: Instant, score: NDArray[np.float64], going: NDArray[np.bool_]) -> Iterator[Finding]:
        known = {one.id: one for one in self.templates.all()}
        for name, slot in (("", 0), *self._slots.items()):
            if not score[slot] >= THRESHOLD:
                continue
            alert = bool(going[slot]) and slot not in self._paged
            if alert:
                self._paged.add(slot)
            found = self._fleet.finding(slot)
            template = known.get(name)
            text, example = (template.text, template.example) if template else ("", "")
            subject = f"“{_cut(text)}”" if template else "The whole log"
            said = found.sentence if found is not None else f"score {score[slot]:.2f}"
            such = f"; such as: {_cut(example)}" if example else ""
            sentence = f"{subject}, lines in {_length(self.bucket)}: {said}{such}"
            yield Finding(at, Why.RATE, name, text, example, float(score[slot]), alert, sentence)

    def _fresh(self, at: Instant) -> Iterator[Finding]:
        quiet, self._quiet = self._quiet, 0 if self._new else self._quiet + 1
        strength = min(1.0, 0.5 * quiet / QUIET)
        for one in self._new:
            sentence = (
                f"A kind of line that was never seen, after {quiet:,} times {_length(self.bucket)} without one: "
                f"“{_cut(one.text)}”; such as: {_cut(one.example)}"
            )
            alert = strength >= THRESHOLD
            yield Finding(at, Why.NEW, one.id, one.text, one.example, strength, alert, sentence)

    # --- keeping ----------------------------------------------------------------------------------------------------

    def save(self) -> bytes:
        """Return the whole state: a line of JSON, then the templates' and the fleet's own."""
        templates, fleet = self.templates.save(), self._fleet.save()
        head = {
            "version": VERSION, "bucket": self.bucket, "rated": self._rated, "slots": self._slots, "free": self._free,
            "counts": self._counts, "lines": self._lines, "end": self._end, "quiet": self._quiet, "score": self.score,
            "opinion": self._opinion.save(), "paged": sorted(self._paged),
            "new": [one.id for one in self._new], "templates": len(templates), "fleet": len(fleet),
        }  # fmt: skip
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + templates + fleet

    @classmethod
    def restore(cls, state: bytes, make: Make, fleet: Callable[[bytes], FleetDetector]) -> LogWatcher:
        """Return what `save` kept; `fleet` restores the fleet's part of it.

        Raises:
            PermanentError: it is no such state, or one of another version.
        """
        first, _, rest = state.partition(b"\n")
        try:
            head = json.loads(first)
            if head["version"] != VERSION:
                raise PermanentError(f"log: the state is of version {head['version']!r}, {VERSION} is understood")
            cut, end = int(head["templates"]), int(head["templates"]) + int(head["fleet"])
            if len(rest) != end:
                raise PermanentError(f"log: the state has {len(rest):,} bytes, {end:,} are meant")
            made = cls(make, rated=int(head["rated"]), bucket=Duration(int(head["bucket"])))
            made.templates, made._fleet = Templates.restore(rest[:cut]), fleet(rest[cut:end])
            made._slots = {str(name): int(slot) for name, slot in head["slots"].items()}
            made._free = [int(slot) for slot in head["free"]]
            made._counts = {str(name): int(count) for name, count in head["counts"].items()}
            made._opinion, made._paged = Opinion.restore(head["opinion"]), set(map(int, head["paged"]))
            made._lines, made._end, made._quiet = int(head["lines"]), Instant(int(head["end"])), int(head["quiet"])
            made.score = float(head["score"])
            known = {one.id: one for one in made.templates.all()}
            made._new = [known[name] for name in head["new"] if name in known]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PermanentError(f"log: the state cannot be read ({error!r})") from error
        return made


def score_log(
    lines: Iterable[str], stamps: Iterable[int], make: Make, *, bucket: Duration = MINUTE, limits: Limits | None = None
) -> list[Bucket]:
    """Score a recorded log: a row for every bucket from the first line to the last, each from what came before it only.

    Args:
        lines: Lines of text, or of JSON objects.
        stamps: The instant of each, nanoseconds; a step back counts as late.
        make: Makes the fleet that judges the rates.
        bucket: Length of a bucket.
        limits: Bounds of the templates.
    """
    watcher = LogWatcher(make, limits=limits, bucket=bucket)
    found: list[Bucket] = []
    for line, at in zip(lines, stamps, strict=True):
        found += watcher.add(text_of(line), Instant(at))
    return found + watcher.finish()


def _cut(text: str) -> str:
    line = " ".join("".join(_visible(letter) for letter in text[: 2 * _SHOWN]).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _visible(letter: str) -> str:
    return letter if letter.isprintable() else " " if letter.isspace() else "\ufffd"


def _length(duration: Duration) -> str:
    """Return a bucket's length in words."""
    if duration == MINUTE:
        return "a minute"
    return f"{duration / SECOND:g} seconds"
