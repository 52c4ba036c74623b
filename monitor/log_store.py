"""What the rest of the house may ask of the logs.

The order of records everywhere: by time in whole milliseconds, then by their text, so that two stores, and two runs,
agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kernel.errors import InputError
from kernel.time import MILLISECOND, Instant
from monitor.log_fields import FIELDS, FieldKind, Record, Value
from monitor.log_query import Query

MAX_RECORDS: Final = 10_000
"""Records one search returns at most; also Elasticsearch's own bound for a page of results."""
MAX_ROWS: Final = 50_000
"""Rows of a tally at most: more keys than that are no question for an alert."""
DIGITS: Final = 12
"""Significant digits of a sum: the stores add in different orders, and no rule is about the rest."""


@dataclass(frozen=True)
class Span:
    """A range of time with its start, without its end; both in whole milliseconds."""

    start: Instant
    end: Instant

    def __post_init__(self) -> None:
        """Refuse bounds that the stores would round differently.

        Raises:
            InputError: a bound is no whole millisecond, or the end comes first.
        """
        if self.start % MILLISECOND or self.end % MILLISECOND:
            raise InputError("range of time", "its bounds are not whole milliseconds", right="round them")
        if self.end < self.start:
            raise InputError("range of time", "it ends before it starts", right="name the earlier time first")


@dataclass(frozen=True)
class Row:
    """What fell into one bucket of time under one combination of keys."""

    start: Instant
    keys: tuple[str, ...]
    count: int
    values: int = 0
    """How many numbers the measured field had."""
    total: float | None = None
    low: float | None = None
    high: float | None = None


class LogStore(Protocol):
    """A store of log records. Its fields are those of `monitor.log_fields`.

    Every call raises TemporaryError when the store does not answer, PermanentError when it refuses or when the answer
    would pass a bound (`MAX_ROWS`). No answer is never an empty answer.
    """

    def search(
        self, query: Query, span: Span, *, fields: Sequence[str] = (), limit: int = 100, newest: bool = False
    ) -> Sequence[Record]:
        """Return at most `limit` records in order, or in the reverse order; only these fields of them, when named."""
        ...

    def count(self, query: Query, span: Span) -> int:
        """Return how many records there are."""
        ...

    def terms(self, query: Query, span: Span, field: str, *, limit: int = 10) -> Sequence[tuple[str, int]]:
        """Return the field's values with the number of records, the most frequent first, equal ones by value."""
        ...

    def cardinality(self, query: Query, span: Span, field: str) -> int:
        """Return how many values a field has; exact."""
        ...

    def tally(
        self, query: Query, span: Span, step_ms: int, *, keys: Sequence[str] = (), measure: str = ""
    ) -> Sequence[Row]:
        """Count records by buckets of `step_ms` from the span's start, by the values of `keys`, and measure a field.

        A record without one of the keys is not counted; one with several values counts under each. Empty buckets have
        no row. Rows are ordered by bucket, then by keys.
        """
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


def key_kind(field: str, fields: Mapping[str, FieldKind] = FIELDS) -> FieldKind:
    """Return the kind of a field that records are grouped by.

    Raises:
        InputError: it is no field, or one whose values are running text.
    """
    from monitor.log_fields import kind_of

    kind = kind_of(field, f"field {field}", fields)
    if kind in {FieldKind.TEXT, FieldKind.DOUBLE}:
        raise InputError(f"field {field}", f"its values are {kind}: nothing is grouped by them", right="name a keyword")
    return kind


def measure_kind(field: str, fields: Mapping[str, FieldKind] = FIELDS) -> FieldKind:
    """Return the kind of a field that is measured.

    Raises:
        InputError: it is no field, or none of numbers.
    """
    from monitor.log_fields import kind_of

    kind = kind_of(field, f"field {field}", fields)
    if kind not in {FieldKind.LONG, FieldKind.DOUBLE}:
        raise InputError(f"field {field}", f"its values are {kind}, not numbers", right="name a long or a double")
    return kind


def rounded(value: float) -> float:
    """Return a sum with the digits that both stores agree on."""
    return float(f"{value:.{DIGITS}g}")


def shown_key(value: Value | bool, kind: FieldKind) -> str:  # noqa: FBT001 - JSON's booleans are among the values
    """Return a key as text, whichever way a store writes it."""
    if kind is FieldKind.BOOLEAN:
        return "true" if value in {True, "true"} else "false"
    return str(value)
