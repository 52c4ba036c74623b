"""A log rule as a value, and the table of what each kind needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from kernel.time import MINUTE, SECOND, Duration
from monitor.log_fields import FieldKind, Value
from monitor.log_query import Everything, Query


class Kind(StrEnum):
    """ElastAlert's twelve kinds under their own names, and two more."""

    ANY = "any"
    BLACKLIST = "blacklist"
    WHITELIST = "whitelist"
    CHANGE = "change"
    FREQUENCY = "frequency"
    SPIKE = "spike"
    FLATLINE = "flatline"
    NEW_TERM = "new_term"
    CARDINALITY = "cardinality"
    METRIC_AGGREGATION = "metric_aggregation"
    SPIKE_AGGREGATION = "spike_aggregation"
    PERCENTAGE_MATCH = "percentage_match"
    CORRELATION = "correlation"
    NEW_TEMPLATE = "new_template"


class Metric(StrEnum):
    """What is made of a field's numbers in a window."""

    AVG = "avg"
    MIN = "min"
    MAX = "max"
    SUM = "sum"
    COUNT = "count"


class Direction(StrEnum):
    """Which way a spike goes."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"


@dataclass(frozen=True)
class Needs:
    """The options of a kind beside those every rule may have."""

    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    """At least one of these must be there."""


OPTIONS: Final[Mapping[Kind, Needs]] = MappingProxyType({
    Kind.ANY: Needs(),
    Kind.BLACKLIST: Needs(("field", "values")),
    Kind.WHITELIST: Needs(("field", "values"), ("ignore_missing",)),
    Kind.CHANGE: Needs(("field",), ("timeframe",)),
    Kind.FREQUENCY: Needs(("at_least", "timeframe")),
    Kind.SPIKE: Needs(("ratio", "timeframe"), ("direction", "min_reference", "min_current")),
    Kind.FLATLINE: Needs(("below", "timeframe")),
    Kind.NEW_TERM: Needs(("field",), ("known_for",)),
    Kind.CARDINALITY: Needs(("field", "timeframe"), (), ("max", "min")),
    Kind.METRIC_AGGREGATION: Needs(("field", "metric", "timeframe"), (), ("max", "min")),
    Kind.SPIKE_AGGREGATION: Needs(
        ("field", "metric", "ratio", "timeframe"), ("direction", "min_reference", "min_current")
    ),
    Kind.PERCENTAGE_MATCH: Needs(("part", "timeframe"), ("min_total",), ("max", "min")),
    Kind.CORRELATION: Needs(("then", "timeframe")),
    Kind.NEW_TEMPLATE: Needs((), ("field", "known_for")),
})  # fmt: skip
COMMON: Final = (
    "name", "kind", "query", "by", "every", "lateness", "hold", "realert", "realert_max", "open_after", "flapping",
    "labels", "annotations",
)  # fmt: skip
WINDOWED: Final = frozenset({
    Kind.FREQUENCY, Kind.SPIKE, Kind.FLATLINE, Kind.CARDINALITY, Kind.METRIC_AGGREGATION, Kind.SPIKE_AGGREGATION,
    Kind.PERCENTAGE_MATCH,
})  # fmt: skip
"""Kinds that judge a window of time as a whole; the others judge record by record."""


@dataclass(frozen=True)
class Flapping:
    """When an alert comes and goes so often that it is held instead."""

    times: int
    within: Duration
    quiet: Duration
    """How long without a match ends it."""


@dataclass(frozen=True)
class Rule:
    """One rule, checked. Durations in nanoseconds; what a kind does not know stays at its default."""

    name: str
    kind: Kind
    query: Query = Everything()  # noqa: RUF009 - frozen and without fields
    query_text: str = ""
    by: tuple[str, ...] = ()
    every: Duration = Duration(5 * SECOND)  # noqa: RUF009 - a number
    lateness: Duration = Duration(5 * SECOND)  # noqa: RUF009 - a number
    hold: Duration = Duration(1 * MINUTE)  # noqa: RUF009 - a number
    realert: Duration = Duration(0)  # noqa: RUF009 - a number
    realert_max: Duration = Duration(0)  # noqa: RUF009 - a number
    open_after: int = 1
    flapping: Flapping | None = None
    timeframe: Duration = Duration(0)  # noqa: RUF009 - a number
    field: str = ""
    field_kind: FieldKind = FieldKind.KEYWORD
    values: tuple[Value, ...] = ()
    ignore_missing: bool = True
    at_least: int = 1
    below: int = 1
    ratio: float = 0.0
    direction: Direction = Direction.BOTH
    min_reference: float = 0.0
    min_current: float = 0.0
    metric: Metric = Metric.AVG
    max: float | None = None
    min: float | None = None
    part: Query = Everything()  # noqa: RUF009 - frozen and without fields
    min_total: int = 1
    then: Query = Everything()  # noqa: RUF009 - frozen and without fields
    known_for: Duration = Duration(60 * MINUTE)  # noqa: RUF009 - a number
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    where: str = ""
    """File and line, for messages."""

    @property
    def reach(self) -> Duration:
        """How far back from now its questions go; a store that keeps less cannot answer them."""
        spikes = self.kind in {Kind.SPIKE, Kind.SPIKE_AGGREGATION}
        return Duration((2 if spikes else 1) * self.timeframe + self.lateness + 2 * self.every)
