"""Metrics in memory: the other side of `monitor.ports.Metrics`, for rehearsals and tests.

It evaluates nothing. A query is answered by the samples put under its very text; everything else about an answer (age,
several series, NaN, refusal) follows the port as the real side does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Clock, Duration, Instant
from monitor.ports import Curve, NoReading, Reading, Unknown
from monitor.promql import is_raw_selector


class FakeMetrics:
    """A table of samples by query, each with its time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: dict[str, list[tuple[Instant, float]]] = {}
        self._history: dict[str, list[tuple[Instant, float]]] = {}
        self._down: Unknown | None = None
        self.asked: list[str] = []
        """Every query it was asked, in order."""

    def put(self, query: str, *values: float, at: Instant | None = None) -> None:
        """Let `query` have one series for each of `values`, sampled at `at` (default: now)."""
        moment = self._clock.now() if at is None else at
        self._samples[query] = [(moment, value) for value in values]
        self._history.setdefault(query, []).extend(self._samples[query])

    def take(self, query: str) -> None:
        """Let `query` have no series any more."""
        self._samples.pop(query, None)

    def fail(self, why: Unknown | None) -> None:
        """Answer everything with `why` from now on; None: answer again."""
        self._down = why

    async def read(self, query: str, *, fresh: str, max_age: Duration) -> Reading | NoReading:
        """See `Metrics`. `fresh` is looked up like a query; when it was never put, the query's own samples count."""
        self.asked.append(query)
        if self._down is not None:
            return NoReading(self._down, "the fake was told to fail")
        if not is_raw_selector(fresh) or not _balanced(query):
            return NoReading(Unknown.REFUSED, f"{query!r} does not parse, or {fresh!r} cannot tell the age of data")
        samples = self._samples.get(query, [])
        behind = self._samples.get(fresh, samples)
        if not behind:
            return NoReading(Unknown.MISSING, f"{fresh} has no data")
        data_at = min(at for at, _ in behind)
        if self._clock.now() - data_at > max_age:
            return NoReading(Unknown.STALE, f"{fresh} is {(self._clock.now() - data_at) / SECOND:.3f} s old")
        return _reading(query, [value for _, value in samples], data_at)

    async def curve(self, query: str, start: Instant, end: Instant, step: Duration) -> Sequence[Curve]:
        """See `Metrics`. Every sample ever put within the time, whatever the step."""
        assert step > 0, "a curve needs a positive step"
        if self._down is Unknown.UNREACHABLE:
            raise TemporaryError("the fake was told to fail", retry_after=Duration(SECOND))
        if self._down is not None or not _balanced(query):
            raise PermanentError(f"{query!r} is refused")
        points = [(at, value) for at, value in self._history.get(query, []) if start <= at <= end]
        return [Curve({}, points)] if points else []


def _reading(query: str, values: Sequence[float], data_at: Instant) -> Reading | NoReading:
    if len(values) != 1:
        why = Unknown.AMBIGUOUS if values else Unknown.MISSING
        return NoReading(why, f"{query} has {len(values)} series, one is needed")
    if not math.isfinite(values[0]):
        return NoReading(Unknown.NOT_A_NUMBER, f"{query} is {values[0]}")
    return Reading(values[0], data_at)


def _balanced(query: str) -> bool:
    return all(query.count(left) == query.count(right) for left, right in ("()", "{}", "[]"))
