"""PagerDuty's Events API v2: keyed by dedup_key. 202 is all it tells: what is done with the event stays its own."""

from __future__ import annotations

from typing import Any, Final

from incidents.paging.answers import Answer, HttpAnswer, HttpRequest, accepted, doubtful, unsuccessful
from incidents.paging.channel import Channel, Order, Target, below, post_json
from incidents.paging.page import Event
from incidents.paging.text import cut
from kernel.time import Instant, to_rfc3339

SUMMARY_LETTERS_MAX: Final = 1024
DETAIL_LETTERS_MAX: Final = 15_000
"""Ours, far below the 512 KB an event may have."""


class PagerDuty(Channel):
    """An integration of PagerDuty's Events API v2."""

    name = "pagerduty"
    keyed = True
    hosts = ("events.pagerduty.com", "events.eu.pagerduty.com")

    def send(self, order: Order, target: Target) -> HttpRequest:
        """See `Channel`."""
        page = order.page
        value: dict[str, Any] = {
            "routing_key": target.secret,
            "event_action": str(page.event),
            "dedup_key": page.key,
        }
        if page.event is Event.TRIGGER:
            value["payload"] = {
                "summary": cut(page.title, SUMMARY_LETTERS_MAX),
                "source": page.service,
                "severity": str(page.severity),
                "timestamp": to_rfc3339(page.received_at),
                "component": page.service,
                "group": page.team,
                "custom_details": {
                    "alerts": cut("\n".join(page.lines), DETAIL_LETTERS_MAX), "level": str(page.level),
                    "test": "true" if page.test else "false",
                },
            }  # fmt: skip
            value["links"] = [
                {"href": url, "text": text}
                for text, url in (("Runbook", page.runbook_url), ("Dashboard", page.dashboard_url))
                if url
            ]
        return post_json(below(target.url, "v2/enqueue"), value)

    def read(self, answer: HttpAnswer, now: Instant) -> Answer:
        """See `Channel`. A 202 for the end of an alert that is not open is dropped there, and looks the same."""
        value = answer.json()
        if answer.status == 202:  # noqa: PLR2004 - HTTP Accepted
            return accepted(str(value.get("dedup_key", "")), "accepted; PagerDuty tells no more")
        if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own numbers
            return doubtful(f"{answer.status} instead of 202")
        errors = value.get("errors")
        more = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
        return unsuccessful(answer, now, f"{value.get('message', '')} {more}")
