"""OpsGenie and Jira Service Management Operations: keyed by alias; a request's id is asked for what became of it."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

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

MESSAGE_LETTERS_MAX: Final = 130
DESCRIPTION_LETTERS_MAX: Final = 15_000
_ALREADY_GONE: Final = "does not exist"


class OpsGenie(Channel):
    """OpsGenie's alert API; with the address of Jira Service Management the same body and key."""

    name = "opsgenie"
    keyed = True
    receipt_by = ReceiptBy.POLL
    hosts = ("api.opsgenie.com", "api.eu.opsgenie.com", "api.atlassian.com")

    def send(self, order: Order, target: Target) -> HttpRequest:
        """See `Channel`. The end of an alert closes its alias."""
        page, authorization = order.page, f"GenieKey {target.secret}"
        if page.event is Event.RESOLVE:
            url = below(target.url, "v2/alerts", quote(page.key, safe=""), "close") + "?identifierType=alias"
            return post_json(url, {"source": "tapewatch"}, Authorization=authorization)
        value: dict[str, Any] = {
            "message": cut(page.title, MESSAGE_LETTERS_MAX),
            "alias": page.key,
            "description": cut("\n".join(page.lines), DESCRIPTION_LETTERS_MAX),
            "priority": f"P{page.level}",
            "source": "tapewatch",
            "tags": ["test"] if page.test else [],
            "details": {
                key: text
                for key, text in (
                    ("team", page.team), ("service", page.service), ("level", str(page.level)),
                    ("runbook", page.runbook_url), ("dashboard", page.dashboard_url),
                )
                if text
            },
        }  # fmt: skip
        return post_json(below(target.url, "v2/alerts"), value, Authorization=authorization)

    def read(self, answer: HttpAnswer, now: Instant) -> Answer:
        """See `Channel`. 202 says queued: whether it was made, the request's id tells."""
        if answer.status == 202:  # noqa: PLR2004 - HTTP Accepted
            ref = answer.json().get("requestId")
            return accepted(ref) if isinstance(ref, str) and ref else doubtful("accepted without a requestId")
        if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own numbers
            return doubtful(f"{answer.status} instead of 202")
        return unsuccessful(answer, now, answer.json().get("message", ""))

    def poll(self, ref: str, target: Target) -> HttpRequest:
        """See `Channel`."""
        url = below(target.url, "v2/alerts/requests", quote(ref, safe=""))
        return HttpRequest("GET", url, {"Authorization": f"GenieKey {target.secret}"})

    def receipt(self, answer: HttpAnswer) -> Receipt:
        """See `Channel`. Closing what is closed already is no failure."""
        data = answer.json().get("data")
        if answer.status != 200 or not isinstance(data, dict) or not isinstance(data.get("isSuccess"), bool):  # noqa: PLR2004
            return PENDING
        status = said(data.get("status", ""))
        closed = _ALREADY_GONE in status and str(data.get("action", "")).lower() == "close"
        return Receipt(ReceiptKind.DELIVERED if data["isSuccess"] or closed else ReceiptKind.FAILED, status)
