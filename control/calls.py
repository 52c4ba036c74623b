"""One JSON call to a process of the estate, for the terminal and the estate itself: loopback, bounded, no redirects."""

from __future__ import annotations

import http.client
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from control.errors import BadRequestError, NotFoundError, RefusedByRailError
from kernel.errors import PermanentError, TemporaryError

TIMEOUT_S: Final = 15.0
_KINDS: Final = {400: BadRequestError, 403: RefusedByRailError, 404: NotFoundError, 409: RefusedByRailError}


def call(method: str, url: str, *, token: str = "", body: object = None, timeout_s: float = TIMEOUT_S) -> Any:
    """Ask and return the answer's JSON; None for an answer that is no JSON.

    Raises:
        TemporaryError: nothing answers there, or it asks to come back.
        PermanentError: the request was refused; carries the other side's sentence. What makes no sense is a
            `BadRequestError`, what is not there a `NotFoundError`, what a guard forbids a `RefusedByRailError`.
    """
    data = fetch(method, url, token=token, body=body, timeout_s=timeout_s)
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None


def fetch(method: str, url: str, *, token: str = "", body: object = None, timeout_s: float = TIMEOUT_S) -> bytes:
    """Ask and return the answer's bytes; raises as `call` does."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, None if body is None else msgspec.json.encode(body), headers)
        response = connection.getresponse()
        code, data = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise TemporaryError(
            f"{parts.netloc} does not answer {method} {parts.path}: {str(error) or type(error).__name__}"
        ) from error
    finally:
        connection.close()
    if code < 300:  # noqa: PLR2004 - HTTP's own number; a redirect leads nowhere we would go
        return data
    told = _told(data)
    if told is not None and code in _KINDS:
        raise _KINDS[code](told)
    kind = TemporaryError if code >= 500 else PermanentError  # noqa: PLR2004 - HTTP's own number
    raise kind(told or f"{method} {parts.path} was refused: {code}")


def _told(data: bytes) -> str | None:
    """Return the sentence in an error's answer."""
    try:
        answer = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
    keys = ("error", "detail", "title")
    return next((str(answer[key]) for key in keys if key in answer), None) if isinstance(answer, dict) else None
