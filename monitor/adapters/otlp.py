"""Spans out by OTLP over HTTP: a `Sender` of `monitor.adapters.spans`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from monitor.adapters.posting import Poster
from monitor.adapters.spans import TIMEOUT_S, address
from monitor.otlp_wire import encode
from monitor.traces import Span

_HEADERS: Final = {"Content-Type": "application/x-protobuf"}


class OtlpSender:
    """Sends spans to the OTLP receiver at `url` (such as `http://127.0.0.1:4318`) in the name of a service's replica.

    Raises:
        InputError: the address is none.
    """

    def __init__(self, url: str, service: str, replica: str) -> None:
        endpoint = address("otlp_url", url, "/v1/traces", example="http://127.0.0.1:4318")
        self._service = service
        self._replica = replica
        self._poster = Poster(endpoint, _HEADERS, TIMEOUT_S)

    def send(self, spans: Sequence[Span]) -> bool:
        """See `Sender`. What a receiver takes in part counts as taken: it says so in words, not by span."""
        return self._poster.post(encode(spans, self._service, self._replica))

    def close(self) -> None:
        """See `Sender`."""
        self._poster.close()
