"""A ranking of causes in words with figures: what speaks for each hypothesis, and what against it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Final

from anomaly.causes import OUTSIDE, Case, ChangeKind, Moved, Suspect
from kernel.time import MILLISECOND, MINUTE, SECOND, Instant

_NAMED: Final = 3
"""Series and services that a sentence names."""
_FAR: Final = 1_000.0
_BYTES: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_KINDS: Final = {
    ChangeKind.RESTART: "It was restarted shortly before",
    ChangeKind.DEPLOY: "It was deployed shortly before",
    ChangeKind.FAULT: "It was broken on purpose, which is told and not counted",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """One hypothesis in words."""

    service: str
    """The service, or `outside`."""
    metric: str
    """The series that leads, empty when none moved."""
    score: float
    """Points, 0 to 1, to two digits."""
    at: Instant | None
    sentence: str
    speaks_for: tuple[str, ...]
    speaks_against: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Ranking:
    """A whole ranking in words: one sentence that says it all, and the hypotheses, best first."""

    sentence: str
    basis: str
    """What was looked at."""
    stands_out: bool
    hypotheses: tuple[Told, ...]


def put(case: Case) -> Ranking:
    """Put a ranking into words."""
    words = _Words(case)
    told = tuple(words.told(suspect) for suspect in case.suspects)
    return Ranking(_sentence(case, told), _basis(case), case.stands_out, told)


def clock(at: int) -> str:
    """Write the time of day in UTC to the second: `09:30:00`."""
    return f"{dt.datetime.fromtimestamp(at // SECOND, tz=dt.UTC):%H:%M:%S}"


def figure(value: float, unit: str = "") -> str:
    """Write a value with three significant digits and its unit: `812 orders/s`, `41.3 MB`, `2.15 ms`."""
    size = abs(value)
    if unit == "bytes":
        for name, factor in _BYTES:
            if size >= factor:
                return f"{value / factor:.3g} {name}"
    if unit == "s" and 0 < size < 1:
        return f"{value * 1e3:.3g} ms" if size >= 1e-3 else f"{value * 1e6:.3g} µs"  # noqa: PLR2004 - a millisecond
    number = f"{value:,.0f}" if size >= _FAR else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def apart(duration: int) -> str:
    """Write a length of time: `850 ms`, `12 s`, `3 min 5 s`."""
    if duration < SECOND:
        return f"{duration // MILLISECOND} ms"
    if duration < 2 * MINUTE:
        return f"{duration / SECOND:.3g} s"
    return f"{duration // MINUTE} min {duration % MINUTE // SECOND} s"


def _sentence(case: Case, told: tuple[Told, ...]) -> str:
    best, rival = told[0], told[1]
    if case.blind:
        return "No hypothesis stands out: nearly every series ended at once, so it is what reads them that failed."
    if not case.judged:
        return "No hypothesis stands out: of no series enough was seen before the alert to tell what is usual."
    if not case.moved:
        return f"No hypothesis stands out: none of {_count(case.judged, 'series')} left its usual range."
    if case.stands_out:
        return (
            f"{best.service} is the likeliest cause ({best.score:.2f}, next {_name(rival)} {rival.score:.2f}): "
            f"{best.sentence}"
        )
    return (
        f"No hypothesis stands out: {_name(best)} ({best.score:.2f}) and {_name(rival)} ({rival.score:.2f}) "
        "are too close, or too little speaks for either."
    )


def _name(told: Told) -> str:
    return "a cause outside of what is watched" if told.service == OUTSIDE else told.service


def _basis(case: Case) -> str:
    window = case.window
    left = f"; {case.left_out} more were left out" if case.left_out else ""
    return (
        f"{case.judged} of {_count(case.series, 'series')} could be judged from {clock(window.start)} to "
        f"{clock(window.end)} UTC, {case.moved} of them moved{left}."
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}"


class _Words:
    """Sentences about the suspects of one case."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._by_name = {one.service: one for one in case.suspects}
        self._moved = [one for one in case.suspects if one.at is not None]

    def told(self, suspect: Suspect) -> Told:
        """Return one hypothesis in words."""
        if suspect.service == OUTSIDE:
            sentence, speaks_for, against = "Something that no watched series shows.", self._unseen(), self._seen()
        elif not suspect.moved:
            sentence = f"{suspect.service} is the cause without showing it."
            speaks_for = self._silent(suspect)
            against = [f"None of its {_count(suspect.judged, 'series')} left its usual range."]
        else:
            sentence = _moved_words(suspect.moved[0])
            speaks_for, against = list(self._for(suspect)), list(self._against(suspect))
        metric = suspect.moved[0].metric if suspect.moved else ""
        return Told(
            suspect.service,
            metric,
            round(suspect.score, 2),
            suspect.at,
            sentence,
            tuple(speaks_for),
            tuple(against),
        )

    def _for(self, one: Suspect) -> Iterator[str]:
        assert one.at is not None, "what moved began to move"
        later = sorted(other.at for other in self._moved if other is not one and other.at is not None)
        if later and one.at <= later[0]:
            rival = next(other for other in self._moved if other is not one and other.at == later[0])
            lead = later[0] - one.at
            how = f"{apart(lead)} before {rival.service}" if lead else f"at the same reading as {rival.service}"
            yield f"It moved first: {_moved_words(one.moved[0])[:-1]}, {how}."
        else:
            yield f"It moved: {_moved_words(one.moved[0])}"
        if one.size >= max((other.size for other in self._moved if other is not one), default=0.0):
            yield f"It moved most: {one.size:.0f} deviations from its usual value."
        if len(one.moved) > 1:
            more = "; ".join(_moved_words(other)[:-1] for other in one.moved[1:_NAMED])
            yield f"{len(one.moved)} of its {_count(one.judged, 'series')} moved: also {more}."
        if one.explains:
            yield f"It explains what stands on it and moved after it: {self._after(one, one.explains)}."
        if one.dries:
            yield f"It explains why less reached {_list(one.dries)}, on which it stands."
        if one.points.get("about") == 1.0 and self._case.about:
            own = one.service == self._case.about
            yield f"{'It is' if own else self._case.about + ' stands on it,'} the service that the alert speaks of."
        for change in one.changes[-_NAMED:]:
            yield f"{_KINDS[change.kind]}: {change.words} at {clock(change.at)} UTC."

    def _against(self, one: Suspect) -> Iterator[str]:
        assert one.at is not None, "what moved began to move"
        for name in one.before[:_NAMED]:
            other = self._by_name.get(name)
            if other is not None and other.at is not None:
                yield f"{name}, on which it stands, moved {apart(one.at - other.at)} before it."
        earlier = [other for other in self._moved if other.at is not None and other.at < one.at]
        earlier = [other for other in earlier if other.service not in one.before]
        if earlier and earlier[0].at is not None:
            yield f"{earlier[0].service} moved {apart(one.at - earlier[0].at)} before it."
        stronger = [other for other in self._moved if round(other.size) > round(one.size)]
        if stronger:
            most = max(stronger, key=lambda other: other.size)
            yield f"{most.service} moved farther: {most.size:.0f} deviations against {one.size:.0f}."
        if one.unmoved:
            yield f"What stands directly on it should have moved and did not: {_list(one.unmoved)}."
        if one.unexplained:
            yield f"It does not explain what moved elsewhere: {_list(one.unexplained)}."
        if self._case.about and one.points.get("about") == 0.0:
            yield f"Nothing known leads from it to {self._case.about}, of which the alert speaks."
        if len(one.moved) == 1 and one.judged > _NAMED:
            yield f"Only one of its {_count(one.judged, 'series')} moved."

    def _after(self, one: Suspect, names: Iterable[str]) -> str:
        assert one.at is not None, "what moved began to move"
        said = []
        for name in names:
            other = self._by_name.get(name)
            if other is None or other.at is None:
                said.append(name)
            else:
                said.append(f"{name} ({apart(max(0, other.at - one.at))} later)")
        return _list(said)

    def _silent(self, one: Suspect) -> list[str]:
        standing = [other.service for other in self._moved]
        if one.service == self._case.about:
            return ["It is the service that the alert speaks of."]
        return [f"{_list(standing)} may stand on it."] if standing else ["It is next to the alert's service."]

    def _unseen(self) -> list[str]:
        if not self._moved:
            return [f"None of {_count(self._case.judged, 'series')} left its usual range."]
        return [f"Of all services only {_list(one.service for one in self._moved)} moved."]

    def _seen(self) -> list[str]:
        return [f"{one.service} moved {one.size:.0f} deviations from its usual value." for one in self._moved] or [
            "The alert itself was fired by something."
        ]


def _moved_words(moved: Moved) -> str:
    move, unit = moved.move, moved.unit
    usual = (
        f"{figure(move.low, unit)} to {figure(move.high, unit)}" if move.low != move.high else figure(move.low, unit)
    )
    if move.gone:
        return f"{moved.metric} ended at {clock(move.at)} UTC, usual before {usual}."
    way = "rose to" if move.up else "fell to"
    return f"{moved.metric} {way} {figure(move.peak, unit)} from {clock(move.at)} UTC on, usual before {usual}."


def _list(names: Iterable[str]) -> str:
    items = list(names)
    more = len(items) - _NAMED
    shown = items[:_NAMED] + ([f"{more} more"] if more > 0 else [])
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1] if shown else ""
