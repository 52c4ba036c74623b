"""One JSON call to a process of the estate, for the terminal and the estate itself: loopback, bounded, no redirects."""

from __future__ import annotations

import http.client
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from kernel.errors import PermanentError, TemporaryError

TIMEOUT_S: Final = 15.0


def call(method: str, url: str, *, token: str = "", body: object = None, timeout_s: float = TIMEOUT_S) -> Any:
    """Ask and return the answer's JSON; None for an answer that is no JSON.

    Raises:
        TemporaryError: nothing answers there, or it asks to come back.
        PermanentError: the request was refused; carries the other side's sentence.
    """
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
    try:
        answer = msgspec.json.decode(data)
    except msgspec.DecodeError:
        answer = None
    if code < 400:  # noqa: PLR2004 - HTTP's own number
        return answer
    told = next(
        (answer[key] for key in ("error", "detail", "title") if isinstance(answer, dict) and key in answer), code
    )
    sentence = f"{method} {parts.path} was refused: {told}"
    raise (TemporaryError if code >= 500 else PermanentError)(sentence)  # noqa: PLR2004 - HTTP's own number
