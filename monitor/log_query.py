"""A question to the logs as a value: what a record must hold. Both stores translate this, and nothing else.

There are no regular expressions: what a person writes can never cost more than the length of a value times that of
the pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from monitor.log_fields import FieldKind, Value


class Joker(Enum):
    """What stands for other characters in a pattern."""

    ANY = "*"
    """Any characters, or none."""
    ONE = "?"
    """One character."""


@dataclass(frozen=True)
class Everything:
    """Every record."""


@dataclass(frozen=True)
class Exists:
    """The field has a value."""

    field: str
    kind: FieldKind


@dataclass(frozen=True)
class OneOf:
    """One of the field's values is one of these."""

    field: str
    kind: FieldKind
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Like:
    """One of the field's values, as a whole, has this shape; `fold` takes A to Z and a to z for equal."""

    field: str
    kind: FieldKind
    parts: tuple[str | Joker, ...]
    fold: bool


@dataclass(frozen=True)
class Between:
    """One of the field's values lies here; None is no bound."""

    field: str
    kind: FieldKind
    low: Value | None
    high: Value | None
    with_low: bool = True
    with_high: bool = True


@dataclass(frozen=True)
class All:
    """Each of these holds."""

    parts: tuple[Query, ...]


@dataclass(frozen=True)
class Some:
    """At least one of these holds."""

    parts: tuple[Query, ...]


@dataclass(frozen=True)
class Not:
    """This does not hold; a record without the field is among those."""

    part: Query


Query = Everything | Exists | OneOf | Like | Between | All | Some | Not


def both(*queries: Query) -> Query:
    """Return what holds when each of these does."""
    parts = tuple(query for query in queries if not isinstance(query, Everything))
    return Everything() if not parts else parts[0] if len(parts) == 1 else All(parts)


def one_of(field: str, kind: FieldKind, values: Sequence[Value]) -> Query:
    """Return what holds when a value of the field is among these."""
    return OneOf(field, kind, tuple(values))
