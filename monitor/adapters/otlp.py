"""Spans out by OTLP over HTTP: a `Sender` of `monitor.adapters.spans`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import requests

from monitor.adapters.spans import TIMEOUT_S, address, session
from monitor.otlp_wire import encode
from monitor.traces import Span

_HEADERS: Final = {"Content-Type": "application/x-protobuf"}


class OtlpSender:
    """Sends spans to the OTLP receiver at `url` (such as `http://127.0.0.1:4318`) in the name of a service's replica.

    Raises:
        InputError: the address is none.
    """

    def __init__(self, url: str, service: str, replica: str) -> None:
        self._endpoint = address("otlp_url", url, "/v1/traces", example="http://127.0.0.1:4318")
        self._service = service
        self._replica = replica
        self._session = session()

    def send(self, spans: Sequence[Span]) -> bool:
        """See `Sender`. What a receiver takes in part counts as taken: it says so in words, not by span."""
        body = encode(spans, self._service, self._replica)
        try:
            answer = self._session.post(
                self._endpoint, body, headers=_HEADERS, timeout=TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException:
            return False
        return answer.ok and not answer.is_redirect

    def close(self) -> None:
        """See `Sender`."""
        self._session.close()
