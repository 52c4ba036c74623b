"""Readings of every watched series from Prometheus: one question a step, long stretches in chunks.

What is asked now goes through the client of the control plane, which a slow server holds up for two seconds at most.
History goes through `prometheus-api-client` in a thread of its own, in chunks that no server minds.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from control.anomaly_state import Life
from control.anomaly_watch import Key, Read, Step
from kernel.errors import PermanentError, TapewatchError
from kernel.time import MILLISECOND, SECOND, Duration, Instant
from monitor.adapters.prometheus_api import PrometheusApi
from monitor.watched import BUILDS, BY_JOB, PROCESSES, Watched, labelled, union

CHUNK: Final = 300
"""Steps of one question about history: some ten thousand numbers, a tenth of a second."""
SLOW_S: Final = 2.0
"""What is not answered within this is not of the present any more."""
HISTORY_S: Final = 20.0
WINDOW_S: Final = 10
_DETAIL: Final = 200
SCRAPES: Final = 4
"""A rate needs so many readings to be one."""

Curves = Iterable[tuple[Mapping[str, str], Iterable[tuple[float, float]]]]
"""Labels, and points of seconds since the epoch and values."""


class Failure(StrEnum):
    """Why there are no readings."""

    UNREACHABLE = "unreachable"
    SLOW = "slow"
    REFUSED = "refused"
    """Of one entry: Prometheus does not take its query, and the others go on without it."""
    EMPTY = "empty"
    """It answers, and has nothing of the present."""


class ReadError(TapewatchError):
    """There are no readings now."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


def window_of(scrape_s: int) -> int:
    """Return the window of rates, in seconds, where Prometheus scrapes every `scrape_s`."""
    return max(WINDOW_S, SCRAPES * scrape_s)


class Readings:
    """Reads the series of a list."""

    def __init__(self, url: str, watched: Sequence[Watched], *, step: Duration, window_s: int) -> None:
        """Ask the server at `url`, `step` (whole seconds) apart."""
        self._url, self._step, self._window_s = url, step, window_s
        self._watched = tuple(watched)
        self._services = {one.id: one.service for one in watched}
        self._client = PrometheusApi(url, timeout_s=SLOW_S)
        self.refused: dict[str, str] = {}
        """Entries whose query Prometheus does not take, and what it said."""
        self._question = union(self._watched, window_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def now(self, start: Instant, end: Instant) -> list[Step]:
        """Return the steps from `start` to `end` that have any reading.

        Raises:
            ReadError: there is no answer.
        """
        try:
            curves = await self._client.curve(self._question, start, end, self._step)
        except PermanentError as error:
            if not await self._found_refused(end):
                raise self._failed(error, Failure.REFUSED) from error
            return await self.now(start, end)
        except TapewatchError as error:
            raise self._failed(error) from error
        found = ((one.labels, ((at / SECOND, value) for at, value in one.points)) for one in curves)
        return steps_of(found, self._services)

    async def history(self, start: Instant, end: Instant) -> list[Step]:
        """Return the steps of at most `CHUNK` from `start` to `end` that have any reading.

        Raises:
            ReadError: there is no answer.
        """
        raw = await asyncio.to_thread(self._asked, start, end)
        found = (
            (one.get("metric", {}), ((float(at), float(value)) for at, value in one.get("values", ()))) for one in raw
        )
        return steps_of(found, self._services)

    def _asked(self, start: Instant, end: Instant) -> list[Any]:
        # Half the process's imports, for a question of its first minute alone.
        from prometheus_api_client import PrometheusConnect
        from prometheus_api_client.exceptions import PrometheusApiClientException
        from requests import RequestException
        from urllib3.util.retry import Retry

        client = PrometheusConnect(self._url, retry=Retry(0), method="POST", timeout=round(HISTORY_S))
        first, last = (dt.datetime.fromtimestamp(at / SECOND, tz=dt.UTC) for at in (start, end))
        try:
            answer: list[Any] = client.custom_query_range(
                self._question, first, last, f"{self._step // SECOND}s", timeout=round(HISTORY_S)
            )
        except (RequestException, PrometheusApiClientException, ValueError, KeyError) as error:
            raise self._failed(error) from error
        finally:
            client.close()
        return answer

    def _failed(self, error: Exception, failure: Failure | None = None) -> ReadError:
        """Return the error as a sentence; the question itself is thousands of letters and stays out of it."""
        failure = failure or _failure(error)
        words = {
            Failure.SLOW: "does not answer in time", Failure.REFUSED: f"refuses the question: {_detail(error)}",
        }.get(failure, "does not answer")  # fmt: skip
        return ReadError(failure, f"Prometheus at {self._url} {words}")

    async def _found_refused(self, at: Instant) -> bool:
        """Ask for each entry alone, leave out those that are refused, and tell whether any was."""
        before = len(self.refused)
        for one in self._watched:
            if one.id in self.refused:
                continue
            try:
                await self._client.curve(labelled(one, self._window_s), at, at, self._step)
            except PermanentError as error:
                self.refused[one.id] = _detail(error)
            except TapewatchError as error:
                raise self._failed(error) from error
        left = [one for one in self._watched if one.id not in self.refused]
        self._question = union(left, self._window_s)
        return len(self.refused) > before


def steps_of(curves: Curves, services: Mapping[str, str]) -> list[Step]:
    """Return the readings of each instant, in order; what belongs to no entry is left aside.

    Args:
        curves: what Prometheus answered.
        services: entry id to its service, or `$job`.
    """
    values: dict[Instant, dict[Key, Read]] = {}
    lives: dict[Instant, dict[str, Life]] = {}
    for labels, points in curves:
        series, item, job = labels.get("series", ""), labels.get("item", ""), labels.get("job", "")
        for at_s, value in points:
            at = Instant(round(at_s * 1000) * MILLISECOND)
            if series in {BUILDS, PROCESSES}:
                known = lives.setdefault(at, {})
                known[item] = _lived(known.get(item), job, series, labels.get("version", ""), value)
            elif series in services and math.isfinite(value):
                service = job if services[series] == BY_JOB else services[series]
                values.setdefault(at, {}).setdefault(Key(series, item), Read(value, service))
    return [Step(at, values[at], lives.get(at, {})) for at in sorted(values)]


def _lived(known: Life | None, job: str, series: str, version: str, value: float) -> Life:
    before = known or Life(job)
    if series == BUILDS:
        return Life(job, version, before.since)
    return Life(job, before.build, value)


def _detail(error: BaseException) -> str:
    """Return what the server said, without the question."""
    return str(error.__cause__ or error)[-_DETAIL:]


def _failure(error: BaseException) -> Failure:
    """Tell a server that is slow from one that is not there."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            return Failure.SLOW
        cause = cause.__cause__ or cause.__context__
    return Failure.UNREACHABLE
