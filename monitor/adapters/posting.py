"""POST of a body to one address over a connection that is kept: a tenth of what a general client spends on each."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

_OK: Final = range(200, 300)


class Poster:
    """One address of HTTP, or of HTTPS with its certificate checked; asked by one thread, with no proxy or redirect."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        parts = urlsplit(url)
        self._parts: Final = parts
        self._target: Final = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers: Final = dict(headers) | _authorization(parts)
        self._timeout_s: Final = timeout_s
        self._connection: http.client.HTTPConnection | None = None

    def post(self, body: bytes) -> bool:
        """Send a body; tell whether it was taken (200 to 299). Never raises.

        A kept connection that the other end has closed meanwhile is made anew, once: the body may then come twice.
        """
        kept = self._connection is not None
        taken = self._try(body)
        if taken is None and kept:
            taken = self._try(body)
        return bool(taken)

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _try(self, body: bytes) -> bool | None:
        """Send once; None when there was no answer."""
        try:
            if self._connection is None:
                self._connection = self._new()
            self._connection.request("POST", self._target, body, self._headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            return None
        return answer.status in _OK

    def _new(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        assert self._parts.hostname is not None, "an address without a host is refused before"
        return kind(self._parts.hostname, self._parts.port, timeout=self._timeout_s)


def _authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    told = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Authorization": f"Basic {base64.b64encode(told).decode()}"}
