"""The official client, its access data, and its errors in one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import elastic_transport
import elasticsearch
from elasticsearch import Elasticsearch

from kernel.errors import InputError, PermanentError, TapewatchError, TemporaryError

TIMEOUT_S: Final = 10.0
_BUSY: Final = frozenset({429, 502, 503, 504})
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403


@dataclass(frozen=True)
class Access:
    """Where Elasticsearch is and who we are there: a user and a password, or an API key, or nobody."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    ca_file: Path | None = None


class ReadOnlyError(TemporaryError):
    """The index takes no records: the disk is full (flood stage), or somebody closed it."""


class TooBusyError(TemporaryError):
    """The node pushes back (429): fewer or later."""


def connect(access: Access, *, timeout_s: float = TIMEOUT_S, **options: Any) -> Elasticsearch:
    """Return a client; nothing is sent yet. It does not try again by itself: who calls decides.

    Raises:
        InputError: the URL is none, or both kinds of credentials are given.
    """
    if access.api_key and access.user:
        raise InputError("setting elastic_user", "stands beside an API key", right="give one of the two")
    given: dict[str, Any] = {"request_timeout": timeout_s, "max_retries": 0, "retry_on_timeout": False, **options}
    if access.api_key:
        given["api_key"] = access.api_key
    elif access.user:
        given["basic_auth"] = (access.user, access.password)
    if access.ca_file is not None:
        given["ca_certs"] = str(access.ca_file)
    try:
        return Elasticsearch(access.url, **given)
    except (ValueError, OSError) as error:
        raise InputError(
            f"setting elastic_url (TAPEWATCH_ELASTIC_URL): {access.url}", f"is wrong: {error}",
            right="write it such as https://logs.example:9200",
        ) from error  # fmt: skip


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Turn the client's errors within into ours: `what` names the wish, such as `putting the pipeline`."""
    try:
        yield
    except (elasticsearch.ApiError, elastic_transport.TransportError) as error:
        raise told(error, what) from error


def told(error: Exception, what: str) -> TapewatchError:
    """Return our error for one of the client's."""
    if isinstance(error, elastic_transport.TlsError):
        why = f"the certificate is not trusted ({_short(error)}): name its authority with TAPEWATCH_ELASTIC_CA_FILE"
        return PermanentError(f"{what}: {why}")
    if isinstance(error, elastic_transport.ConnectionTimeout):
        return TemporaryError(f"{what}: Elasticsearch did not answer in time")
    if isinstance(error, elasticsearch.UnsupportedProductError):
        return PermanentError(f"{what}: what answers there is no Elasticsearch")
    if isinstance(error, elastic_transport.TransportError):
        return TemporaryError(f"{what}: Elasticsearch cannot be reached: {_short(error)}")
    if isinstance(error, elasticsearch.ApiError):
        return answered(error.meta.status, reason_of(error.body) or _short(error), what)
    return PermanentError(f"{what}: {_short(error)}")


def answered(status: int, reason: str, what: str) -> TapewatchError:
    """Return our error for an answer that is one: of a whole request, or of one item of a bulk."""
    if status == _UNAUTHORIZED:
        return PermanentError(
            f"{what}: Elasticsearch does not know us (401): check TAPEWATCH_ELASTIC_USER and "
            "TAPEWATCH_ELASTIC_PASSWORD_FILE, or TAPEWATCH_ELASTIC_API_KEY_FILE"
        )
    # Blocks are named FORBIDDEN/8/index write (api); the disk's flood stage is a 429 that says read-only-allow-delete.
    if "FORBIDDEN/" in reason or "read-only" in reason:
        return ReadOnlyError(f"{what}: the index is read-only, as it is when the disk is nearly full: {reason}")
    if status in _BUSY:
        return TooBusyError(f"{what}: Elasticsearch is too busy ({status}): {reason}")
    return PermanentError(
        f"{what}: Elasticsearch {'forbids' if status == _FORBIDDEN else 'refuses'} it ({status}): {reason}"
    )


def reason_of(body: Any) -> str:
    """Return the reason within an error's body: the innermost one, which names the field or the setting."""
    error = body.get("error", body) if isinstance(body, dict) else body
    reasons: list[str] = []
    while isinstance(error, dict):
        if error.get("reason"):
            reasons.append(str(error["reason"]))
        error = error.get("caused_by")
    if not reasons:
        return str(error)[:300] if isinstance(error, str) else ""
    return reasons[0][:300] if len(reasons) == 1 else f"{reasons[0][:200]}: {reasons[-1][:200]}"


def _short(error: Exception) -> str:
    return (str(getattr(error, "message", "")) or str(error) or type(error).__name__).split("\n")[0][:200]
