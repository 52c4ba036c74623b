"""Alertmanager over its API v2, as `monitor.ports.Alerts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
import msgspec

from kernel.adapters.http_client import HttpClient
from kernel.errors import PermanentError, TemporaryError
from kernel.time import SECOND, Duration, to_rfc3339
from monitor.ports import PostableAlert

_RETRY_AFTER: Final = Duration(1 * SECOND)
_DECODER: Final = msgspec.json.Decoder(list[dict[str, object]])


class AlertmanagerApi(HttpClient):
    """An Alertmanager.

    Use it as an async context manager, or call `close`; it keeps its connections, so that an urgent alert does not wait
    for a new one. Made for one event loop.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        """Speak to the server at `url`; a call takes at most `timeout_s` in all."""
        super().__init__(url, timeout_s=timeout_s)

    async def post(self, alerts: Sequence[PostableAlert]) -> None:
        """See `Alerts`. Alertmanager keeps the valid ones of a batch even when it refuses another."""
        if alerts:
            await self._call("POST", body=msgspec.json.encode([_postable(alert) for alert in alerts]))

    async def active(self, *matchers: str) -> Sequence[Mapping[str, object]]:
        """See `Alerts`. Matchers as in `alertname="EngineDown"`; silenced and inhibited ones are among the answers."""
        body = await self._call("GET", query=[("filter", matcher) for matcher in matchers])
        try:
            return _DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TemporaryError(
                f"Alertmanager at {self._url} answered no list of alerts: {error}", retry_after=_RETRY_AFTER
            ) from error

    async def _call(self, method: str, *, body: bytes | None = None, query: Sequence[tuple[str, str]] = ()) -> bytes:
        try:
            async with self._session.request(
                method,
                f"{self._url}/api/v2/alerts",
                data=body,
                params=query,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                status, answer = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TemporaryError(
                f"Alertmanager at {self._url} does not answer: {str(error) or type(error).__name__}",
                retry_after=_RETRY_AFTER,
            ) from error
        if status == 200:  # noqa: PLR2004 - HTTP OK
            return answer
        sentence = f"Alertmanager at {self._url} answered {status}: {answer[:200].decode(errors='replace').strip()}"
        if 400 <= status < 500 and status != 429:  # noqa: PLR2004 - client errors, save "come back later"
            raise PermanentError(sentence)
        raise TemporaryError(sentence, retry_after=_RETRY_AFTER)


def _postable(alert: PostableAlert) -> dict[str, object]:
    posted: dict[str, object] = {"labels": dict(alert.labels), "annotations": dict(alert.annotations)}
    if alert.starts_at is not None:
        posted["startsAt"] = to_rfc3339(alert.starts_at)
    if alert.ends_at is not None:
        posted["endsAt"] = to_rfc3339(alert.ends_at)
    if alert.generator_url:
        posted["generatorURL"] = alert.generator_url
    return posted
