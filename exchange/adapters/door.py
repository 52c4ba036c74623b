"""The door of a gateway: who comes in, and by which name the request goes.

A request brings `Authorization: Bearer TOKEN`: a signed token, the estate's shared secret, or either, as the gateway is
set. It may bring an `X-Request-ID`; one that is well-formed is kept, so that a request has one name from the client to
the spans; any other is replaced and never written anywhere.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from exchange.adapters.tokens import SharedSecret, SignedTokens, TokenError
from exchange.bearer import Bearer, TokenFault
from kernel.trace import MAX_TRACEPARENT, parse_traceparent, traceparent

MAX_REQUEST_ID: Final = 128
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACEPARENT_BYTES: Final = MAX_TRACEPARENT * 4
_BEARER: Final = b"bearer "


class Heads(NamedTuple):
    """What a gateway reads of a request's headers."""

    token: bytes
    """Empty: there is none."""
    request_id: str
    """Empty: there is none, or none that is well-formed."""
    trace: str
    """The client's `traceparent`; empty when there is none that means something."""
    length: int
    """Bytes of the body; 0 when not told."""


def heads_of(headers: Iterable[tuple[bytes, bytes]]) -> Heads:
    """Read headers; of a header that is there twice the first counts."""
    token, request_id, trace, length = b"", "", "", 0
    for name, value in headers:
        if name == b"authorization":
            if not token and value[:7].lower() == _BEARER:
                token = value[7:].strip()
        elif name == b"traceparent":
            context = parse_traceparent(value[:_TRACEPARENT_BYTES].decode("latin-1"))
            trace = "" if context is None else traceparent(context)
        elif name == b"x-request-id":
            if not request_id and _REQUEST_ID.fullmatch(value):
                request_id = value.decode("ascii")
        elif name == b"content-length" and value.isdigit():
            length = int(value[:20])
    return Heads(token, request_id, trace, length)


class RequestIds:
    """Makes names for requests that bring none: of this replica, this start, and a count."""

    def __init__(self, replica: str) -> None:
        """Name requests of `replica`."""
        self._prefix: Final = f"{replica}-{time.time_ns():x}-"
        self._numbers: Final = itertools.count(1)

    def next(self) -> str:
        """Return a name no request had."""
        return f"{self._prefix}{next(self._numbers):x}"


class Door:
    """Lets those in who bring a token that is taken here."""

    def __init__(self, shared: SharedSecret | None, signed: SignedTokens | None) -> None:
        """Take the shared secret, signed tokens, or either."""
        assert shared is not None or signed is not None, "a door that never opens"
        self._shared: Final = shared
        self._signed: Final = signed

    def bearer(self, token: bytes) -> Bearer:
        """Return whose token it is.

        Raises:
            TokenError: it is not taken, and why.
        """
        if not token:
            raise TokenError(TokenFault.MISSING, "a bearer token is needed (`Authorization: Bearer ...`)")
        if self._shared is not None:
            bearer = self._shared.bearer(token)
            if bearer is not None:
                return bearer
        if self._signed is None:
            raise TokenError(TokenFault.UNKNOWN_KEY, "not the one that is taken here")
        return self._signed.bearer(token)

    def stands(self, bearer: Bearer) -> bool:
        """Tell whether a bearer who came in before would be let in now."""
        if bearer.kid:
            return self._signed is not None and self._signed.stands(bearer)
        return self._shared is not None
