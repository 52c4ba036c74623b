"""Slack's chat.postMessage: no key. A doubtful post is looked for by its metadata before it is posted again."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from incidents.paging.answers import Answer, HttpAnswer, HttpRequest, accepted, busy, doubtful, refused, unsuccessful
from incidents.paging.channel import Channel, Found, Order, Target, below, post_json
from incidents.paging.page import Page
from incidents.paging.text import cut, mrkdwn
from kernel.time import SECOND, Instant

HEADER_LETTERS_MAX: Final = 150
SECTION_LETTERS_MAX: Final = 3000
"""One section holds all lines: far below the about 13,200 letters of all blocks that Slack takes."""
TEXT_LETTERS: Final = 1_000
EVENT_TYPE: Final = "tapewatch_page"
_MAY_HAVE_POSTED: Final = frozenset({"internal_error", "fatal_error", "request_timeout"})
_COME_BACK: Final = frozenset({"ratelimited", "rate_limited", "service_unavailable"})


class Slack(Channel):
    """A channel of Slack by its Web API."""

    name = "slack"
    looks = True
    hosts = ("slack.com",)

    def send(self, order: Order, target: Target) -> HttpRequest:
        """See `Channel`. A header block is plain text; in sections the letters of mentions and links are escaped."""
        page = order.page
        value: dict[str, Any] = {
            "channel": order.to,
            "text": cut(page.title, TEXT_LETTERS, escape=mrkdwn),
            "blocks": _blocks(page),
            "unfurl_links": False,
            "unfurl_media": False,
            "metadata": {"event_type": EVENT_TYPE, "event_payload": {"delivery": order.delivery}},
        }
        return post_json(below(target.url, "api/chat.postMessage"), value, Authorization=f"Bearer {target.secret}")

    def read(self, answer: HttpAnswer, now: Instant) -> Answer:
        """See `Channel`. A 200 with `ok: false` is a failure: most are final, some may have posted all the same."""
        if answer.status != 200:  # noqa: PLR2004 - HTTP OK
            return unsuccessful(answer, now)
        value = answer.json()
        if value.get("ok") is True:
            return accepted(str(value.get("ts", "")))
        error = str(value.get("error", "no JSON"))
        if error in _COME_BACK:
            return busy(error)
        return doubtful(error) if error in _MAY_HAVE_POSTED or not value else refused(error)

    def look(self, order: Order, target: Target) -> HttpRequest:
        """See `Channel`: the channel's messages since a little before the first try."""
        oldest = f"{(order.since - 5 * SECOND) / SECOND:.6f}"
        query = {"channel": order.to, "oldest": oldest, "include_all_metadata": "true", "limit": "200"}
        url = f"{below(target.url, 'api/conversations.history')}?{urlencode(query)}"
        return HttpRequest("GET", url, {"Authorization": f"Bearer {target.secret}"})

    def found(self, order: Order, answer: HttpAnswer) -> Found | None:
        """See `Channel`. Without the right to read the channel, nothing is told."""
        value = answer.json()
        messages = value.get("messages")
        if answer.status != 200 or value.get("ok") is not True or not isinstance(messages, list):  # noqa: PLR2004
            return None
        wanted = {"event_type": EVENT_TYPE, "event_payload": {"delivery": order.delivery}}
        for message in messages:
            if isinstance(message, dict) and message.get("metadata") == wanted:
                return Found(there=True, ref=str(message.get("ts", "")))
        return None if value.get("has_more") else Found(there=False)


def _blocks(page: Page) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": cut(page.title, HEADER_LETTERS_MAX)}}
    ]
    text = cut("\n".join(page.lines), SECTION_LETTERS_MAX, escape=mrkdwn)
    blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    facts = f"{page.severity} · level {page.level} · team {page.team} · {page.firing} firing"
    links = [
        f"<{url}|{text}>"
        for text, url in (("Runbook", page.runbook_url), ("Dashboard", page.dashboard_url))
        if url and "|" not in url
    ]
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join([mrkdwn(facts), *links])}]})
    return blocks
