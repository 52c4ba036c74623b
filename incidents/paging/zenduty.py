"""Zenduty: a generic integration. Keyed by entity_id; the answer's trace_id is asked for what became of it."""

from __future__ import annotations

from typing import Final

from incidents.paging.answers import (
    PENDING,
    Answer,
    HttpAnswer,
    HttpRequest,
    Receipt,
    ReceiptKind,
    accepted,
    doubtful,
    said,
    unsuccessful,
)
from incidents.paging.channel import Channel, Order, ReceiptBy, Target, below, post_json
from incidents.paging.page import Event
from incidents.paging.text import cut
from kernel.time import Instant

MESSAGE_LETTERS_MAX: Final = 250
"""Ours: an incident's title. Zenduty names no limit that we could find."""
SUMMARY_LETTERS_MAX: Final = 5_000
_STATUS_URL: Final = "https://events.zenduty.com"
_GOOD: Final = frozenset({"success", "processed", "created", "done", "completed"})
_BAD: Final = frozenset({"failed", "failure", "error", "dropped", "rejected", "invalid", "discarded"})


class Zenduty(Channel):
    """A generic integration of Zenduty."""

    name = "zenduty"
    keyed = True
    receipt_by = ReceiptBy.POLL
    hosts = ("zenduty.com", ".zenduty.com")

    def send(self, order: Order, target: Target) -> HttpRequest:
        """See `Channel`."""
        page = order.page
        urls = [
            {"link_url": url, "link_text": text}
            for text, url in (("Runbook", page.runbook_url), ("Dashboard", page.dashboard_url))
            if url
        ]
        value = {
            "message": cut(page.title, MESSAGE_LETTERS_MAX),
            "summary": cut("\n".join(page.lines), SUMMARY_LETTERS_MAX),
            "alert_type": "resolved" if page.event is Event.RESOLVE else str(page.severity),
            "entity_id": page.key,
            "payload": {
                "level": str(page.level), "team": page.team, "service": page.service, "firing": str(page.firing),
                "test": "true" if page.test else "false",
            },
            "urls": urls,
        }  # fmt: skip
        return post_json(target.url, value)

    def read(self, answer: HttpAnswer, now: Instant) -> Answer:
        """See `Channel`. 401 and 404 say that the integration is off or gone: final, and shown."""
        if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own numbers
            trace = answer.json().get("trace_id")
            if isinstance(trace, str) and trace.replace("-", "").isalnum():
                return accepted(trace)
            return doubtful("a success without a trace_id")
        return unsuccessful(answer, now, answer.json().get("message", ""))

    def poll(self, ref: str, target: Target) -> HttpRequest:
        """See `Channel`. `account` replaces the address of the status page, for tests."""
        return HttpRequest("GET", below(target.account or _STATUS_URL, "api/alert/status", ref))

    def receipt(self, answer: HttpAnswer) -> Receipt:
        """See `Channel`. Its shape is not published: an incident, or a word that says so, is taken for delivery."""
        value = answer.json()
        if answer.status != 200:  # noqa: PLR2004 - HTTP OK
            return PENDING
        word = str(value.get("status", "")).lower()
        if word in _BAD:
            return Receipt(ReceiptKind.FAILED, said(f"{word} {value.get('message', '')}"))
        if word in _GOOD or value.get("incident_number") or value.get("incident"):
            return Receipt(ReceiptKind.DELIVERED, said(f"incident {value.get('incident_number', '')}".strip()))
        return PENDING
