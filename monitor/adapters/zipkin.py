"""Zipkin over HTTP, in its own JSON: spans out (a `Sender` of `monitor.adapters.spans`), a trace back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import requests

from kernel.errors import PermanentError, TemporaryError
from monitor.adapters.posting import Poster
from monitor.adapters.spans import TIMEOUT_S, address, session
from monitor.traces import Span
from monitor.zipkin_json import ReadSpan, decode, encode

_NOT_FOUND: Final = 404
_PATH: Final = "/api/v2/spans"
_HEADERS: Final = {"Content-Type": "application/json"}


class ZipkinSender:
    """Sends a service's spans to the Zipkin at `url` (such as `http://127.0.0.1:9411`).

    Raises:
        InputError: the address is none.
    """

    def __init__(self, url: str, service: str, replica: str) -> None:
        endpoint = address("zipkin_url", url, _PATH, example="http://127.0.0.1:9411")
        self._service = service
        self._replica = replica
        self._poster = Poster(endpoint, _HEADERS, TIMEOUT_S)

    def send(self, spans: Sequence[Span]) -> bool:
        """See `Sender`."""
        return self._poster.post(encode(spans, self._service, self._replica))

    def close(self) -> None:
        """See `Sender`."""
        self._poster.close()


def fetch_trace(url: str, trace_id: str) -> tuple[ReadSpan, ...]:
    """Return the spans of a trace by their start; none when Zipkin does not know it (yet).

    Raises:
        InputError: `url` is no address.
        TemporaryError: there was no answer.
        PermanentError: the answer is none of Zipkin's.
    """
    where = address("zipkin_url", url, f"/api/v2/trace/{trace_id}", example="http://127.0.0.1:9411")
    with session() as asking:
        try:
            answer = asking.get(where, timeout=TIMEOUT_S, allow_redirects=False)
        except requests.RequestException as error:
            raise TemporaryError(f"{url} has no answer: {type(error).__name__}; is a Zipkin there?") from error
    if answer.status_code == _NOT_FOUND:
        return ()
    if not answer.ok or answer.is_redirect:
        raise PermanentError(f"{where} was answered {answer.status_code}: {answer.text[:200]}")
    try:
        return decode(answer.content)
    except ValueError as error:
        raise PermanentError(f"{where}: this is no answer of Zipkin's: {error}") from error
