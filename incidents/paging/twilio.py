"""Twilio: text messages and calls. No key; what was sent can be looked at; receipts come as signed callbacks.

A call that was completed was answered, by a person or by a machine: it proves that somebody's
telephone was picked up, not who listened.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from incidents.paging.answers import (
    PENDING,
    Answer,
    HttpAnswer,
    HttpRequest,
    Receipt,
    ReceiptKind,
    accepted,
    busy,
    doubtful,
    said,
    unsuccessful,
)
from incidents.paging.channel import FORM, Channel, Found, Order, ReceiptBy, Target, below
from incidents.paging.page import Event, Page
from incidents.paging.text import cut, xml
from kernel.time import Instant, to_rfc3339

API: Final = "https://api.twilio.com"
TEXT_LETTERS_MAX: Final = 1600
"""Error 21617 and 21658 beyond it (Twilio's error codes)."""
TEXT_LETTERS: Final = 459
"""Ours: three segments of a plain text message. Whoever is woken reads one screen."""
TWIML_LETTERS_MAX: Final = 4000
SPOKEN_LETTERS: Final = 500
_QUEUE_FULL: Final = 21611
_MESSAGE_ENDS: Final = {
    "delivered": ReceiptKind.DELIVERED, "read": ReceiptKind.DELIVERED,
    "undelivered": ReceiptKind.FAILED, "failed": ReceiptKind.FAILED, "canceled": ReceiptKind.FAILED,
}  # fmt: skip
_CALL_ENDS: Final = {
    "completed": ReceiptKind.DELIVERED, "busy": ReceiptKind.FAILED, "no-answer": ReceiptKind.FAILED,
    "failed": ReceiptKind.FAILED, "canceled": ReceiptKind.FAILED,
}  # fmt: skip


class _Twilio(Channel):
    """What both kinds share."""

    looks = True
    receipt_by = ReceiptBy.CALLBACK
    hosts = ("api.twilio.com",)
    resource: str
    since_field: str
    ends: Mapping[str, ReceiptKind]

    def fields(self, order: Order) -> dict[str, str]:
        """Return the form's own fields."""
        raise NotImplementedError

    def send(self, order: Order, target: Target) -> HttpRequest:
        """See `Channel`."""
        form = {"To": order.to, "From": target.sender, **self.fields(order)}
        if order.callback:
            form["StatusCallback"] = order.callback
        headers = {"Content-Type": FORM, **_authorization(target)}
        return HttpRequest("POST", self._url(target), headers, urlencode(form).encode())

    def read(self, answer: HttpAnswer, now: Instant) -> Answer:
        """See `Channel`. A full queue (21611) and too many requests (20429) come back; other 4xx are final."""
        value = answer.json()
        if answer.status == 201:  # noqa: PLR2004 - HTTP Created
            sid = value.get("sid")
            return accepted(sid) if isinstance(sid, str) and sid.isalnum() else doubtful("created without a sid")
        if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own numbers
            return doubtful(f"{answer.status} instead of 201")
        words = f"{value.get('code', '')} {value.get('message', '')}"
        if value.get("code") == _QUEUE_FULL:
            return busy(words)
        return unsuccessful(answer, now, words)

    def look(self, order: Order, target: Target) -> HttpRequest | None:
        """See `Channel`. The day is as exact as the list can be asked for; what is found is compared in full."""
        query = {"To": order.to, "From": target.sender, self.since_field: to_rfc3339(order.since)[:10]}
        return HttpRequest(
            "GET", f"{self._url(target)}?{urlencode({**query, 'PageSize': '100'})}", _authorization(target)
        )

    def poll(self, ref: str, target: Target) -> HttpRequest:
        """See `Channel`: callbacks may be lost, or never be able to reach us."""
        return HttpRequest("GET", below(self._url(target).removesuffix(".json"), f"{ref}.json"), _authorization(target))

    def receipt(self, answer: HttpAnswer) -> Receipt:
        """See `Channel`."""
        if answer.status != 200:  # noqa: PLR2004 - HTTP OK
            return PENDING
        value = answer.json()
        return self.ended(str(value.get("status", "")), str(value.get("error_code") or ""))

    def ended(self, word: str, error: str = "") -> Receipt:
        """Return what a status word means."""
        kind = self.ends.get(word)
        return PENDING if kind is None else Receipt(kind, said(f"{word} {error}".strip()))

    def _url(self, target: Target) -> str:
        return below(target.url, "2010-04-01/Accounts", target.account, f"{self.resource}.json")


class Sms(_Twilio):
    """A text message."""

    name = "sms"
    resource = "Messages"
    since_field = "DateSent>"
    ends = _MESSAGE_ENDS

    def fields(self, order: Order) -> dict[str, str]:
        """See `_Twilio`."""
        return {"Body": text_of(order)}

    def found(self, order: Order, answer: HttpAnswer) -> Found | None:
        """See `Channel`: the very text, which names the delivery."""
        if answer.status != 200:  # noqa: PLR2004 - HTTP OK
            return None
        mark = _mark(order)
        for one in _entries(answer, "messages"):
            if str(one.get("body", "")).endswith(mark) and one.get("to") == order.to:
                return Found(there=True, ref=str(one.get("sid", "")))
        return Found(there=False)


class Call(_Twilio):
    """A telephone call that reads the page out, twice."""

    name = "call"
    looks = False
    resource = "Calls"
    since_field = "StartTime>"
    ends = _CALL_ENDS
    receipt_s = 120.0

    def fields(self, order: Order) -> dict[str, str]:
        """See `_Twilio`."""
        return {"Twiml": twiml_of(order.page)}

    def found(self, order: Order, answer: HttpAnswer) -> Found | None:  # noqa: ARG002 - a call's list names no page
        """See `Channel`: a list of calls does not say what was read out, so it proves nothing."""
        return None

    def look(self, order: Order, target: Target) -> None:  # noqa: ARG002 - see found
        """See `Channel`."""
        return


def text_of(order: Order) -> str:
    """Return a text message: what it is, then where to look, then which delivery it is."""
    page, mark = order.page, _mark(order)
    link = f"\n{page.runbook_url}" if page.runbook_url else ""
    if len(link) > TEXT_LETTERS // 2:
        link = ""
    return cut(page.title, TEXT_LETTERS - len(link) - len(mark)) + link + mark


def _mark(order: Order) -> str:
    """Return what tells one text message from another of the same words."""
    return f" #{order.delivery[:12]}"


def twiml_of(page: Page) -> str:
    """Return what a call says."""
    kind = "A test" if page.test else "Resolved" if page.event is Event.RESOLVE else f"Alert of level {page.level}"
    words = f"Tapewatch. {kind}. {page.title.split('] ', 1)[-1]}. Team {page.team}."
    spoken = cut(words, SPOKEN_LETTERS, escape=xml)
    twiml = f'<Response><Say>{spoken}</Say><Pause length="1"/><Say>{spoken}</Say></Response>'
    assert len(twiml) <= TWIML_LETTERS_MAX, "twice 500 letters and their frame"
    return twiml


def _entries(answer: HttpAnswer, key: str) -> Iterable[Mapping[str, object]]:
    listed = answer.json().get(key)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _authorization(target: Target) -> dict[str, str]:
    token = base64.b64encode(f"{target.account}:{target.secret}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


def signature(secret: str, url: str, form: Iterable[tuple[str, str]]) -> str:
    """Return a callback's signature: base64 of HMAC-SHA1 over the public address and the sorted fields."""
    text = url + "".join(name + value for name, value in sorted(form))
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()).decode()


def signed(secret: str, url: str, form: Iterable[tuple[str, str]], given: str) -> bool:
    """Tell whether a callback is Twilio's; its address is signed with the port, or without."""
    fields = list(form)
    return any(hmac.compare_digest(signature(secret, one, fields).encode(), given.encode()) for one in _addresses(url))


def _addresses(url: str) -> tuple[str, ...]:
    parts = urlsplit(url)
    usual = 443 if parts.scheme == "https" else 80
    host = parts.hostname or ""
    without = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    with_port = urlunsplit((parts.scheme, f"{host}:{parts.port or usual}", parts.path, parts.query, ""))
    return (url, with_port, without)
