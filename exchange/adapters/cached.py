"""Answers that an edge may keep: an `ETag` of what they say, `Cache-Control`, and 304 to whoever has it (RFC 9110).

The tag is of the bytes themselves: the same from every replica, and another one as soon as anything is another.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

STEADY: Final = "public, max-age=60"
"""What changes by a restart only."""
MOVING: Final = "public, max-age=0, s-maxage=1"
"""What moves with the market: an edge may serve it for a second to any number, a client asks each time."""
UNKEPT: Final = "no-store"
"""What is wrong now may be right in a moment."""


def cacheable(request: Request, value: object, rule: str) -> Response:
    """Return a value as JSON under a `Cache-Control` rule, or 304 if the client has it as it is."""
    body = msgspec.json.encode(value)
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": rule}
    if _is_known(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")


def _is_known(fields: list[str], tag: str) -> bool:
    """Compare weakly, as RFC 9110, 13.1.2 asks for; `*` is anything there is."""
    for field in fields:
        for one in field.split(","):
            if one.strip() == "*" or one.strip().removeprefix("W/") == tag:
                return True
    return False
