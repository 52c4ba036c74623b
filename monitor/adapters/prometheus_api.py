"""Prometheus over its HTTP API, as `monitor.ports.Metrics`.

A reading is two questions at one instant of Prometheus's own clock: how old is the oldest sample behind the evidence,
and what is its value. The age comes from the samples' own timestamps, so a scrape that stopped shows at once, whatever
a look-back window still returns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
import msgspec

from kernel.adapters.http_client import HttpClient
from kernel.errors import PermanentError, TemporaryError
from kernel.time import MILLISECOND, SECOND, Duration, Instant, to_seconds
from monitor.ports import Curve, NoReading, Reading, Unknown
from monitor.promql import is_raw_selector

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_RETRY_AFTER: Final = Duration(1 * SECOND)


class _Series(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | None = None
    error: str = ""
    error_type: str = ""
    warnings: list[str] = []


class _Trouble(Exception):  # noqa: N818 - a value in disguise: it never leaves this module
    """A question without an answer that may be used."""

    def __init__(self, why: Unknown, detail: str) -> None:
        super().__init__(detail)
        self.no_reading = NoReading(why, detail)


class PrometheusApi(HttpClient):
    """A Prometheus server.

    Use it as an async context manager, or call `close`; it keeps its connections. Made for one event loop.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        """Speak to the server at `url`; a question takes at most `timeout_s` in all."""
        super().__init__(url, timeout_s=timeout_s)

    async def read(self, query: str, *, fresh: str, max_age: Duration) -> Reading | NoReading:
        """See `Metrics`. `fresh` must be a plain selector of scraped series (`promql.is_raw_selector`)."""
        if not is_raw_selector(fresh):
            return NoReading(
                Unknown.REFUSED,
                f"{fresh!r} cannot tell the age of data; write a scraped metric's name and matchers only",
            )
        try:
            at, oldest = await self._one(f"min(timestamp({fresh}))", None, what=fresh)
            # The sample times have milliseconds; anything finer is float noise.
            data_at = Instant(round(oldest * 1000) * MILLISECOND)
            age = round(at * 1000) * MILLISECOND - data_at
            if age > max_age:
                return NoReading(
                    Unknown.STALE,
                    f"{fresh} is {to_seconds(age):.3f} s old, at most {to_seconds(max_age):g} s is allowed",
                )
            _, value = await self._one(query, at, what=query)
        except _Trouble as trouble:
            return trouble.no_reading
        return Reading(value, data_at)

    async def curve(self, query: str, start: Instant, end: Instant, step: Duration) -> Sequence[Curve]:
        """See `Metrics`."""
        asked = {"query": query, "start": _stamp(start), "end": _stamp(end), "step": f"{to_seconds(step):.3f}"}
        try:
            series = _decode_series(await self._ask("query_range", asked), "matrix", query)
        except _Trouble as trouble:
            sentence = f"Prometheus at {self._url} has no curve of {query!r}: {trouble}"
            if trouble.no_reading.why is Unknown.UNREACHABLE:
                raise TemporaryError(sentence, retry_after=_RETRY_AFTER) from trouble
            raise PermanentError(sentence) from trouble
        return [
            Curve(one.metric, [(Instant(round(at * 1000) * MILLISECOND), float(value)) for at, value in one.values])
            for one in series
        ]

    async def _one(self, query: str, at: float | None, *, what: str) -> tuple[float, float]:
        """Ask for one finite number; return Prometheus's time of evaluation and the number."""
        asked = {"query": query} if at is None else {"query": query, "time": f"{at:.3f}"}
        answer = await self._ask("query", asked)
        if answer.warnings:
            raise _Trouble(Unknown.PARTIAL, f"{what}: {answer.warnings[0][:200]}")
        values = _values(answer, what)
        if not values:
            raise _Trouble(Unknown.MISSING, f"{what} has no data")
        if len(values) > 1:
            raise _Trouble(Unknown.AMBIGUOUS, f"{what} has {len(values)} series, one is needed")
        evaluated_at, text = values[0]
        number = _number(text, what)
        if not math.isfinite(number):
            raise _Trouble(Unknown.NOT_A_NUMBER, f"{what} is {text}")
        return evaluated_at, number

    async def _ask(self, endpoint: str, form: Mapping[str, str]) -> _Answer:
        try:
            async with self._session.post(
                f"{self._url}/api/v1/{endpoint}", data=form, allow_redirects=False
            ) as response:
                status, body = response.status, await _read_bounded(response)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _Trouble(Unknown.UNREACHABLE, f"{self._url}: {str(error) or type(error).__name__}") from error
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            detail = f"{self._url} answered {status} without Prometheus's JSON: {error}"
            raise _Trouble(Unknown.UNREACHABLE, detail) from error
        if answer.status == "success" and status == 200:  # noqa: PLR2004 - HTTP OK
            return answer
        # 400 and 422: the question is wrong. 503 and all else: the server is in trouble.
        why = Unknown.REFUSED if status in {400, 422} else Unknown.UNREACHABLE
        raise _Trouble(why, f"{self._url} answered {status} {answer.error_type}: {answer.error[:200]}")


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer of at most `MAX_ANSWER_BYTES`."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(1 << 16):
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise ValueError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _stamp(instant: Instant) -> str:
    return f"{to_seconds(instant):.3f}"


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _Trouble(Unknown.NOT_A_NUMBER, f"{what} is {text[:40]!r}") from error


def _values(answer: _Answer, what: str) -> list[tuple[float, str]]:
    """Return what an instant query answered: scalar or vector."""
    if answer.data is not None and answer.data.result_type == "scalar":
        try:
            return [msgspec.json.decode(answer.data.result, type=tuple[float, str])]
        except msgspec.DecodeError as error:
            raise _Trouble(Unknown.UNREACHABLE, f"{what}: a scalar that is none: {error}") from error
    return [one.value for one in _decode_series(answer, "vector", what) if one.value is not None]


def _decode_series(answer: _Answer, kind: str, what: str) -> list[_Series]:
    if answer.data is None:
        raise _Trouble(Unknown.UNREACHABLE, f"{what}: success without data")
    if answer.data.result_type != kind:
        raise _Trouble(Unknown.REFUSED, f"{what} gives a {answer.data.result_type}, a {kind} is needed")
    try:
        return msgspec.json.decode(answer.data.result, type=list[_Series])
    except msgspec.DecodeError as error:
        raise _Trouble(Unknown.UNREACHABLE, f"{what}: a {kind} that is none: {error}") from error
