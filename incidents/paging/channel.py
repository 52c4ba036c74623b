"""What a channel is: how a page is put for a provider, how its answers and receipts are read. No I/O.

A channel is *keyed* when the provider keeps one alert for a key, so that sending again is harmless. One that is not may
be *looked at* before a doubtful page is sent again, or it is sent again and a person may be told twice: that is better
than not at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec

from incidents.paging.answers import PENDING, Answer, HttpAnswer, HttpRequest, Receipt
from incidents.paging.page import Page
from kernel.time import Instant

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"


NEVER: Final = Instant(0)


class ReceiptBy(StrEnum):
    """How it is learned what became of an accepted page."""

    NOTHING = "nothing"
    """The provider has no receipt: accepted is all that will ever be known."""
    POLL = "poll"
    CALLBACK = "callback"


@dataclass(frozen=True)
class Target:
    """Where a channel's pages go. It holds secrets: never show it."""

    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    account: str = ""
    sender: str = ""


@dataclass(frozen=True)
class Order:
    """One page for one recipient."""

    delivery: str
    page: Page
    to: str = ""
    callback: str = field(default="", repr=False)
    """Where the provider tells what became of it; empty: nowhere."""
    since: Instant = NEVER
    """When it was first tried."""


class Found(msgspec.Struct, frozen=True):
    """What a look at the provider told."""

    there: bool
    ref: str = ""


class Channel(ABC):
    """The dialect of one provider."""

    name: str
    keyed: bool = False
    looks: bool = False
    receipt_by: ReceiptBy = ReceiptBy.NOTHING
    receipt_s: float = 60.0
    """A receipt that is missing for so long is overdue."""
    hosts: tuple[str, ...]
    """The only hosts it speaks to; one that begins with a dot stands for every host below it."""

    @abstractmethod
    def send(self, order: Order, target: Target) -> HttpRequest:
        """Return the request that sends a page."""

    @abstractmethod
    def read(self, answer: HttpAnswer, now: Instant) -> Answer:
        """Return what the answer to `send` means."""

    def look(self, order: Order, target: Target) -> HttpRequest | None:  # noqa: ARG002 - those that cannot look
        """Return the request that looks whether a doubtful page has arrived; None: it cannot be looked."""
        return None

    def found(self, order: Order, answer: HttpAnswer) -> Found | None:  # noqa: ARG002 - those that cannot look
        """Return what the answer to `look` tells; None: nothing."""
        return None

    def poll(self, ref: str, target: Target) -> HttpRequest | None:  # noqa: ARG002 - those without receipts
        """Return the request that asks what became of an accepted page; None: it cannot be asked."""
        return None

    def receipt(self, answer: HttpAnswer) -> Receipt:  # noqa: ARG002 - those without receipts
        """Return what the answer to `poll` tells."""
        return PENDING


def post_json(url: str, value: Any, **headers: str) -> HttpRequest:
    """Return a POST of JSON; header names are given with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return HttpRequest("POST", url, {"Content-Type": JSON, **named}, msgspec.json.encode(value))


def below(url: str, *parts: str) -> str:
    """Return an address below another one."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts)])
