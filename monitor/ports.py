"""What the rest of the house may ask of the monitoring systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from kernel.time import Duration, Instant


class Unknown(StrEnum):
    """Why a question to the monitoring system has no answer. No data is never "fine"."""

    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    MISSING = "missing"
    STALE = "stale"
    NOT_A_NUMBER = "not_a_number"
    PARTIAL = "partial"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True)
class Reading:
    """One number and the age of the oldest datum behind it."""

    value: float
    data_at: Instant
    """The time of the oldest sample that went into the value."""


@dataclass(frozen=True)
class NoReading:
    """The question has no answer that may be acted on."""

    why: Unknown
    detail: str


@dataclass(frozen=True)
class Curve:
    """One series of a range query: for reports, never for decisions."""

    labels: Mapping[str, str]
    points: Sequence[tuple[Instant, float]]


class Metrics(Protocol):
    """The system of record for metrics (Prometheus)."""

    async def read(self, query: str, *, fresh: str, max_age: Duration) -> Reading | NoReading:
        """Evaluate `query` now.

        The result must be one finite number. `fresh` selects the series behind it: the oldest of their latest samples
        must be no older than `max_age`. Anything else, and every failure to ask, is a `NoReading`; this never raises
        for trouble on the other side.
        """
        ...

    async def curve(self, query: str, start: Instant, end: Instant, step: Duration) -> Sequence[Curve]:
        """Return a query's values over time; empty when there are none.

        Raises:
            TemporaryError: the system does not answer.
            PermanentError: the system refuses the query.
        """
        ...


@dataclass(frozen=True)
class PostableAlert:
    """An alert as a client of Alertmanager posts it."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    generator_url: str = ""


class Alerts(Protocol):
    """The alert router (Alertmanager)."""

    async def post(self, alerts: Sequence[PostableAlert]) -> None:
        """Hand alerts over.

        Raises:
            TemporaryError: the router does not answer or asks to come back.
            PermanentError: the router refuses them.
        """
        ...

    async def active(self, *matchers: str) -> Sequence[Mapping[str, object]]:
        """Return the alerts now known that match, as the router's API shows them.

        Raises:
            TemporaryError: the router does not answer.
        """
        ...
