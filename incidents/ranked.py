"""A ranking of causes in a timeline: how it is written down, and how it is read back. Pure.

What is kept is words with their figures, so that the report needs nothing else and an entry always reads the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from incidents.timeline import Draft, Entry, EntryKind
from incidents.words import clean
from kernel.time import Instant

SOURCE: Final = "prometheus"
_SENTENCE_MAX: Final = 500
_HYPOTHESES_MAX: Final = 8
_REASONS_MAX: Final = 12


class Hypothesis(msgspec.Struct, frozen=True, kw_only=True):
    """One service as the cause, with what speaks for it and against it."""

    service: str
    """Empty: something outside of what is watched."""
    metric: str = ""
    """The series that leads; empty when none of it moved."""
    score: float = 0.0
    """Points, 0 to 1."""
    at: Instant | None = None
    """When it began to move."""
    sentence: str = ""
    speaks_for: tuple[str, ...] = ()
    speaks_against: tuple[str, ...] = ()


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A ranking; `trouble` says why there is none."""

    sentence: str = ""
    basis: str = ""
    stands_out: bool = False
    hypotheses: tuple[Hypothesis, ...] = ()
    """Best first."""
    trouble: str = ""

    @property
    def leader(self) -> str:
        """The service that stands out; empty when none does."""
        return self.hypotheses[0].service if self.stands_out and self.hypotheses else ""


def ranked_draft(ranked: Ranked, at: Instant) -> Draft:
    """Write a ranking down, or that there is none and why."""
    text = f"What moved first could not be told: {ranked.trouble}" if ranked.trouble else ranked.sentence
    return Draft(at, EntryKind.CAUSES_RANKED, SOURCE, text, msgspec.to_builtins(ranked))


def ranked_of(entry: Entry | Draft) -> Ranked:
    """Read a ranking from its entry; what has the wrong shape is left out."""
    data = entry.data
    raw = data.get("hypotheses")
    listed = raw[:_HYPOTHESES_MAX] if isinstance(raw, list | tuple) else ()
    return Ranked(
        sentence=clean(data.get("sentence", ""), _SENTENCE_MAX),
        basis=clean(data.get("basis", ""), _SENTENCE_MAX),
        stands_out=data.get("stands_out") is True,
        hypotheses=tuple(_hypothesis(one) for one in listed if isinstance(one, Mapping)),
        trouble=clean(data.get("trouble", ""), _SENTENCE_MAX),
    )


def _hypothesis(held: Mapping[str, object]) -> Hypothesis:
    score, at = held.get("score"), held.get("at")
    return Hypothesis(
        service=clean(held.get("service", ""), 80),
        metric=clean(held.get("metric", ""), 120),
        score=float(score) if isinstance(score, int | float) and not isinstance(score, bool) else 0.0,
        at=Instant(at) if isinstance(at, int) and not isinstance(at, bool) else None,
        sentence=clean(held.get("sentence", ""), _SENTENCE_MAX),
        speaks_for=tuple(_texts(held.get("speaks_for"))),
        speaks_against=tuple(_texts(held.get("speaks_against"))),
    )


def _texts(value: object) -> Iterator[str]:
    for one in value[:_REASONS_MAX] if isinstance(value, list | tuple) else ():
        yield clean(one, _SENTENCE_MAX)
