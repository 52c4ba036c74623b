"""What is sent to a provider, what it answers, and what the answer means for a page: all of it values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from incidents.paging.text import cut, one_line
from kernel.time import Instant, seconds, to_seconds

REASON_LETTERS_MAX: Final = 200
WAIT_S_MAX: Final = 24 * 3600.0


@dataclass(frozen=True)
class HttpRequest:
    """A request as it leaves. It holds secrets (the URL may, too): never show it."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class HttpAnswer:
    """A provider's answer; header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Mapping[str, Any]:
        """Return the body's JSON object, empty when it is none."""
        try:
            value = msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {}
        return value if isinstance(value, dict) else {}


class AnswerKind(StrEnum):
    """What an attempt came to."""

    ACCEPTED = "accepted"
    """The provider has it."""
    REFUSED = "refused"
    """It will never take it: trying again changes nothing."""
    BUSY = "busy"
    """It does not have it and asks to come back."""
    DOUBTFUL = "doubtful"
    """Nobody knows whether it has it: a time-out, a cut connection, an error of its own."""


class Answer(msgspec.Struct, frozen=True):
    """The meaning of a provider's answer."""

    kind: AnswerKind
    reason: str = ""
    ref: str = ""
    """What the provider calls it: to ask for a receipt."""
    wait_s: float | None = None
    """How long it asked us to wait."""


class ReceiptKind(StrEnum):
    """What became of a page that the provider had accepted."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Receipt(msgspec.Struct, frozen=True):
    """What a provider says became of a page."""

    kind: ReceiptKind
    reason: str = ""


PENDING: Final = Receipt(ReceiptKind.PENDING)


def accepted(ref: str = "", reason: str = "") -> Answer:
    """Say that the provider has it."""
    return Answer(AnswerKind.ACCEPTED, said(reason), str(ref)[:REASON_LETTERS_MAX])


def refused(reason: str) -> Answer:
    """Say that the provider will never take it."""
    return Answer(AnswerKind.REFUSED, said(reason))


def doubtful(reason: str) -> Answer:
    """Say that nobody knows whether the provider has it."""
    return Answer(AnswerKind.DOUBTFUL, said(reason))


def busy(reason: str, wait_s: float | None = None) -> Answer:
    """Say that the provider asks to come back, after `wait_s` when it named a wait."""
    return Answer(AnswerKind.BUSY, said(reason), wait_s=wait_s)


def said(text: object) -> str:
    """Return a stranger's words as they may stand in a reason: one clean line."""
    return cut(one_line(str(text)), REASON_LETTERS_MAX)


def unsuccessful(answer: HttpAnswer, now: Instant, why: object = "") -> Answer:
    """Read an answer that is no success: 5xx and 429 come back, everything else is final.

    503 and 429 say that nothing was taken; after another 5xx it may have been.
    """
    words = said(f"{answer.status} {why}".strip())
    match answer.status:
        case 429 | 503:
            return busy(words, retry_after_s(answer, now))
        case status if status >= 500 or status == 408:  # noqa: PLR2004 - HTTP's own numbers
            return doubtful(words)
        case _:
            return refused(words)


def retry_after_s(answer: HttpAnswer, now: Instant) -> float | None:
    """Return the seconds a provider asked us to wait: the header, or `retry_after` in the body; None: it named none."""
    for word in (
        answer.headers.get("retry-after"),
        answer.headers.get("x-ratelimit-period-in-sec"),
        answer.json().get("retry_after"),
        _inner(answer.json().get("parameters"), "retry_after"),
    ):
        wait_s = _wait_s(word, now)
        if wait_s is not None:
            return wait_s
    return None


def _inner(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _wait_s(word: object, now: Instant) -> float | None:
    """Read seconds, or a date as HTTP writes it."""
    if isinstance(word, bool) or not isinstance(word, int | float | str):
        return None
    try:
        wait_s = float(word)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(str(word)).timestamp() - to_seconds(now)
        except (ValueError, OverflowError, TypeError):
            return None
    if wait_s != wait_s:  # noqa: PLR0124 - not a number is the one value that differs from itself
        return None
    return to_seconds(seconds(min(max(wait_s, 0.0), WAIT_S_MAX)))
