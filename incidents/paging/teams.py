"""Microsoft Teams: an adaptive card to a workflow's address. Queued there, no receipt, no key, nothing to look at."""

from __future__ import annotations

from typing import Any, Final

from incidents.paging.answers import Answer, HttpAnswer, HttpRequest, accepted, said, unsuccessful
from incidents.paging.channel import Channel, Order, Target, post_json
from incidents.paging.page import Event, Page
from incidents.paging.text import cut
from kernel.time import Instant

BODY_BYTES_MAX: Final = 28 * 1024
"""A message's size limit in Teams (learn.microsoft.com, limits of connectors and workflows)."""
TITLE_LETTERS_MAX: Final = 400
_CARD: Final = "application/vnd.microsoft.card.adaptive"
_COLORS: Final = {"critical": "Attention", "warning": "Warning", "info": "Accent"}


class Teams(Channel):
    """A Teams workflow ("post to a channel when a webhook request is received")."""

    name = "teams"
    hosts = (".logic.azure.com", ".api.powerplatform.com", ".webhook.office.com")

    def send(self, order: Order, target: Target) -> HttpRequest:
        """See `Channel`. Lines that do not fit are left out from the end, and said to be."""
        lines = list(order.page.lines)
        left_out = 0
        request = post_json(target.url, _message(order.page, lines, left_out))
        while len(request.body) > BODY_BYTES_MAX and lines:
            lines.pop()
            left_out += 1
            request = post_json(target.url, _message(order.page, lines, left_out))
        assert len(request.body) <= BODY_BYTES_MAX, "a card without lines is short"
        return request

    def read(self, answer: HttpAnswer, now: Instant) -> Answer:
        """See `Channel`. 202 says queued, and nothing tells what became of it."""
        if answer.status in {200, 202}:
            return accepted(reason="queued; Teams tells no more" if answer.status == 202 else "")  # noqa: PLR2004
        return unsuccessful(answer, now, said(answer.body.decode(errors="replace")))


def _message(page: Page, lines: list[str], left_out: int) -> dict[str, Any]:
    """Return the message. Text stands in text runs, which know no markup (Adaptive Cards 1.2)."""
    color = "Good" if page.event is Event.RESOLVE else _COLORS[page.severity]
    facts = f"{page.severity}, level {page.level}, team {page.team}, service {page.service}, {page.firing} firing"
    shown = [*lines, f"({left_out} lines left out)"] if left_out else lines
    body = [_run(cut(page.title, TITLE_LETTERS_MAX), weight="Bolder", size="Medium", color=color), _run(facts)]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.2",
        "body": [*body, *(_run(line) for line in shown)],
        "actions": [
            {"type": "Action.OpenUrl", "title": title, "url": url}
            for title, url in (("Runbook", page.runbook_url), ("Dashboard", page.dashboard_url))
            if url
        ],
    }
    return {"type": "message", "attachments": [{"contentType": _CARD, "content": card}]}


def _run(text: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}
